//! Where plans meet a device: the only floor that knows wgpu.

mod caps;
pub(crate) mod device;
mod first_run;
pub(crate) mod gpu;
mod identity;
pub(crate) mod layer;
mod lru;
mod memory;
mod pipelines;
mod plan;
pub(crate) mod readback;
pub(crate) mod tensor;
pub mod timer;
