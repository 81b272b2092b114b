//! The pin folder: where maps, programs and links lie in the BPF file system, and who owns it. Entry point:
//! [`Pins::open`].
//!
//! ```text
//! <pin-dir>/v2/<MAP>              maps, `<MAP>-next` while a larger one is being filled
//! <pin-dir>/v2/sluice_to_pod      programs, for whoever attaches one without an agent
//! <pin-dir>/links/<ifindex>-to    TCX links, `to` the pod and `from` it
//! ```

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use enforcer_abi::{Direction, LAYOUT_VERSION};
use thiserror::Error;

const SUCCESSOR: &str = "-next";
/// How long an agent waits for the lock: whoever attaches without an agent has it for a few milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// What can go wrong with the pin folder.
#[derive(Debug, Error)]
pub enum PinsError {
    /// Another process has the lock.
    #[error("the pins below {path} are in use by {holder}: only one agent may run on a node; stop that one first")]
    InUse {
        /// The pin folder.
        path: String,
        /// Process id and command, as far as they can be seen.
        holder: String,
    },
    /// No agent has ever run here.
    #[error("nothing is pinned at {path}: the agent has not run on this node since it was booted")]
    Nothing {
        /// The pin folder.
        path: String,
    },
    /// A call on the BPF file system failed.
    #[error("{action} {path}")]
    File {
        /// What was tried, beginning with 'could not'.
        action: &'static str,
        /// Where.
        path: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl PinsError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.display().to_string(), source }
    }
}

/// The pin folder, locked for as long as this value lives.
///
/// The lock is flock(2) on the folder itself, so it needs no other place, reaches every container that sees the same
/// BPF file system, and ends with the process however it ends.
#[derive(Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    lock: File,
}

impl Pins {
    /// Makes the folder if need be and locks it.
    pub(crate) fn open(root: &Path) -> Result<Self, PinsError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            for path in [root.to_path_buf(), root.join(layout_name()), root.join("links")] {
                make_dir(&path)?;
            }
            let lock = File::open(root).map_err(PinsError::file("could not open", root))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(LOCK_PAUSE);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(PinsError::InUse { path: root.display().to_string(), holder: holder(&lock) });
                }
                Err(TryLockError::Error(source)) => return Err(PinsError::file("could not lock", root)(source)),
            }
            // A clean-up may have removed the folder between the two calls.
            let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
            match (lock.metadata(), fs::metadata(root)) {
                (Ok(locked), Ok(there)) if same(&locked, &there) => {
                    return Ok(Self { root: root.to_path_buf(), lock });
                }
                _ => {}
            }
        }
    }

    /// Locks the folder that is there, for whoever stands in for an agent that isn't; `None` if somebody has the lock.
    pub(crate) fn open_unattended(root: &Path) -> Result<Option<Self>, PinsError> {
        let lock = File::open(root).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => PinsError::Nothing { path: root.display().to_string() },
            _ => PinsError::file("could not open", root)(source),
        })?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { root: root.to_path_buf(), lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(PinsError::file("could not lock", root)(source)),
        }
    }

    /// The folders of all layouts that are pinned, this one's first, then the newest.
    pub(crate) fn layouts(&self) -> Result<Vec<PathBuf>, PinsError> {
        let mut others = self.other_layouts()?;
        others.sort_unstable_by_key(|path| std::cmp::Reverse(layout_number(path)));
        let own = self.root.join(layout_name());
        Ok(own.is_dir().then_some(own).into_iter().chain(others).collect())
    }

    /// Where a map or program of this layout is pinned.
    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.root.join(layout_name()).join(name)
    }

    /// Where its successor is pinned until it takes over. (The BPF file system refuses names with dots.)
    pub(crate) fn next(&self, name: &str) -> PathBuf {
        self.object(&format!("{name}{SUCCESSOR}"))
    }

    /// Lets the successor take its place, atomically. One that did so before is fine, for a second try.
    pub(crate) fn adopt(&self, name: &str) -> Result<(), PinsError> {
        let path = self.object(name);
        match fs::rename(self.next(name), &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.exists() => Ok(()),
            other => other.map_err(PinsError::file("could not replace the pin", &path)),
        }
    }

    /// Removes successors that a process left when it was killed before they took over.
    pub(crate) fn remove_successors(&self) -> Result<(), PinsError> {
        for path in entries(&self.root.join(layout_name()))? {
            if path.to_string_lossy().ends_with(SUCCESSOR) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Where the link of an interface and direction is pinned.
    pub(crate) fn link(&self, ifindex: u32, direction: Direction) -> PathBuf {
        link(&self.root, ifindex, direction)
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// All pinned links.
    pub(crate) fn links(&self) -> Result<Vec<(u32, Direction)>, PinsError> {
        let parse = |path: &PathBuf| {
            let (ifindex, suffix) = path.file_name()?.to_str()?.split_once('-')?;
            let direction = match suffix {
                "to" => Direction::Ingress,
                "from" => Direction::Egress,
                _ => return None,
            };
            Some((ifindex.parse().ok()?, direction))
        };
        let mut links: Vec<_> = entries(&self.root.join("links"))?.iter().filter_map(parse).collect();
        links.sort_unstable();
        Ok(links)
    }

    /// Whether maps of another layout are pinned.
    pub(crate) fn has_other_layouts(&self) -> Result<bool, PinsError> {
        Ok(!self.other_layouts()?.is_empty())
    }

    /// Removes the maps and programs of other layouts. Links that still run such programs keep them alive.
    pub(crate) fn remove_other_layouts(&self) -> Result<(), PinsError> {
        self.other_layouts()?.iter().try_for_each(|path| remove(path))
    }

    fn other_layouts(&self) -> Result<Vec<PathBuf>, PinsError> {
        let is_other = |path: &PathBuf| layout_number(path).is_some_and(|number| number != LAYOUT_VERSION);
        Ok(entries(&self.root)?.into_iter().filter(is_other).collect())
    }

    /// Removes the folder and all in it.
    pub(crate) fn remove_all(self) -> Result<(), PinsError> {
        remove(&self.root)
    }
}

/// A child that some other thread is just starting has the descriptor, too, until it executes its program; so closing
/// ours would not end the lock at once.
impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(%error, "the lock on the pins ends with the process");
        }
    }
}

/// Where the link of an interface and direction is pinned below a pin folder.
pub(crate) fn link(root: &Path, ifindex: u32, direction: Direction) -> PathBuf {
    let suffix = match direction {
        Direction::Ingress => "to",
        Direction::Egress => "from",
    };
    root.join("links").join(format!("{ifindex}-{suffix}"))
}

fn layout_name() -> String {
    format!("v{LAYOUT_VERSION}")
}

fn layout_number(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()
}

fn make_dir(path: &Path) -> Result<(), PinsError> {
    match fs::DirBuilder::new().mode(0o700).recursive(true).create(path) {
        Ok(()) => Ok(()),
        Err(source) => Err(PinsError::file("could not make the folder", path)(source)),
    }
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, PinsError> {
    let read = || fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(PinsError::file("could not read the folder", path))
}

/// Removes a pin or a folder of pins; one that is gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<(), PinsError> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(PinsError::file("could not remove", path)),
    }
}

/// Who holds the lock on `file`, from /proc/locks: `1: FLOCK ADVISORY WRITE 4711 00:1c:42 0 EOF`.
fn holder(file: &File) -> String {
    let unknown = || "another process, which is not visible from here".to_owned();
    let (Ok(metadata), Ok(locks)) = (file.metadata(), fs::read_to_string("/proc/locks")) else { return unknown() };
    // The numbers before the inode are the file system's own device, which stat may show differently.
    let suffix = format!(":{}", metadata.ino());
    let pid = locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, place, ..] if place.ends_with(&suffix) => pid.parse::<u32>().ok(),
            _ => None,
        }
    });
    let Some(pid) = pid else { return unknown() };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(command) => format!("process {pid} ({})", command.trim()),
        Err(_) => format!("process {pid}"),
    }
}
