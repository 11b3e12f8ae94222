//! Where plans meet a device: the only floor that knows wgpu.
//!
//! Its functions are async. `block::block_on` is the only way to block on a future: for the calls in `blocking`, for
//! threads of the library's own, and for a value that is being made (`lru`). Neither module is compiled for browsers.

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod block;
#[cfg(not(target_arch = "wasm32"))]
pub mod blocking;
#[cfg(target_arch = "wasm32")]
pub(crate) mod browser;
mod caps;
pub(crate) mod clock;
mod copies;
pub(crate) mod device;
#[cfg(not(target_arch = "wasm32"))]
mod first_run;
pub(crate) mod gpu;
mod identity;
pub(crate) mod layer;
mod lru;
mod memory;
mod parts;
#[cfg(not(target_arch = "wasm32"))]
mod pipeline_cache;
mod pipelines;
mod plan;
pub(crate) mod readback;
#[cfg(not(target_arch = "wasm32"))]
mod robustness;
mod scopes;
mod state;
pub(crate) mod tensor;
pub(crate) mod threads;
pub mod timer;
mod transfers;
