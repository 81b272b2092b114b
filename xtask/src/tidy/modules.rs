//! Every Rust file is a module of some crate: a file that no `mod` names is not compiled, and its tests never run.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use cargo_metadata::Metadata;

use super::{Finding, Source};

pub(super) fn check(workspaces: &[&Metadata], root: &Path, sources: &[Source]) -> Vec<Finding> {
    let packages = workspaces.iter().flat_map(|workspace| workspace.workspace_packages());
    let roots = packages.flat_map(|package| &package.targets);
    let roots: Vec<PathBuf> =
        roots.filter_map(|target| target.src_path.as_std_path().strip_prefix(root).ok().map(Path::to_owned)).collect();
    let reached = reached(&roots, sources);
    sources
        .iter()
        .filter(|source| !reached.contains(&source.file))
        .map(|source| Finding {
            file: source.file.clone(),
            line: 1,
            message: "is no module of any crate: nothing compiles it".to_owned(),
        })
        .collect()
}

/// The files that are reached from the roots of the crates through `mod` declarations.
fn reached(roots: &[PathBuf], sources: &[Source]) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<(PathBuf, bool)> = roots.iter().map(|file| (file.clone(), true)).collect();
    while let Some((file, is_root)) = waiting.pop() {
        let Some(source) = sources.iter().find(|source| source.file == file) else { continue };
        if !reached.insert(file.clone()) {
            continue;
        }
        let parent = file.parent().unwrap_or(Path::new("")).to_owned();
        let is_mod_rs = file.file_name().is_some_and(|name| name == "mod.rs");
        let folder = match file.file_stem() {
            Some(stem) if !is_root && !is_mod_rs => parent.join(stem),
            _ => parent.clone(),
        };
        for declaration in declarations(&source.text) {
            let candidates = match declaration {
                Declaration::Named(name) => {
                    vec![folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]
                }
                Declaration::At(path) => vec![parent.join(path)],
            };
            waiting.extend(candidates.into_iter().map(|candidate| (normal(&candidate), false)));
        }
    }
    reached
}

/// A module that lies in a file of its own.
#[derive(Debug, PartialEq, Eq)]
enum Declaration<'a> {
    /// `mod name;`
    Named(&'a str),
    /// `#[path = "path"] mod name;`
    At(&'a str),
}

fn declarations(text: &str) -> Vec<Declaration<'_>> {
    let mut found = Vec::new();
    let mut path = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next();
            continue;
        }
        let without_visibility = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(')').map_or("", |(_, rest)| rest),
            Some(rest) => rest,
            None => line,
        };
        let declared = without_visibility.trim_start().strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
        if let Some(name) = declared {
            found.push(path.take().map_or(Declaration::Named(name), Declaration::At));
        } else if !line.starts_with("#[") {
            path = None;
        }
    }
    found
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(file: &str, text: &str) -> Source {
        Source { file: file.into(), text: text.to_owned() }
    }

    #[test]
    fn finds_declarations() {
        let text = "pub mod a;\nmod b;\n    pub(crate) mod c;\nmod d {\n// mod e;\n#[path = \"../f.rs\"]\nmod g;\n";
        let expected =
            [Declaration::Named("a"), Declaration::Named("b"), Declaration::Named("c"), Declaration::At("../f.rs")];
        assert_eq!(declarations(text), expected);
    }

    #[test]
    fn follows_modules_and_misses_orphans() {
        let sources = [
            source("x/src/lib.rs", "mod a;\n"),
            source("x/src/a.rs", "mod b;\nmod c;\n"),
            source("x/src/a/b.rs", ""),
            source("x/src/a/c/mod.rs", "mod d;"),
            source("x/src/a/c/d.rs", "#[path = \"../../e.rs\"]\nmod e;\n"),
            source("x/src/e.rs", ""),
            source("x/src/orphan.rs", "mod a;"),
        ];
        let reached = reached(&["x/src/lib.rs".into()], &sources);
        let missed: Vec<_> =
            sources.iter().map(|source| &source.file).filter(|file| !reached.contains(*file)).collect();
        assert_eq!(missed, [Path::new("x/src/orphan.rs")]);
    }
}
