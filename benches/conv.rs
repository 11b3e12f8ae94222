//! Standard against separable convolution, and each kernel against `direct`, on the device that wgpu finds.
//!
//! `cargo bench` measures, prints tables of the medians, and then lets the command line write a page of charts.
//! `cargo bench --bench conv -- FILTER` measures a part. `cargo bench -- --test` runs everything once, to check that it
//! runs.
//!
//! Times are between timestamps at the start and the end of a compute pass. If the device has no timestamps, they are
//! by the wall clock, from submission to completion. Weights and tensors are on the device before.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use gpuconv::cost::{self, ChainCost};
use gpuconv::internals::KERNELS;
use gpuconv::planner::{self, Schedule};
use gpuconv::verify::Data;
use gpuconv::{BoundLayer, Choice, Error, GpuConv, Operation, Problem, Result};

/// The pair of `examples/separable.rs`.
const PAIR: &str = "separable 1x512x128x128 -> 1024 k3 s2 p1";

/// The separable layers of MobileNetV1 for an image of 224x224 (arXiv 1704.04861, table 1), and how often each occurs.
const MOBILENET_V1: [(&str, u32); 9] = [
    ("separable 1x32x112x112 -> 64 k3 p1 relu6", 1),
    ("separable 1x64x112x112 -> 128 k3 s2 p1 relu6", 1),
    ("separable 1x128x56x56 -> 128 k3 p1 relu6", 1),
    ("separable 1x128x56x56 -> 256 k3 s2 p1 relu6", 1),
    ("separable 1x256x28x28 -> 256 k3 p1 relu6", 1),
    ("separable 1x256x28x28 -> 512 k3 s2 p1 relu6", 1),
    ("separable 1x512x14x14 -> 512 k3 p1 relu6", 5),
    ("separable 1x512x14x14 -> 1024 k3 s2 p1 relu6", 1),
    ("separable 1x1024x7x7 -> 1024 k3 p1 relu6", 1),
];

/// One layer of each kind, to compare all kernels that take it.
const COMPARED: [&str; 5] = [
    "conv 1x64x28x28 -> 64 k3 p1 relu6",
    "depthwise 1x128x56x56 k3 p1 relu6",
    "pointwise 1x256x28x28 -> 256 relu6",
    "pointwise 1x1280x1x1 -> 1000",
    "separable 1x128x28x28 -> 128 k3 p1 relu6",
];

/// Dispatches in one submission, at most.
const MAX_DISPATCHES: u64 = 256;
/// Criterion needs at least eleven runs. A case whose run takes longer than this, in seconds, runs only `FEW_RUNS`
/// times, and criterion gets these times repeatedly.
const SLOW: f64 = 1.0;
const FEW_RUNS: usize = 3;

fn main() -> Result<()> {
    let bench = Bench::new()?;
    // A software device takes seconds for the largest case, and about a second to compile each shader.
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();

    let mut group = criterion.benchmark_group("pair");
    bench.standard_and_separable(&mut group, &PAIR.parse()?)?;
    group.finish();

    let mut group = criterion.benchmark_group("mobilenet_v1");
    for (line, _) in MOBILENET_V1 {
        bench.standard_and_separable(&mut group, &line.parse()?)?;
    }
    group.finish();

    let mut group = criterion.benchmark_group("kernels");
    for line in COMPARED {
        let problem = line.parse()?;
        for schedule in compared_schedules(&bench.gpu, &problem)? {
            let id = format!("{problem}: {}", schedule.name());
            bench.measure(&mut group, &id, &problem, &Choice::Named(schedule.name()))?;
        }
    }
    group.finish();
    criterion.final_summary();

    // Criterion measures only with `--bench`, which `cargo bench` passes, and without `--test`.
    let given = |argument: &str| std::env::args().any(|given| given == argument);
    if given("--bench") && !given("--test") && !given("--list") {
        bench.print_standard_against_separable()?;
        bench.print_kernels()?;
    }
    Ok(())
}

/// The standard convolution that a separable one replaces.
fn standard(separable: &Problem) -> Problem {
    match &separable.operation {
        Operation::Separable(halves) => Problem { operation: Operation::Conv(halves.standard()), ..separable.clone() },
        _ => separable.clone(),
    }
}

/// The cheapest schedule by each kernel that takes a problem, `direct` last. For two links, pairs of kernels count too.
fn compared_schedules(gpu: &GpuConv, problem: &Problem) -> Result<Vec<Schedule>> {
    let mut names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name.to_string()).collect();
    if problem.chain().links().len() == 2 {
        let products = names.iter().filter(|name| name.starts_with("pointwise"));
        names = products.map(|name| format!("depthwise+{name}")).chain(names.iter().cloned()).collect();
    }
    let mut schedules: Vec<Schedule> = Vec::new();
    for name in names {
        let (chain, choice) = (problem.chain(), Choice::Named(name));
        match planner::schedule(&chain, problem.input, problem.layout, gpu.caps(), &choice) {
            Ok(schedule) => schedules.push(schedule),
            Err(Error::NoKernel { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(schedules)
}

/// The device, and the seconds measured so far for each case, by its criterion id.
struct Bench {
    gpu: GpuConv,
    timer: Option<Timer>,
    samples: RefCell<HashMap<String, Vec<f64>>>,
}

/// Two timestamps around a compute pass, and the buffers to read them back.
struct Timer {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
    seconds_per_tick: f64,
}

impl Timer {
    const BYTES: u64 = 2 * 8;

    fn new(gpu: &GpuConv) -> Self {
        let device = gpu.device();
        let buffer =
            |usage| wgpu::BufferDescriptor { label: None, size: Self::BYTES, usage, mapped_at_creation: false };
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Self {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: device.create_buffer(&buffer(usage)),
            readback: device.create_buffer(&buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)),
            seconds_per_tick: f64::from(gpu.queue().get_timestamp_period()) * 1e-9,
        }
    }

    fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, Self::BYTES);
    }

    /// The time between the timestamps of the last submission.
    fn read(&self, gpu: &GpuConv) -> Result<Duration> {
        self.readback.map_async(wgpu::MapMode::Read, .., |_| {});
        gpu.wait()?;
        let view = self.readback.get_mapped_range(..).map_err(|error| Error::Internal(error.to_string()))?;
        let [start, end]: [u64; 2] = bytemuck::pod_read_unaligned(&view);
        drop(view);
        self.readback.unmap();
        Ok(Duration::from_secs_f64(end.wrapping_sub(start) as f64 * self.seconds_per_tick))
    }
}

impl Bench {
    fn new() -> Result<Self> {
        let gpu = GpuConv::new()?;
        let timer = gpu.caps().timestamps.then(|| Timer::new(&gpu));
        Ok(Self { gpu, timer, samples: RefCell::default() })
    }

    fn standard_and_separable(&self, group: &mut BenchmarkGroup<'_, WallTime>, separable: &Problem) -> Result<()> {
        for problem in [standard(separable), separable.clone()] {
            self.measure(group, &problem.to_string(), &problem, &Choice::Auto)?;
        }
        Ok(())
    }

    /// Measures a problem. It packs weights and compiles shaders only if criterion runs the case.
    fn measure(
        &self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        id: &str,
        problem: &Problem,
        choice: &Choice,
    ) -> Result<()> {
        let mult_adds = cost::chain(&problem.chain(), problem.input)?.mult_adds;
        let (mut bound, mut failure, mut again) = (None, None, 0);
        // Flat: every sample has the same number of runs, which may be one.
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(mult_adds));
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|runs| {
                let mut samples = self.samples.borrow_mut();
                let seconds = samples.entry(id.into()).or_default();
                if seconds.len() >= FEW_RUNS && seconds.iter().all(|&seconds| seconds > SLOW) {
                    again += 1;
                    return Duration::from_secs_f64(seconds[again % seconds.len()] * runs as f64);
                }
                match self.bind(&mut bound, problem, choice).and_then(|bound| self.time(bound, runs)) {
                    Ok(time) => {
                        seconds.push(time.as_secs_f64() / runs as f64);
                        time
                    }
                    // Criterion accepts neither errors nor a time of zero.
                    Err(error) => {
                        failure = Some(error);
                        Duration::from_secs(1)
                    }
                }
            });
        });
        failure.map_or(Ok(()), Err)
    }

    /// The layer of a problem, bound to tensors. The first call makes it and runs it once.
    fn bind<'a>(
        &self,
        bound: &'a mut Option<BoundLayer>,
        problem: &Problem,
        choice: &Choice,
    ) -> Result<&'a BoundLayer> {
        if bound.is_none() {
            let chain = problem.chain();
            let data = Data::random(&problem.to_string(), &chain, problem.input)?;
            let layer = self.gpu.chain_with(&chain, &data.weights(), choice.clone())?;
            let input = self.gpu.upload_of(&data.input, problem.input, problem.layout, problem.dtype)?;
            let output = self.gpu.empty_of(problem.output()?, problem.layout, problem.dtype)?;
            let made = layer.bind(&input, &output)?;
            // Some drivers compile at the first dispatch.
            self.time(&made, 1)?;
            *bound = Some(made);
        }
        bound.as_ref().ok_or_else(|| Error::Internal("nothing is bound".into()))
    }

    /// The time of `runs` runs in a row.
    fn time(&self, bound: &BoundLayer, mut runs: u64) -> Result<Duration> {
        let mut total = Duration::ZERO;
        while runs > 0 {
            let now = runs.min(MAX_DISPATCHES);
            let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
            let timestamp_writes = self.timer.as_ref().map(Timer::writes);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            (0..now).for_each(|_| bound.dispatch(&mut pass));
            drop(pass);
            if let Some(timer) = &self.timer {
                timer.resolve(&mut encoder);
            }
            let start = Instant::now();
            self.gpu.queue().submit([encoder.finish()]);
            self.gpu.wait()?;
            let wall = start.elapsed();
            total += match &self.timer {
                Some(timer) => timer.read(&self.gpu)?,
                None => wall,
            };
            runs -= now;
        }
        Ok(total)
    }

    /// The median of a case in seconds, if it was measured.
    fn median(&self, id: &str) -> Option<f64> {
        let samples = self.samples.borrow();
        let mut sorted = samples.get(id)?.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    fn print_standard_against_separable(&self) -> Result<()> {
        let mut rows = Vec::new();
        for (line, count) in [(PAIR, 0)].into_iter().chain(MOBILENET_V1) {
            let separable = line.parse()?;
            if let (Some(standard), Some(separable)) = (self.row(&standard(&separable))?, self.row(&separable)?) {
                rows.push((standard, separable, count));
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let clock = if self.timer.is_some() { "by the device's clock" } else { "by the wall clock" };
        let adapter = self.gpu.device().adapter_info().name;
        println!("\nStandard against separable convolution on {adapter}, {clock}\n");
        println!(
            "{:44} {:>10} {:>11} {:>9} {:>8} {:>10}  kernels",
            "", "ms", "mult-adds M", "moved MB", "time", "mult-adds"
        );
        for (standard, separable, _) in &rows {
            standard.print(None);
            separable.print(Some(standard));
        }
        println!();
        let pair = PAIR.parse::<Problem>()?.to_string();
        if let Some((standard, separable, _)) = rows.iter().find(|(_, separable, _)| separable.name == pair) {
            explain(standard, separable);
        }
        let layers: Vec<_> = rows.iter().filter(|(_, separable, _)| separable.name != pair).collect();
        if layers.len() == MOBILENET_V1.len() {
            explain_mobilenet(&layers);
        }
        Ok(())
    }

    fn row(&self, problem: &Problem) -> Result<Option<Row>> {
        let Some(seconds) = self.median(&problem.to_string()) else { return Ok(None) };
        let chain = problem.chain();
        let cost = cost::chain(&chain, problem.input)?;
        let schedule = planner::schedule(&chain, problem.input, problem.layout, self.gpu.caps(), &Choice::Auto)?;
        Ok(Some(Row { name: problem.to_string(), seconds, cost, schedule }))
    }

    fn print_kernels(&self) -> Result<()> {
        let mut lines = Vec::new();
        for line in COMPARED {
            let problem: Problem = line.parse()?;
            let mult_adds = cost::chain(&problem.chain(), problem.input)?.mult_adds as f64;
            let schedules = compared_schedules(&self.gpu, &problem)?;
            let median = |schedule: &Schedule| self.median(&format!("{problem}: {}", schedule.name()));
            let direct = schedules.last().and_then(median);
            for schedule in &schedules {
                let (Some(seconds), Some(direct)) = (median(schedule), direct) else { continue };
                let (ms, gflops) = (seconds * 1e3, 2e-9 * mult_adds / seconds);
                let speed_up = direct / seconds;
                lines.push(format!("{line:44} {ms:10.3} {gflops:9.1} {speed_up:8.2}x  {}", schedule.name()));
            }
        }
        if !lines.is_empty() {
            println!(
                "\nEach kernel against `direct`\n\n{:44} {:>10} {:>9} {:>9}  kernels",
                "", "ms", "GFLOP/s", "speed-up"
            );
            println!("{}", lines.join("\n"));
        }
        Ok(())
    }
}

/// A line of the table.
struct Row {
    name: String,
    seconds: f64,
    cost: ChainCost,
    schedule: Schedule,
}

impl Row {
    /// The bytes that this schedule moves: a tensor between two links of one dispatch is never in memory.
    fn bytes(&self) -> u64 {
        if self.schedule.steps.len() == 1 { self.cost.bytes_fused } else { self.cost.bytes_unfused }
    }

    fn print(&self, against: Option<&Row>) {
        let ratios = against.map_or(" ".repeat(19), |standard| {
            let mult_adds = self.cost.mult_adds as f64 / standard.cost.mult_adds as f64;
            format!("{:8.3} {mult_adds:10.3}", self.seconds / standard.seconds)
        });
        println!(
            "{:44} {:10.3} {:11.1} {:9.2} {ratios}  {}",
            self.name,
            self.seconds * 1e3,
            self.cost.mult_adds as f64 / 1e6,
            self.bytes() as f64 / 1e6,
            self.schedule.name()
        );
    }

    fn gflops(&self) -> f64 {
        2e-9 * self.cost.mult_adds as f64 / self.seconds
    }

    /// Floating-point operations for each byte moved.
    fn intensity(&self) -> f64 {
        2.0 * self.cost.mult_adds as f64 / self.bytes() as f64
    }
}

/// Explains the table with its own numbers.
fn explain(standard: &Row, separable: &Row) {
    let work = separable.cost.mult_adds as f64 / standard.cost.mult_adds as f64;
    let time = separable.seconds / standard.seconds;
    println!(
        "512 -> 1024 channels: the separable convolution does {work:.3} of the multiply-adds in {time:.3} of the time, \
         so it is {:.1} times as fast.",
        1.0 / time
    );
    println!(
        "It reaches {:.0} GFLOP/s, the standard one {:.0}. It does {:.0} operations for each byte it moves, the \
         standard one {:.0}.\nWith few operations for each byte, memory limits the speed and not arithmetic.",
        separable.gflops(),
        standard.gflops(),
        separable.intensity(),
        standard.intensity(),
    );
}

/// Explains the sum over all layers of MobileNetV1, each as often as it occurs.
fn explain_mobilenet(layers: &[&(Row, Row, u32)]) {
    let sum = |of: fn(&(Row, Row, u32)) -> f64| layers.iter().map(|&row| of(row) * f64::from(row.2)).sum::<f64>();
    let [before, after] = [sum(|row| row.0.seconds), sum(|row| row.1.seconds)];
    let [more, less] = [sum(|row| row.0.cost.mult_adds as f64), sum(|row| row.1.cost.mult_adds as f64)];
    println!(
        "MobileNetV1's 13 layers take {:.2} ms as separable convolutions and {:.2} ms as standard ones.\nThe standard \
         ones take {:.1} times as long, with {:.1} times the multiply-adds.",
        after * 1e3,
        before * 1e3,
        before / after,
        more / less,
    );
}
