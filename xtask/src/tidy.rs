//! `cargo xtask tidy`: rules of the workspace that no compiler knows. Each finding names file and line.

mod arrows;
mod modules;
mod text;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use cargo_metadata::MetadataCommand;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// From the workspace's folder.
    file: PathBuf,
    /// From 1.
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// A Rust file of the workspace.
pub(crate) struct Source {
    /// From the workspace's folder.
    file: PathBuf,
    text: String,
}

/// Prints all findings; fails if there is one.
pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let findings = check(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} not tidy", findings.len());
    Ok(ExitCode::FAILURE)
}

/// All findings, sorted.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec();
    let metadata = metadata.context("cargo metadata failed")?;
    let sources = sources(root)?;
    let mut findings = arrows::check(&metadata, root)?;
    // a workspace of its own, but its files are to be as tidy
    let fuzz = MetadataCommand::new().manifest_path(root.join("fuzz/Cargo.toml")).no_deps().exec();
    let fuzz = fuzz.context("cargo metadata of fuzz/ failed")?;
    findings.extend(modules::check(&[&metadata, &fuzz], root, &sources));
    findings.extend(sources.iter().flat_map(text::check));
    findings.sort();
    Ok(findings)
}

/// Every Rust file below the workspace's folder that cargo did not make.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut folders = vec![root.to_owned()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                sources.push(Source { file: path.strip_prefix(root).unwrap_or(&path).to_owned(), text });
            }
        }
    }
    Ok(sources)
}
