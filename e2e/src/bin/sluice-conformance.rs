//! `cargo xtask conformance`: the upstream suite's cases about NetworkPolicy, on a lab made for them or on the cluster of a
//! kubeconfig, after the proof that nothing but Sluice enforces there.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use e2e::lab::{
    Cluster, Cni, Lab, Proxy, Settings, Suite,
    conformance::{self, Conformance, NETWORK_POLICY, kernel_has_sctp},
    sluice::Installation,
};

/// The upstream NetworkPolicy suite, with Sluice.
#[derive(Parser)]
#[command(bin_name = "cargo xtask conformance")]
struct Arguments {
    /// What connects the lab's pods: ptp or bridge.
    #[arg(long, default_value_t = Cni::default(), conflicts_with = "kubeconfig")]
    cni: Cni,
    /// How the lab's Services are translated: nftables or iptables.
    #[arg(long, default_value_t = Proxy::default(), conflicts_with = "kubeconfig")]
    proxy: Proxy,
    /// Only cases whose full names match this regular expression; may be repeated.
    #[arg(long, default_value = NETWORK_POLICY)]
    focus: Vec<String>,
    /// Processes that run cases side by side.
    #[arg(long, default_value_t = 6)]
    procs: u8,
    /// The cluster to run on instead of a lab. Nothing is installed there unless `--install` says so.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Install Sluice on that cluster first; its nodes must have or find the image.
    #[arg(long, requires = "kubeconfig")]
    install: bool,
    /// Leave out the cases over SCTP, for a cluster whose nodes don't have it. On a lab this is found out.
    #[arg(long)]
    without_sctp: bool,
    /// Where the report and the suite's output go.
    #[arg(long, default_value = "target/conformance")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    // Before a lab is up and waits for it.
    Suite::get()?;
    let outcome = match &arguments.kubeconfig {
        Some(kubeconfig) => on_cluster(&arguments, &Cluster::of(kubeconfig)?)?,
        None => on_lab(&arguments)?,
    };
    println!("{outcome}");
    Ok(if outcome.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn on_lab(arguments: &Arguments) -> Result<conformance::Outcome> {
    let lab = Lab::up(&Settings { cni: arguments.cni, proxy: arguments.proxy, ..Settings::default() })?;
    lab.cluster().prove_unenforced()?;
    println!("without Sluice, probes that a policy denies pass");
    lab.install_sluice()?;
    let sctp = !arguments.without_sctp && kernel_has_sctp();
    let outcome = suite(arguments, sctp)?.run(lab.cluster())?;
    lab.down()?;
    Ok(outcome)
}

fn on_cluster(arguments: &Arguments, cluster: &Cluster) -> Result<conformance::Outcome> {
    cluster.prove_unenforced()?;
    println!("but for Sluice, probes that a policy denies pass");
    if arguments.install {
        cluster.install_sluice(Installation::Agents)?;
    } else {
        ensure!(cluster.has_sluice()?, "Sluice does not run on this cluster; --install installs it");
        cluster.await_sluice()?;
    }
    suite(arguments, !arguments.without_sctp)?.run(cluster)
}

fn suite(arguments: &Arguments, sctp: bool) -> Result<Conformance> {
    if !sctp {
        println!("skipped: the cases over SCTP, which the nodes' kernel does not have");
    }
    std::fs::create_dir_all(&arguments.output).context("--output must name a folder that can be made")?;
    let folder = arguments.output.canonicalize().context("--output must name a folder")?;
    Ok(Conformance { focus: arguments.focus.clone(), processes: arguments.procs, sctp, folder })
}
