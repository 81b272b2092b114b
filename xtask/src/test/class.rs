//! The classes of tests, and which test target is in which. A target that nothing here names still has a class, so that
//! no test is forgotten.

use std::{fmt, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, TargetKind};
use clap::ValueEnum;

use crate::{image, toolchain::Toolchain};

/// From the least powerful to the most; a test belongs to the first that can run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Class {
    /// The crates by themselves: unit and documentation tests, and the checks of the code itself.
    Unit,
    /// Policies in user space: the reference against the compiled tables.
    Tables,
    /// Packets through the eBPF program, by test run. Needs root.
    Prog,
    /// Real sockets between network namespaces, with the agent. Needs root.
    Veth,
    /// A real cluster, with Sluice as a user installs it, and the upstream suite. Needs root, and Go once.
    Cluster,
}

impl Class {
    pub(crate) const ALL: [Self; 5] = [Self::Unit, Self::Tables, Self::Prog, Self::Veth, Self::Cluster];

    /// What it runs.
    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Unit => "the crates by themselves",
            Self::Tables => "policies in user space, reference against tables",
            Self::Prog => "packets through the eBPF program",
            Self::Veth => "real sockets between network namespaces",
            Self::Cluster => "a real cluster, and the upstream suite",
        }
    }

    pub(super) const fn needs_root(self) -> bool {
        matches!(self, Self::Prog | Self::Veth | Self::Cluster)
    }

    /// What its tests may take on two cores, once they are built.
    pub(super) const fn budget(self) -> Duration {
        Duration::from_secs(match self {
            // half of it for pages in a browser, agents that are silent and generated clusters
            Self::Unit => 110,
            Self::Tables | Self::Prog => 120,
            Self::Veth => 240,
            Self::Cluster => 1080,
        })
    }

    /// The class of a target: the one table that says so.
    fn of(package: &str, kind: Kind, name: &str) -> Self {
        match (package, kind, name) {
            (_, Kind::Lib | Kind::Bin, _) => Self::Unit,
            ("policy-compiler", Kind::Test, _) | ("e2e", Kind::Test, "tables") => Self::Tables,
            ("enforcer", Kind::Test, _) | ("e2e", Kind::Test, "prog") => Self::Prog,
            ("e2e", Kind::Test, "cluster") => Self::Cluster,
            ("controller" | "e2e", Kind::Test, _) => Self::Veth,
            (_, Kind::Test, _) => Self::Unit,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unit => "unit",
            Self::Tables => "tables",
            Self::Prog => "prog",
            Self::Veth => "veth",
            Self::Cluster => "cluster",
        })
    }
}

/// What cargo can test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Lib,
    Bin,
    Test,
}

/// A test target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    package: String,
    kind: Kind,
    name: String,
}

/// All of the workspace, the packet program aside: it builds for the BPF target only.
pub(super) fn targets(metadata: &Metadata) -> Vec<Target> {
    let packages = metadata.workspace_packages().into_iter().filter(|package| package.name.as_str() != "enforcer-ebpf");
    let mut targets: Vec<Target> = packages
        .flat_map(|package| package.targets.iter().map(|target| (package.name.to_string(), target)))
        // One that a plain `cargo test` leaves out is run by its class all the same.
        .filter(|(_, target)| target.test || target.is_test())
        .filter_map(|(package, target)| {
            let kind = target.kind.iter().find_map(|kind| match kind {
                TargetKind::Lib => Some(Kind::Lib),
                TargetKind::Bin => Some(Kind::Bin),
                TargetKind::Test => Some(Kind::Test),
                _ => None,
            })?;
            Some(Target { package, kind, name: target.name.clone() })
        })
        .collect();
    targets.sort();
    targets
}

/// What property tests draw from, so that a run that passes passes again; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` of the
/// environment go first, to look further.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20250501");

/// The invocations of cargo that run a class: one a package, and one for all documentation tests.
pub(super) fn invocations(toolchain: &Toolchain, class: Class, targets: &[Target]) -> Vec<Command> {
    let mut commands: Vec<Command> = arguments(class, targets)
        .into_iter()
        .map(|arguments| {
            let mut command = toolchain.cargo();
            command.arg("test").args(arguments);
            if std::env::var_os(SEED.0).is_none() {
                command.env(SEED.0, SEED.1);
            }
            command
        })
        .collect();
    if class == Class::Unit {
        let mut command = toolchain.cargo();
        command.args(["test", "--doc"]);
        for target in targets.iter().filter(|target| target.kind == Kind::Lib) {
            command.args(["--package", &target.package]);
        }
        commands.push(command);
    }
    commands
}

/// Builds what `classes` run: the tests, and the programs that tests start. Says whether it could.
pub(super) fn build(toolchain: &Toolchain, classes: &[Class], targets: &[Target]) -> Result<bool> {
    // First, because it leaves an agent of another kind where the one for the tests belongs.
    if classes.contains(&Class::Cluster)
        && let Err(error) = image::run(toolchain, image::Profile::Debug)
    {
        println!("{error:#}");
        return Ok(false);
    }
    let mut commands = Vec::new();
    if classes.contains(&Class::Veth) {
        commands.push(programs(toolchain));
    }
    for arguments in classes.iter().flat_map(|class| arguments(*class, targets)) {
        let mut command = toolchain.cargo();
        command.args(["test", "--no-run"]).args(arguments);
        commands.push(command);
    }
    for mut command in commands {
        if !command.status().context("cannot start cargo")?.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Builds the programs that tests and the demo start.
pub(crate) fn programs(toolchain: &Toolchain) -> Command {
    let mut command = toolchain.cargo();
    command.args(["build", "--bins"]);
    command.args(["--package", "controller", "--package", "policyctl", "--package", "sluice-cni", "--package", "e2e"]);
    command
}

/// The arguments of `cargo test` for each package of a class.
fn arguments(class: Class, targets: &[Target]) -> Vec<Vec<String>> {
    let mut commands: Vec<Vec<String>> = Vec::new();
    for target in targets.iter().filter(|target| Class::of(&target.package, target.kind, &target.name) == class) {
        let own = match target.kind {
            Kind::Lib => vec!["--lib".to_owned()],
            Kind::Bin => vec!["--bin".to_owned(), target.name.clone()],
            Kind::Test => vec!["--test".to_owned(), target.name.clone()],
        };
        match commands.iter_mut().find(|command| command[1] == target.package) {
            Some(command) => command.extend(own),
            None => commands.push([vec!["--package".to_owned(), target.package.clone()], own].concat()),
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_class_and_one_command() {
        let target = |package: &str, kind, name: &str| Target { package: package.into(), kind, name: name.into() };
        let targets = [
            target("e2e", Kind::Lib, "e2e"),
            target("e2e", Kind::Test, "bed"),
            target("e2e", Kind::Test, "cluster"),
            target("e2e", Kind::Test, "prog"),
            target("e2e", Kind::Test, "tables"),
            target("e2e", Kind::Test, "yet-to-be-written"),
            target("policy-compiler", Kind::Test, "sequences"),
            target("policyctl", Kind::Test, "browser"),
            target("policyctl", Kind::Test, "cli"),
        ];
        let commands = |class| arguments(class, &targets).iter().map(|line| line.join(" ")).collect::<Vec<_>>();
        assert_eq!(commands(Class::Unit), ["--package e2e --lib", "--package policyctl --test browser --test cli"]);
        assert_eq!(
            commands(Class::Tables),
            ["--package e2e --test tables", "--package policy-compiler --test sequences"]
        );
        assert_eq!(commands(Class::Prog), ["--package e2e --test prog"]);
        assert_eq!(commands(Class::Veth), ["--package e2e --test bed --test yet-to-be-written"]);
        assert_eq!(commands(Class::Cluster), ["--package e2e --test cluster"]);
    }
}
