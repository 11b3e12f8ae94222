//! A report's data: everything that was measured, as `--json` writes it and `--from` reads it. `web/page` has this
//! file, too.

use gpuconv::planner::model::Rates;
use serde::{Deserialize, Serialize};

/// Times are in milliseconds, sizes in bytes. Operations are floating-point operations, two for each multiply-add,
/// counted as `cost` counts them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The version of gpuconv.
    pub version: String,
    /// The time of the report, in UTC.
    pub time: String,
    pub device: Device,
    pub ceilings: Ceilings,
    /// Every pair of layer and recipe that was measured, once.
    pub layers: Vec<Step>,
    pub separable: Vec<Comparison>,
    pub networks: Vec<Network>,
    /// The cost of the tensors between links, for each problem that has some.
    pub memory: Vec<Memory>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub driver: String,
    pub backend: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Smallest and largest, in lanes.
    pub subgroup: Option<[u32; 2]>,
    pub workgroup_memory: u32,
    pub max_storage_binding: u64,
    /// Whether times are by the device's clock. Otherwise they are by the host's, from submission to completion.
    pub has_clock: bool,
}

/// The peak rates of the device, from the probe.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    pub gflops: f64,
    pub gbps: f64,
    /// Operations for each byte where the two ceilings meet.
    pub ridge: f64,
    /// Loads from caches, in 1e9 per second.
    pub gloads: f64,
    /// Loads from workgroup memory, in 1e9 per second.
    pub shared_gloads: f64,
    /// Microseconds of a dispatch that does nothing.
    pub dispatch_us: f64,
}

impl Ceilings {
    /// Of the rates that a probe measured.
    pub fn new(rates: &Rates) -> Self {
        let (gflops, gbps) = (2e-9 * rates.mult_adds, 1e-9 * rates.bytes);
        Self {
            gflops,
            gbps,
            ridge: gflops / gbps,
            gloads: 1e-9 * rates.accesses,
            shared_gloads: 1e-9 * rates.shared,
            dispatch_us: 1e6 * rates.dispatch,
        }
    }

    /// The roof in GFLOP/s at an arithmetic intensity.
    pub fn roof(&self, intensity: f64) -> f64 {
        self.gflops.min(self.gbps * intensity)
    }
}

/// A run of links that one recipe computes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The links as problems, joined by ` + `.
    pub layer: String,
    pub recipe: String,
    /// The first link's index in its chain, from 0, and the number of links.
    pub first: usize,
    pub links: usize,
    pub ms: f64,
    pub flops: u64,
    /// Operations that the recipe does, including idle and recomputed ones.
    pub flops_done: u64,
    /// Bytes from and to memory.
    pub bytes: u64,
    /// Operations for each byte.
    pub intensity: f64,
    pub gflops: f64,
    pub gbps: f64,
    /// Its GFLOP/s, over the roof at its intensity. It can exceed 1: caches are faster than memory, and Winograd's
    /// method multiplies less often.
    pub share_of_roofline: f64,
}

/// A step as it was measured: what it does, and how long it takes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    pub layer: String,
    pub recipe: String,
    pub first: usize,
    pub links: usize,
    pub ms: f64,
    pub flops: u64,
    pub flops_done: u64,
    pub bytes: u64,
}

impl Step {
    /// A step under a device's ceilings.
    pub fn new(run: Run, ceilings: &Ceilings) -> Self {
        let Run { layer, recipe, first, links, ms, flops, flops_done, bytes } = run;
        // A clock that is too coarse for the step may give 0, but a rate must be finite.
        let ms = ms.max(1e-6);
        let (intensity, gflops) = (flops as f64 / bytes.max(1) as f64, 1e-6 * flops as f64 / ms);
        let gbps = 1e-6 * bytes as f64 / ms;
        // A pool multiplies nothing, so only its bytes count.
        let share_of_roofline = if flops > 0 { gflops / ceilings.roof(intensity) } else { gbps / ceilings.gbps };
        Self { layer, recipe, first, links, ms, flops, flops_done, bytes, intensity, gflops, gbps, share_of_roofline }
    }
}

/// A separable convolution and the standard one that it replaces. A form is `None` if the device cannot compute it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    pub problem: String,
    pub standard: Option<Form>,
    /// Separable, in two steps.
    pub unfused: Option<Form>,
    /// Separable, in one step.
    pub fused: Option<Form>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    pub schedule: String,
    pub ms: f64,
    pub mult_adds: u64,
    pub mult_adds_done: u64,
    pub bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub problem: String,
    /// The sum over its steps.
    pub ms: f64,
    pub steps: Vec<Step>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub problem: String,
    /// Bytes of the tensors between links.
    pub between: u64,
    /// Bytes moved if each link runs alone.
    pub unfused: u64,
    /// Bytes moved if no tensor between two links goes to memory.
    pub fused: u64,
    /// Bytes moved by the schedule that the planner chose.
    pub planned: u64,
    /// Operations for each byte, unfused and fused.
    pub intensity_unfused: f64,
    pub intensity_fused: f64,
    /// Time to move the bytes at the measured rate.
    pub unfused_ms: f64,
    pub fused_ms: f64,
}
