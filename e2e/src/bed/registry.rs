//! What this process has made on the machine and must remove again: namespaces, folders, pins, child processes. Owns
//! the names (`sluice-PID-NUMBER-LABEL`), the removal on signals and the removal of what killed processes left.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tokio::signal::unix::{SignalKind, signal};

/// Where `ip` looks for namespaces by name.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// The BPF file system, in which pins live.
pub(crate) const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, closed: false, leases: BTreeMap::new() });
static START: Once = Once::new();

struct Registry {
    next: u64,
    /// Set when a signal has begun the removal: nothing new may be made.
    closed: bool,
    leases: BTreeMap<u64, Resource>,
}

/// Something that outlives the process if nobody removes it.
#[derive(Clone, Debug)]
pub(crate) enum Resource {
    /// A namespace's file below [`NAMESPACES`].
    Namespace(PathBuf),
    /// A folder with what is in it; also a folder of pins.
    Folder(PathBuf),
    /// A child that nobody has waited for yet.
    Process(Pid),
    /// The folder of a lab, which tells all that belongs to it.
    Lab(PathBuf),
    /// Something on another cluster, which only its maker knows how to remove.
    Elsewhere(Undo),
}

/// What removes a resource.
#[derive(Clone)]
pub(crate) struct Undo(Arc<dyn Fn() + Send + Sync>);

impl Undo {
    pub(crate) fn new(undo: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(undo))
    }
}

impl fmt::Debug for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Undo")
    }
}

/// Removes its resource when dropped.
#[derive(Debug)]
pub(crate) struct Lease(u64);

impl Lease {
    /// Takes over the removal of `resource`, which may not be there yet.
    pub(crate) fn new(resource: Resource) -> Self {
        start();
        let mut registry = open_registry();
        registry.next += 1;
        let number = registry.next;
        registry.leases.insert(number, resource);
        Self(number)
    }

    /// Leaves the resource to others: it stays.
    pub(crate) fn forget(self) {
        open_registry().leases.remove(&self.0);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let resource = open_registry().leases.remove(&self.0);
        if let Some(resource) = resource {
            resource.remove();
        }
    }
}

impl Resource {
    fn remove(&self) {
        match self {
            Self::Namespace(path) => remove_namespace(path),
            Self::Folder(path) => remove_folder(path),
            Self::Process(pid) => {
                // Not waited for yet, so the number is still this child's; gone already is as good.
                let _ = kill(*pid, Signal::SIGKILL);
            }
            Self::Lab(path) => {
                if let Err(error) = crate::lab::remove(path) {
                    eprintln!("cannot remove the lab in {}: {error:#}", path.display());
                }
            }
            Self::Elsewhere(undo) => undo.0(),
        }
    }
}

/// A folder of its own for files and one for pins, both removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    files: PathBuf,
    pins: PathBuf,
    _leases: [Lease; 2],
}

impl Scratch {
    /// Makes the folder for files. That for pins is left to who pins; this makes sure that it can be made.
    ///
    /// # Errors
    /// If the folder can't be made, or the BPF file system can't be mounted.
    pub fn create(label: &str) -> Result<Self> {
        let name = unique_name(label);
        let files = std::env::temp_dir().join(&name);
        let pins = Path::new(BPF_FILE_SYSTEM).join(&name);
        let leases = [Lease::new(Resource::Folder(files.clone())), Lease::new(Resource::Folder(pins.clone()))];
        fs::create_dir(&files).with_context(|| format!("cannot make the folder {}", files.display()))?;
        mount_bpf_file_system()?;
        Ok(Self { files, pins, _leases: leases })
    }

    /// The folder for files, which is there.
    #[must_use]
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// The folder for pins, which is not there yet.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }
}

/// Whether this process may make namespaces at all.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// `sluice-PID-NUMBER-LABEL`.
pub(crate) fn unique_name(label: &str) -> String {
    start();
    let mut registry = registry();
    registry.next += 1;
    format!("sluice-{}-{}-{label}", std::process::id(), registry.next)
}

/// Waits for ever once a signal has begun the removal: the process ends when that is done, and not before because a
/// thread has stumbled over what is gone.
fn open_registry() -> MutexGuard<'static, Registry> {
    loop {
        let registry = registry();
        if !registry.closed {
            return registry;
        }
        drop(registry);
        thread::park();
    }
}

fn registry() -> MutexGuard<'static, Registry> {
    // A panic elsewhere leaves the map whole, and the removal is needed then most of all.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once a process: removes what killed ones left, and listens to signals.
fn start() {
    START.call_once(|| {
        remove_leftovers();
        let listening = thread::Builder::new().name("bed-signals".to_owned()).spawn(remove_all_on_signal);
        if let Err(error) = listening {
            eprintln!("no thread for signals, so an interrupt will leave namespaces behind: {error}");
        }
    });
}

fn remove_all_on_signal() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let number = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).ok()?;
        let mut terminate = signal(SignalKind::terminate()).ok()?;
        let mut hang_up = signal(SignalKind::hangup()).ok()?;
        tokio::select! {
            _ = interrupt.recv() => Some(Signal::SIGINT),
            _ = terminate.recv() => Some(Signal::SIGTERM),
            _ = hang_up.recv() => Some(Signal::SIGHUP),
        }
    });
    let Some(number) = number else { return };
    let leases = {
        let mut registry = registry();
        registry.closed = true;
        std::mem::take(&mut registry.leases)
    };
    eprintln!("\n{number}: removing what was made");
    for resource in leases.values().rev() {
        resource.remove();
    }
    std::process::exit(128 + number as i32);
}

/// Removes what belongs to processes that are gone.
fn remove_leftovers() {
    for path in leftovers(Path::new(NAMESPACES)) {
        remove_namespace(&path);
    }
    for folder in [Path::new(BPF_FILE_SYSTEM), &std::env::temp_dir()] {
        for path in leftovers(folder) {
            remove_folder(&path);
        }
    }
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| owner(path).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()))
        .collect()
}

/// The process that a name tells.
pub(crate) fn owner(path: &Path) -> Option<u32> {
    let mut parts = path.file_name()?.to_str()?.strip_prefix("sluice-")?.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    let _number: u64 = parts.next()?.parse().ok()?;
    Some(pid)
}

/// Ends the processes in the namespace (an agent that was left, say) and removes its name; the kernel removes the
/// rest with the last of both.
fn remove_namespace(path: &Path) {
    if let Ok(metadata) = fs::metadata(path) {
        for pid in processes_in(metadata.ino()) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    let _ = umount2(path, MntFlags::MNT_DETACH);
    report(fs::remove_file(path), path);
}

fn remove_folder(path: &Path) {
    report(fs::remove_dir_all(path), path);
}

fn report(result: std::io::Result<()>, path: &Path) {
    if let Err(error) = result
        && error.kind() != ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", path.display());
    }
}

/// The processes, this one aside, whose network namespace has this inode.
fn processes_in(inode: u64) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(std::process::id()))
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|namespace| namespace.ino() == inode))
        .map(Pid::from_raw)
        .collect()
}

fn mount_bpf_file_system() -> Result<()> {
    let is_mounted = |path: &Path| {
        fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
            mounts.lines().any(|line| {
                let mut fields = line.split(' ').skip(1);
                fields.next().map(Path::new) == Some(path) && fields.next() == Some("bpf")
            })
        })
    };
    let path = Path::new(BPF_FILE_SYSTEM);
    if !is_mounted(path) {
        mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount the BPF file system at {BPF_FILE_SYSTEM}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_process() {
        assert_eq!(owner(Path::new("/run/netns/sluice-12-3-web")), Some(12));
        assert_eq!(owner(Path::new("/run/netns/sluice-demo-1")), None);
        assert_eq!(owner(Path::new("/run/netns/other-12-3")), None);
        assert_eq!(owner(Path::new("/sys/fs/bpf/sluice")), None);
    }
}
