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

impl Rates {
    /// Whether all are numbers that the model can divide by.
    pub fn are_sound(&self) -> bool {
        let Self { mult_adds, accesses, shared, bytes, dispatch, parallel } = *self;
        [mult_adds, accesses, shared, bytes, dispatch, parallel].iter().all(|rate| rate.is_normal() && *rate > 0.0)
    }
}

/// What the model knows of a device. The planner makes it of the caps and the measured rates.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceModel {
    /// The rates at which it works.
    pub rates: Rates,
    /// What one of its cores holds.
    pub core: Core,
}

/// How a core of a device keeps busy.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Core {
    /// A GPU's: while some invocations wait, it runs others. Arithmetic, loads and memory traffic overlap.
    Parallel(Multiprocessor),
    /// A software device's: it takes a workgroup at a time and does one thing after the other.
    Serial {
        /// A factor on [`Rates::shared`] in kernels: at each barrier all values that are alive move to memory and back.
        shared: f64,
    },
}

/// What a core of a GPU holds at a time.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiprocessor {
    /// Registers of 32 bits.
    pub registers: u64,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u64,
    /// Invocations.
    pub invocations: u64,
    /// Workgroups.
    pub workgroups: u64,
    /// Invocations that run in step, so that a part of them takes the place of all.
    pub in_step: u64,
    /// Multiply-adds that it starts at a time.
    pub lanes: u64,
}

impl DeviceModel {
    /// A desktop GPU of 10 Tflop/s. A core is a multiprocessor of NVIDIA's Turing (CUDA C++ Programming Guide, compute
    /// capability 7.5) and, but for the workgroups, a compute unit of AMD's RDNA 2; its lanes are those of NVIDIA's Ada and
    /// Hopper, the most that any has.
    pub const GPU: Self = Self {
        rates: Rates { mult_adds: 5e12, accesses: 1.2e12, shared: 2.4e12, bytes: 4e11, dispatch: 3e-6, parallel: 64.0 },
        core: Core::Parallel(Multiprocessor {
            registers: 65536,
            workgroup_memory: 65536,
            invocations: 1024,
            workgroups: 16,
            in_step: 32,
            lanes: 128,
        }),
    };

    /// Two cores of lavapipe, fitted to the kernels' own times.
    pub const SOFTWARE: Self = Self {
        rates: Rates { mult_adds: 7.5e10, accesses: 2e9, shared: 2e9, bytes: 3e10, dispatch: 3.3e-5, parallel: 2.0 },
        core: Core::Serial { shared: 0.5 },
    };

    /// The model of a device of which nothing was measured.
    pub fn of(caps: &Caps) -> Self {
        if caps.is_cpu { Self::SOFTWARE } else { Self::GPU }
    }

    /// How many workgroups of a pass a core holds at a time: as many as its registers, its workgroup memory and its
    /// places for invocations allow. At least one, since otherwise there would be no pipeline.
    pub fn resident_workgroups(&self, pass: &Pass) -> u64 {
        let Core::Parallel(core) = self.core else { return 1 };
        let invocations = u64::from(pass.workgroup.max(1)).next_multiple_of(core.in_step.max(1));
        let by_registers = core.registers / (u64::from(pass.registers.max(1)) * invocations);
        let by_memory = core.workgroup_memory / u64::from(pass.workgroup_memory.max(1));
        by_registers.min(by_memory).min(core.invocations / invocations).clamp(1, core.workgroups.max(1))
    }

    /// The share of the device that has work, for all but memory and dispatches.
    fn occupancy(&self, recipe: &Recipe) -> f64 {
        match self.core {
            Core::Serial { .. } => whole_rounds(recipe, self.rates.parallel),
            Core::Parallel(core) => {
                let invocations = recipe.work.invocations / (OVERLAPPED * 64.0 * self.rates.parallel);
                // The share of a core's rate that the workgroups which it holds can keep up, in the worst of the passes.
                let share = |pass: &Pass| {
                    self.resident_workgroups(pass) as f64 * pass.independent() / (OVERLAPPED * core.lanes as f64)
                };
                recipe.passes.iter().map(share).fold(invocations, f64::min).clamp(1e-3, 1.0)
            }
        }
    }
}

/// Invocations a lane that hide the latencies of a GPU: a rule, not a measurement. Volkov has shown that many sums make up
/// for few invocations ("Better Performance at Lower Occupancy", GTC 2010).
const OVERLAPPED: f64 = 4.0;

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
    /// The parts of a recipe's work on a device.
    pub fn new(recipe: &Recipe, device: &DeviceModel) -> Self {
        let Work { mult_adds, accesses, shared, bytes, .. } = recipe.work;
        let DeviceModel { rates, core } = device;
        let occupancy = device.occupancy(recipe);
        let (shared_rate, overlap) = match core {
            Core::Parallel(_) => (rates.shared, true),
            Core::Serial { shared } => (rates.shared * shared, false),
        };
        Self {
            mult_adds: mult_adds / rates.mult_adds / occupancy,
            accesses: accesses / rates.accesses / occupancy,
            shared: shared / shared_rate / occupancy,
            bytes: bytes / rates.bytes,
            dispatch: rates.dispatch * recipe.passes.len() as f64,
            occupancy,
            overlap,
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

/// The share of a software device's cores that have work: each takes a workgroup at a time, so in the last round some
/// may have none.
fn whole_rounds(recipe: &Recipe, cores: f64) -> f64 {
    let workgroups: f64 = recipe.passes.iter().map(|pass| pass.workgroups as f64).sum();
    let rounds: f64 = recipe.passes.iter().map(|pass| (pass.workgroups as f64 / cores).ceil()).sum();
    if rounds > 0.0 { workgroups / (rounds * cores) } else { 1.0 }
}
