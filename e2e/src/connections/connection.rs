//! A connection of a case between addresses, its two [`Side`]s, and what an [`Evaluator`] makes of them.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use anyhow::{Context as _, Error, Result, bail, ensure};
use enforcer_abi::{Direction, protocol};
use policy_compiler::{
    Cluster,
    model::{ObjectName, Pod},
};

pub use super::line::Transport;
use super::line::{Family, Line, Name};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub address: IpAddr,
    /// The pod that has the address to itself: its packets are judged at its veth. `None` for a node, a hostNetwork pod,
    /// and everything outside.
    pub pod: Option<ObjectName>,
    /// The node that it is on, or is. `None` outside.
    pub node: Option<Arc<str>>,
}

/// Who refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Nobody.
    Allowed,
    /// The source's egress rules, and not the destination's ingress rules.
    Egress,
    /// The destination's ingress rules, and not the source's egress rules.
    Ingress,
    /// Either.
    Both,
}

impl Expected {
    /// From what the two sides say.
    #[must_use]
    pub const fn from_sides(egress_passes: bool, ingress_passes: bool) -> Self {
        match (egress_passes, ingress_passes) {
            (true, true) => Self::Allowed,
            (false, true) => Self::Egress,
            (true, false) => Self::Ingress,
            (false, false) => Self::Both,
        }
    }

    /// Whether the side of this direction lets it through.
    #[must_use]
    pub const fn passes(self, direction: Direction) -> bool {
        match direction {
            Direction::Egress => matches!(self, Self::Allowed | Self::Ingress),
            Direction::Ingress => matches!(self, Self::Allowed | Self::Egress),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Egress => "egress refuses",
            Self::Ingress => "ingress refuses",
            Self::Both => "both refuse",
        })
    }
}

impl FromStr for Expected {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Allowed, Self::Egress, Self::Ingress, Self::Both];
        let found = all.into_iter().find(|expected| expected.to_string() == text);
        found.with_context(|| {
            let known = all.map(|expected| expected.to_string()).join(", ");
            format!("{text:?} is none of: {known}")
        })
    }
}

/// A connection of a case, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// As the case writes it.
    pub text: String,
    /// What it carries; the port is the one that is dialled.
    pub transport: Transport,
    /// Who opens it.
    pub source: End,
    /// The address that is dialled: the destination's, or a front end's.
    pub dialled: IpAddr,
    /// Where it arrives and at which port (0 for transports without ports). `None` if a front end was dialled and the
    /// case doesn't say which back end it leads to.
    pub destination: Option<(End, u16)>,
    /// What the case says.
    pub expected: Expected,
}

/// A connection as one pod's veth sees its first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// As the pod sees it.
    pub direction: Direction,
    /// The pod.
    pub pod: ObjectName,
    /// The pod's node.
    pub node: Arc<str>,
    /// The pod's own address, of the connection's family.
    pub local: IpAddr,
    /// The other address that the packet carries: for egress through a Service, the front end's.
    pub remote: IpAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// The destination port that the packet carries; 0 for protocols without ports.
    pub port: u16,
    /// The pod's own node has made the packet: it passes.
    pub made_by_own_node: bool,
}

impl Side {
    /// The pod speaks to itself: it passes, and over loopback is never seen.
    #[must_use]
    pub fn is_itself(&self) -> bool {
        self.local == self.remote
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if !self.text.contains(" over ") {
            write!(f, " ({})", Family::of(self.dialled))?;
        }
        Ok(())
    }
}

impl Connection {
    /// The connections that a line means: one for each family that both ends have, or the one that it names.
    pub(super) fn all(text: &str, expected: Expected, cluster: &Cluster) -> Result<Vec<Self>> {
        let line: Line = text.parse()?;
        let families = line.family.map_or(Family::ALL.to_vec(), |family| vec![family]);
        let mut connections = Vec::new();
        for family in families {
            let Some(connection) = Self::resolve(text, &line, family, expected, cluster)? else { continue };
            connection.check_expected()?;
            connections.push(connection);
        }
        ensure!(!connections.is_empty(), "the ends have no address of one family");
        Ok(connections)
    }

    /// `None` if an end has no address of this family.
    fn resolve(text: &str, line: &Line, family: Family, expected: Expected, cluster: &Cluster) -> Result<Option<Self>> {
        let Some(source) = end(&line.source, family, cluster)? else { return Ok(None) };
        let own_port = match line.transport {
            Transport::Port(_, port) => port,
            Transport::Icmp | Transport::Gre => 0,
        };
        let (dialled, own) = if let Name::Service(name) = &line.target {
            let service = cluster.services.get(name).with_context(|| format!("there is no Service {name}"))?;
            let mut addresses = service.cluster_ips.iter().filter(|address| Family::of(**address) == family);
            let Some(address) = addresses.next() else { return Ok(None) };
            (*address, None)
        } else {
            let Some(own) = end(&line.target, family, cluster)? else { return Ok(None) };
            (own.address, Some(own))
        };
        let destination = match &line.via {
            None => own.map(|own| (own, own_port)),
            Some((back_end, port)) => {
                ensure!(
                    own.is_none_or(|own| own.pod.is_none()),
                    "a pod's own address leads to the pod; `via` is for front ends"
                );
                let Some(back_end) = end(&Name::Pod(back_end.clone()), family, cluster)? else { return Ok(None) };
                Some((back_end, *port))
            }
        };
        let transport = line.transport;
        Ok(Some(Self { text: text.to_owned(), transport, source, dialled, destination, expected }))
    }

    /// A side that nobody judges refuses nothing.
    fn check_expected(&self) -> Result<()> {
        for (direction, side) in [(Direction::Egress, self.egress()), (Direction::Ingress, self.ingress())] {
            let judged = side.is_some_and(|side| !side.made_by_own_node && !side.is_itself());
            ensure!(
                judged || self.expected.passes(direction),
                "nobody judges its {direction:?}, so that can't refuse it"
            );
        }
        Ok(())
    }

    /// The IP protocol.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match (self.transport, self.dialled) {
            (Transport::Port(protocol, _), _) => protocol.number(),
            (Transport::Icmp, IpAddr::V4(_)) => protocol::ICMP,
            (Transport::Icmp, IpAddr::V6(_)) => protocol::ICMPV6,
            (Transport::Gre, _) => 47,
        }
    }

    /// What the source's veth sees; `None` if the source has none.
    #[must_use]
    pub fn egress(&self) -> Option<Side> {
        Some(Side {
            direction: Direction::Egress,
            pod: self.source.pod.clone()?,
            node: self.source.node.clone()?,
            local: self.source.address,
            remote: self.dialled,
            protocol: self.protocol(),
            port: match self.transport {
                Transport::Port(_, port) => port,
                Transport::Icmp | Transport::Gre => 0,
            },
            made_by_own_node: false,
        })
    }

    /// What the destination's veth sees; `None` if it has none or isn't known.
    #[must_use]
    pub fn ingress(&self) -> Option<Side> {
        let (end, port) = self.destination.as_ref()?;
        let node = end.node.clone()?;
        Some(Side {
            direction: Direction::Ingress,
            pod: end.pod.clone()?,
            local: end.address,
            remote: self.source.address,
            protocol: self.protocol(),
            port: *port,
            made_by_own_node: self.source.pod.is_none() && self.source.node.as_ref() == Some(&node),
            node,
        })
    }
}

/// An end's address in one family, and whose it is; `None` if it has none.
fn end(name: &Name, family: Family, cluster: &Cluster) -> Result<Option<End>> {
    let of_family = |addresses: &[IpAddr]| addresses.iter().copied().find(|address| Family::of(*address) == family);
    Ok(match name {
        Name::Pod(name) => {
            let pod = cluster.pods.get(name).with_context(|| format!("there is no pod {name}"))?;
            ensure!(!pod.ended, "{name} has ended; write its address");
            let own = !pod.host_network;
            of_family(&pod.addresses).map(|address| End {
                address,
                pod: own.then(|| name.clone()),
                node: pod.node.clone(),
            })
        }
        Name::Node(name) => {
            let node = cluster.nodes.get(&**name).with_context(|| format!("there is no node {name}"))?;
            of_family(&node.addresses).map(|address| End { address, pod: None, node: Some(node.name.clone()) })
        }
        Name::Service(name) => bail!("Service {name} is no end of a connection"),
        Name::Address(address) => {
            let taken: Option<&Pod> = cluster.pod_at(*address);
            if let Some(pod) = taken {
                bail!("{address} is pod {}; write that", pod.name);
            }
            if let Some(node) = cluster.nodes_at(*address).next() {
                bail!("{address} is node {}; write that", node.name);
            }
            of_family(&[*address]).map(|address| End { address, pod: None, node: None })
        }
    })
}

/// Somebody who judges: the reference, the tables, the packet program.
pub trait Evaluator {
    /// Whether the first packet of a connection passes at one side.
    ///
    /// # Errors
    /// If the evaluator can't tell; never for a refusal.
    fn passes(&self, side: &Side) -> Result<bool>;
}

/// A connection that is not judged as its case says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which.
    pub connection: Connection,
    /// What it was judged.
    pub got: Expected,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, got } = self;
        write!(f, "{connection}: expected {}, got {got}", connection.expected)
    }
}
