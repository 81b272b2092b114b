//! Verdicts of many connections: [`Reach`] compiles the whole cluster once, as if all pods were on one node, and walks
//! the tables for each question; for a few questions ([`Reach::of_few`]) that is not worth it, and the policies are asked
//! one by one. What has no table is judged as explanations judge it: front ends of Services, the
//! node's own traffic, and pods on their node's network, whose treatment Kubernetes leaves open.

mod ports;
mod probing;
mod seat;
mod tables;

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr, sync::Arc};

use enforcer_abi::{ClassId, Direction, TableId};
use rustc_hash::FxHashMap;

use self::tables::Tables;
pub use self::{
    ports::{PortRange, port_ranges, port_ranges_of, ports_in_use},
    probing::{OpenPorts, Probing},
    seat::{Seat, Sort},
};
use crate::{
    change::{PodTables, TableUse},
    cluster::Cluster,
    compiler::{Compiler, Options},
    explain::{Other, PartyKind, Query, Quick, Verdict, explain},
    model::{Event, ObjectName, Pod, Protocol},
    walk::{Packet, walk},
};

/// A destination port; `None` for protocols without ports.
pub type Port = Option<(Protocol, u16)>;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cell {
    /// It passes.
    Allowed,
    /// The source's rules refuse it.
    Egress,
    /// The destination's rules refuse it.
    Ingress,
    /// Both refuse it.
    Both,
    /// Source and destination are one.
    Itself,
    /// Kubernetes leaves it open: a pod on its node's network takes part, and it matters whether it counts as a pod or
    /// as its node.
    Undefined,
}

impl Cell {
    const fn of(egress: bool, ingress: bool) -> Self {
        match (egress, ingress) {
            (true, true) => Self::Allowed,
            (false, true) => Self::Egress,
            (true, false) => Self::Ingress,
            (false, false) => Self::Both,
        }
    }

    /// Its letter in a matrix.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Allowed => '.',
            Self::Egress => 'E',
            Self::Ingress => 'I',
            Self::Both => 'B',
            Self::Itself => '=',
            Self::Undefined => '~',
        }
    }

    /// Whether this engine lets it through.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Allowed | Self::Itself)
    }
}

/// All verdicts of a cluster.
#[derive(Debug)]
pub struct Reach<'a> {
    cluster: &'a Cluster,
    compiled: Option<Compiled>,
    quick: Quick<'a>,
    services: BTreeSet<IpAddr>,
    node_ports: BTreeSet<(Protocol, u16)>,
}

#[derive(Debug)]
struct Compiled {
    tables: Tables,
    pods: FxHashMap<ObjectName, PodTables>,
    known: RefCell<FxHashMap<(TableId, ClassId, Port), bool>>,
}

impl Compiled {
    fn new(cluster: &Cluster) -> Self {
        let node: Arc<str> = "all".into();
        let mut compiler = Compiler::new(Options::new(node.clone()));
        let events = cluster.events_since(&Cluster::default()).into_iter().filter_map(|event| match event {
            Event::PutPod(pod) => Some(Event::PutPod(Pod { node: Some(node.clone()), ..pod })),
            Event::PutService(_) | Event::PutEndpointSlice(_) => None,
            other => Some(other),
        });
        compiler.apply_all(events);
        Self {
            tables: Tables::new(compiler.contents()),
            pods: compiler.pods().into_iter().map(|pod| (pod.name.clone(), pod)).collect(),
            known: RefCell::default(),
        }
    }
}

impl<'a> Reach<'a> {
    /// For many questions.
    #[must_use]
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { compiled: Some(Compiled::new(cluster)), ..Self::of_few(cluster) }
    }

    /// For a few questions: nothing is compiled.
    #[must_use]
    pub fn of_few(cluster: &'a Cluster) -> Self {
        let addresses = |service: &'a crate::model::Service| service.cluster_ips.iter().chain(&service.external_ips);
        let ports = cluster.services.values().flat_map(|service| &service.ports);
        Self {
            cluster,
            compiled: None,
            quick: Quick::new(cluster),
            services: cluster.services.values().flat_map(addresses).copied().collect(),
            node_ports: ports.filter_map(|port| Some((port.protocol, port.node_port?))).collect(),
        }
    }

    /// For so many questions.
    #[must_use]
    pub fn of(cluster: &'a Cluster, questions: usize) -> Self {
        // about as many as compiling a small cluster costs
        if questions > 2000 { Self::new(cluster) } else { Self::of_few(cluster) }
    }

    /// What becomes of a connection between two ends of one family.
    #[must_use]
    pub fn judge(&self, source: &Seat, destination: &Seat, port: Port) -> Cell {
        let cell = self.enforced(source, destination, port);
        let has_host = source.host_pod.is_some() || destination.host_pod.is_some();
        if has_host && cell != Cell::Itself && !self.is_front_end(destination, port) {
            return if self.as_pods(source, destination, port) == cell { cell } else { Cell::Undefined };
        }
        cell
    }

    /// What this engine does: a pod on its node's network counts as the node.
    #[must_use]
    pub fn enforced(&self, source: &Seat, destination: &Seat, port: Port) -> Cell {
        if source.party.ip == destination.party.ip && (source.is_pod() || source.end == destination.end) {
            return Cell::Itself;
        }
        if self.is_front_end(destination, port) {
            return self.through_front_end(source, destination, port);
        }
        Cell::of(
            self.side(source, Direction::Egress, destination, port),
            self.is_own_node(source, destination) || self.side(destination, Direction::Ingress, source, port),
        )
    }

    fn is_front_end(&self, destination: &Seat, port: Port) -> bool {
        let Some(port) = port else { return false };
        destination.is_service || (destination.is_node && self.node_ports.contains(&port))
    }

    fn through_front_end(&self, source: &Seat, destination: &Seat, port: Port) -> Cell {
        let query = Query {
            source: source.end.clone(),
            destination: destination.end.clone(),
            port,
            family: Some(destination.family),
        };
        let allowed = |verdict| verdict == Verdict::Allowed;
        match explain(self.cluster, &query).as_deref() {
            Ok([explanation, ..]) => {
                Cell::of(allowed(explanation.egress.verdict), allowed(explanation.ingress.verdict))
            }
            // seats have addresses of one family, so there always is an answer
            Ok([]) | Err(_) => Cell::Both,
        }
    }

    fn is_own_node(&self, source: &Seat, destination: &Seat) -> bool {
        let is_node = matches!(source.party.kind, PartyKind::Node | PartyKind::HostNetworkPod) && !source.by_address;
        is_node && destination.party.node.is_some() && destination.party.node == source.party.node
    }

    /// Whether the rules of `own` let the connection through.
    fn side(&self, own: &Seat, direction: Direction, remote: &Seat, port: Port) -> bool {
        let is_ingress = direction == Direction::Ingress;
        let Some(compiled) = &self.compiled else {
            let Some(pod) = self.pod(own) else { return true };
            let other = Other { pod: self.pod(remote), address: remote.party.ip };
            return self.quick.side(pod, is_ingress, other, port) != Some(false);
        };
        let table = if is_ingress { own.ingress } else { own.egress };
        table.is_none_or(|table| compiled.walk(table, direction, remote, port))
    }

    /// The pod of a seat, if it has a network of its own.
    fn pod(&self, seat: &Seat) -> Option<&'a Pod> {
        let name = || ObjectName { namespace: seat.party.namespace.clone(), name: seat.party.name.clone() };
        seat.is_pod().then(|| self.cluster.pods.get(&name())).flatten()
    }

    /// What an engine would say that treats pods on their node's network as pods.
    fn as_pods(&self, source: &Seat, destination: &Seat, port: Port) -> Cell {
        let pod = |seat: &Seat| match &seat.host_pod {
            Some(name) => self.cluster.pods.get(name),
            None => self.pod(seat),
        };
        let (from, to) = (pod(source), pod(destination));
        let other = |pod, seat: &Seat| Other { pod, address: seat.party.ip };
        let side = |own: Option<&Pod>, ingress, other| {
            own.and_then(|own| self.quick.side(own, ingress, other, port)) != Some(false)
        };
        Cell::of(
            side(from, false, other(to, destination)),
            self.is_own_node(source, destination) || side(to, true, other(from, source)),
        )
    }
}

impl Compiled {
    fn walk(&self, table: TableUse, direction: Direction, remote: &Seat, port: Port) -> bool {
        let key = (table.id, remote.class, port);
        if let Some(known) = self.known.borrow().get(&key) {
            return *known;
        }
        let (ingress, egress) = match direction {
            Direction::Ingress => (Some(table), None),
            Direction::Egress => (None, Some(table)),
        };
        let pod = PodTables {
            uid: "".into(),
            name: ObjectName::new("", ""),
            addresses: Vec::new(),
            ingress,
            egress,
            forwards: false,
            audit: false,
        };
        let packet = Packet {
            direction,
            remote: remote.party.ip.into(),
            // any protocol without ports
            protocol: port.map_or(enforcer_abi::protocol::ICMP, |(protocol, _)| protocol.number()),
            port: port.map_or(0, |(_, port)| port),
            established: false,
        };
        let passes = walk(&self.tables, &pod, &packet).reason.passes();
        self.known.borrow_mut().insert(key, passes);
        passes
    }
}
