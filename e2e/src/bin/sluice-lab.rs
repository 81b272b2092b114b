//! `cargo xtask lab`: brings the lab up to stay, says how it is, runs commands in it, and removes it.
#![forbid(unsafe_code)]

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use e2e::lab::{Cni, Folder, Lab, Programs, Proxy, Settings, Suite, Unreachable, build_images};

/// A real Kubernetes cluster on this machine, in namespaces.
#[derive(Parser)]
#[command(bin_name = "cargo xtask lab")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build what a lab runs, and the images, without starting anything.
    Build {
        /// The upstream end-to-end suite too.
        #[arg(long)]
        suite: bool,
    },
    /// Bring it up, until all nodes are ready and CoreDNS answers. It stays until `down`.
    Up(Wanted),
    /// Remove it with everything that belongs to it.
    Down,
    /// Say how it is.
    Status,
    /// Run kubectl as the cluster's administrator.
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a command on a node, or on `control`.
    Exec {
        machine: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Give every node the images of an archive in OCI layout.
    Import {
        /// The archive.
        archive: std::path::PathBuf,
    },
}

#[derive(Args)]
struct Wanted {
    /// How many nodes.
    #[arg(long, default_value_t = Settings::default().nodes)]
    nodes: u8,
    /// What connects pods: ptp or bridge.
    #[arg(long, default_value_t = Cni::default())]
    cni: Cni,
    /// How Services are translated: nftables or iptables.
    #[arg(long, default_value_t = Proxy::default())]
    proxy: Proxy,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let unreachable = error.downcast_ref::<Unreachable>().map(|_| ExitCode::from(Unreachable::STATUS));
            unreachable.unwrap_or(ExitCode::FAILURE)
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Build { suite } => {
            let programs = Programs::get()?;
            println!("images: {}", build_images(&programs)?.display());
            if suite {
                println!("suite: {}", Suite::get()?.tests.display());
            }
        }
        Task::Up(wanted) => {
            let settings = Settings { nodes: wanted.nodes, cni: wanted.cni, proxy: wanted.proxy };
            let lab = Lab::up_to_stay(&settings)?;
            println!("\n{}", lab.kubectl(&["get", "nodes", "--output=wide"])?);
            println!("files and logs: {}", lab.folder().display());
        }
        Task::Down => match Folder::kept()? {
            Some(folder) => folder.remove()?,
            None => println!("there is no lab"),
        },
        Task::Status => status()?,
        Task::Kubectl { arguments } => {
            let lab = the_lab()?;
            let mut kubectl = lab.cluster().kubectl_command();
            return conclude(lab.cluster().spawn(kubectl.args(arguments))?);
        }
        Task::Exec { machine, command } => {
            let lab = the_lab()?;
            let (program, arguments) = command.split_first().context("no command is given")?;
            let mut command = Command::new(program);
            return conclude(lab.machine(&machine)?.spawn(command.args(arguments).env("PATH", lab.path()))?);
        }
        Task::Import { archive } => the_lab()?.import(&archive)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn status() -> Result<()> {
    let Some(lab) = Lab::kept()? else {
        println!("there is no lab");
        return Ok(());
    };
    for machine in lab.nodes().iter().map(e2e::lab::Node::machine).chain([lab.control()]) {
        println!("{:<8} first process {}", machine.name(), machine.pid());
    }
    println!("files and logs: {}\n", lab.folder().display());
    println!("{}", lab.kubectl(&["get", "nodes,pods", "--all-namespaces", "--output=wide"])?);
    Ok(())
}

fn the_lab() -> Result<Lab> {
    Lab::kept()?.context("there is no lab: `cargo xtask lab up` brings one up")
}

/// Waits for a command that has this terminal; its status is this program's.
fn conclude(mut command: Child) -> Result<ExitCode> {
    let status = command.wait().context("cannot wait for the command")?;
    // As shells tell the signal that ended a command.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}
