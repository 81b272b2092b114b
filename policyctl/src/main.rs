//! `policyctl`: explains verdicts. Answers go to stdout, `error:` and `warning:` to stderr; the exit status tells a
//! denial from a question that could not be answered (see [`Status`]).
#![forbid(unsafe_code)]

mod ends;
mod explain;
mod source;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Explains what network policies allow.
#[derive(Debug, Parser)]
#[command(name = "policyctl", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether a connection is allowed, and why
    #[command(after_help = explain::HELP)]
    Explain(explain::Args),
}

/// How it ended, as the process' exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    /// Answered.
    Answered = 0,
    /// Denied, at least in part; only with `--exit-code`.
    Denied = 1,
    /// Wrong use, or input that can't be read or is invalid.
    BadInput = 2,
    /// No answer: an end is unknown.
    NoAnswer = 3,
}

fn main() -> ExitCode {
    // wrong flags end with status 2 in clap itself
    let Cli { command: Command::Explain(args) } = Cli::parse();
    match explain::run(&args) {
        Ok(status) => ExitCode::from(status as u8),
        Err((status, error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(status as u8)
        }
    }
}
