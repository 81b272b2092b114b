//! The kernel against the walk of the same tables in user space (evaluators 3 and 2), on far more connections than a case
//! names: every pod of the case with everybody, on the case's ports and around them.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, ensure};
use e2e::{
    connections::{Case, Evaluator as _, Side, Tables, Transport},
    packets::connection::Kernel,
};
use enforcer_abi::{Direction, protocol};

/// Connections tried for each case at most, spread over all there could be.
const TRIED: usize = 400;

/// Both say the same of each connection.
pub(crate) fn agree(case: &Case, hz: u64) -> Result<()> {
    let (kernel, tables) = (Kernel::of(case, hz), Tables::of(case));
    let sides = sides(case);
    // odd, so that no pattern of the list is the sample's
    let stride = (sides.len() / TRIED) | 1;
    for side in sides.iter().step_by(stride) {
        let (by_kernel, by_tables) = (kernel.passes(side)?, tables.passes(side)?);
        ensure!(by_kernel == by_tables, "passes in the kernel: {by_kernel}, in user space: {by_tables}: {side:?}");
    }
    Ok(())
}

fn sides(case: &Case) -> Vec<Side> {
    let cluster = &case.cluster;
    let mut remotes: BTreeSet<IpAddr> = cluster.pods.values().flat_map(|pod| pod.addresses.clone()).collect();
    remotes.extend(cluster.nodes.values().flat_map(|node| node.addresses.clone()));
    remotes.extend(cluster.services.values().flat_map(|service| service.cluster_ips.clone()));
    remotes.extend(cluster.services.values().flat_map(|service| service.external_ips.clone()));
    remotes.extend(case.connections.iter().flat_map(|connection| [connection.source.address, connection.dialled]));
    remotes.extend([IpAddr::from([198, 51, 100, 9]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 9])]);
    let questions = questions(case);
    let mut sides = Vec::new();
    for pod in cluster.pods.values().filter(|pod| !pod.host_network && !pod.ended) {
        let Some(node) = &pod.node else { continue };
        for (local, remote) in pod.addresses.iter().flat_map(|local| remotes.iter().map(move |remote| (local, remote)))
        {
            if local.is_ipv4() != remote.is_ipv4() || local == remote {
                continue;
            }
            for (direction, (protocol, port)) in Direction::ALL
                .into_iter()
                .flat_map(|direction| questions.iter().map(move |question| (direction, *question)))
            {
                let protocol = if protocol == protocol::ICMP && local.is_ipv6() { protocol::ICMPV6 } else { protocol };
                let (pod, node, local, remote) = (pod.name.clone(), node.clone(), *local, *remote);
                let made_by_own_node = false;
                sides.push(Side { direction, pod, node, local, remote, protocol, port, made_by_own_node });
            }
        }
    }
    sides
}

/// Protocols and ports worth asking for.
fn questions(case: &Case) -> BTreeSet<(u8, u16)> {
    let mut ports = BTreeSet::from([1, 80, 65535]);
    for connection in &case.connections {
        if let Transport::Port(_, port) = connection.transport {
            ports.extend([port.saturating_sub(1).max(1), port, port.saturating_add(1)]);
        }
        ports.extend(connection.destination.iter().map(|(_, port)| *port).filter(|port| *port > 0));
    }
    for service in case.cluster.services.values() {
        ports.extend(service.ports.iter().flat_map(|port| [Some(port.port), port.node_port]).flatten());
    }
    let mut questions = BTreeSet::from([(protocol::ICMP, 0), (47, 0)]);
    for protocol in [protocol::TCP, protocol::UDP, protocol::SCTP] {
        questions.extend(ports.iter().map(|port| (protocol, *port)));
    }
    questions
}
