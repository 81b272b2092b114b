//! Carries changes out at the kernel: tables in the compiler's order, an entry for every interface, programs attached
//! and detached. What the kernel refuses is tried again, and whom it concerns is closed until it succeeds.
//!
//! Two inputs meet here, steps of the compiler and links of the node; each ends in [`Applier::refresh`] for the
//! interfaces that it touches, which compares what is written with what should be.

mod carry;
mod interface;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use enforcer::Upkeep;
use enforcer_abi::{PodEntry, PodFlags};
use policy_compiler::{PodTables, Step, model::ObjectName};
use rustc_hash::FxHashMap;

use self::interface::Interface;
use super::{
    datapath::{Datapath, Fault},
    failures::{Concern, Failures},
    frees::Frees,
    queue::Queue,
    view::Condition,
};
use crate::bind::{Binder, Link, Outcome};

/// The first and the longest pause before what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// See the module's text.
#[derive(Debug)]
pub(super) struct Applier<D> {
    pub(super) datapath: D,
    pub(super) binder: Binder,
    /// What the compiler says of this node's pods, by UID.
    tables: FxHashMap<Arc<str>, PodTables>,
    interfaces: BTreeMap<u32, Interface>,
    /// A CNI plugin can't do its work where the programs are already.
    pub(super) plugins_need_ingress: bool,
    /// Interfaces that aren't attached yet, for the sake of such plugins.
    waiting: BTreeSet<u32>,
    queue: Queue,
    /// Whether maps are growing.
    upkeep: Upkeep,
    frees: Frees,
    failures: Failures,
    concern: Concern,
    retry: Option<(Instant, Duration)>,
    pub(super) epoch: u64,
    /// The last failure in words, and how many there were.
    pub(super) last_fault: Option<Fault>,
    pub(super) faults: u64,
}

impl<D: Datapath> Applier<D> {
    /// Takes over what an earlier agent left: entries, and interfaces that run the programs.
    pub(super) fn new(datapath: D, mut binder: Binder, pinned: Vec<PodEntry>, attached: &[u32], now: Instant) -> Self {
        let mut interfaces = BTreeMap::<u32, Interface>::new();
        for index in attached {
            interfaces.entry(*index).or_default().was_attached = true;
        }
        for entry in pinned {
            let interface = interfaces.entry(entry.ifindex).or_default();
            interface.midstream_until = entry.midstream_until;
            // an entry without a program says nothing about who is behind the interface now
            if interface.was_attached && entry.flags & PodFlags::HELD == 0 {
                let addresses = [entry.v4, entry.v6].into_iter().filter(|a| *a != enforcer_abi::Address::NONE);
                binder.adopt(entry.ifindex, addresses.map(Into::into).collect(), now);
            }
            interface.written = Some(PodEntry { slot: 0, ..entry });
        }
        Self {
            datapath,
            binder,
            tables: FxHashMap::default(),
            interfaces,
            plugins_need_ingress: false,
            waiting: BTreeSet::new(),
            queue: Queue::default(),
            upkeep: Upkeep::Done,
            frees: Frees::default(),
            failures: Failures::default(),
            concern: Concern::default(),
            retry: None,
            epoch: 0,
            last_fault: None,
            faults: 0,
        }
    }

    /// Segments of connections that are older than Sluice may go on at these interfaces until then.
    pub(super) fn allow_midstream(&mut self, interfaces: impl IntoIterator<Item = u32>, until: u64) {
        for index in interfaces {
            let interface = self.interfaces.entry(index).or_default();
            if !interface.was_attached {
                interface.midstream_until = until;
            }
        }
    }

    /// What an earlier agent left of interfaces that had these indexes before is gone.
    pub(super) fn forget_former(&mut self, indexes: &[u32]) {
        self.interfaces.retain(|index, _| !indexes.contains(index));
    }

    /// The pods whose interfaces had no program until this agent came, by name.
    pub(super) fn unenforced_before(&self) -> Vec<String> {
        let enforced = |index| self.interfaces.get(&index).is_none_or(|interface| interface.was_attached);
        let bound = |pod: &&PodTables| self.binder.interface_of(&pod.uid).is_some_and(|index| !enforced(index));
        let mut pods: Vec<_> = self.tables.values().filter(bound).map(|pod| pod.name.to_string()).collect();
        pods.sort_unstable();
        pods
    }

    /// All veths that there are; those in `changed` are looked at again.
    pub(super) fn set_links(&mut self, links: Vec<Link>, changed: &BTreeSet<u32>, now: Instant) {
        let outcome = self.binder.set_links(links, now);
        for index in changed {
            if let Some(interface) = self.interfaces.get_mut(index) {
                // its place among other programs is looked at again
                interface.was_attached |= interface.attachment.take().is_some();
            }
        }
        let wait = self.binder.set_up(now).filter(|_| self.plugins_need_ingress).collect();
        let waited = std::mem::replace(&mut self.waiting, wait);
        self.follow(outcome, changed.iter().copied().chain(waited));
        self.plan_retry(now);
    }

    /// A veth is new; [`Self::set_links`] will tell what is behind it.
    pub(super) fn announce(&mut self, link: Link, now: Instant) {
        let index = link.index;
        let outcome = self.binder.announce(link, now);
        if self.plugins_need_ingress {
            self.waiting.insert(index);
        }
        self.follow(outcome, None);
        self.plan_retry(now);
    }

    /// The CNI plugin has named the pod of an interface.
    pub(super) fn call(&mut self, index: u32, uid: &Arc<str>, name: &ObjectName, now: Instant) {
        let outcome = self.binder.call(index, uid, name, now);
        // the one that has called comes after all that has to come before the programs
        self.waiting.remove(&index);
        self.follow(outcome, [index]);
    }

    /// The processes behind an interface that is held are no pod's.
    pub(super) fn let_go(&mut self, index: u32) {
        let outcome = self.binder.release(index);
        self.follow(outcome, None);
    }

    /// Compares everything that is written with what should be: to be called once pods and links have been told for the
    /// first time, because nothing else touches what an earlier agent left and nobody needs any more.
    pub(super) fn refresh_all(&mut self, now: Instant) {
        for index in self.interfaces.keys().copied().collect::<Vec<_>>() {
            self.refresh(index);
        }
        self.plan_retry(now);
    }

    /// Time has passed: enqueues the removals that are due, tries again what failed.
    pub(super) fn tick(&mut self, now: Instant) {
        // removals have time, and what is enqueued may put back what one of them would remove after it
        let due = if self.is_busy() { Vec::new() } else { self.frees.take(now) };
        if !due.is_empty() {
            match self.datapath.wait_for_readers() {
                Ok(()) => {
                    self.failures.overtaken_by(&due);
                    self.enqueue(vec![Step::Write(due)], None);
                }
                Err(fault) => {
                    self.note(&fault, "wait for packets that still read what is to be freed");
                    self.frees.later(due, now);
                }
            }
        }
        if let Some((at, pause)) = self.retry
            && at <= now
        {
            self.retry = None;
            let before = self.closed();
            let ops = self.failures.take();
            self.write(&ops);
            let faulty: Vec<_> =
                self.interfaces.iter().filter(|(_, i)| i.has_fault()).map(|(index, _)| *index).collect();
            for index in faulty {
                self.refresh(index);
            }
            self.close_and_open(&before, now);
            let pause = (pause * 2).min(RETRY.1);
            self.retry = self.retry.map(|_| (now + pause, pause));
        }
        self.settle(now);
    }

    /// Binds what can be bound by now.
    pub(super) fn settle(&mut self, now: Instant) {
        let outcome = self.binder.tick(now);
        self.follow(outcome, None);
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let frees = if self.is_busy() { None } else { self.frees.next() };
        frees.into_iter().chain(self.retry.map(|(at, _)| at)).min()
    }

    /// All flows that there are, whosever, are judged again.
    pub(super) fn raise_every_epoch(&mut self) {
        let interfaces: Vec<u32> = self.interfaces.keys().copied().collect();
        self.raise_epoch(&interfaces);
    }

    /// All flows of these pods are judged again.
    fn raise_epoch_of(&mut self, uids: &[Arc<str>]) {
        // one without an interface has no flows
        let interfaces: Vec<u32> = uids.iter().filter_map(|uid| self.binder.interface_of(uid)).collect();
        self.raise_epoch(&interfaces);
    }

    fn raise_epoch(&mut self, interfaces: &[u32]) {
        if interfaces.is_empty() {
            return;
        }
        match self.datapath.raise_epoch(interfaces) {
            Ok(epoch) => self.epoch = epoch,
            Err(fault) => self.note(&fault, "raise the epoch"),
        }
    }

    /// Closes whom a failure concerns, opens whom it no longer concerns. `before` is who was closed.
    fn close_and_open(&mut self, before: &BTreeMap<u32, String>, now: Instant) {
        self.concern = self.failures.concern();
        if !before.is_empty() || !self.failures.is_empty() {
            for index in self.interfaces.keys().copied().collect::<Vec<_>>() {
                self.refresh(index);
            }
            let after = self.closed();
            let closed: Vec<u32> = after.keys().filter(|index| !before.contains_key(index)).copied().collect();
            for index in &closed {
                tracing::error!("{} is closed until its policies can be programmed", after[index]);
            }
            for (_, pod) in before.iter().filter(|(index, _)| !after.contains_key(index)) {
                tracing::info!("{pod} is no longer closed");
            }
            // what is established is judged by what can't be told any more
            self.raise_epoch(&closed);
        }
        self.plan_retry(now);
    }

    fn plan_retry(&mut self, now: Instant) {
        let failing = !self.failures.is_empty() || self.interfaces.values().any(Interface::has_fault);
        if failing && self.retry.is_none() {
            self.retry = Some((now + RETRY.0, RETRY.0));
        }
    }

    /// Brings the kernel up to what the binder has decided.
    fn follow(&mut self, outcome: Outcome, also: impl IntoIterator<Item = u32>) {
        let Outcome { assigned, gone, reports, settled } = outcome;
        let mut indices: Vec<u32> = assigned.into_iter().map(|(index, _)| index).chain(gone).chain(also).collect();
        indices.sort_unstable();
        indices.dedup();
        for index in indices {
            self.refresh(index);
        }
        for report in reports {
            tracing::warn!("{report}");
        }
        for report in settled {
            tracing::info!("no longer: {report}");
        }
    }

    /// The pods that are closed: their names by their interfaces.
    pub(super) fn closed(&self) -> BTreeMap<u32, String> {
        const CLOSED: u32 = PodFlags::INGRESS_CLOSED | PodFlags::EGRESS_CLOSED;
        let closed = |pod: &PodTables| {
            let index = self.binder.interface_of(&pod.uid)?;
            let written = self.interfaces.get(&index)?.written?;
            (written.flags & CLOSED != 0).then(|| (index, pod.name.to_string()))
        };
        self.tables.values().filter_map(closed).collect()
    }

    /// How a pod is.
    pub(super) fn condition(&self, uid: &str) -> Condition {
        let Some(index) = self.binder.interface_of(uid) else {
            return if self.binder.is_overdue(uid) { Condition::Unenforceable } else { Condition::Held };
        };
        let Some(interface) = self.interfaces.get(&index) else { return Condition::Held };
        match &interface.written {
            _ if interface.attachment.is_none() || interface.write_fault.is_some() => Condition::Unenforceable,
            Some(entry) if entry.flags & PodFlags::HELD != 0 => Condition::Held,
            Some(entry) if entry.flags & (PodFlags::INGRESS_CLOSED | PodFlags::EGRESS_CLOSED) != 0 => Condition::Closed,
            Some(_) => Condition::Enforced,
            None => Condition::Held,
        }
    }

    /// The last failure, while something is still to be tried again.
    pub(super) fn standing_fault(&self) -> Option<&Fault> {
        self.retry.and(self.last_fault.as_ref())
    }

    /// What the compiler says of this node's pods, by UID.
    pub(super) fn pods(&self) -> impl Iterator<Item = &PodTables> {
        self.tables.values()
    }

    /// Why an interface can't be programmed.
    pub(super) fn fault(&self, index: u32) -> Option<&Fault> {
        let interface = self.interfaces.get(&index)?;
        interface.attach_fault.as_ref().or(interface.write_fault.as_ref())
    }

    fn note(&mut self, fault: &Fault, action: &str) {
        self.faults += 1;
        if self.last_fault.as_ref() != Some(fault) {
            tracing::error!("could not {action}: {fault}");
        }
        self.last_fault = Some(fault.clone());
    }
}
