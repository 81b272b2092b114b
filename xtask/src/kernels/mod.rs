//! `cargo xtask kernels`: the tests that judge packets, on the kernels that Sluice promises to run on, each booted in QEMU.
//!
//! Everything comes from Debian's packages and is unpacked into a cache folder, nothing is installed. A kernel is booted
//! with an initramfs that holds busybox, the test targets and the agent as static binaries, this machine's `ip`, `tc` and
//! `nft` with their libraries, the kernel's own modules, and the cases.

mod boot;
mod debian;
mod initramfs;
mod modules;
mod programs;
mod report;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};

use report::Report;

use crate::toolchain::Toolchain;

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

/// Boots each of `names` (all if empty) and runs the tests there: of the target `only`, or those whose names contain it.
///
/// # Errors
///
/// If a kernel can't be had or booted, or a test fails in it.
pub(crate) fn run(toolchain: &Toolchain, names: &[String], only: &str) -> Result<()> {
    let chosen = choose(names)?;
    let cache = cache_folder()?;
    let tools = debian::tools(&cache)?;
    println!("building the tests and the agent as static binaries");
    let programs = programs::build(toolchain, only)?;
    let mut failed = Vec::new();
    for series in chosen {
        let kernel = debian::kernel(&cache, series)?;
        let start = Instant::now();
        let initramfs = initramfs::build(&tools, &kernel, &programs, &toolchain.root)?;
        let console = boot::run(&tools, &kernel, &initramfs)?;
        let report = Report::read(&console)?;
        println!(
            "kernel {}, {} s; all that it printed: {}",
            kernel.release,
            start.elapsed().as_secs(),
            console.display()
        );
        print!("{report}");
        if !report.passed(programs.targets.len()) {
            println!("  FAILED");
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
