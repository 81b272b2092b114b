//! Which agents are asked: `--agent`, else those of all nodes; and asking several at once: [`each`], and [`first`].

use std::{env, path::Path, sync::mpsc, thread, time::Duration};

use super::{Agent, node};
use crate::{
    Failure,
    source::{ClusterArgs, duration},
};

/// Flags that say which agents are meant.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The agent to ask: the path of its socket, or its node's name (repeatable; default: those of all nodes)
    #[arg(long, value_name = "SOCKET|NODE")]
    pub(crate) agent: Vec<String>,
    /// The namespace of the agents' pods
    #[arg(long, value_name = "NAME", default_value = NAMESPACE, env = NAMESPACE_VARIABLE)]
    pub(crate) agent_namespace: String,
    /// How long an agent may be silent before it counts as out of reach, such as 5s or 1m; 0 means for ever
    #[arg(long, value_name = "TIME", default_value = PATIENCE, env = PATIENCE_VARIABLE, value_parser = duration)]
    pub(crate) agent_timeout: Duration,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Tell more: on stderr which agents are asked; dump also tells all members of each peer class
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Where the manifests put the agents.
const NAMESPACE: &str = "sluice-system";

/// Where else they may be.
const NAMESPACE_VARIABLE: &str = "POLICYCTL_AGENT_NAMESPACE";

/// More than an agent's own time-out for an answer.
const PATIENCE: &str = "20s";

/// How long agents may be silent that another command asks for their state.
const PATIENCE_VARIABLE: &str = "POLICYCTL_AGENT_TIMEOUT";

/// Where an agent listens, unless it was told otherwise.
const SOCKET: &str = "/run/sluice/agent.sock";

impl Args {
    /// Those that are meant.
    pub(crate) fn agents(&self) -> Result<Vec<Agent>, Failure> {
        let agents = self.find()?;
        if self.verbose {
            agents.iter().for_each(|agent| eprintln!("asking the agent at {agent}"));
        }
        Ok(agents)
    }

    fn find(&self) -> Result<Vec<Agent>, Failure> {
        let patience = limit(self.agent_timeout);
        if self.agent.is_empty() && self.is_in_agents_pod() {
            return Ok(vec![Agent::at(Path::new(SOCKET), patience)]);
        }
        let is_socket = |name: &&String| name.contains('/');
        let mut agents: Vec<Agent> =
            self.agent.iter().filter(is_socket).map(|name| Agent::at(Path::new(name), patience)).collect();
        let nodes: Vec<&String> = self.agent.iter().filter(|name| !is_socket(name)).collect();
        if !nodes.is_empty() || self.agent.is_empty() {
            let all = node::all(&self.cluster, &self.agent_namespace, patience)?;
            for name in &nodes {
                agents.push(of_node(&all, name)?);
            }
            if self.agent.is_empty() {
                agents = all;
            }
        }
        Ok(agents)
    }

    /// There, nobody may enter pods, and the agent of this very node is meant.
    fn is_in_agents_pod(&self) -> bool {
        let names_cluster = self.cluster.context.is_some() || self.cluster.kubeconfig.is_some();
        let is_pod = env::var_os("KUBERNETES_SERVICE_HOST").is_some() && env::var_os("KUBECONFIG").is_none();
        is_pod && !names_cluster && Path::new(SOCKET).exists()
    }
}

/// The agent of this name.
pub(crate) fn named(name: &str, cluster: &ClusterArgs) -> Result<Agent, Failure> {
    let told = env::var(PATIENCE_VARIABLE).unwrap_or_else(|_| PATIENCE.to_owned());
    let wrong = |why| Failure::wrong_use(anyhow::anyhow!("{PATIENCE_VARIABLE} is {told:?}: {why}"));
    let patience = limit(duration(&told).map_err(wrong)?);
    if name.contains('/') {
        return Ok(Agent::at(Path::new(name), patience));
    }
    let namespace = env::var(NAMESPACE_VARIABLE).unwrap_or_else(|_| NAMESPACE.to_owned());
    of_node(&node::all(cluster, &namespace, patience)?, name)
}

/// Nothing at all is for ever.
fn limit(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| *time != Duration::MAX)
}

fn of_node(all: &[Agent], name: &str) -> Result<Agent, Failure> {
    let wanted = format!("node {name}");
    all.iter().find(|agent| agent.name == wanted).cloned().ok_or_else(|| {
        let there: Vec<_> = all.iter().map(|agent| agent.name.trim_start_matches("node ")).collect();
        let there = there.join(", ");
        Failure::no_answer(anyhow::anyhow!(
            "there is no agent on node {name}, but on {there}; a socket's path has a slash in it"
        ))
    })
}

/// Asks all of them at once; answers in their order.
pub(crate) fn each<T: Send>(
    agents: &[Agent],
    ask: impl Fn(&Agent) -> anyhow::Result<T> + Sync,
) -> Vec<(&Agent, anyhow::Result<T>)> {
    let ask = &ask;
    thread::scope(|scope| {
        let asked: Vec<_> = agents.iter().map(|agent| (agent, scope.spawn(move || ask(agent)))).collect();
        asked
            .into_iter()
            .map(|(agent, thread)| (agent, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))))
            .collect()
    })
}

/// Asks all of them at once for what one of them has; the others are not waited for then. If nobody has it, what went
/// wrong with those that gave no answer.
pub(crate) fn first<T: Send + 'static>(
    agents: Vec<Agent>,
    ask: impl Fn(&Agent) -> anyhow::Result<Option<T>> + Clone + Send + 'static,
) -> Result<(Agent, T), Vec<anyhow::Error>> {
    let (sender, told) = mpsc::channel();
    for agent in agents {
        let (sender, ask) = (sender.clone(), ask.clone());
        thread::spawn(move || {
            let answer = ask(&agent);
            // somebody else has had it
            let _ = sender.send((agent, answer));
        });
    }
    drop(sender);
    let mut errors = Vec::new();
    for (agent, answer) in told {
        match answer {
            Ok(Some(found)) => return Ok((agent, found)),
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    Err(errors)
}
