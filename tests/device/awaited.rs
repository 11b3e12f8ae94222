//! The async calls on an executor: they compute the same as the blocking calls, and do not block the executor's thread.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use gpuconv::tuner::{self, Options, Outcome};
use gpuconv::verify::Oracle;
use gpuconv::{Chain, Choice, Conv2d, GpuConv, Layer, Layout, Problem, Shape, Tensor, probe};

use crate::common::{borrow, draw, expected, gpu, listen};

/// Polls a future once, as an executor does.
fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Compiles only for a future that can move to another thread.
fn send<T>(future: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    future
}

/// Runs a future while another thread polls the device. This thread is not in the library's `block_on`.
fn with_polls<T>(gpu: &GpuConv, future: impl Future<Output = T>) -> T {
    struct End<'a>(&'a AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && gpu.device().poll(wgpu::PollType::Poll).is_ok() {
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        // Also if the future panics.
        let _end = End(&done);
        pollster::block_on(future)
    })
}

/// The result of some work on a thread of its own, which may take ten seconds.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = channel();
    std::thread::spawn(move || sender.send(work()));
    result.recv_timeout(Duration::from_secs(10)).expect("it panicked, or waits forever")
}

/// A layer, its input and its answer.
fn subject(gpu: &GpuConv) -> (Arc<Layer>, Tensor, Vec<f32>) {
    let (chain, shape) = (Chain::from(Conv2d::pointwise(4, 5)), Shape::from([1, 4, 3, 5]));
    let (weights, input) = (draw(&chain), gpuconv::internals::random::integers("input", shape.len(), 2));
    let answer = expected(&chain, &input, shape, &borrow(&weights), None);
    let layer = gpu.chain(&chain, &borrow(&weights)).unwrap();
    (Arc::new(layer), gpu.upload(&input, shape).unwrap(), answer)
}

/// Starts a call on a thread that stops when it has compiled its first shader. Returns when that is so. The thread goes
/// on when the sender is dropped.
fn stopped_at_a_shader<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Sender<()> {
    let ((began, begun), (finish, finished)) = (channel(), channel::<()>());
    let stop = move |_: &str, line: &str| {
        if line.starts_with("compiled ") {
            let _ = began.send(());
            let _ = finished.recv_timeout(Duration::from_secs(60));
        }
    };
    std::thread::spawn(|| listen(stop, call));
    begun.recv_timeout(Duration::from_secs(60)).expect("it needs a shader");
    finish
}

#[test]
fn async_calls_compute_the_same_as_blocking_calls() {
    let gpu = pollster::block_on(send(GpuConv::new_async())).unwrap();
    let chain = Chain::inverted_residual(4, 4, 3, 1);
    let (weights, shape) = (draw(&chain), Shape::from([1, 4, 5, 6]));
    let input = gpuconv::internals::random::integers("input", shape.len(), 2);
    let answer = expected(&chain, &input, shape, &borrow(&weights), None);
    let layer = gpu.chain(&chain, &borrow(&weights)).unwrap();
    let calls = async {
        layer.warm_up_async(shape, Layout::Nchw).await?;
        let x = gpu.upload_async(&vec![0.0; input.len()], shape).await?;
        gpu.write_async(&x, &input).await?;
        let y = layer.forward_async(&x).await?;
        let forward = gpu.download_async(&y).await?;

        let y = gpu.empty_async(shape, Layout::Nchw).await?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        // The second call uses the cached binding.
        layer.encode_async(&mut encoder, &x, &y).await?;
        layer.encode_async(&mut encoder, &x, &y).await?;
        layer.bind_async(&x, &y).await?.encode(&mut encoder);
        let encoded = gpu.encode_download_async(&mut encoder, &y).await?;
        gpu.queue().submit([encoder.finish()]);
        gpu.wait_async().await?;
        let schedule = layer.schedule_async(shape, Layout::Nchw).await?;
        Ok::<_, gpuconv::Error>((forward, encoded.read_async().await?, schedule))
    };
    let (forward, encoded, schedule) = with_polls(&gpu, send(calls)).unwrap();
    assert_eq!((forward, encoded), (answer.clone(), answer));
    assert_eq!(schedule.name(), layer.schedule(shape, Layout::Nchw).unwrap().name());
}

/// These wait for the device many times.
#[test]
fn tuning_and_checks_run_on_an_executor() {
    let gpu = gpu();
    let problem: Problem = "pointwise 1x4x5x5 -> 8".parse().unwrap();
    let calls = async {
        let options = Options::within(Duration::from_millis(200));
        let tuned = gpu.tune_async(&problem.chain(), problem.input, problem.layout, &options).await?;
        let schedule = gpu.schedule(&problem.chain(), problem.input, problem.layout, &Choice::Auto)?;
        let report = Oracle::new(&problem)?.check_async(&gpu, &schedule).await?;
        let seconds = tuner::measure_async(&gpu, &problem.chain(), problem.input, problem.layout, &schedule).await?;
        Ok::<_, gpuconv::Error>((tuned, report, seconds, probe::probe_async(&gpu).await?))
    };
    let (tuned, report, seconds, rates) = with_polls(&gpu, send(calls)).unwrap();
    assert!(matches!(tuned.runs[0].candidates[0].outcome, Outcome::Right(_)), "{tuned:?}");
    assert!(report.passes(), "{report:?}");
    assert!(seconds.len() == 1 && rates.mult_adds > 0.0, "{seconds:?} {rates:?}");
}

/// A future that waits for the device returns to its executor, whose thread may be the one that polls.
#[test]
fn awaiting_the_device_does_not_block() {
    let gpu = gpu();
    let layer = gpu.pointwise(&Conv2d::pointwise(1, 1), gpuconv::Weights::new(&[2.0], &[1.0])).unwrap();
    let y = layer.forward(&gpu.upload(&[3.0], [1, 1, 1, 1]).unwrap()).unwrap();
    let (mut wait, mut values) = (pin!(gpu.wait_async()), pin!(gpu.download_async(&y)));
    assert_eq!(poll_once(wait.as_mut()), None);
    // This polls the device.
    gpu.wait().unwrap();
    assert_eq!(poll_once(wait.as_mut()), Some(Ok(())));
    assert_eq!(poll_once(values.as_mut()), Some(Ok(vec![7.0])));
}

/// A future that needs a plan that another thread is making returns to its executor. If nobody polls it then, others
/// that need the plan get it all the same.
#[test]
fn awaiting_what_another_thread_compiles_does_not_block() {
    let gpu = gpu();
    let (layer, x, answer) = subject(&gpu);
    let (other, input) = (layer.clone(), x.clone());
    let finish = stopped_at_a_shader(move || other.forward(&input).unwrap());
    let mut forward = Box::pin(layer.forward_async(&x));
    assert_eq!(poll_once(forward.as_mut()), None);
    let (other, input) = (layer.clone(), x.clone());
    let y = in_time(move || {
        // It waits behind the future, until long after this.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(finish);
        });
        other.forward(&input).unwrap()
    });
    assert_eq!(gpu.download(&y).unwrap(), answer);
    let y = pollster::block_on(forward).unwrap();
    assert_eq!(gpu.download(&y).unwrap(), answer);
}

/// A future that was polled once, while another thread compiled a shader for it, holds nothing that a blocking call on
/// the same thread waits for.
#[test]
fn a_future_that_is_not_polled_holds_nothing() {
    let gpu = gpu();
    let (layer, x, answer) = subject(&gpu);
    // It has a plan of its own, for the same shader.
    let ((other, ..), input) = (subject(&gpu), x.clone());
    let finish = stopped_at_a_shader(move || other.forward(&input).unwrap());
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(finish);
    });
    let y = in_time(move || {
        let mut forward = Box::pin(layer.forward_async(&x));
        let _ = poll_once(forward.as_mut());
        layer.forward(&x).unwrap()
    });
    assert_eq!(gpu.download(&y).unwrap(), answer);
}
