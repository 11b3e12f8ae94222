//! Measures the recipes for each run of a chain on the device at hand, and checks each against the oracle.
//!
//! Other libraries have picked kernels by time alone, and shipped wrong results. Here a recipe that is wrong, however
//! fast, is reported by its name and its time is forgotten.

mod subject;

use std::time::{Duration, Instant};

use crate::chain::Chain;
use crate::error::{Error, Result};
use crate::gpu::GpuConv;
use crate::kernels::Run;
use crate::layer::BoundLayer;
use crate::planner::{Candidate, Choice, Schedule};
use crate::profile::{Profile, run_name};
use crate::shape::{Layout, Shape};
use crate::timer::Timer;
use crate::verify;

use subject::Subject;

/// Rounds in which candidates are measured in turn, so that what disturbs one disturbs all: as many at least and at
/// the most. On a busy machine it takes many until each has had a quiet moment.
const ROUNDS: [usize; 2] = [7, 50];
/// After the least number of rounds a race of so many seconds is over.
const RACE: Duration = Duration::from_secs(2);
/// A batch of runs lasts so many seconds at least, or the clock's step would count: by the device's clock, by the host's.
const BATCH: [f64; 2] = [2e-3, 2e-2];
/// Candidates whose first run takes so many times the best one's are not run again.
const HOPELESS: f64 = 3.0;
/// Nor are those compiled whose modelled time is so many times the best measured one.
const UNLIKELY: f64 = 10.0;
/// After a round those go on whose least time is below so many times the least of all: in the first rounds, when one
/// moment of other work may still count double, and later.
const CLOSE: [f64; 2] = [2.5, 1.3];

/// Layers of networks that people run, a problem a line: what the cost model is tested on.
pub fn cases() -> impl Iterator<Item = &'static str> {
    include_str!("tuner/cases.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// How to tune.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What it may take, shared among the runs of the chain. The oracle's time is not counted against candidates that
    /// are in work.
    pub time: Duration,
    /// Measure hopeless candidates too, to test the model by them.
    pub thorough: bool,
}

impl Default for Options {
    /// A minute, and no time for the hopeless.
    fn default() -> Self {
        Self { time: Duration::from_secs(60), thorough: false }
    }
}

/// What tuning found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The runs, each once.
    pub runs: Vec<TunedRun>,
    /// The times of all that are right.
    pub profile: Profile,
}

/// What tuning found about a run.
#[derive(Clone, Debug)]
pub struct TunedRun {
    /// The run in words, as [`run_name`] has them.
    pub name: String,
    /// Its candidates, those that the model likes first.
    pub candidates: Vec<Tried>,
}

/// A candidate, and what became of it.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The candidate with the model's opinion.
    pub candidate: Candidate,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is right, and takes so many seconds at the least.
    Right(f64),
    /// It cannot win: its first run took so long, or the model says so.
    Hopeless(Option<f64>),
    /// It is wrong, which is a bug.
    Wrong(verify::Report),
    /// The device refused it.
    Failed(Error),
    /// The time was over before its turn.
    OutOfTime,
}

/// Where tuning is.
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
    chain: Chain,
    input: Shape,
    candidates: Vec<Candidate>,
}

/// Measures all that could compute a chain or a part of it, on inputs of one size. `watch` is told of each candidate.
///
/// # Errors
/// What [`Planner::schedule`](crate::planner::Planner::schedule) says; what the device says, unless a single candidate
/// is at fault.
pub fn tune(
    gpu: &GpuConv,
    chain: &Chain,
    input: Shape,
    layout: Layout,
    options: &Options,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<Report> {
    let deadline = Instant::now() + options.time;
    let pieces = pieces(gpu, chain, input, layout)?;
    let total = pieces.iter().map(|piece| piece.candidates.len()).sum();
    let (mut report, mut done) = (Report::default(), 0);
    let count = pieces.len();
    for (index, piece) in pieces.into_iter().enumerate() {
        // What one run does not need is shared by those after it.
        let time = deadline.saturating_duration_since(Instant::now()) / (count - index) as u32;
        let mut tell = |run: &str, recipe: &str| {
            watch(Progress { run, recipe, done, total });
            done += 1;
        };
        let candidates = tune_run(gpu, &piece, layout, &Options { time, ..*options }, &mut tell)?;
        let right = |tried: &Tried| match tried.outcome {
            Outcome::Right(seconds) => Some((tried.candidate.recipe.name.clone(), seconds)),
            _ => None,
        };
        let times = candidates.iter().filter_map(right).collect();
        report.profile.runs.insert(piece.name.clone(), times);
        report.runs.push(TunedRun { name: piece.name, candidates });
    }
    report.profile.runs.retain(|_, times| !times.is_empty());
    Ok(report)
}

/// The runs that a chain can be cut into, each once, with their candidates.
fn pieces(gpu: &GpuConv, chain: &Chain, input: Shape, layout: Layout) -> Result<Vec<Piece>> {
    let shapes = chain.shapes(input)?;
    let schedule = gpu.schedule(chain, input, layout, &Choice::Auto)?;
    let mut pieces: Vec<Piece> = Vec::new();
    for answers in schedule.runs() {
        let (first, end) = (answers[0].first, answers[0].first + answers[0].links);
        let candidates: Vec<_> = answers.iter().flat_map(|answer| answer.answer.iter().flatten().cloned()).collect();
        let convs = chain.run(first..end).map_or_else(Vec::new, |(convs, _)| convs);
        let name = run_name(&Run { links: &convs, shapes: &shapes[first..=end], layout });
        // A network has many runs of one kind.
        if !candidates.is_empty() && pieces.iter().all(|piece| piece.name != name) {
            pieces.push(Piece { name, chain: subject::part(chain, first..end)?, input: shapes[first], candidates });
        }
    }
    Ok(pieces)
}

/// Measures candidates for a chain that is a single run: those of the planner, or a test's.
///
/// # Errors
/// As [`tune`].
#[doc(hidden)]
pub fn tune_candidates(
    gpu: &GpuConv,
    name: &str,
    chain: &Chain,
    (input, layout): (Shape, Layout),
    candidates: Vec<Candidate>,
    options: &Options,
) -> Result<Vec<Tried>> {
    let piece = Piece { name: name.into(), chain: chain.clone(), input, candidates };
    tune_run(gpu, &piece, layout, options, &mut |_, _| {})
}

/// The seconds of each step of a schedule, each measured on its own: the least of some.
///
/// # Errors
/// What the device says.
pub fn measure(gpu: &GpuConv, chain: &Chain, input: Shape, layout: Layout, schedule: &Schedule) -> Result<Vec<f64>> {
    let (shapes, timer) = (chain.shapes(input)?, Timer::new(gpu)?);
    let batch = BATCH[usize::from(!timer.has_clock())];
    let seconds = schedule.steps.iter().map(|step| {
        let part = subject::part(chain, step.first..step.first + step.links)?;
        let subject = Subject::new(gpu, "measured", &part, shapes[step.first], layout)?;
        let bound = subject.bind(&subject.schedule(&step.recipe))?;
        timer.layer(&bound, 1)?;
        let first = timer.layer(&bound, 1)?;
        let mut runner = Runner::new(0, bound, first, batch);
        for _ in 0..ROUNDS[0] {
            runner.run(&timer)?;
        }
        Ok(runner.least)
    });
    seconds.collect()
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
        let runs = (batch / first.max(1e-9)).ceil().clamp(1.0, 1000.0) as u32;
        Self { index, bound, runs, least: first }
    }

    fn run(&mut self, timer: &Timer) -> Result<()> {
        self.least = self.least.min(timer.layer(&self.bound, self.runs)?);
        Ok(())
    }
}

fn tune_run(
    gpu: &GpuConv,
    piece: &Piece,
    layout: Layout,
    options: &Options,
    tell: &mut dyn FnMut(&str, &str),
) -> Result<Vec<Tried>> {
    let deadline = Instant::now() + options.time;
    let timer = Timer::new(gpu)?;
    let batch = BATCH[usize::from(!timer.has_clock())];
    let mut candidates = piece.candidates.clone();
    candidates.sort_by(|a, b| a.parts.seconds().total_cmp(&b.parts.seconds()));
    let mut subject = Subject::new(gpu, &piece.name, &piece.chain, piece.input, layout)?;
    let (mut tried, mut runners, mut best) = (Vec::new(), Vec::new(), f64::INFINITY);
    for (index, candidate) in candidates.into_iter().enumerate() {
        tell(&piece.name, &candidate.recipe.name);
        let unlikely = !options.thorough && candidate.parts.seconds() > UNLIKELY * best;
        // The first candidate has its turn in any case.
        let late = index > 0 && Instant::now() > deadline;
        let outcome = if unlikely || late {
            if late { Outcome::OutOfTime } else { Outcome::Hopeless(None) }
        } else {
            let limit = if options.thorough { f64::INFINITY } else { HOPELESS * best };
            match qualify(&mut subject, &candidate, &timer, limit) {
                Ok(Qualified::Runs(bound, seconds)) => {
                    best = best.min(seconds);
                    runners.push(Runner::new(index, bound, seconds, batch));
                    Outcome::Right(seconds)
                }
                Ok(Qualified::Not(outcome)) => outcome,
                Err(error @ (Error::DeviceLost(_) | Error::OutOfMemory(_))) => return Err(error),
                Err(error) => Outcome::Failed(error),
            }
        };
        if let Outcome::Wrong(report) = &outcome {
            log::error!("a bug: {} computes {} wrong: {report:?}", candidate.recipe.name, piece.name);
        }
        tried.push(Tried { candidate, outcome });
    }
    race(&timer, &mut runners, deadline, options.thorough)?;
    for runner in runners {
        tried[runner.index].outcome = Outcome::Right(runner.least);
    }
    Ok(tried)
}

/// Whether a candidate enters the race.
enum Qualified {
    /// It is right; its first time.
    Runs(BoundLayer, f64),
    /// It does not, for a reason.
    Not(Outcome),
}

/// Compiles a candidate, runs it twice, and checks it unless it took longer than `limit`.
fn qualify(subject: &mut Subject, candidate: &Candidate, timer: &Timer, limit: f64) -> Result<Qualified> {
    let schedule = subject.schedule(&candidate.recipe);
    let bound = subject.bind(&schedule)?;
    // The first run warms up: a driver may compile at it.
    timer.layer(&bound, 1)?;
    let seconds = timer.layer(&bound, 1)?;
    if seconds > limit {
        return Ok(Qualified::Not(Outcome::Hopeless(Some(seconds))));
    }
    let report = subject.check(&schedule)?;
    Ok(match report.passes() {
        true => Qualified::Runs(bound, seconds),
        false => Qualified::Not(Outcome::Wrong(report)),
    })
}

/// Measures in turn, round after round; those that fall behind keep their time and drop out.
fn race(timer: &Timer, runners: &mut [Runner], deadline: Instant, thorough: bool) -> Result<()> {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    for round in 0..ROUNDS[1] {
        if round >= ROUNDS[0] && start.elapsed() > RACE {
            return Ok(());
        }
        let limit = if thorough && round < 3 { f64::INFINITY } else { CLOSE[usize::from(round >= ROUNDS[0])] * best };
        for runner in runners.iter_mut().filter(|runner| round == 0 || runner.least <= limit) {
            if Instant::now() > deadline && round > 0 {
                return Ok(());
            }
            runner.run(timer)?;
        }
        best = runners.iter().map(|runner| runner.least).fold(f64::INFINITY, f64::min);
    }
    Ok(())
}
