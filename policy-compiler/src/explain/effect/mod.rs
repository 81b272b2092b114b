//! What an edit would change beside the connection that it is for: [`Ground::effect`]. Every connection of every pod whose
//! rules or labels an edit touches is judged before and after it, at all ports at once, and once for all pods of a kind.

mod kinds;
mod port_set;
mod rules;
mod tally;

use std::{cell::Cell, net::IpAddr};

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

pub(super) use self::tally::{AskedFor, Who};
use self::{
    kinds::{Distinctions, Kind},
    port_set::PortSet,
    rules::{Far, Rules},
    tally::{EXAMPLES, Pairs, Tally},
};
use super::quick::{Other, Quick};
use crate::{
    cluster::Cluster,
    model::{Event, Peer, Pod, Policy},
};

/// What an edit changes beside the connection that it is for: connections between pods, and between pods and the
/// outside, at every port.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// How many pairs may speak at a port where they might not before.
    pub opens: usize,
    /// How many pairs no longer may at some port.
    pub closes: usize,
    /// The first of them: `pay/api-0 -> shop/db-0 TCP/5432`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<String>,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<String>,
    /// There were too many pairs to look at all of them: there may be more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// How many pairs of kinds are compared, for all fixes of a question together: a tenth of a second or so.
const MAX_PAIRS: usize = 250_000;

/// What all edits of a question are held against.
pub(super) struct Ground<'a> {
    cluster: &'a Cluster,
    before: &'a Quick<'a>,
    asked: &'a [AskedFor],
    distinctions: Distinctions<'a>,
    kinds: Vec<Kind<'a>>,
    /// An outside address of each family that pods have.
    documented: Vec<IpAddr>,
    /// How many pairs may still be compared.
    left: Cell<usize>,
}

impl<'a> Ground<'a> {
    /// `edits` are all that will be tried.
    pub(super) fn new(
        cluster: &'a Cluster,
        before: &'a Quick<'a>,
        asked: &'a [AskedFor],
        edits: impl Iterator<Item = &'a Event>,
    ) -> Self {
        let edited = edits.filter_map(|event| if let Event::PutPolicy(policy) = event { Some(policy) } else { None });
        let named = asked.iter().flat_map(|(from, to, _)| [from, to]);
        let named = named.filter_map(|who| if let Who::Pod(name) = who { Some(name) } else { None });
        let distinctions = Distinctions::of(cluster.policies.values().chain(edited), named.collect());
        let kinds = distinctions.kinds(before, before);
        let documented = [IpAddr::from([203, 0, 113, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])];
        let has_family = |family: bool| before.pods().flat_map(|pod| &pod.addresses).any(|own| own.is_ipv4() == family);
        let documented = documented.into_iter().filter(|address| has_family(address.is_ipv4())).collect();
        Self { cluster, before, asked, distinctions, kinds, documented, left: Cell::new(MAX_PAIRS) }
    }

    /// What else these events change; `after` has them.
    pub(super) fn effect(&self, after: &Quick<'_>, events: &[Event]) -> Effect {
        let quicks = [self.before, after];
        let is_pod = |event: &Event| matches!(event, Event::PutPod(_));
        let own = events.iter().any(is_pod).then(|| self.distinctions.kinds(self.before, after));
        let edited = Edited::new(quicks, own.as_deref().unwrap_or(&self.kinds), events);
        self.compared(quicks, &edited, &self.outside(events))
    }

    /// Addresses that stand for the outside as edited policies tell it apart.
    fn outside(&self, events: &[Event]) -> Vec<IpAddr> {
        let mut found = self.documented.clone();
        for event in events {
            let Event::PutPolicy(policy) = event else { continue };
            let rules = policy.ingress.iter().chain(&policy.egress).flatten();
            for peer in rules.flat_map(|rule| rule.peers.iter().flatten()) {
                if let Peer::Block { cidr, .. } = peer {
                    found.extend([cidr.network(), cidr.broadcast()]);
                }
            }
        }
        found.sort();
        found.dedup();
        found.retain(|address| self.cluster.pod_at(*address).is_none());
        found
    }

    /// Everybody is compared with everybody whose rules or labels are others.
    fn compared<'b>(&'b self, quicks: [&'b Quick<'b>; 2], edited: &'b Edited<'b>, outside: &'b [IpAddr]) -> Effect {
        let ends: Vec<End<'_>> = edited.ends(quicks[1]).chain(outside.iter().map(End::outside)).collect();
        let trial = Trial { quicks, left: &self.left };
        let mut tally = Tally::new(self.asked);
        for to in ends.iter().filter(|end| end.is_concerned(true)) {
            ends.iter().for_each(|from| trial.compare(from, to, &mut tally));
        }
        for from in ends.iter().filter(|end| end.is_concerned(false)) {
            let others = ends.iter().filter(|to| !to.is_concerned(true));
            others.for_each(|to| trial.compare(from, to, &mut tally));
        }
        tally.effect()
    }
}

/// The kinds of pods, and what an edit makes of them.
struct Edited<'b> {
    kinds: &'b [Kind<'b>],
    relabelled: FxHashSet<usize>,
    /// Of kinds whose rules may be others: of egress and ingress.
    rules: FxHashMap<usize, [Rules<'b>; 2]>,
}

impl<'b> Edited<'b> {
    fn new(quicks: [&'b Quick<'b>; 2], kinds: &'b [Kind<'b>], events: &[Event]) -> Self {
        let is_relabelled = |pod: &Pod| {
            events.iter().any(|event| match event {
                Event::PutPod(edited) => edited.name == pod.name,
                Event::PutNamespace(namespace) => namespace.name == pod.name.namespace,
                _ => false,
            })
        };
        let has_other_policy = |pod: &Pod| {
            let is_there = |policy: &Policy| policy.name.namespace == pod.name.namespace;
            events.iter().any(|event| matches!(event, Event::PutPolicy(policy) if is_there(policy)))
        };
        let (mut relabelled, mut rules) = (FxHashSet::default(), FxHashMap::default());
        for (index, kind) in kinds.iter().enumerate() {
            let pod = kind.pod();
            let is_relabelled = is_relabelled(pod);
            if is_relabelled {
                relabelled.insert(index);
            }
            if is_relabelled || has_other_policy(pod) {
                let pods = [pod, quicks[1].edited(pod).unwrap_or(pod)];
                let of = |ingress| {
                    let isolating = [0, 1].map(|when| quicks[when].isolating(pods[when], ingress).collect());
                    Rules::of(&isolating, ingress.then_some(pod))
                };
                rules.insert(index, [of(false), of(true)]);
            }
        }
        Self { kinds, relabelled, rules }
    }

    fn ends(&'b self, after: &'b Quick<'b>) -> impl Iterator<Item = End<'b>> {
        self.kinds.iter().enumerate().map(|(index, kind)| {
            let pod = kind.pod();
            End {
                pods: &kind.pods,
                times: [Some(pod), Some(after.edited(pod).unwrap_or(pod))],
                addresses: &pod.addresses,
                rules: Some(self.rules.get(&index).unwrap_or(&kind.rules)),
                is_relabelled: self.relabelled.contains(&index),
            }
        })
    }
}

/// An end of the connections that are compared: a kind of pods, or an address that is nobody's.
struct End<'b> {
    /// None for an address.
    pods: &'b [&'b Pod],
    /// One of them, before and after.
    times: [Option<&'b Pod>; 2],
    addresses: &'b [IpAddr],
    /// Of egress and ingress.
    rules: Option<&'b [Rules<'b>; 2]>,
    /// Peers may match it otherwise than before.
    is_relabelled: bool,
}

impl<'b> End<'b> {
    fn outside(address: &'b IpAddr) -> Self {
        let addresses = std::slice::from_ref(address);
        Self { pods: &[], times: [None; 2], addresses, rules: None, is_relabelled: false }
    }

    fn address(&self, is_v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == is_v4)
    }

    /// Whether its connections of a direction may be judged otherwise than before.
    fn is_concerned(&self, ingress: bool) -> bool {
        self.is_relabelled || self.rules.is_some_and(|rules| rules[usize::from(ingress)].differ())
    }

    /// The first of them; one more than there are examples, since a pod with itself is none.
    fn names(&self) -> Vec<Who> {
        if self.pods.is_empty() {
            return self.addresses.iter().map(|address| Who::Outside(*address)).collect();
        }
        self.pods.iter().take(EXAMPLES + 1).map(|pod| Who::Pod(pod.name.clone())).collect()
    }
}

/// The rules of one end of a connection, and the other end.
#[derive(Clone, Copy)]
struct Side<'c, 'b> {
    rules: &'b Rules<'b>,
    far: &'c End<'b>,
    address: IpAddr,
    /// Whether they may be, or say, something else than before.
    differs: bool,
}

impl<'c, 'b> Side<'c, 'b> {
    /// An address has no rules.
    fn new(own: &'c End<'b>, ingress: bool, far: &'c End<'b>, address: IpAddr) -> Option<Self> {
        let rules = &own.rules?[usize::from(ingress)];
        Some(Self { rules, far, address, differs: far.is_relabelled || rules.differ() })
    }
}

/// A cluster before and after an edit.
struct Trial<'b> {
    quicks: [&'b Quick<'b>; 2],
    left: &'b Cell<usize>,
}

impl<'b> Trial<'b> {
    /// Counts the pairs of two ends if they may speak at other ports than before. A pod with itself is no pair.
    fn compare(&self, from: &End<'b>, to: &End<'b>, tally: &mut Tally<'_>) {
        let (sources, destinations) = (from.pods.len().max(1), to.pods.len().max(1));
        let count = sources * if std::ptr::eq(from, to) { destinations - 1 } else { destinations };
        if count == 0 {
            return;
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            tally.incomplete = true;
            return;
        };
        self.left.set(left);
        let [before, after] = self.open(from, to);
        if before != after {
            let (sources, destinations) = (from.names(), to.names());
            let all = sources.iter().flat_map(|from| destinations.iter().map(move |to| (from, to)));
            let first = all.filter(|(from, to)| from != to).take(EXAMPLES);
            let first = first.map(|(from, to)| (from.clone(), to.clone())).collect();
            tally.count(&Pairs { count, first }, &[before, after]);
        }
    }

    /// The ports at which one may speak to the other, before and after: of those that make a difference.
    fn open(&self, from: &End<'b>, to: &End<'b>) -> [PortSet; 2] {
        let sides = |is_v4| {
            let (source, destination) = (from.address(is_v4)?, to.address(is_v4)?);
            Some([Side::new(from, false, to, destination), Side::new(to, true, from, source)])
        };
        let families = [true, false].map(sides);
        let mut concerned = PortSet::default();
        for side in families.iter().flatten().flatten().flatten().filter(|side| side.differs) {
            concerned = concerned.or(&side.rules.difference(&self.far(side), side.far.is_relabelled));
        }
        let mut open = [PortSet::default(), PortSet::default()];
        if concerned.is_empty() {
            return open;
        }
        for sides in families.iter().flatten() {
            let mut both = [concerned.clone(), concerned.clone()];
            // one that is as before leaves less to ask the other
            for differs in [false, true] {
                for side in sides.iter().flatten().filter(|side| side.differs == differs) {
                    both = self.open_of(side, &both);
                }
            }
            open = [open[0].or(&both[0]), open[1].or(&both[1])];
        }
        open
    }

    /// The ports of those that one side opens, before and after.
    fn open_of(&self, side: &Side<'_, 'b>, [before, after]: &[PortSet; 2]) -> [PortSet; 2] {
        let far = self.far(side);
        let open = side.rules.open(0, &far[0], before);
        if !side.differs && before == after {
            return [open.clone(), open];
        }
        [open, side.rules.open(1, &far[1], after)]
    }

    fn far(&self, side: &Side<'_, 'b>) -> [Far<'b>; 2] {
        let at = |when: usize| Other { pod: side.far.times[when], address: side.address };
        [Far { quick: self.quicks[0], end: at(0) }, Far { quick: self.quicks[1], end: at(1) }]
    }
}
