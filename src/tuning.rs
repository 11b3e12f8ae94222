//! What recipes take on a device: measured, checked, and kept as JSON.

#[cfg(feature = "tuning")]
pub(crate) mod json;
pub mod probe;
pub mod tuner;
