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
mod link;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use policy_compiler::model::ObjectName;

pub use inhabitants::Inhabited;
pub(crate) use inhabitants::LONGEST_SET_UP;
pub use link::{Exclusions, Link, Untouched};

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

/// What an administrator should know. Told once, until it is no longer so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Report {
    /// Held for longer than [`PATIENCE`], because no pod of this node has an address behind it.
    Unknown {
        /// The interface's name.
        interface: String,
        /// What the kernel shows behind it.
        addresses: Vec<IpAddr>,
    },
    /// It shows the address of a pod that is bound to another interface, and is held.
    SecondClaim {
        /// The interface's name.
        interface: String,
        /// The pod.
        pod: ObjectName,
        /// The pod's interface.
        bound: String,
    },
    /// It shows the address of a pod that it didn't show at first, and is held.
    Late {
        /// The interface's name.
        interface: String,
        /// The pod.
        pod: ObjectName,
    },
    /// It shows addresses of several pods, and is held.
    Ambiguous {
        /// The interface's name.
        interface: String,
        /// Some of the pods.
        pods: Vec<ObjectName>,
    },
    /// The CNI plugin made it for a pod of which the source has told nothing for longer than [`PATIENCE`].
    Awaited {
        /// The interface's name.
        interface: String,
        /// The pod.
        pod: ObjectName,
    },
    /// Another interface of a pod's namespace, which is not enforced.
    Secondary {
        /// The interface's name.
        interface: String,
        /// The pod.
        pod: ObjectName,
        /// The pod's interface.
        bound: String,
    },
    /// No veth of this node has shown the pod's address for longer than [`PATIENCE`], so its packets can't be seen.
    NoInterface {
        /// The pod.
        pod: ObjectName,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { interface, addresses } => {
                let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                let shown = if shown.is_empty() { "nothing".into() } else { shown.join(", ") };
                write!(
                    f,
                    "interface {interface} is held: it shows {shown}, which is no address of a pod of this node; if it is \
                     no pod's, give the agent --exclude-interface {interface}"
                )
            }
            Self::SecondClaim { interface, pod, bound } => {
                write!(f, "interface {interface} is held: it shows an address of {pod}, whose interface is {bound}")
            }
            Self::Late { interface, pod } => {
                write!(
                    f,
                    "interface {interface} is held: it shows an address of {pod}, which a process behind it may have \
                     added, and no process of {pod} is seen there"
                )
            }
            Self::Ambiguous { interface, pods } => {
                let pods: Vec<_> = pods.iter().map(ToString::to_string).collect();
                write!(f, "interface {interface} is held: it shows addresses of several pods: {}", pods.join(", "))
            }
            Self::Awaited { interface, pod } => {
                write!(f, "interface {interface} is held: it was made for {pod}, which is not known on this node")
            }
            Self::Secondary { interface, pod, bound } => {
                write!(
                    f,
                    "interface {interface} is not enforced: it is another one of {pod}, whose interface is {bound}"
                )
            }
            Self::NoInterface { pod } => {
                write!(f, "{pod} can't be enforced: no veth of this node shows its address")
            }
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

    /// Binds what can be bound, and finds what is to be reported.
    fn settle(&mut self, now: Instant, outcome: &mut Outcome) {
        let mut reports = BTreeSet::new();
        for (index, interface) in &mut self.interfaces {
            if matches!(&interface.assignment, Assignment::Secondary(uid) if !self.pods.contains_key(uid)) {
                (interface.assignment, interface.since) = (Assignment::Held, now);
                outcome.assigned.push((*index, Assignment::Held));
            }
        }
        // whose owner is known by name goes first, then what an earlier agent had bound, then the oldest
        let mut held: Vec<_> = self
            .interfaces
            .iter()
            .filter(|(_, interface)| interface.assignment == Assignment::Held)
            .map(|(index, interface)| (!self.calls.contains_key(index), interface.adopted.is_empty(), *index))
            .collect();
        held.sort_unstable();
        for (_, _, index) in held {
            let Some(interface) = self.interfaces.get(&index) else { continue };
            match self.judge(interface, now) {
                Judgement::Nothing => continue,
                Judgement::Report(report) => {
                    reports.insert(report);
                    continue;
                }
                Judgement::Assign(assignment) => {
                    if let Assignment::Pod(uid) = &assignment
                        && let Some(pod) = self.pods.get_mut(uid)
                    {
                        pod.interface = Some(index);
                    }
                    outcome.assigned.push((index, assignment.clone()));
                    if let Some(interface) = self.interfaces.get_mut(&index) {
                        interface.assignment = assignment;
                    }
                }
            }
        }
        self.report_settled(now, &mut reports);
        outcome.reports.extend(reports.difference(&self.told).cloned());
        outcome.settled.extend(self.told.difference(&reports).cloned());
        self.told = reports;
    }

    /// What is to be known of interfaces that are not held, and of pods.
    fn report_settled(&self, now: Instant, reports: &mut BTreeSet<Report>) {
        for interface in self.interfaces.values() {
            if let Assignment::Secondary(uid) = &interface.assignment
                && let Some(pod) = self.pods.get(uid)
            {
                reports.insert(Report::Secondary {
                    interface: interface.link.name.clone(),
                    pod: pod.name.clone(),
                    bound: self.name_of(pod.interface),
                });
            }
        }
        for pod in self.pods.values() {
            if pod.interface.is_none() && now.duration_since(pod.since) >= PATIENCE {
                reports.insert(Report::NoInterface { pod: pod.name.clone() });
            }
        }
    }

    /// What to do with an interface that is held.
    fn judge(&self, interface: &Interface, now: Instant) -> Judgement {
        let link = &interface.link;
        if let Some(called) = self.calls.get(&link.index) {
            return if self.pods.get(&called.uid).is_some_and(|pod| pod.interface.is_none()) {
                Judgement::Assign(Assignment::Pod(Arc::clone(&called.uid)))
            } else if now.duration_since(interface.since) >= PATIENCE {
                Judgement::Report(Report::Awaited { interface: link.name.clone(), pod: called.name.clone() })
            } else {
                Judgement::Nothing
            };
        }
        let same_namespace = |pod: &&(&Arc<str>, &Pod)| {
            pod.1
                .interface
                .and_then(|bound| self.interfaces.get(&bound))
                .is_some_and(|bound| link.namespace.is_some() && bound.link.namespace == link.namespace)
        };
        let bound: Vec<_> = self.pods.iter().filter(|(_, pod)| pod.interface.is_some()).collect();
        if let Some((uid, _)) = bound.iter().find(same_namespace) {
            return Judgement::Assign(Assignment::Secondary(Arc::clone(uid)));
        }
        let adopted = self.pods.values().any(|pod| pod.has(&interface.adopted));
        let shown = if adopted { &interface.adopted } else { &link.addresses };
        if let Some((_, pod)) = bound.iter().find(|(_, pod)| pod.has(shown)) {
            return Judgement::Report(Report::SecondClaim {
                interface: link.name.clone(),
                pod: pod.name.clone(),
                bound: self.name_of(pod.interface),
            });
        }
        let is_elsewhere = |uid: &Arc<str>| self.calls.values().any(|called| called.uid == *uid);
        // what processes tell of the pod goes before what they may have written
        let is_free = |uid: &Arc<str>, pod: &Pod| {
            pod.interface.is_none() && !self.lost.contains(uid) && !is_elsewhere(uid) && !link.is_of_another(uid)
        };
        let is_shown = |uid: &str, pod: &Pod| if adopted { pod.has(shown) } else { interface.is_shown(uid, pod) };
        let candidates: Vec<_> =
            self.pods.iter().filter(|(uid, pod)| is_free(uid, pod) && is_shown(uid, pod)).collect();
        let late = || self.pods.iter().find(|(uid, pod)| is_free(uid, pod) && pod.has(shown));
        match candidates.as_slice() {
            [(uid, _)] => Judgement::Assign(Assignment::Pod(Arc::clone(uid))),
            [] if now.duration_since(interface.since) >= PATIENCE => Judgement::Report(match late() {
                Some((_, pod)) => Report::Late { interface: link.name.clone(), pod: pod.name.clone() },
                None => Report::Unknown { interface: link.name.clone(), addresses: link.addresses.clone() },
            }),
            [] => Judgement::Nothing,
            several => Judgement::Report(Report::Ambiguous {
                interface: link.name.clone(),
                pods: several.iter().take(2).map(|(_, pod)| pod.name.clone()).collect(),
            }),
        }
    }

    fn name_of(&self, index: Option<u32>) -> String {
        index.and_then(|index| self.interfaces.get(&index)).map(|i| i.link.name.clone()).unwrap_or_default()
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

    /// Whether it shows an address of this pod that may be believed: what was there first, or what a process of this pod
    /// has put there, by whatever address.
    fn is_shown(&self, uid: &str, pod: &Pod) -> bool {
        pod.has(&self.first) || (self.link.has_process_of(uid) && pod.has(&self.link.addresses))
    }
}

impl Pod {
    fn has(&self, shown: &[IpAddr]) -> bool {
        self.addresses.iter().any(|address| shown.contains(address))
    }
}

enum Judgement {
    Nothing,
    Assign(Assignment),
    Report(Report),
}
