//! `policyctl verify`: whether what an agent's objects mean, what it has compiled of them and what the kernel holds are
//! one and the same. What is intended is compiled here, afresh, from the objects that the agent tells. With `--probe`,
//! whether real connections say so too.

mod compare;
mod container;
mod probes;

use std::{collections::BTreeSet, thread, time::Duration};

use policy_compiler::{Cluster, Compiler, Options, files::Gather};
use serde_json::{Value, json};

use self::{
    compare::{Compared, Difference, compare},
    probes::{Plan, Shows},
};
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
    /// Also attempt these connections from the source's pods, and hold what comes back against the verdict of explain
    /// (repeatable)
    #[arg(long, num_args = 2, value_names = ["SOURCE", "DESTINATION:PORT"])]
    probe: Vec<String>,
    /// How many pods may be given a container to probe from
    #[arg(long, value_name = "PODS", default_value_t = 10, requires = "probe")]
    probe_limit: usize,
    /// The image with policyctl to probe with (default: the agents')
    #[arg(long, value_name = "IMAGE", requires = "probe")]
    probe_image: Option<String>,
    /// The namespace of ends that name none (default: the context's)
    #[arg(short, long, env = "POLICYCTL_NAMESPACE")]
    namespace: Option<String>,
}

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
--probe starts an ephemeral container in each of the source's pods, which attempts the connections and tells what came
back: over TCP an answer or a closed port was let through, silence was dropped. Over UDP silence says nothing; SCTP is
not probed. Such a container has ended when the answer is printed, but stays in the spec of its pod until that goes.

Exit status:
  0 no difference   1 differences   2 wrong use   3 an agent is out of reach, or a probe shows nothing";

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

/// What is said in the end.
struct Report {
    answer: Answer,
    nodes: Vec<Value>,
    differences: Vec<Value>,
    table: Table,
    status: Status,
}

/// Compares: 0 no difference, 1 differences, 3 an agent is out of reach.
pub(crate) fn run(args: &Args) -> Outcome {
    // wrong use is told before anything is asked
    let plan = (!args.probe.is_empty())
        .then(|| Plan::new(&args.probe, &args.agents, args.namespace.as_deref(), args.probe_limit))
        .transpose()?;
    let agents = args.agents.agents()?;
    let mut report = Report {
        answer: Answer { kind: "Verification", list: "differences", ..Answer::default() },
        nodes: Vec::new(),
        differences: Vec::new(),
        table: Table { head: vec!["NODE", "POD", "OF", "DIFFERENCE"], narrow: 4, rows: Vec::new() },
        status: Status::Answered,
    };
    for (agent, verified) in asked::each(&agents, verify) {
        report.node(agent, verified);
    }
    if let Some(mut plan) = plan {
        plan.carry_out(&args.agents.agent_namespace, args.probe_image.as_deref())?;
        report.probes(&plan);
    }
    report.print(&args.format)
}

impl Report {
    fn node(&mut self, agent: &Agent, verified: anyhow::Result<Verified>) {
        let verified = match verified {
            Ok(verified) => verified,
            Err(error) => {
                format::tell(&format!("error: {error:#}"));
                self.status = Status::NoAnswer;
                self.nodes.push(json!({"agent": agent.name, "error": format!("{error:#}")}));
                return;
            }
        };
        let Verified { node, version, pods, left_out, differences: found } = verified;
        if version != env!("CARGO_PKG_VERSION") {
            format::tell(&format!(
                "warning: the agent of {node} is of version {version}, this is {}: they may compile to other tables",
                env!("CARGO_PKG_VERSION")
            ));
        }
        let says = match found.len() {
            0 => "intended = compiled = loaded".to_owned(),
            count => plural(count, "difference", "differences"),
        };
        let left = if left_out == 0 { String::new() } else { format!(", {left_out} of them not enforced") };
        self.answer.text.push_str(&format!("{node}  {}{left}: {says}\n", plural(pods, "pod", "pods")));
        for Difference { pod, of, difference } in &found {
            self.differs(&node, pod.as_deref(), of, difference);
        }
        self.nodes.push(json!({"node": node, "pods": pods, "notEnforced": left_out, "differences": found.len()}));
    }

    fn differs(&mut self, node: &str, pod: Option<&str>, of: &str, difference: &str) {
        let who = pod.unwrap_or("all pods");
        self.table.rows.push(vec![node.to_owned(), who.to_owned(), of.to_owned(), difference.to_owned()]);
        self.answer.names.push(format!("{node} {who}"));
        let mut told = json!({"node": node, "of": of, "difference": difference});
        if let Some(pod) = pod {
            told["pod"] = json!(pod);
        }
        self.differences.push(told);
        self.status = self.status.max(Status::Denied);
    }

    fn probes(&mut self, plan: &Plan) {
        self.answer.text.push_str(&format!("\n{}\n", probes::summary(&plan.probes)));
        for probe in &plan.probes {
            self.answer.text.push_str(&format!("{}\n", probe.text()));
            if probe.shows() == Shows::Differs {
                self.differs(&probe.node, Some(&probe.source.to_string()), "probed", &probe.difference());
            }
        }
        let is_known = |probe: &probes::Probe| !matches!(probe.shows(), Shows::Nothing(_));
        // a difference is an answer, whatever else is not known
        if self.status == Status::Answered && !plan.probes.iter().all(is_known) {
            self.status = Status::NoAnswer;
        }
        self.answer.set("probes", plan.probes.iter().map(probes::Probe::json).collect::<Vec<_>>());
    }

    fn print(mut self, args: &format::Args) -> Outcome {
        self.answer.set("nodes", self.nodes);
        self.answer.set("differences", self.differences);
        let is_text = matches!(args.output, format::Output::Text | format::Output::Wide);
        if !self.table.rows.is_empty() {
            self.answer.text.push('\n');
        }
        self.answer.table = Some(self.table).filter(|table| !is_text || !table.rows.is_empty());
        self.answer.print(args)?;
        Ok(self.status)
    }
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
