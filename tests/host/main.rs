//! What needs no device: the shaders as text, what the planner makes of a chain, files of weights, and the scripts.

mod floors;
mod planner;
mod scripts;
mod shaders;
#[cfg(feature = "safetensors")]
mod weights;
