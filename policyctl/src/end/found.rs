//! Ends looked up in a state: [`Ends::find`].

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policy_compiler::{
    cluster::Cluster,
    explain::End,
    files::{Workload, WorkloadKind, distance},
    model::{ObjectName, Peer, Pod, Protocol},
    reach::PortRange,
};
use thiserror::Error;

use super::Asked;
use crate::source::{State, plural};

/// What was asked for, as the ends that there are.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// As it is called in answers: `shop/web (2 pods)`.
    pub(crate) label: String,
    /// At least one.
    pub(crate) members: Vec<Member>,
    /// A Service's own ports: no others are there to be asked about.
    pub(crate) ports: Option<Vec<PortRange>>,
}

/// One of [`Ends`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// As it could be asked for alone.
    pub(crate) name: String,
    pub(crate) end: End,
}

impl Member {
    fn pod(name: &ObjectName) -> Self {
        Self { name: name.to_string(), end: End::Pod(name.clone()) }
    }

    /// The pod that it is.
    pub(crate) fn pod_of<'a>(&self, cluster: &'a Cluster) -> Option<&'a Pod> {
        match &self.end {
            End::Pod(name) => cluster.pods.get(name),
            End::Address(address) => cluster.pod_at(*address),
            End::Node(_) | End::Service(_) => None,
        }
    }
}

/// Why an end is not there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Missing {
    #[error("there is no {kind} {name}{}", hint(.near))]
    Unknown { kind: &'static str, name: String, near: Vec<String> },
    #[error("{0} has no pods that run")]
    NoPods(String),
    #[error("{0} can't be told from pods and nodes: all of its addresses are theirs")]
    NoAddress(String),
}

fn hint(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        many => format!("; did you mean one of these?\n  {}", many.join("\n  ")),
    }
}

/// How many names are offered.
const OFFERED: usize = 6;

impl Ends {
    /// Looks an end up. A pod that does not exist yet is put into the state.
    pub(crate) fn find(asked: &Asked, state: &mut State, as_destination: bool) -> Result<Self, Missing> {
        let one = |label: String, end| Self { members: vec![Member { name: label.clone(), end }], label, ports: None };
        match asked {
            Asked::Pod(name) => match state.cluster().pods.contains_key(name) {
                true => Ok(one(name.to_string(), End::Pod(name.clone()))),
                false => Err(unknown(state, "pod", name, None)),
            },
            Asked::Workload(name, kind) => workload(state, name, *kind),
            Asked::Service(name) => service(state, name, as_destination),
            Asked::Node(name) => match state.cluster().nodes.contains_key(name) {
                true => Ok(one(format!("node/{name}"), End::Node(name.clone()))),
                false => {
                    let names = state.cluster().nodes.keys().map(ToString::to_string);
                    Err(Missing::Unknown { kind: "node", name: name.to_string(), near: near(name, names) })
                }
            },
            Asked::Address(address) => Ok(one(format!("ip:{address}"), End::Address(*address))),
            Asked::Network(network) => {
                let members = network_members(&[state.cluster()], *network, |_| true);
                let label = format!("cidr:{network}");
                if members.is_empty() {
                    Err(Missing::NoAddress(label))
                } else {
                    Ok(Self { label, members, ports: None })
                }
            }
            Asked::World => Ok(Self::world(state.cluster())),
            Asked::Labels(namespace, labels) => {
                let written: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let label = format!("labels:{namespace}{{{}}}", written.join(","));
                let name = ObjectName::new(namespace.clone(), format!("labels{{{}}}", written.join(",")));
                let pod = Pod {
                    uid: label.as_str().into(),
                    name: name.clone(),
                    labels: labels.clone(),
                    addresses: state.gathered.assume_addresses(),
                    ports: Vec::new(),
                    node: None,
                    host_network: false,
                    ended: false,
                };
                state.gathered.cluster.pods.insert(name.clone(), pod);
                state.gathered.cluster.imply_namespaces();
                Ok(one(label, End::Pod(name)))
            }
        }
    }

    /// The outside of the cluster: an address for every way in which policies tell outside addresses apart.
    pub(crate) fn world(cluster: &Cluster) -> Self {
        Self { label: "world".to_owned(), members: world(&[cluster]), ports: None }
    }
}

/// The outside of several clusters at once, for comparing them.
pub(crate) fn world(clusters: &[&Cluster]) -> Vec<Member> {
    let pods = clusters.iter().flat_map(|cluster| cluster.pods.values());
    let v6 = pods.flat_map(|pod| &pod.addresses).any(IpAddr::is_ipv6);
    let mut members = network_members(clusters, Ipv4Net::default().into(), is_public);
    if v6 {
        members.extend(network_members(clusters, Ipv6Net::default().into(), is_public));
    }
    for member in &mut members {
        member.name = match member.name.as_str() {
            "0.0.0.0/0" => "world".to_owned(),
            "::/0" => "world over IPv6".to_owned(),
            other => format!("world {other}"),
        };
    }
    members
}

fn workload(state: &State, name: &ObjectName, kind: WorkloadKind) -> Result<Ends, Missing> {
    let workload = Workload { namespace: name.namespace.clone(), kind, name: name.name.clone() };
    let owners = &state.gathered.owners;
    let is_there = |pod: &&ObjectName| state.cluster().pods.get(*pod).is_some_and(|pod| !pod.ended);
    let pods: Vec<_> = owners.iter().filter(|(_, owner)| **owner == workload).map(|(pod, _)| pod).collect();
    if pods.is_empty() && !state.gathered.templates.contains_key(&workload) {
        return Err(unknown(state, kind.name(), name, Some(&workload)));
    }
    let members: Vec<_> = pods.into_iter().filter(is_there).map(Member::pod).collect();
    if members.is_empty() {
        return Err(Missing::NoPods(workload.to_string()));
    }
    let is_stand_in = members.iter().any(|member| member.end == End::Pod(workload.stand_in()));
    let label =
        if is_stand_in { workload.to_string() } else { format!("{} ({})", name, plural(members.len(), "pod", "pods")) };
    Ok(Ends { label, members, ports: None })
}

/// As a source the pods behind it; as a destination its cluster IP, and without one the pods too.
fn service(state: &State, name: &ObjectName, as_destination: bool) -> Result<Ends, Missing> {
    let cluster = state.cluster();
    let Some(service) = cluster.services.get(name) else {
        let names = cluster.services.keys().map(ToString::to_string);
        return Err(Missing::Unknown { kind: "Service", name: name.to_string(), near: near(&name.to_string(), names) });
    };
    let label = format!("{}/svc/{}", name.namespace, name.name);
    if as_destination && !service.cluster_ips.is_empty() {
        let range = |protocol: Protocol, port| PortRange { protocol, first: port, last: port };
        let ports = service.ports.iter().map(|port| range(port.protocol, port.port)).collect();
        let members = vec![Member { name: label.clone(), end: End::Service(name.clone()) }];
        return Ok(Ends { label, members, ports: Some(ports) });
    }
    let slices = cluster.endpoint_slices.values();
    let own = slices.filter(|slice| slice.service == name.name && slice.name.namespace == name.namespace);
    let addresses = own.flat_map(|slice| &slice.endpoints).flat_map(|endpoint| &endpoint.addresses);
    let pods: BTreeSet<_> = addresses.filter_map(|address| cluster.pod_at(*address)).map(|pod| &pod.name).collect();
    let members: Vec<_> = pods.into_iter().map(Member::pod).collect();
    if members.is_empty() {
        return Err(Missing::NoPods(label));
    }
    let label = format!("{label} ({})", plural(members.len(), "pod", "pods"));
    Ok(Ends { label, members, ports: None })
}

/// An address for every way in which policies tell the addresses of a network apart. Only those that are nobody's in
/// the cluster.
fn network_members(clusters: &[&Cluster], network: IpNet, wanted: impl Fn(&IpNet) -> bool) -> Vec<Member> {
    let mut blocks = BTreeSet::from([network]);
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    for cluster in clusters {
        for policy in cluster.policies.values() {
            let rules = policy.ingress.iter().chain(&policy.egress).flatten();
            for peer in rules.flat_map(|rule| rule.peers.iter().flatten()) {
                if let Peer::Block { cidr, except } = peer {
                    blocks
                        .extend(std::iter::once(cidr).chain(except).filter(|block| network.contains(*block)).copied());
                }
            }
        }
        taken.extend(cluster.pods.values().flat_map(|pod| pod.addresses.iter().copied()));
        taken.extend(cluster.nodes.values().flat_map(|node| node.addresses.iter().copied()));
        taken.extend(cluster.services.values().flat_map(|s| s.cluster_ips.iter().chain(&s.external_ips).copied()));
    }
    let mut members = Vec::new();
    for block in blocks.iter().filter(|block| **block == network || wanted(block)) {
        let inner: Vec<_> = blocks.iter().filter(|other| *other != block && block.contains(*other)).collect();
        if let Some(address) = free_address(*block, &inner, &taken) {
            members.push(Member { name: block.to_string(), end: End::Address(address) });
        }
    }
    members
}

/// An address of `block` that is in none of `inner` (sorted) and not taken; one for documentation if that will do.
fn free_address(block: IpNet, inner: &[&IpNet], taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let address = |number: u128| match block {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    };
    let is_free = |address: &IpAddr| {
        block.contains(address) && !taken.contains(address) && !inner.iter().any(|inner| inner.contains(address))
    };
    let documented: IpAddr = match block {
        IpNet::V4(_) => [203, 0, 113, 1].into(),
        IpNet::V6(_) => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
    };
    if is_free(&documented) {
        return Some(documented);
    }
    let last = number(block.broadcast());
    let mut next = number(block.network());
    while next <= last {
        let candidate = address(next);
        if is_free(&candidate) {
            return Some(candidate);
        }
        let around =
            inner.iter().filter(|inner| inner.contains(&candidate)).map(|inner| number(inner.broadcast())).max();
        next = around.unwrap_or(next).checked_add(1)?;
    }
    None
}

/// Blocks within these are not the outside.
fn is_public(block: &IpNet) -> bool {
    const PRIVATE: [&str; 9] = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "fe80::/10",
    ];
    !PRIVATE.iter().filter_map(|private| private.parse::<IpNet>().ok()).any(|private| private.contains(block))
}

fn unknown(state: &State, kind: &'static str, name: &ObjectName, workload: Option<&Workload>) -> Missing {
    let written = workload.map_or_else(|| name.to_string(), ToString::to_string);
    let workloads: BTreeSet<_> = state.gathered.owners.values().collect();
    // the same name as another kind, or in another namespace
    let mut same: Vec<String> =
        workloads.iter().filter(|known| known.name == name.name).map(|known| known.to_string()).collect();
    same.extend(state.cluster().pods.keys().filter(|pod| pod.name == name.name).map(ToString::to_string));
    same.dedup();
    same.truncate(OFFERED);
    let near = if same.is_empty() {
        let pods = state.cluster().pods.keys().map(ToString::to_string);
        let all: BTreeSet<_> = pods.chain(workloads.iter().map(ToString::to_string)).collect();
        near(&written, all.into_iter())
    } else {
        same
    };
    Missing::Unknown { kind, name: name.to_string(), near }
}

/// Names at most two letters off, or three where they are long.
fn near(name: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    let allowed = if name.len() > 20 { 3 } else { 2 };
    let mut near: Vec<_> = known
        .filter(|other| other.len().abs_diff(name.len()) <= allowed)
        .map(|other| (distance(name, &other), other))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    near.sort();
    let best = near.first().map(|(distance, _)| *distance);
    near.into_iter().filter(|(distance, _)| Some(*distance) == best).map(|(_, name)| name).take(OFFERED).collect()
}
