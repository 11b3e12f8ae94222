//! Tests that need a device: kernels against the oracle, layers as callers use them, and behaviour after faults.
//!
//! They are one program, because each program links all of wgpu. Tests that take minutes are ignored by default;
//! `.ci/run` runs them with `cargo test --test device -- --ignored`.

mod awaited;
mod bands;
mod common;
mod concat;
mod faults;
mod graph;
mod half;
mod inverted_residual;
mod kernels;
mod layers;
mod limits;
mod memory;
mod moved;
mod nans;
#[cfg(feature = "safetensors")]
mod nets;
mod planted_faults;
mod pool;
#[cfg(feature = "safetensors")]
mod ppocr;
mod prelu;
mod property;
mod robustness;
mod threads;
mod transposed;
#[cfg(feature = "tuning")]
mod tuner;
mod views;
