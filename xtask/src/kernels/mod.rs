//! `cargo xtask kernels`: the packet cases on the kernels that Sluice promises to run on, each booted in QEMU.
//!
//! Everything comes from Debian's packages and is unpacked into a cache folder, nothing is installed. A kernel is booted
//! with an initramfs that holds busybox, the class `prog` as a static binary, and the cases.

mod boot;
mod debian;
mod initramfs;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

/// A kernel series and where Debian has it.
pub(crate) struct Series {
    /// As in `uname -r`.
    name: &'static str,
    suite: &'static str,
    archive: &'static str,
}

/// The floor, one of each long-term series since, and the newest.
const SERIES: [Series; 5] = [
    Series { name: "5.10", suite: "bullseye-security", archive: "debian-security" },
    Series { name: "6.1", suite: "bookworm-security", archive: "debian-security" },
    Series { name: "6.12", suite: "trixie-security", archive: "debian-security" },
    Series { name: "6.18", suite: "trixie-backports", archive: "debian" },
    Series { name: "7.2", suite: "forky", archive: "debian" },
];

/// Boots each of `names` (all if empty) and runs those tests of class `prog` there whose names contain `only`.
///
/// # Errors
///
/// If a kernel can't be had or booted, or a test fails in it.
pub(crate) fn run(root: &Path, names: &[String], only: &str) -> Result<()> {
    let chosen = choose(names)?;
    let cache = cache_folder()?;
    let tools = debian::tools(&cache)?;
    let check = build_check(root)?;
    let mut failed = Vec::new();
    for series in chosen {
        let start = Instant::now();
        let kernel = debian::kernel(&cache, series)?;
        let initramfs = initramfs::build(&tools, &kernel, &check, root, only)?;
        let report = boot::run(&tools, &kernel, &initramfs)?;
        println!(
            "kernel {:<5} {:<28} {:>4} s  {}",
            series.name,
            kernel.release,
            start.elapsed().as_secs(),
            report.summary
        );
        for one in &report.verifier {
            println!(
                "  {:<16} {:>7} instructions verified, loaded in {} ms",
                one.program,
                one.instructions,
                one.microseconds / 1000
            );
        }
        if !report.passed {
            println!("  whole output: {}", report.log.display());
            failed.push(series.name);
        }
    }
    ensure!(failed.is_empty(), "failed on kernel {}", failed.join(", "));
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Series>> {
    if names.is_empty() {
        return Ok(SERIES.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            SERIES.iter().find(|series| series.name == name.as_str()).with_context(|| {
                let known: Vec<_> = SERIES.iter().map(|series| series.name).collect();
                format!("no kernel series {name:?}; there are {}", known.join(", "))
            })
        })
        .collect()
}

fn cache_folder() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set; the kernels are kept in ~/.cache/sluice")?;
    let folder = PathBuf::from(home).join(".cache/sluice/kernels");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// The class `prog` as one static binary: the initramfs has no C library.
fn build_check(root: &Path) -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["test", "--quiet", "--package", "e2e", "--test", "prog", "--no-run", "--message-format=json"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir", "target/kernels"])
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(output.status.success(), "the class prog did not build as a static binary");
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    // One artifact a line, the package's programs among them.
    let path = messages
        .lines()
        .filter(|line| line.contains(r#""name":"prog""#))
        .find_map(|line| line.split_once("\"executable\":\"").and_then(|(_, rest)| rest.split_once('"')))
        .map(|(path, _)| PathBuf::from(path));
    match path {
        Some(path) => Ok(path),
        None => bail!("cargo named no executable for the class prog"),
    }
}
