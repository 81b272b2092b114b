//! The cases below a folder: [`find`]. A case is a folder with a file `expected.json` (or `.yaml`), or one file with a
//! `Matrix` among its documents.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::expected::Expected;
use crate::source;

/// Objects, and what is expected of them.
pub(super) struct Case {
    /// Its path without that of the folder that was asked for.
    pub(super) name: String,
    /// What has the objects.
    pub(super) objects: Vec<String>,
    /// Where the expectations are, or would be.
    pub(super) path: PathBuf,
    /// They are one of the documents there.
    is_document: bool,
    /// `None` if there are none yet.
    pub(super) expected: anyhow::Result<Option<Expected>>,
}

/// What a file of expectations is called, without its ending.
const EXPECTED: &str = "expected";

/// All cases of a folder, by name; or the one that a file is.
pub(super) fn find(name: &str) -> anyhow::Result<Vec<Case>> {
    let root = Path::new(name);
    if !fs::metadata(root).with_context(|| format!("{name} can't be read"))?.is_dir() {
        return Ok(vec![of_file(root, root)?]);
    }
    let files = source::below(root)?;
    let is_expected = |path: &Path| path.file_stem().is_some_and(|stem| stem == EXPECTED);
    let folders: BTreeSet<&Path> =
        files.iter().filter(|path| is_expected(path)).filter_map(|path| path.parent()).collect();
    let mut objects: BTreeMap<&Path, Vec<&PathBuf>> = folders.iter().map(|folder| (*folder, Vec::new())).collect();
    let mut rest: BTreeMap<&Path, Vec<&PathBuf>> = BTreeMap::new();
    for path in files.iter().filter(|path| !is_expected(path)) {
        // the nearest folder that has expectations
        let own = path.ancestors().skip(1).find(|folder| folders.contains(folder));
        match (own, path.parent()) {
            (Some(folder), _) => objects.entry(folder).or_default().push(path),
            (None, Some(folder)) => rest.entry(folder).or_default().push(path),
            (None, None) => {}
        }
    }
    let mut cases = Vec::new();
    for (folder, objects) in objects {
        let mut expected = files.iter().filter(|path| is_expected(path) && path.parent() == Some(folder));
        let path = expected.next().context("only folders that have some are here")?;
        if let Some(second) = expected.next() {
            bail!("{} and {} are both there; leave one", path.display(), second.display());
        }
        cases.push(of_folder(root, folder, &objects, path)?);
    }
    for (folder, files) in rest {
        let single = files.iter().map(|path| of_file(root, path)).collect::<anyhow::Result<Vec<_>>>()?;
        let has = |case: &Case| !matches!(case.expected, Ok(None));
        // without any expectations, files of one folder are one case
        if single.iter().any(has) {
            cases.extend(single);
        } else {
            let name = name_of(root, folder);
            let path = folder.join(format!("{EXPECTED}.json"));
            cases.push(Case { name, objects: written(&files), path, is_document: false, expected: Ok(None) });
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

fn of_folder(root: &Path, folder: &Path, objects: &[&PathBuf], path: &Path) -> anyhow::Result<Case> {
    let text = text(path)?;
    let expected = Expected::parse(&text).with_context(|| path.display().to_string()).map(Some);
    let name = name_of(root, folder);
    Ok(Case { name, objects: written(objects), path: path.to_path_buf(), is_document: false, expected })
}

fn of_file(root: &Path, path: &Path) -> anyhow::Result<Case> {
    let text = text(path)?;
    let found = documents(&text).into_iter().find(|(_, document)| is_matrix(document));
    // errors count the lines of the file
    let parse = |(lines, document): (usize, &str)| Expected::parse(&format!("{}{document}", "\n".repeat(lines)));
    let expected = found.map(|document| parse(document).with_context(|| path.display().to_string()));
    Ok(Case {
        name: name_of(root, path),
        objects: written(&[path]),
        path: path.to_path_buf(),
        is_document: true,
        expected: expected.transpose(),
    })
}

fn name_of(root: &Path, path: &Path) -> String {
    let rest = path.strip_prefix(root).unwrap_or(path);
    let own = if rest.as_os_str().is_empty() { path.file_name().map_or(path, Path::new) } else { rest };
    own.display().to_string()
}

fn written(paths: &[impl AsRef<Path>]) -> Vec<String> {
    paths.iter().map(|path| path.as_ref().display().to_string()).collect()
}

fn text(path: &Path) -> anyhow::Result<String> {
    let bytes = source::bytes(&path.display().to_string())?;
    String::from_utf8(bytes).with_context(|| format!("{} is not text in UTF-8", path.display()))
}

/// The documents of a stream of YAML, each from behind its marker to the next one, and how many lines are before it.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut begin, mut lines, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        // a marker is one in the middle of a text, too (YAML 1.2, 9.1.2)
        let is_end = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
        if line.strip_prefix("---").is_some_and(is_end) {
            found.push((lines, &text[begin..at]));
            (begin, lines) = (at + "---".len(), number);
        }
        at += line.len();
    }
    found.push((lines, &text[begin..]));
    found
}

/// Whether a document is meant to be a matrix; whether it is one is found out when it is read.
fn is_matrix(document: &str) -> bool {
    let mut lines = document.lines().map(str::trim_end);
    let has = |line: &str| {
        line.split_once(':')
            .is_some_and(|(key, kind)| key == "kind" && kind.trim().trim_matches(['"', '\'']) == "Matrix")
    };
    let is_block = lines.any(has);
    is_block || (document.trim_start().starts_with('{') && Expected::parse(document).is_ok())
}

impl Case {
    /// Writes down what is expected from now on.
    pub(super) fn write(&self, expected: &Expected) -> anyhow::Result<()> {
        let is_yaml = self.path.extension().is_some_and(|extension| extension != "json");
        let text = if self.is_document {
            let text = text(&self.path)?;
            let document = documents(&text).into_iter().find(|(_, document)| is_matrix(document));
            let own = expected.written(true)?;
            match document {
                Some((_, document)) => text.replacen(document, &format!("\n{own}"), 1),
                None => format!("{}\n---\n{own}", text.trim_end()),
            }
        } else {
            expected.written(is_yaml)?
        };
        fs::write(&self.path, text).with_context(|| format!("{} can't be written", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_at_their_markers() {
        #[track_caller]
        fn check(text: &str, expected: &[(usize, &str)]) {
            assert_eq!(documents(text), expected);
        }
        check("a: 1\n", &[(0, "a: 1\n")]);
        check(
            "---\na: 1\n--- # second\nb: |\n  ---\r\n---\r\nc: 1",
            &[(0, ""), (0, "\na: 1\n"), (2, " # second\nb: |\n  ---\r\n"), (5, "\r\nc: 1")],
        );
        check("a: ----\n---- b\n", &[(0, "a: ----\n---- b\n")]);
    }
}
