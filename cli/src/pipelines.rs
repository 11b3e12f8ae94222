//! The driver's compiled pipelines, in a file beside the tuning file. `tune` writes them, and the other commands load
//! them.

use std::fs;
use std::path::{Path, PathBuf};

use gpuconv::GpuConv;

use super::{Failure, Outcome, files, tuning_file};

/// Loads the pipelines beside a tuning file, if there are any.
pub fn load(gpu: &GpuConv, tuning: &Path) -> Outcome {
    if let Ok(bytes) = fs::read(file(gpu, tuning)) {
        // SAFETY: the file is beside the user's tuning file, or beside one that the user named, and only the user
        // writes there. A checksum finds accidental damage.
        unsafe { gpu.load_pipeline_cache(&bytes) }?;
    }
    Ok(())
}

/// Writes the driver's compiled pipelines beside a tuning file, atomically.
pub fn save(gpu: &GpuConv, tuning: &Path) -> Outcome {
    let Some(bytes) = gpu.pipeline_cache_data() else { return Ok(()) };
    let path = file(gpu, tuning);
    let written = files::write(&path, &bytes);
    written.map_err(|error| Failure::Call(format!("cannot write {}: {error}", path.display())))
}

/// Drivers compile other code for devices without robustness.
fn file(gpu: &GpuConv, tuning: &Path) -> PathBuf {
    tuning_file::beside(tuning, if gpu.is_robust() { "pipelines" } else { "unchecked.pipelines" })
}
