//! `policyctl snapshot`: the state of a cluster in one file.

use crate::{
    Failure, Outcome, Status,
    format::{self, Output, SnapshotParser},
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
    #[arg(short, long, value_parser = SnapshotParser, default_value = "yaml", value_name = "FORMAT")]
    output: Output,
    /// Tell on stderr what was read
    #[arg(short, long)]
    verbose: bool,
}

/// Writes it to stdout.
pub(crate) fn run(args: &Args) -> Outcome {
    let fetched = source::fetch(&args.cluster, &mut Progress::begin())?;
    if args.verbose {
        for (resource, count, version) in fetched.counts() {
            eprintln!("{resource}: {count}, resourceVersion {version}");
        }
    }
    let written = source::written(&fetched, args.output != Output::Yaml).map_err(Failure::no_answer)?;
    let Output::Jsonpath(template) = args.output else {
        format::write(&written);
        return Ok(Status::Answered);
    };
    let list = serde_json::from_str(&written).map_err(Failure::no_answer)?;
    let filled =
        template.fill(&list).map_err(|message| Failure::wrong_use(anyhow::anyhow!("-o jsonpath: {message}")))?;
    format::write(&filled);
    Ok(Status::Answered)
}
