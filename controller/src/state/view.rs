//! What the agent tells of its state: [`View`] on the socket, [`Health`] for readiness.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::source::Problem;

/// The answer to `GET /state`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The agent's version.
    pub version: &'static str,
    /// The node's name.
    pub node: String,
    /// How the agent is.
    pub health: Health,
    /// The epoch in which new flows are judged.
    pub epoch: u64,
    /// This node's pods that have an address, by name.
    pub pods: Vec<PodView>,
    /// Veths that are no pod's, or not known to be one's.
    pub interfaces: Vec<InterfaceView>,
    /// How full the kernel's maps are.
    pub maps: Vec<MapView>,
    /// What is wrong with the source's objects.
    pub problems: Vec<Problem>,
    /// What else an administrator should know, one sentence each.
    pub reports: Vec<String>,
    /// Signs of other policy engines on the node, one sentence each.
    pub other_engines: Vec<String>,
}

/// A pod of this node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `enforced`, `held`, `unenforceable` or `closed`.
    pub state: Condition,
    /// Why it is not enforced, if there is more to say than its state does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The host's end of its veth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The same as an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// What judges packets to it.
    pub ingress: DirectionView,
    /// What judges packets from it.
    pub egress: DirectionView,
    /// What its namespace lets pass is only reported.
    pub audit: bool,
    /// Packets that were judged anew, those of known flows aside, by direction and reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub packets: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
}

/// One direction of a pod.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionView {
    /// Whether some policy isolates it.
    pub isolated: bool,
    /// The table's id in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The policies that isolate it, as `namespace/name`.
    pub policies: Vec<String>,
}

/// A veth.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// `held`, `untouched` or `secondary`.
    pub state: &'static str,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the kernel shows behind it.
    pub addresses: Vec<IpAddr>,
}

/// A kernel map.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapView {
    /// Its name.
    pub name: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Entries that fit in.
    pub max: u32,
}

/// How a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Its packets are judged.
    Enforced,
    /// Its interface isn't known yet.
    Held,
    /// Its packets can't be seen, or the kernel refuses.
    Unenforceable,
    /// Its tables could not be programmed, so that nothing passes.
    Closed,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Enforced, Self::Held, Self::Unenforceable, Self::Closed];

    /// The label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Held => "held",
            Self::Unenforceable => "unenforceable",
            Self::Closed => "closed",
        }
    }
}

/// Whether the agent does what it is there for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The source's initial list is in force.
    pub synced: bool,
    /// Pods that can't be enforced, by name.
    pub unenforceable: Vec<String>,
    /// Pods that are closed, by name.
    pub closed: Vec<String>,
    /// The last write that failed and is still to be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Why the source can't follow what it should, one sentence each. Written by the source, not by the state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
}

impl Health {
    /// Why the agent isn't ready; empty if it is.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if !self.synced {
            reasons.push("the source's initial list is not in force yet".to_owned());
        }
        reasons.extend(self.unenforceable.iter().map(|pod| format!("{pod} can't be enforced")));
        reasons.extend(self.closed.iter().map(|pod| format!("{pod} is closed: its policies could not be programmed")));
        reasons.extend(self.fault.iter().cloned());
        reasons.extend(self.source.iter().cloned());
        reasons
    }
}
