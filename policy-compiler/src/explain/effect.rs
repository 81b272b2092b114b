//! What an edit would change beside the connection that it is for: [`Trial::effect`].

use std::{cell::Cell, collections::BTreeSet, net::IpAddr};

use serde::Serialize;

use super::quick::{Other, Quick};
use crate::{
    cluster::Cluster,
    model::{Event, ObjectName, Peer, Pod, Policy, PortMatch, Protocol, Rule},
    reach::Port,
};

/// What an edit changes beside the connection that it is for: connections between pods, and between pods and the
/// outside, at every port that the policies concerned tell apart.
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

/// How many examples are kept.
const EXAMPLES: usize = 3;

/// How many pairs are compared, for all fixes of a question together.
pub(super) const MAX_PAIRS: usize = 15_000;

/// A connection that was asked about; an end that is no pod is its address.
pub(super) type AskedFor = (String, String, Port);

/// An edit, before and after.
pub(super) struct Trial<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) before: &'a Quick<'a>,
    pub(super) after: &'a Quick<'a>,
    pub(super) asked: &'a [AskedFor],
    /// How many pairs may still be compared.
    pub(super) left: &'a Cell<usize>,
}

/// The other end of a pair: a pod, or an address that is nobody's.
#[derive(Clone, Copy)]
enum Far<'a> {
    Pod(&'a ObjectName),
    Outside(IpAddr),
}

impl Far<'_> {
    fn name(self) -> String {
        match self {
            Self::Pod(name) => name.to_string(),
            Self::Outside(address) => address.to_string(),
        }
    }
}

#[derive(Default)]
struct Tally {
    effect: Effect,
    /// A pair may be come across from both of its ends.
    seen: BTreeSet<(String, String)>,
}

impl Trial<'_> {
    /// What else these events change.
    pub(super) fn effect(&self, events: &[Event]) -> Effect {
        let mut tally = Tally::default();
        let mut relabelled: Vec<&ObjectName> = Vec::new();
        for event in events {
            match event {
                Event::PutPod(pod) => relabelled.push(&pod.name),
                Event::PutNamespace(namespace) => {
                    relabelled
                        .extend(self.before.pods().map(|pod| &pod.name).filter(|pod| pod.namespace == namespace.name));
                }
                Event::PutPolicy(policy) => self.policy(policy, &mut tally),
                _ => {}
            }
        }
        if !relabelled.is_empty() {
            self.selected(&relabelled, &mut tally);
            self.peers(&relabelled, &mut tally);
        }
        tally.effect
    }

    /// Pods that an edited policy is about.
    fn policy(&self, new: &Policy, tally: &mut Tally) {
        let old = self.before.policy(&new.name);
        let outside = self.outside(new);
        for ingress in [true, false] {
            let rules = |policy: &'_ Policy| if ingress { policy.ingress.clone() } else { policy.egress.clone() };
            let (old_rules, new_rules) = (old.and_then(rules), rules(new));
            if old_rules == new_rules && old.is_some_and(|old| old.subject == new.subject) {
                continue;
            }
            let is_subject = |pod: &&Pod| {
                pod.name.namespace == new.name.namespace
                    && (self.after.has(&new.subject, pod) || old.is_some_and(|old| self.before.has(&old.subject, pod)))
            };
            let subjects: Vec<_> = self.after.pods().filter(is_subject).map(|pod| &pod.name).collect();
            let isolated = |quick: &Quick<'_>, name| {
                quick.pod(name).is_some_and(|pod| quick.isolating(pod, ingress).next().is_some())
            };
            let (isolating, others): (Vec<_>, Vec<_>) =
                subjects.into_iter().partition(|name| isolated(self.before, name) != isolated(self.after, name));
            let (old_rules, new_rules) = (old_rules.unwrap_or_default(), new_rules.unwrap_or_default());
            for far in self.everybody(&outside) {
                let differs = self.differs(&old_rules, &new_rules, far);
                let concerned = isolating.iter().chain(if differs { &*others } else { &[] });
                concerned.for_each(|name| self.compare(name, ingress, far, tally));
            }
        }
    }

    fn everybody<'b>(&'b self, outside: &'b [IpAddr]) -> impl Iterator<Item = Far<'b>> {
        let pods = self.after.pods().map(|pod| Far::Pod(&pod.name));
        pods.chain(outside.iter().map(|address| Far::Outside(*address)))
    }

    /// Whether two versions of a policy's rules may say different things of an end.
    fn differs(&self, old: &[Rule], new: &[Rule], far: Far<'_>) -> bool {
        (0..old.len().max(new.len())).any(|index| {
            let (old, new) = (old.get(index), new.get(index));
            let matches = |rule: Option<&Rule>| rule.map(|rule| self.is_peer(rule, far)).unwrap_or_default();
            let (old_matches, new_matches) = (matches(old), matches(new));
            let any = |matches: &[bool]| matches.contains(&true);
            match (any(&old_matches), any(&new_matches)) {
                (true, true) => {
                    old_matches != new_matches || old.map(|rule| &rule.ports) != new.map(|rule| &rule.ports)
                }
                (old, new) => old != new,
            }
        })
    }

    /// Whether a rule is about an end, by each of its addresses.
    fn is_peer(&self, rule: &Rule, far: Far<'_>) -> Vec<bool> {
        let is = |other: Other<'_>| {
            rule.peers.as_ref().is_none_or(|peers| peers.iter().any(|peer| self.after.is(peer, other)))
        };
        others(self.after, far).into_iter().map(is).collect()
    }

    /// Pods that other policies are about now.
    fn selected(&self, relabelled: &[&ObjectName], tally: &mut Tally) {
        let outside = self.documented();
        for name in relabelled {
            for ingress in [true, false] {
                let policies = |quick: &Quick<'_>| -> Vec<ObjectName> {
                    let pod = quick.pod(name);
                    pod.map(|pod| quick.isolating(pod, ingress).map(|(policy, _)| policy.name.clone()).collect())
                        .unwrap_or_default()
                };
                if policies(self.before) != policies(self.after) {
                    self.everybody(&outside).for_each(|far| self.compare(name, ingress, far, tally));
                }
            }
        }
    }

    /// Pods that are other peers now.
    fn peers(&self, relabelled: &[&ObjectName], tally: &mut Tally) {
        for policy in self.cluster.policies.values() {
            for (ingress, rules) in [(true, &policy.ingress), (false, &policy.egress)] {
                let peers: Vec<&Peer> = rules.iter().flatten().flat_map(|rule| rule.peers.iter().flatten()).collect();
                let is_other = |name: &&&ObjectName| {
                    let is = |quick: &Quick<'_>, peer: &Peer| {
                        let others: Vec<Other<'_>> = others(quick, Far::Pod(name));
                        others.iter().any(|other| quick.is(peer, *other))
                    };
                    peers.iter().any(|peer| is(self.before, peer) != is(self.after, peer))
                };
                let concerned: Vec<_> = relabelled.iter().filter(is_other).collect();
                if concerned.is_empty() {
                    continue;
                }
                for subject in self.after.pods().filter(|pod| self.after.has(&policy.subject, pod)) {
                    for name in &concerned {
                        self.compare(&subject.name, ingress, Far::Pod(name), tally);
                    }
                }
            }
        }
    }

    /// Addresses that stand for the outside as an edited policy tells it apart.
    fn outside(&self, policy: &Policy) -> Vec<IpAddr> {
        let mut found = self.documented();
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        for peer in rules.flat_map(|rule| rule.peers.iter().flatten()) {
            if let Peer::Block { cidr, .. } = peer {
                found.extend([cidr.network(), cidr.broadcast()]);
            }
        }
        found.sort();
        found.dedup();
        found.retain(|address| self.cluster.pod_at(*address).is_none());
        found
    }

    /// An outside address of each family that pods have.
    fn documented(&self) -> Vec<IpAddr> {
        let has = |wanted: fn(&IpAddr) -> bool| self.before.pods().flat_map(|pod| &pod.addresses).any(wanted);
        let mut found = Vec::new();
        if has(IpAddr::is_ipv4) {
            found.push(IpAddr::from([203, 0, 113, 1]));
        }
        if has(IpAddr::is_ipv6) {
            found.push(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
        }
        found
    }

    /// Counts a pair if it may speak at other ports than before. `ingress`: of `own`, whose rules are concerned.
    fn compare(&self, own: &ObjectName, ingress: bool, far: Far<'_>, tally: &mut Tally) {
        if matches!(far, Far::Pod(name) if name == own) {
            return;
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            tally.effect.incomplete = true;
            return;
        };
        self.left.set(left);
        let mut ports = BTreeSet::from([None]);
        self.starts(own, ingress, far, &mut ports);
        if !ports.iter().any(|port| self.sides_differ(own, ingress, far, *port)) {
            return;
        }
        if let Far::Pod(name) = far {
            self.starts(name, !ingress, Far::Pod(own), &mut ports);
        }
        let far_name = far.name();
        let own_name = own.to_string();
        let pair = if ingress { (far_name, own_name) } else { (own_name, far_name) };
        if tally.seen.contains(&pair) {
            return;
        }
        let asked =
            |port: &Port| self.asked.iter().any(|(from, to, at)| *from == pair.0 && *to == pair.1 && at == port);
        // what was asked first, so that it is the example
        let mut ports: Vec<_> = ports.into_iter().collect();
        ports.sort_by_key(|port| (!self.asked.iter().any(|(.., at)| at == port), port.is_none()));
        let changed: Vec<(Port, bool)> = ports
            .into_iter()
            .filter(|port| !asked(port))
            .filter_map(|port| {
                let (old, new) =
                    (passes(self.before, own, ingress, far, port), passes(self.after, own, ingress, far, port));
                (old != new).then_some((port, new))
            })
            .collect();
        for opens in [true, false] {
            let ports: Vec<_> = changed.iter().filter(|(_, new)| *new == opens).map(|(port, _)| *port).collect();
            tally.effect.count(opens, &pair, &ports);
        }
        if !changed.is_empty() {
            tally.seen.insert(pair);
        }
    }

    /// Where the ranges of ports begin that the rules of a pod tell apart.
    fn starts(&self, own: &ObjectName, ingress: bool, far: Far<'_>, ports: &mut BTreeSet<Port>) {
        ports.extend(Protocol::ALL.map(|protocol| Some((protocol, 1))));
        ports.extend(self.asked.iter().map(|(.., port)| *port));
        for quick in [self.before, self.after] {
            let Some(pod) = quick.pod(own) else { continue };
            let named_on = match far {
                _ if ingress => Some(pod),
                Far::Pod(name) => quick.pod(name),
                Far::Outside(_) => None,
            };
            let mut add = |protocol, first: u16, last: u16| {
                ports.insert(Some((protocol, first)));
                ports.extend(last.checked_add(1).map(|next| Some((protocol, next))));
            };
            for (_, rules) in quick.isolating(pod, ingress) {
                for port in rules.iter().flat_map(|rule| rule.ports.iter().flatten()) {
                    match port {
                        PortMatch::Range { protocol, first, last } => add(*protocol, *first, *last),
                        PortMatch::Named(protocol, name) => {
                            let own = named_on.into_iter().flat_map(|pod| &pod.ports);
                            own.filter(|port| port.protocol == *protocol && port.name == *name)
                                .for_each(|port| add(*protocol, port.number, port.number));
                        }
                        PortMatch::All(_) | PortMatch::Nothing => {}
                    }
                }
            }
        }
    }

    fn sides_differ(&self, own: &ObjectName, ingress: bool, far: Far<'_>, port: Port) -> bool {
        let side = |quick: &Quick<'_>| -> Vec<bool> {
            let Some(pod) = quick.pod(own) else { return Vec::new() };
            others(quick, far).into_iter().map(|other| quick.side(pod, ingress, other, port) != Some(false)).collect()
        };
        side(self.before) != side(self.after)
    }
}

impl Effect {
    fn count(&mut self, opens: bool, pair: &(String, String), ports: &[Port]) {
        let Some(first) = ports.first() else { return };
        let (count, list) =
            if opens { (&mut self.opens, &mut self.opened) } else { (&mut self.closes, &mut self.closed) };
        *count += 1;
        if list.len() < EXAMPLES {
            let port =
                first.map_or_else(|| "without ports".to_owned(), |(protocol, port)| format!("{protocol}/{port}"));
            let more = if ports.len() > 1 { " and other ports" } else { "" };
            list.push(format!("{} -> {} {port}{more}", pair.0, pair.1));
        }
    }
}

/// An end with each of its addresses.
fn others<'b>(quick: &'b Quick<'_>, far: Far<'_>) -> Vec<Other<'b>> {
    match far {
        Far::Pod(name) => quick
            .pod(name)
            .map(|pod| pod.addresses.iter().map(|address| Other { pod: Some(pod), address: *address }).collect())
            .unwrap_or_default(),
        Far::Outside(address) => vec![Other { pod: None, address }],
    }
}

/// Whether a connection passes both sides.
fn passes(quick: &Quick<'_>, own: &ObjectName, ingress: bool, far: Far<'_>, port: Port) -> bool {
    let Some(pod) = quick.pod(own) else { return true };
    match far {
        Far::Pod(name) => {
            let Some(other) = quick.pod(name) else { return true };
            if ingress { quick.passes(other, pod, port) } else { quick.passes(pod, other, port) }
        }
        Far::Outside(address) => quick.side(pod, ingress, Other { pod: None, address }, port) != Some(false),
    }
}
