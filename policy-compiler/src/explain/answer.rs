//! What an explanation says, in a shape that JSON carries.

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{Family, front_end};
use crate::{
    cluster::Cluster,
    model::{Labels, ObjectName, Pod, Protocol},
};

/// Whether something passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It is dropped.
    Denied,
}

/// The answer, for one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether a new connection passes both sides.
    pub verdict: Verdict,
    /// The sides that refuse it.
    pub decided_by: Vec<Direction>,
    /// The ends.
    pub connection: Connection,
    /// What the source's own policies say. Through a front end: of all back ends together, without policies.
    pub egress: Judgement,
    /// What the destination's own policies say. Through a front end: of all back ends together, without policies.
    pub ingress: Judgement,
    /// The front end and its back ends, each with its own judgements, if a Service's address was dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServicePath>,
    /// What Kubernetes leaves open here, and how it is decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The direction of a judgement, as the API names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// At the source.
    Egress,
    /// At the destination.
    Ingress,
}

impl Direction {
    /// `egress` or `ingress`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// A `Query` with its ends found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Who opens it.
    pub source: Party,
    /// The dialled end.
    pub destination: Party,
    /// `None` for protocols without ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The dialled port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Of both addresses.
    pub family: Family,
}

/// An end of a [`Connection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// What it is.
    pub kind: PartyKind,
    /// Empty for a node and an address that is nobody's.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: Arc<str>,
    /// Empty for an address that is nobody's.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: Arc<str>,
    /// A pod's.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Its address of the connection's family.
    pub ip: IpAddr,
    /// The node it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Arc<str>>,
}

/// What an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum PartyKind {
    /// A pod with its own network.
    Pod,
    /// A pod on its node's network.
    HostNetworkPod,
    /// A node.
    Node,
    /// A Service's front end.
    Service,
    /// An address of nobody in the cluster.
    Outside,
}

/// What one side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// Whether it lets the connection through.
    pub verdict: Verdict,
    /// On what grounds.
    pub reason: Reason,
    /// Whether any policy isolates the pod in this direction.
    pub isolated: bool,
    /// The policies that isolate it, in the order of their names, matching rules and all others.
    pub policies: Vec<PolicyPart>,
}

/// The grounds of a [`Judgement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Reason {
    /// A rule allows it.
    Rule,
    /// Policies isolate the pod, and no rule allows it.
    NoRule,
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// There is no pod on this side with a network of its own.
    NoPod,
    /// The pod's own node made it.
    OwnNode,
    /// The pod speaks to itself.
    Itself,
    /// All back ends that the front end may lead to are allowed.
    BackEnds,
    /// Some of the back ends are refused, and nobody knows which one it will be.
    MixedBackEnds,
    /// All of the back ends are refused.
    RefusedBackEnds,
    /// The front end has no back end that is ready.
    NoBackEnds,
    /// The cluster IP has no such port.
    NoSuchPort,
}

/// The part that a policy took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyPart {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Where it begins, if it was read from a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Whether one of its rules allows the connection.
    pub matched: bool,
    /// All of its rules for this direction.
    pub rules: Vec<RulePart>,
}

/// Where something was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The file.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RulePart {
    /// Such as `spec.ingress[0]`.
    pub path: String,
    /// Where it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Whether peers and ports both match.
    pub matched: bool,
    /// `from` or `to`.
    pub peers: ListPart,
    /// `ports`
    pub ports: ListPart,
}

/// What one of the two lists of a rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListPart {
    /// Whether some element matches, or the list is empty and so matches everything.
    pub matched: bool,
    /// The first element that matches, such as `from[1]`; `None` if none does, or the list is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// All elements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Element>,
}

/// One element of `from`, `to` or `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Element {
    /// Such as `from[1]`.
    pub path: String,
    /// Where it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What it asks for, in short: `podSelector app=web`.
    pub summary: String,
    /// What would have had to differ; nothing if it matches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Mismatch>,
}

impl Element {
    /// Whether it matches.
    #[must_use]
    pub fn matched(&self) -> bool {
        self.failed.is_empty()
    }
}

/// A condition that isn't met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mismatch {
    /// What kind of condition.
    pub kind: MismatchKind,
    /// Its field within the element, such as `podSelector.matchLabels[app]`.
    pub field: String,
    /// What would match.
    pub want: String,
    /// What is there; `None` if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub have: Option<String>,
    /// By how many letters `have` and `want` differ, where both are one label's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<usize>,
    /// Whom it is about, if not the other end: `namespace pay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

/// Kinds of conditions that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum MismatchKind {
    /// A label has another value, or should have none of these.
    LabelValue,
    /// A label is missing.
    LabelMissing,
    /// A label of a key that is off by its prefix, its case or two letters at most has the value.
    LabelKey,
    /// The pod's namespace has the label, not the pod.
    OnNamespace,
    /// The pod has the label, not its namespace.
    OnPod,
    /// A label should not be there.
    LabelPresent,
    /// A `podSelector` alone means pods of the policy's own namespace.
    OwnNamespace,
    /// A selector matches pods only, and the other end is none (or is on its node's network).
    NotAPod,
    /// The address is not in the block.
    OutsideBlock,
    /// The address is in the block, and an `except` takes it out.
    Except,
    /// The block is of the other address family.
    OtherFamily,
    /// The port is of another protocol.
    Protocol,
    /// Another port.
    Port,
    /// One past the last of a range.
    PastEnd,
    /// One is the port of a Service, the other the one that its pods listen on.
    ServicePort,
    /// The pod has no port of this name.
    NamedPortMissing,
    /// There is no pod whose port could have this name.
    NamedPortOfNobody,
    /// The policy has rules for the direction, and its `policyTypes` leave it out.
    Direction,
    /// The policy is of another namespace, where it selects no pod.
    OtherNamespace,
    /// The rule names ports, and the protocol has none.
    Portless,
    /// The element can't be used and was reported.
    Unusable,
}

/// The way through a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePath {
    /// The Service's namespace.
    pub namespace: Arc<str>,
    /// The Service's name.
    pub name: Arc<str>,
    /// `clusterIP`, `externalIP` or `nodePort`
    pub entrance: &'static str,
    /// The back ends that the connection may lead to.
    pub back_ends: Vec<BackEnd>,
}

/// A back end of a [`ServicePath`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackEnd {
    /// Who it is.
    pub party: Party,
    /// The target port.
    pub port: u16,
    /// What the source's policies say of it.
    pub egress: Judgement,
    /// What its own policies say.
    pub ingress: Judgement,
}

impl Party {
    /// Whoever has this address.
    pub(super) fn at(cluster: &Cluster, address: IpAddr) -> Self {
        let address = address.to_canonical();
        if let Some(pod) = cluster.pod_at(address) {
            return Self::pod(pod, address);
        }
        if let Some(service) = front_end::service_at(cluster, address) {
            return Self::service(&service.name, address);
        }
        match cluster.nodes_at(address).next() {
            Some(node) => Self::node(&node.name, address),
            None => Self { kind: PartyKind::Outside, ..Self::node(&"".into(), address) },
        }
    }

    pub(super) fn pod(pod: &Pod, ip: IpAddr) -> Self {
        Self {
            kind: if pod.host_network { PartyKind::HostNetworkPod } else { PartyKind::Pod },
            namespace: pod.name.namespace.clone(),
            name: pod.name.name.clone(),
            labels: pod.labels.clone(),
            ip,
            node: pod.node.clone(),
        }
    }

    pub(super) fn node(name: &Arc<str>, ip: IpAddr) -> Self {
        Self {
            kind: PartyKind::Node,
            namespace: "".into(),
            name: name.clone(),
            labels: Labels::new(),
            ip,
            node: Some(name.clone()).filter(|name| !name.is_empty()),
        }
    }

    pub(super) fn service(name: &ObjectName, ip: IpAddr) -> Self {
        Self {
            kind: PartyKind::Service,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            labels: Labels::new(),
            ip,
            node: None,
        }
    }

    /// The pod that it is, if it has a network of its own.
    pub(super) fn own_pod<'a>(&self, cluster: &'a Cluster) -> Option<&'a Pod> {
        if self.kind != PartyKind::Pod {
            return None;
        }
        cluster.pods.get(&ObjectName { namespace: self.namespace.clone(), name: self.name.clone() })
    }
}
