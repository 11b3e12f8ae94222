//! What a report is made of: everything that was measured, as `--json` writes it and `--from` reads it.

use serde::{Deserialize, Serialize};

/// Times are in milliseconds, sizes in bytes; operations are floating-point ones, two a multiply-add, counted as
/// `cost` counts them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Of gpuconv.
    pub version: String,
    /// When, in UTC.
    pub time: String,
    pub device: Device,
    pub ceilings: Ceilings,
    /// Every layer by every recipe that was measured, each once.
    pub layers: Vec<Step>,
    pub separable: Vec<Comparison>,
    pub networks: Vec<Network>,
    /// What the tensors between links cost, of everything that has any.
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
    /// Whether times are the device's own; else they are the host's, from submission until it is done.
    pub has_clock: bool,
}

/// The peaks of the device, as the probe found them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    pub gflops: f64,
    pub gbps: f64,
    /// Operations a byte at which the two meet.
    pub ridge: f64,
    /// Loads of data that a cache has, 1e9 a second.
    pub gloads: f64,
    /// Loads from workgroup memory, 1e9 a second.
    pub shared_gloads: f64,
    /// Of a dispatch that does nothing.
    pub dispatch_us: f64,
}

impl Ceilings {
    /// The roof, GFLOP/s, at an operational intensity.
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
    /// The first link in its chain, from 0, and how many.
    pub first: usize,
    pub links: usize,
    pub ms: f64,
    pub flops: u64,
    /// Those that the recipe does, idle and recomputed ones included.
    pub flops_done: u64,
    /// From and to memory.
    pub bytes: u64,
    /// Operations a byte.
    pub intensity: f64,
    pub gflops: f64,
    pub gbps: f64,
    /// Its GFLOP/s over what the ceilings allow at its intensity. More than 1 is possible: caches are faster than
    /// memory, and Winograd's method multiplies less often.
    pub share_of_roofline: f64,
}

/// A separable convolution, and the standard one that it stands in for, each where the device can compute it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    pub problem: String,
    pub standard: Option<Form>,
    /// In two steps.
    pub unfused: Option<Form>,
    /// In one.
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
    /// The sum of its steps.
    pub ms: f64,
    pub steps: Vec<Step>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub problem: String,
    /// The tensors between links.
    pub between: u64,
    /// Moved if each link runs alone.
    pub unfused: u64,
    /// Moved if no tensor between two links goes to memory.
    pub fused: u64,
    /// Moved as the planner would have it here.
    pub planned: u64,
    /// Operations a byte, of those two.
    pub intensity_unfused: f64,
    pub intensity_fused: f64,
    /// What moving them takes at the measured rate.
    pub unfused_ms: f64,
    pub fused_ms: f64,
}
