//! `cargo xtask image`: the image of the agent, with the CNI plugin and policyctl beside it: static programs in an otherwise empty
//! image, written without a container tool.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use oci_image::{Archive, Entry, Image};

use crate::toolchain::{Toolchain, succeed};

/// The name in the manifests, as runtimes complete it.
const NAME: &str = "docker.io/library/sluice-agent";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const PROGRAM: &str = "sluice-agent";
/// What is in it: package and program, the one that it starts first.
const PROGRAMS: [(&str, &str); 3] = [("controller", PROGRAM), ("sluice-cni", "sluice-cni"), ("policyctl", "policyctl")];

/// How the agent is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As it is released.
    Release,
    /// As the tests are built, from the same dependencies: `target/image/sluice-agent-debug.tar`.
    Debug,
}

impl Profile {
    /// The folder below `target` where cargo puts it.
    const fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
        }
    }

    const fn archive(self) -> &'static str {
        match self {
            Self::Release => "sluice-agent.tar",
            Self::Debug => "sluice-agent-debug.tar",
        }
    }
}

/// As [`make`], and says where the image is.
pub(crate) fn run(toolchain: &Toolchain, profile: Profile) -> Result<PathBuf> {
    let path = make(toolchain, profile)?;
    println!("{}  {NAME}:{VERSION}", path.display());
    Ok(path)
}

/// Builds the programs and writes their image to `target/image/sluice-agent.tar`.
pub(crate) fn make(toolchain: &Toolchain, profile: Profile) -> Result<PathBuf> {
    let folder = toolchain.root.join("target/image");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut entries = Vec::new();
    for (package, name) in PROGRAMS {
        let program = build(toolchain, profile, package, name)?;
        if profile == Profile::Release {
            // For those who build the image by the Containerfile.
            fs::copy(&program, folder.join(name)).with_context(|| format!("cannot copy {name}"))?;
        }
        entries.push(Entry::File(name.to_owned(), 0o755, program));
    }
    let image = Image {
        names: vec![format!("{NAME}:{VERSION}")],
        entries,
        entrypoint: vec![format!("/{PROGRAM}")],
        ..Image::default()
    };
    let path = folder.join(profile.archive());
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file))?;
    archive.add(&image)?;
    archive.finish()?.into_inner().context("cannot write the image")?;
    Ok(path)
}

/// A program, linked with the C library of this system, so that it needs nothing where it runs: the target for musl
/// would have to be fetched, this one is there wherever Rust is.
fn build(toolchain: &Toolchain, profile: Profile, package: &str, name: &str) -> Result<PathBuf> {
    let mut cargo = toolchain.cargo();
    cargo.args(["rustc", "--package", package, "--bin", name]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    // To the last step alone: how a program is linked is decided there, and by RUSTFLAGS all that it depends on would be
    // built once more, for eight minutes.
    cargo.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=debuginfo"]);
    succeed(&mut cargo).with_context(|| format!("{name} does not build"))?;
    let program = toolchain.target().join(profile.folder()).join(name);
    ensure_static(&program)?;
    Ok(program)
}

/// A program that asks for an interpreter would not start in an empty image.
fn ensure_static(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let interpreter =
        asks_for_interpreter(&bytes).with_context(|| format!("{} is no 64-bit ELF file", program.display()))?;
    ensure!(!interpreter, "{} is not linked statically", program.display());
    Ok(())
}

/// Whether an ELF file of 64 bits and little end first has a program header of the kind `PT_INTERP` (elf(5)).
fn asks_for_interpreter(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    bytes.starts_with(b"\x7fELF\x02\x01").then_some(())?;
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        let kind = number(start.checked_add(header * size)?, 4)?;
        if u32::try_from(kind) == Ok(PT_INTERP) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of nothing but a header and one program header of this kind.
    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = kind;
        bytes
    }

    #[test]
    fn an_interpreter_is_seen() {
        assert_eq!(asks_for_interpreter(&elf(3)), Some(true));
        assert_eq!(asks_for_interpreter(&elf(1)), Some(false));
        assert_eq!(asks_for_interpreter(b"#!/bin/sh"), None);
        assert_eq!(asks_for_interpreter(&elf(3)[..70]), Some(true));
        assert_eq!(asks_for_interpreter(&elf(3)[..65]), None);
    }
}
