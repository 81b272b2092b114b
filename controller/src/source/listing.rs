//! Which files a directory holds, and whether one has changed since it was read.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Tells two states of a file apart without reading it. Two writes within one tick of the kernel's clock look the same,
/// so a file that an event names is read whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    inode: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is below a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Device and inode of the directory itself.
    pub(super) root: (u64, u64),
    /// The files to be read, in any order.
    pub(super) files: Vec<(PathBuf, Fingerprint)>,
    /// What could not be looked at. Files below it are to be taken as unchanged.
    pub(super) unreadable: Vec<(PathBuf, io::Error)>,
}

/// Whether the name of a file says that it holds objects. Hidden files are editors' and kubelet's own.
fn is_object_file(path: &Path) -> bool {
    matches!(path.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json"))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// All object files below `root`, symbolic links followed (the files of a mounted ConfigMap are links), hidden names
/// left out. Fails if `root` itself can't be read.
pub(super) fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing { root: inode(root)?, ..Listing::default() };
    let mut folders = vec![(root.to_path_buf(), fs::read_dir(root)?)];
    let mut visited = vec![listing.root];
    while let Some((folder, entries)) = folders.pop() {
        for entry in entries {
            let path = match entry {
                Ok(entry) => entry.path(),
                Err(error) => {
                    listing.unreadable.push((folder.clone(), error));
                    continue;
                }
            };
            if is_hidden(&path) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    // a link may lead back up
                    let identity = (metadata.dev(), metadata.ino());
                    if !visited.contains(&identity) {
                        visited.push(identity);
                        match fs::read_dir(&path) {
                            Ok(entries) => folders.push((path, entries)),
                            Err(error) => gone_or(&mut listing, path, error),
                        }
                    }
                }
                Ok(metadata) if metadata.is_file() && is_object_file(&path) => {
                    listing.files.push((path, Fingerprint::of(&metadata)));
                }
                Ok(_) => {}
                Err(error) => gone_or(&mut listing, path, error),
            }
        }
    }
    Ok(listing)
}

pub(super) fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What vanished since its folder was read, and a link that leads nowhere, are simply not there.
fn gone_or(listing: &mut Listing, path: PathBuf, error: io::Error) {
    if error.kind() != io::ErrorKind::NotFound {
        listing.unreadable.push((path, error));
    }
}
