//! Checks of the code itself: format, lints, documentation, tidiness. Each counts as one test.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{runner::Tally, seconds};
use crate::{tidy, toolchain::Toolchain};

/// A check that cargo does.
struct Check {
    name: &'static str,
    /// Of cargo, parted by spaces.
    arguments: &'static str,
    /// Where it builds, below the target folder.
    folder: &'static str,
    /// Variables of the environment.
    environment: fn() -> Vec<(&'static str, String)>,
}

const CHECKS: [Check; 5] = [
    Check { name: "format", arguments: "fmt --all --check", folder: "", environment: Vec::new },
    Check {
        name: "lints",
        arguments: "clippy --quiet --all-targets -- --deny warnings",
        folder: "",
        environment: Vec::new,
    },
    // As enforcer's build script builds it, in a folder of its own: its target is another.
    Check {
        name: "program lints",
        arguments: "clippy --quiet --package enforcer-ebpf --target bpfel-unknown-none -Zbuild-std=core -- --deny warnings",
        folder: "bpf",
        environment: || {
            let arch = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
            vec![("RUSTC_BOOTSTRAP", "1".to_owned()), ("CARGO_ENCODED_RUSTFLAGS", arch)]
        },
    },
    // A workspace of its own, whose dependencies are the other one's as well.
    Check {
        name: "fuzz targets",
        arguments: "check --quiet --manifest-path fuzz/Cargo.toml",
        folder: "",
        environment: Vec::new,
    },
    Check {
        name: "documentation",
        arguments: "doc --quiet --no-deps --document-private-items",
        folder: "",
        environment: || vec![("RUSTDOCFLAGS", "--deny warnings".to_owned())],
    },
];

/// Runs them all; what they came to, with the time.
pub(super) fn run(toolchain: &Toolchain, total: &mut Tally) -> Result<String> {
    let start = Instant::now();
    let mut tally = Tally::default();
    for check in CHECKS {
        let mut command = toolchain.cargo();
        command.args(check.arguments.split_whitespace()).envs((check.environment)());
        command.env("CARGO_TARGET_DIR", toolchain.target().join(check.folder));
        note(&mut tally, check.name, command.status().context("cannot start cargo")?.success());
    }
    let findings = tidy::check(&toolchain.root)?;
    for finding in &findings {
        println!("{finding}");
    }
    note(&mut tally, "tidy", findings.is_empty());
    let time = seconds(start.elapsed());
    let line = format!("{:<7} {time:>8}             {} passed, {} failed", "checks", tally.passed, tally.failed());
    println!("{line}");
    total.add(tally);
    Ok(line)
}

fn note(tally: &mut Tally, name: &str, passed: bool) {
    println!("{name:<14} {}", if passed { "ok" } else { "FAILED" });
    if passed {
        tally.passed += 1;
    } else {
        tally.fail(format!("check {name}"));
    }
}
