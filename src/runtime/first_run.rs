//! Warm-up on software devices, which compile at the first dispatch: dispatch each pipeline once with no work.

use std::cmp::Reverse;
use std::sync::Mutex;
use std::time::Duration;

use crate::kernels::{Params, Pass};
use crate::model::error::Result;
use crate::runtime::block::block_on;
use crate::runtime::clock::Instant;
use crate::runtime::device::lock;
use crate::runtime::gpu::GpuConv;
use crate::runtime::threads;

/// More devices than these only wait for each other.
const MOST_HELPERS: usize = 7;
/// How long Mesa may take to write what it compiled, on a thread of its own.
const WRITING: Duration = Duration::from_millis(5);
/// Bytes of what a shader binds; without work it touches a few elements.
const BYTES: u64 = 4096;

/// Runs each pass once on a device. A software device compiles one at a time, but several devices compile side by side,
/// and what one has compiled the others find in the driver's cache on the disk. So helpers, devices of their own, take
/// turns with it. Those that take longest to compile go first, so that no device waits for them at the end; which these
/// are is guessed from their texts' lengths.
pub fn dispatch_once(gpu: &GpuConv, mut passes: Vec<(String, Pass)>) -> Result<()> {
    passes.sort_by_cached_key(|(_, pass)| Reverse(pass.wgsl.text().map_or(0, |text| text.len())));
    // When some device has run it; locked while one does.
    let turns: Vec<_> = passes.iter().map(|_| Mutex::new(None)).collect();
    let help = || {
        let Some(helper) = block_on(twin(gpu)) else { return };
        for (turn, (name, pass)) in turns.iter().zip(&passes) {
            if let Ok(mut done) = turn.try_lock()
                && done.is_none()
            {
                // An error shows on the device itself.
                *done = block_on(run(&helper, name, pass)).is_ok().then(Instant::now);
            }
        }
    };
    let helpers = threads::available().unwrap_or(1).min(passes.len()).saturating_sub(1);
    threads::beside(helpers.min(MOST_HELPERS), help, || {
        let mut left = Vec::new();
        for (turn, (name, pass)) in turns.iter().zip(&passes) {
            match turn.try_lock() {
                Ok(mut done) if done.is_none() => {
                    block_on(run(gpu, name, pass))?;
                    *done = Some(Instant::now());
                }
                _ => left.push((turn, name, pass)),
            }
        }
        if let Some(last) = left.iter().filter_map(|(turn, ..)| *lock(turn)).max() {
            threads::sleep(WRITING.saturating_sub(last.elapsed()));
        }
        left.into_iter().try_for_each(|(_, name, pass)| block_on(run(gpu, name, pass)))
    })
}

/// Another device of the same adapter.
async fn twin(gpu: &GpuConv) -> Option<GpuConv> {
    let device = gpu.device();
    let info = device.adapter_info();
    let adapter = GpuConv::adapters().await.into_iter().find(|adapter| adapter.get_info() == info)?;
    let (features, limits) = (device.features(), device.limits());
    let twin = match gpu.is_robust() {
        true => GpuConv::from_adapter_with(&adapter, features, limits).await,
        // SAFETY: only this module has the device, and runs only passes of the library on it.
        false => unsafe { GpuConv::from_adapter_without_robustness(&adapter, features, limits) }.await,
    };
    let twin = twin.ok()?;
    // It compiles the same shaders.
    Some(if gpu.shared().is_checked { twin.checked() } else { twin })
}

/// Runs a workgroup of a pass that finds no work.
async fn run(gpu: &GpuConv, name: &str, pass: &Pass) -> Result<()> {
    let device = gpu.shared();
    let pipeline = device.pipeline(name, pass).await?;
    // Ones, so that nothing is divided by zero.
    let params = Params { work: 0, ..bytemuck::cast([1u32; size_of::<Params>() / 4]) };
    let params = device.buffer_with("parameters", bytemuck::bytes_of(&params), wgpu::BufferUsages::UNIFORM).await?;
    let mut operands = Vec::new();
    for _ in &pass.operands {
        operands.push(device.buffer("warm-up", BYTES, wgpu::BufferUsages::STORAGE).await?);
    }
    let submitted = device.scoped(|| {
        let buffers = (0..).zip([&params].into_iter().chain(&operands));
        let entries =
            buffers.map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() });
        let group = device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(name),
            layout: &pipeline.layout,
            entries: &entries.collect::<Vec<_>>(),
        });
        let mut encoder = device.device.create_command_encoder(&Default::default());
        let mut compute = encoder.begin_compute_pass(&Default::default());
        compute.set_pipeline(&pipeline.pipeline);
        compute.set_bind_group(0, &group, &[]);
        compute.dispatch_workgroups(1, 1, 1);
        drop(compute);
        device.queue.submit([encoder.finish()]);
    });
    submitted.await?;
    device.wait().await
}
