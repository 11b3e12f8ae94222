//! Checks of kernels against the oracle on any device: what CI runs, for a user's own GPU.

pub(crate) mod judge;
#[doc(hidden)]
pub mod random;
mod sample;
mod steps;
mod trial;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::model::caps::Caps;
use crate::model::chain::Chain;
use crate::model::conv::Activation;
use crate::model::error::Result;
use crate::model::shape::{Layout, Shape};
use crate::model::weights::Weights;
use crate::oracle::{self, Answer};
use crate::planner::{self, Choice, Fusion, Schedule};
use crate::problem::{Operation, Problem};
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block::block_on;
use crate::runtime::gpu::GpuConv;

use judge::judge;
use sample::Sample;
use trial::Trial;

/// The case table: every kind of problem, with sizes around the kernels' tiles.
pub fn cases() -> Vec<Problem> {
    lines().filter_map(|line| line.parse().ok()).collect()
}

/// The case table's lines.
pub fn lines() -> impl Iterator<Item = &'static str> {
    include_str!("verify/cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The schedules by which a problem is checked: the planner's own, one for each kernel that takes the whole problem,
/// and for a chain of several links the best without fusion. `turn` rotates through a kernel's recipes, so that all
/// have a turn over a table of problems. A network has three schedules: the planner's own, without fusion, and with as
/// much fusion as possible.
///
/// # Errors
/// As [`planner::schedule`].
pub fn schedules(problem: &Problem, caps: &Caps, turn: usize) -> Result<Vec<Schedule>> {
    if let Operation::Network(network) = &problem.operation {
        let chain = network.chain.clone().with_dtype(problem.dtype);
        let by = |fusion| planner::schedule(&chain, problem.input, problem.layout, caps, &Choice::Fusion(fusion));
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
    /// What the input of a link is multiplied by, N x C x 1 x 1, if a link takes that from outside.
    pub scale: Option<Vec<f32>>,
}

/// A problem with its data. It checks any number of schedules.
///
/// Whole numbers must match the oracle bit for bit. Random numbers are judged step by step: each step runs alone on the
/// device's own results of the steps before, and the oracle computes it from the same input. So an error shows in the
/// step that made it, and no bound grows with the length of a chain. The whole schedule must give, bit for bit, what
/// its steps gave one by one.
///
/// For f16 the oracle reads what the device reads, rounded numbers. By how much storing an output may change it, half a
/// unit in the last place, is no error.
pub struct Oracle {
    chain: Chain,
    input: Shape,
    layout: Layout,
    /// Multiply-adds that the oracle computes for one step.
    most: u64,
    /// Whole numbers small enough for f32 to add without rounding, and for tensors between links to be stored without;
    /// and the answer. None if the activation rounds.
    exact: Option<(Data, Answer)>,
    random: Data,
    /// Answers for steps that read the chain's input, by their number of links. All schedules share them.
    answers: Mutex<HashMap<usize, Arc<Answer>>>,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Outputs of whole numbers that differ from the oracle's in any bit.
    pub inexact: usize,
    /// On random values, the largest error of an output as a share of the bound of its step's kernel; 0 if nothing was
    /// rounded. In f16 the error beyond the rounding of the store: 0 also if no output is further off.
    pub share_of_bound: f64,
    /// On random values, the largest relative error of a step: the norm of its error over the norm of the oracle's
    /// answer. In f16 without the rounding of the stores.
    pub relative_error: f64,
    /// Outputs that differ in any bit when they are computed again, step by step.
    pub unstable: usize,
    /// Outputs of a step that were not written.
    pub unwritten: usize,
    /// Elements written outside of a step's output.
    pub stray: usize,
}

impl Report {
    /// The largest relative error that passes: far above f32's rounding, far below the effect of a wrong number.
    pub const MOST_RELATIVE_ERROR: f64 = 2e-5;

    /// Whether nothing is wrong.
    pub fn passes(&self) -> bool {
        // A NaN is not below a bound.
        self.share_of_bound <= 1.0
            && self.relative_error <= Self::MOST_RELATIVE_ERROR
            && [self.inexact, self.unstable, self.unwritten, self.stray] == [0; 4]
    }

    /// What is wrong, in words; nothing if it passes.
    pub fn complaint(&self) -> String {
        let counts = [
            (self.inexact, "outputs of whole numbers differ"),
            (self.unstable, "outputs differ when computed again"),
            (self.unwritten, "outputs are not written"),
            (self.stray, "elements outside of the output are written"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut complaints: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        // A NaN fails too, but is not `> 1.0`.
        if self.share_of_bound.is_nan() || self.share_of_bound > 1.0 {
            complaints.push(format!("the error is {:.3} times the bound", self.share_of_bound));
        }
        if self.relative_error.is_nan() || self.relative_error > Self::MOST_RELATIVE_ERROR {
            let most = Self::MOST_RELATIVE_ERROR;
            complaints.push(format!("the relative error is {:.1e}, above {most:.0e}", self.relative_error));
        }
        complaints.join(", ")
    }
}

impl Data {
    /// Random values: inputs in [-1, 1), weights scaled so that activations keep their size, biases in
    /// [-0.1, 0.1). Drawn from `name`, so the same everywhere.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says.
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
            scale: chain.outside_scale_shape(&shapes).map(|shape| values("s", 0, shape.len())),
        })
    }

    /// The weights, as the layers and the oracle take them.
    pub fn weights(&self) -> Vec<Weights<'_>> {
        self.weights.iter().map(|(weight, bias)| Weights { weight, bias: bias.as_deref() }).collect()
    }

    /// The oracle's answer.
    ///
    /// # Errors
    /// As [`oracle::run_scaled`].
    pub fn answer(&self, chain: &Chain, input: impl Into<Shape>) -> Result<Answer> {
        let input = input.into();
        let (residual, scale) = (self.residual.as_deref(), self.scale.as_deref());
        oracle::run_scaled(chain, &self.input, input, &self.weights(), residual, scale)
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

    /// As [`Oracle::new`] for a chain, with data drawn from a name. If the last link of a step takes more than `most`
    /// multiply-adds, only some of its channels are compared, in all their pixels. That all outputs are written, and
    /// nothing else, is always checked.
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
            // A sum of 2^24 or more could round, and proves nothing. A clamp's bounds are eighths.
            let clamps = chain.convolutions().any(|(_, conv)| matches!(conv.activation, Activation::Clamp(..)));
            let largest = if clamps { 1 << 21 } else { 1 << 24 };
            let small = answer.magnitudes.iter().all(|&magnitude| magnitude < f64::from(largest));
            (small && answer.is_stored_exactly).then_some((data, answer))
        };
        let random = Data::random(name, &chain, input)?;
        Ok(Self { chain, input, layout, most, exact, random, answers: Mutex::default() })
    }

    /// Runs a schedule on the device and judges it. Only the names of its recipes count. Shaders run without wgpu's
    /// checks, so they come from the kernels, not from a recipe that the caller may have changed.
    ///
    /// # Errors
    /// What the device and the planner say.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn check(&self, gpu: &GpuConv, schedule: &Schedule) -> Result<Report> {
        block_on(self.check_async(gpu, schedule))
    }

    /// As [`Oracle::check`], awaited.
    ///
    /// # Errors
    /// As [`Oracle::check`].
    pub async fn check_async(&self, gpu: &GpuConv, schedule: &Schedule) -> Result<Report> {
        let choice = Choice::Named(schedule.name());
        let schedule = planner::schedule(&self.chain, self.input, self.layout, gpu.caps(), &choice)?;
        // SAFETY: it is the planner's, for this chain and input.
        unsafe { self.check_as_it_is_async(gpu, &schedule) }.await
    }

    /// As [`Oracle::check`], with the schedule's own shaders.
    ///
    /// # Safety
    /// The planner must have made the schedule for this chain and input, or its shaders must be as safe as the
    /// planner's: loops end, and indices stay inside of what is bound.
    #[cfg(not(target_arch = "wasm32"))]
    #[doc(hidden)]
    pub unsafe fn check_as_it_is(&self, gpu: &GpuConv, schedule: &Schedule) -> Result<Report> {
        // SAFETY: as the caller says.
        block_on(unsafe { self.check_as_it_is_async(gpu, schedule) })
    }

    /// As [`Oracle::check_as_it_is`], awaited.
    ///
    /// # Safety
    /// As [`Oracle::check_as_it_is`].
    pub(crate) async unsafe fn check_as_it_is_async(&self, gpu: &GpuConv, schedule: &Schedule) -> Result<Report> {
        let mut report = Report::default();
        let whole = |data| Trial { chain: &self.chain, input: self.input, layout: self.layout, data };
        if let Some((data, answer)) = &self.exact {
            let values = whole(data).run(gpu, schedule, &mut report).await?;
            if schedule.steps.iter().all(|step| step.recipe.exact) {
                report.inexact = self.inexact(&self.selected(data, values)?, answer);
            }
        }
        let values = whole(&self.random).run(gpu, schedule, &mut report).await?;
        let again = self.judge_steps(gpu, schedule, &mut report).await?;
        report.unstable = values.iter().zip(&again).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        Ok(report)
    }

    /// Runs a layer of the problem as it is, and judges its outputs as a whole. For what is computed band by band,
    /// since a tensor is larger than a binding: no single schedule does that.
    ///
    /// # Errors
    /// What the device and the planner say.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn check_layer(&self, gpu: &GpuConv, choice: &Choice) -> Result<Report> {
        block_on(self.check_layer_async(gpu, choice))
    }

    /// As [`Oracle::check_layer`], awaited.
    ///
    /// # Errors
    /// As [`Oracle::check_layer`].
    pub async fn check_layer_async(&self, gpu: &GpuConv, choice: &Choice) -> Result<Report> {
        let mut report = Report::default();
        let steps = gpu.divide(&self.chain, self.input, self.layout, choice)?.schedule().steps;
        let whole = |data| Trial { chain: &self.chain, input: self.input, layout: self.layout, data };
        if let Some((data, answer)) = &self.exact {
            let layer = gpu.chain_with(&self.chain, &data.weights(), choice.clone())?;
            let values = whole(data).run_layer(gpu, &layer, &mut report).await?;
            if steps.iter().all(|step| step.recipe.exact) {
                report.inexact = self.inexact(&self.selected(data, values)?, answer);
            }
        }
        let layer = gpu.chain_with(&self.chain, &self.random.weights(), choice.clone())?;
        let values = whole(&self.random).run_layer(gpu, &layer, &mut report).await?;
        let again = whole(&self.random).run_layer(gpu, &layer, &mut report).await?;
        report.unstable = values.iter().zip(&again).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let part = Part { chain: &self.chain, input: self.input, data: &self.random };
        let values = self.selected(&self.random, values)?;
        judge(&values, &part.answer(self.most)?, &self.chain, &steps, &mut report);
        Ok(report)
    }

    /// How many values are not those that the last store makes of the answer.
    fn inexact(&self, values: &[f32], answer: &Answer) -> usize {
        let [_, dtype] = self.chain.ends();
        let differs = |&(&value, &expected): &(&f32, &f64)| f64::from(value) != dtype.nearest(expected);
        values.iter().zip(&answer.values).filter(differs).count()
    }

    /// The outputs that are compared.
    fn selected(&self, data: &Data, values: Vec<f32>) -> Result<Vec<f32>> {
        let part = Part { chain: &self.chain, input: self.input, data };
        Ok(part.sample(self.most)?.map(|sample| sample.select(&values)).unwrap_or(values))
    }
}

/// A chain and its data, for the oracle.
struct Part<'a> {
    chain: &'a Chain,
    input: Shape,
    data: &'a Data,
}

impl Part<'_> {
    /// The outputs to compare, if not all.
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

/// Whether an activation rounds small whole numbers, or gives a number that is no multiple of an eighth.
fn rounds(activation: Activation) -> bool {
    match activation {
        Activation::None | Activation::Relu | Activation::Relu6 => false,
        Activation::Silu
        | Activation::HardSwish
        | Activation::Sigmoid
        | Activation::HardSigmoid
        | Activation::Tanh
        | Activation::Gelu => true,
        Activation::LeakyRelu(slope) => (slope * 8.0).fract() != 0.0,
        Activation::Clamp(low, high) => {
            [low, high].iter().any(|bound| bound.is_finite() && (bound * 8.0).fract() != 0.0)
        }
    }
}
