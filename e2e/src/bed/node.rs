//! A node: a namespace that forwards between the fabric and its pods, wired as the usual CNI plugins wire it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::{Context as _, Result};

use super::{Fabric, Namespace, Pod};

/// How pods hang on their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wiring {
    /// As the CNI plugin `ptp` does it: each host side carries the gateway's address, and a route to its pod.
    PointToPoint,
    /// As the CNI plugin `bridge` does it: the host sides are ports of `cni0`, in hairpin mode; `cni0` carries
    /// the gateway's address.
    Bridge,
    /// As Calico does it: the host sides carry no address of the node; pods have `169.254.1.1`, for which the host side
    /// answers, and a link-local address as their gateways.
    Routed,
}

impl Wiring {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PointToPoint, Self::Bridge, Self::Routed];
}

/// A node; its pods have addresses in `10.244.NUMBER.0/24` and `fd00:10:244:NUMBER::/64`, itself
/// `192.168.77.NUMBER` and `fd00:77::NUMBER`.
#[derive(Debug)]
pub struct Node {
    name: String,
    namespace: Namespace,
    plan: Plan,
    wiring: Wiring,
    /// The last part of the next pod's addresses.
    next: AtomicU8,
}

impl Node {
    pub(crate) fn create(fabric: &Fabric, name: &str, number: u8, wiring: Wiring) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        namespace.sysctl("ipv4/ip_forward", "1")?;
        namespace.sysctl("ipv6/conf/all/forwarding", "1")?;
        let plan = Plan::new(number);
        fabric.outside().ip(&[
            format!("link add node{number} type veth peer name eth0 index 1000 netns {}", namespace.name()),
            format!("link set node{number} master fabric up"),
        ])?;
        let mut lines = vec![
            format!("addr add {}/24 dev eth0", plan.node_v4),
            format!("addr add {}/64 dev eth0 nodad", plan.node_v6),
            "link set eth0 up".to_owned(),
            format!("route add default via {}", Plan::GATEWAY_V4),
            format!("route add ::/0 via {}", Plan::GATEWAY_V6),
        ];
        let others = (1..=Fabric::NODES).filter(|other| *other != number).map(Plan::new);
        lines.extend(others.flat_map(|other| other.routes("eth0")));
        if wiring == Wiring::Bridge {
            lines.extend([
                "link add cni0 type bridge mcast_snooping 0".to_owned(),
                format!("addr add {}/24 dev cni0", plan.pod_gateway_v4()),
                format!("addr add {}/64 dev cni0 nodad", plan.pod_gateway_v6()),
                "link set cni0 up".to_owned(),
            ]);
        }
        namespace.ip(&lines)?;
        namespace.wait_until_running("eth0")?;
        Ok(Self { name: name.to_owned(), namespace, plan, wiring, next: AtomicU8::new(2) })
    }

    /// Starts a pod with an address of each family, the next free ones.
    ///
    /// # Errors
    /// If the node has no free address, or the kernel refuses.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let host = self.next.fetch_add(1, Ordering::Relaxed);
        let [v4, v6] = self.plan.pod(host);
        self.pod_at(name, &[v4, v6])
    }

    /// Starts a pod with these addresses. With [`Wiring::Bridge`] they must lie in the node's subnets; else any will
    /// do, but other nodes only find those in the subnets.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn pod_at(&self, name: &str, addresses: &[IpAddr]) -> Result<Pod> {
        Pod::create(self, name, addresses)
    }

    /// As given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where an agent of this node runs.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// How its pods are wired.
    #[must_use]
    pub fn wiring(&self) -> Wiring {
        self.wiring
    }

    /// Its own addresses, IPv4 first: what `status.addresses` of the Node object says.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.plan.node_v4.into(), self.plan.node_v6.into()]
    }

    /// The addresses that its pods have as their gateway, IPv4 first.
    #[must_use]
    pub fn pod_gateways(&self) -> [IpAddr; 2] {
        match self.wiring {
            Wiring::PointToPoint | Wiring::Bridge => {
                [self.plan.pod_gateway_v4().into(), self.plan.pod_gateway_v6().into()]
            }
            Wiring::Routed => [Plan::ROUTED_V4.into(), Plan::ROUTED_V6.into()],
        }
    }

    /// The addresses from which its own packets come to its pods, and what is masqueraded, IPv4 first.
    #[must_use]
    pub fn seen_by_pods(&self) -> [IpAddr; 2] {
        match self.wiring {
            Wiring::PointToPoint | Wiring::Bridge => self.pod_gateways(),
            Wiring::Routed => self.addresses(),
        }
    }

    /// Makes this node translate Services as kube-proxy would, in place of what it translated before.
    ///
    /// # Errors
    /// With what `nft` said.
    pub fn set_services(&self, rules: &super::services::Ruleset) -> Result<()> {
        if self.wiring == Wiring::Bridge {
            // Else answers from pod to pod of one bridge would bypass the translation back.
            for family in ["iptables", "ip6tables"] {
                self.namespace
                    .sysctl(&format!("bridge/bridge-nf-call-{family}"), "1")
                    .context("Services on a bridge need the kernel module br_netfilter: `modprobe br_netfilter`")?;
            }
        }
        self.namespace.nft(&rules.script())
    }
}

/// The addresses of a node and its pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    number: u8,
    node_v4: Ipv4Addr,
    node_v6: Ipv6Addr,
}

impl Plan {
    /// The fabric's own address, every node's default route.
    pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);
    /// The fabric's own address, every node's default route.
    pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0xfe);

    /// What pods have for their gateway with [`Wiring::Routed`].
    const ROUTED_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
    /// The same.
    const ROUTED_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    pub(crate) const fn new(number: u8) -> Self {
        Self {
            number,
            node_v4: Ipv4Addr::new(192, 168, 77, number),
            node_v6: Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, number as u16),
        }
    }

    const fn pod_v4(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number, host)
    }

    const fn pod_v6(self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, self.number as u16, 0, 0, 0, host as u16)
    }

    const fn pod(self, host: u8) -> [IpAddr; 2] {
        [IpAddr::V4(self.pod_v4(host)), IpAddr::V6(self.pod_v6(host))]
    }

    const fn pod_gateway_v4(self) -> Ipv4Addr {
        self.pod_v4(1)
    }

    const fn pod_gateway_v6(self) -> Ipv6Addr {
        self.pod_v6(1)
    }

    /// Arguments of `ip` for the way to its pods from the fabric and from other nodes.
    pub(crate) fn routes(self, device: &str) -> [String; 2] {
        [
            format!("route add {}/24 via {} dev {device} onlink", self.pod_v4(0), self.node_v4),
            format!("route add {}/64 via {} dev {device} onlink", self.pod_v6(0), self.node_v6),
        ]
    }
}
