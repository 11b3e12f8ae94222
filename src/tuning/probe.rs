//! Measures the rates of a device, the ceilings of the cost model, in about two seconds.

use minijinja::{Value, context};

use crate::kernels::elements::Elements;
use crate::kernels::{Operand, Params, Pass, REGISTERS_FOR_ADDRESSES, Wgsl, fold};
use crate::model::error::{Error, Result};
use crate::planner::model::Rates;
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block::block_on;
use crate::runtime::clock::Instant;
use crate::runtime::gpu::GpuConv;
use crate::runtime::threads;
use crate::runtime::timer::{CLOCK_RISES, Timer};

/// Invocations of the probes' workgroups.
const WORKGROUP: u32 = 64;
/// The copied tensor, bytes: more than caches hold, on a GPU and on a software device.
const COPIED: [u64; 2] = [256 << 20, 64 << 20];
/// Workgroups that fill a device, a GPU and a software device.
const FULL: [u64; 2] = [16384, 64];
/// Sums of four lanes that a CPU's registers hold, and multiply-adds of each in a step.
const SUMS: u32 = 3;
const MULTIPLIES: u32 = 32;
/// Copies measured at once.
const COPIES: u32 = 8;
/// Bytes that an invocation copies in a step.
const COPIED_AT_A_TIME: u64 = 16;
/// The most steps of a dispatch.
const MOST_STEPS: u32 = 1 << 20;
/// Elements that the loads walk over: few enough for any first-level cache and any workgroup memory.
const ELEMENTS: u32 = 2048;
/// Loads in a step, as the shader has them.
const LOADS: f64 = 8.0;
/// The least time of a measurement, in seconds.
const LEAST: f64 = if cfg!(target_arch = "wasm32") { 1e-2 } else { 5e-3 };
/// Times that a measurement is repeated; the least time counts.
const REPEATS: usize = 5;

/// Measures the rates of a device. It takes the device for itself.
///
/// # Errors
/// What the device says.
#[cfg(not(target_arch = "wasm32"))]
pub fn probe(gpu: &GpuConv) -> Result<Rates> {
    block_on(probe_async(gpu))
}

/// As [`probe`], awaited.
///
/// # Errors
/// As [`probe`].
pub async fn probe_async(gpu: &GpuConv) -> Result<Rates> {
    let software = usize::from(gpu.caps().is_cpu);
    let caps = gpu.caps();
    let copied = COPIED[software].min(caps.max_storage_binding).min(caps.max_buffer / 2) / 16 * 16;
    let probe = Probe::new(gpu, copied).await?;
    let [arithmetic, loads, shared, copy] = passes(FULL[software]);
    let one = Pass { workgroups: 1, ..arithmetic.clone() };
    if !caps.is_cpu {
        probe.raise_clock(&arithmetic).await?;
    }
    let dispatches = 64;
    let dispatch = probe.least(&Work::Dispatches(&one, 0, dispatches)).await? / f64::from(dispatches);
    // A shader's copies: those of a queue may be another unit's work, and of a fifth of the speed.
    let a_step = u64::from(WORKGROUP) * COPIED_AT_A_TIME;
    // One row of workgroups: a folded grid has more than were asked for.
    let most = copy.workgroups.min(caps.max_workgroups.into()).max(1);
    let steps = (copied / (most * a_step)).max(1);
    let copy = Pass { workgroups: most.min(copied / (steps * a_step)), ..copy };
    let (copied, copies) = match caps.is_cpu {
        true => (copied, Work::Copies(copied)),
        false => (copy.workgroups * steps * a_step, Work::Dispatches(&copy, steps as u32, COPIES)),
    };
    let mult_adds = f64::from(4 * SUMS * MULTIPLIES);
    let full = probe.rate(&arithmetic, mult_adds).await?;
    let parallel = match caps.is_cpu {
        // A software device has this machine's cores, and other programs may be using them just now.
        true => threads::available().unwrap_or(1) as f64,
        false => (full / probe.rate(&one, mult_adds).await?).max(1.0),
    };
    Ok(Rates {
        mult_adds: full,
        accesses: probe.rate(&loads, LOADS).await?,
        shared: probe.rate(&shared, LOADS).await?,
        bytes: 2.0 * copied as f64 * f64::from(COPIES) / probe.least(&copies).await?,
        dispatch,
        parallel,
    })
}

/// What is run: arithmetic, loads from storage, loads from workgroup memory, and copies.
#[doc(hidden)]
pub fn passes(workgroups: u64) -> [Pass; 4] {
    let pass = |file: &'static str, workgroup_memory: u32, own: Value| {
        let values = move || {
            context! {
                WORKGROUP,
                geometry => (),
                elements => Elements::F32.values(),
                layout => "nchw",
                input => "scalar",
                weights => "none",
                output => "scalar",
                residual => "none",
                ..own.clone()
            }
        };
        Pass {
            wgsl: Wgsl::template(file, values),
            operands: vec![Operand::Input, Operand::Output],
            params: Params { batch: 1, ..Params::default() },
            workgroup: WORKGROUP,
            workgroups,
            workgroup_memory,
            sums: 4 * SUMS,
            registers: 4 * SUMS + REGISTERS_FOR_ADDRESSES,
        }
    };
    let arithmetic = context! { SUMS, MULTIPLIES };
    let loads = |in_workgroup_memory: bool| context! { ELEMENTS, in_workgroup_memory };
    [
        pass("probe_arithmetic.wgsl", 0, arithmetic),
        pass("probe_loads.wgsl", 0, loads(false)),
        pass("probe_loads.wgsl", ELEMENTS * 4, loads(true)),
        pass("probe_copy.wgsl", 0, context! {}),
    ]
}

/// What all probes share.
struct Probe<'a> {
    gpu: &'a GpuConv,
    timer: Timer,
    input: wgpu::Buffer,
    output: wgpu::Buffer,
}

/// What is measured.
enum Work<'a> {
    /// A pass of some steps, dispatched some times.
    Dispatches(&'a Pass, u32, u32),
    /// Copies of some bytes.
    Copies(u64),
}

impl<'a> Probe<'a> {
    async fn new(gpu: &'a GpuConv, bytes: u64) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        Ok(Self {
            gpu,
            timer: Timer::new_async(gpu).await?,
            input: gpu.shared().buffer("probe", bytes, usage).await?,
            output: gpu.shared().buffer("probe", bytes, usage).await?,
        })
    }

    /// Has a GPU that rested raise its clock.
    async fn raise_clock(&self, work: &Pass) -> Result<()> {
        let start = Instant::now();
        let mut steps = 16;
        while start.elapsed() < CLOCK_RISES {
            if self.dispatches(work, steps, 1).await? < LEAST && steps < MOST_STEPS {
                steps *= 2;
            }
        }
        Ok(())
    }

    /// How much of something is done a second, if each invocation does `amount` a step.
    async fn rate(&self, pass: &Pass, amount: f64) -> Result<f64> {
        let mut steps = 16;
        while steps < MOST_STEPS && self.dispatches(pass, steps, 1).await? < LEAST {
            steps *= 2;
        }
        let invocations = (pass.workgroups * u64::from(WORKGROUP)) as f64;
        Ok(amount * f64::from(steps) * invocations / self.least(&Work::Dispatches(pass, steps, 1)).await?)
    }

    /// The least of some measurements.
    async fn least(&self, work: &Work<'_>) -> Result<f64> {
        // The first run compiles, and clears the buffers.
        self.seconds(work).await?;
        let mut least = f64::INFINITY;
        for _ in 0..REPEATS {
            least = least.min(self.seconds(work).await?);
        }
        // A clock too coarse for it gives no time, and a rate must be finite.
        Ok(least.max(1e-9))
    }

    async fn seconds(&self, work: &Work<'_>) -> Result<f64> {
        match *work {
            Work::Dispatches(pass, steps, dispatches) => self.dispatches(pass, steps, dispatches).await,
            Work::Copies(bytes) => self.copies(bytes).await,
        }
    }

    /// The seconds of copies from buffer to buffer, on the host's clock: no compute pass does them.
    async fn copies(&self, bytes: u64) -> Result<f64> {
        let device = self.gpu.shared();
        let commands = device.scoped(|| {
            let mut encoder = device.device.create_command_encoder(&Default::default());
            (0..COPIES).for_each(|_| encoder.copy_buffer_to_buffer(&self.input, 0, &self.output, 0, bytes));
            encoder.finish()
        });
        let commands = commands.await?;
        let start = Instant::now();
        device.scoped(|| device.queue.submit([commands])).await?;
        device.wait().await?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The seconds of `count` dispatches.
    async fn dispatches(&self, pass: &Pass, work: u32, dispatches: u32) -> Result<f64> {
        let device = self.gpu.shared();
        let pipeline = device.pipeline("probe", pass).await?;
        let limit = device.caps.max_workgroups;
        let [x, y, z] = fold(pass.workgroups, limit).ok_or_else(|| Error::TooLarge {
            what: "the grid of a probe".into(),
            needed: pass.workgroups,
            limit: u64::from(limit).pow(2),
        })?;
        let params = Params { work, ..pass.params };
        let params = device.buffer_with("parameters", bytemuck::bytes_of(&params), wgpu::BufferUsages::UNIFORM).await?;
        let entry = |binding: usize, buffer| {
            let resource = wgpu::Buffer::as_entire_binding(buffer);
            wgpu::BindGroupEntry { binding: binding as u32, resource }
        };
        let group = device.scoped(|| {
            device.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("probe"),
                layout: &pipeline.layout,
                entries: &[entry(0, &params), entry(1, &self.input), entry(2, &self.output)],
            })
        });
        let group = group.await?;
        let dispatch = |pass: &mut wgpu::ComputePass<'_>| {
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &group, &[]);
            (0..dispatches).for_each(|_| pass.dispatch_workgroups(x, y, z));
        };
        self.timer.pass(dispatch).await
    }
}
