//! What is computed, as plain data: shapes, links, chains, weights, what they cost, and what can be wrong with them.

pub(crate) mod batch_norm;
pub(crate) mod caps;
pub(crate) mod chain;
pub(crate) mod concat;
pub(crate) mod conv;
pub mod cost;
pub(crate) mod dtype;
pub(crate) mod error;
pub(crate) mod gate;
pub mod gpu;
pub(crate) mod link;
pub(crate) mod pool;
pub(crate) mod prelu;
pub(crate) mod resize;
pub(crate) mod rounding;
pub(crate) mod separable;
pub mod shape;
pub(crate) mod shuffle;
pub(crate) mod transposed;
pub(crate) mod unsupported;
pub(crate) mod weights;
