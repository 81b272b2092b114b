//! What the files of a directory say together, and what changes in it when one of them does. Pure: bytes in, events out.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use policy_compiler::{
    Event,
    cluster::Cluster,
    diagnostic::Severity,
    files::{self, Parsed},
};

use super::Problem;

/// The objects of all files. Of an object that several files hold, the last one in the order of paths counts, as it would
/// after `kubectl apply` of the folder.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: BTreeMap<PathBuf, File>,
    /// As it was last told.
    cluster: Cluster,
}

#[derive(Debug)]
struct File {
    /// What counts: what was last read without errors, or, if there never was such a time, what could be used.
    counts: Parsed,
    was_good: bool,
    /// Why what was read last doesn't count.
    bad: Vec<Problem>,
}

impl Index {
    /// The file now holds `bytes`. If they can't be read whole, what it held before stays.
    pub(super) fn put(&mut self, path: &Path, bytes: &[u8]) {
        let parsed = files::parse(&path.display().to_string(), bytes);
        let is_good = parsed.diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error);
        match self.files.get_mut(path) {
            Some(file) if file.was_good && !is_good => {
                file.bad = parsed.diagnostics.into_iter().map(Problem::from).collect();
                file.bad.push(stays(path));
            }
            _ => {
                let file = File { counts: parsed, was_good: is_good, bad: Vec::new() };
                self.files.insert(path.to_path_buf(), file);
            }
        }
    }

    /// The file could not be opened: what it held before stays.
    pub(super) fn keep(&mut self, path: &Path, problem: Problem) {
        let empty = || File { counts: Parsed::default(), was_good: false, bad: Vec::new() };
        let file = self.files.entry(path.to_path_buf()).or_insert_with(empty);
        file.bad = vec![problem];
        if file.was_good {
            file.bad.push(stays(path));
        }
    }

    /// The file is gone.
    pub(super) fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// What has changed since it was last told, and all that is wrong now.
    pub(super) fn changes(&mut self) -> (Vec<Event>, Vec<Problem>) {
        let assembled = files::assemble(self.files.values().map(|file| &file.counts));
        let events = assembled.cluster.events_since(&self.cluster);
        self.cluster = assembled.cluster;
        let bad = self.files.values().flat_map(|file| file.bad.iter().cloned());
        (events, bad.chain(assembled.diagnostics.into_iter().map(Problem::from)).collect())
    }
}

fn stays(path: &Path) -> Problem {
    Problem::error(format!("{}: its last good content stays in force until it can be read again", path.display()))
}
