//! Why a connection is judged as it is: [`explain`] answers with every policy and rule that took part, by which element
//! each matched, and, where it didn't, what would have had to differ. [`render`] puts that into words.
//!
//! It judges the [`crate::model`] by itself, rule by rule, not by the tables; both are held against the reference.

mod almost;
mod answer;
mod effect;
mod front_end;
mod judge;
mod labels;
mod near;
mod peers;
mod ports;
mod quick;
#[cfg(test)]
mod tests;
mod text;

use std::{net::IpAddr, sync::Arc};

use serde::Serialize;
use thiserror::Error;

pub use self::{
    almost::{Almost, almost_selecting},
    answer::{
        BackEnd, Connection, Direction, Element, Explanation, Judgement, ListPart, Mismatch, MismatchKind, Party,
        PartyKind, PolicyPart, Reason, RulePart, ServicePath, Source, Verdict,
    },
    effect::Effect,
    near::{Edit, Fix, NearMiss, ineffective, near_misses},
    peers::peer_summary,
    ports::port_summary,
    quick::{Other, Quick},
    text::render,
};
use self::{front_end::FrontEnd, judge::Remote};
use crate::{
    cluster::Cluster,
    model::{ObjectName, Pod, Protocol},
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
    if egress.reason == Reason::Rule && connection.port.is_some_and(|port| port != DNS) {
        notes.extend(without_dns(&ask));
    }
    Explanation { verdict, decided_by, connection, egress, ingress, service, notes }
}

/// The port of DNS.
const DNS: u16 = 53;

/// Says so if the source may not ask any of the cluster's DNS servers: what it may reach, it can't look up.
fn without_dns(ask: &judge::Ask<'_>) -> Option<String> {
    let cluster = ask.cluster;
    let pod = ask.source.own_pod(cluster)?;
    let is_server = |pod: &&Pod| {
        let has_label = pod.labels.get("k8s-app").is_some_and(|app| matches!(&**app, "kube-dns" | "coredns"));
        has_label || pod.ports.iter().any(|port| port.number == DNS && port.protocol == Protocol::Udp)
    };
    let own = |server: &&Pod| !server.host_network && !server.ended && server.name != pod.name;
    let mut servers = cluster.pods.values().filter(is_server).filter(own).peekable();
    let first = servers.peek()?.name.clone();
    let asks = judge::Ask { port: Some((DNS, Protocol::Udp)), ..*ask };
    let may_ask = |server: &Pod| {
        let mut parties = server.addresses.iter().map(|address| Party::pod(server, *address));
        parties.any(|party| asks.judge(pod, &party, Some(DNS), false).verdict == Verdict::Allowed)
    };
    let refused = !servers.any(may_ask);
    refused.then(|| {
        format!("egress of {} refuses DNS ({first} UDP/{DNS}): it can't look names up; add a rule for that", pod.name)
    })
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
pub(crate) fn parties(cluster: &Cluster, end: &End) -> Result<Vec<Party>, Unanswerable> {
    let no_address = |reason| Err(Unanswerable::NoAddress { name: end.to_string(), reason });
    let found: Vec<Party> = match end {
        End::Address(address) => vec![Party::at(cluster, *address)],
        End::Pod(name) => {
            let pod = cluster.pods.get(name).ok_or_else(|| unknown("pod", name, cluster.pods.keys()))?;
            if pod.ended {
                return no_address("it has ended");
            }
            let node = pod.node.as_ref().and_then(|node| cluster.nodes.get(node)).filter(|_| pod.host_network);
            let of_node = node.map(|node| &*node.addresses).unwrap_or_default();
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
