//! Cuts a chain into runs, each with the kernel that is cheapest, and says why.

mod bands;
pub(crate) mod cut;
pub(crate) mod division;
#[doc(hidden)]
pub mod instructions;
pub mod model;
pub mod profile;
mod refused;
mod unfit;
pub(crate) mod workspace;

use std::sync::Arc;

use crate::kernels::elements::Elements;
use crate::kernels::{KERNELS, Run, Seen, kernel_of, prelu};
pub use crate::kernels::{Pass, Recipe, Unsupported, Wgsl, Work};
use crate::model::caps::Caps;
use crate::model::chain::{Chain, Edge, Join};
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::planner::profile::Profile;
pub use crate::planner::workspace::Workspace;
use crate::planner::workspace::in_place::{InPlace, Rules, Steps};

pub use bands::images_at_once;
use cut::Wanted;
pub use division::{Division, Extents, Stretch};
use model::Parts;
pub(crate) use refused::Refused;
use unfit::{check_names, no_schedule};

/// What the caller says about the choice of kernels.
///
/// ```
/// use gpuconv::{Caps, Chain, Choice, Fusion, Layout, Separable, planner};
/// let chain = Chain::from(Separable::new(64, 64, 3).padding(1));
/// let steps = |choice| {
///     let schedule = planner::schedule(&chain, [1, 64, 56, 56], Layout::Nchw, &Caps::webgpu(), &choice);
///     schedule.map(|schedule| schedule.steps.len())
/// };
/// assert_eq!(steps(Choice::Fusion(Fusion::Always))?, 1);
/// assert_eq!(steps(Choice::Fusion(Fusion::Never))?, 2);
/// assert_eq!(steps(Choice::Named("depthwise+pointwise".into()))?, 2);
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The cheapest.
    #[default]
    Auto,
    /// The cheapest of those that fuse links, or of those that do not.
    Fusion(Fusion),
    /// The cheapest with these names: a kernel's (`pointwise`) or a recipe's (`pointwise/64x64x16`) for every
    /// step, or one for each step, separated by `+` (`depthwise/8x4+pointwise`). A single name of a kernel for
    /// convolutions leaves links of other kinds as they are.
    Named(String),
    /// One of these, of the recipes that need no more scratch memory; made by [`Choice::within`].
    Within(Box<Choice>, u64),
}

impl Choice {
    /// The same, but no step may need more than `workspace` bytes of scratch memory. (Tensors between steps are
    /// not counted: all recipes need them.)
    pub fn within(self, workspace: u64) -> Self {
        Self::Within(Box::new(self), workspace)
    }

    /// The names that are asked for, one for all steps or one for each.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Named(names) => names.split('+').collect(),
            Self::Within(choice, _) => choice.names(),
            Self::Auto | Self::Fusion(_) => Vec::new(),
        }
    }

    /// The same with another name.
    fn renamed(&self, name: &str) -> Self {
        match self {
            Self::Within(choice, workspace) => Self::Within(Box::new(choice.renamed(name)), *workspace),
            _ => Self::Named(name.into()),
        }
    }

    /// The same with the names of kernels, not of their recipes: inputs of another size may have others.
    pub(crate) fn of_kernels(&self) -> Self {
        match self {
            Self::Named(names) => {
                let kernels = names.split('+').map(kernel_of);
                Self::Named(kernels.collect::<Vec<_>>().join("+"))
            }
            Self::Within(choice, workspace) => Self::Within(Box::new(choice.of_kernels()), *workspace),
            Self::Auto | Self::Fusion(_) => self.clone(),
        }
    }
}

/// Whether several links are computed in one go.
#[non_exhaustive]
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

impl std::str::FromStr for Fusion {
    type Err = Error;

    /// `auto`, `never` or `always`.
    fn from_str(word: &str) -> Result<Self> {
        match word {
            "auto" => Ok(Self::Auto),
            "never" => Ok(Self::Never),
            "always" => Ok(Self::Always),
            _ => Err(Error::Fusion(word.into())),
        }
    }
}

/// How a chain is computed on one device: a step for each run.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The candidates for every possible run, run by run, the taken ones among them.
    pub considered: Arc<[Considered]>,
    /// The memory that the steps need between them.
    pub workspace: Workspace,
    /// The shapes of the chain's tensors, the input's first.
    pub(crate) shapes: Vec<Shape>,
}

/// One run and the recipe for it.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Step {
    /// The first link.
    pub first: usize,
    /// How many links.
    pub links: usize,
    /// How they are computed.
    pub recipe: Recipe,
    /// What it takes, seconds: measured where the device was tuned, else what the model says.
    pub seconds: f64,
    /// What the model says it takes.
    pub parts: Parts,
}

/// What a kernel answered for a run.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Considered {
    /// The first link.
    pub first: usize,
    /// How many links.
    pub links: usize,
    /// The kernel.
    pub kernel: &'static str,
    /// Its recipes, or its reason.
    pub answer: Result<Vec<Candidate>, Unsupported>,
}

/// A recipe that could compute a run, and what it takes.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Candidate {
    /// How the run is computed.
    pub recipe: Recipe,
    /// What the model says it takes.
    pub parts: Parts,
    /// The seconds measured on this device, if it was tuned for the run.
    pub measured: Option<f64>,
}

impl Candidate {
    /// What it takes, seconds: measured, else by the model.
    pub fn seconds(&self) -> f64 {
        self.measured.unwrap_or_else(|| self.parts.seconds())
    }
}

impl Considered {
    /// The step that one of the recipes makes.
    fn step(&self, recipe: usize) -> Option<Step> {
        let candidate = self.answer.as_ref().ok()?.get(recipe)?;
        let (recipe, seconds, parts) = (candidate.recipe.clone(), candidate.seconds(), candidate.parts);
        Some(Step { first: self.first, links: self.links, recipe, seconds, parts })
    }
}

impl Schedule {
    /// The recipes' names, joined by `+`.
    pub fn name(&self) -> String {
        let names: Vec<_> = self.steps.iter().map(|step| step.recipe.name.as_str()).collect();
        names.join("+")
    }

    /// What all steps take, seconds.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|step| step.seconds).sum()
    }

    /// The schedule that computes a chain, a single run, by a recipe, its time unknown.
    pub(crate) fn of_one(chain: &Chain, shapes: &[Shape], recipe: &Recipe, caps: &Caps) -> Self {
        let links = chain.links().len();
        let steps = vec![Step { first: 0, links, recipe: recipe.clone(), seconds: 0.0, parts: Parts::default() }];
        let workspace = Workspace::new(Steps { chain, shapes, steps: &steps }, InPlace::default(), caps);
        Self { steps, considered: Arc::default(), workspace, shapes: shapes.to_vec() }
    }

    /// What the links before each tensor take at the least, and what those after it, seconds: with them anyone can
    /// tell what the whole would take by another recipe for a run.
    pub fn best_before_and_after(&self) -> [Vec<f64>; 2] {
        cut::best_before_and_after(&self.considered, self.steps.iter().map(|step| step.links).sum())
    }

    /// The answers, run by run.
    pub fn runs(&self) -> impl Iterator<Item = &[Considered]> {
        cut::runs(&self.considered)
    }

    /// Whether a recipe of a run was taken.
    pub fn takes(&self, first: usize, links: usize, name: &str) -> bool {
        self.steps.iter().any(|step| (step.first, step.links) == (first, links) && step.recipe.name == name)
    }
}

/// What the planner knows of a device.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'a> {
    /// What the device can do.
    pub caps: &'a Caps,
    /// What was measured on it.
    pub profile: &'a Profile,
}

/// The cheapest schedule on a device of which nothing was measured.
///
/// # Errors
/// As [`Planner::schedule`].
pub fn schedule(
    chain: &Chain,
    input: impl Into<Shape>,
    layout: Layout,
    caps: &Caps,
    choice: &Choice,
) -> Result<Schedule> {
    Planner { caps, profile: &Profile::default() }.schedule(chain, input, layout, choice)
}

/// How a chain is computed on a device of which nothing was measured, band by band where a tensor is larger than a
/// binding.
///
/// # Errors
/// As [`Planner::divide`].
pub fn divide(
    chain: &Chain,
    input: impl Into<Shape>,
    layout: Layout,
    caps: &Caps,
    choice: &Choice,
) -> Result<Division> {
    Planner { caps, profile: &Profile::default() }.divide(chain, input, layout, choice)
}

/// Every schedule worth comparing, on a device of which nothing was measured.
///
/// # Errors
/// As [`Planner::schedule`].
pub fn alternatives(chain: &Chain, input: impl Into<Shape>, layout: Layout, caps: &Caps) -> Result<Vec<Schedule>> {
    Planner { caps, profile: &Profile::default() }.alternatives(chain, input, layout)
}

impl Planner<'_> {
    /// Every kernel's answer for every run that a chain can be cut into, run by run, without the recipes whose shaders
    /// the driver refused.
    fn consider(&self, chain: &Chain, shapes: &[Shape], layout: Layout, refused: &Refused) -> Vec<Considered> {
        let device = self.profile.device_model(self.caps);
        // And a PReLU.
        let most = KERNELS.iter().map(|kernel| kernel.links).max().unwrap_or(1) + 1;
        let mut considered = Vec::new();
        for first in 0..chain.links().len() {
            for links in 1..=most.min(chain.links().len() - first) {
                let Some(needed) = inner_tensors(chain, first, links) else { continue };
                let end = first + links;
                let own_shapes = chain.run_shapes(first..end, shapes);
                let run = self.run(chain, first, &own_shapes, layout);
                let times = self.profile.times(&run);
                let (own, slopes) = prelu::apart(&run);
                let other = Seen::of(&own);
                let seen = other.as_ref().map_or(own, |other| other.run(&own));
                let candidate = |recipe: Recipe| Candidate {
                    parts: Parts::new(&recipe, &seen, &device),
                    measured: times.and_then(|times| times.get(&recipe.name)).copied(),
                    recipe,
                };
                let complete = |recipes: Vec<Recipe>| match slopes {
                    Some(slopes) => prelu::with_slopes(recipes, &own, slopes, self.caps),
                    None => Ok(recipes),
                };
                for kernel in KERNELS.iter().filter(|kernel| kernel.links == own.links.len()) {
                    let recipes = match ((kernel.candidates)(&seen, self.caps), &other) {
                        (Ok(recipes), Some(other)) => Ok(other.packed(recipes)),
                        // A kernel that was asked for computes images of all sizes, or of none.
                        (Err(_), Some(_)) => (kernel.candidates)(&own, self.caps),
                        (recipes, None) => recipes,
                    };
                    let recipes = recipes.and_then(complete);
                    let mut answer = recipes.and_then(|recipes| accepted(recipes, refused));
                    if !needed.is_empty() {
                        let Ok(recipes) = &mut answer else { continue };
                        recipes.retain(|recipe| needed.iter().all(|link| recipe.kept().any(|kept| kept == *link)));
                        if recipes.is_empty() {
                            continue;
                        }
                    }
                    let answer = answer.map(|recipes| recipes.into_iter().map(candidate).collect());
                    considered.push(Considered { first, links, kernel: kernel.name, answer });
                }
            }
        }
        considered
    }

    /// The cheapest schedule: dynamic programming over where runs end.
    ///
    /// Where a run was tuned, its measured recipes alone are compared; the model does not outbid a measurement.
    ///
    /// # Errors
    /// What [`Chain::shapes`] says; [`Error::NoKernel`] with every kernel's reason; [`Error::TooLarge`] if no kernel can
    /// bind or count a tensor; [`Error::UnknownKernel`].
    pub fn schedule(
        &self,
        chain: &Chain,
        input: impl Into<Shape>,
        layout: Layout,
        choice: &Choice,
    ) -> Result<Schedule> {
        self.schedule_without(&Refused::default(), chain, input.into(), layout, choice)
    }

    /// The cheapest schedule without shaders that the driver refused.
    pub(crate) fn schedule_without(
        &self,
        refused: &Refused,
        chain: &Chain,
        input: Shape,
        layout: Layout,
        choice: &Choice,
    ) -> Result<Schedule> {
        let shapes = chain.shapes(input)?;
        let considered = self.consider(chain, &shapes, layout, refused);
        let wanted = Wanted::new(choice);
        if let Err(unknown) = check_names(&considered, wanted.names()) {
            let without_refusals = self.consider(chain, &shapes, layout, &Refused::default());
            check_names(&without_refusals, wanted.names()).map_err(|_| unknown)?;
            let rejected = wanted.names().iter().map(|name| (name.to_string(), Unsupported::Refused)).collect();
            let problem = format!("a chain of {} on {input}", chain.links().len());
            return Err(Error::NoKernel { problem, named: true, rejected });
        }
        match cut::cheapest(&considered, chain.links().len(), &wanted) {
            Some(steps) => Ok(self.in_memory(refused, chain, shapes, layout, steps, considered.into())),
            None => Err(no_schedule(chain, input, considered, &wanted)),
        }
    }

    /// A schedule of these steps. What is made where a pass would copy it to, or read where one would copy it from, is
    /// not copied.
    fn in_memory(
        &self,
        refused: &Refused,
        chain: &Chain,
        shapes: Vec<Shape>,
        layout: Layout,
        mut steps: Vec<Step>,
        considered: Arc<[Considered]>,
    ) -> Schedule {
        let alignment = self.caps.storage_offset_alignment.into();
        let plain = Steps { chain, shapes: &shapes, steps: &steps };
        let recipes =
            |in_place: &InPlace| (0..steps.len()).map(|step| in_place.recipe(plain, step)).collect::<Vec<_>>();
        let mut in_place = InPlace::new(plain, Rules { layout, alignment, has_views: true });
        let mut changed = recipes(&in_place);
        if changed.iter().flatten().any(|recipe| refused.has(recipe)) {
            in_place = InPlace::new(plain, Rules { layout, alignment, has_views: false });
            changed = recipes(&in_place);
        }
        for (step, recipe) in steps.iter_mut().zip(changed) {
            let Some(recipe) = recipe else { continue };
            let own_shapes = chain.run_shapes(step.first..step.first + step.links, &shapes);
            let (own, _) = prelu::apart(&self.run(chain, step.first, &own_shapes, layout));
            let other = Seen::of(&own);
            let seen = other.as_ref().map_or(own, |other| other.run(&own));
            let parts = Parts::new(&recipe, &seen, &self.profile.device_model(self.caps));
            // A measured time is kept for what is only stored or loaded elsewhere.
            let is_measured = step.seconds != step.parts.seconds() && recipe.passes.len() == step.recipe.passes.len();
            let seconds = if is_measured { step.seconds } else { parts.seconds() };
            *step = Step { recipe, parts, seconds, ..*step };
        }
        let workspace = Workspace::new(Steps { chain, shapes: &shapes, steps: &steps }, in_place, self.caps);
        Schedule { steps, considered, workspace, shapes }
    }

    /// The run of a chain's links from `first` on, between tensors of these shapes.
    fn run<'a>(&self, chain: &'a Chain, first: usize, shapes: &'a [Shape], layout: Layout) -> Run<'a> {
        let links = &chain.links()[first..first + shapes.len() - 1];
        Run { links, shapes, layout, elements: Elements::of_links(links, chain.dtype(), self.caps) }
    }

    /// Every schedule worth comparing: each recipe of each run once, the rest as the planner likes it without fusion.
    ///
    /// # Errors
    /// As [`Planner::schedule`].
    pub fn alternatives(&self, chain: &Chain, input: impl Into<Shape>, layout: Layout) -> Result<Vec<Schedule>> {
        self.alternatives_without(&Refused::default(), chain, input.into(), layout)
    }

    /// The same without shaders that the driver refused.
    pub(crate) fn alternatives_without(
        &self,
        refused: &Refused,
        chain: &Chain,
        input: Shape,
        layout: Layout,
    ) -> Result<Vec<Schedule>> {
        let auto = self.schedule_without(refused, chain, input, layout, &Choice::Auto)?;
        let (shapes, count) = (&auto.shapes, chain.links().len());
        let mut schedules = vec![auto.clone()];
        for answer in auto.considered.iter() {
            let recipes = answer.answer.as_ref().map_or(0, Vec::len);
            for step in (0..recipes).filter_map(|recipe| answer.step(recipe)) {
                let before = cut::cheapest_singles(&auto.considered, 0, step.first);
                let after = cut::cheapest_singles(&auto.considered, step.first + step.links, count);
                let (Some(mut steps), Some(after)) = (before, after) else { continue };
                steps.push(step);
                steps.extend(after);
                let schedule = self.in_memory(refused, chain, shapes.clone(), layout, steps, auto.considered.clone());
                if schedules.iter().all(|known| known.name() != schedule.name()) {
                    schedules.push(schedule);
                }
            }
        }
        Ok(schedules)
    }
}

/// The recipes whose shaders the driver has not refused.
fn accepted(mut recipes: Vec<Recipe>, refused: &Refused) -> Result<Vec<Recipe>, Unsupported> {
    recipes.retain(|recipe| !refused.has(recipe));
    if recipes.is_empty() { Err(Unsupported::Refused) } else { Ok(recipes) }
}

/// The links of a run, counted from its first, whose outputs links after it read; none of them is the last. Nothing if
/// a link inside reads another tensor than the output of the one before, so that these links are no run.
fn inner_tensors(chain: &Chain, first: usize, links: usize) -> Option<Vec<usize>> {
    let inner = first + 1..first + links;
    let reads_another = |edge: &Edge| edge.join != Join::Add && inner.contains(&edge.link);
    if chain.edges().iter().any(reads_another) {
        return None;
    }
    let needed = chain.edges().iter().filter(|edge| inner.contains(&edge.tensor));
    Some(needed.map(|edge| edge.tensor - inner.start).collect())
}
