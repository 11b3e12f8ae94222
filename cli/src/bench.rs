//! `bench`: how long problems take: from host to host, from submission to completion, and on the device.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use clap::Args;
use gpuconv::internals::scoped;
use gpuconv::internals::timer::Timer;
use gpuconv::planner::Schedule;
use gpuconv::shape::{from_nchw, to_nchw};
use gpuconv::verify::Data;
use gpuconv::{
    BoundLayer, Choice, DType, GpuConv, Inputs, Layout, Operation, Problem, Shape, Tensor, cost, planner, wgpu,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::spread::Spread;
use super::{
    Case, Failure, KernelOptions, Outcome, Target, adapter_name, complain, device_name, kernels, print, table,
};

/// The oracle checks problems of fewer floating-point operations than this; it is slow.
const MOST_CHECKED: u64 = 2_000_000_000;

#[derive(Args)]
pub struct Bench {
    /// Write one object per line
    #[arg(long)]
    json: bool,
    /// Measure this kernel or recipe, or all of them
    #[arg(long, value_name = "NAME|all")]
    kernel: Option<String>,
    #[command(flatten)]
    options: KernelOptions,
    /// How long to measure each of the three times; each is measured at least three times
    #[arg(long, value_name = "SECONDS", default_value = "1.0", value_parser = seconds, allow_negative_numbers = true)]
    time: Duration,
    /// The problems to measure
    #[arg(required = true)]
    problems: Vec<String>,
}

/// Parses a time on the command line.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    if !(0.0..=3600.0).contains(&seconds) {
        return Err("must be from 0 to 3600".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[derive(Serialize)]
struct Measured {
    problem: String,
    kernel: String,
    #[serde(skip)]
    steps: usize,
    adapter: String,
    /// Whether the device was made with robust buffer access.
    robust: bool,
    /// From host array to host array.
    e2e_ms: Spread,
    /// From submission to completion, data on the device.
    wall_ms: Spread,
    /// Between the timestamps around the compute pass.
    gpu_ms: Option<Spread>,
    gflops: f64,
    gbps: f64,
    /// Norm of the error over the norm of the oracle's answer, which is that of the data in f32 for f16 too.
    rel_err: Option<f64>,
}

impl Bench {
    pub fn execute(&self, target: &Target) -> Outcome {
        if self.kernel.as_deref() == Some("all") && self.options.max_workspace.is_some() {
            let message = "--kernel all measures every kernel: --max-workspace has no effect on it";
            return Err(Failure::Call(message.into()));
        }
        let cases = self.problems.iter().map(|words| Case::parse(words)).collect::<Outcome<Vec<_>>>()?;
        let gpu = target.open()?;
        // Schedule before making data: a problem that is too large for the device fails here. The others are measured.
        let (mut plans, mut is_refused) = (Vec::new(), false);
        for case in &cases {
            match self.choices(&gpu, &case.problem) {
                Ok(choices) => plans.push((case, choices)),
                Err(Failure::Call(message)) if cases.len() > 1 => {
                    complain(&format!("{}: {message}", case.text));
                    is_refused = true;
                }
                Err(failure) => return Err(failure),
            }
        }
        let total = plans.iter().map(|(_, choices)| choices.len()).sum::<usize>() as u64;
        // It hides itself if stderr is not a terminal.
        let bar = if self.json { ProgressBar::hidden() } else { ProgressBar::new(total) };
        bar.set_style(
            ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").unwrap_or(ProgressStyle::default_bar()),
        );
        let mut measured = Vec::new();
        for (case, choices) in plans {
            let host = Host::new(case)?;
            for choice in choices {
                let subject = Subject::new(&gpu, &host, choice)?;
                bar.set_message(format!("{}: {}", case.text, kernels(&subject.schedule)));
                let result = subject.measure(self.time)?;
                bar.inc(1);
                if self.json {
                    let line = serde_json::to_string(&result).map_err(|error| Failure::Call(error.to_string()))?;
                    print(&(line + "\n"))?;
                } else {
                    measured.push(result);
                }
            }
        }
        bar.finish_and_clear();
        if !measured.is_empty() {
            print(&text(&gpu, &measured))?;
        }
        // Why is said already.
        if is_refused { Err(Failure::Call(String::new())) } else { Ok(()) }
    }

    /// What is measured: the planner's choice, or each recipe.
    fn choices(&self, gpu: &GpuConv, problem: &Problem) -> Outcome<Vec<Choice>> {
        let (chain, layout) = (problem.chain(), problem.layout);
        Ok(match self.kernel.as_deref() {
            Some("all") if matches!(problem.operation, Operation::Network(_)) => {
                let message = "--kernel all is for single layers; a network has too many schedules to measure all";
                return Err(Failure::Call(message.into()));
            }
            Some("all") => {
                let names = match planner::images_at_once(&chain, problem.input, gpu.caps()) {
                    Ok(batch) => names(&gpu.alternatives(&chain, Shape { batch, ..problem.input }, layout)?),
                    Err(_) => names_of_bands(gpu, problem)?,
                };
                names.into_iter().map(Choice::Named).collect()
            }
            kernel => {
                let choice = self.options.choice(kernel);
                gpu.divide(&chain, problem.input, layout, &choice)?;
                vec![choice]
            }
        })
    }
}

fn names(schedules: &[Schedule]) -> Vec<String> {
    schedules.iter().map(Schedule::name).collect()
}

/// What could compute the first bands of a problem, each recipe of a stretch with each of the others.
fn names_of_bands(gpu: &GpuConv, problem: &Problem) -> Outcome<Vec<String>> {
    let division = gpu.divide(&problem.chain(), problem.input, problem.layout, &Choice::Auto)?;
    let mut all = vec![String::new()];
    for (index, stretch) in division.stretches.iter().enumerate() {
        // The sums of a pool's parts go by the same name.
        if index > 0 && division.stretches[index - 1].first == stretch.first {
            continue;
        }
        let own = names(&gpu.alternatives(&stretch.chain, stretch.input, problem.layout)?);
        let plus = if index > 0 { "+" } else { "" };
        all = all.iter().flat_map(|before| own.iter().map(move |name| format!("{before}{plus}{name}"))).collect();
    }
    Ok(all)
}

/// A case, its data, and the oracle's answer.
struct Host<'a> {
    case: &'a Case,
    data: Data,
    output: Shape,
    oracle: Option<Vec<f64>>,
}

impl<'a> Host<'a> {
    fn new(case: &'a Case) -> Outcome<Self> {
        let (chain, input) = (case.problem.chain(), case.problem.input);
        let data = Data::random(&case.text, &chain, input)?;
        let checked = 2 * cost::chain(&chain, input)?.mult_adds < MOST_CHECKED;
        // In f16 the error includes the rounding of what is uploaded.
        let exact = chain.with_dtype(DType::F32);
        let oracle = if checked { Some(data.answer(&exact, input)?.values) } else { None };
        Ok(Self { case, data, output: case.problem.output()?, oracle })
    }

    /// Norm of the error over the norm of the oracle's answer, if there is one.
    fn relative_error(&self, values: &[f32]) -> Option<f64> {
        let oracle = self.oracle.as_ref()?;
        let (mut error, mut norm) = (0.0, 0.0);
        for (&value, expected) in values.iter().zip(oracle) {
            error += (f64::from(value) - expected).powi(2);
            norm += expected * expected;
        }
        // An answer of zeros has no norm; its relative error is 0 if the output is right.
        Some(if error == 0.0 { 0.0 } else { (error / norm).sqrt() })
    }
}

/// A layer on the device, bound to its tensors.
struct Subject<'a> {
    gpu: &'a GpuConv,
    host: &'a Host<'a>,
    /// The layer's schedule.
    schedule: Schedule,
    layer: BoundLayer,
    input: Tensor,
    residual: Option<Tensor>,
    scale: Option<Tensor>,
    output: Tensor,
}

impl<'a> Subject<'a> {
    fn new(gpu: &'a GpuConv, host: &'a Host<'a>, choice: Choice) -> Outcome<Self> {
        let problem = &host.case.problem;
        let layer = gpu.chain_with(&problem.chain(), &host.data.weights(), choice)?;
        let empty = |shape| gpu.empty_of(shape, problem.layout, problem.dtype);
        let (input, output) = (empty(problem.input)?, empty(host.output)?);
        let residual = host.data.residual.as_ref().map(|_| empty(host.output)).transpose()?;
        let schedule = layer.schedule(problem.input, problem.layout)?;
        // Only problems of one convolution take a scale from outside.
        let planes = Shape { height: 1, width: 1, ..problem.input };
        let scale = host.data.scale.as_ref().map(|_| empty(planes)).transpose()?;
        let inputs = Inputs { input: &input, residual: residual.as_ref(), scale: scale.as_ref() };
        let layer = layer.bind(inputs, &output)?;
        Ok(Self { gpu, host, schedule, layer, input, residual, scale, output })
    }

    fn measure(&self, time: Duration) -> Outcome<Measured> {
        // Run twice to warm up. Errors show here, not in the measured times.
        scoped(self.gpu, || self.end_to_end())??;
        let values = scoped(self.gpu, || self.end_to_end())??;
        let rel_err = self.host.relative_error(&values);

        let timer = Timer::new(self.gpu)?;
        let raise_clock = || timer.raise_clock(&self.layer);
        raise_clock()?;
        let e2e_ms = repeat(time, || timed(|| self.end_to_end().map(drop)))?;
        raise_clock()?;
        let wall_ms = repeat(time, || self.submit_to_done())?;
        raise_clock()?;
        let pass = || Ok(timer.layer(&self.layer, 1)? * 1e3);
        let gpu_ms = timer.has_clock().then(|| repeat(time, pass)).transpose()?;

        let case = self.host.case;
        let cost = cost::chain(&case.problem.chain(), case.problem.input)?;
        // A tensor inside a step is not written and not read.
        let inside = self.schedule.steps.iter().flat_map(|step| step.first..step.first + step.links - 1);
        let inner_bytes = |link: usize| 2 * cost.links[link].output.bytes(case.problem.dtype);
        let bytes = cost.bytes_unfused - inside.map(inner_bytes).sum::<u64>();
        // A clock that is too coarse for the pass may give 0; then take the wall clock's time.
        let device_ms = gpu_ms.as_ref().map(|gpu| gpu.median).filter(|&ms| ms > 0.0).unwrap_or(wall_ms.median);
        let giga = |amount: u64| amount as f64 / (device_ms * 1e6);
        Ok(Measured {
            problem: case.text.clone(),
            kernel: kernels(&self.schedule),
            steps: self.schedule.steps.len(),
            adapter: adapter_name(self.gpu),
            robust: self.gpu.is_robust(),
            gflops: giga(2 * cost.mult_adds),
            gbps: giga(bytes),
            e2e_ms,
            wall_ms,
            gpu_ms,
            rel_err,
        })
    }

    /// From host arrays to a host array, in PyTorch's order for both layouts of the device.
    fn end_to_end(&self) -> Outcome<Vec<f32>> {
        self.write(&self.input, &self.host.data.input)?;
        if let (Some(tensor), Some(values)) = (&self.residual, &self.host.data.residual) {
            self.write(tensor, values)?;
        }
        if let (Some(tensor), Some(values)) = (&self.scale, &self.host.data.scale) {
            self.write(tensor, values)?;
        }
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.layer.encode(&mut encoder);
        let readback = self.gpu.encode_download(&mut encoder, &self.output)?;
        self.gpu.queue().submit([encoder.finish()]);
        let values = readback.read()?;
        Ok(match self.output.layout() {
            Layout::Nchw => values,
            layout => to_nchw(&values, self.output.shape(), layout),
        })
    }

    fn write(&self, tensor: &Tensor, values: &[f32]) -> Outcome {
        let values = match tensor.layout() {
            Layout::Nchw => Cow::Borrowed(values),
            layout => Cow::Owned(from_nchw(values, tensor.shape(), layout)),
        };
        Ok(self.gpu.write(tensor, &values)?)
    }

    fn encode(&self) -> wgpu::CommandBuffer {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        self.layer.encode(&mut encoder);
        encoder.finish()
    }

    /// Milliseconds from submission until the device is done.
    fn submit_to_done(&self) -> Outcome<f64> {
        let commands = self.encode();
        timed(|| {
            self.gpu.queue().submit([commands]);
            Ok(self.gpu.wait()?)
        })
    }
}

/// How many milliseconds a call takes.
fn timed(call: impl FnOnce() -> Outcome) -> Outcome<f64> {
    let start = Instant::now();
    call()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Measures until the time is over, at least three times.
fn repeat(time: Duration, mut once: impl FnMut() -> Outcome<f64>) -> Outcome<Spread> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < 3 || start.elapsed() < time {
        samples.push(once()?);
    }
    Ok(Spread::of(samples))
}

fn text(gpu: &GpuConv, measured: &[Measured]) -> String {
    let header = ["problem", "kernel", "gpu ms", "wall ms", "e2e ms", "GFLOP/s", "GB/s", "rel. error"];
    let mut table = table::new(header, 2);
    let spread = |spread: &Spread| {
        let [min, median, max] = [spread.min, spread.median, spread.max].map(table::figure);
        format!("{median} ({min}–{max})")
    };
    let mut last = "";
    for result in measured {
        // Name a problem only in the first of its rows.
        let problem = if result.problem == last { "" } else { &result.problem };
        last = &result.problem;
        table.add_row([
            problem.into(),
            // A network's recipes are too wide for a screen; --json and `plan` have them.
            if result.steps > 3 { format!("{} steps", result.steps) } else { result.kernel.clone() },
            result.gpu_ms.as_ref().map_or("-".into(), spread),
            spread(&result.wall_ms),
            spread(&result.e2e_ms),
            table::figure(result.gflops),
            table::figure(result.gbps),
            result.rel_err.map_or("-".into(), |error| format!("{error:.1e}")),
        ]);
    }
    format!(
        "{}\n{table}\nTimes: median (min–max). gpu: the compute pass; wall: submit to done; e2e: host to host.\n",
        device_name(gpu)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_of_seconds() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for text in ["", "-1", "nan", "inf", "1e9", "one"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
