//! Pods folded to their workloads: [`Unit`]. Between two units, the ports at which all pods may connect, and those at
//! which only some may.

use std::collections::BTreeMap;

use policy_compiler::{
    explain::End,
    model::ObjectName,
    reach::{OpenPorts, PortRange, Probing, Reach, Seat},
};

use crate::{
    end::{self, Member},
    port::{representative, summary},
    source::State,
};

/// A workload with its pods, a pod without one, or an outside end.
#[derive(Debug)]
pub(crate) struct Unit {
    /// As it could be asked for.
    pub(crate) name: String,
    pub(crate) members: Vec<Member>,
    /// One family after the other.
    pub(crate) seats: Vec<Seat>,
}

/// The ports between two units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Between {
    /// All pods of one may open these to all pods of the other.
    pub(crate) all: Vec<Option<PortRange>>,
    /// Only some may.
    pub(crate) some: Vec<Option<PortRange>>,
}

impl Between {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.some.is_empty()
    }

    /// `TCP 80; some pods only: TCP 9090`
    pub(crate) fn written(&self) -> String {
        self.written_of("some pods only")
    }

    /// The same, where `some` means something else.
    pub(crate) fn written_of(&self, word: &str) -> String {
        let some = summary(&self.some);
        match (self.all.is_empty(), self.some.is_empty()) {
            (_, true) => summary(&self.all),
            (true, false) => format!("{word}: {some}"),
            (false, false) => format!("{}; {word}: {some}", summary(&self.all)),
        }
    }
}

impl Unit {
    /// Of given ends; those without an address are left out.
    pub(crate) fn new(name: String, members: Vec<Member>, reach: &Reach<'_>) -> Self {
        let seats = members.iter().filter_map(|member| reach.seats(&member.end).ok()).flatten().collect();
        Self { name, members, seats: few(seats) }
    }

    /// Whether one of its pods is among those that are to be listed.
    pub(crate) fn is_listed(&self, state: &State) -> bool {
        let mut pods = self.members.iter().filter_map(|member| member.pod_of(state.cluster()));
        state.scope.is_everything() || pods.any(|pod| state.scope.has(pod))
    }

    /// Whether nothing of it can be reached.
    pub(crate) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }
}

/// Two of each sort of pods are enough: one to judge, and another one as what it may reach. What speaks to nodes is
/// judged by the pod's own node too, so one of each sort on each node is kept.
fn few(seats: Vec<Seat>) -> Vec<Seat> {
    let mut kept: Vec<Seat> = Vec::new();
    for seat in seats {
        let alike = |other: &&Seat| other.sort().is_some() && other.sort() == seat.sort();
        let count = kept.iter().filter(alike).count();
        let on_node = kept.iter().filter(alike).any(|other| other.party.node == seat.party.node);
        if count < 2 || !on_node {
            kept.push(seat);
        }
    }
    kept
}

/// All pods of a state, as units in the order of their names.
pub(crate) fn pods(state: &State, reach: &Reach<'_>) -> Vec<Unit> {
    let mut units: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    for (name, pod) in &state.cluster().pods {
        if !pod.ended {
            let member = Member { name: name.to_string(), end: End::Pod(name.clone()) };
            units.entry(unit_of(state, name)).or_default().push(member);
        }
    }
    units.into_iter().map(|(name, members)| Unit::new(name, members, reach)).filter(|unit| !unit.is_empty()).collect()
}

/// The outside, as far as policies tell it apart.
pub(crate) fn world(state: &State, reach: &Reach<'_>) -> Vec<Unit> {
    let members = end::world(&[state.cluster()]);
    members.into_iter().map(|member| Unit::new(member.name.clone(), vec![member], reach)).collect()
}

/// What a pod is folded into.
pub(crate) fn unit_of(state: &State, pod: &ObjectName) -> String {
    state.gathered.owners.get(pod).map_or_else(|| pod.to_string(), ToString::to_string)
}

/// Who may connect to whom between two units: everybody of one to everybody of the other, but not to themselves.
pub(crate) fn pairs<'a>(from: &'a Unit, to: &'a Unit) -> Vec<(&'a Seat, &'a Seat)> {
    let mut pairs: Vec<(&Seat, &Seat)> = Vec::new();
    for source in &from.seats {
        for destination in to.seats.iter().filter(|other| other.family == source.family) {
            if source.end != destination.end {
                pairs.push((source, destination));
            }
        }
    }
    pairs
}

/// Ports that are asked about again and again.
pub(crate) struct Probes<'r, 'a> {
    pub(crate) ranges: &'r [Option<PortRange>],
    probing: Probing<'r, 'a>,
}

impl<'r, 'a> Probes<'r, 'a> {
    pub(crate) fn new(reach: &'r Reach<'a>, ranges: &'r [Option<PortRange>]) -> Self {
        Self { ranges, probing: Probing::new(reach, ranges.iter().map(|range| representative(*range)).collect()) }
    }

    /// The ports that one unit may open to another; `None` if they have no family in common.
    pub(crate) fn between(&self, from: &Unit, to: &Unit) -> Option<Between> {
        let mut found: Option<(OpenPorts, OpenPorts)> = None;
        for (source, destination) in pairs(from, to) {
            let open = self.probing.open(source, destination);
            match &mut found {
                Some((all, some)) => {
                    all.keep(&open);
                    some.add(&open);
                }
                None => found = Some((open.clone(), open)),
            }
        }
        let (all, some) = found?;
        if some.is_empty() {
            return Some(Between::default());
        }
        let ranges = |wanted: &dyn Fn(usize) -> bool| -> Vec<Option<PortRange>> {
            (0..self.ranges.len()).filter(|index| wanted(*index)).map(|index| self.ranges[index]).collect()
        };
        Some(Between {
            all: ranges(&|index| all.has(index)),
            some: ranges(&|index| some.has(index) && !all.has(index)),
        })
    }
}
