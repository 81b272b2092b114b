//! `policyctl snapshot`: the state of a cluster in one file.

use crate::{
    Failure, Outcome, Status, format,
    progress::Progress,
    source::{self, ClusterArgs},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
What is written: namespaces, nodes, network policies, pods, services, endpoint slices and workloads, each cut down to
what verdicts depend on. No environment variables, commands, volumes, secrets or foreign annotations are in it.
--snapshot FILE reads it with every command, and so does -f FILE.";

/// Flags of `snapshot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t = Format::Yaml, value_name = "FORMAT")]
    output: Format,
    /// Tell on stderr what was read
    #[arg(short, long)]
    verbose: bool,
}

/// How a snapshot is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people, too
    Yaml,
    /// An object a line: shorter, and read faster
    Json,
}

/// Writes it to stdout.
pub(crate) fn run(args: &Args) -> Outcome {
    let fetched = source::fetch(&args.cluster, &mut Progress::begin())?;
    if args.verbose {
        for (resource, count, version) in fetched.counts() {
            eprintln!("{resource}: {count}, resourceVersion {version}");
        }
    }
    format::write(&source::written(&fetched, args.output == Format::Json).map_err(Failure::no_answer)?);
    Ok(Status::Answered)
}
