//! 2-D convolutions on any GPU that [wgpu] reaches: direct, depthwise, pointwise, and the depthwise-separable blocks
//! that MobileNets are made of.
//!
//! A kernel library, not a runtime: it works on the caller's device and records into the caller's encoder.
//!
//! ```
//! use gpuconv::{Activation, GpuConv, Separable, Weights};
//!
//! let gpu = GpuConv::new()?;
//! let conv = Separable::new(4, 8).kernel_size(3).stride(2).padding(1).activation(Activation::Relu6);
//! let weights = [Weights::new(&[0.1; 4 * 9], &[0.0; 4]), Weights::new(&[0.1; 8 * 4], &[0.0; 8])];
//! let layer = gpu.separable(&conv, &weights)?;
//!
//! let x = gpu.upload(&[1.0; 4 * 16 * 16], [1, 4, 16, 16])?;
//! let y = layer.forward(&x)?; // stays on the GPU
//! assert_eq!(y.shape(), [1, 8, 8, 8].into());
//! let host: Vec<f32> = gpu.download(&y)?;
//! # assert_eq!(host.len(), 512);
//! # Ok::<(), gpuconv::Error>(())
//! ```
//!
//! # Why separable
//!
//! A depthwise-separable convolution does `1/out_channels + 1/kernel_size²` of the standard one's multiply-adds
//! ([`cost`]); for 512 → 1024 channels at 3x3 that is 0.112. Arithmetic is half of the story. The tensor between its
//! two halves is written out and read back, and memory access costs time and energy as well; so bytes are counted as
//! carefully as multiply-adds, and the two halves become one dispatch where the model says that it pays.
//!
//! # The way through
//!
//! - [`Conv2d`] is one convolution with its epilogue; a [`Chain`] is several [`Link`]s in a row; a [`Problem`] is one
//!   line of text that says both.
//! - [`kernels`] answer with recipes: shaders, grids and weight layouts as plain data, or the reason why not.
//! - The [`planner`] cuts a chain into runs, each with the recipe that is cheapest: by its model, or as the [`tuner`]
//!   has measured and checked it on this device.
//! - A [`Layer`] holds a chain's weights on the device, and for each input size the compiled plan.
//! - [`nets`] has whole networks as chains, and reads their weights from files.
//! - [`reference`](mod@reference) is the oracle that every kernel is checked against, on the CPU in f64;
//!   [`verify`] does it on the device at hand.
//!
//! Everything before the [`Layer`] works without a GPU.

mod batch_norm;
pub mod caps;
pub mod chain;
pub mod conv;
pub mod cost;
mod device;
pub mod error;
pub mod gpu;
pub mod kernels;
mod layer;
pub mod nets;
pub mod pack;
mod pipelines;
mod plan;
pub mod planner;
pub mod probe;
pub mod problem;
pub mod profile;
#[doc(hidden)]
pub mod random;
mod readback;
pub mod reference;
mod shader;
pub mod shape;
pub mod tensor;
#[doc(hidden)]
pub mod timer;
pub mod tuner;
#[cfg(feature = "tuning")]
pub mod tuning;
pub mod verify;
pub mod workspace;

pub use batch_norm::{BatchNorm, OwnedWeights};
pub use caps::Caps;
pub use chain::{Chain, Link, Separable};
pub use conv::{Activation, Conv2d, Residual};
pub use error::{Error, ParseError, Result};
pub use gpu::GpuConv;
pub use layer::{BoundLayer, Layer};
pub use planner::{Choice, Fusion};
pub use problem::{Operation, Problem};
pub use readback::Readback;
pub use reference::Weights;
pub use shape::{Layout, Shape};
pub use tensor::Tensor;
#[cfg(feature = "tuning")]
pub use tuning::Tuning;

/// The README's example is compiled and run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
