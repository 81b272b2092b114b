//! Ends of connections, found once: [`Seat`].

use enforcer_abi::ClassId;

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

    /// Whether some policy isolates it, for ingress and for egress.
    #[must_use]
    pub const fn isolated(&self) -> (bool, bool) {
        (self.ingress.is_some(), self.egress.is_some())
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
            let tables = (party.kind == PartyKind::Pod).then(|| self.pods.get(&name)).flatten();
            seats.push(Seat {
                end: end.clone(),
                family,
                by_address: matches!(end, End::Address(_)),
                host_pod: (party.kind == PartyKind::HostNetworkPod).then_some(name),
                class: self.tables.class(party.ip.into()),
                ingress: tables.and_then(|tables| tables.ingress),
                egress: tables.and_then(|tables| tables.egress),
                party,
            });
        }
        Ok(seats)
    }
}

impl Seat {
    /// Whether both are judged alike, as far as tables go: replicas are.
    #[must_use]
    pub fn is_judged_like(&self, other: &Self) -> bool {
        let key =
            |seat: &Self| (seat.family, seat.class, seat.ingress, seat.egress, seat.party.kind, seat.host_pod.clone());
        key(self) == key(other) && (self.party.node == other.party.node || self.is_pod())
    }
}
