//! What a kernel may ask of a device.

/// Facts about a device, taken from it or written by hand in a test: `Caps { is_cpu: true, ..Caps::webgpu() }`, for
/// there may be more some day.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// Largest binding of a storage buffer, bytes.
    pub max_storage_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Workgroup memory, bytes.
    pub max_workgroup_memory: u32,
    /// Invocations in a workgroup.
    pub max_invocations: u32,
    /// Workgroups along one dimension of a grid.
    pub max_workgroups: u32,
    /// Storage buffers that one shader may bind.
    pub max_storage_buffers: u32,
    /// Multiple of which the offset of a storage binding must be, bytes.
    pub storage_offset_alignment: u32,
    /// Smallest and largest subgroup, in lanes; none without subgroup operations.
    pub subgroup: Option<[u32; 2]>,
    /// Whether shaders may load 64-bit integers.
    pub int64: bool,
    /// Whether the device is a CPU, as lavapipe and SwiftShader are.
    pub is_cpu: bool,
    /// Whether passes can be timed on the device.
    pub timestamps: bool,
}

impl Caps {
    /// What WebGPU promises everywhere: its default limits and no features.
    pub fn webgpu() -> Self {
        Self::from_parts(&wgpu::Limits::defaults(), wgpu::Features::empty(), None)
    }

    /// The caps of a device.
    pub fn of(device: &wgpu::Device) -> Self {
        Self::from_parts(&device.limits(), device.features(), Some(&device.adapter_info()))
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
            is_cpu: info.is_some_and(|info| info.device_type == wgpu::DeviceType::Cpu),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        }
    }
}
