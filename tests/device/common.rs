//! What the tests of this program share.

use std::cell::RefCell;
use std::sync::Once;

use gpuconv::{Caps, Chain, Conv2d, GpuConv, Shape, Weights, oracle, random};

/// The device, or a loud failure that says what to install.
pub fn gpu() -> GpuConv {
    GpuConv::new().unwrap_or_else(|error| panic!("{error}"))
}

/// The device, given what a GPU is given.
pub fn as_gpu() -> GpuConv {
    gpu().with_caps(|caps| Caps { is_cpu: false, ..caps })
}

/// Weights of a chain, drawn from whole numbers, so that every answer is exact.
pub fn draw(chain: &Chain) -> Vec<(Vec<f32>, Vec<f32>)> {
    let draw = |(_, conv): (usize, &Conv2d)| {
        let weight = random::integers("weight", conv.weight_shape().len(), 2);
        (weight, random::integers("bias", conv.out_channels.into(), 2))
    };
    chain.convolutions().map(draw).collect()
}

/// The same as layers take them.
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

/// What is told of each line of the log: its target and its text.
type Listener = Box<dyn Fn(&str, &str)>;

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
}

/// Calls `listener` for all that this thread logs while `call` runs.
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
        // A thread that ends has no listener any more.
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
