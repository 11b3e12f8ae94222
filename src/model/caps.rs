//! Facts about a device that kernels ask for.

use crate::model::gpu::{Gpu, GpuKind};

/// Registers of an invocation on GPUs that have few.
const FEW_REGISTERS: u64 = 128;

/// Facts about a device, read from it or written by hand: `Caps { is_cpu: true, ..Caps::webgpu() }`.
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
    /// Alignment of a storage binding's offset, bytes.
    pub storage_offset_alignment: u32,
    /// Smallest and largest subgroup, in lanes; none without subgroup operations.
    pub subgroup: Option<[u32; 2]>,
    /// Whether shaders may load 64-bit integers.
    pub int64: bool,
    /// Whether shaders may have half-precision numbers. Without, they load and store halves of 32-bit words.
    pub f16: bool,
    /// Whether it is a software device, such as lavapipe or SwiftShader.
    pub is_cpu: bool,
    /// Whether passes can be timed on the device.
    pub timestamps: bool,
    /// Which GPU it is, unless it is a software device.
    pub gpu: Gpu,
}

impl Caps {
    /// The most registers that an invocation may have before a compiler moves values to memory. None for a software
    /// device, which has its registers there anyway.
    pub fn invocation_registers(&self) -> Option<u64> {
        (!self.is_cpu).then(|| self.gpu.kind.core().invocation_registers)
    }

    /// Whether the compiler may load all that is written out before it uses any of it, though its GPU has few
    /// registers. Mesa's for Adreno does. Of other GPUs with few registers only Apple's was seen not to.
    pub(crate) fn loads_ahead(&self) -> bool {
        self.has_few_registers() && self.gpu.kind != GpuKind::Apple
    }

    /// Whether it is a GPU with few registers for an invocation.
    pub(crate) fn has_few_registers(&self) -> bool {
        self.invocation_registers().is_some_and(|registers| registers <= FEW_REGISTERS)
    }

    /// Whether the compiler has room for the conditions of many loads beside as many uniform values. NVIDIA's and Apple's
    /// were seen to.
    pub(crate) fn keeps_conditions(&self) -> bool {
        matches!(self.gpu.kind, GpuKind::Nvidia | GpuKind::Apple)
    }

    /// Whether the GPU compares and selects in one instruction. Then a clamp that keeps each NaN took no more than another
    /// one, as long as clamps compared; by bits that was not counted.
    pub(crate) fn selects_as_it_compares(&self) -> bool {
        self.gpu.kind == GpuKind::Apple
    }

    /// WebGPU's default limits and no features: what every device has.
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
            f16: false,
            is_cpu: false,
            timestamps: false,
            gpu: GpuKind::OtherIntegrated.typical(),
        }
    }
}
