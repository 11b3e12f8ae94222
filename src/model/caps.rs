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
        Self {
            max_storage_binding: 128 << 20,
            max_buffer: 256 << 20,
            max_workgroup_memory: 16 << 10,
            max_invocations: 256,
            max_workgroups: 65535,
            max_storage_buffers: 8,
            storage_offset_alignment: 256,
            subgroup: None,
            int64: false,
            is_cpu: false,
            timestamps: false,
        }
    }
}
