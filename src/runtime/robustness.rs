//! Devices without robust buffer access.
//!
//! wgpu makes every Vulkan device with it: the device checks each access to a buffer, and some drivers split wide loads
//! for that. wgpu's descriptor has no way to turn it off, so the device is made here by Vulkan's own call.

use crate::model::error::{Cause, Error, Result};
use crate::runtime::device::{Device, is_checked_by_environment};
use crate::runtime::gpu::GpuConv;

impl GpuConv {
    /// As [`GpuConv::without_robustness`], awaited.
    ///
    /// # Safety
    /// As [`GpuConv::without_robustness`].
    ///
    /// # Errors
    /// As [`GpuConv::without_robustness`].
    pub async unsafe fn without_robustness_async() -> Result<Self> {
        let adapter = Self::adapter(None).await?;
        let features = adapter.features() & Self::wanted_features();
        // SAFETY: as the caller says.
        unsafe { Self::from_adapter_without_robustness(&adapter, features, adapter.limits()) }.await
    }

    /// A new device of an adapter with these features and limits, as [`GpuConv::from_adapter_with`] makes it, but
    /// without robust buffer access. What that means, and when it is sound, is at [`GpuConv::without_robustness`].
    ///
    /// # Safety
    /// As [`GpuConv::without_robustness`].
    ///
    /// # Errors
    /// [`Error::RequestDevice`], also if the adapter has less than is asked for, or its backend is not Vulkan.
    pub async unsafe fn from_adapter_without_robustness(
        adapter: &wgpu::Adapter,
        features: wgpu::Features,
        limits: wgpu::Limits,
    ) -> Result<Self> {
        if is_checked_by_environment() {
            return Self::from_adapter_with(adapter, features, limits).await;
        }
        let descriptor = Self::descriptor(features, limits);
        check(adapter, &descriptor)?;
        let (device, queue) = open(adapter, &descriptor)?;
        let mut device = Device::new(device, queue);
        device.is_robust = false;
        Ok(Self::of_own(device))
    }
}

/// What wgpu checks before it opens a device, and not when it is given one.
fn check(adapter: &wgpu::Adapter, descriptor: &wgpu::DeviceDescriptor<'_>) -> Result<()> {
    let missing = descriptor.required_features - adapter.features();
    if !missing.is_empty() {
        return refused(format!("it has no {missing}"));
    }
    let mut worse = None;
    let note = |name, wanted, has| worse = Some(format!("its {name} is {has}, not {wanted}"));
    descriptor.required_limits.check_limits_with_fail_fn(&adapter.limits(), true, note);
    worse.map_or(Ok(()), refused)
}

fn refused<T>(why: String) -> Result<T> {
    Err(Error::RequestDevice(Cause::new(why)))
}

/// Where wgpu has Vulkan. This is as in `Cargo.toml`, for ash.
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn open(adapter: &wgpu::Adapter, descriptor: &wgpu::DeviceDescriptor<'_>) -> Result<(wgpu::Device, wgpu::Queue)> {
    use ash::{ext, vk};

    // SAFETY: nothing of the adapter is destroyed.
    let Some(hal) = (unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }) else { return not_vulkan(adapter) };
    let (wanted, limits, memory) =
        (descriptor.required_features, &descriptor.required_limits, &descriptor.memory_hints);
    // The extension has the feature `robustBufferAccess2`, one for images, and no functions. Vulkan 1.3's own feature
    // for images stays on: no shader of the library reads one.
    let mut extensions = hal.required_device_extensions(wanted);
    extensions.retain(|name| *name != ext::robustness2::NAME);
    let mut features = hal.physical_device_features(&extensions, wanted);
    let core = vk::PhysicalDeviceFeatures { robust_buffer_access: vk::FALSE, ..features.get_core() };

    // wgpu's own family and queue.
    let (family, queue) = (0, 0);
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
    let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let info = features.add_to_device_create(info).enabled_features(&core);
    let instance = hal.shared_instance().raw_instance();
    // SAFETY: the physical device is of this instance, and all that `info` points to lives until the call returns.
    let made = unsafe { instance.create_device(hal.raw_physical_device(), &info, None) };
    let raw = made.map_err(|error| Error::RequestDevice(Cause::new(error)))?;
    // SAFETY: the device is of this adapter, made with this queue and with the adapter's own extensions and features,
    // but for robustness. wgpu calls no function of that extension. It relies on the features only to leave checks out
    // of shaders, and the callers of this module promise that no shader needs them.
    let opened = unsafe { hal.device_from_raw(raw, None, &extensions, wanted, limits, memory, family, queue) };
    let opened = opened.map_err(|error| Error::RequestDevice(Cause::new(error)))?;
    // SAFETY: it was just made from this adapter, with the features and limits of the descriptor, which `check`
    // compared with the adapter's.
    let device = unsafe { adapter.create_device_from_hal(opened, descriptor) };
    device.map_err(|error| Error::RequestDevice(Cause::new(error)))
}

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn open(adapter: &wgpu::Adapter, _: &wgpu::DeviceDescriptor<'_>) -> Result<(wgpu::Device, wgpu::Queue)> {
    not_vulkan(adapter)
}

fn not_vulkan<T>(adapter: &wgpu::Adapter) -> Result<T> {
    refused(format!(
        "robust buffer access can be turned off only in Vulkan, and this adapter is {}'s",
        adapter.get_info().backend
    ))
}
