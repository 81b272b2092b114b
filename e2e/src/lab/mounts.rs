//! The file system of a machine: this machine's, with a layer of its own on top, so that what a node or an installer
//! writes into `/etc` or `/opt` stays on that node and goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root},
};

use super::folder::cache;

/// Gives the calling thread, which must be in a new mount namespace and in the machine's network namespace, the root of
/// machine `name` of the lab in `folder`. `/proc` is left to a process of the new pid namespace.
pub(super) fn change_root(folder: &Path, name: &str) -> Result<()> {
    // Nothing that is mounted here from now on reaches the machine outside, nor the other way round.
    remount(Path::new("/"), MsFlags::MS_PRIVATE)?;
    let own = folder.join(name);
    let scratch = own.join("scratch");
    make(&scratch)?;
    // The upper layer must not lie inside of the lower one.
    fresh("tmpfs", &scratch, "mode=755,size=256m")?;
    let (upper, work, root) = (scratch.join("upper"), scratch.join("work"), scratch.join("root"));
    for folder in [&upper, &work, &root] {
        make(folder)?;
    }
    fresh("overlay", &root, &format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display()))?;

    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for (path, options) in [("/run", "mode=755,size=256m"), ("/tmp", "mode=1777,size=512m")] {
        make(&inside(Path::new(path)))?;
        fresh("tmpfs", &inside(Path::new(path)), options)?;
    }
    // The layers of images can't lie on an overlay themselves.
    for (path, own) in [("/var/lib", own.join("lib")), ("/var/log", own.join("log"))] {
        make(&own)?;
        bind(&own, &inside(Path::new(path)), MsFlags::empty())?;
    }
    // The programs, and the files of this lab, where they are outside.
    let cache = cache()?;
    bind(&cache, &inside(&cache), MsFlags::empty())?;
    bind(Path::new("/dev"), &inside(Path::new("/dev")), MsFlags::MS_REC)?;
    let sys = inside(Path::new("/sys"));
    // A new one shows the links of this network namespace.
    fresh("sysfs", &sys, "")?;
    bind(Path::new("/sys/fs/cgroup"), &sys.join("fs/cgroup"), MsFlags::MS_REC)?;
    fresh("bpf", &sys.join("fs/bpf"), "mode=700")?;
    replace(&root.join("etc/resolv.conf"), "")?;
    replace(&root.join("etc/machine-id"), &format!("{:0>32}\n", hexadecimal(name)))?;

    chdir(&root).context("cannot enter the new root")?;
    pivot_root(".", ".").context("cannot change the root")?;
    // The old root lies on top of the new one now.
    umount2(".", MntFlags::MNT_DETACH).context("cannot leave the old root")?;
    chdir("/").context("cannot enter the new root")?;
    // As on a real node: what is mounted into a pod's volume on the node is seen in the pod.
    remount(Path::new("/"), MsFlags::MS_SHARED)
}

fn remount(path: &Path, propagation: MsFlags) -> Result<()> {
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)
        .with_context(|| format!("cannot change the propagation of {}", path.display()))
}

/// Mounts a new file system of a kind at a folder that is there.
fn fresh(kind: &str, at: &Path, options: &str) -> Result<()> {
    mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount a {kind} at {}", at.display()))
}

fn bind(from: &Path, to: &PathBuf, recursive: MsFlags) -> Result<()> {
    make(to)?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | recursive, None::<&str>)
        .with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Writes a file in the upper layer, also where the lower one has a link.
fn replace(path: &Path, text: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
