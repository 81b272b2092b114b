//! What an answer says of the state that it was asked of: [`Summary`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{About, State, agent};

/// What an answer was asked of.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    #[serde(flatten)]
    pub(super) taken: Taken,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) with: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) without: Vec<String>,
    pub(super) pods: usize,
    pub(super) policies: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) ignored: BTreeMap<String, usize>,
}

/// Where a state was taken from.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "source", rename_all = "camelCase")]
pub(super) enum Taken {
    Files {
        files: Vec<String>,
    },
    Snapshot {
        file: String,
        #[serde(flatten)]
        about: About,
    },
    Agent {
        #[serde(flatten)]
        about: agent::About,
    },
    Cluster {
        #[serde(flatten)]
        about: About,
    },
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { files } => f.write_str(&files.join(", ")),
            Self::Snapshot { file, about } => write!(f, "{file}, of {about} at {}", about.taken_at),
            Self::Agent { about } => write!(f, "agent of node {}", about.node),
            Self::Cluster { about } => about.fmt(f),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state: {}", self.taken)?;
        if !self.with.is_empty() {
            write!(f, " with {}", self.with.join(", "))?;
        }
        if !self.without.is_empty() {
            write!(f, " without {}", self.without.join(", "))?;
        }
        let (pods, policies) = (plural(self.pods, "pod", "pods"), plural(self.policies, "policy", "policies"));
        let defaults = if matches!(self.taken, Taken::Files { .. }) { ", API defaults applied" } else { "" };
        write!(f, " ({pods}, {policies}{defaults})")
    }
}

impl Summary {
    /// Everything that there is to say of when it was taken.
    pub(super) fn as_of(&self) -> String {
        match &self.taken {
            Taken::Files { .. } => format!("{self}, read at {}", seconds(Timestamp::now())),
            Taken::Snapshot { about, .. } => format!("{self}, resourceVersion {}", about.resource_version),
            Taken::Agent { about } => format!("{self}, sluice-agent {}, taken at {}", about.version, about.taken_at),
            Taken::Cluster { about } => format!(
                "{self} at {}, resourceVersion {}, taken at {}",
                about.server, about.resource_version, about.taken_at
            ),
        }
    }
}

/// What of each kind is in a state, a line each.
pub(super) fn detail(state: &State) -> String {
    let cluster = state.cluster();
    let pods = cluster.pods.values();
    let host = pods.clone().filter(|pod| pod.host_network && !pod.ended).count();
    let ended = pods.clone().filter(|pod| pod.ended).count();
    let workloads: BTreeSet<_> = state.gathered.owners.values().collect();
    let mut words = vec![
        plural(cluster.namespaces.len(), "namespace", "namespaces"),
        plural(cluster.nodes.len(), "node", "nodes"),
        format!("{} ({host} in their nodes' networks, {ended} ended)", plural(pods.len(), "pod", "pods")),
        plural(workloads.len(), "workload", "workloads"),
        plural(cluster.services.len(), "Service", "Services"),
        plural(cluster.policies.len(), "policy", "policies"),
    ];
    if !state.gathered.assumed.is_empty() {
        words.push(format!("{} assumed", plural(state.gathered.assumed.len(), "address", "addresses")));
    }
    let ignored: Vec<_> = state.gathered.ignored.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if !ignored.is_empty() {
        words.push(format!("left out: {}", ignored.join(", ")));
    }
    let lines: String = words.iter().map(|words| format!("  {words}\n")).collect();
    format!("{}\n{lines}", state.summary)
}

/// Nobody asks for more.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `1 pod`, `2 pods`
pub(crate) fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
