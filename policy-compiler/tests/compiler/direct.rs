//! What the objects mean, read off them for one packet at a time.

use std::{net::IpAddr, sync::Arc};

use enforcer_abi::Direction;
use policy_compiler::{
    Contents,
    model::{Action, Labels, NamespaceMatch, Peer, Pod, PodMatch, Policy, PortMatch, Protocol, Rule, Tier},
    walk::{Packet, walk},
};
use proptest::{prop_assert_eq, test_runner::TestCaseError};

use crate::{generate::NODE, kernel::packets, world::World};

/// Holds the tables against the objects.
pub(crate) fn check(world: &World, contents: &Contents) -> Result<(), TestCaseError> {
    let is_local = |pod: &&Pod| pod.node.as_deref() == Some(NODE) && !pod.host_network && !pod.ended;
    let local: Vec<&Pod> = world.pods.values().filter(is_local).collect();
    let mut uids: Vec<&Arc<str>> = local.iter().map(|pod| &pod.uid).collect();
    uids.sort();
    prop_assert_eq!(contents.pods.keys().collect::<Vec<_>>(), uids, "other pods than the node's");
    for pod in local {
        let tables = &contents.pods[&pod.uid];
        let held: Vec<IpAddr> =
            pod.addresses.iter().copied().filter(|address| world.pod_at(*address) == Some(pod)).collect();
        prop_assert_eq!(&tables.addresses, &held);
        let namespace = world.namespaces.get(&pod.name.namespace);
        prop_assert_eq!(tables.forwards, namespace.is_some_and(|namespace| namespace.forwards));
        prop_assert_eq!(tables.audit, namespace.is_some_and(|namespace| namespace.audit));
        for packet in packets() {
            let passes = walk(contents, tables, &packet).reason.passes();
            let expected = judge(world, pod, &packet);
            prop_assert_eq!(passes, expected, "{:?} at {}", packet, pod.name);
        }
    }
    Ok(())
}

fn judge(world: &World, pod: &Pod, packet: &Packet) -> bool {
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == packet.protocol);
    let remote = IpAddr::from(packet.remote);
    judge_address(world, pod, packet.direction, remote, protocol.map(|protocol| (protocol, packet.port)))
}

/// Judges by policies alone.
fn judge_address(
    world: &World,
    pod: &Pod,
    direction: Direction,
    remote: IpAddr,
    port: Option<(Protocol, u16)>,
) -> bool {
    fn rules(policy: &Policy, direction: Direction) -> Option<&Vec<Rule>> {
        if direction == Direction::Ingress { policy.ingress.as_ref() } else { policy.egress.as_ref() }
    }
    let mut policies: Vec<&Policy> = world
        .policies
        .values()
        .filter(|policy| rules(policy, direction).is_some() && matches(world, &policy.subject, pod))
        .collect();
    policies.sort_by_key(|policy| (policy.tier, policy.priority, policy.name.clone()));
    let matching = |rule: &&Rule| {
        let peers = rule.peers.as_ref();
        let ports = rule.ports.as_ref();
        let holder = world.pod_at(remote);
        peers.is_none_or(|peers| peers.iter().any(|peer| peer_matches(world, peer, remote, holder)))
            && ports.is_none_or(|ports| {
                let named = if direction == Direction::Ingress { Some(pod) } else { holder };
                ports.iter().any(|wanted| port.is_some_and(|port| port_matches(wanted, port, named)))
            })
    };
    let first = |tier: Tier| {
        let rules = policies.iter().filter(|policy| policy.tier == tier).flat_map(|policy| rules(policy, direction));
        rules.flatten().find(matching).map(|rule| rule.action)
    };
    let later = || {
        if policies.iter().any(|policy| policy.tier == Tier::NetworkPolicy) {
            return first(Tier::NetworkPolicy).is_some();
        }
        first(Tier::Baseline) != Some(Action::Deny)
    };
    match first(Tier::Admin) {
        Some(Action::Allow) => true,
        Some(Action::Deny) => false,
        Some(Action::Pass) | None => later(),
    }
}

fn matches(world: &World, wanted: &PodMatch, pod: &Pod) -> bool {
    let namespace = &pod.name.namespace;
    let in_namespace = match &wanted.namespaces {
        NamespaceMatch::Name(name) => name == namespace,
        NamespaceMatch::Labels(selector) => {
            let unknown = Labels::from([(Arc::from("kubernetes.io/metadata.name"), namespace.clone())]);
            selector.matches(world.namespaces.get(namespace).map_or(&unknown, |namespace| &namespace.labels))
        }
    };
    in_namespace && !pod.host_network && !pod.ended && wanted.pods.matches(&pod.labels)
}

fn peer_matches(world: &World, peer: &Peer, remote: IpAddr, holder: Option<&Pod>) -> bool {
    match peer {
        Peer::Pods(wanted) => holder.is_some_and(|pod| matches(world, wanted, pod)),
        Peer::Block { cidr, except } => cidr.contains(&remote) && !except.iter().any(|net| net.contains(&remote)),
        Peer::Nobody => false,
    }
}

fn port_matches(wanted: &PortMatch, (protocol, number): (Protocol, u16), named: Option<&Pod>) -> bool {
    match wanted {
        PortMatch::All(wanted) => *wanted == protocol,
        PortMatch::Range { protocol: wanted, first, last } => *wanted == protocol && (*first..=*last).contains(&number),
        PortMatch::Named(wanted, name) => named
            .into_iter()
            .flat_map(|pod| &pod.ports)
            .any(|port| *wanted == protocol && (&port.name, port.protocol, port.number) == (name, protocol, number)),
        PortMatch::Nothing => false,
    }
}
