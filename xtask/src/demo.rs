//! Builds what the demo shows and hands over to it.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

use crate::{
    test::programs,
    toolchain::{Toolchain, succeed},
};

/// Runs it; its status is the task's.
pub(crate) fn run(toolchain: &Toolchain) -> Result<ExitCode> {
    ensure!(geteuid().is_root(), "the demo makes network namespaces and loads a BPF program: run it as root");
    println!("building the agent, policyctl and the demo");
    succeed(&mut programs(toolchain)).context("the build failed")?;
    let mut demo = toolchain.cargo();
    let status = demo.args(["run", "--quiet", "--package", "e2e", "--bin", "sluice-demo"]).status();
    let status = status.context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
