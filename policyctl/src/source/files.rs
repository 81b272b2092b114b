//! States from files: `-f FILE|DIR|-`. [`take`] reads one of them, or all of a folder; [`bytes`] is what a file holds.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use policy_compiler::files::Gather;

use crate::progress::Progress;

/// Files from here on are refused: nothing that large is meant, and it would not fit in memory as objects.
const MAX_SIZE: u64 = 100_000_000;

/// Takes in what `name` names. With `replaces`, objects that are there already are replaced.
pub(super) fn take(name: &str, gather: &mut Gather, replaces: bool) -> anyhow::Result<()> {
    if name == "-" {
        gather.file("stdin", &bytes(name)?, replaces);
        return Ok(());
    }
    let path = Path::new(name);
    let metadata = fs::metadata(path).with_context(|| format!("{name} can't be read"))?;
    if !metadata.is_dir() {
        gather.file(name, &read(path)?, replaces);
        return Ok(());
    }
    let found = below(path)?;
    let mut progress = Progress::begin();
    for (done, path) in found.iter().enumerate() {
        progress.tell(|| format!("reading {name}: {done} of {} files", found.len()));
        gather.file(&path.display().to_string(), &read(path)?, replaces);
    }
    Ok(())
}

/// All object files of a folder and those in it, in the order in which the agent reads them, too: of an object that is
/// there twice the last one counts.
pub(crate) fn below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let metadata = fs::metadata(folder).with_context(|| format!("{} can't be read", folder.display()))?;
    let mut found = Vec::new();
    list(folder, &mut vec![(metadata.dev(), metadata.ino())], &mut found)?;
    ensure!(!found.is_empty(), "{} holds no file whose name ends in .yaml, .yml or .json", folder.display());
    found.sort();
    Ok(found)
}

/// What one file holds; `-` is stdin.
pub(crate) fn bytes(name: &str) -> anyhow::Result<Vec<u8>> {
    if name != "-" {
        return read(Path::new(name));
    }
    let mut bytes = Vec::new();
    io::stdin().take(MAX_SIZE + 1).read_to_end(&mut bytes).context("stdin can't be read")?;
    ensure!(bytes.len() as u64 <= MAX_SIZE, "stdin holds more than {} MB; {SMALLER}", MAX_SIZE / 1_000_000);
    Ok(bytes)
}

const SMALLER: &str = "leave out what verdicts don't depend on: pods, namespaces, nodes, policies, services and \
                       endpointslices are enough";

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("{} can't be read", path.display());
    let file = fs::File::open(path).with_context(unreadable)?;
    let size = file.metadata().with_context(unreadable)?.len();
    let too_large = || format!("{} holds more than {} MB; {SMALLER}", path.display(), MAX_SIZE / 1_000_000);
    ensure!(size <= MAX_SIZE, too_large());
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    // a pipe says nothing of its size
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).with_context(unreadable)?;
    ensure!(bytes.len() as u64 <= MAX_SIZE, too_large());
    Ok(bytes)
}

/// All object files below a folder, without those whose names are hidden: as the agent reads a folder. A folder in
/// `visited` is left out, because a link may lead back up.
fn list(folder: &Path, visited: &mut Vec<(u64, u64)>, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unreadable = || format!("{} can't be read", folder.display());
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        let metadata = fs::metadata(&path).with_context(|| format!("{} can't be read", path.display()))?;
        if metadata.is_dir() {
            let identity = (metadata.dev(), metadata.ino());
            if !visited.contains(&identity) {
                visited.push(identity);
                list(&path, visited, found)?;
            }
        } else if matches!(path.extension().and_then(|extension| extension.to_str()), Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
    Ok(())
}
