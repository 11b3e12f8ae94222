//! Checks of kernels against the oracle, on whatever device there is: the suite that the tests run in CI, for a
//! user's own GPU.

mod sample;

use std::borrow::Cow;

use crate::caps::Caps;
use crate::chain::Chain;
use crate::conv::Activation;
use crate::error::Result;
use crate::gpu::GpuConv;
use crate::planner::{self, Choice, Fusion, Schedule};
use crate::problem::{Operation, Problem};
use crate::random;
use crate::reference::{self, Answer, Weights};
use crate::shape::{Layout, Shape, from_nchw, to_nchw};
use crate::tensor::Tensor;

use sample::Sample;

/// The case table: every kind of problem, in sizes around the kernels' tiles.
pub fn cases() -> Vec<Problem> {
    lines().filter_map(|line| line.parse().ok()).collect()
}

/// The case table's lines.
pub fn lines() -> impl Iterator<Item = &'static str> {
    include_str!("verify/cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The schedules by which a problem is checked: the planner's own, and one for every kernel that takes the whole
/// problem; of a chain of several links also the best without fusion. Which of a kernel's recipes is taken rotates
/// with `turn`, so that over a table of problems all have theirs. Of a network: with fusion as the planner likes it,
/// without, and with as much as there can be.
///
/// # Errors
/// As [`planner::schedule`].
pub fn schedules(problem: &Problem, caps: &Caps, turn: usize) -> Result<Vec<Schedule>> {
    if let Operation::Network(network) = &problem.operation {
        let by =
            |fusion| planner::schedule(&network.chain, problem.input, problem.layout, caps, &Choice::Fusion(fusion));
        let mut schedules =
            [Fusion::Never, Fusion::Auto, Fusion::Always].map(by).into_iter().collect::<Result<Vec<_>>>()?;
        schedules.dedup_by_key(|schedule| schedule.name());
        return Ok(schedules);
    }
    let all = planner::alternatives(&problem.chain(), problem.input, problem.layout, caps)?;
    let links = problem.chain().links().len();
    let mut chosen = vec![all[0].clone()];
    let unfused = all.iter().find(|schedule| schedule.steps.len() == links);
    let whole = all[0].considered.iter().filter(|answer| answer.links == links).filter_map(|answer| {
        let recipes = answer.answer.as_ref().ok().filter(|recipes| !recipes.is_empty())?;
        let candidate = &recipes[turn % recipes.len()];
        all.iter().find(|schedule| schedule.takes(0, links, &candidate.recipe.name))
    });
    for schedule in whole.chain(unfused) {
        if !names(&chosen).contains(&schedule.name()) {
            chosen.push(schedule.clone());
        }
    }
    Ok(chosen)
}

fn names(schedules: &[Schedule]) -> Vec<String> {
    schedules.iter().map(Schedule::name).collect()
}

/// Tensors for a problem, and the oracle's answer.
pub struct Data {
    /// The input, NCHW.
    pub input: Vec<f32>,
    /// Weight and bias of each convolution.
    pub weights: Vec<(Vec<f32>, Option<Vec<f32>>)>,
    /// The residual, NCHW, if the problem adds one.
    pub residual: Option<Vec<f32>>,
}

/// A problem with its data and the oracle's answers, to check any number of kernels against.
pub struct Oracle {
    chain: Chain,
    input: Shape,
    layout: Layout,
    /// The part that is checked, if not all is.
    sample: Option<Sample>,
    /// Whole numbers so small that f32 adds them without rounding; none where the activation rounds.
    exact: Option<(Data, Answer)>,
    random: (Data, Answer),
}

/// What a check found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Outputs of whole numbers that differ from the oracle's in any bit.
    pub inexact: usize,
    /// The largest error on random values, as a share of what the kernel is allowed.
    pub share_of_bound: f64,
    /// On random values, the norm of the error over the norm of the oracle's answer.
    pub relative_error: f64,
    /// Outputs that were not written.
    pub unwritten: usize,
    /// Elements written outside of the output.
    pub stray: usize,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn passes(&self) -> bool {
        // A NaN is not below the bound.
        self.inexact == 0 && self.share_of_bound <= 1.0 && self.unwritten == 0 && self.stray == 0
    }
}

impl Data {
    /// Random values: inputs in [-1, 1), weights scaled so that activations keep their size, biases in
    /// [-0.1, 0.1). Drawn from `name`, so the same everywhere.
    pub fn random(name: &str, chain: &Chain, input: Shape) -> Result<Self> {
        let convs: Vec<_> = chain.convolutions().map(|(_, conv)| conv).collect();
        Self::draw(chain, input, |tensor, index, len| match tensor {
            "w" => {
                let gain = if convs[index].activation == Activation::None { 3.0 } else { 6.0 };
                let scale = (gain / convs[index].fan_in() as f64).sqrt() as f32;
                random::uniform(&format!("{name}/w{index}"), len, scale)
            }
            "b" => random::uniform(&format!("{name}/b{index}"), len, 0.1),
            _ => random::uniform(&format!("{name}/{tensor}"), len, 1.0),
        })
    }

    /// Whole numbers from -2 to 2.
    fn integers(name: &str, chain: &Chain, input: Shape) -> Result<Self> {
        Self::draw(chain, input, |tensor, index, len| random::integers(&format!("{name}/{tensor}{index}"), len, 2))
    }

    fn draw(chain: &Chain, input: Shape, values: impl Fn(&str, usize, u64) -> Vec<f32>) -> Result<Self> {
        let shapes = chain.shapes(input)?;
        let weights = chain.convolutions().enumerate().map(|(index, (_, conv))| {
            let weight = values("w", index, conv.weight_shape().len());
            (weight, conv.bias.then(|| values("b", index, conv.out_channels.into())))
        });
        Ok(Self {
            input: values("x", 0, input.len()),
            weights: weights.collect(),
            residual: chain.outside_residual().map(|link| values("r", 0, shapes[link + 1].len())),
        })
    }

    /// The weights, as the layers and the oracle take them.
    pub fn weights(&self) -> Vec<Weights<'_>> {
        self.weights.iter().map(|(weight, bias)| Weights { weight, bias: bias.as_deref() }).collect()
    }

    /// The oracle's answer.
    pub fn answer(&self, chain: &Chain, input: Shape) -> Result<Answer> {
        reference::run(chain, &self.input, input, &self.weights(), self.residual.as_deref())
    }
}

impl Oracle {
    /// Draws the data of a problem and works out the answers, in f64 on the CPU.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says.
    pub fn new(problem: &Problem) -> Result<Self> {
        Self::of_chain(&problem.to_string(), problem.chain(), problem.input, problem.layout, u64::MAX)
    }

    /// As [`Oracle::new`] for a chain, its data drawn from a name. Where the last link takes more than `most`
    /// multiply-adds, only some of its channels are compared, in all their pixels; that all outputs are written, and
    /// nothing besides, is checked in any case.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says.
    pub fn of_chain(name: &str, chain: Chain, input: Shape, layout: Layout, most: u64) -> Result<Self> {
        let sample = Sample::new(&chain, &chain.shapes(input)?, most);
        let answer = |data: &Data| match &sample {
            Some(sample) => sample.answer(&chain, input, data),
            None => data.answer(&chain, input),
        };
        let exact = if chain.convolutions().any(|(_, conv)| rounds(conv.activation)) {
            None
        } else {
            let data = Data::integers(name, &chain, input)?;
            let answer = answer(&data)?;
            // What is not below 2^24 could round, and proves nothing; a clamp's bounds are eighths.
            let clamps = chain.convolutions().any(|(_, conv)| matches!(conv.activation, Activation::Clamp(..)));
            let largest = if clamps { 1 << 21 } else { 1 << 24 };
            let small = answer.magnitudes.iter().all(|&magnitude| magnitude < f64::from(largest));
            small.then_some((data, answer))
        };
        let data = Data::random(name, &chain, input)?;
        let answer = answer(&data)?;
        Ok(Self { chain, input, layout, sample, exact, random: (data, answer) })
    }

    /// Runs a schedule on the device and compares. Only the names of its recipes count: shaders run without wgpu's
    /// checks, so they are taken from the kernels themselves and not from what a caller may have changed.
    ///
    /// # Errors
    /// What the device and the planner say.
    pub fn check(&self, gpu: &GpuConv, schedule: &Schedule) -> Result<Report> {
        let choice = Choice::Named(schedule.name());
        let schedule = planner::schedule(&self.chain, self.input, self.layout, gpu.caps(), &choice)?;
        // SAFETY: it is the planner's, for this chain and input.
        unsafe { self.check_as_it_is(gpu, &schedule) }
    }

    /// As [`Oracle::check`], with the schedule's own shaders.
    ///
    /// # Safety
    /// The schedule must be one that the planner made for this chain and input, or do nothing that such a one would not:
    /// its loops end, and its indices are inside of what it binds.
    #[doc(hidden)]
    pub unsafe fn check_as_it_is(&self, gpu: &GpuConv, schedule: &Schedule) -> Result<Report> {
        let mut report = Report::default();
        if let Some((data, answer)) = &self.exact {
            let values = self.run(gpu, schedule, data, &mut report)?;
            let differs = |(value, &expected): (&f32, &f64)| f64::from(*value) != expected;
            if schedule.steps.iter().all(|step| step.recipe.exact) {
                report.inexact = values.iter().zip(&answer.values).filter(|&pair| differs(pair)).count();
            }
        }
        let (data, answer) = &self.random;
        let values = self.run(gpu, schedule, data, &mut report)?;
        // An activation that is not piecewise linear rounds a few times more.
        let tolerance: f64 = schedule.steps.iter().map(|step| step.recipe.tolerance + 4.0).sum();
        let mixes = schedule.steps.iter().any(|step| step.recipe.mixes);
        let magnitudes = if mixes { largest_of_planes(answer) } else { Cow::from(&answer.magnitudes) };
        let (mut error_norm, mut norm) = (0.0, 0.0);
        for ((&value, &expected), &magnitude) in values.iter().zip(&answer.values).zip(&*magnitudes) {
            let error = (f64::from(value) - expected).abs();
            let share = error / (tolerance * f64::from(f32::EPSILON) * magnitude.max(f64::from(f32::MIN_POSITIVE)));
            // `max` would drop a NaN.
            report.share_of_bound = if share.is_nan() { f64::INFINITY } else { report.share_of_bound.max(share) };
            error_norm += error * error;
            norm += expected * expected;
        }
        report.relative_error = (error_norm / f64::max(norm, f64::MIN_POSITIVE)).sqrt();
        Ok(report)
    }

    /// Runs the schedule between guards: input and output lie inside of larger buffers filled with NaNs, the
    /// output as well. Counts what was not written and what was written besides.
    fn run(&self, gpu: &GpuConv, schedule: &Schedule, data: &Data, report: &mut Report) -> Result<Vec<f32>> {
        let layout = self.layout;
        let shapes = self.chain.shapes(self.input)?;
        let output_shape = shapes[shapes.len() - 1];
        let residual_shape = self.chain.outside_residual().map(|link| shapes[link + 1]);
        let layer = gpu.chain(&self.chain, &data.weights())?;
        layer.fix(self.input, layout, schedule.clone())?;
        let input = guarded(gpu, &from_nchw(&data.input, self.input, layout), self.input, layout)?;
        let residual = match data.residual.as_ref().zip(residual_shape) {
            Some((values, shape)) => Some(guarded(gpu, &from_nchw(values, shape, layout), shape, layout)?),
            None => None,
        };
        let poison = vec![f32::from_bits(POISON); output_shape.len() as usize];
        let output = guarded(gpu, &poison, output_shape, layout)?;
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        match &residual {
            Some(residual) => layer.encode_residual(&mut encoder, &input, residual, &output)?,
            None => layer.encode(&mut encoder, &input, &output)?,
        }
        gpu.queue().submit([encoder.finish()]);
        let whole: Shape = [1, 1, 1, (output.buffer().size() / 4) as u32].into();
        let all = gpu.download(&Tensor::from_buffer(output.buffer().clone(), 0, whole, Layout::Nchw)?)?;
        let (start, len) = ((output.offset() / 4) as usize, output_shape.len() as usize);
        let is_poison = |value: &&f32| value.to_bits() == POISON;
        let guards = all[..start].iter().chain(&all[start + len..]);
        report.stray += guards.filter(|value| !is_poison(value)).count();
        let values = &all[start..start + len];
        report.unwritten += values.iter().filter(is_poison).count();
        let values = to_nchw(values, output_shape, layout);
        Ok(match &self.sample {
            Some(sample) => sample.select(&values),
            None => values,
        })
    }
}

/// Whether an activation of small whole numbers rounds, or gives what is no multiple of an eighth.
fn rounds(activation: Activation) -> bool {
    match activation {
        Activation::None | Activation::Relu | Activation::Relu6 => false,
        Activation::Silu | Activation::HardSwish => true,
        Activation::Clamp(low, high) => {
            [low, high].iter().any(|bound| bound.is_finite() && (bound * 8.0).fract() != 0.0)
        }
    }
}

/// For each output the largest magnitude of its plane: what the error of kernels that mix neighbours is measured by.
fn largest_of_planes(answer: &Answer) -> Cow<'_, [f64]> {
    let pixels = (answer.shape.pixels() as usize).max(1);
    let largest = |plane: &[f64]| plane.iter().copied().fold(0.0, f64::max);
    answer.magnitudes.chunks(pixels).flat_map(|plane| std::iter::repeat_n(largest(plane), plane.len())).collect()
}

/// A NaN that no arithmetic makes.
const POISON: u32 = 0x7FC5_A5A5;

/// A tensor between two guard regions of poison.
fn guarded(gpu: &GpuConv, values: &[f32], shape: Shape, layout: Layout) -> Result<Tensor> {
    let guard = gpu.caps().storage_offset_alignment.max(256) as usize / 4;
    let poison = vec![f32::from_bits(POISON); guard];
    let all = [&poison, values, &poison].concat();
    let whole = gpu.upload(&all, [1, 1, 1, all.len() as u32])?;
    Tensor::from_buffer(whole.buffer().clone(), guard as u64 * 4, shape, layout)
}
