//! Which agents are asked: `--agent`; and asking several at once: [`each`].

use std::{path::Path, thread};

use anyhow::bail;

use super::Agent;
use crate::{Failure, source::ClusterArgs};

/// Flags that say which agents are meant.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// The agent to ask: the path of its socket (repeatable)
    #[arg(long, value_name = "SOCKET")]
    pub(crate) agent: Vec<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

impl Args {
    /// Those that are meant.
    pub(crate) fn agents(&self) -> Result<Vec<Agent>, Failure> {
        if self.agent.is_empty() {
            return Err(Failure::wrong_use(anyhow::anyhow!(
                "--agent is missing: name the socket of an agent, /run/sluice/agent.sock on its node"
            )));
        }
        self.agent.iter().map(|name| named(name, &self.cluster).map_err(Failure::wrong_use)).collect()
    }
}

/// The agent of this name.
pub(crate) fn named(name: &str, _cluster: &ClusterArgs) -> anyhow::Result<Agent> {
    if !name.contains('/') {
        bail!("--agent {name}: a path of a socket has a slash in it, such as ./{name}");
    }
    Ok(Agent::at(Path::new(name)))
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
