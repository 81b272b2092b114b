//! Runs the benchmarks, which are bench targets of the crates that they measure.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nix::unistd::geteuid;

use crate::toolchain::Toolchain;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// The packet program: nanoseconds a packet, beside the bare primitives. Needs root.
    Prog,
    /// The compiler: fresh compilations and single events.
    Compile,
}

/// Runs one of them; it prints its own table.
pub(crate) fn run(toolchain: &Toolchain, what: What, json: bool) -> Result<ExitCode> {
    let (package, target) = match what {
        What::Prog => ("e2e", "prog"),
        What::Compile => ("policy-compiler", "compile"),
    };
    ensure!(what != What::Prog || geteuid().is_root(), "a test run of a BPF program needs root");
    let mut command = toolchain.cargo();
    command.args(["bench", "--quiet", "--package", package, "--bench", target, "--"]);
    if json {
        command.arg("--json");
    }
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
