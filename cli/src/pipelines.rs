//! The driver's compiled pipelines, kept beside a tuning file: `tune` writes them, the other commands take them.

use std::fs;
use std::path::{Path, PathBuf};

use gpuconv::GpuConv;

use super::{Failure, Outcome, files};

/// Gives the driver what is kept beside a tuning file, if anything is.
pub fn load(gpu: &GpuConv, tuning: &Path) -> Outcome {
    if let Ok(bytes) = fs::read(file(tuning)) {
        // SAFETY: the file lies beside the user's own tuning file, or one that the user named, and only the user
        // writes there; what chance does to it the checksum finds.
        unsafe { gpu.load_pipeline_cache(&bytes) }?;
    }
    Ok(())
}

/// Keeps what the driver has compiled beside a tuning file, in one step, so that no half of it is ever read.
pub fn save(gpu: &GpuConv, tuning: &Path) -> Outcome {
    let Some(bytes) = gpu.pipeline_cache_data() else { return Ok(()) };
    let path = file(tuning);
    let written = files::write(&path, &bytes);
    written.map_err(|error| Failure::Call(format!("cannot write {}: {error}", path.display())))
}

fn file(tuning: &Path) -> PathBuf {
    tuning.with_extension("pipelines")
}
