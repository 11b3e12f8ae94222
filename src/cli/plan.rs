//! `plan`: the recipes that would run, why they, and why no others.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use gpuconv::Caps;
use gpuconv::planner::{self, Considered, Schedule};
use serde::Serialize;

use super::{Case, Failure, Outcome, adapter_name, choice, open, print, print_json, table};

#[derive(Args)]
pub struct Plan {
    /// Write an object
    #[arg(long)]
    json: bool,
    /// Write every candidate's shaders, as they go to the driver, into this folder
    #[arg(long, value_name = "DIR")]
    wgsl: Option<PathBuf>,
    /// Plan with this kernel or recipe; two, joined by `+`, for the two halves of a separable convolution
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Plan for a device that is not here, in place of the adapter
    #[arg(long, value_name = "DEVICE", conflicts_with = "adapter")]
    device: Option<Device>,
    /// What to plan
    problem: String,
}

/// Devices to plan for that are not here.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Device {
    /// A desktop GPU: subgroups of 32 to 64 lanes, 32 KiB of workgroup memory
    Gpu,
    /// What WebGPU promises everywhere, without subgroups
    Webgpu,
}

impl Device {
    fn caps(self) -> Caps {
        match self {
            Self::Gpu => {
                Caps { max_invocations: 1024, max_workgroup_memory: 32768, subgroup: Some([32, 64]), ..Caps::webgpu() }
            }
            Self::Webgpu => Caps::webgpu(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gpu => "a desktop GPU",
            Self::Webgpu => "any WebGPU device",
        }
    }
}

/// Times are the cost model's, in milliseconds.
#[derive(Serialize)]
struct Planned {
    problem: String,
    adapter: String,
    schedule: String,
    ms: f64,
    why: String,
    steps: Vec<Step>,
    workspace: Workspace,
    /// The other ways to compute the whole chain, the fastest first.
    runners_up: Vec<RunnerUp>,
    /// Every recipe of every kernel, and every kernel that has none.
    candidates: Vec<Candidate>,
}

#[derive(Serialize)]
struct Step {
    /// The first link, from 0.
    first: usize,
    links: usize,
    recipe: String,
    passes: Vec<Pass>,
    /// Bytes of scratch memory.
    workspace: u64,
    ms: f64,
}

#[derive(Serialize)]
struct Pass {
    /// Invocations in a workgroup.
    workgroup: u32,
    workgroups: u64,
    /// Bytes.
    workgroup_memory: u32,
}

/// Memory beside input, output and weights, in bytes.
#[derive(Serialize)]
struct Workspace {
    bytes: u64,
    bytes_without_reuse: u64,
    buffers: Vec<u64>,
}

#[derive(Serialize)]
struct RunnerUp {
    schedule: String,
    ms: f64,
}

#[derive(Serialize)]
struct Candidate {
    first: usize,
    links: usize,
    kernel: &'static str,
    recipe: Option<String>,
    ms: Option<f64>,
    taken: bool,
    /// Why it was turned down.
    reason: Option<String>,
}

impl Plan {
    pub fn execute(&self, adapter: Option<&str>) -> Outcome {
        let case = Case::parse(&self.problem)?;
        let (caps, name) = match self.device {
            Some(device) => (device.caps(), device.name().into()),
            None => {
                let gpu = open(adapter)?;
                (gpu.caps().clone(), adapter_name(&gpu))
            }
        };
        let (chain, input, layout) = (case.problem.chain(), case.problem.input, case.problem.layout);
        let schedule = planner::schedule(&chain, input, layout, &caps, &choice(self.kernel.as_deref()))?;
        let alternatives = planner::alternatives(&chain, input, layout, &caps)?;
        if let Some(folder) = &self.wgsl {
            write_shaders(folder, &schedule.considered)?;
        }
        let planned = self.planned(name, case.text, &schedule, &alternatives);
        if self.json { print_json(&planned) } else { print(&text(&planned)) }
    }

    fn planned(&self, adapter: String, problem: String, schedule: &Schedule, alternatives: &[Schedule]) -> Planned {
        let mut runners_up: Vec<_> = alternatives
            .iter()
            .filter(|other| other.name() != schedule.name())
            .map(|other| RunnerUp { schedule: other.name(), ms: other.seconds() * 1e3 })
            .collect();
        runners_up.sort_by(|a, b| a.ms.total_cmp(&b.ms));
        let ms = schedule.seconds() * 1e3;
        Planned {
            problem,
            adapter,
            schedule: schedule.name(),
            ms,
            why: self.why(ms, runners_up.first()),
            steps: schedule.steps.iter().map(Step::new).collect(),
            workspace: Workspace {
                bytes: schedule.workspace.bytes(),
                bytes_without_reuse: schedule.workspace.bytes_without_reuse(),
                buffers: schedule.workspace.buffers().to_vec(),
            },
            runners_up,
            candidates: schedule.considered.iter().flat_map(|run| self.candidates(run, schedule)).collect(),
        }
    }

    fn why(&self, ms: f64, next: Option<&RunnerUp>) -> String {
        let ms_text = table::figure(ms);
        match (&self.kernel, next) {
            (Some(_), _) => format!("asked for by --kernel; {ms_text} ms by the model"),
            (None, None) => format!("there is no other; {ms_text} ms by the model"),
            (None, Some(next)) => {
                format!(
                    "{ms_text} ms by the model; next is {} with {} ms, {}",
                    next.schedule,
                    table::figure(next.ms),
                    compared(next.ms, ms)
                )
            }
        }
    }

    /// A kernel's recipes for a run, or that it has none.
    fn candidates(&self, run: &Considered, schedule: &Schedule) -> Vec<Candidate> {
        let candidate = |recipe: Option<String>, ms, taken, reason| {
            let Considered { first, links, kernel, .. } = *run;
            Candidate { first, links, kernel, recipe, ms, taken, reason }
        };
        let recipes = match &run.answer {
            Err(reason) => return vec![candidate(None, None, false, Some(reason.to_string()))],
            Ok(recipes) => recipes,
        };
        let links = schedule.steps.iter().map(|step| step.links).sum();
        let others =
            cheapest(&schedule.considered, 0, run.first) + cheapest(&schedule.considered, run.first + run.links, links);
        let candidates = recipes.iter().map(|planner::Candidate { recipe, parts, .. }| {
            let seconds = parts.seconds();
            let taken = schedule.takes(run.first, run.links, &recipe.name);
            let reason = if taken {
                None
            } else if self.kernel.as_deref().is_some_and(|names| !asks_for(names, &recipe.name)) {
                Some("not asked for".into())
            } else {
                let (whole, planned) = (others + seconds, schedule.seconds());
                Some(format!("the whole would take {} ms, {}", table::figure(whole * 1e3), compared(whole, planned)))
            };
            candidate(Some(recipe.name.clone()), Some(seconds * 1e3), taken, reason)
        });
        candidates.collect()
    }
}

impl Step {
    fn new(step: &planner::Step) -> Self {
        let passes = step.recipe.passes.iter().map(|pass| Pass {
            workgroup: pass.workgroup,
            workgroups: pass.workgroups,
            workgroup_memory: pass.workgroup_memory,
        });
        Self {
            first: step.first,
            links: step.links,
            recipe: step.recipe.name.clone(),
            passes: passes.collect(),
            workspace: step.recipe.workspace.iter().sum(),
            ms: step.seconds * 1e3,
        }
    }
}

/// Whether `--kernel` means a recipe, by its own name or its kernel's.
fn asks_for(names: &str, recipe: &str) -> bool {
    names.split('+').any(|name| recipe == name || recipe.split('/').next() == Some(name))
}

/// What the links of a range take at the least, seconds.
fn cheapest(considered: &[Considered], from: usize, to: usize) -> f64 {
    if from == to {
        return 0.0;
    }
    let runs = considered.iter().filter(|run| run.first == from && from + run.links <= to);
    let times = runs.flat_map(|run| {
        let recipes = run.answer.iter().flatten();
        recipes.map(|candidate| candidate.seconds() + cheapest(considered, from + run.links, to))
    });
    times.fold(f64::INFINITY, f64::min)
}

/// A time in words, against another.
fn compared(time: f64, other: f64) -> String {
    let times = time / other;
    if (0.995..1.005).contains(&times) { "just as long".into() } else { format!("{times:.2} times as long") }
}

/// Writes every candidate's passes, a file each.
fn write_shaders(folder: &Path, considered: &[Considered]) -> Outcome {
    let unwritable = |path: &Path, error| Failure::Call(format!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    let recipes = || {
        considered.iter().flat_map(|run| run.answer.iter().flatten().map(|candidate| (run.first, &candidate.recipe)))
    };
    for (first, recipe) in recipes() {
        let mut stem = recipe.name.replace('/', "-");
        // Two links may take recipes of one name, with different constants.
        if recipes().filter(|(_, other)| other.name == recipe.name).count() > 1 {
            stem += &format!(".link{first}");
        }
        for (index, pass) in recipe.passes.iter().enumerate() {
            let suffix = if recipe.passes.len() > 1 { format!(".pass{index}") } else { String::new() };
            let path = folder.join(format!("{stem}{suffix}.wgsl"));
            fs::write(&path, &pass.wgsl).map_err(|error| unwritable(&path, error))?;
        }
    }
    Ok(())
}

/// The links of a run, from 0.
fn span(first: usize, links: usize) -> String {
    if links == 1 { first.to_string() } else { format!("{first} to {}", first + links - 1) }
}

fn text(planned: &Planned) -> String {
    let mut steps = table::new(["links", "recipe", "workgroups", "invocations", "workgroup memory", "model ms"], 2);
    for step in &planned.steps {
        for pass in &step.passes {
            steps.add_row([
                span(step.first, step.links),
                step.recipe.clone(),
                table::count(pass.workgroups),
                table::count(pass.workgroup.into()),
                table::count(pass.workgroup_memory.into()),
                table::figure(step.ms),
            ]);
        }
    }
    let mut candidates = table::new(["links", "turned down", "model ms", "why"], 2);
    for candidate in planned.candidates.iter().filter(|candidate| !candidate.taken) {
        candidates.add_row([
            span(candidate.first, candidate.links),
            candidate.recipe.clone().unwrap_or_else(|| candidate.kernel.into()),
            candidate.ms.map_or("-".into(), table::figure),
            candidate.reason.clone().unwrap_or_default(),
        ]);
    }
    if let Some(why) = candidates.column_mut(3) {
        why.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let Planned { problem, adapter, schedule, why, workspace, .. } = planned;
    let memory = format!(
        "workspace: {} bytes, {} without reuse",
        table::count(workspace.bytes),
        table::count(workspace.bytes_without_reuse)
    );
    format!("{problem}\non {adapter}: {schedule}\n{why}\n\n{steps}\n{memory}\n\n{candidates}\n")
}
