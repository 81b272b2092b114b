//! `cargo xtask e2e`: the scenarios that any cluster can run, on that of a kubeconfig, or on one of kind that is made for
//! them.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Error, Result};
use clap::{ArgGroup, Parser};
use e2e::{
    kind::{self, Kind, Missing},
    lab::{Cluster, Proxy, Suite, Unreachable, conformance::kernel_has_sctp},
    portable::{self, Image, Plan},
};
use libtest_mimic::Arguments as Selection;

/// Sluice on a cluster: installed as by a user, tried from within pods, removed again.
#[derive(Parser)]
#[command(bin_name = "cargo xtask e2e", group(ArgGroup::new("where").required(true).args(["kubeconfig", "kind"])))]
struct Arguments {
    /// The cluster to run on. Its nodes must find the agent's image.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Bring up a cluster of kind, with the agent's image, and remove it afterwards. Needs Docker.
    #[arg(long)]
    kind: bool,
    /// The agent's image, where it is not that of the manifests: `[REGISTRY/]NAME[:TAG][@DIGEST]`.
    #[arg(long, conflicts_with_all = ["kind", "no_install"])]
    image: Option<Image>,
    /// Take Sluice as it is on the cluster, and leave it there. Its agents are restarted all the same.
    #[arg(long, conflicts_with_all = ["kind", "keep"])]
    no_install: bool,
    /// Leave Sluice on the cluster, and a cluster of kind as it is.
    #[arg(long)]
    keep: bool,
    /// Run the upstream NetworkPolicy suite too.
    #[arg(long)]
    conformance: bool,
    /// Leave out the suite's cases over SCTP, for a cluster whose nodes don't have it. With `--kind` this is found out.
    #[arg(long, requires = "conformance")]
    without_sctp: bool,
    /// Where the suite's report and output go.
    #[arg(long, default_value = "target/e2e")]
    output: PathBuf,
    /// How Services of the cluster of kind are translated: nftables or iptables.
    #[arg(long, default_value_t = Proxy::default(), conflicts_with = "kubeconfig")]
    proxy: Proxy,
    /// The image of the nodes of kind, where it is not that of its release.
    #[arg(long, conflicts_with = "kubeconfig")]
    node_image: Option<String>,
    /// A part of the names of the scenarios to run, and other options of Rust's tests, such as `--list`.
    #[arg(last = true)]
    scenarios: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            status(&error)
        }
    }
}

/// What can't be had is told from what fails.
fn status(error: &Error) -> ExitCode {
    let missing = error.downcast_ref::<Missing>().map(|_| Missing::STATUS);
    let unreachable = error.downcast_ref::<Unreachable>().map(|_| Unreachable::STATUS);
    missing.or(unreachable).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Whether all scenarios passed.
fn run(arguments: &Arguments) -> Result<bool> {
    let selection = Selection::from_iter(["cargo xtask e2e".to_owned()].iter().chain(&arguments.scenarios));
    let plan = plan(arguments)?;
    if selection.list {
        return portable::run(None, &plan, &selection);
    }
    if plan.conformance {
        // Before a cluster is up and waits for it.
        Suite::get()?;
    }
    if let Some(kubeconfig) = &arguments.kubeconfig {
        return portable::run(Some(Cluster::of(kubeconfig)?), &plan, &selection);
    }
    let settings = kind::Settings { proxy: arguments.proxy, node_image: arguments.node_image.clone() };
    let kind = Kind::up(&settings)?;
    let passed = portable::run(Some(kind.cluster().clone()), &plan, &selection);
    if arguments.keep {
        println!("{}", kind.keep()?);
    }
    passed
}

fn plan(arguments: &Arguments) -> Result<Plan> {
    std::fs::create_dir_all(&arguments.output).context("--output must name a folder that can be made")?;
    Ok(Plan {
        image: arguments.image.clone(),
        install: !arguments.no_install,
        keep: arguments.keep,
        conformance: arguments.conformance,
        sctp: !arguments.without_sctp && (!arguments.kind || kernel_has_sctp()),
        output: arguments.output.canonicalize().context("--output must name a folder")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(line: &str) {
        let words = ["e2e"].into_iter().chain(line.split_whitespace());
        assert!(Arguments::try_parse_from(words).is_err(), "{line}");
    }

    #[test]
    fn one_cluster_is_named() {
        refused("");
        refused("--kind --kubeconfig a");
        refused("--kind --no-install");
        refused("--kind --image a");
        refused("--kubeconfig a --proxy iptables");
        refused("--kubeconfig a --image a:");
        refused("--kubeconfig a --without-sctp");
        refused("--kubeconfig a --no-install --keep");
    }

    #[test]
    fn scenarios_are_named_after_two_dashes() {
        let parsed = Arguments::try_parse_from(["e2e", "--kubeconfig", "a", "--", "agents", "--skip", "killed"]);
        let parsed = parsed.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parsed.scenarios, ["agents", "--skip", "killed"]);
        assert!(plan(&Arguments { output: std::env::temp_dir(), ..parsed }).is_ok_and(|plan| plan.install));
    }

    #[test]
    fn what_is_missing_is_no_failure_of_sluice() {
        let code = |error: Error| format!("{:?}", status(&error));
        assert_eq!(
            code(Error::msg("not found").context(Missing::Program).context("more")),
            format!("{:?}", ExitCode::from(69))
        );
        assert_eq!(code(Error::msg("wrong")), format!("{:?}", ExitCode::FAILURE));
    }
}
