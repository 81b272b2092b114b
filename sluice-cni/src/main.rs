//! `sluice-cni`: a chained CNI plugin, and its installer. A runtime calls it with `CNI_COMMAND` in the environment; with
//! arguments it installs itself, or takes itself out again.
#![forbid(unsafe_code)]

mod agent;
mod command;
mod config;
mod environment;
mod failure;
mod install;
mod json;
mod previous;
mod record;
mod veth;

use std::{env, io, process::ExitCode};

use clap::{Parser, Subcommand};

/// A chained CNI plugin: a pod's policies are in force before its first process runs. Container runtimes call it with
/// CNI_COMMAND in the environment; by hand it is installed and taken out again.
#[derive(Debug, Parser)]
#[command(name = "sluice-cni", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add the plugin to the network configuration that the runtime uses, and copy it to where plugins are
    Install(install::InstallArgs),
    /// Take it out of every network configuration, and remove it
    Uninstall(install::UninstallArgs),
}

fn main() -> ExitCode {
    if let Some(command) = env::var_os("CNI_COMMAND") {
        return plugin(&command.to_string_lossy());
    }
    let result = match Cli::parse().command {
        Command::Install(args) => install::install(&args),
        Command::Uninstall(args) => install::uninstall(&args),
    };
    match result {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As the specification has it: the result or the error as JSON on stdout.
fn plugin(command: &str) -> ExitCode {
    let mut stdin = String::new();
    let read = io::Read::read_to_string(&mut io::stdin(), &mut stdin);
    let result = match read {
        Ok(_) => command::run(command, &|name| env::var(name).ok(), &stdin),
        Err(error) => Err(failure::Failure::new(failure::IO, "could not read the configuration", error)),
    };
    match result {
        Ok(output) => {
            print!("{output}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}", failure.to_json(config::version_of(&stdin)));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
