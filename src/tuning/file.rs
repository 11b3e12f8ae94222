//! Where tuning files are, and how they stay whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

use super::Tuning;
use crate::error::{Error, Result};

impl Tuning {
    /// Where this user's tuning is by the platform's convention: `gpuconv/tuning.json` in the folder for caches
    /// (`$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`). None if the user has no home.
    ///
    /// The library reads and writes there only what it is told to.
    pub fn user_file() -> Option<PathBuf> {
        let folders = etcetera::base_strategy::choose_native_strategy().ok()?;
        Some(folders.cache_dir().join("gpuconv").join("tuning.json"))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::File`]; as [`Tuning::from_json`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_json(&fs::read(path).map_err(|error| failure(path, &error))?)
    }

    /// Writes a file. It takes its name when its last byte is written, so nobody ever reads a part of it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let write = || {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(self.to_json().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error: io::Error| failure(path, &error))
    }

    /// Adds what this one knows to a file, which need not exist. Of writers at the same time each waits for the one
    /// before, so none undoes what another wrote. (They lock a file beside it, which stays.)
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::DamagedTuning`] if there is a file that is damaged, which is left as it is.
    pub fn add_to(&self, path: &Path) -> Result<()> {
        let lock_path = path.with_extension("lock");
        let lock = || {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            let lock = File::create(&lock_path)?;
            fs4::FileExt::lock(&lock)?;
            Ok(lock)
        };
        // Until the end of the function; closing the file unlocks it.
        let _lock = lock().map_err(|error: io::Error| failure(&lock_path, &error))?;
        let mut all = match fs::read(path) {
            Ok(bytes) => Self::from_json(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(failure(path, &error)),
        };
        all.merge(self.clone());
        all.save(path)
    }
}

fn failure(path: &Path, error: &io::Error) -> Error {
    Error::File { path: path.into(), message: error.to_string() }
}
