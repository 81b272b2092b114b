//! Changes, carried out piece by piece.
//!
//! What goes first is what needs none of them: an interface that comes is attached and held, one that shows a pod's
//! address is bound, one that goes is let go, all between two pieces. That is right at any of them, because it touches
//! the entry of that interface alone, and gives it tables that are in force already: [`Applier`] learns of a pod's
//! tables from the very step that puts them in force, which the compiler has placed behind every write that they need.

use std::time::Instant;

use enforcer::Upkeep;
use enforcer_abi::Op;
use policy_compiler::{PodTables, PodUpdate, Step};

use super::Applier;
use crate::state::{datapath::Datapath, queue::Piece};

/// What [`Applier::advance`] has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct Advance {
    /// When the source noticed what is in force now.
    pub(in crate::state) finished: Vec<Instant>,
    /// Pods came, changed or went.
    pub(in crate::state) pods: bool,
    /// Nothing more can be written before a map has grown.
    pub(in crate::state) waits: bool,
}

impl<D: Datapath> Applier<D> {
    /// To be carried out after all that is to be carried out already. `seen` is told when it is done.
    pub(in crate::state) fn enqueue(&mut self, steps: Vec<Step>, seen: Option<Instant>) {
        if !steps.is_empty() || seen.is_some() {
            self.queue.push(steps, seen);
        }
    }

    /// Whether something is still to be carried out.
    pub(in crate::state) fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Carries out what is enqueued for as long as `goes_on` says so, which is asked after each piece: about a tenth of
    /// a millisecond, or the pods of one change. While maps grow, what they have no room for yet has to wait; then even
    /// the first piece may not be carried out.
    pub(in crate::state) fn advance(&mut self, now: Instant, mut goes_on: impl FnMut() -> bool) -> Advance {
        let mut advance = Advance::default();
        if self.queue.is_empty() {
            return advance;
        }
        let before = self.closed();
        loop {
            if self.upkeep != Upkeep::Done && !self.datapath.has_room(self.queue.next_writes()) {
                advance.waits = true;
                break;
            }
            match self.queue.pop() {
                None => break,
                Some(Piece::Write(ops)) => self.write(&ops),
                Some(Piece::Pods(updates)) => {
                    self.flip(updates, now);
                    advance.pods = true;
                }
                Some(Piece::RaiseEpoch(pods)) => self.raise_epoch_of(&pods),
                Some(Piece::Free(ops)) => self.frees.later(ops, now),
                Some(Piece::Finished(seen)) => advance.finished.extend(seen),
            }
            if !goes_on() {
                break;
            }
        }
        self.close_and_open(&before, now);
        advance
    }

    /// Carries out all that is enqueued, whatever it takes.
    pub(in crate::state) fn finish(&mut self, now: Instant) -> Advance {
        self.upkeep = Upkeep::Done;
        self.advance(now, || true)
    }

    /// Lets maps grow for about as long as `budget`.
    pub(in crate::state) fn maintain(&mut self, budget: std::time::Duration) -> Upkeep {
        self.upkeep = self.datapath.maintain(budget, &self.queue.writes()).unwrap_or_else(|fault| {
            // the write that finds a map full tries again, and says so if it fails
            tracing::warn!("maps can't grow ahead of what is written: {fault}");
            Upkeep::Done
        });
        self.upkeep
    }

    pub(super) fn write(&mut self, ops: &[Op]) {
        self.frees.overtaken_by(ops);
        self.failures.overtaken_by(ops);
        let failed = self.datapath.apply(ops);
        for (op, fault) in failed {
            self.note(&fault, "write a table");
            self.failures.add(op);
        }
        self.concern = self.failures.concern();
    }

    fn flip(&mut self, updates: Vec<PodUpdate>, now: Instant) {
        let mut touched = Vec::new();
        for update in &updates {
            let (PodUpdate::Put(PodTables { uid, .. }) | PodUpdate::Delete { uid }) = update;
            touched.extend(self.binder.interface_of(uid));
        }
        let changes = updates.iter().map(|update| match update {
            PodUpdate::Put(pod) => (pod.uid.clone(), Some((&pod.name, pod.addresses.as_slice()))),
            PodUpdate::Delete { uid } => (uid.clone(), None),
        });
        let outcome = self.binder.set_pods(changes, now);
        for update in updates {
            match update {
                PodUpdate::Put(pod) => drop(self.tables.insert(pod.uid.clone(), pod)),
                PodUpdate::Delete { uid } => drop(self.tables.remove(&uid)),
            }
        }
        self.follow(outcome, touched);
    }
}
