//! `policyctl version`: which build this is, and of which version the cluster and its agents are, if that is asked.

use serde::Deserialize;
use serde_json::json;

use crate::{
    Outcome, Status,
    agent::asked,
    format::{self, Answer},
    source,
};

/// Flags of `version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask the API server for its version too
    #[arg(long)]
    server: bool,
    /// Ask the API server and the agents of all nodes for their versions too; --agent asks some agents alone
    #[arg(long)]
    cluster: bool,
    #[command(flatten)]
    agents: asked::Args,
    #[command(flatten)]
    format: format::Args,
}

/// What an agent says of itself.
#[derive(Debug, Deserialize)]
struct View {
    node: String,
    version: String,
}

/// Answers; if somebody doesn't, the rest is told all the same.
pub(crate) fn run(args: &Args) -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    let mut answer = Answer { kind: "Version", text: format!("policyctl {own}\n"), ..Answer::default() };
    answer.set("version", own);
    let server = (args.server || args.cluster).then(|| source::server_version(&args.agents.cluster)).transpose();
    if let Ok(Some((address, version))) = &server {
        answer.set("server", json!({"address": address, "version": version}));
        answer.text.push_str(&format!("server    {version} at {address}\n"));
    }
    let wanted = args.cluster || !args.agents.agent.is_empty();
    let agents = match &server {
        Ok(_) if wanted => agents(args, &mut answer),
        _ => Ok(Status::Answered),
    };
    answer.print(&args.format)?;
    server?;
    agents
}

/// Adds what agents say, and warns of those that are of another version.
fn agents(args: &Args, answer: &mut Answer) -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    let agents = args.agents.agents()?;
    let (mut told, mut others, mut status) = (Vec::new(), Vec::new(), Status::Answered);
    for (agent, view) in asked::each(&agents, |agent| agent.state::<View>()) {
        match view {
            Ok(View { node, version }) => {
                answer.text.push_str(&format!("agent     {version} on {node}\n"));
                told.push(json!({"node": node, "version": version}));
                if version != own {
                    others.push(format!("{node} ({version})"));
                }
            }
            Err(error) => {
                format::tell(&format!("error: {error:#}"));
                told.push(json!({"agent": agent.name, "error": format!("{error:#}")}));
                status = Status::NoAnswer;
            }
        }
    }
    if !others.is_empty() {
        format::tell(&format!(
            "warning: this is version {own}, the agents of these nodes are not: {}; they may compile to other tables, \
             and tell less or more",
            others.join(", ")
        ));
    }
    answer.set("agents", told);
    Ok(status)
}
