//! Eight threads use one device and its layers at the same time. Results are the same, each plan and each shader is
//! made once, and no thread waits forever, or for another thread's compilation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use gpuconv::internals::random;
use gpuconv::{Activation, Chain, Choice, Conv2d, GpuConv, Layer, Layout, Separable, Shape, Tensor, Weights, shape};

use crate::common::{borrow, draw, expected, gpu, listen};

const THREADS: usize = 8;

/// Runs something in eight threads that start together. Fails after a timeout, because then they wait for each other.
fn in_threads<T: Send + 'static>(work: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let (work, start, (sender, results)) = (Arc::new(work), Arc::new(Barrier::new(THREADS)), channel());
    for thread in 0..THREADS {
        let (work, start, sender) = (work.clone(), start.clone(), sender.clone());
        std::thread::spawn(move || {
            start.wait();
            let _ = sender.send(work(thread));
        });
    }
    drop(sender);
    // A thread that panics sends nothing, so collect the results of the others.
    let next = || results.recv_timeout(Duration::from_secs(120));
    let results: Vec<_> = (0..THREADS).map_while(|_| next().ok()).collect();
    assert_eq!(results.len(), THREADS, "a thread panicked, or waits forever");
    results
}

/// A chain with weights, and the oracle's answers for inputs of some sizes.
struct Subject {
    chain: Chain,
    weights: Vec<(Vec<f32>, Vec<f32>)>,
    cases: Vec<(Shape, Vec<f32>, Vec<f32>)>,
}

impl Subject {
    fn new(chain: Chain, shapes: &[[u32; 4]]) -> Self {
        let weights = draw(&chain);
        let mut subject = Self { chain, weights, cases: Vec::new() };
        for &shape in shapes {
            let shape = Shape::from(shape);
            let input = random::integers("input", shape.len(), 2);
            let answer = expected(&subject.chain, &input, shape, &subject.weights(), None);
            subject.cases.push((shape, input, answer));
        }
        subject
    }

    fn weights(&self) -> Vec<Weights<'_>> {
        borrow(&self.weights)
    }

    fn layer(&self, gpu: &GpuConv, choice: Choice) -> Layer {
        gpu.chain_with(&self.chain, &self.weights(), choice).unwrap()
    }
}

/// Every thread computes every case, in its own order, by `forward` and by `encode`, with blocking and with async
/// read-backs.
#[test]
fn eight_threads_get_the_same_answers() {
    let gpu = gpu();
    let separable = Separable::new(8, 12, 3).padding(1).activation(Activation::Relu6);
    let subjects = Arc::new([
        Subject::new((&separable).into(), &[[1, 8, 9, 9], [2, 8, 5, 6]]),
        Subject::new(Chain::inverted_residual(4, 4, 3, 1), &[[3, 4, 5, 6], [1, 4, 8, 8]]),
    ]);
    let layers = Arc::new(subjects.each_ref().map(|subject| subject.layer(&gpu, Choice::Auto)));
    let counts = in_threads(move |thread| {
        let mut checked = 0;
        for round in 0..16 {
            let turn = round + thread * 5;
            let (subject, layer) = (&subjects[turn % 2], &layers[turn % 2]);
            let (shape, input, right) = &subject.cases[turn / 2 % 2];
            let layout = [Layout::Nchw, Layout::Nhwc][turn / 4 % 2];
            let x = gpu.upload_as(&shape::from_nchw(input, *shape, layout), *shape, layout).unwrap();
            let output = layer.output_shape(*shape).unwrap();
            let values = if turn / 8 % 2 == 0 {
                let y = layer.forward(&x).unwrap();
                let values = gpu.download_async(&y);
                gpu.wait().unwrap();
                pollster::block_on(values).unwrap()
            } else {
                let y = gpu.empty(output, layout).unwrap();
                let mut encoder = gpu.device().create_command_encoder(&Default::default());
                layer.encode(&mut encoder, &x, &y).unwrap();
                let readback = gpu.encode_download(&mut encoder, &y).unwrap();
                gpu.queue().submit([encoder.finish()]);
                readback.read().unwrap()
            };
            assert_eq!(&shape::to_nchw(&values, output, layout), right, "{shape} {layout}");
            checked += 1;
        }
        checked
    });
    assert_eq!(counts, [16; THREADS]);
}

#[test]
fn plans_and_shaders_are_made_once() {
    let gpu = gpu();
    let subject = Subject::new(Conv2d::new(3, 5, 3).padding(1).into(), &[[1, 3, 6, 6]]);
    let (shape, input, right) = subject.cases[0].clone();
    let layers = [(); 2].map(|()| subject.layer(&gpu, Choice::Named("direct/4x1".into())));
    let compiled = Arc::new(AtomicUsize::new(0));
    let count = compiled.clone();
    let plans = in_threads(move |thread| {
        let (layers, count) = (&layers, count.clone());
        let hear = move |_: &str, line: &str| {
            count.fetch_add(usize::from(line == "compiled direct/4x1"), Ordering::Relaxed);
        };
        let layer = &layers[thread % 2];
        let y = listen(hear, || layer.forward(&gpu.upload(&input, shape).unwrap()).unwrap());
        assert_eq!(gpu.download(&y).unwrap(), right);
        (thread % 2, layer.schedule(shape, Layout::Nchw).unwrap().considered)
    });
    for (layer, considered) in &plans {
        for (other, others) in &plans {
            assert_eq!(Arc::ptr_eq(considered, others), layer == other, "one plan for each layer");
        }
    }
    // Both layers and all threads share the shader.
    assert_eq!(compiled.load(Ordering::Relaxed), 1);
}

/// While a thread compiles for a new input size, other threads can use the sizes that the layer has plans for, with and
/// without cached bind groups, and make plans for other sizes. Only a thread that needs the same size waits, and then
/// uses the same plan.
#[test]
fn no_thread_waits_for_compilation_that_it_does_not_need() {
    for by_encode in [false, true] {
        // Use a new device, which has compiled nothing.
        let gpu = gpu();
        let shapes = [[1, 4, 4, 4], [1, 4, 41, 51], [2, 4, 4, 4]];
        let subject = Subject::new(Conv2d::pointwise(4, 5).into(), &shapes);
        let layer = subject.layer(&gpu, Choice::Auto);
        let [known, new, other] = &subject.cases[..] else { unreachable!() };
        let tensors = |(shape, input, _): &(Shape, Vec<f32>, Vec<f32>)| {
            let output = layer.output_shape(*shape).unwrap();
            [gpu.upload(input, *shape).unwrap(), gpu.empty(output, Layout::Nchw).unwrap()]
        };
        let encode = |[x, y]: &[Tensor; 2], right: &[f32]| {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            layer.encode(&mut encoder, x, y).unwrap();
            gpu.queue().submit([encoder.finish()]);
            assert_eq!(gpu.download(y).unwrap(), right);
        };
        let forward = |[x, _]: &[Tensor; 2], right: &[f32]| {
            assert_eq!(gpu.download(&layer.forward(x).unwrap()).unwrap(), right);
        };
        let bound = tensors(known);
        encode(&bound, &known.2);

        let ((began, begun), (finish, finished)) = (channel(), channel::<()>());
        let plans = Arc::new(AtomicUsize::new(0));
        // Counts the plans for the new size.
        let count = |plans: &AtomicUsize, line: &str| {
            plans.fetch_add(usize::from(line.starts_with("planned ") && line.contains("x41x51")), Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            let compute = if by_encode { &encode as &(dyn Fn(&[Tensor; 2], &[f32]) + Sync) } else { &forward };
            let (first, second) = (plans.clone(), plans.clone());
            let stop = move |_: &str, line: &str| {
                count(&first, line);
                if line.starts_with("compiled ") {
                    // Stay in the middle of compiling until the others are done.
                    let _ = began.send(());
                    let waited = finished.recv_timeout(Duration::from_secs(20));
                    assert_ne!(waited, Err(RecvTimeoutError::Timeout), "the others wait for this compilation");
                }
            };
            scope.spawn(|| listen(stop, || compute(&tensors(new), &new.2)));
            begun.recv_timeout(Duration::from_secs(60)).expect("the new size needs another shader");
            let hear = move |_: &str, line: &str| count(&second, line);
            scope.spawn(|| listen(hear, || compute(&tensors(new), &new.2)));
            encode(&bound, &known.2);
            encode(&tensors(known), &known.2);
            forward(&bound, &known.2);
            encode(&tensors(other), &other.2);
            drop(finish);
        });
        assert_eq!(plans.load(Ordering::Relaxed), 1, "the new size is planned once");
    }
}
