//! Cuts a chain into runs, each with the kernel that is cheapest, and says why.

use crate::caps::Caps;
use crate::chain::Chain;
use crate::error::{Error, Result};
use crate::kernels::{KERNELS, Recipe, Run, Unsupported, Work};
use crate::shape::{Layout, Shape};

/// What the caller says about the choice of kernels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The cheapest.
    #[default]
    Auto,
    /// The cheapest of those that begin with one of these names, separated by `+`: a kernel's (`pointwise`) or
    /// a recipe's (`depthwise/4x4+pointwise/64x64x16`).
    Named(String),
}

/// How a chain is computed on one device: a step for each run.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The candidates for every possible run, the taken ones among them.
    pub considered: Vec<Considered>,
}

/// One run and the recipe for it.
#[derive(Clone, Debug)]
pub struct Step {
    /// The first link.
    pub first: usize,
    /// How many links.
    pub links: usize,
    /// How they are computed.
    pub recipe: Recipe,
    /// What the model says it takes, seconds.
    pub seconds: f64,
}

/// What a kernel answered for a run.
#[derive(Clone, Debug)]
pub struct Considered {
    /// The first link.
    pub first: usize,
    /// How many links.
    pub links: usize,
    /// The kernel.
    pub kernel: &'static str,
    /// Its recipes with the modelled times in seconds, or its reason.
    pub answer: Result<Vec<(Recipe, f64)>, Unsupported>,
}

impl Schedule {
    /// The recipes' names, joined by `+`.
    pub fn name(&self) -> String {
        let names: Vec<_> = self.steps.iter().map(|step| step.recipe.name.as_str()).collect();
        names.join("+")
    }

    /// The modelled time, seconds.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }

    /// Whether a recipe of a run was taken.
    pub fn takes(&self, first: usize, links: usize, name: &str) -> bool {
        self.steps.iter().any(|step| (step.first, step.links) == (first, links) && step.recipe.name == name)
    }
}

/// The rates that turn work into time.
///
/// A GPU overlaps arithmetic, workgroup memory, loads and memory traffic, so the slowest of them counts (the
/// roofline of Williams, Waterman and Patterson, CACM 52(4), 2009). A software device does one after the
/// other, and pays for each load as for several multiply-adds.
#[derive(Clone, Copy, Debug)]
struct Rates {
    mult_adds: f64,
    accesses: f64,
    shared: f64,
    bytes: f64,
    /// Seconds before a dispatch does anything.
    dispatch: f64,
    /// Invocations that keep the device busy.
    busy: f64,
    overlaps: bool,
}

/// A desktop GPU of 10 Tflop/s.
const GPU: Rates =
    Rates { mult_adds: 5e12, accesses: 1.2e12, shared: 2.4e12, bytes: 4e11, dispatch: 3e-6, busy: 32768.0, overlaps: true };

/// Two cores of lavapipe, from the kernels' own timings.
const CPU: Rates =
    Rates { mult_adds: 3e10, accesses: 1.6e9, shared: 1.6e9, bytes: 1e10, dispatch: 3e-5, busy: 16.0, overlaps: false };

fn seconds(work: &Work, dispatches: usize, caps: &Caps) -> f64 {
    let rates = if caps.is_cpu { CPU } else { GPU };
    let occupancy = (work.invocations / rates.busy).clamp(1e-3, 1.0);
    let parts = [
        work.mult_adds / rates.mult_adds / occupancy,
        work.accesses / rates.accesses / occupancy,
        work.shared / rates.shared / occupancy,
        work.bytes / rates.bytes,
    ];
    let busy = if rates.overlaps { parts.into_iter().fold(0.0, f64::max) } else { parts.iter().sum() };
    busy + rates.dispatch * dispatches as f64
}

/// Every kernel's answer for every run that a chain can be cut into.
fn consider(chain: &Chain, shapes: &[Shape], layout: Layout, caps: &Caps) -> Vec<Considered> {
    let mut considered = Vec::new();
    for first in 0..chain.links().len() {
        let most = KERNELS.iter().map(|kernel| kernel.links).max().unwrap_or(1);
        for links in 1..=most.min(chain.links().len() - first) {
            if inner_tensor_needed(chain, first, links) {
                continue;
            }
            let run =
                Run { links: &chain.links()[first..first + links], shapes: &shapes[first..=first + links], layout };
            for kernel in KERNELS.iter().filter(|kernel| kernel.links == links) {
                let answer = (kernel.candidates)(&run, caps).map(|recipes| {
                    let timed = recipes.into_iter().map(|recipe| {
                        let seconds = seconds(&recipe.work, recipe.passes.len(), caps);
                        (recipe, seconds)
                    });
                    timed.collect()
                });
                considered.push(Considered { first, links, kernel: kernel.name, answer });
            }
        }
    }
    considered
}

/// Whether an edge of the chain starts at a tensor inside a run.
fn inner_tensor_needed(chain: &Chain, first: usize, links: usize) -> bool {
    let inner = first + 1..first + links;
    (0..chain.links().len()).any(|link| chain.source(link).is_some_and(|source| inner.contains(&source)))
}

/// The cheapest schedule: dynamic programming over where runs end.
///
/// # Errors
/// What [`Chain::shapes`] says; [`Error::NoKernel`] with every kernel's reason; [`Error::UnknownKernel`].
pub fn schedule(chain: &Chain, input: Shape, layout: Layout, caps: &Caps, choice: &Choice) -> Result<Schedule> {
    let shapes = chain.shapes(input)?;
    let considered = consider(chain, &shapes, layout, caps);
    let wanted: Vec<&str> = match choice {
        Choice::Auto => Vec::new(),
        Choice::Named(names) => names.split('+').collect(),
    };
    let count = chain.links().len();
    let mut best: Vec<Option<(f64, Vec<Step>)>> = vec![Some((0.0, Vec::new()))];
    for end in 1..=count {
        let mut cheapest: Option<(f64, Vec<Step>)> = None;
        for answer in considered.iter().filter(|answer| answer.first + answer.links == end) {
            let (Some((before, steps)), Ok(recipes)) = (&best[answer.first], &answer.answer) else { continue };
            let meant = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| is_called(name, wanted));
            for (recipe, seconds) in recipes.iter().filter(|(recipe, _)| meant(&recipe.name)) {
                let total = before + seconds;
                if cheapest.as_ref().is_none_or(|(so_far, _)| total < *so_far) {
                    let (first, links) = (answer.first, answer.links);
                    let step = Step { first, links, recipe: recipe.clone(), seconds: *seconds };
                    cheapest = Some((total, steps.iter().cloned().chain([step]).collect()));
                }
            }
        }
        best.push(cheapest);
    }
    match best.pop().flatten() {
        Some((_, steps)) => Ok(Schedule { steps, considered }),
        None => Err(no_schedule(chain, input, considered, &wanted)),
    }
}

/// Whether a recipe is meant by a name, its own or its kernel's.
fn is_called(recipe: &str, name: &str) -> bool {
    recipe == name || recipe.split('/').next() == Some(name)
}

fn no_schedule(chain: &Chain, input: Shape, considered: Vec<Considered>, wanted: &[&str]) -> Error {
    let known = |name: &str| {
        let kernel = name.split('/').next().unwrap_or(name);
        let recipes = considered.iter().filter_map(|answer| answer.answer.as_ref().ok()).flatten();
        KERNELS.iter().any(|known| known.name == kernel)
            && (!name.contains('/') || recipes.into_iter().any(|(recipe, _)| recipe.name == name))
    };
    if let Some(name) = wanted.iter().find(|name| !known(name)) {
        let mut names: Vec<String> = KERNELS.iter().map(|kernel| kernel.name.into()).collect();
        for answer in &considered {
            names.extend(answer.answer.iter().flatten().map(|(recipe, _)| recipe.name.clone()));
        }
        names.dedup();
        return Error::UnknownKernel { name: name.to_string(), known: names };
    }
    let rejected = considered
        .into_iter()
        .filter_map(|answer| answer.answer.err().map(|reason| (answer.kernel.to_string(), reason)))
        .collect();
    let problem = format!("a chain of {} on {input}", chain.links().len());
    Error::NoKernel { problem, rejected }
}

/// Every schedule worth comparing: each recipe of each run once, the rest as the planner likes it.
///
/// # Errors
/// As [`schedule`].
pub fn alternatives(chain: &Chain, input: Shape, layout: Layout, caps: &Caps) -> Result<Vec<Schedule>> {
    let auto = schedule(chain, input, layout, caps, &Choice::Auto)?;
    let count = chain.links().len();
    let mut schedules = vec![auto.clone()];
    for answer in &auto.considered {
        let recipes = answer.answer.iter().flatten();
        for (recipe, seconds) in recipes {
            let step = Step { first: answer.first, links: answer.links, recipe: recipe.clone(), seconds: *seconds };
            let before = cheapest_singles(&auto, 0, step.first);
            let after = cheapest_singles(&auto, step.first + step.links, count);
            let (Some(mut steps), Some(after)) = (before, after) else { continue };
            steps.push(step);
            steps.extend(after);
            let schedule = Schedule { steps, considered: auto.considered.clone() };
            if schedules.iter().all(|known| known.name() != schedule.name()) {
                schedules.push(schedule);
            }
        }
    }
    Ok(schedules)
}

/// The cheapest recipe of each single link in a range.
fn cheapest_singles(schedule: &Schedule, from: usize, to: usize) -> Option<Vec<Step>> {
    (from..to)
        .map(|link| {
            let answers = schedule.considered.iter().filter(|answer| (answer.first, answer.links) == (link, 1));
            let recipes = answers.flat_map(|answer| answer.answer.iter().flatten());
            recipes.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(recipe, seconds)| Step {
                first: link,
                links: 1,
                recipe: recipe.clone(),
                seconds: *seconds,
            })
        })
        .collect()
}
