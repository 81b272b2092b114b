//! What becomes of interfaces that are held once processes are behind them: [`Holds`] knows since when they are, and so how
//! long a pod has waited, or that it is none.

use std::{collections::BTreeMap, time::Duration};

use super::{Condition, Datapath, State};
use crate::{
    bind::{Assignment, Link},
    inhabited::{self, Who},
};

/// The age at which a process that is no pod's tells that the interface isn't either. CNI plugins and runtimes enter a
/// pod's namespace, too, but leave it or become its first process.
const STRANGER: Duration = Duration::from_secs(5);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// When the first process behind an interface was started, since the boot, where its pod isn't enforced yet.
    started: BTreeMap<u32, Duration>,
    /// Whether the process of any pod was seen: else nothing follows from one that is no pod's.
    sees_pods: bool,
}

impl<D: Datapath> State<D> {
    /// Remembers who is behind interfaces that have just been listed.
    pub(super) fn note_inhabitants(&mut self, links: &[Link]) {
        self.holds.started.retain(|index, _| links.iter().any(|link| link.index == *index));
        for link in links {
            let Some(inhabitants) = &link.inhabitants else { continue };
            if inhabitants.who == Who::NoPod {
                continue;
            }
            self.holds.sees_pods = true;
            if matches!(self.applier.binder.assignment(link.index), Some(Assignment::Held)) {
                self.holds.started.insert(link.index, inhabitants.started);
            }
        }
    }

    /// Lets interfaces go that lead to processes of no pod: those of containers that somebody else runs on the node.
    pub(super) fn release_strangers(&mut self) {
        let Some(now) = inhabited::since_boot().filter(|_| self.holds.sees_pods) else { return };
        let has_stayed = |link: &&Link| {
            let started = link.inhabitants.as_ref().map(|inhabitants| inhabitants.started);
            started.is_some_and(|started| now.saturating_sub(started) >= STRANGER)
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
