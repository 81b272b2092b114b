//! Which interface is which pod: a [`Binder`] holds what the kernel shows and what the source says of this node's pods,
//! and decides. Pure: no clock, no system calls.
//!
//! What the kernel shows behind a veth only proposes, because a pod may write that list (DESIGN section 5). Therefore:
//! an address counts that was there before any process of a pod was, and none that has come later, unless a process of
//! that very pod is there; where no processes are seen, those count that were seen first. Only a veth that is not bound
//! yet can be bound; a bound one stays bound while it and its pod are there, whatever it shows later; and a second veth
//! that shows the address of a bound pod takes nothing over.
//!
//! What the CNI plugin tells ([`Binder::call`]) is no proposal: the runtime made the veth for that pod. It is the pod with
//! this UID whatever the veth shows and whom it was taken for before, and that pod is behind no other one.
//!
//! Nor is the control group of the first process behind a veth ([`Binder::inhabited`]): the runtime started it, before
//! any of the pod's own could have changed what is shown.

mod inhabitants;
mod judge;
mod link;
mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use policy_compiler::model::ObjectName;

pub use inhabitants::Inhabited;
pub(crate) use inhabitants::LONGEST_SET_UP;
pub use link::{Exclusions, Link, Untouched};
pub use report::Report;

/// How long an interface may be held, or a pod be without one, before it is reported.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The interfaces and pods of this node.
#[derive(Debug, Default)]
pub struct Binder {
    exclusions: Exclusions,
    interfaces: BTreeMap<u32, Interface>,
    pods: BTreeMap<Arc<str>, Pod>,
    /// Whose an interface is by the CNI plugin's word.
    calls: BTreeMap<u32, Called>,
    /// Pods whose interface went with the links that are being taken in.
    lost: BTreeSet<Arc<str>>,
    told: BTreeSet<Report>,
}

/// A veth.
#[derive(Debug)]
struct Interface {
    link: Link,
    /// The addresses that an earlier agent had bound it by.
    adopted: Vec<IpAddr>,
    /// The addresses that it showed first, unless a process of a pod was seen behind it before.
    first: Vec<IpAddr>,
    /// The addresses that it showed last before any process of a pod was behind it: those that the CNI plugins gave.
    given: Vec<IpAddr>,
    /// Whether one was. Namespaces without a pause container are empty again from time to time, and show what was written.
    was_inhabited: bool,
    since: Instant,
    assignment: Assignment,
}

/// A pod of this node that has an address.
#[derive(Debug)]
struct Pod {
    name: ObjectName,
    addresses: Vec<IpAddr>,
    since: Instant,
    interface: Option<u32>,
}

/// A pod that the CNI plugin named.
#[derive(Debug)]
struct Called {
    uid: Arc<str>,
    name: ObjectName,
}

/// What an interface is taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// Not a pod's, as far as can be told without looking behind it: not attached.
    Untouched(Untouched),
    /// Attached; nothing but the node's own traffic passes.
    Held,
    /// Attached; the pod with this UID.
    Pod(Arc<str>),
    /// Known to be another interface of a pod that is bound already: detached and left alone.
    Secondary(Arc<str>),
}

impl Assignment {
    /// The pod behind the interface.
    #[must_use]
    pub const fn pod(&self) -> Option<&Arc<str>> {
        match self {
            Self::Pod(uid) => Some(uid),
            Self::Untouched(_) | Self::Held | Self::Secondary(_) => None,
        }
    }
}

/// What an input has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Interfaces with what they are taken for now, in the order in which to carry it out.
    pub assigned: Vec<(u32, Assignment)>,
    /// Interfaces that are no longer there.
    pub gone: Vec<u32>,
    /// What was not told before.
    pub reports: Vec<Report>,
    /// What was told before and is no longer so.
    pub settled: Vec<Report>,
}

impl Binder {
    /// Knows of nothing yet.
    #[must_use]
    pub fn new(exclusions: Exclusions) -> Self {
        Self { exclusions, ..Self::default() }
    }

    /// Takes over what an earlier agent had bound: the interface `index` is of the pod that has one of `addresses`,
    /// whatever else it may show by now.
    pub fn adopt(&mut self, index: u32, addresses: Vec<IpAddr>, now: Instant) {
        let link = Link { index, ..Link::default() };
        // what it shows by now is no longer what it showed first
        let first = addresses.clone();
        self.interfaces.insert(index, Interface { adopted: addresses, first, ..Interface::new(link, now) });
    }

    /// The node's addresses as the cluster knows them have changed; it matters from the next links on.
    pub fn set_node_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.exclusions.node_addresses = addresses;
    }

    /// The CNI plugin made the interface `index` for this pod, which may come to be known later. An interface that was
    /// taken for another pod's is this one's now, and the pod is no longer behind any other.
    pub fn call(&mut self, index: u32, uid: &Arc<str>, name: &ObjectName, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        self.calls.retain(|_, called| called.uid != *uid);
        self.calls.insert(index, Called { uid: Arc::clone(uid), name: name.clone() });
        let mut freed = Vec::new();
        for (other, pod) in &mut self.pods {
            match pod.interface {
                Some(bound) if (other == uid) != (bound == index) => {
                    (pod.interface, pod.since) = (None, now);
                    freed.push(bound);
                }
                _ => {}
            }
        }
        // neither is known better than by who made it
        if matches!(self.assignment(index), Some(Assignment::Secondary(_) | Assignment::Untouched(Untouched::NoPod))) {
            freed.push(index);
        }
        self.free(freed, now, &mut outcome);
        self.settle(now, &mut outcome);
        outcome
    }

    /// The interface is no longer a pod's by the CNI plugin's word: the pod goes, and its interface will.
    pub fn hang_up(&mut self, index: u32) {
        self.calls.remove(&index);
    }

    /// Whether the CNI plugin has named a pod for the interface.
    #[must_use]
    pub fn is_called(&self, index: u32) -> bool {
        self.calls.contains_key(&index)
    }

    /// All veths that there are now. A pod whose interface has gone gets no other one before the next input, because its
    /// address was its own by that interface, and may be another pod's now.
    pub fn set_links(&mut self, links: Vec<Link>, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let present: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        for index in self.interfaces.keys().copied().filter(|index| !present.contains(index)).collect::<Vec<_>>() {
            self.interfaces.remove(&index);
            outcome.gone.push(index);
            for (uid, pod) in self.pods.iter_mut().filter(|(_, pod)| pod.interface == Some(index)) {
                (pod.interface, pod.since) = (None, now);
                self.lost.insert(Arc::clone(uid));
            }
        }
        self.calls.retain(|index, _| present.contains(index));
        for link in links {
            self.set_link(link, now, &mut outcome);
        }
        self.settle(now, &mut outcome);
        self.lost.clear();
        outcome
    }

    /// Whether a veth was not there before, or only with both of its ends.
    #[must_use]
    pub fn is_newcomer(&self, index: u32) -> bool {
        matches!(self.assignment(index), None | Some(Assignment::Untouched(Untouched::BothEndsHere)))
    }

    /// A newcomer, of which nothing is known yet but that it is there: it is taken for one behind which no process is.
    pub fn announce(&mut self, link: Link, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        self.set_link(link, now, &mut outcome);
        outcome
    }

    /// Pods of this node that came, changed or went, in one batch. A pod without an address has gone.
    pub fn set_pods<'a>(
        &mut self,
        changes: impl IntoIterator<Item = (Arc<str>, Option<(&'a ObjectName, &'a [IpAddr])>)>,
        now: Instant,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut freed = Vec::new();
        for (uid, pod) in changes {
            let before = self.pods.remove(&uid);
            let Some((name, addresses)) = pod.filter(|(_, addresses)| !addresses.is_empty()) else {
                freed.extend(before.and_then(|pod| pod.interface));
                continue;
            };
            let mut pod = Pod { name: name.clone(), addresses: addresses.to_vec(), since: now, interface: None };
            if let Some(before) = before {
                let is_called = |index| self.calls.get(&index).is_some_and(|called| called.uid == uid);
                if before.addresses.iter().any(|address| addresses.contains(address))
                    || before.interface.is_some_and(is_called)
                {
                    (pod.interface, pod.since) = (before.interface, before.since);
                } else {
                    // the name came back with another address: another pod, behind another interface
                    freed.extend(before.interface);
                }
            }
            self.pods.insert(uid, pod);
        }
        self.free(freed, now, &mut outcome);
        self.settle(now, &mut outcome);
        outcome
    }

    /// Holds interfaces whose pods are no longer behind them.
    fn free(&mut self, freed: Vec<u32>, now: Instant, outcome: &mut Outcome) {
        for index in freed {
            if let Some(interface) = self.interfaces.get_mut(&index) {
                (interface.assignment, interface.since) = (Assignment::Held, now);
                interface.adopted.clear();
                outcome.assigned.push((index, Assignment::Held));
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        self.settle(now, &mut outcome);
        outcome
    }

    /// Whether anything has been waiting for less than [`PATIENCE`] for the kernel to show an address.
    #[must_use]
    pub fn waits(&self, now: Instant) -> bool {
        let waits = |since| now.duration_since(since) < PATIENCE;
        self.interfaces.values().any(|i| i.assignment == Assignment::Held && waits(i.since))
            || self.pods.values().any(|pod| pod.interface.is_none() && waits(pod.since))
    }

    /// What the interface is taken for.
    #[must_use]
    pub fn assignment(&self, index: u32) -> Option<&Assignment> {
        self.interfaces.get(&index).map(|interface| &interface.assignment)
    }

    /// All interfaces with their names.
    pub fn interfaces(&self) -> impl Iterator<Item = (&Link, &Assignment)> {
        self.interfaces.values().map(|interface| (&interface.link, &interface.assignment))
    }

    /// The pod's interface.
    #[must_use]
    pub fn interface_of(&self, uid: &str) -> Option<u32> {
        self.pods.get(uid)?.interface
    }

    /// The name of another interface that the pod is bound to, and that leads to the same namespace as this one.
    #[must_use]
    pub fn primary_beside(&self, index: u32, uid: &str) -> Option<&str> {
        let (bound, this) = (self.interface_of(uid)?, self.interfaces.get(&index)?);
        let bound = self.interfaces.get(&bound).filter(|bound| bound.link.index != index)?;
        let is_beside = this.link.namespace.is_some() && bound.link.namespace == this.link.namespace;
        is_beside.then_some(&bound.link.name)
    }

    /// The pods that are behind an interface, by UID.
    pub fn bound(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pods.iter().filter(|(_, pod)| pod.interface.is_some()).map(|(uid, _)| uid)
    }

    /// Whether the pod has been without an interface for longer than [`PATIENCE`].
    #[must_use]
    pub fn is_overdue(&self, uid: &str) -> bool {
        let report = self.pods.get(uid).map(|pod| Report::NoInterface { pod: pod.name.clone() });
        report.is_some_and(|report| self.told.contains(&report))
    }

    /// Whether no process is in the namespace behind the interface yet.
    #[must_use]
    pub fn is_empty_namespace(&self, index: u32) -> bool {
        self.interfaces.get(&index).is_some_and(|interface| interface.link.is_empty())
    }

    /// What holds now and should be known.
    #[must_use]
    pub fn reports(&self) -> &BTreeSet<Report> {
        &self.told
    }

    fn set_link(&mut self, link: Link, now: Instant, outcome: &mut Outcome) {
        let untouched = self.exclusions.untouched(&link);
        let Some(interface) = self.interfaces.get_mut(&link.index) else {
            let assignment = untouched.map_or(Assignment::Held, Assignment::Untouched);
            outcome.assigned.push((link.index, assignment.clone()));
            let mut interface = Interface { assignment, ..Interface::new(link, now) };
            interface.note_addresses();
            self.interfaces.insert(interface.link.index, interface);
            return;
        };
        let was_empty = interface.link.is_empty();
        interface.link = link;
        interface.note_addresses();
        if was_empty != interface.link.is_empty() && interface.assignment == Assignment::Held {
            outcome.assigned.push((interface.link.index, Assignment::Held));
        }
        let is_claimed = |interface: &Interface| self.pods.iter().any(|(uid, pod)| interface.is_shown(uid, pod));
        let assignment = match (&interface.assignment, untouched) {
            (Assignment::Untouched(Untouched::NoPod), None)
                if interface.link.is_no_pods() && !is_claimed(interface) =>
            {
                return;
            }
            (Assignment::Untouched(_), None) => {
                interface.since = now;
                Assignment::Held
            }
            // only the node itself can make a link so; a bound one stays bound all the same
            (Assignment::Untouched(_) | Assignment::Held, Some(reason)) => Assignment::Untouched(reason),
            _ => return,
        };
        if assignment != interface.assignment {
            outcome.assigned.push((interface.link.index, assignment.clone()));
            interface.assignment = assignment;
        }
    }
}

impl Interface {
    fn new(link: Link, now: Instant) -> Self {
        Self {
            link,
            adopted: Vec::new(),
            first: Vec::new(),
            given: Vec::new(),
            was_inhabited: false,
            since: now,
            assignment: Assignment::Held,
        }
    }

    /// Keeps what no process can have changed of the addresses that are shown now.
    fn note_addresses(&mut self) {
        self.was_inhabited |= self.link.has_pods();
        if self.was_inhabited {
            return;
        }
        if self.first.is_empty() {
            self.first.clone_from(&self.link.addresses);
        }
        if self.link.is_empty() {
            self.given.clone_from(&self.link.addresses);
        }
    }

    /// Whether it shows an address of this pod that may be believed: one that was there first, or one that is there
    /// together with a process of this pod.
    fn is_shown(&self, uid: &str, pod: &Pod) -> bool {
        pod.has(&self.first) || (self.link.has_process_of(uid) && pod.has(&self.link.addresses))
    }
}

impl Pod {
    fn has(&self, shown: &[IpAddr]) -> bool {
        self.addresses.iter().any(|address| shown.contains(address))
    }
}
