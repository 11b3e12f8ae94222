//! The user's tuning file: its place, and safe writes to it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use gpuconv::Tuning;

use super::{Failure, Outcome, files, with_cause};

/// The path of this user's tuning file: `gpuconv/tuning.json` in the platform's cache folder (`$XDG_CACHE_HOME` or
/// `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`). `None` if the user has no home.
pub fn of_user() -> Option<PathBuf> {
    let folders = etcetera::base_strategy::choose_native_strategy().ok()?;
    Some(folders.cache_dir().join("gpuconv").join("tuning.json"))
}

/// A file that belongs to a tuning file: beside it, with more behind its whole name. To put another extension in the
/// place of its own could name a file of somebody else's, such as `Cargo.lock` for `Cargo.json`.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Reads a tuning file.
pub fn load(path: &Path) -> Outcome<Tuning> {
    let bytes = fs::read(path).map_err(|error| failure(path, &error))?;
    Tuning::from_json(&bytes).map_err(|error| failure(path, &with_cause(&error)))
}

/// Adds a tuning's times to a file. The file need not exist, but its folder must. A damaged file is not changed.
///
/// Concurrent writers wait for each other, so no write is lost. They lock a file beside it, which stays.
pub fn add_to(path: &Path, tuning: &Tuning) -> Outcome {
    let lock_path = beside(path, "lock");
    let lock = || {
        // Only the lock counts. What the file may hold stays.
        let lock = File::options().write(true).create(true).truncate(false).open(&lock_path)?;
        fs4::FileExt::lock(&lock)?;
        Ok(lock)
    };
    // Held until the end of the function: closing the file unlocks it.
    let _lock = lock().map_err(|error: io::Error| failure(&lock_path, &error))?;
    let is_there = fs::exists(path).map_err(|error| failure(path, &error))?;
    let mut all = if is_there { load(path)? } else { Tuning::default() };
    all.merge(tuning.clone());
    files::write(path, all.to_json().as_bytes()).map_err(|error| failure(path, &error))
}

fn failure(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Call(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_writers_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tuning.json");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = path.clone();
                scope.spawn(move || {
                    for size in 1..20 {
                        let line = format!("pointwise {writer}x8x{size}x{size} -> 8");
                        let json = serde_json::json!({"format": 1, "devices": [{
                            "device": "a", "driver": "b", "backend": "vulkan", "version": "0.1.0", "rates": null,
                            "runs": {&line: {"direct/4x4": 0.5}},
                        }]});
                        add_to(&path, &Tuning::from_json(json.to_string().as_bytes()).unwrap()).unwrap();
                        // A concurrent reader sees a whole file.
                        assert!(load(&path).unwrap().to_json().contains(&line));
                    }
                });
            }
        });
        assert_eq!(load(&path).unwrap().counts(), (4 * 19, 1));
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["tuning.json", "tuning.json.lock"]);

        // A damaged file is not changed, so that the user can look at it.
        fs::write(&path, "{").unwrap();
        let refused = |outcome| matches!(outcome, Err(Failure::Call(message)) if message.contains("damaged"));
        assert!(refused(add_to(&path, &Tuning::default())));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }

    #[test]
    fn other_files_keep_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (other, tuning) in [("Cargo.lock", "Cargo.json"), ("a.json.lock", "a.json")] {
            fs::write(path(other), "precious").unwrap();
            add_to(&path(tuning), &Tuning::default()).unwrap();
            assert_eq!(fs::read_to_string(path(other)).unwrap(), "precious");
        }
        // A tuning file may have any name.
        let json = r#"{"format": 1, "devices": [{"device": "a", "driver": "b", "backend": "vulkan", "version": "0.1.0",
            "rates": null, "runs": {"pointwise 1x8x4x4 -> 8": {"direct/4x4": 0.5}}}]}"#;
        for name in ["times.lock", "times"] {
            add_to(&path(name), &Tuning::from_json(json.as_bytes()).unwrap()).unwrap();
            add_to(&path(name), &Tuning::default()).unwrap();
            assert_eq!(load(&path(name)).unwrap().counts(), (1, 1), "{name}");
        }
        assert!(add_to(&path("none/tuning.json"), &Tuning::default()).is_err() && !path("none").exists());
    }
}
