//! The device and what is shared by everything on it: buffers, compiled pipelines, what was measured.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_intrusive::channel::shared::{OneshotReceiver, oneshot_channel};

use crate::kernels::{Operand, Pass};
use crate::model::caps::Caps;
use crate::model::error::{Error, Result};
use crate::planner::Refused;
use crate::planner::profile::Profile;
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::block;
#[cfg(target_arch = "wasm32")]
use crate::runtime::browser;
use crate::runtime::identity::Identity;
use crate::runtime::lru::{Slots, get_or_make};
use crate::runtime::memory::Memory;
#[cfg(not(target_arch = "wasm32"))]
use crate::runtime::pipeline_cache::PipelineCache;
use crate::runtime::readback::Target;
use crate::runtime::state::Own;

/// A device with its caches.
pub struct Device {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub caps: Caps,
    /// Whether its shaders are compiled with wgpu's run-time checks.
    pub is_checked: bool,
    /// Whether the device checks accesses to buffers.
    pub is_robust: bool,
    /// What its tensors know it by.
    pub identity: Identity,
    /// What was measured on it; plans made from now on go by it.
    profile: Mutex<Arc<Profile>>,
    #[cfg(not(target_arch = "wasm32"))]
    pub cache: PipelineCache,
    pub own: OnceLock<Own>,
    pipelines: Mutex<Slots<Arc<str>, Pipeline>>,
    /// Shaders that the driver did not compile; plans made from now on do without.
    refused: Mutex<Arc<Refused>>,
    /// What its layers share and keep.
    pub memory: Memory,
    /// The buffer of the last read-back, for the next one.
    readback: Mutex<Option<Target>>,
}

/// Shaders that stay compiled though no plan uses them any more.
const MOST_IDLE_PIPELINES: usize = 256;

/// Whether the environment asks for every check that there is.
pub fn is_checked_by_environment() -> bool {
    std::env::var_os("GPUCONV_CHECKED").is_some_and(|value| value == "1")
}

/// A compiled shader and the layout of its bindings.
pub struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

impl Device {
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let (caps, identity) = (Caps::of(&device), Identity::of(&device));
        Self {
            device,
            queue,
            caps,
            is_checked: is_checked_by_environment(),
            is_robust: true,
            identity,
            profile: Mutex::default(),
            #[cfg(not(target_arch = "wasm32"))]
            cache: PipelineCache::default(),
            own: OnceLock::new(),
            pipelines: Mutex::new(Slots::new(MOST_IDLE_PIPELINES)),
            refused: Mutex::default(),
            memory: Memory::default(),
            readback: Mutex::default(),
        }
    }

    /// Notes a loss of the device. In a browser others are told as well; elsewhere there is one callback.
    pub fn watch_loss(&self) {
        let lost = self.identity.lost().clone();
        self.device.set_device_lost_callback(move |reason, message| {
            let _ = lost.set(format!("{reason:?}: {message}"));
        });
    }

    /// Notes a loss of the device, and logs errors that no call waits for; wgpu would panic. Only for a
    /// device of our own: a caller's device keeps the caller's handlers. A browser reports such errors by itself, and
    /// wgpu's handler there panics at internal ones (gfx-rs/wgpu issue 9914).
    pub fn watch(&self) {
        self.watch_loss();
        #[cfg(not(target_arch = "wasm32"))]
        self.device.on_uncaptured_error(Arc::new(|error| log::error!("uncaptured device error: {error}")));
    }

    /// A buffer of at least four bytes, since none can be bound that is empty.
    pub async fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.check_size(label, bytes)?;
        let size = bytes.max(4).next_multiple_of(4);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let made = self.with_room(|| self.scoped(|| self.device.create_buffer(&descriptor))).await;
        made.map_err(|error| for_buffer(error, label, size))
    }

    /// A buffer that holds some bytes from the start.
    #[cfg(target_arch = "wasm32")]
    pub async fn buffer_with(&self, label: &str, bytes: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        // A browser throws an exception if it cannot map a new buffer, by which wgpu panics.
        let buffer = self.buffer(label, bytes.len() as u64, usage | wgpu::BufferUsages::COPY_DST).await?;
        let whole = bytes.len() / 4 * 4;
        self.queue.write_buffer(&buffer, 0, &bytes[..whole]);
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue.write_buffer(&buffer, whole as u64, &last);
        }
        Ok(buffer)
    }

    /// A buffer that holds some bytes from the start.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn buffer_with(&self, label: &str, bytes: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.check_size(label, bytes.len() as u64)?;
        let bytes = &*in_whole_words(bytes.into());
        let size = (bytes.len() as u64).max(4);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: true };
        let make = || {
            let buffer = self.device.create_buffer(&descriptor);
            // Without memory there is no range to map; the error scope has the reason.
            if !bytes.is_empty()
                && let Ok(mut view) = buffer.get_mapped_range_mut(..bytes.len() as u64)
            {
                view.copy_from_slice(bytes);
            }
            buffer.unmap();
            buffer
        };
        self.with_room(|| self.scoped(make)).await.map_err(|error| for_buffer(error, label, size))
    }

    /// What was measured on the device.
    pub fn profile(&self) -> Arc<Profile> {
        lock(&self.profile).clone()
    }

    /// Replaces what was measured on the device.
    pub fn set_profile(&self, profile: Profile) {
        *lock(&self.profile) = Arc::new(profile);
    }

    fn check_size(&self, label: &str, bytes: u64) -> Result<()> {
        let limit = self.caps.max_buffer;
        if bytes > limit {
            return Err(Error::TooLarge { what: format!("the {label} buffer"), needed: bytes, limit });
        }
        Ok(())
    }

    /// The compiled shader of a pass, from the cache if it was compiled before. A shader that the driver refuses is
    /// noted as such.
    pub async fn pipeline(&self, name: &str, pass: &Pass) -> Result<Arc<Pipeline>> {
        let wgsl = pass.wgsl.text()?;
        let place = lock(&self.pipelines).place(wgsl.clone());
        let make = async {
            #[cfg(not(target_arch = "wasm32"))]
            let cache = self.pipeline_cache().await;
            #[cfg(target_arch = "wasm32")]
            let cache = None::<Arc<wgpu::PipelineCache>>;
            let compiled = self.scoped(|| self.compile(name, &wgsl, &pass.operands, cache.as_deref())).await;
            match &compiled {
                Ok(_) => log::debug!("compiled {name}"),
                Err(error @ (Error::Driver(_) | Error::Validation(_))) => {
                    log::warn!("{name} is left out from now on: {error}");
                    Arc::make_mut(&mut lock(&self.refused)).insert(name, wgsl.clone());
                }
                Err(_) => {}
            }
            compiled
        };
        get_or_make(&place, make).await
    }

    /// The shaders that the driver refused so far.
    pub fn refused(&self) -> Arc<Refused> {
        lock(&self.refused).clone()
    }

    fn compile(&self, name: &str, wgsl: &str, operands: &[Operand], cache: Option<&wgpu::PipelineCache>) -> Pipeline {
        let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
        for (index, operand) in operands.iter().enumerate() {
            entries.push(entry(index + 1, wgpu::BufferBindingType::Storage { read_only: !operand.is_written() }));
        }
        let layout = self
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &self.shader(name, wgsl),
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every element of workgroup memory is written before it is read.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache,
        });
        Pipeline { pipeline, layout }
    }

    /// A shader of ours, compiled without wgpu's run-time checks, which cost up to half of a kernel's speed, unless the
    /// device is a checked one.
    fn shader(&self, name: &str, wgsl: &str) -> wgpu::ShaderModule {
        #[cfg(target_arch = "wasm32")]
        let wgsl = browser::declared(wgsl);
        let source = wgpu::ShaderSource::Wgsl(wgsl.into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(name), source };
        if self.is_checked {
            return self.device.create_shader_module(descriptor);
        }
        // SAFETY: The text is this crate's own, and so are the parameters and the grid that it runs with: callers
        // choose sizes and names of recipes, never code. Every loop counts a u32 up in fixed steps of at least one to a
        // bound that is a constant or made of parameters and below 2^31 (a tensor or weight of more elements is
        // refused), so it ends and does not wrap. Every index is below the bound of its buffer: positions are clamped
        // to, or guarded by, the extents in the parameter block, and a tensor is bound only if it has those extents. A
        // row or column in the padding is an i32 that was subtracted from; as a u32 it is at or past the extent, also
        // where it wrapped, and then `select` puts 0, an index that is there, instead of what was computed from it. A
        // copy's box lies in what is bound, but for what is not read. Weights and workspace are as long as their
        // packing and their recipe say, panels and steps of k filled up. Where two or four elements are one load, the
        // host has seen that rows or planes are multiples of them, so none is cut by a buffer's end; the word of a
        // single half is bound whole. No divisor is zero: they are constants, or extents, channels, panels or tile
        // counts of at least one, and no grid is run for an empty batch.
        unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }

    /// Waits until all submitted work is done.
    pub async fn wait(&self) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if block::is_blocked() {
            return self.poll_until_done();
        }
        self.alive()?;
        let (sender, done) = oneshot_channel();
        self.queue.on_submitted_work_done(move || {
            let _ = sender.send(());
        });
        self.told(done).await?;
        self.check_lost()
    }

    /// Waits for a callback of the device, and gives its argument, or `None` if the callback was dropped. A browser
    /// runs callbacks by itself, and is nudged to do it soon. On native devices something must poll the device: this
    /// does if its thread is blocked anyway, otherwise the program must.
    pub async fn told<T>(&self, callback: OneshotReceiver<T>) -> Result<Option<T>> {
        #[cfg(not(target_arch = "wasm32"))]
        if block::is_blocked() {
            self.poll_until_done()?;
        }
        #[cfg(target_arch = "wasm32")]
        let _nudges = browser::Nudges::new(&self.queue);
        Ok(callback.receive().await)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn poll_until_done(&self) -> Result<()> {
        self.alive()?;
        // wgpu has no error for a device that is lost while it is waited for: it panics.
        let poll = || self.device.poll(wgpu::PollType::wait_indefinitely());
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)) {
            Ok(Ok(_)) => self.check_lost(),
            Ok(Err(error)) => Err(Error::Driver(error.to_string())),
            Err(_) => self.note_lost("the driver gave it up while it was waited for"),
        }
    }

    /// Takes the kept read-back buffer if it is large enough, else makes one.
    pub async fn take_target(&self, bytes: u64) -> Result<Target> {
        let kept = lock(&self.readback).take();
        if let Some(target) = kept.filter(|target| target.buffer.size() >= bytes) {
            return Ok(target);
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        Ok(Target { buffer: self.buffer("read-back", bytes, usage).await?, mark: 0 })
    }

    /// Keeps a read-back buffer for the next time: one that is mapped, and whose values were read. Nothing that was
    /// recorded or asked for is still to come to it.
    pub fn keep_target(&self, target: Target) {
        let unmapped = pin!(self.scoped(|| target.buffer.unmap())).poll(&mut Context::from_waker(Waker::noop()));
        // A browser says later whether it worked, and waiting for that takes longer than many a dispatch. Nothing is
        // copied to a buffer that is still mapped, so that the next read-back fails.
        if !matches!(unmapped, Poll::Ready(Err(_))) {
            lock(&self.readback).replace(target);
        }
    }

    /// Drops the kept read-back buffer.
    pub fn drop_readback(&self) {
        lock(&self.readback).take();
    }
}

/// An error, with the buffer that there was no memory for.
fn for_buffer(error: Error, label: &str, bytes: u64) -> Error {
    match error {
        Error::OutOfMemory(reason) => Error::OutOfMemory(format!("the {label} buffer of {bytes} bytes: {reason}")),
        other => other,
    }
}

/// Bytes, with zeros up to the end of the last word of four: wgpu writes whole words.
pub fn in_whole_words(mut bytes: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let whole = bytes.len().next_multiple_of(4);
    if whole > bytes.len() {
        bytes.to_mut().resize(whole, 0);
    }
    bytes
}

/// Locks a mutex; what a panicking thread left behind is whole, for nothing in here panics half-way.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block::block_on;

    /// What a shader reads at index 5 of an array of two, which has an array of nines behind it.
    fn read_past_the_end(device: &Device) -> f32 {
        const WGSL: &str = "
            @group(0) @binding(0) var<storage, read_write> y: array<f32>;
            struct Arrays { two: array<f32, 2>, nines: array<f32, 6> }
            var<workgroup> arrays: Arrays;
            @compute @workgroup_size(1) fn main() {
                arrays.two = array<f32, 2>(1.0, 2.0);
                arrays.nines = array<f32, 6>(9.0, 9.0, 9.0, 9.0, 9.0, 9.0);
                let five = u32(y[0]);
                y[1] = arrays.two[five];
            }";
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let y = block_on(device.buffer_with("y", bytemuck::bytes_of(&[5.0f32, 0.0]), usage)).unwrap();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let read = block_on(device.buffer("read", 8, usage)).unwrap();
        let pipeline = device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &device.shader("past the end", WGSL),
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let group = device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: y.as_entire_binding() }],
        });
        let mut encoder = device.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        encoder.copy_buffer_to_buffer(&y, 0, &read, 0, 8);
        device.queue.submit([encoder.finish()]);
        read.map_async(wgpu::MapMode::Read, .., |_| {});
        block_on(device.wait()).unwrap();
        let values: [f32; 2] = *bytemuck::from_bytes(&read.get_mapped_range(..).unwrap());
        values[1]
    }

    #[test]
    fn a_checked_devices_shaders_read_nothing_past_an_end() {
        let gpu = crate::GpuConv::new().unwrap();
        let checked = gpu.checked();
        // wgpu's check takes the last element.
        assert_eq!(read_past_the_end(checked.shared()), 2.0);
        let again = checked.with_caps(|caps| caps);
        assert_eq!(read_past_the_end(again.shared()), 2.0);
    }
}
