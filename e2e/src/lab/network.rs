//! The network of a lab: a bridge on the control plane's machine that joins the nodes, and who has which address.
//! Nodes know each other's pods by routes. The control plane's machine is also the outside of the cluster, and knows
//! the pods too, so that nothing needs to be masqueraded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{machine::Machine, settings::Settings};

/// An IPv4 address outside the cluster (TEST-NET-3, RFC 5737), on the control plane's machine.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// An IPv6 address outside the cluster (RFC 3849), on the control plane's machine.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

/// The control plane's address, IPv4.
pub(super) const CONTROL_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 1);
const CONTROL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 1);

/// What pods' addresses are taken from.
pub(super) const POD_RANGES: &str = "10.244.0.0/16,fd00:10:244::/48";
/// What the addresses of Services are taken from.
pub(super) const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// The first of [`SERVICE_RANGES`], which the API server gives itself.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The addresses of CoreDNS.
pub const DNS_SERVICE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10))];

/// The addresses of a node and its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    number: u8,
}

impl Plan {
    /// `number` from 1 to [`Settings::NODES`].
    pub(super) fn new(number: u8) -> Self {
        Self { number }
    }

    pub(super) fn node(self) -> [IpAddr; 2] {
        let last = 10 + self.number;
        [
            Ipv4Addr::new(192, 168, 88, last).into(),
            // Written as the IPv4 address is: node 2 ends in 12.
            Ipv6Addr::new(0xfd00, 0x88, 0, 0, 0, 0, 0, 0x10 + u16::from(self.number)).into(),
        ]
    }

    /// The subnets of its pods.
    pub(super) fn pods(self) -> [String; 2] {
        [format!("10.244.{}.0/24", self.number), format!("fd00:10:244:{}::/64", self.number)]
    }

    /// The ways to its pods.
    fn routes(self) -> [String; 2] {
        let ([v4, v6], [pods_v4, pods_v6]) = (self.node(), self.pods());
        [format!("route add {pods_v4} via {v4}"), format!("route add {pods_v6} via {v6}")]
    }
}

/// Makes the bridge, and the outside's addresses.
pub(super) fn lay(control: &Machine) -> Result<()> {
    control.ip(&[
        // A bridge changes its address with its ports unless it is told one.
        "link add nodes address 02:00:00:00:88:01 type bridge mcast_snooping 0".to_owned(),
        format!("addr add {CONTROL_V4}/24 dev nodes"),
        format!("addr add {CONTROL_V6}/64 dev nodes nodad"),
        "link set nodes up".to_owned(),
        format!("addr add {OUTSIDE_V4}/32 dev lo"),
        format!("addr add {OUTSIDE_V6}/128 dev lo nodad"),
    ])
}

/// Joins a node to the bridge, and tells both sides the ways.
pub(super) fn join(control: &Machine, node: &Machine, plan: Plan, nodes: u8) -> Result<()> {
    let (name, [v4, v6]) = (node.name(), plan.node());
    let mut lines = vec![
        format!("link add {name} type veth peer name eth0 netns {}", node.pid()),
        format!("link set {name} master nodes up"),
    ];
    lines.extend(plan.routes());
    control.ip(&lines)?;
    let mut lines = vec![
        format!("addr add {v4}/24 dev eth0"),
        format!("addr add {v6}/64 dev eth0 nodad"),
        "link set eth0 up".to_owned(),
        format!("route add default via {CONTROL_V4}"),
        format!("route add ::/0 via {CONTROL_V6}"),
    ];
    lines.extend((1..=nodes).map(Plan::new).filter(|other| *other != plan).flat_map(Plan::routes));
    node.ip(&lines)
}

const _: () = assert!(Settings::NODES < 200, "a node's number is part of the last byte of its address");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_addresses_and_ranges_of_their_own() {
        let plan = Plan::new(2);
        assert_eq!(plan.node().map(|address| address.to_string()), ["192.168.88.12", "fd00:88::12"]);
        assert_eq!(plan.pods(), ["10.244.2.0/24", "fd00:10:244:2::/64"]);
        assert_eq!(plan.routes()[1], "route add fd00:10:244:2::/64 via fd00:88::12");
    }
}
