//! Files that are put in place whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

/// What ends the name of a file that is being written: no runtime reads such.
const NEW: &str = ".sluice-cni-new";

/// Writes a file beside `path`, makes sure that it is on the disk, and renames it. It belongs to whom the one before
/// belonged to, and what stands in its place if that is a link.
pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let new = with_ending(&path, NEW);
    let result = write(&path, &new, content, mode);
    if result.is_err() {
        // what was begun is of no use; the error that counts is the first one
        let _ = fs::remove_file(&new);
    }
    result
}

fn write(path: &Path, new: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let before = fs::metadata(path).ok();
    let mut file = File::create(new)?;
    file.write_all(content)?;
    let mode = before.as_ref().map_or(mode, |before| before.permissions().mode() & 0o7777);
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Some(before) = before {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
            chown(new, Some(before.uid()), Some(before.gid()))?;
        }
    }
    file.sync_all()?;
    fs::rename(new, path)?;
    sync_folder(path)
}

/// Gives a file another name; on the disk when this returns.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(to)
}

/// Removes a file; one that is gone is fine. Answers whether it was there.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `path` with something after its name.
pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, ToOwned::to_owned);
    name.push(ending);
    path.with_file_name(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_mode_and_a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        replace(&file, b"1", 0o755).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o755);
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"2", 0o755).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((fs::read(&file).unwrap(), fs::metadata(&file).unwrap().mode() & 0o777), (b"2".to_vec(), 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside them");
    }
}
