//! Tuning files: what was measured on devices, as JSON, for later runs of a program and for programs that ship it.
//!
//! ```json
//! {
//!   "format": 1,
//!   "devices": [
//!     {
//!       "device": "llvmpipe (LLVM 15.0.6, 256 bits)",
//!       "driver": "llvmpipe Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)",
//!       "backend": "vulkan",
//!       "version": "0.1.0",
//!       "rates": null,
//!       "runs": { "pointwise 1x512x14x14 -> 512 relu6": { "pointwise_subgroup/32x4": 0.0018 } }
//!     }
//!   ]
//! }
//! ```
//!
//! Times are in seconds. A device is known by its name, its driver and the backend; kernels change from version to
//! version of this crate, so that is a part of the key, too. In a browser the driver is the browser's engine. A device
//! without robustness has `"robust": false` as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::error::{Cause, Error, Result};
use crate::planner::model::Rates;
use crate::planner::profile::Profile;
use crate::runtime::gpu::GpuConv;

/// The form of the files, counted up when it changes.
const FORMAT: u32 = 1;

/// What was measured on any number of devices.
///
/// ```
/// use gpuconv::{GpuConv, Tuning};
/// let gpu = GpuConv::new()?;
/// // What `gpu.tune` found, or nothing so far.
/// let json = Tuning::new(&gpu, (*gpu.profile()).clone()).to_json();
/// let tuning = Tuning::from_json(json.as_bytes())?;
/// assert!(gpu.use_tuning(&tuning));
/// assert!(Tuning::from_json(b"{}").is_err());
/// # Ok::<(), gpuconv::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    format: u32,
    devices: Vec<Entry>,
}

/// What was measured on one device with one version of this crate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: Key,
    rates: Option<Rates>,
    runs: BTreeMap<String, BTreeMap<String, f64>>,
}

/// What measurements hold for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    device: String,
    driver: String,
    backend: String,
    version: String,
    /// Devices without robustness have times of their own.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    robust: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(robust: &bool) -> bool {
    *robust
}

impl Key {
    /// The key of a device and of this version.
    fn of(gpu: &GpuConv) -> Self {
        #[cfg(not(target_arch = "wasm32"))]
        let (driver, backend) = {
            let info = gpu.device().adapter_info();
            (format!("{} {}", info.driver, info.driver_info), info.backend)
        };
        #[cfg(target_arch = "wasm32")]
        let (driver, backend) = (crate::runtime::browser::engine(), wgpu::Backend::BrowserWebGpu);
        Self {
            driver: driver.trim().into(),
            device: gpu.adapter_name(),
            backend: backend.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            robust: gpu.is_robust(),
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self { format: FORMAT, devices: Vec::new() }
    }
}

impl Tuning {
    /// What was measured on a device.
    pub fn new(gpu: &GpuConv, profile: Profile) -> Self {
        let Profile { rates, runs } = profile;
        Self { devices: vec![Entry { key: Key::of(gpu), rates, runs }], ..Self::default() }
    }

    /// Reads a file's bytes. A file of another form than this version's is ignored with a warning: it has nothing.
    ///
    /// # Errors
    /// [`Error::DamagedTuning`] if it is not JSON, not of the form that it says, or has times that are none.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        let damaged = |error: serde_json::Error| Error::DamagedTuning(Cause::new(error));
        let Header { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format != FORMAT {
            log::warn!("a tuning file of format {format} is ignored; this version reads format {FORMAT}");
            return Ok(Self::default());
        }
        let tuning: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        for entry in &tuning.devices {
            let times = || entry.runs.iter().flat_map(|(run, times)| times.iter().map(move |time| (run, time)));
            if let Some((run, (recipe, seconds))) = times().find(|(_, (_, seconds))| !is_time(**seconds)) {
                return Err(Error::DamagedTuning(Cause::new(format!("{recipe} takes {seconds} seconds for {run}"))));
            }
            if entry.rates.is_some_and(|rates| !rates.are_sound()) {
                return Err(Error::DamagedTuning(Cause::new(format!("{:?} are no rates", entry.rates))));
            }
        }
        Ok(tuning)
    }

    /// The bytes of a file, to be read by people as well.
    pub fn to_json(&self) -> String {
        // Strings, numbers that are finite, and maps whose keys are strings: nothing that JSON has not.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Takes over what another one knows. Where both have a time the lower one stays.
    pub fn merge(&mut self, other: Self) {
        for entry in other.devices {
            match self.devices.iter_mut().find(|known| known.key == entry.key) {
                None => self.devices.push(entry),
                Some(known) => {
                    let mut profile = Profile { rates: known.rates, runs: std::mem::take(&mut known.runs) };
                    profile.merge(Profile { rates: entry.rates, runs: entry.runs });
                    Profile { rates: known.rates, runs: known.runs } = profile;
                }
            }
        }
    }

    /// What it knows of a device; if that is nothing, though it knows others, a warning says so.
    pub fn profile(&self, gpu: &GpuConv) -> Option<Profile> {
        let key = Key::of(gpu);
        let entry = self.devices.iter().find(|entry| entry.key == key);
        if let (None, Some(Entry { key: other, .. })) = (entry, self.devices.first()) {
            log::warn!("tuning is ignored: made for {other:?}, not for {key:?}");
        }
        entry.map(|entry| Profile { rates: entry.rates, runs: entry.runs.clone() })
    }

    /// How many runs it has times of, on how many devices.
    pub fn counts(&self) -> (usize, usize) {
        (self.devices.iter().map(|entry| entry.runs.len()).sum(), self.devices.len())
    }
}

/// Whether a number is a time.
fn is_time(seconds: f64) -> bool {
    seconds.is_normal() && seconds > 0.0
}

impl GpuConv {
    /// Goes by what a tuning knows of this device, for plans made from now on, beside what is known already. Whether
    /// that is anything.
    pub fn use_tuning(&self, tuning: &Tuning) -> bool {
        let Some(profile) = tuning.profile(self) else { return false };
        let mut known = (*self.profile()).clone();
        known.merge(profile);
        self.set_profile(known);
        true
    }
}
