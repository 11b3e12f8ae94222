//! The device and what is shared by everything on it: error scopes, compiled pipelines, copies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wgpu::wgc::device::DeviceError;
use wgpu::wgc::device::queue::QueueWriteError;
use wgpu::wgc::error::ContextError;

use crate::kernels::{Operand, Pass};
use crate::model::caps::Caps;
use crate::model::error::{Error, Result};
use crate::planner::Refused;
use crate::planner::profile::Profile;
use crate::runtime::identity::Identity;
use crate::runtime::lru::{Slots, get_or_make};
use crate::runtime::memory::Memory;
use crate::runtime::pipelines::PipelineCache;
use crate::runtime::readback::Target;

/// A device with its caches.
pub struct Device {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub caps: Caps,
    /// Whether its shaders are compiled with wgpu's run-time checks.
    pub is_checked: bool,
    /// What its tensors know it by.
    pub identity: Identity,
    /// What was measured on it; plans made from now on go by it.
    profile: Mutex<Arc<Profile>>,
    cache: PipelineCache,
    own: OnceLock<Own>,
    pipelines: Mutex<Slots<Arc<str>, Pipeline>>,
    /// Shaders that the driver did not compile; plans made from now on do without.
    refused: Mutex<Arc<Refused>>,
    /// What its layers share and keep.
    pub memory: Memory,
    /// The buffer of the last read-back, for the next one.
    readback: Mutex<Option<Target>>,
}

/// A small buffer of the library's own that is there as long as the device is.
pub struct Own {
    /// The words 1 and 2, to copy from and for nothing else.
    pub marks: wgpu::Buffer,
    /// What wgpu says of a range that no buffer has.
    no_range: String,
}

/// Shaders that stay compiled though no plan uses them any more.
const MOST_IDLE_PIPELINES: usize = 256;

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
            is_checked: std::env::var_os("GPUCONV_CHECKED").is_some_and(|value| value == "1"),
            identity,
            profile: Mutex::default(),
            cache: PipelineCache::default(),
            own: OnceLock::new(),
            pipelines: Mutex::new(Slots::new(MOST_IDLE_PIPELINES)),
            refused: Mutex::default(),
            memory: Memory::default(),
            readback: Mutex::default(),
        }
    }

    /// Notes a loss of the device, and logs errors that no call waits for; wgpu would panic. Only for a
    /// device of our own: a caller's device keeps the caller's handlers.
    pub fn watch(&self) {
        let lost = self.identity.lost().clone();
        self.device.set_device_lost_callback(move |reason, message| {
            let _ = lost.set(format!("{reason:?}: {message}"));
        });
        self.device.on_uncaptured_error(Arc::new(|error| log::error!("uncaptured device error: {error}")));
    }

    /// An error if the device is known to be lost.
    pub fn alive(&self) -> Result<()> {
        match self.identity.lost().get() {
            Some(message) => Err(Error::DeviceLost(message.clone())),
            None => Ok(()),
        }
    }

    /// Runs calls to the device and turns the errors that they raise into ours.
    pub fn scoped<T>(&self, calls: impl FnOnce() -> T) -> Result<T> {
        self.alive()?;
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
        let (value, error) = self.caught(filters, calls);
        // What a lost device says to calls is no news of them.
        self.check_lost()?;
        error.map_or(Ok(value), |error| Err(raised(error)))
    }

    /// Runs calls in error scopes. Of several errors the first scope's come first.
    fn caught<T, const N: usize>(
        &self,
        filters: [wgpu::ErrorFilter; N],
        calls: impl FnOnce() -> T,
    ) -> (T, Option<wgpu::Error>) {
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let value = calls();
        let mut first = None;
        // Scopes end in the reverse order. Their futures are ready at once on native devices.
        for scope in scopes.into_iter().rev() {
            first = pollster::block_on(scope.pop()).or(first);
        }
        (value, first)
    }

    /// Asks whether the device is lost. wgpu has no query for it: calls on a lost device raise no error, its
    /// callback comes late, and a device of the caller's has the caller's. But a wrong call is refused, unless the
    /// device is lost.
    pub fn check_lost(&self) -> Result<()> {
        self.alive()?;
        match self.own() {
            // Nothing may be written into it.
            Ok(own) if self.refusal(&own.marks).is_none() => {
                self.note_lost("it was destroyed, or its driver gave it up")
            }
            Err(error @ Error::DeviceLost(_)) => Err(error),
            // A device that has no memory for it is there.
            _ => Ok(()),
        }
    }

    fn note_lost<T>(&self, message: &str) -> Result<T> {
        Err(Error::DeviceLost(self.identity.lost().get_or_init(|| message.into()).clone()))
    }

    /// The library's own buffer, made at its first use.
    pub fn own(&self) -> Result<&Own> {
        if let Some(own) = self.own.get() {
            return Ok(own);
        }
        let usage = wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: Some("marks"), size: 8, usage, mapped_at_creation: true };
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
        let (own, error) = self.caught(filters, || {
            let marks = self.device.create_buffer(&descriptor);
            // There is no range of a buffer that could not be made.
            marks.get_mapped_range_mut(..).ok()?.copy_from_slice(bytemuck::bytes_of(&[1u32, 2]));
            marks.unmap();
            let no_range = impossible_range(&marks)?;
            Some(Own { marks, no_range })
        });
        match (own, error) {
            (_, Some(error)) => Err(raised(error)),
            (Some(own), None) => Ok(self.own.get_or_init(|| own)),
            (None, None) => self.note_lost("it was lost before it was used"),
        }
    }

    /// What wgpu has against a write into a buffer, asked by one of no bytes: wgpu checks that, and does nothing. Of a
    /// lost device it has nothing to say.
    fn refusal(&self, buffer: &wgpu::Buffer) -> Option<wgpu::Error> {
        self.caught([wgpu::ErrorFilter::Validation], || self.queue.write_buffer(buffer, 0, &[])).1
    }

    /// Whether a buffer is another device's, of the same instance.
    ///
    /// # Errors
    /// [`Error::Validation`] if it could not be made.
    pub fn is_foreign(&self, buffer: &wgpu::Buffer) -> Result<bool> {
        let Some(wgpu::Error::Validation { source, description }) = self.refusal(buffer) else { return Ok(false) };
        let context = source.downcast_ref::<ContextError>();
        match context.and_then(|context| context.source.downcast_ref()) {
            Some(QueueWriteError::Queue(DeviceError::DeviceMismatch(_))) => Ok(true),
            Some(QueueWriteError::InvalidResource(_)) => Err(Error::Validation(description)),
            // Into a tensor that is only read nothing may be written.
            _ => Ok(false),
        }
    }

    /// Whether a buffer was destroyed.
    pub fn is_destroyed(&self, buffer: &wgpu::Buffer) -> bool {
        // wgpu says it in words only, but it says something else of a buffer that is there.
        self.own().is_ok_and(|own| impossible_range(buffer).is_some_and(|words| words != own.no_range))
    }

    /// A buffer of at least four bytes, since none can be bound that is empty.
    pub fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.check_size(label, bytes)?;
        let size = bytes.max(4).next_multiple_of(4);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        self.with_room(|| self.scoped(|| self.device.create_buffer(&descriptor)))
    }

    /// A buffer that holds some bytes from the start.
    pub fn buffer_with(&self, label: &str, bytes: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.check_size(label, bytes.len() as u64)?;
        let size = (bytes.len() as u64).max(4).next_multiple_of(4);
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
        self.with_room(|| self.scoped(make))
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

    /// The compiled shader of a pass, from the cache if it was compiled before. A shader that the driver refuses is
    /// noted as such.
    pub fn pipeline(&self, name: &str, pass: &Pass) -> Result<Arc<Pipeline>> {
        let wgsl = pass.wgsl.text()?;
        let place = lock(&self.pipelines).place(wgsl.clone());
        get_or_make(&place, || {
            let compiled = self.scoped(|| self.compile(name, &wgsl, &pass.operands));
            match &compiled {
                Ok(_) => log::debug!("compiled {name}"),
                Err(error @ (Error::Driver(_) | Error::Validation(_))) => {
                    log::warn!("{name} is left out from now on: {error}");
                    Arc::make_mut(&mut lock(&self.refused)).insert(name, wgsl);
                }
                Err(_) => {}
            }
            compiled
        })
    }

    /// The shaders that the driver refused so far.
    pub fn refused(&self) -> Arc<Refused> {
        lock(&self.refused).clone()
    }

    fn compile(&self, name: &str, wgsl: &str, operands: &[Operand]) -> Pipeline {
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
        let cache = self.pipeline_cache();
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
            cache: cache.as_deref(),
        });
        Pipeline { pipeline, layout }
    }

    /// A shader of ours, compiled without wgpu's run-time checks, which cost up to half of a kernel's speed, unless the
    /// device is a checked one.
    fn shader(&self, name: &str, wgsl: &str) -> wgpu::ShaderModule {
        let source = wgpu::ShaderSource::Wgsl(wgsl.into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(name), source };
        if self.is_checked {
            return self.device.create_shader_module(descriptor);
        }
        // SAFETY: The text is this crate's own, and so are the parameters and the grid that it runs with: callers choose
        // sizes and names of recipes, never code. Every loop counts a u32 up in fixed steps of at least one to a bound
        // that is a constant or made of parameters and below 2^31 (a tensor or weight of more elements is refused), so
        // it ends and does not wrap. Every index is below the bound of its buffer: positions are clamped to, or guarded
        // by, the extents in the parameter block, and a tensor is bound only if it has those extents. A row or column in
        // the padding is an i32 that was subtracted from; as a u32 it is at or past the extent, also where it wrapped,
        // and then `select` puts 0, an index that is there, in place of what was computed from it. Weights and workspace
        // are as long as their packing and their recipe say, panels and steps of k filled up. Where two or four elements
        // are one load, the host has seen that rows or planes are multiples of them, so none is cut by a buffer's end. No
        // divisor is zero: they are constants, or extents, channels, panels or tile counts of at least one, and no grid
        // is run for an empty batch.
        unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }

    /// Waits until all submitted work is done.
    pub fn wait(&self) -> Result<()> {
        self.alive()?;
        // wgpu has no error for a device that is lost while it is waited for: it panics.
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(wgpu::PollType::wait_indefinitely()))) {
            Ok(Ok(_)) => self.check_lost(),
            Ok(Err(error)) => Err(Error::Driver(error.to_string())),
            Err(_) => self.note_lost("the driver gave it up while it was waited for"),
        }
    }

    /// Takes the kept read-back buffer if it is large enough, else makes one.
    pub fn take_target(&self, bytes: u64) -> Result<Target> {
        let kept = lock(&self.readback).take().filter(|target| target.buffer.size() >= bytes);
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let new = || Ok(Target { buffer: self.buffer("read-back", bytes, usage)?, mark: 0 });
        kept.map_or_else(new, Ok)
    }

    /// Keeps a read-back buffer for the next time: one that is mapped, and whose values were read. Nothing that was
    /// recorded or asked for is still to come to it.
    pub fn keep_target(&self, target: Target) {
        if self.scoped(|| target.buffer.unmap()).is_ok() {
            lock(&self.readback).replace(target);
        }
    }

    /// Drops the kept read-back buffer.
    pub fn drop_readback(&self) {
        lock(&self.readback).take();
    }
}

/// What wgpu says of a range that no buffer has, since it starts between two words. Whether the buffer is there it says
/// first; whether it is mapped it does not come to.
fn impossible_range(buffer: &wgpu::Buffer) -> Option<String> {
    // Of an empty buffer it is outside, at which wgpu panics.
    if buffer.size() == 0 {
        return None;
    }
    buffer.get_mapped_range(1..1).err().map(|error| error.to_string())
}

/// What an error scope caught.
fn raised(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { source } => Error::OutOfMemory(source.to_string()),
        wgpu::Error::Internal { description, .. } => Error::Driver(description),
        wgpu::Error::Validation { description, .. } => Error::Validation(description),
    }
}

/// Locks a mutex; what a panicking thread left behind is whole, for nothing in here panics half-way.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let y = device.buffer_with("y", bytemuck::bytes_of(&[5.0f32, 0.0]), usage).unwrap();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let read = device.buffer("read", 8, usage).unwrap();
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
        device.wait().unwrap();
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

    #[test]
    fn each_error_of_a_scope_has_its_own() {
        let text = || "what it says".to_string();
        let source = || text().into();
        assert_eq!(raised(wgpu::Error::OutOfMemory { source: source() }), Error::OutOfMemory(text()));
        let internal = wgpu::Error::Internal { source: source(), description: text() };
        assert_eq!(raised(internal), Error::Driver(text()));
        let validation = wgpu::Error::Validation { source: source(), description: text() };
        assert_eq!(raised(validation), Error::Validation(text()));
    }
}
