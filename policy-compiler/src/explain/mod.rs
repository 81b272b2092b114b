//! Why a connection is judged as it is: [`explain`] answers with every policy and rule that took part, by which element
//! each matched, and, where it didn't, what would have had to differ. [`render`] puts that into words.
//!
//! It judges the [`crate::model`] by itself, rule by rule, not by the tables; both are held against the reference.

mod front_end;
mod judge;
mod labels;
mod peers;
mod ports;
#[cfg(test)]
mod tests;
mod text;

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;
use thiserror::Error;

pub use self::text::render;
use self::{front_end::FrontEnd, judge::Remote};
use crate::{
    cluster::Cluster,
    model::{Labels, ObjectName, Pod, Protocol},
};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who opens the connection.
    pub source: End,
    /// Where to.
    pub destination: End,
    /// The destination's port; `None` for protocols without ports, such as ICMP.
    pub port: Option<(Protocol, u16)>,
    /// Over IPv4 or IPv6 only; `None` asks for each family that both ends have.
    pub family: Option<Family>,
}

/// One end of a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A pod.
    Pod(ObjectName),
    /// A process on a node, outside every pod; as a destination, the node's addresses.
    Node(Arc<str>),
    /// An address; pods, nodes and front ends are recognised by theirs.
    Address(IpAddr),
    /// A Service's cluster IP; as a destination only.
    Service(ObjectName),
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    /// RFC 791
    IPv4,
    /// RFC 8200
    IPv6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::IPv4, Self::IPv6];

    /// An address's.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::IPv4 } else { Self::IPv6 }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unanswerable {
    /// There is none of this name.
    #[error("there is no {kind} {name}{}", hint(.nearest))]
    Unknown {
        /// `pod`, `node` or `Service`
        kind: &'static str,
        /// As asked.
        name: String,
        /// One whose name is at most two letters off.
        nearest: Option<String>,
    },
    /// It is there, but has no address.
    #[error("{name} has no address: {reason}")]
    NoAddress {
        /// As asked.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The ends have no address of one family, or none of the family that was asked for.
    #[error("{source_end} and {destination} have no address of the same family{}", .family.map(|f| format!(" {f:?}")).unwrap_or_default())]
    NoCommonFamily {
        /// As asked.
        source_end: String,
        /// As asked.
        destination: String,
        /// As asked.
        family: Option<Family>,
    },
    /// A Service opens no connections.
    #[error("Service {0} can't open a connection; name one of its pods")]
    ServiceAsSource(ObjectName),
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default()
}

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

/// A [`Query`] with its ends found.
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
}

/// Kinds of conditions that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum MismatchKind {
    /// A label has another value, or should have none of these.
    LabelValue,
    /// A label is missing.
    LabelMissing,
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
    /// The pod has no port of this name.
    NamedPortMissing,
    /// There is no pod whose port could have this name.
    NamedPortOfNobody,
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

/// Explains a connection, once for each family.
pub fn explain(cluster: &Cluster, query: &Query) -> Result<Vec<Explanation>, Unanswerable> {
    if let End::Service(name) = &query.source {
        return Err(Unanswerable::ServiceAsSource(name.clone()));
    }
    let sources = parties(cluster, &query.source)?;
    let destinations = parties(cluster, &query.destination)?;
    let families = Family::ALL.into_iter().filter(|family| query.family.is_none_or(|asked| asked == *family));
    let of = |parties: &[Party], family| parties.iter().find(|party| Family::of(party.ip) == family).cloned();
    let explanations: Vec<_> = families
        .filter_map(|family| {
            let connection = Connection {
                source: of(&sources, family)?,
                destination: of(&destinations, family)?,
                protocol: query.port.map(|(protocol, _)| protocol),
                port: query.port.map(|(_, port)| port),
                family,
            };
            Some(explain_one(cluster, connection, matches!(query.source, End::Address(_))))
        })
        .collect();
    if explanations.is_empty() {
        let name = |end: &End| end.to_string();
        let (source_end, destination) = (name(&query.source), name(&query.destination));
        return Err(Unanswerable::NoCommonFamily { source_end, destination, family: query.family });
    }
    Ok(explanations)
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "{name}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Service(name) => write!(f, "service {name}"),
        }
    }
}

/// `by_address`: the source is known by its address alone, so that a node's address doesn't mean that the node made it.
fn explain_one(cluster: &Cluster, connection: Connection, by_address: bool) -> Explanation {
    let ask =
        judge::Ask { cluster, source: &connection.source, port: connection.port.zip(connection.protocol), by_address };
    let front_end = FrontEnd::of(cluster, &connection);
    let (egress, ingress, service) = match front_end {
        None => {
            let remote = Remote { party: &connection.destination, port: connection.port };
            (ask.egress(remote), ask.ingress(remote), None)
        }
        Some(front_end) => {
            let path = front_end.path(&ask);
            (front_end.egress(&ask, &path), front_end.ingress(&path), Some(path))
        }
    };
    let decided_by = [(Direction::Egress, &egress), (Direction::Ingress, &ingress)];
    let decided_by = decided_by.into_iter().filter(|(_, judgement)| judgement.verdict == Verdict::Denied);
    let decided_by: Vec<_> = decided_by.map(|(direction, _)| direction).collect();
    let verdict = if decided_by.is_empty() { Verdict::Allowed } else { Verdict::Denied };
    let mut notes = notes(&connection, by_address);
    if verdict == Verdict::Allowed && matches!(ingress.reason, Reason::NoBackEnds | Reason::NoSuchPort) {
        notes.push("no policy refuses it, but nobody is there to answer".to_owned());
    }
    Explanation { verdict, decided_by, connection, egress, ingress, service, notes }
}

fn notes(connection: &Connection, by_address: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for party in [&connection.source, &connection.destination] {
        if party.kind == PartyKind::HostNetworkPod {
            let node = party.node.as_deref().unwrap_or("its node");
            notes.push(format!(
                "{}/{} is on the network of {node}: Kubernetes lets an engine treat it as a pod or as its node; this one \
                 treats it as its node",
                party.namespace, party.name
            ));
        }
    }
    if by_address && connection.source.kind == PartyKind::Node {
        notes.push(format!(
            "{} may also be what others are masqueraded to; what node {} itself sends to its own pods always passes",
            connection.source.ip, connection.source.name
        ));
    }
    notes
}

/// An end with each of its addresses.
fn parties(cluster: &Cluster, end: &End) -> Result<Vec<Party>, Unanswerable> {
    let no_address = |reason| Err(Unanswerable::NoAddress { name: end.to_string(), reason });
    let found: Vec<Party> = match end {
        End::Address(address) => vec![Party::at(cluster, *address)],
        End::Pod(name) => {
            let pod = cluster.pods.get(name).ok_or_else(|| unknown("pod", name, cluster.pods.keys()))?;
            if pod.ended {
                return no_address("it has ended");
            }
            let node = pod.node.as_ref().and_then(|node| cluster.nodes.get(node)).filter(|_| pod.host_network);
            let of_node = node.filter(|_| pod.addresses.is_empty()).map(|node| &*node.addresses).unwrap_or_default();
            pod.addresses.iter().chain(of_node).map(|address| Party::pod(pod, *address)).collect()
        }
        End::Node(name) => {
            let node = cluster.nodes.get(name).ok_or_else(|| unknown("node", name, cluster.nodes.keys()))?;
            node.addresses.iter().map(|address| Party::node(name, *address)).collect()
        }
        End::Service(name) => {
            let service =
                cluster.services.get(name).ok_or_else(|| unknown("Service", name, cluster.services.keys()))?;
            service.cluster_ips.iter().map(|address| Party::service(name, *address)).collect()
        }
    };
    match (found.is_empty(), end) {
        (false, _) => Ok(found),
        (true, End::Service(_)) => no_address("it is headless, or has no cluster IP yet; name one of its pods"),
        (true, _) => no_address("none is known yet (status)"),
    }
}

fn unknown<'a, T: ToString + 'a>(kind: &'static str, name: &T, known: impl Iterator<Item = &'a T>) -> Unanswerable {
    let name = name.to_string();
    let near = known.map(|other| other.to_string()).map(|other| (crate::files::distance(&name, &other), other));
    let nearest = near.filter(|(distance, _)| *distance <= 2).min().map(|(_, other)| other);
    Unanswerable::Unknown { kind, name, nearest }
}

impl Party {
    /// Whoever has this address.
    fn at(cluster: &Cluster, address: IpAddr) -> Self {
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

    fn pod(pod: &Pod, ip: IpAddr) -> Self {
        Self {
            kind: if pod.host_network { PartyKind::HostNetworkPod } else { PartyKind::Pod },
            namespace: pod.name.namespace.clone(),
            name: pod.name.name.clone(),
            labels: pod.labels.clone(),
            ip,
            node: pod.node.clone(),
        }
    }

    fn node(name: &Arc<str>, ip: IpAddr) -> Self {
        Self {
            kind: PartyKind::Node,
            namespace: "".into(),
            name: name.clone(),
            labels: Labels::new(),
            ip,
            node: Some(name.clone()).filter(|name| !name.is_empty()),
        }
    }

    fn service(name: &ObjectName, ip: IpAddr) -> Self {
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
    fn own_pod<'a>(&self, cluster: &'a Cluster) -> Option<&'a Pod> {
        if self.kind != PartyKind::Pod {
            return None;
        }
        cluster.pods.get(&ObjectName { namespace: self.namespace.clone(), name: self.name.clone() })
    }
}
