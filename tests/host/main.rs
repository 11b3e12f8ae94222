//! Tests that need no device: shaders as text, the planner, files of weights, scripts, and the order of modules.

mod floors;
mod planner;
mod scripts;
mod shaders;
#[cfg(feature = "safetensors")]
mod weights;
