//! Measures the recipes for each run of a chain on the device at hand, and checks each against the oracle.
//!
//! Other libraries have picked kernels by time alone, and shipped wrong results. Here a recipe that is wrong, however
//! fast, is reported by its name and its time is forgotten.

mod first_time;
mod subject;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::kernels::Run;
use crate::kernels::elements::Elements;
use crate::model::caps::Caps;
use crate::model::chain::{Chain, Link};
use crate::model::error::{Error, Result};
use crate::model::shape::{Layout, Shape};
use crate::planner::profile::{Profile, run_name};
use crate::planner::{self, Candidate, Choice, Schedule, Stretch};
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block::block_on;
use crate::runtime::clock::Instant;
use crate::runtime::gpu::GpuConv;
use crate::runtime::layer::BoundLayer;
use crate::runtime::timer::Timer;
use crate::verify;

use first_time::first_time;
use subject::Subject;

/// Rounds in which candidates are measured in turn, so that what disturbs one disturbs all: as many at least and at
/// the most. On a busy machine it takes many until each has had a quiet moment.
const ROUNDS: [usize; 2] = [7, 50];
/// A race ends after this time, once it has had the least number of rounds.
const RACE: Duration = Duration::from_secs(2);
/// The least time of a batch of runs, seconds, so that the clock's step does not count: by the device's clock, by the
/// host's. A browser rounds both, to a tenth of a millisecond.
const BATCH: [f64; 2] = if cfg!(target_arch = "wasm32") { [1e-2, 2e-2] } else { [2e-3, 2e-2] };
/// A candidate is not compiled if the model says that it takes this factor of the best measured time.
const HOPELESS: f64 = 10.0;
/// A candidate is checked but does not race if its first run takes this factor of the best one's.
const SLOW: f64 = 3.0;
/// A candidate stays while its best time is within this factor of the overall best: in the first rounds, when one
/// disturbance still counts double, and later.
const CLOSE: [f64; 2] = [2.5, 1.3];

/// Layers of networks that people run, a problem a line: what the cost model is tested on.
pub fn cases() -> impl Iterator<Item = &'static str> {
    include_str!("tuner/cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

impl GpuConv {
    /// Measures what could compute a chain or a part of it on inputs of one size, for as long as `time`, checks it
    /// against the oracle, and goes by what it found from now on. It takes the device for itself: other work on it
    /// makes the times wrong.
    ///
    /// ```
    /// use gpuconv::{Chain, Conv2d, GpuConv, Layout, tuner::Options};
    /// let gpu = GpuConv::new()?;
    /// let chain = Chain::from(Conv2d::pointwise(8, 8));
    /// let second = std::time::Duration::from_secs(1);
    /// let report = gpu.tune(&chain, [1, 8, 8, 8], Layout::Nchw, &Options::within(second))?;
    /// println!("{} recipes were looked at", report.runs[0].candidates.len());
    /// # Ok::<(), gpuconv::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`tune`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn tune(&self, chain: &Chain, input: impl Into<Shape>, layout: Layout, options: &Options) -> Result<Report> {
        block_on(self.tune_async(chain, input, layout, options))
    }

    /// As [`GpuConv::tune`], awaited.
    ///
    /// # Errors
    /// As [`tune`].
    pub async fn tune_async(
        &self,
        chain: &Chain,
        input: impl Into<Shape>,
        layout: Layout,
        options: &Options,
    ) -> Result<Report> {
        let report = tune_async(self, chain, input, layout, options, |_| {}).await?;
        let mut profile = (*self.profile()).clone();
        profile.merge(report.profile.clone());
        self.set_profile(profile);
        Ok(report)
    }
}

/// How to tune.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What it may take, shared among the runs of the chain, beside half a second here and there in which a GPU raises its
    /// clock. The oracle's time is not counted against candidates that
    /// are in work.
    pub time: Duration,
    /// Measure hopeless and slow candidates too, to test the model by them.
    pub thorough: bool,
}

impl Options {
    /// So much time for a chain, and none for the hopeless.
    pub fn within(time: Duration) -> Self {
        Self { time, thorough: false }
    }

    /// The same, with the hopeless measured too.
    pub fn thorough(self) -> Self {
        Self { thorough: true, ..self }
    }
}

impl Default for Options {
    /// A minute, and no time for the hopeless.
    fn default() -> Self {
        Self::within(Duration::from_secs(60))
    }
}

/// What tuning found.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The runs, each once.
    pub runs: Vec<TunedRun>,
    /// The times of all that are right.
    pub profile: Profile,
}

/// What tuning found about a run.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct TunedRun {
    /// The run in words, as [`run_name`] has them.
    pub name: String,
    /// Its candidates, those that the model likes first.
    pub candidates: Vec<Tried>,
}

/// A candidate, and what became of it.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Tried {
    /// The candidate with the model's opinion.
    pub candidate: Candidate,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a candidate.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is right; its best time, seconds.
    Right(f64),
    /// It was not tried: by the model it takes many times the best.
    Hopeless,
    /// It is wrong, which is a bug.
    Wrong(verify::Report),
    /// The device refused it.
    Failed(Error),
    /// The time was over before its turn.
    OutOfTime,
}

/// Where tuning is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The run in words.
    pub run: &'a str,
    /// The recipe in work.
    pub recipe: &'a str,
    /// Candidates done.
    pub done: usize,
    /// Candidates in all.
    pub total: usize,
}

/// A run of a chain on its own.
struct Piece {
    name: String,
    /// The names of its links as runs of their own.
    singles: Vec<String>,
    chain: Chain,
    input: Shape,
    candidates: Vec<Candidate>,
}

impl Piece {
    /// What its links take one by one, so far as that was measured: a run that takes longer is not worth its
    /// compilation.
    fn one_by_one(&self, profile: &Profile) -> f64 {
        let least = |name: &String| profile.runs.get(name)?.values().copied().min_by(f64::total_cmp);
        let times: Option<Vec<f64>> = self.singles.iter().map(least).collect();
        times.map_or(f64::INFINITY, |times| times.iter().sum())
    }
}

/// Measures all that could compute a chain or a part of it, on inputs of one size. `watch` is told of each candidate.
///
/// # Errors
/// What [`Planner::schedule`](crate::planner::Planner::schedule) says; what the device says, unless a single candidate
/// is at fault.
#[cfg(not(target_arch = "wasm32"))]
pub fn tune(
    gpu: &GpuConv,
    chain: &Chain,
    input: impl Into<Shape>,
    layout: Layout,
    options: &Options,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Report> {
    block_on(tune_async(gpu, chain, input, layout, options, watch))
}

/// As [`tune`], awaited. The oracle's computations run on the thread that polls the future.
///
/// # Errors
/// As [`tune`].
pub async fn tune_async(
    gpu: &GpuConv,
    chain: &Chain,
    input: impl Into<Shape>,
    layout: Layout,
    options: &Options,
    mut watch: impl FnMut(Progress<'_>),
) -> Result<Report> {
    let (start, timer) = (Instant::now(), Timer::new_async(gpu).await?);
    let pieces = pieces(gpu, chain, input.into(), layout)?;
    let total = pieces.iter().map(|piece| piece.candidates.len()).sum();
    let (mut report, mut done, count) = (Report::default(), 0, pieces.len());
    for (index, piece) in pieces.into_iter().enumerate() {
        // What one run does not need is shared by those after it.
        let spent = start.elapsed().saturating_sub(timer.raising());
        let time = options.time.saturating_sub(spent) / (count - index) as u32;
        let mut tell = |run: &str, recipe: &str| {
            watch(Progress { run, recipe, done, total });
            done += 1;
        };
        let best = piece.one_by_one(&report.profile);
        let candidates = tune_run(&timer, gpu, &piece, layout, best, &Options { time, ..*options }, &mut tell).await?;
        let right = |tried: &Tried| match tried.outcome {
            Outcome::Right(seconds) => Some((tried.candidate.recipe.name.clone(), seconds)),
            _ => None,
        };
        let times: BTreeMap<_, _> = candidates.iter().filter_map(right).collect();
        if !times.is_empty() {
            report.profile.runs.insert(piece.name.clone(), times);
        }
        report.runs.push(TunedRun { name: piece.name, candidates });
    }
    Ok(report)
}

/// The runs that a chain can be cut into, each once, with their candidates; single links first.
fn pieces(gpu: &GpuConv, chain: &Chain, input: Shape, layout: Layout) -> Result<Vec<Piece>> {
    // As layers plan it.
    let division = gpu.divide(chain, input, layout, &Choice::Auto)?;
    let mut pieces: Vec<Piece> = Vec::new();
    for stretch in &division.stretches {
        add_pieces(&mut pieces, stretch, layout, gpu.caps())?;
    }
    pieces.sort_by_key(|piece| piece.singles.len());
    Ok(pieces)
}

/// Adds the runs that the first band of a stretch can be cut into.
fn add_pieces(pieces: &mut Vec<Piece>, stretch: &Stretch, layout: Layout, caps: &Caps) -> Result<()> {
    let (chain, shapes) = (&stretch.chain, stretch.chain.shapes(stretch.input)?);
    for answers in stretch.schedule.runs() {
        let (first, end) = (answers[0].first, answers[0].first + answers[0].links);
        let candidates: Vec<_> = answers.iter().flat_map(|answer| answer.answer.iter().flatten().cloned()).collect();
        let name = |first: usize, end: usize| {
            let (links, shapes) = (&chain.links()[first..end], chain.run_shapes(first..end, &shapes));
            let elements = Elements::of_links(links, chain.dtype(), caps);
            run_name(&Run { links, shapes: &shapes, layout, elements })
        };
        let singles = (first..end).map(|link| name(link, link + 1)).collect();
        let name = name(first, end);
        // A concatenation has a single recipe. A network has many runs of one kind.
        let is_concat = matches!(chain.links()[first], Link::Concat(_));
        if !is_concat && !candidates.is_empty() && pieces.iter().all(|piece| piece.name != name) {
            let (chain, input) = (chain.part(first..end), shapes[chain.input_of(first)]);
            pieces.push(Piece { name, singles, chain, input, candidates });
        }
    }
    Ok(())
}

/// Measures candidates for a chain that is a single run: those of the planner, or a test's.
///
/// # Errors
/// As [`tune`].
///
/// # Safety
/// The candidates must be the planner's for this chain and input, or do nothing in their shaders that those would not:
/// loops end, and indices are inside of what is bound.
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub unsafe fn tune_candidates(
    gpu: &GpuConv,
    name: &str,
    chain: &Chain,
    (input, layout): (Shape, Layout),
    candidates: Vec<Candidate>,
    options: &Options,
) -> Result<Vec<Tried>> {
    let piece = Piece { name: name.into(), singles: Vec::new(), chain: chain.clone(), input, candidates };
    let timer = Timer::new(gpu)?;
    block_on(tune_run(&timer, gpu, &piece, layout, f64::INFINITY, options, &mut |_, _| {}))
}

/// The seconds of each step of a schedule, each measured on its own: the least of some.
///
/// # Errors
/// What the device says.
#[cfg(not(target_arch = "wasm32"))]
pub fn measure(
    gpu: &GpuConv,
    chain: &Chain,
    input: impl Into<Shape>,
    layout: Layout,
    schedule: &Schedule,
) -> Result<Vec<f64>> {
    block_on(measure_async(gpu, chain, input, layout, schedule))
}

/// As [`measure`], awaited.
///
/// # Errors
/// As [`measure`].
pub async fn measure_async(
    gpu: &GpuConv,
    chain: &Chain,
    input: impl Into<Shape>,
    layout: Layout,
    schedule: &Schedule,
) -> Result<Vec<f64>> {
    let (shapes, timer) = (chain.shapes(input)?, Timer::new_async(gpu).await?);
    let batch = BATCH[usize::from(!timer.has_clock())];
    let mut seconds = Vec::new();
    for step in &schedule.steps {
        let links = step.first..step.first + step.links;
        if step.recipe.passes.is_empty() {
            seconds.push(0.0);
            continue;
        }
        let (part, input) = (chain.part(links.clone()), chain.part_input(&links, &shapes));
        let subject = Subject::new(gpu, "measured", &part, input, layout).await?;
        // By its name, since a caller may have changed the rest.
        let choice = Choice::Named(step.recipe.name.clone());
        let schedule = planner::schedule(&part, input, layout, gpu.caps(), &choice)?;
        let bound = subject.bind(&schedule).await?;
        timer.raise_clock_async(&bound).await?;
        let first = first_time(&timer, &bound).await?;
        let mut runner = Runner::new(0, bound, first, batch);
        for _ in 0..ROUNDS[0] {
            runner.run(&timer).await?;
        }
        // A concatenation stands behind slices, which move as much by the same shader. Some of it may be in place.
        let all: f64 = schedule.steps.iter().map(|step| step.recipe.work.bytes).sum();
        let is_concat = part.links().len() > links.len();
        seconds.push(if is_concat { runner.least * step.recipe.work.bytes / all } else { runner.least });
    }
    Ok(seconds)
}

/// A candidate that is in the race.
struct Runner {
    /// Its place among the candidates.
    index: usize,
    bound: BoundLayer,
    /// Runs in a batch.
    runs: u32,
    least: f64,
}

impl Runner {
    /// `batch`: the seconds that a batch lasts at least, by the first time.
    fn new(index: usize, bound: BoundLayer, first: f64, batch: f64) -> Self {
        let runs = (batch / first).ceil().clamp(1.0, 1000.0) as u32;
        Self { index, bound, runs, least: first }
    }

    async fn run(&mut self, timer: &Timer) -> Result<()> {
        let seconds = timer.layer_async(&self.bound, self.runs).await?;
        // A clock that was set back meanwhile gives no time.
        if seconds > 0.0 {
            self.least = self.least.min(seconds);
        }
        Ok(())
    }
}

/// `best`: the time to beat.
async fn tune_run(
    timer: &Timer,
    gpu: &GpuConv,
    piece: &Piece,
    layout: Layout,
    mut best: f64,
    options: &Options,
    tell: &mut impl FnMut(&str, &str),
) -> Result<Vec<Tried>> {
    let (start, raising) = (Instant::now(), timer.raising());
    // Half of the time is for compiling and checking, the rest for measuring what was. What raises a GPU's clock comes
    // on top.
    let end = |time: Duration| start + time + timer.raising().saturating_sub(raising);
    let batch = BATCH[usize::from(!timer.has_clock())];
    let mut candidates = piece.candidates.clone();
    candidates.sort_by(|a, b| a.parts.seconds().total_cmp(&b.parts.seconds()));
    let mut subject = Subject::new(gpu, &piece.name, &piece.chain, piece.input, layout).await?;
    let (mut tried, mut runners) = (Vec::new(), Vec::new());
    for (index, candidate) in candidates.into_iter().enumerate() {
        tell(&piece.name, &candidate.recipe.name);
        let hopeless = !options.thorough && candidate.parts.seconds() > HOPELESS * best;
        // The first candidate has its turn in any case.
        let late = index > 0 && Instant::now() > end(options.time / 2);
        let outcome = if hopeless {
            Outcome::Hopeless
        } else if late {
            Outcome::OutOfTime
        } else {
            // The clock of a software device does not matter.
            let reference = if gpu.caps().is_cpu { None } else { runners.first() };
            match qualify(&mut subject, &candidate, timer, reference).await {
                Ok((report, ..)) if !report.passes() => Outcome::Wrong(report),
                Ok((_, bound, [first, seconds])) => {
                    if options.thorough || seconds <= SLOW * best {
                        runners.push(Runner::new(index, bound, first, batch));
                    }
                    best = best.min(seconds);
                    Outcome::Right(seconds)
                }
                Err(error @ (Error::DeviceLost(_) | Error::OutOfMemory(_))) => return Err(error),
                Err(error) => Outcome::Failed(error),
            }
        };
        if let Outcome::Wrong(report) = &outcome {
            log::error!("a bug: {} computes {} wrong: {report:?}", candidate.recipe.name, piece.name);
        }
        tried.push(Tried { candidate, outcome });
    }
    if let Some(runner) = runners.first() {
        timer.raise_clock_async(&runner.bound).await?;
    }
    race(timer, &mut runners, end(options.time), options.thorough).await?;
    for runner in runners {
        tried[runner.index].outcome = Outcome::Right(runner.least);
    }
    Ok(tried)
}

/// Compiles a candidate, times a run of it, and checks it: what the oracle says, the time, and what it would be at the
/// device's full clock. While the host compiles, a GPU's clock falls, so a runner that was measured at the full clock
/// runs again beside the candidate; without one the clock is raised.
async fn qualify(
    subject: &mut Subject,
    candidate: &Candidate,
    timer: &Timer,
    reference: Option<&Runner>,
) -> Result<(verify::Report, BoundLayer, [f64; 2])> {
    let schedule = subject.schedule(&candidate.recipe);
    let bound = subject.bind(&schedule).await?;
    let times = match reference {
        Some(runner) => {
            let first = first_time(timer, &bound).await?;
            let clock = runner.least / first_time(timer, &runner.bound).await?;
            [first, first * clock.min(1.0)]
        }
        None => {
            timer.raise_clock_async(&bound).await?;
            [first_time(timer, &bound).await?; 2]
        }
    };
    Ok((subject.check(&schedule).await?, bound, times))
}

/// Measures in turn, round after round; those that fall behind keep their time and drop out. The first rounds are run
/// even if time is short: what was compiled is to be measured.
async fn race(timer: &Timer, runners: &mut [Runner], deadline: Instant, thorough: bool) -> Result<()> {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    for round in 0..ROUNDS[1] {
        let more = start.elapsed() < RACE && Instant::now() < deadline;
        if round >= ROUNDS[0] && !more {
            return Ok(());
        }
        let limit = if thorough && round < 3 { f64::INFINITY } else { CLOSE[usize::from(round >= ROUNDS[0])] * best };
        for runner in runners.iter_mut().filter(|runner| round == 0 || runner.least <= limit) {
            runner.run(timer).await?;
        }
        best = runners.iter().map(|runner| runner.least).fold(f64::INFINITY, f64::min);
    }
    Ok(())
}
