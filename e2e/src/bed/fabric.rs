//! The network between nodes: a bridge in a namespace of its own, which is also the world outside the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};

use super::{Namespace, Node, Wiring, node::Plan};

/// An IPv4 address outside the cluster, in the fabric's namespace (TEST-NET-3, RFC 5737).
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// An IPv6 address outside the cluster, in the fabric's namespace (RFC 3849).
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

/// The network between nodes. Nodes know each other's pods by routes; the outside is their default route, and knows
/// the pods too, so that nothing is masqueraded on its way out.
#[derive(Debug)]
pub struct Fabric {
    namespace: Namespace,
}

impl Fabric {
    /// How many nodes it can join.
    pub const NODES: u8 = 8;

    /// Makes one without nodes.
    ///
    /// # Errors
    /// See [`Namespace::create`].
    pub fn create() -> Result<Self> {
        let namespace = Namespace::create("fabric")?;
        namespace.sysctl("ipv4/ip_forward", "1")?;
        namespace.sysctl("ipv6/conf/all/forwarding", "1")?;
        let mut lines = vec![
            // The bridge's address stays the same when ports come and go only if it is told one.
            "link add fabric address 02:00:00:00:00:fe type bridge mcast_snooping 0".to_owned(),
            format!("addr add {}/24 dev fabric", Plan::GATEWAY_V4),
            format!("addr add {}/64 dev fabric nodad", Plan::GATEWAY_V6),
            "link set fabric up".to_owned(),
            format!("addr add {OUTSIDE_V4}/32 dev lo"),
            format!("addr add {OUTSIDE_V6}/128 dev lo nodad"),
        ];
        for plan in (1..=Self::NODES).map(Plan::new) {
            lines.extend(plan.routes("fabric"));
        }
        namespace.ip(&lines)?;
        Ok(Self { namespace })
    }

    /// Joins a node. `number` from 1 to [`Self::NODES`] decides its addresses.
    ///
    /// # Errors
    /// If there is a node of this number already, or the kernel refuses.
    pub fn node(&self, name: &str, number: u8, wiring: Wiring) -> Result<Node> {
        ensure!((1..=Self::NODES).contains(&number), "a node's number is from 1 to {}, not {number}", Self::NODES);
        Node::create(self, name, number, wiring)
    }

    /// The outside of the cluster, which has [`OUTSIDE_V4`] and [`OUTSIDE_V6`]; more addresses may be added to its
    /// `lo`.
    #[must_use]
    pub fn outside(&self) -> &Namespace {
        &self.namespace
    }

    /// [`OUTSIDE_V4`] and [`OUTSIDE_V6`].
    #[must_use]
    pub fn outside_addresses(&self) -> [IpAddr; 2] {
        [OUTSIDE_V4.into(), OUTSIDE_V6.into()]
    }
}
