//! Where plans meet a device: the only floor that knows wgpu.
//!
//! Nothing in it blocks but `block::block_on`, and the calls of `blocking`, which are shells around the awaited ones. In a
//! browser there are neither.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod block;
#[cfg(not(target_arch = "wasm32"))]
mod blocking;
mod caps;
pub(crate) mod clock;
pub(crate) mod device;
#[cfg(not(target_arch = "wasm32"))]
mod first_run;
pub(crate) mod gpu;
mod identity;
pub(crate) mod layer;
mod lru;
mod memory;
#[cfg(not(target_arch = "wasm32"))]
mod pipeline_cache;
mod pipelines;
mod plan;
pub(crate) mod readback;
mod scopes;
mod state;
pub(crate) mod tensor;
pub(crate) mod threads;
pub mod timer;
