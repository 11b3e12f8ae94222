//! Cuts a chain into runs, each with the kernel that is cheapest, and says why.

use crate::caps::Caps;
use crate::chain::Chain;
use crate::error::{Error, Result};
use crate::kernels::{KERNELS, POOL, Recipe, Run, Unsupported, Work};
use crate::shape::{Layout, Shape};
use crate::workspace::Workspace;

/// What the caller says about the choice of kernels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The cheapest.
    #[default]
    Auto,
    /// The cheapest of those that fuse links, or of those that do not.
    Fusion(Fusion),
    /// The cheapest with these names: a kernel's (`pointwise`) or a recipe's (`pointwise/64x64x16`) for every
    /// step, or one for each step, separated by `+` (`depthwise/8x4+pointwise`). A single name of a kernel for
    /// convolutions leaves pools as they are.
    Named(String),
}

/// Whether several links are computed in one go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fusion {
    /// Where that is cheaper.
    #[default]
    Auto,
    /// Never: every link is a step of its own.
    Never,
    /// Wherever a kernel can: as few steps as possible.
    Always,
}

/// How a chain is computed on one device: a step for each run.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The candidates for every possible run, the taken ones among them.
    pub considered: Vec<Considered>,
    /// The memory that the steps need between them.
    pub workspace: Workspace,
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

impl Considered {
    /// The step that one of the recipes makes.
    fn step(&self, recipe: usize) -> Option<Step> {
        let (recipe, seconds) = self.answer.as_ref().ok()?.get(recipe)?.clone();
        Some(Step { first: self.first, links: self.links, recipe, seconds })
    }
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
const GPU: Rates = Rates {
    mult_adds: 5e12,
    accesses: 1.2e12,
    shared: 2.4e12,
    bytes: 4e11,
    dispatch: 3e-6,
    busy: 32768.0,
    overlaps: true,
};

/// Two cores of lavapipe, from the kernels' own timings.
const CPU: Rates = Rates {
    mult_adds: 7.8e10,
    accesses: 1.8e9,
    shared: 1.8e9,
    bytes: 1e10,
    dispatch: 3e-5,
    busy: 16.0,
    overlaps: false,
};

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
            // No run spans a pool, which has a kernel of its own.
            let (convs, kernels) = match chain.run(first..first + links) {
                Some((convs, _)) => (convs, KERNELS),
                None if links == 1 => (Vec::new(), POOL),
                None => continue,
            };
            let run = Run { links: &convs, shapes: &shapes[first..=first + links], layout };
            for kernel in kernels.iter().filter(|kernel| kernel.links == links) {
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
        Choice::Auto | Choice::Fusion(_) => Vec::new(),
        Choice::Named(names) => names.split('+').collect(),
    };
    check_names(&considered, &wanted)?;
    // Of several names each is for the step at its place, so the cheapest way to a link depends on how many
    // steps there were before.
    let places = wanted.len().max(1);
    let meant = |place: usize, name: &str| match wanted[..] {
        [] => true,
        [all] if is_pool(name) && !is_pool(all) => true,
        _ => is_called(name, wanted[place % places]),
    };
    let count = chain.links().len();
    // The cheapest way to each link in each number of steps.
    let mut best: Vec<Vec<Option<Way>>> = vec![vec![None; count + 1]; count + 1];
    best[0][0] = Some(Way::default());
    for end in 1..=count {
        for (index, answer) in considered.iter().enumerate().filter(|(_, answer)| answer.first + answer.links == end) {
            let Ok(recipes) = &answer.answer else { continue };
            for place in 0..count {
                let Some(before) = best[answer.first][place].clone() else { continue };
                let fitting = recipes.iter().enumerate().filter(|(_, (recipe, _))| meant(place, &recipe.name));
                let Some((recipe, (_, seconds))) = fitting.min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1)) else {
                    continue;
                };
                let mut way = Way { seconds: before.seconds + seconds, steps: before.steps };
                if best[end][place + 1].as_ref().is_none_or(|so_far| way.seconds < so_far.seconds) {
                    way.steps.push((index, recipe));
                    best[end][place + 1] = Some(way);
                }
            }
        }
    }
    let complete = best.pop().into_iter().flatten().flatten();
    let complete = complete.filter(|way| match choice {
        Choice::Fusion(Fusion::Never) => way.steps.len() == count,
        _ => wanted.len() < 2 || way.steps.len() == wanted.len(),
    });
    let fewest_steps = *choice == Choice::Fusion(Fusion::Always);
    let steps = |way: &Way| if fewest_steps { way.steps.len() } else { 0 };
    match complete.min_by(|a, b| steps(a).cmp(&steps(b)).then(a.seconds.total_cmp(&b.seconds))) {
        Some(way) => {
            let step = |(index, recipe): (usize, usize)| considered[index].step(recipe);
            let steps: Vec<_> = way.steps.into_iter().filter_map(step).collect();
            let workspace = Workspace::new(chain, &shapes, &steps, caps);
            Ok(Schedule { steps, considered, workspace })
        }
        None => Err(no_schedule(chain, input, considered)),
    }
}

/// Steps up to some link: which answer, and which of its recipes.
#[derive(Clone, Default)]
struct Way {
    seconds: f64,
    steps: Vec<(usize, usize)>,
}

/// Whether a recipe is meant by a name, its own or its kernel's.
fn is_called(recipe: &str, name: &str) -> bool {
    recipe == name || recipe.split('/').next() == Some(name)
}

/// Whether a kernel's or a recipe's name is a pool's.
fn is_pool(name: &str) -> bool {
    POOL.iter().any(|kernel| is_called(name, kernel.name))
}

/// Refuses names that no kernel and no recipe has.
fn check_names(considered: &[Considered], wanted: &[&str]) -> Result<()> {
    let recipes =
        || considered.iter().flat_map(|answer| answer.answer.iter().flatten()).map(|(recipe, _)| &recipe.name);
    let kernels = || KERNELS.iter().chain(POOL);
    let known = |name: &str| kernels().any(|kernel| kernel.name == name) || recipes().any(|known| known == name);
    match wanted.iter().find(|name| !known(name)) {
        None => Ok(()),
        Some(name) => {
            let mut known: Vec<String> = recipes().cloned().collect();
            known.extend(kernels().map(|kernel| kernel.name.into()));
            known.sort();
            known.dedup();
            Err(Error::UnknownKernel { name: name.to_string(), known })
        }
    }
}

fn no_schedule(chain: &Chain, input: Shape, considered: Vec<Considered>) -> Error {
    let rejected = considered
        .into_iter()
        .filter_map(|answer| answer.answer.err().map(|reason| (answer.kernel.to_string(), reason)))
        .collect();
    let links = chain.links().len();
    let problem = format!("{} on {input}", if links == 1 { "a link".into() } else { format!("a chain of {links}") });
    Error::NoKernel { problem, rejected }
}

/// Every schedule worth comparing: each recipe of each run once, the rest as the planner likes it.
///
/// # Errors
/// As [`schedule`].
pub fn alternatives(chain: &Chain, input: Shape, layout: Layout, caps: &Caps) -> Result<Vec<Schedule>> {
    let auto = schedule(chain, input, layout, caps, &Choice::Auto)?;
    let shapes = chain.shapes(input)?;
    let count = chain.links().len();
    let mut schedules = vec![auto.clone()];
    for answer in &auto.considered {
        let recipes = answer.answer.as_ref().map_or(0, Vec::len);
        for step in (0..recipes).filter_map(|recipe| answer.step(recipe)) {
            let before = cheapest_singles(&auto, 0, step.first);
            let after = cheapest_singles(&auto, step.first + step.links, count);
            let (Some(mut steps), Some(after)) = (before, after) else { continue };
            steps.push(step);
            steps.extend(after);
            let workspace = Workspace::new(chain, &shapes, &steps, caps);
            let schedule = Schedule { steps, considered: auto.considered.clone(), workspace };
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
            let recipes = |answer: &Considered| answer.answer.as_ref().map_or(0, Vec::len);
            let steps = answers.flat_map(|answer| (0..recipes(answer)).filter_map(|recipe| answer.step(recipe)));
            steps.min_by(|a, b| a.seconds.total_cmp(&b.seconds))
        })
        .collect()
}
