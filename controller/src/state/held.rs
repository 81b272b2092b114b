//! What becomes of interfaces that are held once processes are behind them: [`Holds`] knows since when they are, and so how
//! long a pod has waited, or that it is none.

use std::{collections::BTreeMap, time::Duration};

use super::{Condition, Datapath, State};
use crate::{
    bind::{Assignment, Link},
    inhabited::{self, Who},
};

/// How long a process that is no pod's must have been behind an interface to tell that the interface isn't either. CNI
/// plugins, runtimes and whoever looks at connections enter a pod's namespace, too, some with processes that are as old as
/// the node, but leave it or become its first process.
const STRANGER: Duration = Duration::from_secs(5);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// When the first process behind an interface was started, since the boot, where its pod isn't enforced yet.
    started: BTreeMap<u32, Duration>,
    /// Whether the process of any pod was seen: else nothing follows from one that is no pod's.
    sees_pods: bool,
    /// Interfaces behind which processes of no pod have been at every look.
    pub(super) strangers: BTreeMap<u32, Stranger>,
    has_looked: bool,
}

/// The oldest process of no pod behind an interface.
#[derive(Debug)]
pub(super) struct Stranger {
    /// When it was started, since the boot.
    started: Duration,
    /// When it was first seen there, since the boot; zero at the first look of all, before which it may have been there
    /// for long.
    pub(super) seen: Duration,
}

impl<D: Datapath> State<D> {
    /// Remembers who is behind interfaces that have just been listed.
    pub(super) fn note_inhabitants(&mut self, links: &[Link]) {
        self.holds.started.retain(|index, _| links.iter().any(|link| link.index == *index));
        let now = if self.holds.has_looked { inhabited::since_boot() } else { Some(Duration::ZERO) };
        self.holds.has_looked = true;
        let mut strangers = std::mem::take(&mut self.holds.strangers);
        for link in links {
            let Some(inhabitants) = &link.inhabitants else { continue };
            if inhabitants.who == Who::Unknown {
                // neither a stranger, nor whose wait could be told
                continue;
            }
            if inhabitants.who == Who::NoPod {
                let started = inhabitants.started;
                let known = strangers.remove(&link.index).filter(|known| known.started == started);
                let seen = known.map(|known| known.seen).or(now).unwrap_or(Duration::MAX);
                self.holds.strangers.insert(link.index, Stranger { started, seen });
                continue;
            }
            self.holds.sees_pods = true;
            if matches!(self.applier.binder.assignment(link.index), Some(Assignment::Held)) {
                self.holds.started.insert(link.index, inhabitants.started);
            }
        }
    }

    /// Lets interfaces go that lead to processes of no pod: those of containers that somebody else runs on the node. Not
    /// while a pod waits for an interface, which may be one of them: a virtual machine's process needn't be in the pod's
    /// control group.
    pub(super) fn release_strangers(&mut self) {
        if self.calls.pods().any(|pod| self.applier.binder.interface_of(&pod.uid).is_none()) {
            return;
        }
        let Some(now) = inhabited::since_boot().filter(|_| self.holds.sees_pods) else { return };
        let has_stayed = |link: &&Link| {
            let stranger = self.holds.strangers.get(&link.index);
            stranger.is_some_and(|stranger| now.saturating_sub(stranger.started.max(stranger.seen)) >= STRANGER)
        };
        let strangers = self.applier.binder.strangers().filter(has_stayed).map(|link| link.index);
        for index in strangers.collect::<Vec<_>>() {
            self.applier.let_go(index);
        }
    }

    /// Tells how long pods were held that no longer are.
    pub(super) fn time_holds(&mut self) {
        if self.holds.started.is_empty() {
            return;
        }
        let Some(now) = inhabited::since_boot() else { return };
        let (applier, held) = (&self.applier, &self.outputs.metrics.held);
        self.holds.started.retain(|index, started| {
            let Some(Assignment::Pod(uid)) = applier.binder.assignment(*index) else { return true };
            let is_enforced = applier.condition(uid) == Condition::Enforced;
            if is_enforced {
                held.observe(now.saturating_sub(*started).as_secs_f64());
            }
            !is_enforced
        });
    }
}
