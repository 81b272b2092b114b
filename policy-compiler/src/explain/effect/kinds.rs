//! Pods of one kind: those that no rule tells apart, so that what an edit does to one of them, it does to all.
//! [`Distinctions`] is what rules tell pods apart by, [`Kind`] what it comes to.

use std::{collections::hash_map::Entry, net::IpAddr};

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::rules::Rules;
use crate::{
    explain::quick::Quick,
    model::{NamedPort, NamespaceMatch, ObjectName, Peer, Pod, PodMatch, Policy, PortMatch, Requirement, Selector},
};

/// Pods that no rule tells apart, in the order of their names.
pub(super) struct Kind<'a> {
    pub(super) pods: Vec<&'a Pod>,
    /// Of egress and ingress, as they are before any edit.
    pub(super) rules: [Rules<'a>; 2],
}

impl<'a> Kind<'a> {
    /// One that stands for all.
    pub(super) fn pod(&self) -> &'a Pod {
        self.pods[0]
    }
}

/// All that rules tell pods of a namespace apart by, edited ones included.
#[derive(Default)]
pub(super) struct Distinctions<'a> {
    /// Keys of labels.
    keys: FxHashSet<&'a str>,
    /// Names of ports.
    ports: FxHashSet<&'a str>,
    /// The addresses at which a block or a hole in one begins, or has ended: between two of them, all are in the same.
    borders: Vec<IpAddr>,
    /// Pods that a question is about.
    asked: Vec<&'a ObjectName>,
}

/// What a pod is to the rules.
#[derive(PartialEq, Eq, Hash)]
struct Looks<'a> {
    labels: SmallVec<[(&'a str, &'a str); 8]>,
    ports: SmallVec<[&'a NamedPort; 4]>,
    /// Between which borders its addresses are.
    addresses: SmallVec<[(bool, usize); 2]>,
}

impl<'a> Distinctions<'a> {
    pub(super) fn of(policies: impl Iterator<Item = &'a Policy>, asked: Vec<&'a ObjectName>) -> Self {
        let mut found = Self { asked, ..Self::default() };
        for policy in policies {
            found.matched(&policy.subject);
            for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
                rule.peers.iter().flatten().for_each(|peer| found.peer(peer));
                for port in rule.ports.iter().flatten() {
                    if let PortMatch::Named(_, name) = port {
                        found.ports.insert(name);
                    }
                }
            }
        }
        found.borders.sort_unstable();
        found.borders.dedup();
        found
    }

    fn peer(&mut self, peer: &'a Peer) {
        match peer {
            Peer::Nobody => {}
            Peer::Pods(pods) => self.matched(pods),
            Peer::Block { cidr, except } => {
                for net in std::iter::once(cidr).chain(except) {
                    self.borders.push(net.network());
                    self.borders.extend(after(net.broadcast()));
                }
            }
        }
    }

    fn matched(&mut self, pods: &'a PodMatch) {
        // labels of namespaces tell no pods of one namespace apart
        let PodMatch {
            namespaces: NamespaceMatch::Name(_) | NamespaceMatch::Labels(_),
            pods: Selector { requirements },
        } = pods;
        for requirement in requirements {
            let (Requirement::In(key, _)
            | Requirement::NotIn(key, _)
            | Requirement::Exists(key)
            | Requirement::DoesNotExist(key)) = requirement;
            self.keys.insert(key);
        }
    }

    fn looks<'b>(&self, pod: &'b Pod) -> Looks<'b> {
        let labels = pod.labels.iter().map(|(key, value)| (&**key, &**value));
        let place = |address: &IpAddr| (address.is_ipv4(), self.borders.partition_point(|border| border <= address));
        Looks {
            labels: labels.filter(|(key, _)| self.keys.contains(key)).collect(),
            ports: pod.ports.iter().filter(|port| self.ports.contains(&*port.name)).collect(),
            addresses: pod.addresses.iter().map(place).collect(),
        }
    }

    /// All pods by kind; those that `after` edits are of another kind than those that look as they did. A pod that was
    /// asked about is a kind of its own.
    pub(super) fn kinds(&self, before: &'a Quick<'a>, after: &Quick<'_>) -> Vec<Kind<'a>> {
        let mut kinds: Vec<Kind<'a>> = Vec::new();
        let mut known: FxHashMap<_, usize> = FxHashMap::default();
        for pod in before.pods() {
            let edited = after.edited(pod);
            let asked = self.asked.iter().position(|name| **name == pod.name);
            let key = (&*pod.name.namespace, self.looks(pod), edited.map(|pod| self.looks(pod)), asked);
            match known.entry(key) {
                Entry::Occupied(kind) => kinds[*kind.get()].pods.push(pod),
                Entry::Vacant(kind) => {
                    kind.insert(kinds.len());
                    let rules = [false, true]
                        .map(|ingress| Rules::unchanged(before.isolating(pod, ingress), ingress.then_some(pod)));
                    kinds.push(Kind { pods: vec![pod], rules });
                }
            }
        }
        kinds
    }
}

/// The next address; of the last one there is none.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}
