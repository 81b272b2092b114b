//! Ends of connections, found once: [`Seat`].

use enforcer_abi::{ClassId, EVERYBODY};

use super::Reach;
use crate::{
    change::TableUse,
    explain::{End, Family, Party, PartyKind, Unanswerable, parties},
    model::ObjectName,
};

/// An end with its address of one family, and what the tables know of it.
#[derive(Clone, Debug)]
pub struct Seat {
    /// As it was asked for.
    pub end: End,
    /// Who it is.
    pub party: Party,
    /// Of its address.
    pub family: Family,
    pub(super) by_address: bool,
    /// A pod on its node's network.
    pub(super) host_pod: Option<ObjectName>,
    /// The address is a Service's front end.
    pub(super) is_service: bool,
    /// The address is a node's.
    pub(super) is_node: bool,
    pub(super) class: ClassId,
    pub(super) ingress: Option<TableUse>,
    pub(super) egress: Option<TableUse>,
}

impl Seat {
    /// It is a pod with a network of its own.
    #[must_use]
    pub fn is_pod(&self) -> bool {
        self.party.kind == PartyKind::Pod
    }

    /// It is a pod on its node's network.
    #[must_use]
    pub const fn is_host_pod(&self) -> bool {
        self.host_pod.is_some()
    }
}

impl Reach<'_> {
    /// An end in each family that it has an address of.
    ///
    /// # Errors
    /// There is no such end, or it has no address.
    pub fn seats(&self, end: &End) -> Result<Vec<Seat>, Unanswerable> {
        let mut seats: Vec<Seat> = Vec::with_capacity(2);
        for party in parties(self.cluster, end)? {
            let family = Family::of(party.ip);
            if seats.iter().any(|seat| seat.family == family) {
                continue;
            }
            let name = ObjectName { namespace: party.namespace.clone(), name: party.name.clone() };
            let compiled = self.compiled.as_ref();
            let is_pod = party.kind == PartyKind::Pod;
            let tables = compiled.filter(|_| is_pod).and_then(|compiled| compiled.pods.get(&name));
            seats.push(Seat {
                end: end.clone(),
                family,
                by_address: matches!(end, End::Address(_)),
                host_pod: (party.kind == PartyKind::HostNetworkPod).then_some(name),
                is_service: self.services.contains(&party.ip),
                is_node: !is_pod && self.cluster.nodes_at(party.ip).next().is_some(),
                class: compiled.map_or(EVERYBODY, |compiled| compiled.tables.class(party.ip.into())),
                ingress: tables.and_then(|tables| tables.ingress),
                egress: tables.and_then(|tables| tables.egress),
                party,
            });
        }
        Ok(seats)
    }
}

/// Pods of one sort are judged alike wherever the other end is no node: replicas are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sort(Family, ClassId, Option<TableUse>, Option<TableUse>);

impl Seat {
    /// Its sort, if it is a pod of a compiled cluster.
    #[must_use]
    pub fn sort(&self) -> Option<Sort> {
        let is_plain = self.is_pod() && !self.is_service && !self.is_node;
        is_plain.then_some(Sort(self.family, self.class, self.ingress, self.egress))
    }
}
