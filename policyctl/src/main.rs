//! `policyctl`: explains verdicts. Answers go to stdout, `error:` and `warning:` to stderr; the exit status tells a
//! denial from a question that could not be answered (see [`Status`]).
#![forbid(unsafe_code)]

mod agent;
mod command;
mod completion;
mod end;
mod format;
mod jsonpath;
mod picture;
mod port;
mod progress;
mod source;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use command::{
    can, conformance, diff, dump, effective, explain, exposure, flows, graph, lint, list, matrix, probe, reach, relay,
    snapshot, status, test, verify, version,
};

/// Explains what network policies allow.
#[derive(Debug, Parser)]
#[command(name = "policyctl", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether a connection is allowed, why, and what would change it
    #[command(after_help = explain::HELP)]
    Explain(explain::Args),
    /// Say yes or no, and end with status 0 or 1
    #[command(after_help = explain::HELP)]
    Can(can::Args),
    /// Show everything that an end may open connections to
    #[command(after_help = explain::HELP)]
    Reach(reach::ReachArgs),
    /// Show everybody who may open connections to an end
    #[command(after_help = explain::HELP)]
    Who(reach::WhoArgs),
    /// Show what all policies together say of a pod
    #[command(after_help = explain::HELP)]
    Effective(effective::Args),
    /// List all allowed connections, workloads folded
    List(list::Args),
    /// Show who may speak to whom as a grid
    #[command(after_help = matrix::HELP)]
    Matrix(matrix::Args),
    /// Draw who may speak to whom
    #[command(after_help = graph::HELP)]
    Graph(graph::Args),
    /// Show which ports are open to any pod and to the world, and what no policy protects
    #[command(after_help = exposure::HELP)]
    Exposure(exposure::Args),
    /// Show what a change opens and closes, and end with status 1 if it does
    Diff(diff::Args),
    /// Find faults and smells in policies, and end with status 1 if there are any
    #[command(after_help = lint::HELP)]
    Lint(lint::Args),
    /// Check assertions about what is allowed, and end with status 1 if one fails
    #[command(after_help = test::HELP)]
    Test(test::Args),
    /// Hold verdicts against those that are expected, cell by cell, and end with status 1 if one differs
    #[command(after_help = conformance::HELP)]
    Conformance(conformance::Args),
    /// Write the state of the cluster down, for --snapshot
    #[command(after_help = snapshot::HELP)]
    Snapshot(snapshot::Args),
    /// Show how agents and their pods are
    Status(status::Args),
    /// Check that what is intended, compiled and loaded in the kernel is the same, and end with status 1 if it isn't
    #[command(after_help = verify::HELP)]
    Verify(verify::Args),
    /// Show what was judged and by which policy and rule, as it happens
    #[command(after_help = flows::HELP)]
    Flows(flows::Args),
    /// Show the tables of a pod as the kernel has them
    Dump(dump::Args),
    /// Lead from stdin and stdout to an agent's socket
    #[command(hide = true)]
    Relay(relay::Args),
    /// Try to open connections from here, and tell what came back
    #[command(hide = true)]
    Probe(probe::Args),
    /// Print the script that completes this program's commands in a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Say which version this is
    Version(version::Args),
}

/// How it ended, as the process' exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    /// Answered; allowed; nothing found.
    Answered = 0,
    /// Denied, an assertion failed, there are differences or findings.
    Denied = 1,
    /// Wrong use, or input that can't be read or is invalid.
    BadInput = 2,
    /// No answer: an end is unknown, or Kubernetes leaves the answer open.
    NoAnswer = 3,
}

/// Why there is no answer, and how to end.
#[derive(Debug)]
struct Failure(Status, anyhow::Error);

impl Failure {
    fn wrong_use(error: impl Into<anyhow::Error>) -> Self {
        Self(Status::BadInput, error.into())
    }

    fn no_answer(error: impl Into<anyhow::Error>) -> Self {
        Self(Status::NoAnswer, error.into())
    }
}

type Outcome = Result<Status, Failure>;

/// What was asked. A program that is called `kubectl-netpol` is found by `kubectl`, and names itself as it was called.
fn parsed() -> Cli {
    // what is piped is not folded
    let width = format::width(std::io::stdout()).map_or(0, |width| width.min(HELP));
    let command = Cli::command().term_width(width);
    let command = if called(PLUGIN) { command.bin_name("kubectl netpol") } else { command };
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Whether the program was called by this name.
fn called(wanted: &str) -> bool {
    let name = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    name.file_stem().is_some_and(|stem| stem == wanted)
}

/// Help is read in lines of at most this width.
const HELP: usize = 100;

/// What the program is called as a plugin of `kubectl`.
const PLUGIN: &str = "kubectl-netpol";

fn main() -> ExitCode {
    if called(completion::NAME) {
        let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        format::write(&completion::offer(&mut Cli::command(), &words));
        return ExitCode::SUCCESS;
    }
    // wrong flags end with status 2 in clap itself
    let outcome = match parsed().command {
        Command::Explain(args) => explain::run(&args),
        Command::Can(args) => can::run(&args),
        Command::Reach(args) => reach::reach(&args),
        Command::Who(args) => reach::who(&args),
        Command::Effective(args) => effective::run(&args),
        Command::List(args) => list::run(&args),
        Command::Matrix(args) => matrix::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Exposure(args) => exposure::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Flows(args) => flows::run(&args),
        Command::Relay(args) => relay::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "policyctl", &mut script);
            format::write(&String::from_utf8_lossy(&script));
            Ok(Status::Answered)
        }
    };
    match outcome {
        Ok(status) => ExitCode::from(status as u8),
        Err(Failure(status, error)) => {
            format::tell(&format!("error: {error:#}"));
            ExitCode::from(status as u8)
        }
    }
}
