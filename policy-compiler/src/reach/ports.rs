//! Which ports are worth asking about.

use std::collections::BTreeSet;

use crate::{
    cluster::Cluster,
    model::{PortMatch, Protocol},
};

/// Ports of one protocol that nothing in the cluster tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// The first, from 1.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// All ports, cut wherever a policy, a pod's named port or a Service begins or ends something.
#[must_use]
pub fn port_ranges(cluster: &Cluster) -> Vec<PortRange> {
    port_ranges_of(&[cluster])
}

/// The same for several clusters at once, for comparing them.
#[must_use]
pub fn port_ranges_of(clusters: &[&Cluster]) -> Vec<PortRange> {
    let mut begins: BTreeSet<(Protocol, u16)> = Protocol::ALL.map(|protocol| (protocol, 1)).into();
    let mut cut = |protocol, first: u16, last: u16| {
        begins.insert((protocol, first.max(1)));
        begins.extend(last.checked_add(1).map(|next| (protocol, next)));
    };
    for cluster in clusters {
        let rules = cluster.policies.values().flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
        for port in rules.flat_map(|rule| rule.ports.iter().flatten()) {
            if let PortMatch::Range { protocol, first, last } = port {
                cut(*protocol, *first, *last);
            }
        }
        for port in cluster.pods.values().flat_map(|pod| &pod.ports) {
            cut(port.protocol, port.number, port.number);
        }
        for port in cluster.services.values().flat_map(|service| &service.ports) {
            cut(port.protocol, port.port, port.port);
            port.node_port.into_iter().for_each(|node_port| cut(port.protocol, node_port, node_port));
        }
    }
    let begins: Vec<_> = begins.into_iter().collect();
    let mut ranges = Vec::with_capacity(begins.len());
    for (index, (protocol, first)) in begins.iter().enumerate() {
        let next = begins.get(index + 1).filter(|(other, _)| other == protocol);
        ranges.push(PortRange {
            protocol: *protocol,
            first: *first,
            last: next.map_or(u16::MAX, |(_, next)| next - 1),
        });
    }
    ranges
}

/// The named ports of all pods; TCP 80 if there are none.
#[must_use]
pub fn ports_in_use(cluster: &Cluster) -> Vec<(Protocol, u16)> {
    let ports: BTreeSet<_> =
        cluster.pods.values().flat_map(|pod| pod.ports.iter().map(|port| (port.protocol, port.number))).collect();
    if ports.is_empty() { vec![(Protocol::Tcp, 80)] } else { ports.into_iter().collect() }
}
