//! `plan`: the recipes that would run, and why these and no others.

mod explain;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use gpuconv::gpu::{GpuKind, KNOWN};
use gpuconv::planner::{Considered, Planner};
use gpuconv::{Caps, tuner};

use super::{Case, Failure, KernelOptions, Outcome, Target, adapter_name, print, print_json};
use explain::{Planned, Subject};

#[derive(Args)]
pub struct Plan {
    /// Write an object
    #[arg(long)]
    json: bool,
    /// Write the shaders of every candidate into this folder, as the driver gets them
    #[arg(long, value_name = "DIR")]
    wgsl: Option<PathBuf>,
    /// Plan with this kernel or recipe; two, joined by `+`, for the two halves of a separable convolution
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    #[command(flatten)]
    options: KernelOptions,
    /// Plan for a device that is not here: a common GPU, a kind of GPU in a middle size (`gpu` is a card of unknown make),
    /// `software`, or `webgpu` for what WebGPU promises everywhere
    #[arg(long, value_name = "DEVICE", value_parser = Device::parser(), ignore_case = true)]
    device: Option<Device>,
    /// Run the planned steps, and print their times beside the model's
    #[arg(long, conflicts_with = "device")]
    measure: bool,
    /// The problem to plan
    problem: String,
}

/// A device that a plan can be made for without having it.
#[derive(Clone)]
struct Device {
    name: &'static str,
    caps: Caps,
}

/// Kinds of GPUs, for those whose name is not known.
const KINDS: [(&str, GpuKind); 10] = [
    ("gpu", GpuKind::OtherDiscrete),
    ("gpu-integrated", GpuKind::OtherIntegrated),
    ("nvidia", GpuKind::Nvidia),
    ("amd", GpuKind::AmdDiscrete),
    ("amd-integrated", GpuKind::AmdIntegrated),
    ("intel-arc", GpuKind::IntelDiscrete),
    ("intel-integrated", GpuKind::IntelIntegrated),
    ("apple", GpuKind::Apple),
    ("adreno", GpuKind::Adreno),
    ("mali", GpuKind::Mali),
];

impl Device {
    fn parser() -> impl TypedValueParser<Value = Self> {
        let names = Self::all().map(|device| device.name);
        PossibleValuesParser::new(names).try_map(|name| {
            let found = Self::all().find(|device| device.name.eq_ignore_ascii_case(&name));
            found.ok_or(format!("no device is called {name}"))
        })
    }

    fn all() -> impl Iterator<Item = Self> {
        let general = [("webgpu", Caps::webgpu()), ("software", software())];
        let kinds = KINDS.map(|(name, kind)| (name, kind.caps()));
        let known = KNOWN.iter().map(|known| (known.name, known.caps()));
        let all = kinds.into_iter().chain(general).chain(known);
        all.map(|(name, caps)| Self { name, caps })
    }
}

/// What lavapipe gives on a processor with AVX2.
fn software() -> Caps {
    let memory = 32 << 10;
    Caps {
        max_workgroup_memory: memory,
        subgroup: Some([8; 2]),
        int64: true,
        f16: true,
        is_cpu: true,
        ..Caps::webgpu()
    }
}

impl Plan {
    pub fn execute(&self, target: &Target) -> Outcome {
        if self.device.is_some() {
            target.check("plan --device", false, false)?;
        }
        let case = Case::parse(&self.problem)?;
        let gpu = if self.device.is_none() { Some(target.open()?) } else { None };
        let (caps, profile, adapter): (_, _, String) = match (&gpu, &self.device) {
            (Some(gpu), _) => (gpu.caps().clone(), gpu.profile(), adapter_name(gpu)),
            (None, Some(device)) => (device.caps.clone(), Arc::default(), device.name.into()),
            (None, None) => (Caps::webgpu(), Arc::default(), "webgpu".into()),
        };
        let planner = Planner { caps: &caps, profile: &profile };
        let (chain, layout) = (case.problem.chain(), case.problem.layout);
        let choice = self.options.choice(self.kernel.as_deref());
        let division = planner.divide(&chain, case.problem.input, layout, &choice)?;
        let mut parts = Vec::new();
        for stretch in &division.stretches {
            let (chain, input, schedule) = (&*stretch.chain, stretch.input, &*stretch.schedule);
            if let Some(folder) = &self.wgsl {
                write_shaders(folder, &schedule.considered)?;
            }
            let measured = match &gpu {
                Some(gpu) if self.measure => Some(tuner::measure(gpu, chain, input, layout, schedule)?),
                _ => None,
            };
            let subject = Subject { chain, input, layout, planner, choice: &choice, schedule };
            parts.push(Planned::new(case.text.clone(), adapter.clone(), &subject, measured.as_deref())?);
        }
        let Some(planned) = Planned::of_division(parts, &division) else {
            return Err(Failure::Device("a plan has no steps".into()));
        };
        if self.json { print_json(&planned) } else { print(&text::text(&planned)) }
    }
}

/// Writes the shader of every candidate's passes, one file per pass.
fn write_shaders(folder: &Path, considered: &[Considered]) -> Outcome {
    let unwritable = |path: &Path, error| Failure::Call(format!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| unwritable(folder, error))?;
    let recipes = || {
        considered.iter().flat_map(|run| run.answer.iter().flatten().map(|candidate| (run.first, &candidate.recipe)))
    };
    for (first, recipe) in recipes() {
        let mut stem = recipe.name.replace('/', "-");
        // Recipes for two links may have the same name but different constants.
        if recipes().filter(|(_, other)| other.name == recipe.name).count() > 1 {
            stem += &format!(".link{first}");
        }
        for (index, pass) in recipe.passes.iter().enumerate() {
            let suffix = if recipe.passes.len() > 1 { format!(".pass{index}") } else { String::new() };
            let path = folder.join(format!("{stem}{suffix}.wgsl"));
            let text = pass.wgsl.text()?;
            fs::write(&path, text.as_bytes()).map_err(|error| unwritable(&path, error))?;
        }
    }
    Ok(())
}
