//! Atomic writes of files.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Writes a file to a temporary name and renames it at the end, so no reader sees a part of it.
///
/// An existing file keeps its permissions, and a symbolic link to one stays a link. A pipe or a device is written to,
/// not replaced.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let existing = fs::metadata(&target).ok();
    if existing.as_ref().is_some_and(|metadata| !metadata.is_file()) {
        return fs::OpenOptions::new().write(true).open(&target)?.write_all(bytes);
    }
    // Made as any new file is. The crate's own lets only the user read it, and its errors have the temporary name.
    let create = |path: &Path| fs::OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = tempfile::Builder::new().make_in(folder(&target), create)?;
    file.as_file_mut().write_all(bytes)?;
    if let Some(metadata) = existing {
        file.as_file().set_permissions(metadata.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

/// The folder of a file.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_file_is_replaced_as_a_shell_would_write_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("plain"), "").unwrap();
        std::os::unix::fs::symlink("target", path("link")).unwrap();
        fs::write(path("target"), "old").unwrap();

        fs::set_permissions(path("target"), fs::Permissions::from_mode(0o640)).unwrap();

        write(&path("link"), b"new").unwrap();
        write(&path("file"), b"new").unwrap();
        assert!(fs::symlink_metadata(path("link")).unwrap().is_symlink());
        assert_eq!(fs::read(path("target")).unwrap(), b"new");
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode();
        assert_eq!((mode("target") & 0o777, mode("file")), (0o640, mode("plain")));
        // No temporary file remains, not even after a failure.
        let error = write(&path("none/file"), b"new").unwrap_err();
        // Callers say which file it is. It is not the temporary one.
        assert_eq!((error.kind(), error.to_string().contains("none")), (io::ErrorKind::NotFound, false), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
