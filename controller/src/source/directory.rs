//! A directory of YAML files as a source: it is watched, and read again when something in it changes.
//!
//! Nothing is taken from an event but the hint that a file has changed: the directory is listed again each time, so that
//! a lost event costs time, not truth. A file that somebody is writing is read once it is closed, or after a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};
use policy_compiler::{Event, diagnostic::Severity};
use tokio::sync::mpsc;

use super::{
    Error, Problem, Source, Update,
    index::Index,
    listing::{self, Fingerprint},
};

/// How long nothing must have happened before the directory is read again.
const QUIET: Duration = Duration::from_millis(15);
/// How long it may go on happening.
const BOUND: Duration = Duration::from_millis(150);
/// How long a file that is being written is waited for.
const WRITING_BOUND: Duration = Duration::from_secs(1);
/// The directory is listed this often even if nothing is heard: inotify loses files in folders that are just being made.
const RELIST: Duration = Duration::from_secs(10);
/// The same while the directory is gone.
const LOST_RELIST: Duration = Duration::from_secs(1);

/// A directory of YAML files, folders in it included.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The directory at `root`, which has to be there.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let this = Self { root: root.into() };
        fs::read_dir(&this.root).map_err(|source| this.not_a_directory(source))?;
        Ok(this)
    }
}

impl Source for Directory {
    async fn run(self, updates: mpsc::Sender<Update>) -> Result<(), Error> {
        let (heard, mut hearing) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event| {
            // the receiver lives as long as the watcher
            let _ = heard.send(event);
        })
        .map_err(|error| self.unwatchable(error))?;
        // taken before the watch: if another directory takes the name in between, it is watched after the first reading
        let mut watched = Some(listing::inode(&self.root).map_err(|source| self.not_a_directory(source))?);
        watcher.watch(&self.root, RecursiveMode::Recursive).map_err(|error| self.unwatchable(error))?;

        let mut folder = Folder::new(self.root.clone());
        let mut hints = Hints { first: Some(Instant::now()), ..Hints::default() };
        let mut first = true;
        loop {
            let seen = hints.first.unwrap_or_else(Instant::now);
            let (named, writing) = hints.take(Instant::now());
            let read = tokio::task::spawn_blocking(move || {
                let read = folder.read(&named, &writing);
                (folder, read)
            });
            // a panic there is a bug, and ends the process like any other
            let read = read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            folder = read.0;
            if let Some(update) = read.1.into_update(seen, first)
                && updates.send(update).await.is_err()
            {
                return Ok(());
            }
            first = false;
            if folder.found != watched {
                // gone, or another directory of the same name; the old watch may have gone with the old one
                _ = watcher.unwatch(&self.root);
                watched = folder.found.filter(|_| watcher.watch(&self.root, RecursiveMode::Recursive).is_ok());
                // what changed between the reading and the watch was not heard
                hints.first = watched.map(|_| Instant::now());
            }
            let relist = Instant::now() + if watched.is_none() { LOST_RELIST } else { RELIST };
            while Instant::now() < hints.due().unwrap_or(relist) {
                tokio::select! {
                    event = hearing.recv() => hints.note(event, Instant::now()),
                    () = tokio::time::sleep_until(hints.due().unwrap_or(relist).into()) => {}
                    () = updates.closed() => return Ok(()),
                }
            }
        }
    }
}

impl Directory {
    fn not_a_directory(&self, source: io::Error) -> Error {
        Error::NotADirectory { path: self.root.display().to_string(), source }
    }

    fn unwatchable(&self, source: notify::Error) -> Error {
        Error::Watch { path: self.root.display().to_string(), source }
    }
}

/// What the events so far say: when to read again, and what surely.
#[derive(Debug, Default)]
struct Hints {
    first: Option<Instant>,
    last: Option<Instant>,
    named: BTreeSet<PathBuf>,
    writing: BTreeMap<PathBuf, Instant>,
}

impl Hints {
    /// Takes note of what notify tells. `None` and errors mean that something may have been lost.
    fn note(&mut self, event: Option<notify::Result<notify::Event>>, now: Instant) {
        match event {
            Some(Ok(event)) => match event.kind {
                // our own reading, too
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                    for path in &event.paths {
                        self.writing.remove(path);
                    }
                    self.named.extend(event.paths);
                }
                EventKind::Access(_) => return,
                EventKind::Modify(ModifyKind::Data(_)) => {
                    for path in &event.paths {
                        self.writing.entry(path.clone()).or_insert(now);
                    }
                    self.named.extend(event.paths);
                }
                _ => {
                    for path in &event.paths {
                        self.writing.remove(path);
                    }
                    self.named.extend(event.paths);
                }
            },
            Some(Err(error)) => tracing::warn!(%error, "the directory's watch has a problem; it is listed again"),
            None => {}
        }
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// When the directory is to be read again; `None` if nothing has been heard.
    fn due(&self) -> Option<Instant> {
        let quiet = self.first.map(|first| self.last.map_or(first, |last| (last + QUIET).min(first + BOUND)));
        let writing = self.writing.values().min().map(|since| *since + WRITING_BOUND);
        match (quiet, writing) {
            (None, None) => None,
            (quiet, writing) => quiet.into_iter().chain(writing).min(),
        }
    }

    /// The files to read whatever their fingerprints say, and those not to read yet. Starts afresh.
    fn take(&mut self, now: Instant) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
        self.writing.retain(|_, since| now < *since + WRITING_BOUND);
        (self.first, self.last) = (None, None);
        let writing: BTreeSet<PathBuf> = self.writing.keys().cloned().collect();
        let (later, named) = std::mem::take(&mut self.named).into_iter().partition(|path| writing.contains(path));
        self.named = later;
        (named, writing)
    }
}

/// The directory as it was last read.
#[derive(Debug)]
struct Folder {
    root: PathBuf,
    fingerprints: BTreeMap<PathBuf, Fingerprint>,
    index: Index,
    /// What is wrong with the files' contents.
    in_files: Vec<Problem>,
    /// All that is wrong.
    problems: Arc<[Problem]>,
    /// Device and inode of the directory itself; `None` if it is gone: its objects stay, and it is looked for.
    found: Option<(u64, u64)>,
}

/// What one reading found.
#[derive(Debug)]
struct Read {
    events: Vec<Event>,
    problems: Arc<[Problem]>,
    new_problems: bool,
}

impl Read {
    fn into_update(self, seen: Instant, first: bool) -> Option<Update> {
        let worth_telling = first || self.new_problems || !self.events.is_empty();
        worth_telling.then_some(Update { events: self.events, seen, problems: self.problems })
    }
}

impl Folder {
    fn new(root: PathBuf) -> Self {
        let fingerprints = BTreeMap::new();
        let (index, in_files, problems) = (Index::default(), Vec::new(), Arc::new([]));
        Self { root, fingerprints, index, in_files, problems, found: None }
    }

    /// Lists the directory, reads what changed and everything in `named`, nothing in `writing`.
    fn read(&mut self, named: &BTreeSet<PathBuf>, writing: &BTreeSet<PathBuf>) -> Read {
        let (mut problems, mut told, mut changed) = (Vec::new(), Vec::new(), false);
        match listing::list(&self.root) {
            Ok(listing) => {
                self.found = Some(listing.root);
                let mut missing = std::mem::take(&mut self.fingerprints);
                for (path, fingerprint) in listing.files {
                    let before = missing.remove(&path);
                    if writing.contains(&path) {
                        // its fingerprint stays the old one, so that it is read later
                        self.fingerprints.extend(before.map(|before| (path, before)));
                        continue;
                    }
                    if before != Some(fingerprint) || named.contains(&path) {
                        self.read_file(&path);
                        changed = true;
                    }
                    self.fingerprints.insert(path, fingerprint);
                }
                for (path, error) in &listing.unreadable {
                    problems.push(Problem::error(format!("{}: can't be read: {error}", path.display())));
                }
                for (path, fingerprint) in missing {
                    if listing.unreadable.iter().any(|(folder, _)| path.starts_with(folder)) {
                        self.fingerprints.insert(path, fingerprint);
                    } else {
                        self.index.remove(&path);
                        changed = true;
                    }
                }
            }
            Err(error) => {
                self.found = None;
                let root = self.root.display();
                problems
                    .push(Problem::error(format!("{root}: can't be read, so its objects stay as they were: {error}")));
            }
        }
        if changed {
            let (events, wrong) = self.index.changes();
            (self.in_files, told) = (wrong, events);
        }
        problems.extend(self.in_files.iter().cloned());
        let new_problems = self.tell(problems);
        Read { events: told, problems: Arc::clone(&self.problems), new_problems }
    }

    fn read_file(&mut self, path: &Path) {
        match fs::read(path) {
            Ok(bytes) => self.index.put(path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.index.remove(path),
            Err(error) => {
                self.index.keep(path, Problem::error(format!("{}: can't be read: {error}", path.display())));
            }
        }
    }

    /// Logs each problem when it appears and when it is gone. Returns whether there was anything to log.
    fn tell(&mut self, now: Vec<Problem>) -> bool {
        let before: BTreeSet<&Problem> = self.problems.iter().collect();
        let after: BTreeSet<&Problem> = now.iter().collect();
        for problem in after.difference(&before) {
            match problem.severity {
                Severity::Error => tracing::error!("{}", problem.text),
                Severity::Warning => tracing::warn!("{}", problem.text),
            }
        }
        for problem in before.difference(&after) {
            tracing::info!("no longer: {}", problem.text);
        }
        let changed = before != after;
        self.problems = now.into();
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_named_is_read_although_it_looks_the_same() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.yaml");
        let pod = |name: &str| format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}}}");
        fs::write(&path, pod("a")).unwrap();
        let mut folder = Folder::new(root.path().to_path_buf());
        let none = BTreeSet::new();
        assert!(!folder.read(&none, &none).events.is_empty());
        fs::write(&path, pod("b")).unwrap();
        // as two writes within one tick of a kernel whose time stamps are that coarse
        folder.fingerprints = listing::list(root.path()).unwrap().files.into_iter().collect();
        assert!(folder.read(&none, &none).events.is_empty());
        assert!(!folder.read(&BTreeSet::from([path]), &none).events.is_empty());
    }

    #[test]
    fn when_to_read_again() {
        let start = Instant::now();
        let event = |kind| Some(Ok(notify::Event::new(kind).add_path("a".into())));
        let after = |millis| start + Duration::from_millis(millis);
        let created = EventKind::Create(notify::event::CreateKind::File);
        let written = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let mut hints = Hints::default();
        hints.note(event(EventKind::Access(AccessKind::Open(AccessMode::Read))), start);
        assert_eq!(hints.due(), None, "our own reading is no news");
        hints.note(event(created), start);
        assert_eq!(hints.due(), Some(start + QUIET));
        for millis in 1..200 {
            hints.note(event(created), after(millis));
        }
        assert_eq!(hints.due(), Some(start + BOUND), "it may not go on for ever");
        hints.take(after(150));
        hints.note(event(written), after(200));
        let (named, writing) = hints.take(after(215));
        assert_eq!((named.len(), writing.len()), (0, 1));
        assert_eq!(hints.due(), Some(after(200) + WRITING_BOUND));
        hints.note(event(closed), after(300));
        let (named, writing) = hints.take(after(315));
        assert_eq!((named.len(), writing.len()), (1, 0));
        assert_eq!(hints.due(), None);
    }
}
