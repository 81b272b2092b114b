//! The control groups of a lab: `/sluice/LAB/NODE` in every hierarchy, version 1 and 2, in which the kubelets make
//! those of their pods.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::wait::retry;

const MOUNT: &str = "/sys/fs/cgroup";
/// The group above all labs.
const TOP: &str = "sluice";

/// The group of the lab in `folder`, as a kubelet's `cgroupRoot` names it.
pub(super) fn of_lab(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("/{TOP}/{name}")
}

/// Makes a group with those above it, ready to have processes' groups below.
pub(super) fn create(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut path = hierarchy.clone();
        for part in group.split('/').filter(|part| !part.is_empty()) {
            delegate(&path)?;
            let parent = path.clone();
            path.push(part);
            if let Err(error) = fs::create_dir(&path)
                && error.kind() != ErrorKind::AlreadyExists
            {
                return Err(error).with_context(|| format!("cannot make the control group {}", path.display()));
            }
            inherit_cpuset(&parent, &path)?;
        }
        delegate(&path)?;
    }
    Ok(())
}

/// Removes a group with all below it, and [`TOP`] if that is empty then. Its processes must have been ended: what the
/// kernel is still about to let go is waited for.
pub(super) fn remove(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let path = hierarchy.join(group.trim_start_matches('/'));
        retry(Duration::from_secs(5), Duration::from_millis(20), || {
            remove_tree(&path).with_context(|| format!("cannot remove the control group {}", path.display()))
        })?;
        let _ = fs::remove_dir(hierarchy.join(TOP));
    }
    Ok(())
}

/// Version 2 hands controllers down level by level, as far as they are there.
fn delegate(path: &Path) -> Result<()> {
    let Ok(controllers) = fs::read_to_string(path.join("cgroup.controllers")) else { return Ok(()) };
    let enable: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(path.join("cgroup.subtree_control"), enable.join(" "))
        .with_context(|| format!("cannot hand down the controllers of {}", path.display()))
}

/// In version 1 a new cpuset is empty, and takes no process until it is filled.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), child.join(file));
        if child.join("cgroup.clone_children").exists() && to.exists() {
            let value = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
            fs::write(&to, value.trim()).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}

/// Children first: the kernel refuses the rest. The files in the folders are the kernel's own.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The hierarchies' own folders: one in version 2, one a controller in version 1, both where they are mixed.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let top = Path::new(MOUNT);
    if top.join("cgroup.procs").exists() {
        return Ok(vec![top.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(top).with_context(|| format!("cannot list {MOUNT}"))?.flatten() {
        let path = entry.path();
        // `cpu` may be a link to `cpu,cpuacct`.
        if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) && path.join("cgroup.procs").exists() {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("no control groups are mounted at {MOUNT}");
    }
    Ok(found)
}
