//! What needs no device: the shaders as text, and what the planner makes of a chain.

mod planner;
mod shaders;
