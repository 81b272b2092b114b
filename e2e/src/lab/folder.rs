//! Where a lab keeps its files, and the removal of a lab from nothing but that folder: by its guard, by `lab down`, on
//! a signal, or by the next lab where its process was killed.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{cgroups, machine};
use crate::bed::registry::{Lease, Resource, owner, unique_name};

/// The name of the lab that outlives the process that made it. There is at most one.
pub const KEPT: &str = "kept";

/// The folder of one lab; with what belongs to the lab it is removed when dropped, unless the lab is to stay.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lease: Option<Lease>,
}

impl Folder {
    /// Makes a folder for a lab that goes with this process. Removes the labs of processes that are gone.
    pub(super) fn create() -> Result<Self> {
        sweep()?;
        Self::make(labs()?.join(unique_name("lab")))
    }

    /// Makes the folder of the lab that outlives its process. Until [`Self::keep`] it goes with this process all the
    /// same.
    pub(super) fn create_kept() -> Result<Self> {
        sweep()?;
        let path = labs()?.join(KEPT);
        ensure!(!path.exists(), "a lab is there already: `cargo xtask lab down` removes it");
        Self::make(path)
    }

    fn make(path: PathBuf) -> Result<Self> {
        let lease = Lease::new(Resource::Lab(path.clone()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, lease: Some(lease) })
    }

    /// The lab that outlives its process, if there is one. Dropping this doesn't remove it.
    ///
    /// # Errors
    /// If it can't be told where labs are.
    pub fn kept() -> Result<Option<Self>> {
        let path = labs()?.join(KEPT);
        Ok(path.is_dir().then_some(Self { path, lease: None }))
    }

    /// Leaves the lab to itself.
    pub(super) fn keep(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.forget();
        }
    }

    /// Removes the lab.
    ///
    /// # Errors
    /// With what can't be removed.
    pub fn remove(mut self) -> Result<()> {
        self.keep();
        remove(&self.path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Ends every process of the lab in `folder` and removes its control groups and the folder. Links, mounts and
/// namespaces go with the processes.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    let machines = machine::end_all(folder);
    let groups = cgroups::remove(&cgroups::of_lab(folder));
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
        }
        _ => {}
    }
    if let Ok(labs) = labs() {
        // Only if no other lab is in it.
        let _ = fs::remove_dir(labs);
    }
    machines.and(groups)
}

/// Removes the labs of processes that are gone.
fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(labs()?) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        if owner(&path).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The folder for what is costly to make and safe to lose: `~/.cache/sluice/lab`.
pub(super) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("sluice/lab"))
}

fn labs() -> Result<PathBuf> {
    Ok(cache()?.join("run"))
}
