//! `cargo xtask`: set-up, demo, tests, benchmarks and tidiness. Holds no product logic, and depends on no crate whose
//! build needs what `setup` installs.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod demo;
mod fuzz;
mod image;
mod kernels;
mod lab;
mod setup;
mod test;
mod tidy;
mod toolchain;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::{test::Class, toolchain::Toolchain};

/// Sluice's own tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what builds and tests need: Rust's sources, bpf-linker, Debian packages. Says so before it does.
    Setup,
    /// Show what Sluice does, on a small cluster of network namespaces. Needs root.
    Demo,
    /// Run the tests of these classes; without a class, all. `prog` and `veth` need root.
    Test {
        #[arg(value_enum)]
        classes: Vec<Class>,
    },
    /// Measure.
    Bench {
        #[arg(value_enum)]
        what: bench::What,
        /// Print rows for machines.
        #[arg(long)]
        json: bool,
        /// How many pods `cluster` starts; 1,000, if this doesn't say.
        #[arg(long)]
        pods: Option<u32>,
    },
    /// Let libFuzzer search for clusters, changes and manifests that break a promise.
    Fuzz {
        /// Each of them if there is none.
        #[arg(value_enum)]
        targets: Vec<fuzz::Target>,
        /// How long to search, for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Hold the workspace against its own rules: who may depend on whom, what a file looks like.
    Tidy,
    /// Run the tests that judge packets on the kernels from the floor to the newest, in QEMU. Fetches them from Debian.
    Kernels {
        /// Series as in `uname -r`, such as 5.10; all if there is none.
        series: Vec<String>,
        /// Only the test target of this name, such as veth_tables, or the tests whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// A real Kubernetes cluster on this machine: build, up, down, status, kubectl, exec, import. Needs root.
    #[command(disable_help_flag = true)]
    Lab {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The upstream NetworkPolicy suite with Sluice, on a lab or on the cluster of a kubeconfig. Needs root.
    #[command(disable_help_flag = true)]
    Conformance {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Sluice on the cluster of a kubeconfig, or on one of kind that is made for it: installed, tried from within pods,
    /// removed.
    #[command(disable_help_flag = true)]
    E2e {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build the agent's image, an archive in OCI layout.
    Image {
        /// Of the agent's debug build, as the tests use it.
        #[arg(long)]
        debug: bool,
    },
    /// All tests, where one that can't run is a failure.
    Ci,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<ExitCode> {
    let root = root()?;
    if matches!(task, Task::Tidy) {
        return tidy::run(&root);
    }
    let toolchain = Toolchain::find(&root)?;
    setup::run(&toolchain, matches!(task, Task::Setup))?;
    match task {
        Task::Setup | Task::Tidy => Ok(ExitCode::SUCCESS),
        Task::Lab { arguments } => lab::run(&toolchain, arguments),
        Task::Conformance { arguments } => lab::conformance(&toolchain, arguments),
        Task::E2e { arguments } => lab::e2e(&toolchain, arguments),
        Task::Image { debug } => {
            let profile = if *debug { image::Profile::Debug } else { image::Profile::Release };
            image::run(&toolchain, profile).map(|_| ExitCode::SUCCESS)
        }
        Task::Demo => demo::run(&toolchain),
        Task::Test { classes } => test::run(&toolchain, classes, test::Skipping::Allowed),
        Task::Ci => test::run(&toolchain, &[], test::Skipping::Fails),
        Task::Kernels { series, only } => kernels::run(&toolchain, series, only).map(|()| ExitCode::SUCCESS),
        Task::Fuzz { targets, seconds } => fuzz::run(&toolchain, targets, *seconds),
        Task::Bench { what, json, pods } => bench::run(&toolchain, *what, *json, *pods),
    }
}

/// The workspace's folder.
fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").context("started without cargo: use `cargo xtask`")?;
    PathBuf::from(here).parent().map(PathBuf::from).context("the crate lies in the workspace")
}
