//! Debian's packages, fetched with lists of our own and unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::Series;
use crate::apt::Suite;

/// QEMU, busybox and cpio with the libraries that QEMU wants, all of Debian 12.
const TOOLS: [&str; 24] = [
    "busybox-static",
    "cpio",
    "ipxe-qemu",
    "libaio1",
    "libbpf1",
    "libcapstone4",
    "libdaxctl1",
    "libfdt1",
    "libfuse3-3",
    "libibverbs1",
    "libndctl6",
    "libnl-3-200",
    "libnl-route-3-200",
    "libnuma1",
    "libpixman-1-0",
    "libpmem1",
    "librdmacm1",
    "libslirp0",
    "liburing2",
    "libvdeplug2",
    "qemu-system-common",
    "qemu-system-data",
    "qemu-system-x86",
    "seabios",
];

/// Where QEMU, busybox and cpio were unpacked.
pub(super) struct Tools {
    pub(super) root: PathBuf,
}

/// A kernel that was unpacked.
pub(super) struct Kernel {
    /// What `uname -r` will say.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// The folder of the modules, `…/lib/modules/RELEASE`.
    pub(super) modules: PathBuf,
    /// The series' own folder, for what is built for it.
    pub(super) folder: PathBuf,
}

/// Fetches and unpacks the tools unless they are there.
pub(super) fn tools(cache: &Path) -> Result<Tools> {
    let root = cache.join("tools");
    if !root.join("usr/bin/qemu-system-x86_64").exists() {
        println!("fetching QEMU, busybox and cpio (Debian 12's packages, unpacked into {})", root.display());
        let suite = Suite::open(cache, "bookworm", "debian")?;
        suite.unpack(&TOOLS.map(str::to_owned), &root)?;
    }
    Ok(Tools { root })
}

/// Fetches and unpacks the newest cloud kernel of a series unless one is there.
pub(super) fn kernel(cache: &Path, series: &Series) -> Result<Kernel> {
    let folder = cache.join(series.name);
    let tree = folder.join("tree");
    if !tree.exists() {
        println!("fetching Linux {} (Debian's {}, unpacked into {})", series.name, series.suite, tree.display());
        let suite = Suite::open(cache, series.suite, series.archive)?;
        let package = newest_kernel(&suite, series.name)?;
        let staged = folder.join("staged");
        let _ = fs::remove_dir_all(&staged);
        suite.unpack(&with_split_packages(&suite, package), &staged)?;
        fs::rename(&staged, &tree).context("moving the unpacked kernel into place")?;
    }
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .filter_map(|under| fs::read_dir(tree.join(under)).ok()?.next()?.ok())
        .map(|entry| entry.path())
        .next()
        .with_context(|| format!("no modules below {}", tree.display()))?;
    let release = modules.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let image = [tree.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")]
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("no vmlinuz below {}", tree.display()))?;
    Ok(Kernel { release, image, modules, folder })
}

/// The name of the newest `linux-image-SERIES.…-cloud-amd64`.
fn newest_kernel(suite: &Suite, series: &str) -> Result<String> {
    let prefix = format!("linux-image-{series}");
    let names = suite.run("apt-cache", &["pkgnames", &prefix], Path::new("/"))?;
    let mut found: Vec<&str> = names
        .lines()
        .filter(|name| {
            name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('.')) && name.ends_with("-cloud-amd64")
        })
        .collect();
    found.sort_by_key(|name| numbers(name));
    found.last().map(ToString::to_string).with_context(|| format!("Debian has no cloud kernel of series {series}"))
}

/// From 7.0 `linux-image-*` is empty and its files are in `linux-binary-*` and `linux-modules-*`.
fn with_split_packages(suite: &Suite, package: String) -> Vec<String> {
    let mut packages = vec![package.clone()];
    for part in ["binary", "modules"] {
        let name = package.replacen("image", part, 1);
        if suite.run("apt-cache", &["show", &name], Path::new("/")).is_ok_and(|shown| !shown.is_empty()) {
            packages.push(name);
        }
    }
    packages
}

/// The numbers in a name, so that 5.10.9 sorts before 5.10.10.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}
