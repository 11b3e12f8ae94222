//! What runs on the device of this machine: kernels against the oracle, layers as callers use them, and what happens when
//! something breaks.
//!
//! One program, since each links all of wgpu. Tests that take minutes are ignored here; `.ci/run` runs them:
//! `cargo test --test device -- --ignored`.

mod common;
mod faults;
mod inverted_residual;
mod kernels;
mod layers;
mod limits;
#[cfg(feature = "safetensors")]
mod nets;
mod planted_faults;
mod pool;
mod property;
mod threads;
#[cfg(feature = "tuning")]
mod tuner;
