//! `policyctl version`: which build this is, and which version of Kubernetes the cluster has, if that is asked.

use serde_json::json;

use crate::{
    Outcome, Status,
    format::{self, Answer},
    source::{self, ClusterArgs},
};

/// Flags of `version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask the API server for its version too
    #[arg(long)]
    server: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    format: format::Args,
}

/// Answers; if the server doesn't, the rest is told all the same.
pub(crate) fn run(args: &Args) -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    let mut answer = Answer { kind: "Version", text: format!("policyctl {own}\n"), ..Answer::default() };
    answer.set("version", own);
    let server = args.server.then(|| source::server_version(&args.cluster)).transpose();
    if let Ok(Some((address, version))) = &server {
        answer.set("server", json!({"address": address, "version": version}));
        answer.text.push_str(&format!("server    {version} at {address}\n"));
    }
    answer.print(&args.format)?;
    server.map(|_| Status::Answered)
}
