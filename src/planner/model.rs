//! The cost model: what a recipe's work takes on a device, in seconds. `docs/cost-model.md` has the formulas.

use crate::kernels::{Pass, Recipe, Run, Work};
use crate::model::caps::Caps;
use crate::model::dtype::DType;
use crate::model::gpu::Gpu;
pub use crate::model::gpu::Multiprocessor;
use crate::planner::instructions::per_multiply_add;

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
    Parallel {
        /// The core.
        core: Multiprocessor,
        /// Whose it is.
        gpu: Gpu,
    },
    /// A software device's: it takes a workgroup at a time and does one thing after the other.
    Serial {
        /// A factor on [`Rates::shared`] in kernels: at each barrier all values that are alive move to memory and back.
        shared: f64,
    },
}

impl DeviceModel {
    /// Two cores of lavapipe, fitted to the kernels' own times.
    pub const SOFTWARE: Self = Self {
        rates: Rates { mult_adds: 7.5e10, accesses: 2e9, shared: 2e9, bytes: 3e10, dispatch: 3.3e-5, parallel: 2.0 },
        core: Core::Serial { shared: 0.5 },
    };

    /// The model of a device of which nothing was measured.
    pub fn of(caps: &Caps) -> Self {
        if caps.is_cpu { Self::SOFTWARE } else { Self::of_gpu(&caps.gpu) }
    }

    /// The model of a GPU by its cores, their clock and its memory.
    fn of_gpu(gpu: &Gpu) -> Self {
        let core = gpu.kind.core();
        let clocks = gpu.cores * gpu.hertz;
        let rates = Rates {
            mult_adds: clocks * gpu.lanes,
            accesses: clocks * core.loads,
            shared: clocks * core.shared,
            bytes: gpu.bytes,
            dispatch: core.dispatch,
            parallel: gpu.cores * gpu.lanes / 64.0,
        };
        Self { rates, core: Core::Parallel { core, gpu: *gpu } }
    }

    /// How many workgroups of a pass a core holds at a time: as many as its registers, its workgroup memory and its
    /// places for invocations allow. At least one, since otherwise there would be no pipeline.
    pub fn resident_workgroups(&self, pass: &Pass) -> u64 {
        let Core::Parallel { core, .. } = self.core else { return 1 };
        let invocations = core.taken(pass);
        let by_registers = core.registers / (u64::from(pass.registers.max(1)) * invocations);
        let by_memory = core.workgroup_memory / u64::from(pass.workgroup_memory.max(1));
        by_registers.min(by_memory).min(core.invocations / invocations).clamp(1, core.workgroups.max(1))
    }

    /// A GPU's rounds. Each core takes workgroups until it can hold no more, and others when these have ended; the last
    /// are fewer. So are all where there is little work. As many of them as there are keep a part of the core's lanes
    /// busy.
    fn rounds(&self, recipe: &Recipe, core: &Multiprocessor, gpu: &Gpu) -> Rounds {
        let lanes = gpu.lanes.max(1.0);
        let cores = (64.0 * self.rates.parallel / lanes).max(1.0);
        let (mut work, mut time, mut count) = (0.0, 0.0, 0.0);
        for pass in recipe.passes.iter().filter(|pass| pass.workgroups > 0) {
            let held = self.resident_workgroups(pass) as f64;
            let busy = |workgroups: f64| (workgroups * pass.independent() / (OVERLAPPED * lanes)).min(1.0);
            // Of the core that has the most.
            let own = (pass.workgroups as f64 / cores).ceil();
            let last = own % held;
            let rounds = (own - last) / busy(held) + if last > 0.0 { last / busy(last) } else { 0.0 };
            // Passes count by what they keep in registers, the nearest to their arithmetic that is known of each.
            let each = pass.independent();
            work += each * pass.workgroups as f64 / cores;
            time += each * rounds * core.taken(pass) as f64 / f64::from(pass.workgroup.max(1));
            count += (own / held).ceil();
        }
        let share = if time > 0.0 { work / time } else { 1.0 };
        Rounds { share: share.clamp(1e-3, 1.0), count }
    }
}

impl Multiprocessor {
    /// The invocations whose places a workgroup takes: whole groups that run in step.
    fn taken(&self, pass: &Pass) -> u64 {
        u64::from(pass.workgroup.max(1)).next_multiple_of(self.in_step.max(1))
    }
}

/// How the workgroups of a recipe come to the cores of a GPU.
struct Rounds {
    /// The share of the device that has work, for all but memory and dispatches.
    share: f64,
    /// How often a core starts anew.
    count: f64,
}

/// Invocations a lane that keep a GPU's arithmetic busy, fitted on an H200. Volkov has shown that many sums make up for
/// few invocations ("Better Performance at Lower Occupancy", GTC 2010).
const OVERLAPPED: f64 = 1.5;

/// Elements that an invocation loads at a time, five quads. A rule.
const IN_FLIGHT: f64 = 20.0;
/// Seconds from such loads to the next ones, mostly from a cache, with a barrier: fitted on an H200.
const LATENCY: f64 = 3.0e-7;

/// What each part of a recipe's work takes, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Multiply-adds, and on a GPU the instructions around them.
    pub mult_adds: f64,
    /// Loads and stores.
    pub accesses: f64,
    /// Workgroup memory.
    pub shared: f64,
    /// Memory traffic.
    pub bytes: f64,
    /// Dispatches.
    pub dispatch: f64,
    /// On a GPU, starting workgroups.
    pub launch: f64,
    /// On a GPU, waiting for loads that need others first.
    pub latency: f64,
    /// The share of the device that has work, for all but memory and dispatches.
    pub occupancy: f64,
    /// Whether the parts but the dispatches overlap.
    pub overlap: bool,
}

impl Parts {
    /// The parts of a recipe's work for a run on a device.
    pub fn new(recipe: &Recipe, run: &Run<'_>, device: &DeviceModel) -> Self {
        let Work { mult_adds, accesses, shared, bytes, .. } = recipe.work;
        // They are beside the loops whose instructions were counted.
        let rounding = match run.elements.output.dtype() {
            DType::F16 => {
                let kept: u64 = recipe.kept().map(|link| run.shapes[link + 1].len()).sum();
                (run.output().len() + kept) as f64 * ROUNDING
            }
            DType::F32 => 0.0,
        };
        let DeviceModel { rates, core } = device;
        let memory = Self {
            bytes: bytes / rates.bytes,
            dispatch: rates.dispatch * recipe.passes.len() as f64,
            ..Self::default()
        };
        match core {
            Core::Parallel { core, gpu } => {
                let Rounds { share: occupancy, count } = device.rounds(recipe, core, gpu);
                let of_passes = |each: fn(&Pass) -> f64| recipe.passes.iter().map(each).sum::<f64>();
                let invocations = of_passes(|pass| pass.workgroups as f64 * f64::from(pass.workgroup));
                let turns = (accesses / invocations.max(1.0) / IN_FLIGHT).max(1.0);
                Self {
                    mult_adds: (mult_adds * per_multiply_add(&recipe.name, run, gpu.kind) + rounding)
                        / rates.mult_adds
                        / occupancy,
                    accesses: accesses / rates.accesses / occupancy,
                    shared: shared / rates.shared / occupancy,
                    launch: of_passes(|pass| pass.workgroups as f64) / gpu.hertz,
                    latency: count * turns * LATENCY,
                    occupancy,
                    overlap: true,
                    ..memory
                }
            }
            Core::Serial { shared: factor } => {
                let occupancy = whole_rounds(recipe, rates.parallel).clamp(1e-3, 1.0);
                Self {
                    mult_adds: (mult_adds + rounding) / rates.mult_adds / occupancy,
                    accesses: accesses / rates.accesses / occupancy,
                    shared: shared / (rates.shared * factor) / occupancy,
                    occupancy,
                    overlap: false,
                    ..memory
                }
            }
        }
    }

    /// The whole. A GPU overlaps arithmetic, workgroup memory, loads and memory traffic, so the slowest of them counts
    /// (the roofline of Williams, Waterman and Patterson, CACM 52(4), 2009), and two thirds of the others. A software
    /// device does one after the other.
    pub fn seconds(&self) -> f64 {
        let parts = [self.mult_adds, self.accesses, self.shared, self.bytes, self.launch, self.latency];
        let (slowest, sum) = (parts.into_iter().fold(0.0, f64::max), parts.iter().sum::<f64>());
        let busy = if self.overlap { slowest + NOT_HIDDEN * (sum - slowest) } else { sum };
        busy + self.dispatch
    }
}

/// Instructions that round a sum to f16, as `tensors.wgsl` does it, in multiply-adds.
const ROUNDING: f64 = 16.0;

/// How much of what a GPU overlaps still shows, fitted on an H200: overlap is far from perfect, since the workgroups of
/// a core do the same at about the same time.
const NOT_HIDDEN: f64 = 2.0 / 3.0;

/// The share of a software device's cores that have work: each takes a workgroup at a time, so in the last round some
/// may have none.
fn whole_rounds(recipe: &Recipe, cores: f64) -> f64 {
    let workgroups: f64 = recipe.passes.iter().map(|pass| pass.workgroups as f64).sum();
    let rounds: f64 = recipe.passes.iter().map(|pass| (pass.workgroups as f64 / cores).ceil()).sum();
    if rounds > 0.0 { workgroups / (rounds * cores) } else { 1.0 }
}
