//! The files that a question is asked of: `-f FILE`, `-f DIR`, `-f -`.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use policy_compiler::{
    cluster::Cluster,
    diagnostic::Severity,
    files::{self, Assembled, Parsed},
};

/// What was read.
#[derive(Debug)]
pub(crate) struct Input {
    /// All objects.
    pub(crate) cluster: Cluster,
    /// Something in them is wrong, so that an answer may be about less than what was meant.
    pub(crate) has_errors: bool,
    /// The names as they were given.
    pub(crate) names: Vec<String>,
}

/// Reads all of it, and tells what is wrong with it on stderr.
pub(crate) fn read(names: &[String]) -> anyhow::Result<Input> {
    let mut parsed = Vec::new();
    for name in names {
        read_one(name, &mut parsed)?;
    }
    let Assembled { cluster, diagnostics } = files::assemble(&parsed);
    for diagnostic in &diagnostics {
        eprintln!("{diagnostic}");
    }
    let has_errors = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Ok(Input { cluster, has_errors, names: names.to_vec() })
}

fn read_one(name: &str, parsed: &mut Vec<Parsed>) -> anyhow::Result<()> {
    if name == "-" {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).context("stdin can't be read")?;
        parsed.push(files::parse("stdin", &bytes));
        return Ok(());
    }
    let path = Path::new(name);
    let metadata = fs::metadata(path).with_context(|| format!("{name} can't be read"))?;
    if !metadata.is_dir() {
        parsed.push(read_file(path)?);
        return Ok(());
    }
    let mut found = Vec::new();
    list(path, &mut vec![(metadata.dev(), metadata.ino())], &mut found)?;
    ensure!(!found.is_empty(), "{name} holds no file whose name ends in .yaml, .yml or .json");
    // the order in which the agent reads them, too: of an object that is there twice the last one counts
    found.sort();
    for path in found {
        parsed.push(read_file(&path)?);
    }
    Ok(())
}

fn read_file(path: &Path) -> anyhow::Result<Parsed> {
    let bytes = fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    Ok(files::parse(&path.display().to_string(), &bytes))
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
