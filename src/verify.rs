//! Checks of kernels against the oracle, on any device: the suite that the tests run in CI, for a
//! user's own GPU.

mod judge;
#[doc(hidden)]
pub mod random;
mod sample;
mod trial;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::model::caps::Caps;
use crate::model::chain::Chain;
use crate::model::conv::Activation;
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::model::weights::Weights;
use crate::oracle::{self, Answer};
use crate::planner::{self, Choice, Fusion, Schedule, Step};
use crate::problem::{Operation, Problem};
use crate::runtime::device::lock;
use crate::runtime::gpu::GpuConv;

use judge::judge;
use sample::Sample;
use trial::Trial;

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

/// Tensors for a problem.
pub struct Data {
    /// The input, NCHW.
    pub input: Vec<f32>,
    /// Weight and bias of each convolution.
    pub weights: Vec<(Vec<f32>, Option<Vec<f32>>)>,
    /// The residual, NCHW, if the problem adds one.
    pub residual: Option<Vec<f32>>,
}

/// A problem with its data, to check any number of schedules on it.
///
/// Whole numbers must match the oracle bit for bit. Random numbers are judged step by step: each step of a schedule
/// runs alone on what the device gave for the steps before, and the oracle computes the same from the same. So an error
/// shows in the step that made it, and no bound grows with the length of a chain. What the whole schedule gives must
/// be, bit for bit, what its steps gave one by one.
pub struct Oracle {
    chain: Chain,
    input: Shape,
    layout: Layout,
    /// Multiply-adds that the oracle computes for one step.
    most: u64,
    /// Whole numbers so small that f32 adds them without rounding, and the answer; none where the activation rounds.
    exact: Option<(Data, Answer)>,
    random: Data,
    /// Answers for steps that read the chain's input, by how many links they take: they are the same for all schedules.
    answers: Mutex<HashMap<usize, Arc<Answer>>>,
}

/// What a check found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Outputs of whole numbers that differ from the oracle's in any bit.
    pub inexact: usize,
    /// On random values, the largest error of an output as a share of what its step's kernel is allowed; 0 if nothing
    /// was rounded.
    pub share_of_bound: f64,
    /// On random values, the largest error of a step's outputs together: its norm over the norm of what the oracle has.
    pub relative_error: f64,
    /// Outputs that differ in any bit when the same is computed again, step by step.
    pub unstable: usize,
    /// Outputs of a step that were not written.
    pub unwritten: usize,
    /// Elements written outside of a step's output.
    pub stray: usize,
}

impl Report {
    /// The largest relative error that passes, far above what f32 rounds and far below an error in a link's numbers.
    pub const MOST_RELATIVE_ERROR: f64 = 2e-5;

    /// Whether nothing is wrong.
    pub fn passes(&self) -> bool {
        // A NaN is not below a bound.
        self.share_of_bound <= 1.0
            && self.relative_error <= Self::MOST_RELATIVE_ERROR
            && [self.inexact, self.unstable, self.unwritten, self.stray] == [0; 4]
    }
}

impl Data {
    /// Random values: inputs in [-1, 1), weights scaled so that activations keep their size, biases in
    /// [-0.1, 0.1). Drawn from `name`, so the same everywhere.
    pub fn random(name: &str, chain: &Chain, input: impl Into<Shape>) -> Result<Self> {
        let input = input.into();
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
    pub fn answer(&self, chain: &Chain, input: impl Into<Shape>) -> Result<Answer> {
        let input = input.into();
        oracle::run(chain, &self.input, input, &self.weights(), self.residual.as_deref())
    }
}

impl Oracle {
    /// Draws the data of a problem.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says.
    pub fn new(problem: &Problem) -> Result<Self> {
        Self::of_chain(&problem.to_string(), problem.chain(), problem.input, problem.layout, u64::MAX)
    }

    /// As [`Oracle::new`] for a chain, its data drawn from a name. Where the last link of a step takes more than `most`
    /// multiply-adds, only some of its channels are compared, in all their pixels; that all outputs are written, and
    /// nothing besides, is checked in any case.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says.
    pub fn of_chain(name: &str, chain: Chain, input: impl Into<Shape>, layout: Layout, most: u64) -> Result<Self> {
        let input = input.into();
        let exact = if chain.convolutions().any(|(_, conv)| rounds(conv.activation)) {
            None
        } else {
            let data = Data::integers(name, &chain, input)?;
            let answer = Part { chain: &chain, input, data: &data }.answer(most)?;
            // What is not below 2^24 could round, and proves nothing; a clamp's bounds are eighths.
            let clamps = chain.convolutions().any(|(_, conv)| matches!(conv.activation, Activation::Clamp(..)));
            let largest = if clamps { 1 << 21 } else { 1 << 24 };
            let small = answer.magnitudes.iter().all(|&magnitude| magnitude < f64::from(largest));
            small.then_some((data, answer))
        };
        let random = Data::random(name, &chain, input)?;
        Ok(Self { chain, input, layout, most, exact, random, answers: Mutex::default() })
    }

    /// Runs a schedule on the device and judges it. Only the names of its recipes count: shaders run without wgpu's
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
        let whole = |data| Trial { chain: &self.chain, input: self.input, layout: self.layout, data };
        if let Some((data, answer)) = &self.exact {
            let values = whole(data).run(gpu, schedule, &mut report)?;
            let part = Part { chain: &self.chain, input: self.input, data };
            let values = part.sample(self.most)?.map_or_else(|| values.clone(), |sample| sample.select(&values));
            let differs = |(value, &expected): (&f32, &f64)| f64::from(*value) != expected;
            if schedule.steps.iter().all(|step| step.recipe.exact) {
                report.inexact = values.iter().zip(&answer.values).filter(|&pair| differs(pair)).count();
            }
        }
        let values = whole(&self.random).run(gpu, schedule, &mut report)?;
        let again = self.judge_steps(gpu, schedule, &mut report)?;
        report.unstable = values.iter().zip(&again).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        Ok(report)
    }

    /// Runs each step alone, on random numbers, and judges its outputs. The last step's.
    fn judge_steps(&self, gpu: &GpuConv, schedule: &Schedule, report: &mut Report) -> Result<Vec<f32>> {
        let shapes = self.chain.shapes(self.input)?;
        // What the device has; a tensor inside of a step is never in memory.
        let mut tensors = vec![None; shapes.len()];
        tensors[0] = Some(self.random.input.clone());
        for step in &schedule.steps {
            let links = step.first..step.first + step.links;
            let (chain, data) = (self.chain.part(links.clone()), self.data_of(step, &tensors)?);
            let alone = Schedule::of_one(&chain, &shapes[links.start..=links.end], &step.recipe, gpu.caps());
            let input = shapes[links.start];
            let values = Trial { chain: &chain, input, layout: self.layout, data: &data }.run(gpu, &alone, report)?;
            let part = Part { chain: &chain, input, data: &data };
            let answer = match lock(&self.answers).get(&step.links).filter(|_| step.first == 0) {
                Some(answer) => answer.clone(),
                None => Arc::new(part.answer(self.most)?),
            };
            if step.first == 0 {
                lock(&self.answers).insert(step.links, answer.clone());
            }
            match part.sample(self.most)? {
                Some(sample) => judge(&sample.select(&values), &answer, &step.recipe, report),
                None => judge(&values, &answer, &step.recipe, report),
            }
            tensors[links.end] = Some(values);
        }
        tensors.pop().flatten().ok_or_else(|| no_tensor(shapes.len() - 1))
    }

    /// What a step computes with.
    fn data_of(&self, step: &Step, tensors: &[Option<Vec<f32>>]) -> Result<Data> {
        let links = step.first..step.first + step.links;
        let of_chain = self.chain.convolutions().zip(&self.random.weights);
        let own = of_chain.filter(|((link, _), _)| links.contains(link)).map(|(_, weights)| weights.clone());
        let tensor = |index: usize| tensors[index].clone().ok_or_else(|| no_tensor(index));
        let residual = match self.chain.source(links.end - 1) {
            // The part has that edge itself.
            Some(source) if source == links.start => None,
            Some(source) => Some(tensor(source)?),
            None if self.chain.outside_residual() == Some(links.end - 1) => self.random.residual.clone(),
            None => None,
        };
        Ok(Data { input: tensor(links.start)?, weights: own.collect(), residual })
    }
}

fn no_tensor(index: usize) -> Error {
    Error::Internal(format!("no step of the schedule ends at tensor {index}, which a later step reads"))
}

/// What the oracle answers for: a chain and its data.
struct Part<'a> {
    chain: &'a Chain,
    input: Shape,
    data: &'a Data,
}

impl Part<'_> {
    /// The outputs that are compared, unless all are.
    fn sample(&self, most: u64) -> Result<Option<Sample>> {
        Ok(Sample::new(self.chain, &self.chain.shapes(self.input)?, most))
    }

    /// The oracle's answer for these.
    fn answer(&self, most: u64) -> Result<Answer> {
        match self.sample(most)? {
            Some(sample) => sample.answer(self.chain, self.input, self.data),
            None => self.data.answer(self.chain, self.input),
        }
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
