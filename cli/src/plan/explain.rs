//! A plan with its numbers and reasons, as `--json` writes it.

use gpuconv::cost::ChainCost;
use gpuconv::internals::is_called;
use gpuconv::planner::Recipe;
use gpuconv::planner::model::Parts;
use gpuconv::planner::{Considered, Division, Planner, Schedule, Stretch};
use gpuconv::{Chain, Choice, Fusion, Layout, Link, Shape, cost, planner};
use serde::Serialize;

use crate::{Outcome, kernels, table};

/// A schedule, and what it was planned from.
pub struct Subject<'a> {
    pub chain: &'a Chain,
    pub input: Shape,
    pub layout: Layout,
    pub planner: Planner<'a>,
    pub choice: &'a Choice,
    pub schedule: &'a Schedule,
}

/// Times are in milliseconds. `ms` is the time that the planner used, `model_ms` that of the model.
#[derive(Serialize)]
pub struct Planned {
    pub problem: String,
    pub adapter: String,
    /// How many images are computed at a time, if the whole batch is too large for one binding, but some of its images
    /// are not.
    pub images_at_once: Option<u32>,
    /// What is computed together, in order, if a tensor or weights are too large for one binding. Everything else here,
    /// but for the workspace, is for the first band of each.
    pub bands: Vec<Bands>,
    /// What all bands take together, without copies, if there are several.
    pub whole_ms: Option<f64>,
    pub schedule: String,
    pub ms: f64,
    pub why: String,
    pub steps: Vec<Step>,
    pub workspace: Workspace,
    pub traffic: Traffic,
    /// The other ways to compute the whole chain, fastest first. For a long chain, only those with fusion forced and
    /// with fusion forbidden.
    pub runners_up: Vec<RunnerUp>,
    /// Every recipe of every kernel, and every kernel that has no recipe.
    pub candidates: Vec<Candidate>,
}

/// Links that are computed together, band by band.
#[derive(Serialize)]
pub struct Bands {
    /// The first link, from 0.
    pub first: usize,
    pub links: usize,
    pub bands: usize,
    /// What a band has, at most; none if it has all.
    pub images: Option<u32>,
    pub channels: Option<u32>,
    /// Channels of the output, where each depends on all of the input's.
    pub out_channels: Option<u32>,
    pub rows: Option<u32>,
    pub columns: Option<u32>,
    /// Bytes that are copied into bands, and out of them.
    pub copied_in: u64,
    pub copied_out: u64,
    pub schedule: String,
    /// Whether it adds up what the bands before summed of each plane.
    #[serde(skip)]
    pub adds_sums: bool,
}

#[derive(Serialize)]
pub struct Step {
    /// The first link, from 0.
    pub first: usize,
    pub links: usize,
    pub recipe: String,
    pub passes: Vec<Pass>,
    /// Bytes of scratch memory.
    pub workspace: u64,
    /// Floating-point operations that the result needs, two for each multiply-add.
    pub flops: u64,
    /// Floating-point operations that the recipe does, including idle and recomputed ones.
    pub flops_done: u64,
    /// Bytes from and to memory.
    pub bytes: u64,
    /// Floating-point operations for each byte.
    pub intensity: f64,
    pub ms: f64,
    pub model_ms: f64,
    /// With `--measure`.
    pub measured_ms: Option<f64>,
    /// The time that the roofline allows, over the step's time (the measured one if it was measured).
    pub share_of_roofline: f64,
    /// The share of the device that has work, by the model.
    pub occupancy: f64,
    /// What bounds the time, by the model: `arithmetic`, `loads`, `workgroup memory`, `memory`,
    /// `dispatches`, `workgroups` (their number) or `latency`.
    pub bound: &'static str,
    /// Why this recipe was chosen.
    pub why: String,
}

#[derive(Serialize)]
pub struct Pass {
    /// Invocations in a workgroup.
    pub workgroup: u32,
    pub workgroups: u64,
    /// Bytes.
    pub workgroup_memory: u32,
    /// Estimated registers of 32 bits for each invocation.
    pub registers: u32,
    /// Workgroups that a core of a GPU holds at a time.
    pub resident_workgroups: u64,
}

/// Memory besides input, output and weights, in bytes.
#[derive(Serialize)]
pub struct Workspace {
    pub bytes: u64,
    pub bytes_without_reuse: u64,
    pub buffers: Vec<u64>,
}

/// Bytes from and to memory.
#[derive(Serialize)]
pub struct Traffic {
    /// As planned.
    pub planned: u64,
    /// If each link ran alone.
    pub unfused: u64,
    /// If no tensor between two links went to memory.
    pub fused: u64,
}

#[derive(Serialize)]
pub struct RunnerUp {
    pub schedule: String,
    pub ms: f64,
}

#[derive(Serialize)]
pub struct Candidate {
    pub first: usize,
    pub links: usize,
    pub kernel: &'static str,
    pub recipe: Option<String>,
    /// The model's time.
    pub ms: Option<f64>,
    /// The time that tuning measured.
    pub measured_ms: Option<f64>,
    pub taken: bool,
    /// Why it was rejected.
    pub reason: Option<String>,
}

/// Longer chains have too many alternatives to list them all.
pub const MAX_LISTED: usize = 3;

impl Planned {
    pub fn new(problem: String, adapter: String, subject: &Subject<'_>, measured: Option<&[f64]>) -> Outcome<Self> {
        let Subject { chain, input, layout, planner, choice, schedule } = subject;
        let cost = cost::chain(chain, *input)?;
        let others = if chain.links().len() <= MAX_LISTED {
            planner.alternatives(chain, *input, *layout)?
        } else {
            // One of them may have no schedule: without fusion, a tensor between links may be too large for the device.
            let forced = |fusion| planner.schedule(chain, *input, *layout, &Choice::Fusion(fusion)).ok();
            [Fusion::Never, Fusion::Always].into_iter().filter_map(forced).collect()
        };
        let others = others.iter().filter(|other| other.name() != schedule.name());
        let mut runners_up: Vec<_> =
            others.map(|other| RunnerUp { schedule: kernels(other), ms: other.seconds() * 1e3 }).collect();
        runners_up.sort_by(|a, b| a.ms.total_cmp(&b.ms));
        let ms = schedule.seconds() * 1e3;
        let steps = schedule.steps.iter().enumerate().map(|(index, step)| {
            Step::new(subject, step, flops(chain, &cost, step), measured.map(|measured| measured[index]))
        });
        let before_and_after = schedule.best_before_and_after();
        Ok(Self {
            problem,
            adapter,
            images_at_once: None,
            bands: Vec::new(),
            whole_ms: None,
            schedule: kernels(schedule),
            ms,
            why: why(schedule, ms, runners_up.first(), choice),
            steps: steps.collect(),
            workspace: Workspace {
                bytes: schedule.workspace.bytes(),
                bytes_without_reuse: schedule.workspace.bytes_without_reuse(),
                buffers: schedule.workspace.buffers().to_vec(),
            },
            traffic: Traffic {
                planned: schedule.steps.iter().map(|step| step.recipe.work.bytes as u64).sum(),
                unfused: cost.bytes_unfused,
                fused: cost.bytes_fused,
            },
            runners_up,
            candidates: schedule
                .considered
                .iter()
                .flat_map(|run| candidates(run, schedule, choice, &before_and_after))
                .collect(),
        })
    }
}

impl Planned {
    /// Adds the plan of the links behind, from `first` on.
    fn then(&mut self, next: Self, first: usize) {
        let move_step = |step: Step| Step { first: step.first + first, ..step };
        let move_candidate = |candidate: Candidate| Candidate { first: candidate.first + first, ..candidate };
        self.steps.extend(next.steps.into_iter().map(move_step));
        self.candidates.extend(next.candidates.into_iter().map(move_candidate));
        self.runners_up.clear();
        self.ms += next.ms;
        self.schedule = format!("{}+{}", self.schedule, next.schedule);
        self.why = format!("{} ms for the first band of each", table::figure(self.ms));
        self.traffic.planned += next.traffic.planned;
        self.traffic.unfused += next.traffic.unfused;
        self.traffic.fused += next.traffic.fused;
    }

    /// Says how the whole is computed, of which this is the plan of the first bands. Bytes of the workspace are the
    /// whole's.
    pub fn of_division(mut parts: Vec<Self>, division: &Division) -> Option<Self> {
        let mut firsts = division.stretches.iter().map(|stretch| stretch.first);
        let mut planned = (!parts.is_empty()).then(|| parts.remove(0))?;
        firsts.next();
        parts.into_iter().zip(firsts).for_each(|(part, first)| planned.then(part, first));
        if !division.is_divided() {
            return Some(planned);
        }
        planned.whole_ms = Some(division.seconds() * 1e3);
        let workspace = &mut planned.workspace;
        workspace.buffers = division.workspace();
        workspace.bytes = workspace.buffers.iter().sum();
        workspace.bytes_without_reuse = workspace.bytes_without_reuse.max(workspace.bytes);
        let before = [None].into_iter().chain(division.stretches.iter().map(Some));
        planned.bands =
            division.stretches.iter().zip(before).map(|(stretch, before)| Bands::new(stretch, before)).collect();
        if let [only] = &planned.bands[..] {
            let others = [only.channels, only.out_channels, only.rows, only.columns];
            planned.images_at_once = only.images.filter(|_| others == [None; 4]);
        }
        Some(planned)
    }
}

impl Bands {
    fn new(stretch: &Stretch, before: Option<&Stretch>) -> Self {
        let sums = |stretch: &Stretch| matches!(stretch.chain.links(), [Link::PlaneSum { .. }]);
        let (extents, whole) = (stretch.extents, stretch.whole);
        let part = |part: u32, whole: u32| (part < whole).then_some(part);
        Self {
            first: stretch.first,
            links: stretch.links,
            bands: stretch.bands,
            images: part(extents.images, whole.images),
            channels: part(extents.channels, whole.channels),
            out_channels: part(extents.out_channels, whole.out_channels),
            rows: part(extents.rows, whole.rows),
            columns: part(extents.columns, whole.columns),
            copied_in: stretch.copied[0],
            copied_out: stretch.copied[1],
            schedule: kernels(&stretch.schedule),
            adds_sums: before.is_some_and(|before| before.first == stretch.first && sums(before)),
        }
    }
}

fn why(schedule: &Schedule, ms: f64, next: Option<&RunnerUp>, choice: &Choice) -> String {
    let measured = |step: &planner::Step| candidate_of(schedule, step).is_some_and(|one| one.measured.is_some());
    let by = match schedule.steps.iter().filter(|step| measured(step)).count() {
        0 => "by the model",
        count if count == schedule.steps.len() => "as measured",
        _ => "by measurements and the model",
    };
    let time = format!("{} ms {by}", table::figure(ms));
    match (choice, next) {
        (Choice::Auto, None) => time,
        (Choice::Auto, Some(next)) => {
            let other = table::figure(next.ms);
            format!("{time}; next is {} with {other} ms, {}", next.schedule, compared(next.ms, ms))
        }
        _ => format!("as asked for; {time}"),
    }
}

/// The floating-point operations of a step's links, two for each multiply-add. The bias is free: a sum starts from it.
fn flops(chain: &Chain, cost: &ChainCost, step: &planner::Step) -> u64 {
    let links = step.first..step.first + step.links;
    let flops = |link: usize| match chain.links()[link].conv() {
        Some(conv) => 2 * cost.links[link].output.len() * conv.fan_in(),
        None => cost.links[link].mult_adds,
    };
    links.map(flops).sum()
}

/// The candidate that a step came from.
fn candidate_of<'a>(schedule: &'a Schedule, step: &planner::Step) -> Option<&'a planner::Candidate> {
    let answers = schedule.considered.iter().filter(|answer| (answer.first, answer.links) == (step.first, step.links));
    let mut candidates = answers.flat_map(|answer| answer.answer.iter().flatten());
    candidates.find(|candidate| candidate.recipe.name == step.recipe.name)
}

/// A kernel's recipes for a run as candidates, or one candidate without a recipe if it has none.
fn candidates(
    run: &Considered,
    schedule: &Schedule,
    choice: &Choice,
    [before, after]: &[Vec<f64>; 2],
) -> Vec<Candidate> {
    let Considered { first, links, kernel, .. } = *run;
    let (recipe, ms, measured_ms, taken) = (None, None, None, false);
    let none = Candidate { first, links, kernel, recipe, ms, measured_ms, taken, reason: None };
    let candidates = match &run.answer {
        Err(reason) => return vec![Candidate { reason: Some(reason.to_string()), ..none }],
        Ok(candidates) => candidates,
    };
    let mut siblings = schedule.considered.iter().filter(|other| (other.first, other.links) == (first, links));
    let tuned = siblings.any(|other| other.answer.iter().flatten().any(|candidate| candidate.measured.is_some()));
    let list = candidates.iter().map(|candidate| {
        let name = &candidate.recipe.name;
        let taken = schedule.takes(first, links, name);
        let slower = || {
            let whole = before[first] + candidate.seconds() + after[first + links];
            let times = compared(whole, schedule.seconds());
            format!("the whole chain would take {} ms, {times}", table::figure(whole * 1e3))
        };
        let untimed = || (tuned && candidate.measured.is_none()).then(|| "tuning has no time for it".to_string());
        let reason = || barred(choice, links, &candidate.recipe).or_else(untimed).unwrap_or_else(slower);
        Candidate {
            first,
            links,
            kernel,
            recipe: Some(name.clone()),
            ms: Some(candidate.parts.seconds() * 1e3),
            measured_ms: candidate.measured.map(|seconds| seconds * 1e3),
            taken,
            reason: (!taken).then(reason),
        }
    });
    list.collect()
}

impl Step {
    fn new(subject: &Subject<'_>, step: &planner::Step, flops: u64, measured: Option<f64>) -> Self {
        let Planner { caps, profile } = subject.planner;
        let device = profile.device_model(caps);
        let (work, parts) = (step.recipe.work, &step.parts);
        let roofline = (flops as f64 / 2.0 / device.rates.mult_adds).max(work.bytes / device.rates.bytes);
        let passes = step.recipe.passes.iter().map(|pass| Pass {
            workgroup: pass.workgroup,
            workgroups: pass.workgroups,
            workgroup_memory: pass.workgroup_memory,
            registers: pass.registers,
            resident_workgroups: device.resident_workgroups(pass),
        });
        Self {
            first: step.first,
            links: step.links,
            recipe: step.recipe.name.clone(),
            passes: passes.collect(),
            workspace: step.recipe.workspace.iter().sum(),
            flops,
            flops_done: (2.0 * work.mult_adds) as u64,
            bytes: work.bytes as u64,
            intensity: flops as f64 / work.bytes.max(1.0),
            ms: step.seconds * 1e3,
            model_ms: parts.seconds() * 1e3,
            measured_ms: measured.map(|seconds| seconds * 1e3),
            // What is in place already takes no time.
            share_of_roofline: if step.seconds > 0.0 { roofline / measured.unwrap_or(step.seconds) } else { 1.0 },
            occupancy: parts.occupancy,
            bound: bound(parts),
            why: why_step(subject.schedule, step),
        }
    }
}

/// The name of the largest part of a modelled time.
fn bound(parts: &Parts) -> &'static str {
    if parts.seconds() == 0.0 {
        return "";
    }
    let parts = [
        (parts.mult_adds, "arithmetic"),
        (parts.accesses, "loads"),
        (parts.shared, "workgroup memory"),
        (parts.bytes, "memory"),
        (parts.dispatch, "dispatches"),
        (parts.launch, "workgroups"),
        (parts.latency, "latency"),
    ];
    parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map_or("", |(_, name)| name)
}

/// How much longer the second best recipe for the step's links would take, and, for several links, how much longer they
/// would take one by one.
fn why_step(schedule: &Schedule, step: &planner::Step) -> String {
    let best = |first: usize, links: usize, except: Option<&str>| {
        let answers = schedule.considered.iter().filter(move |answer| (answer.first, answer.links) == (first, links));
        let candidates = answers.flat_map(|answer| answer.answer.iter().flatten());
        let others = candidates.filter(move |candidate| Some(candidate.recipe.name.as_str()) != except);
        others.min_by(|a, b| a.seconds().total_cmp(&b.seconds()))
    };
    let mut reasons = Vec::new();
    let (all, copied) =
        (candidate_of(schedule, step).map_or(0, |one| one.recipe.passes.len()), step.recipe.passes.len());
    if copied < all {
        reasons.push(format!("{} of {all} tensors are made in place", all - copied));
    }
    let singles = (step.first..step.first + step.links).map(|link| best(link, 1, None));
    if let (true, Some(singles)) = (step.links > 1, singles.collect::<Option<Vec<_>>>()) {
        let seconds: f64 = singles.iter().map(|candidate| candidate.seconds()).sum();
        reasons.push(format!("one by one {}", compared(seconds, step.seconds)));
    }
    if let Some(next) = best(step.first, step.links, Some(&step.recipe.name)) {
        reasons.push(format!("{} {}", next.recipe.name, compared(next.seconds(), step.seconds)));
    }
    if reasons.is_empty() { "the only candidate".into() } else { reasons.join("; ") }
}

/// Why the caller's options rule out a recipe for a run of links.
fn barred(choice: &Choice, links: usize, recipe: &Recipe) -> Option<String> {
    match choice {
        Choice::Named(names) if !asks_for(names, &recipe.name) => Some("not the kernel asked for".into()),
        Choice::Fusion(Fusion::Never) if links > 1 => Some("fusion is forbidden".into()),
        Choice::Within(choice, most) => {
            let needed: u64 = recipe.workspace.iter().sum();
            let too_large = || format!("needs {} bytes of scratch memory", table::count(needed));
            (needed > *most).then(too_large).or_else(|| barred(choice, links, recipe))
        }
        _ => None,
    }
}

/// Whether `--kernel` names a recipe, by its own name or its kernel's.
fn asks_for(names: &str, recipe: &str) -> bool {
    names.split('+').any(|name| is_called(recipe, name))
}

/// A time relative to another, in words.
fn compared(time: f64, other: f64) -> String {
    let times = time / other;
    if (0.995..1.005).contains(&times) { "just as long".into() } else { format!("{times:.2} times as long") }
}
