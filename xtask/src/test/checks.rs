//! Checks of the code itself: format, lints, documentation, tidiness. Each counts as one test.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{runner::Tally, seconds};
use crate::{tidy, toolchain::Toolchain};

/// The checks that cargo does: name and arguments.
const CHECKS: [(&str, &[&str]); 3] = [
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--quiet", "--all-targets", "--", "--deny", "warnings"]),
    ("documentation", &["doc", "--quiet", "--no-deps", "--document-private-items"]),
];

/// Runs them all; what they came to, with the time.
pub(super) fn run(toolchain: &Toolchain, total: &mut Tally) -> Result<String> {
    let start = Instant::now();
    let mut tally = Tally::default();
    for (name, arguments) in CHECKS {
        let mut command = toolchain.cargo();
        command.args(arguments).env("RUSTDOCFLAGS", "--deny warnings");
        note(&mut tally, name, command.status().context("cannot start cargo")?.success());
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
