//! A long run, for ten minutes or `GPUCONV_SOAK` seconds: it makes layers, runs them on inputs of changing shapes,
//! uploads and downloads. It prints memory and time at intervals, and fails if either has grown at the end. CI does not
//! run it:
//!
//! ```sh
//! scripts/headless cargo bench --bench soak
//! ```

use std::time::{Duration, Instant};

use gpuconv::internals::random;
use gpuconv::{
    Activation, Chain, Conv2d, DType, GpuConv, Layer, Layout, OwnedWeights, Result, Separable, Shape, Weights, oracle,
};

/// The number of kinds of layers, half of them in f16, and of sizes that each runs on in a round.
const KINDS: u64 = 8;
const SIZES: u64 = 4;
const CHANNELS: u32 = 6;
/// The number of samples, which are printed one per line.
const SAMPLES: u32 = 40;
/// How much memory may grow from the second quarter of the run to the last.
const MAX_GROWTH: f64 = 1.10;
/// How much slower rounds may get. This is larger because other programs use the machine as well.
const MAX_SLOWDOWN: f64 = 1.5;

/// The memory and time of the process at a moment.
struct Sample {
    resident: u64,
    /// Bytes and number of the device's buffers.
    device_bytes: u64,
    buffers: usize,
    /// The fastest round since the sample before.
    round: Duration,
}

impl Sample {
    fn new(gpu: &GpuConv, round: Duration) -> Self {
        let report = gpu.device().generate_allocator_report();
        let (device_bytes, buffers) =
            report.map_or((0, 0), |report| (report.total_allocated_bytes, report.allocations.len()));
        Self { resident: resident(), device_bytes, buffers, round }
    }
}

fn main() -> Result<()> {
    let seconds = std::env::var("GPUCONV_SOAK").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(600);
    let (gpu, start, length) = (GpuConv::new()?, Instant::now(), Duration::from_secs(seconds));
    println!(
        "{:>8} {:>8} {:>10} {:>13} {:>11} {:>8}",
        "s", "rounds", "round ms", "resident MiB", "device MiB", "buffers"
    );
    let (mut samples, mut rounds, mut fastest) = (Vec::new(), 0u64, Duration::MAX);
    // These layers live as long as the program, and run on ever more sizes.
    let lasting = (0..KINDS).map(|kind| Subject::new(&gpu, kind)).collect::<Result<Vec<_>>>()?;
    while samples.is_empty() || start.elapsed() < length {
        let began = Instant::now();
        round(&gpu, &lasting, rounds)?;
        (rounds, fastest) = (rounds + 1, fastest.min(began.elapsed()));
        let elapsed = start.elapsed();
        if elapsed >= length / SAMPLES * (samples.len() as u32 + 1) {
            let sample = Sample::new(&gpu, fastest);
            let [resident, device] =
                [sample.resident, sample.device_bytes].map(|bytes| bytes as f64 / f64::from(1 << 20));
            let (seconds, round) = (elapsed.as_secs_f64(), fastest.as_secs_f64() * 1e3);
            println!("{seconds:>8.0} {rounds:>8} {round:>10.1} {resident:>13.1} {device:>11.1} {:>8}", sample.buffers);
            samples.push(sample);
            fastest = Duration::MAX;
        }
    }
    judge(&samples);
    Ok(())
}

/// Runs new layers on one size each, and the lasting layers on several sizes.
fn round(gpu: &GpuConv, lasting: &[Subject], round: u64) -> Result<()> {
    for kind in 0..KINDS {
        Subject::new(gpu, kind)?.check(gpu, round * KINDS + kind)?;
        for size in 0..SIZES {
            lasting[kind as usize].check(gpu, round * SIZES + size)?;
        }
    }
    Ok(())
}

/// A layer, and the weights for the oracle.
struct Subject {
    layer: Layer,
    weights: Vec<OwnedWeights>,
}

impl Subject {
    /// Weights are whole numbers, so that answers are exact.
    fn new(gpu: &GpuConv, kind: u64) -> Result<Self> {
        let chain: Chain = match kind % 4 {
            0 => Conv2d::new(CHANNELS, 10, 3).padding(1).activation(Activation::Relu).into(),
            1 => Conv2d::pointwise(CHANNELS, 20).activation(Activation::Relu6).into(),
            2 => Separable::new(CHANNELS, 12, 3).stride(2).padding(1).into(),
            _ => Chain::inverted_residual(CHANNELS, CHANNELS, 3, 1),
        };
        let chain = chain.with_dtype(if kind < 4 { DType::F32 } else { DType::F16 });
        let draw = |(index, conv): (usize, &Conv2d)| OwnedWeights {
            weight: random::integers(&format!("w{index}"), conv.weight_shape().len(), 2),
            bias: Some(random::integers(&format!("b{index}"), conv.out_channels.into(), 2)),
        };
        let weights: Vec<_> = chain.convolutions().map(draw).collect();
        let borrowed: Vec<Weights<'_>> = weights.iter().map(OwnedWeights::borrow).collect();
        Ok(Self { layer: gpu.chain(&chain, &borrowed)?, weights })
    }

    /// Uploads an input, runs the layer and downloads the output. Compares one output in fifty with the oracle's.
    fn check(&self, gpu: &GpuConv, number: u64) -> Result<()> {
        let [height, width] = [1 + number * 13 % 41, 1 + number * 29 % 53].map(|extent| extent as u32);
        let shape = Shape { batch: 1 + (number % 3) as u32, channels: CHANNELS, height, width };
        let values = random::integers(&format!("x{number}"), shape.len(), 2);
        let input = gpu.upload_of(&values, shape, Layout::Nchw, self.layer.chain().dtype())?;
        let output = gpu.download(&self.layer.forward(&input)?)?;
        if number.is_multiple_of(50) {
            let weights: Vec<_> = self.weights.iter().map(OwnedWeights::borrow).collect();
            let expected = oracle::run(self.layer.chain(), &values, shape, &weights, None)?;
            assert!(output.iter().zip(&expected.values).all(|(&value, &expected)| f64::from(value) == expected));
        }
        Ok(())
    }
}

/// Fails if memory, buffers or time have grown from the second quarter to the last.
fn judge(samples: &[Sample]) {
    assert!(samples.len() >= 8, "{} samples are too few to tell: let it run for longer", samples.len());
    let quarter = samples.len() / 4;
    let (second, last) = (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..]);
    let grown = |name: &str, most: f64, of: fn(&Sample) -> f64| {
        let [before, after] = [second, last].map(|part| part.iter().map(of).fold(0.0, f64::max));
        let growth = if before > 0.0 { after / before } else { 1.0 };
        println!("{name}: {growth:.3} of the second quarter's");
        growth > most
    };
    let grown = [
        grown("resident memory", MAX_GROWTH, |sample| sample.resident as f64),
        grown("the device's memory", MAX_GROWTH, |sample| sample.device_bytes as f64),
        grown("the number of buffers", MAX_GROWTH, |sample| sample.buffers as f64),
        grown("the time of a round", MAX_SLOWDOWN, |sample| sample.round.as_secs_f64()),
    ];
    assert!(!grown.contains(&true), "something has grown");
}

/// Resident memory of this process in bytes, or zero if the system does not report it.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|pages| pages.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
