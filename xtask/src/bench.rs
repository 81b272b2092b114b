//! Runs the benchmarks, which are bench targets of the crates that they measure.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nix::unistd::geteuid;

use crate::{image, lab, toolchain::Toolchain};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// The packet program: nanoseconds a packet, beside the bare primitives. Needs root.
    Prog,
    /// The compiler: fresh compilations and single events.
    Compile,
    /// policyctl as a process: time and memory of questions to large clusters in YAML.
    Cli,
    /// Sluice on a real cluster: from a change, or a pod's start, to packets that show it. Needs root.
    Cluster,
}

/// Runs one of them; it prints its own table. `pods` is for the cluster alone.
pub(crate) fn run(toolchain: &Toolchain, what: What, json: bool, pods: Option<u32>) -> Result<ExitCode> {
    ensure!(
        pods.is_none() || what == What::Cluster,
        "--pods is for `cargo xtask bench cluster`: nothing else starts any"
    );
    let (package, target) = match what {
        What::Prog => ("e2e", "prog"),
        What::Compile => ("policy-compiler", "compile"),
        What::Cli => ("policyctl", "cli"),
        What::Cluster => ("e2e", "cluster"),
    };
    ensure!(what != What::Prog || geteuid().is_root(), "a test run of a BPF program needs root");
    let mut command = toolchain.cargo();
    if what == What::Cluster {
        lab::equip(&mut command)?;
        command.env("SLUICE_IMAGE", image::make(toolchain, image::Profile::Release)?);
    }
    command.args(["bench", "--quiet", "--package", package, "--bench", target, "--"]);
    if json {
        command.arg("--json");
    }
    if let Some(pods) = pods {
        command.arg("--pods").arg(pods.to_string());
    }
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
