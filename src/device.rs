//! The device and what is shared by everything on it: error scopes, compiled pipelines, copies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::caps::Caps;
use crate::error::{Error, Result};
use crate::kernels::Pass;
use crate::pipelines::PipelineCache;
use crate::profile::Profile;

/// A device with its caches.
pub struct Device {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub caps: Caps,
    /// A number of its own, for its tensors to carry.
    pub id: u64,
    /// What was measured on it; plans made from now on go by it.
    profile: Mutex<Arc<Profile>>,
    cache: PipelineCache,
    lost: Arc<OnceLock<String>>,
    /// A lock for each shader, so that threads compile different ones at the same time, but each once.
    pipelines: Mutex<HashMap<String, Arc<PipelineSlot>>>,
    /// The buffer of the last read-back, for the next one.
    readback: Mutex<Option<wgpu::Buffer>>,
}

/// A pipeline, once it is compiled.
type PipelineSlot = Mutex<Option<Arc<Pipeline>>>;

/// A compiled shader and the layout of its bindings.
pub struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

impl Device {
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (caps, id) = (Caps::of(&device), NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            device,
            queue,
            caps,
            id,
            profile: Mutex::default(),
            cache: PipelineCache::default(),
            lost: Arc::default(),
            pipelines: Mutex::default(),
            readback: Mutex::default(),
        }
    }

    /// Notes a loss of the device, and logs errors that no call waits for, in place of wgpu's panic. Only for a
    /// device of our own: a caller's device keeps the caller's handlers.
    pub fn watch(&self) {
        let lost = self.lost.clone();
        self.device.set_device_lost_callback(move |reason, message| {
            let _ = lost.set(format!("{reason:?}: {message}"));
        });
        self.device.on_uncaptured_error(Arc::new(|error| log::error!("uncaptured device error: {error}")));
    }

    /// An error if the device is known to be lost.
    pub fn alive(&self) -> Result<()> {
        match self.lost.get() {
            Some(message) => Err(Error::DeviceLost(message.clone())),
            None => Ok(()),
        }
    }

    /// Runs calls to the device and turns the errors that they raise into ours.
    pub fn scoped<T>(&self, calls: impl FnOnce() -> T) -> Result<T> {
        self.alive()?;
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let value = calls();
        let mut first = None;
        // Scopes end in the reverse order. Their futures are ready at once on native devices.
        for scope in scopes.into_iter().rev() {
            first = pollster::block_on(scope.pop()).or(first);
        }
        match first {
            None => Ok(value),
            Some(error) => Err(self.error(error)),
        }
    }

    fn error(&self, error: wgpu::Error) -> Error {
        if let Err(lost) = self.alive() {
            return lost;
        }
        match error {
            wgpu::Error::OutOfMemory { source } => Error::OutOfMemory(source.to_string()),
            wgpu::Error::Internal { description, .. } => Error::Internal(description),
            // wgpu reports calls on a lost device as validation errors.
            wgpu::Error::Validation { description, .. } if description.contains("is lost") => {
                Error::DeviceLost(description)
            }
            wgpu::Error::Validation { description, .. } => Error::Validation(description),
        }
    }

    /// A buffer of at least four bytes, since none can be bound that is empty.
    pub fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.check_size(label, bytes)?;
        let size = bytes.max(4).next_multiple_of(4);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        self.scoped(|| self.device.create_buffer(&descriptor))
    }

    /// A buffer that holds some bytes from the start.
    pub fn buffer_with(&self, label: &str, bytes: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.check_size(label, bytes.len() as u64)?;
        let size = (bytes.len() as u64).max(4).next_multiple_of(4);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: true };
        self.scoped(|| {
            let buffer = self.device.create_buffer(&descriptor);
            // Without memory there is no range to map; the error scope has the reason.
            if !bytes.is_empty()
                && let Ok(mut view) = buffer.get_mapped_range_mut(..bytes.len() as u64)
            {
                view.copy_from_slice(bytes);
            }
            buffer.unmap();
            buffer
        })
    }

    /// The driver's cache of pipelines, made at its first use; none where the device has none.
    pub fn pipeline_cache(&self) -> Option<Arc<wgpu::PipelineCache>> {
        let mut cache = lock(&self.cache);
        if cache.is_none() && self.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            // SAFETY: there is no data that could be wrong.
            *cache = unsafe { self.make_cache(None) }.ok();
        }
        cache.clone()
    }

    /// Replaces the cache of pipelines by one with data. Whether the device has one.
    ///
    /// # Safety
    /// The data must be what [`wgpu::PipelineCache::get_data`] gave on such a device.
    pub unsafe fn load_pipeline_cache(&self, data: &[u8]) -> Result<bool> {
        if !self.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Ok(false);
        }
        // SAFETY: as the caller says.
        let loaded = unsafe { self.make_cache(Some(data)) }?;
        *lock(&self.cache) = Some(loaded);
        Ok(true)
    }

    /// # Safety
    /// As [`Device::load_pipeline_cache`].
    unsafe fn make_cache(&self, data: Option<&[u8]>) -> Result<Arc<wgpu::PipelineCache>> {
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("gpuconv"), data, fallback: true };
        // SAFETY: as the caller says; what the driver itself finds wrong it starts without.
        self.scoped(|| Arc::new(unsafe { self.device.create_pipeline_cache(&descriptor) }))
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

    /// The compiled shader of a pass, from the cache if it was compiled before.
    pub fn pipeline(&self, name: &str, pass: &Pass) -> Result<Arc<Pipeline>> {
        let entry = lock(&self.pipelines).entry(pass.wgsl.clone()).or_default().clone();
        let mut entry = lock(&entry);
        if let Some(pipeline) = &*entry {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(self.scoped(|| self.compile(name, pass))?);
        *entry = Some(pipeline.clone());
        Ok(pipeline)
    }

    fn compile(&self, name: &str, pass: &Pass) -> Pipeline {
        let entry = |binding: usize, ty| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
        for (index, operand) in pass.operands.iter().enumerate() {
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
        let cache = self.pipeline_cache();
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &self.shader(name, &pass.wgsl),
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every element of workgroup memory is written before it is read.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: cache.as_deref(),
        });
        Pipeline { pipeline, layout }
    }

    /// A shader of ours, compiled without wgpu's run-time checks, which cost up to half of a kernel's speed.
    /// `GPUCONV_CHECKED=1` in the environment brings them back.
    fn shader(&self, name: &str, wgsl: &str) -> wgpu::ShaderModule {
        let source = wgpu::ShaderSource::Wgsl(wgsl.into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(name), source };
        if std::env::var_os("GPUCONV_CHECKED").is_some_and(|value| value == "1") {
            return self.device.create_shader_module(descriptor);
        }
        // SAFETY: The text is this crate's own; callers choose sizes, never code. Every loop counts a u32 up
        // in fixed steps to a bound that is a constant or made of parameters, below 2^31, so it ends and does not wrap.
        // Every index is below the bound of its buffer: positions are clamped to, or guarded by, the extents in
        // the parameter block, and a tensor is bound only if it has those extents. Where two or four elements are one
        // load, the host has seen that rows or planes are multiples of them, so none is cut by a buffer's end. No
        // divisor is zero: they are constants, or extents, channels, panels or tile counts of at least one.
        unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }

    /// Waits until all submitted work is done.
    pub fn wait(&self) -> Result<()> {
        self.alive()?;
        match self.device.poll(wgpu::PollType::wait_indefinitely()) {
            Ok(_) => self.alive(),
            Err(error) => Err(Error::Internal(error.to_string())),
        }
    }

    /// Takes the kept read-back buffer if it is large enough, else makes one.
    pub fn take_readback(&self, bytes: u64) -> Result<wgpu::Buffer> {
        let kept = lock(&self.readback).take().filter(|buffer| buffer.size() >= bytes);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        kept.map_or_else(|| self.buffer("read-back", bytes, usage), Ok)
    }

    /// Keeps a read-back buffer, unmapped, for the next time.
    pub fn keep_readback(&self, buffer: wgpu::Buffer) {
        lock(&self.readback).replace(buffer);
    }
}

/// Locks a mutex; what a panicking thread left behind is whole, for nothing in here panics half-way.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
