//! The cost model: what a recipe's work takes on a device, in seconds. `docs/cost-model.md` has the formulas.

use crate::kernels::{Pass, Recipe, Work};
use crate::model::caps::Caps;

/// The rates at which a device works, from a probe or guessed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "tuning", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "tuning", serde(deny_unknown_fields))]
pub struct Rates {
    /// Multiply-adds a second.
    pub mult_adds: f64,
    /// Loads from and stores to storage a second, of data that a cache has.
    pub accesses: f64,
    /// Loads from workgroup memory a second.
    pub shared: f64,
    /// Bytes from and to memory a second.
    pub bytes: f64,
    /// Seconds that a dispatch takes if it does nothing.
    pub dispatch: f64,
    /// Workgroups of 64 invocations with independent multiply-adds that keep the device's arithmetic busy; on a
    /// software device its cores.
    pub parallel: f64,
}

/// A desktop GPU of 10 Tflop/s.
const GPU: Rates =
    Rates { mult_adds: 5e12, accesses: 1.2e12, shared: 2.4e12, bytes: 4e11, dispatch: 3e-6, parallel: 64.0 };

/// Two cores of lavapipe, fitted to the kernels' own times.
const CPU: Rates =
    Rates { mult_adds: 7.5e10, accesses: 2e9, shared: 2e9, bytes: 3e10, dispatch: 3.3e-5, parallel: 2.0 };

impl Rates {
    /// Whether all are numbers that the model can divide by.
    pub fn are_sound(&self) -> bool {
        let Self { mult_adds, accesses, shared, bytes, dispatch, parallel } = *self;
        [mult_adds, accesses, shared, bytes, dispatch, parallel].iter().all(|rate| rate.is_normal() && *rate > 0.0)
    }

    /// The rates of a device that was not measured.
    pub fn guess(caps: &Caps) -> Self {
        if caps.is_cpu { CPU } else { GPU }
    }
}

/// The share of its rate at which a software device reads workgroup memory in kernels: at each barrier everything that
/// is alive moves to memory and back. (Fitted.)
const SHARED_ON_CPU: f64 = 0.5;

/// What each part of a recipe's work takes, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// Arithmetic.
    pub mult_adds: f64,
    /// Loads and stores.
    pub accesses: f64,
    /// Workgroup memory.
    pub shared: f64,
    /// Memory traffic.
    pub bytes: f64,
    /// Dispatches.
    pub dispatch: f64,
    /// The share of the device that has work, for all but memory and dispatches.
    pub occupancy: f64,
    /// Whether the parts but the dispatches overlap.
    pub overlap: bool,
}

impl Parts {
    /// The parts of a recipe's work.
    pub fn new(recipe: &Recipe, rates: &Rates, caps: &Caps) -> Self {
        let Work { mult_adds, accesses, shared, bytes, invocations } = recipe.work;
        let occupancy = match caps.is_cpu {
            true => whole_rounds(recipe, rates.parallel),
            false => (invocations / (OVERLAPPED * 64.0 * rates.parallel)).min(residency(recipe)).clamp(1e-3, 1.0),
        };
        let shared_rate = rates.shared * if caps.is_cpu { SHARED_ON_CPU } else { 1.0 };
        Self {
            mult_adds: mult_adds / rates.mult_adds / occupancy,
            accesses: accesses / rates.accesses / occupancy,
            shared: shared / shared_rate / occupancy,
            bytes: bytes / rates.bytes,
            dispatch: rates.dispatch * recipe.passes.len() as f64,
            occupancy,
            overlap: !caps.is_cpu,
        }
    }

    /// The whole. A GPU overlaps arithmetic, workgroup memory, loads and memory traffic, so the slowest of them counts
    /// (the roofline of Williams, Waterman and Patterson, CACM 52(4), 2009). A software device does one after the
    /// other.
    pub fn seconds(&self) -> f64 {
        let parts = [self.mult_adds, self.accesses, self.shared, self.bytes];
        let busy = if self.overlap { parts.into_iter().fold(0.0, f64::max) } else { parts.iter().sum() };
        busy + self.dispatch
    }
}

/// What a core of a GPU has, a multiprocessor of NVIDIA's Turing or a compute unit of AMD's RDNA 2: registers, bytes of
/// workgroup memory, invocations and workgroups that it holds at a time, and lanes that run in step.
const REGISTERS: u64 = 65536;
const WORKGROUP_MEMORY: u64 = 65536;
const INVOCATIONS: u64 = 1024;
const WORKGROUPS: u64 = 16;
const IN_STEP: u64 = 32;

/// Lanes of a core that multiply and add at a time, in the largest of them.
const LANES: f64 = 128.0;

/// Invocations a lane that hide the latencies of a GPU: a rule, not a measurement. That many sums make up for few
/// invocations Volkov has shown ("Better Performance at Lower Occupancy", GTC 2010).
const OVERLAPPED: f64 = 4.0;

/// How many workgroups of a pass a core of a GPU holds at a time: as many as its registers, its workgroup memory and
/// its places for invocations allow. At least one, for else there would be no pipeline.
pub fn resident_workgroups(pass: &Pass) -> u64 {
    let invocations = u64::from(pass.workgroup.max(1)).next_multiple_of(IN_STEP);
    let by_registers = REGISTERS / (u64::from(pass.registers.max(1)) * invocations);
    let by_memory = WORKGROUP_MEMORY / u64::from(pass.workgroup_memory.max(1));
    by_registers.min(by_memory).min(INVOCATIONS / invocations).clamp(1, WORKGROUPS)
}

/// The share of a core's rate that the workgroups which it holds can keep up, in the worst of a recipe's passes.
fn residency(recipe: &Recipe) -> f64 {
    let share = |pass: &Pass| resident_workgroups(pass) as f64 * pass.independent() / (OVERLAPPED * LANES);
    recipe.passes.iter().map(share).fold(1.0, f64::min)
}

/// The share of a software device's cores that have work: each takes a workgroup at a time, so in the last round some
/// may have none.
fn whole_rounds(recipe: &Recipe, cores: f64) -> f64 {
    let workgroups: f64 = recipe.passes.iter().map(|pass| pass.workgroups as f64).sum();
    let rounds: f64 = recipe.passes.iter().map(|pass| (pass.workgroups as f64 / cores).ceil()).sum();
    if rounds > 0.0 { workgroups / (rounds * cores) } else { 1.0 }
}
