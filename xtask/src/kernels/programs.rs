//! What is run inside: test targets and the agent, as static binaries, for the initramfs has no C library of its own.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::toolchain::Toolchain;

/// The test targets that judge packets: by test run, then on veths, the enforcer by itself before the agent. `kernel` is the
/// enforcer's, the others are e2e's.
const TARGETS: [&str; 4] = ["prog", "kernel", "veth_tables", "veth_connections"];

/// The packages whose programs and tests are built. Always all of them in one command, since others would have their
/// dependencies built with other features.
const PACKAGES: [&str; 3] = ["controller", "e2e", "enforcer"];

/// A binary of tests.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The target's.
    pub(super) name: &'static str,
    pub(super) binary: PathBuf,
}

/// What is brought along.
#[derive(Debug)]
pub(super) struct Programs {
    /// Those that have tests to run, in the order in which they run.
    pub(super) targets: Vec<Target>,
    /// `sluice-agent`, which some of them start.
    pub(super) agent: PathBuf,
    /// Only tests run whose names contain this.
    pub(super) filter: String,
}

/// Builds them. `only` is a target's name, or what the names of tests are to contain: a target without such a test is left
/// out.
pub(super) fn build(toolchain: &Toolchain, only: &str) -> Result<Programs> {
    let agent = executables(toolchain, &["build", "--bin", "sluice-agent"])?;
    let agent = named(&agent, "sluice-agent")?;
    let whole = TARGETS.iter().find(|name| **name == only);
    let (chosen, filter) = whole.map_or((&TARGETS[..], only), |target| (std::slice::from_ref(target), ""));
    let tests: Vec<&str> = chosen.iter().flat_map(|name| ["--test", name]).collect();
    let tests = executables(toolchain, &[&["test", "--no-run"], &tests[..]].concat())?;
    let mut targets = Vec::new();
    for name in chosen {
        let target = Target { name, binary: named(&tests, name)? };
        if has_tests(&target, filter)? {
            targets.push(target);
        }
    }
    ensure!(!targets.is_empty(), "no target is called {only:?}, and no test has a name that contains it");
    Ok(Programs { targets, agent, filter: filter.to_owned() })
}

/// Runs cargo, and returns its messages, one a line.
fn executables(toolchain: &Toolchain, arguments: &[&str]) -> Result<String> {
    let output = toolchain
        .cargo()
        .current_dir(&toolchain.root)
        .args(arguments)
        .args(PACKAGES.iter().flat_map(|package| ["--package", package]))
        .args(["--quiet", "--message-format=json"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--target-dir"])
        .arg(toolchain.target().join("kernels"))
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    ensure!(output.status.success(), "cargo {} failed for static binaries", arguments.join(" "));
    String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")
}

/// The executable of the target of this name.
fn named(messages: &str, name: &str) -> Result<PathBuf> {
    let own = format!(r#""name":"{name}""#);
    let path = messages
        .lines()
        .filter(|line| line.contains(&own))
        .find_map(|line| line.split_once("\"executable\":\"").and_then(|(_, rest)| rest.split_once('"')));
    path.map(|(path, _)| PathBuf::from(path)).with_context(|| format!("cargo named no executable {name}"))
}

fn has_tests(target: &Target, only: &str) -> Result<bool> {
    let output = Command::new(&target.binary)
        .args(["--list", only])
        .output()
        .with_context(|| format!("starting {}", target.binary.display()))?;
    ensure!(output.status.success(), "the target {} doesn't list its tests", target.name);
    Ok(String::from_utf8_lossy(&output.stdout).lines().any(|line| line.ends_with(": test")))
}
