//! Helpers for the tests of this program.

use std::cell::RefCell;
use std::sync::Once;

use gpuconv::internals::random;
use gpuconv::{Caps, Chain, Conv2d, GpuConv, Shape, Weights, oracle};

/// The device. Without one it panics with a message that says what to install.
pub fn gpu() -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}"))
}

/// The device, planned for as if it were a GPU.
pub fn as_gpu() -> GpuConv {
    gpu().with_caps(|caps| Caps { is_cpu: false, ..caps })
}

/// Random weights of a chain. They are whole numbers, so that results are exact.
pub fn draw(chain: &Chain) -> Vec<(Vec<f32>, Vec<f32>)> {
    let draw = |(_, conv): (usize, &Conv2d)| {
        let weight = random::integers("weight", conv.weight_shape().len(), 2);
        (weight, random::integers("bias", conv.out_channels.into(), 2))
    };
    chain.convolutions().map(draw).collect()
}

/// These weights in the form that layers take.
pub fn borrow(weights: &[(Vec<f32>, Vec<f32>)]) -> Vec<Weights<'_>> {
    weights.iter().map(|(weight, bias)| Weights::new(weight, bias)).collect()
}

/// The oracle's answer.
pub fn expected(
    chain: &Chain,
    input: &[f32],
    shape: Shape,
    weights: &[Weights<'_>],
    residual: Option<&[f32]>,
) -> Vec<f32> {
    let answer = oracle::run(chain, input, shape, weights, residual).unwrap();
    answer.values.iter().map(|&value| value as f32).collect()
}

/// Called for each line of the log, with its target and its text.
type Listener = Box<dyn Fn(&str, &str)>;

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// Calls `listener` for each line that this thread logs while `call` runs.
pub fn listen<T>(listener: impl Fn(&str, &str) + 'static, call: impl FnOnce() -> T) -> T {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Logger).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
    LISTENER.set(Some(Box::new(listener)));
    let outcome = call();
    LISTENER.set(None);
    outcome
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        // A thread that is ending has no listener.
        LISTENER.try_with(|listener| listener.borrow().is_some()).unwrap_or(false)
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LISTENER
                .with_borrow(|listener| listener.iter().for_each(|f| f(record.target(), &record.args().to_string())));
        }
    }

    fn flush(&self) {}
}
