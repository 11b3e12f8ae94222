//! gpuconv
pub mod caps;
pub mod chain;
pub mod conv;
pub mod cost;
mod device;
pub mod error;
pub mod gpu;
pub mod kernels;
mod layer;
pub mod pack;
mod plan;
pub mod planner;
pub mod problem;
#[doc(hidden)]
pub mod random;
pub mod reference;
mod shader;
pub mod shape;
pub mod tensor;
pub mod verify;

pub use caps::Caps;
pub use chain::{Chain, Separable};
pub use conv::{Activation, Conv2d, Residual};
pub use error::{Error, ParseError, Result};
pub use gpu::GpuConv;
pub use layer::{BoundLayer, Layer};
pub use planner::Choice;
pub use problem::{Operation, Problem};
pub use reference::Weights;
pub use shape::{Layout, Shape};
pub use tensor::Tensor;
