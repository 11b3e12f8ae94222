//! What a device is, and how problems are computed on it.

use std::collections::BTreeMap;

use gpuconv::planner::Division;
use gpuconv::{GpuConv, Problem, Result, cost};
use serde::Serialize;

/// A device.
#[derive(Serialize)]
pub struct Info {
    adapter: String,
    /// What the planner takes it for.
    planned_as: String,
    is_software: bool,
    max_storage_binding: u64,
    max_buffer: u64,
    max_workgroup_memory: u32,
    max_invocations: u32,
    subgroup: Option<[u32; 2]>,
    timestamps: bool,
    f16: bool,
}

impl Info {
    pub fn of(gpu: &GpuConv) -> Self {
        let caps = gpu.caps();
        Self {
            adapter: gpu.adapter_name(),
            planned_as: if caps.is_cpu { "a software device".into() } else { caps.gpu.to_string() },
            is_software: caps.is_cpu,
            max_storage_binding: caps.max_storage_binding,
            max_buffer: caps.max_buffer,
            max_workgroup_memory: caps.max_workgroup_memory,
            max_invocations: caps.max_invocations,
            subgroup: caps.subgroup,
            timestamps: caps.timestamps,
            f16: caps.f16,
        }
    }
}

/// How a problem is computed.
#[derive(Serialize)]
pub struct Plan {
    problem: String,
    kernel: String,
    predicted_ms: f64,
    steps: Vec<Step>,
    /// Why other kernels were not asked further, by their names.
    rejected: BTreeMap<String, String>,
    mult_adds: u64,
    bytes_fused: u64,
    bytes_unfused: u64,
    /// Bytes beside tensors and weights.
    workspace: u64,
    /// Whether tensors are too large for a binding, so that the steps are those of the first band.
    in_bands: bool,
}

#[derive(Serialize)]
struct Step {
    recipe: String,
    first: usize,
    links: usize,
    dispatches: usize,
    predicted_ms: f64,
}

impl Plan {
    pub fn of(problem: &Problem, division: &Division) -> Result<Self> {
        let (schedule, cost) = (division.schedule(), cost::chain(&problem.chain(), problem.input)?);
        let step = |step: &gpuconv::planner::Step| Step {
            recipe: step.recipe.name.clone(),
            first: step.first,
            links: step.links,
            dispatches: step.recipe.passes.len(),
            predicted_ms: step.seconds * 1e3,
        };
        let reasons = schedule.considered.iter().filter_map(|run| Some((run.kernel, run.answer.as_ref().err()?)));
        Ok(Self {
            problem: problem.to_string(),
            kernel: schedule.name(),
            predicted_ms: schedule.seconds() * 1e3,
            steps: schedule.steps.iter().map(step).collect(),
            rejected: reasons.map(|(kernel, why)| (kernel.to_string(), why.to_string())).collect(),
            mult_adds: cost.mult_adds,
            bytes_fused: cost.bytes_fused,
            bytes_unfused: cost.bytes_unfused,
            workspace: division.workspace().iter().sum(),
            in_bands: division.is_divided(),
        })
    }
}
