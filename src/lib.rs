//! 2-D convolutions on any GPU that [wgpu] reaches: direct, depthwise, pointwise, and the depthwise-separable blocks
//! that MobileNets are made of.
//!
//! A kernel library, not a runtime: it works on the caller's device and records into the caller's encoder.
//!
//! ```
//! use gpuconv::{Activation, GpuConv, Separable, Weights};
//!
//! let gpu = GpuConv::new()?;
//! let conv = Separable::new(4, 8, 3).stride(2).padding(1).activation(Activation::Relu6);
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
//! A standard convolution of `C` into `OC` channels with a `K`x`K` kernel does `OC·C·K²` multiply-adds for each output
//! pixel. A depthwise-separable one filters each channel by itself, `C·K²`, then mixes the channels, `OC·C`. That is
//!
//! ```text
//!   (C·K² + OC·C) / (OC·C·K²)  =  1/OC + 1/K²
//! ```
//!
//! of the multiply-adds, and of the weights: for 512 → 1024 channels at 3x3 it is 0.112 ([`cost`] counts it).
//!
//! Arithmetic is half of the story. Memory access costs time and energy as well. In f32 a convolution moves at the
//! least
//!
//! ```text
//!   4 · (N·C·H·W  +  OC·C/g·K²  +  N·OC·H'·W')    bytes: input, weights, output
//! ```
//!
//! and a separable one has two of these: the tensor between its halves is written, and read again. On 128x128 pixels at
//! stride 2 the two halves of that one move as many bytes as the standard convolution does, for a ninth of its
//! arithmetic, and a GPU that waits for memory is no faster for it. Computed in one dispatch they move a quarter less.
//! So bytes are counted as carefully as multiply-adds, and links are fused where the model (or a measurement) says that
//! it pays.
//!
//! ```
//! use gpuconv::{Chain, Separable, cost};
//! let separable = Separable::new(512, 1024, 3).stride(2).padding(1);
//! let input = [1, 512, 128, 128];
//! let standard = cost::chain(&separable.standard().into(), input)?;
//! let separable = cost::chain(&Chain::from(separable), input)?;
//! let share = separable.mult_adds as f64 / standard.mult_adds as f64;
//! assert!((share - (1.0 / 1024.0 + 1.0 / 9.0)).abs() < 1e-3);
//! assert_eq!(separable.bytes_unfused / 1_000_000, standard.bytes_fused / 1_000_000);
//! assert_eq!(100 * separable.bytes_fused / separable.bytes_unfused, 75);
//! # Ok::<(), gpuconv::Error>(())
//! ```
//!
//! # A guided path
//!
//! 1. **One layer.** [`Conv2d`] is a convolution with its epilogue (bias, residual, activation), its numbers called
//!    what PyTorch calls them. [`GpuConv::conv2d`], [`depthwise`](GpuConv::depthwise) and
//!    [`pointwise`](GpuConv::pointwise) make a [`Layer`] of it with its [`Weights`]; [`Layer::forward`] runs it on a
//!    [`Tensor`] of any size, or on `(&x, &residual)` if it adds one.
//! 2. **Several.** A [`Chain`] is [`Link`]s in a row, with residual edges. [`GpuConv::separable`] is a chain of two,
//!    [`Chain::inverted_residual`] of three, [`nets::mobilenet_v2`] of fifty-four; [`GpuConv::chain`] runs any.
//! 3. **In your program.** [`GpuConv::with_device`] takes your device, [`Tensor::from_buffer`] your buffers,
//!    [`Layer::encode`] your encoder. It submits nothing. [`GpuConv::encode_download`] and [`Readback::read_async`]
//!    bring results back without blocking; [`GpuConv::warm_up`] compiles ahead. Calls that block have async versions,
//!    such as [`Layer::forward_async`]. Take [`wgpu`] from here, and versions agree. A program that leaves the device
//!    to the library can have one without robust buffer access ([`GpuConv::without_robustness`]).
//! 4. **What runs, and why.** [`Layer::schedule`] says which recipes a layer takes. The [`planner`] asks all kernels.
//!    Each answers with [`Recipe`](planner::Recipe)s (plain data: WGSL, grid, cost) or a typed reason why not. The
//!    planner cuts the chain where it is cheapest. A [`Choice`] overrules it. What is larger than a binding is computed
//!    in bands: [`GpuConv::divide`] says in which. A [`Problem`] is the text by which the command line, tests and
//!    benchmarks name all this.
//! 5. **Faster on this device.** [`GpuConv::tune`] measures, checks each candidate against the oracle before it may
//!    win, and goes by what it found; with the feature `tuning`, `Tuning` keeps that as JSON, to ship with a program.
//! 6. **Right?** [`oracle`] computes the same in f64 on the CPU; [`verify`] checks every kernel against it
//!    on the device at hand. [`GpuConv::checked`] has wgpu check each index in the shaders.
//!
//! Steps 2 and 4 work without a GPU.
//!
//! # Without blocking
//!
//! Every call that waits for the device or compiles has an async version, whose name ends in `_async`. On native
//! devices its future is `Send`. Some of these futures wait for the device: [`GpuConv::wait_async`],
//! [`GpuConv::download_async`], [`Readback::read_async`], tuning, checks, and any that finds no memory. While they
//! wait, the program must poll the device ([`wgpu::Device::poll`]).
//!
//! On native devices planning and compiling happen on the thread that polls the future: the first
//! [`Layer::forward_async`] of a size takes as long as [`Layer::forward`]. [`GpuConv::warm_up_async`] does that before,
//! on threads of its own.
//!
//! In a browser nothing can block, so the calls that do are not compiled for wasm32. Instead of `new`, call
//! [`GpuConv::new_async`], and so for all others. Instead of [`Layer::encode`], call [`Layer::encode_async`]; or call
//! [`Layer::bind_async`], whose [`BoundLayer`] can be encoded without waiting. Shaders are always checked there
//! ([`GpuConv::checked`] changes nothing), and there is no cache of compiled pipelines.
//!
//! # When something is wrong
//!
//! Nothing panics on what a caller or a device does, and nothing is printed: each way to fail is a variant of
//! [`Error`], with the numbers that were wrong and what would be right. After a lost device every call says
//! [`Error::DeviceLost`]. There is one exception, which wgpu does not let the library see: a buffer of another
//! [`wgpu::Instance`], given to [`Tensor::from_buffer`], is taken for another buffer, or wgpu panics.

// Nothing that a caller or a device does may panic; tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]
#![warn(missing_docs)]

// Floors, from the lowest up: model, oracle, nets, problem, kernels, planner, runtime, verify, tuning. Each takes only
// from those below it.
mod kernels;
mod model;
pub mod nets;
pub mod oracle;
pub mod planner;
pub mod problem;
mod runtime;
mod tuning;
pub mod verify;

pub use model::batch_norm::{BatchNorm, OwnedWeights};
pub use model::caps::Caps;
pub use model::chain::{Chain, Edge, Join, Link};
pub use model::concat::Concat;
pub use model::conv::{Activation, Conv2d, Extent, Padding, Residual};
pub use model::dtype::DType;
pub use model::error::{Cause, Error, ParseError, Result};
pub use model::gate::SqueezeExcite;
pub use model::pool::{Pool2d, PoolMode};
pub use model::prelu::PRelu;
pub use model::resize::{Resize, ResizeMode, ResizeTo};
pub use model::separable::Separable;
pub use model::shape::{Layout, Shape};
pub use model::transposed::ConvTranspose2d;
pub use model::weights::Weights;
pub use model::{cost, gpu, shape};
pub use planner::{Choice, Fusion};
pub use problem::{Operation, Problem};
pub use runtime::gpu::GpuConv;
pub use runtime::layer::{BoundLayer, Inputs, Layer};
pub use runtime::readback::Readback;
pub use runtime::tensor::Tensor;
#[cfg(feature = "tuning")]
pub use tuning::json::Tuning;
pub use tuning::{probe, tuner};

/// What the tests, the benchmarks and the command line of this repository use beside the public surface. It changes
/// without notice.
#[doc(hidden)]
pub mod internals {
    pub use crate::kernels::copy;
    pub use crate::kernels::elements::{Element, Elements};
    pub use crate::kernels::pack;
    pub use crate::kernels::{KERNELS, Kernel, Operand, Params, Run, fold, kernel_of};
    pub use crate::model::rounding::half_unit;
    pub use crate::planner::cut::is_called;
    pub use crate::planner::profile::run_name;
    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::runtime::blocking::scoped;
    pub use crate::runtime::timer;
    pub use crate::verify::judge::{bounds, norm};
    pub use crate::verify::random;
}

/// The wgpu whose devices, buffers and encoders the library takes.
pub use wgpu;

/// Half-precision numbers, as tensors of [`DType::F16`] take and give them.
pub use half::f16;

/// The README's example is compiled and run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
