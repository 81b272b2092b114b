//! What the objects mean, read off them for one packet at a time.

use std::{net::IpAddr, sync::Arc};

use enforcer_abi::Direction;
use policy_compiler::{
    Contents,
    model::{
        Action, EndpointSlice, Labels, NamespaceMatch, Peer, Pod, PodMatch, Policy, PortMatch, Protocol, Rule, Service,
        ServicePort, Tier,
    },
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
            for established in [false, true] {
                let packet = Packet { established, ..packet };
                let passes = walk(contents, tables, &packet).reason.passes();
                prop_assert_eq!(passes, judge(world, pod, &packet), "{:?} at {}", packet, pod.name);
            }
        }
    }
    Ok(())
}

fn judge(world: &World, pod: &Pod, packet: &Packet) -> bool {
    let port = Protocol::ALL.into_iter().find(|protocol| protocol.number() == packet.protocol);
    let port = port.map(|protocol| (protocol, packet.port));
    let remote = IpAddr::from(packet.remote);
    if let Some((protocol, number)) = port
        && packet.direction == Direction::Egress
        && is_isolated(world, pod)
        && let Some(back_ends) = front_end(world, remote, protocol, number)
    {
        let is_open = |(address, port): &(IpAddr, u16)| {
            judge_address(world, pod, Direction::Egress, *address, Some((protocol, *port)))
        };
        let open = back_ends.iter().filter(|back_end| is_open(back_end)).count();
        return open > 0 && (packet.established || open == back_ends.len());
    }
    judge_address(world, pod, packet.direction, remote, port)
}

/// Whether any policy says anything about the pod's egress.
fn is_isolated(world: &World, pod: &Pod) -> bool {
    world.policies.values().any(|policy| policy.egress.is_some() && matches(world, &policy.subject, pod))
}

/// The back ends of a front end, none if it is closed; `None` if the address is judged as itself.
fn front_end(world: &World, remote: IpAddr, protocol: Protocol, port: u16) -> Option<Vec<(IpAddr, u16)>> {
    let mut found: Option<Vec<(IpAddr, u16)>> = None;
    let mut is_cluster_ip = false;
    for service in world.services.values() {
        let (cluster, external) = (service.cluster_ips.contains(&remote), service.external_ips.contains(&remote));
        is_cluster_ip |= cluster;
        for wanted in service.ports.iter().filter(|wanted| (wanted.protocol, wanted.port) == (protocol, port)) {
            let family = remote.is_ipv4();
            if cluster {
                found.get_or_insert_default().extend(back_ends(world, service, wanted, family, service.internal_local));
            }
            if external {
                found.get_or_insert_default().extend(back_ends(world, service, wanted, family, false));
            }
        }
    }
    if found.is_some() || is_cluster_ip {
        return Some(found.unwrap_or_default());
    }
    if world.nodes.values().any(|node| node.addresses.contains(&remote)) {
        for service in world.services.values() {
            let has = |wanted: &&ServicePort| wanted.protocol == protocol && wanted.node_port == Some(port);
            for wanted in service.ports.iter().filter(has) {
                found.get_or_insert_default().extend(back_ends(world, service, wanted, remote.is_ipv4(), false));
            }
        }
    }
    found
}

fn back_ends(world: &World, service: &Service, port: &ServicePort, is_v4: bool, local: bool) -> Vec<(IpAddr, u16)> {
    let (mut ready, mut fallback) = (Vec::new(), Vec::new());
    let of_service =
        |slice: &&EndpointSlice| slice.name.namespace == service.name.namespace && slice.service == service.name.name;
    for slice in world.slices.values().filter(of_service) {
        for target in slice.ports.iter().filter(|target| (&target.name, target.protocol) == (&port.name, port.protocol))
        {
            for end in &slice.endpoints {
                let fits = end.addresses[0].is_ipv4() == is_v4;
                if !fits || (local && end.node.as_deref() != Some(NODE)) {
                    continue;
                }
                if end.ready {
                    ready.push((end.addresses[0], target.number));
                } else if end.serving && end.terminating {
                    fallback.push((end.addresses[0], target.number));
                }
            }
        }
    }
    if ready.is_empty() { fallback } else { ready }
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
