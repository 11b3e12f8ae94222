//! What a wgpu device can do, as kernels ask.

use crate::model::caps::Caps;
use crate::model::gpu::{Gpu, GpuKind};

impl Caps {
    /// The caps of a device.
    pub fn of(device: &wgpu::Device) -> Self {
        // wgpu fails where a browser's devices do not say what adapter they are of, as Chrome's before 132.
        let info = if cfg!(target_arch = "wasm32") { None } else { Some(device.adapter_info()) };
        let caps = Self::from_parts(&device.limits(), device.features(), info.as_ref());
        #[cfg(target_arch = "wasm32")]
        let caps = {
            // wgpu passes on no vendor, and knows no subgroups in browsers.
            let adapter = crate::runtime::browser::Adapter::of(device);
            let is_cpu = adapter.is_fallback || is_software(&adapter.vendor, &adapter.architecture);
            let gpu = match is_cpu {
                true => GpuKind::OtherDiscrete.typical(),
                false => Gpu::of_browser(&adapter.vendor, &adapter.architecture, &adapter.description),
            };
            Self { subgroup: adapter.subgroup, is_cpu, gpu, ..caps }
        };
        caps
    }

    /// The caps that limits, features and, where known, the adapter give.
    pub fn from_parts(limits: &wgpu::Limits, features: wgpu::Features, info: Option<&wgpu::AdapterInfo>) -> Self {
        let sizes = info.map(|info| [info.subgroup_min_size, info.subgroup_max_size]);
        Self {
            max_storage_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            storage_offset_alignment: limits.min_storage_buffer_offset_alignment,
            subgroup: sizes.filter(|_| features.contains(wgpu::Features::SUBGROUP)),
            int64: features.contains(wgpu::Features::SHADER_INT64),
            f16: features.contains(wgpu::Features::SHADER_F16),
            is_cpu: info.is_some_and(|info| info.device_type == wgpu::DeviceType::Cpu),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            gpu: info.map_or(Self::webgpu().gpu, gpu),
        }
    }
}

/// Whether an adapter is a software device, by the words of a browser: SwiftShader, lavapipe or WARP.
#[cfg(any(test, target_arch = "wasm32"))]
fn is_software(vendor: &str, architecture: &str) -> bool {
    matches!((vendor, architecture), ("google", "swiftshader") | ("mesa", "" | "llvmpipe") | ("microsoft", "" | "warp"))
}

/// The GPU of an adapter. Browsers do not tell what type it is; most of their users' share the host's memory. A
/// software device counts as a card, in case it has to pass for a GPU: cards get every recipe.
fn gpu(info: &wgpu::AdapterInfo) -> Gpu {
    if info.device_type == wgpu::DeviceType::Cpu {
        return GpuKind::OtherDiscrete.typical();
    }
    let on_card = matches!(info.device_type, wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu);
    Gpu::of(info.vendor, !on_card, &info.name, &format!("{} {}", info.driver, info.driver_info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_devices_of_browsers_are_known() {
        assert!(is_software("google", "swiftshader"));
        assert!(!is_software("nvidia", "ampere"));
        assert!(!is_software("", ""));
    }

    #[test]
    fn webgpu_promises_what_wgpu_says() {
        assert_eq!(Caps::webgpu(), Caps::from_parts(&wgpu::Limits::defaults(), wgpu::Features::empty(), None));
    }
}
