//! The sources of Rust's `core`, which the BPF target is built from.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt::{self, Suite},
    toolchain::{Toolchain, succeed},
};

/// How they are installed, for the announcement.
pub(super) const HOW: &str = "by rustup, else from Debian's package";

/// Suites in which Debian keeps current compilers, those that change least first.
const SUITES: [&str; 3] = ["trixie-backports", "forky", "sid"];

/// Whether they are there.
pub(super) fn is_there(toolchain: &Toolchain) -> bool {
    folder(toolchain).join("library/core/src/lib.rs").is_file()
}

/// Installs them.
pub(super) fn install(toolchain: &Toolchain) -> Result<()> {
    let by_rustup = by_rustup(toolchain);
    let Err(refusal) = by_rustup else { return Ok(()) };
    println!("rustup could not bring rust-src ({refusal:#}); trying Debian's package");
    by_debian(toolchain).with_context(|| {
        format!(
            "rust-src {release} could not be installed; bring the folder `library` of Rust {release} to {}",
            folder(toolchain).display(),
            release = toolchain.release
        )
    })
}

fn folder(toolchain: &Toolchain) -> PathBuf {
    toolchain.sysroot.join("lib/rustlib/src/rust")
}

fn by_rustup(toolchain: &Toolchain) -> Result<()> {
    // The name of the toolchain is that of its folder, whatever name it was chosen by.
    let folder = toolchain.sysroot.canonicalize().context("the compiler's folder is gone")?;
    let name = folder.file_name().context("the compiler's folder has no name")?;
    succeed(toolchain.command("rustup").args(["component", "add", "rust-src", "--toolchain"]).arg(name))?;
    ensure!(is_there(toolchain), "it says so, but {} has no sources", folder.display());
    Ok(())
}

/// From the package of exactly the compiler's version: the sources and the compiler must fit.
fn by_debian(toolchain: &Toolchain) -> Result<()> {
    apt::require(&["rust-src"])?;
    let cache = Toolchain::cache()?;
    for name in SUITES {
        let suite = match Suite::open(&cache, name, "debian") {
            Ok(suite) => suite,
            Err(error) => {
                println!("Debian's {name} is out of reach: {error:#}");
                continue;
            }
        };
        let start = format!("{}+", toolchain.release);
        let Some(version) = suite.versions("rust-src")?.into_iter().find(|version| version.starts_with(&start)) else {
            continue;
        };
        let unpacked = cache.join("rust-src");
        suite.unpack(&[format!("rust-src={version}")], &unpacked)?;
        let library = unpacked.join(format!("usr/src/rustc-{}/library", toolchain.release));
        ensure!(library.is_dir(), "Debian's rust-src {version} has no {}", library.display());
        let target = folder(toolchain);
        copy(&library, &target)?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))?;
        println!("rust-src {version} of Debian's {name} is in {}", target.display());
        return Ok(());
    }
    anyhow::bail!("Debian has no rust-src {} in {}", toolchain.release, SUITES.join(", "))
}

fn copy(library: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    // Links are followed: the package's point out of its folder.
    succeed(Command::new("cp").args(["--recursive", "--dereference"]).arg(library).arg(target))
}
