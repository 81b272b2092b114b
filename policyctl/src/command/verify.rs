//! `policyctl verify`: whether what an agent's objects mean, what it has compiled of them and what the kernel holds are
//! one and the same. What is intended is compiled here, afresh, from the objects that the agent tells.

mod compare;

use std::{collections::BTreeSet, thread, time::Duration};

use policy_compiler::{Cluster, Compiler, Options, files::Gather};
use serde_json::json;

use self::compare::{Compared, Difference, compare};
use crate::{
    Outcome, Status,
    agent::{Agent, Of, asked},
    format::{self, Answer, Table},
    source::plural,
};

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: asked::Args,
    #[command(flatten)]
    format: format::Args,
}

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
Exit status:
  0 no difference   1 differences   2 wrong use   3 an agent is out of reach";

/// How often a difference is looked at again, while the state goes on changing.
const PASSES: usize = 5;

/// Between two looks: what nobody uses any more is removed a second after its last use.
const PAUSE: Duration = Duration::from_millis(1500);

/// What was found on a node.
struct Verified {
    node: String,
    version: String,
    pods: usize,
    /// Pods that nothing enforces yet, or can: there is nothing in the kernel to compare with.
    left_out: usize,
    differences: BTreeSet<Difference>,
}

/// Compares: 0 no difference, 1 differences, 3 an agent is out of reach.
pub(crate) fn run(args: &Args) -> Outcome {
    let agents = args.agents.agents()?;
    let mut answer = Answer { kind: "Verification", list: "differences", ..Answer::default() };
    let (mut nodes, mut differences) = (Vec::new(), Vec::new());
    let mut table = Table { head: vec!["NODE", "POD", "OF", "DIFFERENCE"], narrow: 4, rows: Vec::new() };
    let mut status = Status::Answered;
    for (agent, verified) in asked::each(&agents, verify) {
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => {
                eprintln!("error: {error:#}");
                status = Status::NoAnswer;
                nodes.push(json!({"agent": agent.name, "error": format!("{error:#}")}));
                continue;
            }
        };
        let Verified { node, version, pods, left_out, differences: found } = verified;
        if version != env!("CARGO_PKG_VERSION") {
            eprintln!(
                "warning: the agent of {node} is of version {version}, this is {}: they may compile to other tables",
                env!("CARGO_PKG_VERSION")
            );
        }
        let says = match found.len() {
            0 => "intended = compiled = loaded".to_owned(),
            count => plural(count, "difference", "differences"),
        };
        let left = if left_out == 0 { String::new() } else { format!(", {left_out} of them not enforced") };
        answer.text.push_str(&format!("{node}  {}{left}: {says}\n", plural(pods, "pod", "pods")));
        for Difference { pod, of, difference } in &found {
            let who = pod.clone().unwrap_or_else(|| "all pods".into());
            table.rows.push(vec![node.clone(), who.clone(), (*of).into(), difference.clone()]);
            answer.names.push(format!("{node} {who}"));
            let mut told = json!({"node": node, "of": of, "difference": difference});
            if let Some(pod) = pod {
                told["pod"] = json!(pod);
            }
            differences.push(told);
            status = status.max(Status::Denied);
        }
        nodes.push(json!({"node": node, "pods": pods, "notEnforced": left_out, "differences": found.len()}));
    }
    answer.set("nodes", nodes);
    answer.set("differences", differences);
    if table.rows.is_empty() && matches!(args.format.output, format::Output::Text | format::Output::Wide) {
        answer.table = None;
    } else {
        answer.text.push_str(if table.rows.is_empty() { "" } else { "\n" });
        answer.table = Some(table);
    }
    answer.print(&args.format)?;
    Ok(status)
}

/// Looks until there is no difference, or one stays: what changes while it is looked at differs for a moment.
fn verify(agent: &Agent) -> anyhow::Result<Verified> {
    let (mut verified, mut steady) = look(agent)?;
    for _ in 1..PASSES {
        if verified.differences.is_empty() {
            break;
        }
        thread::sleep(PAUSE);
        let before = std::mem::take(&mut verified.differences);
        let was_steady = steady;
        (verified, steady) = look(agent)?;
        verified.differences.retain(|difference| before.contains(difference) || !was_steady || !steady);
        if was_steady && steady {
            break;
        }
    }
    Ok(verified)
}

/// One look, and whether nothing has changed meanwhile.
fn look(agent: &Agent) -> anyhow::Result<(Verified, bool)> {
    let objects = agent.objects()?;
    let compiled = agent.tables(Of::Compiled)?;
    let loaded = agent.tables(Of::Loaded)?;
    let moments =
        [objects.head.moment, objects.end, compiled.head.moment, compiled.end, loaded.head.moment, loaded.end];
    let steady = moments.iter().all(|moment| moment.settled && moment.generation == moments[0].generation);
    let mut gather = Gather::default();
    gather.file("agent.json", &objects.text, false);
    let cluster = gather.finish().cluster;
    let options = Options { endpoints: objects.head.endpoints, ..Options::new(objects.head.node.as_str()) };
    let mut compiler = Compiler::new(options);
    compiler.apply_all(cluster.events_since(&Cluster::default()));
    let intended = compiler.contents();
    let all = Compared { intended: &intended, cluster: &cluster, compiled: &compiled, loaded: &loaded };
    let verified = Verified {
        differences: compare(&all),
        pods: compiled.pods.len(),
        left_out: compiled.pods.iter().filter(|pod| !matches!(&*pod.state, "enforced" | "closed")).count(),
        node: objects.head.node,
        version: objects.head.version,
    };
    Ok((verified, steady))
}
