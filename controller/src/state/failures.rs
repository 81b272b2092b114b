//! Writes that the kernel refused: kept until they succeed or are overtaken, and what is closed until then.

use enforcer_abi::{Op, TableId};
use policy_compiler::PodTables;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{entry::Closed, place::Place};

/// What could not be written.
#[derive(Debug, Default)]
pub(super) struct Failures {
    ops: FxHashMap<Place, Op>,
}

impl Failures {
    /// These are about to be carried out.
    pub(super) fn overtaken_by(&mut self, ops: &[Op]) {
        if !self.ops.is_empty() {
            for op in ops {
                self.ops.remove(&Place::of(op));
            }
        }
    }

    /// This could not be carried out.
    pub(super) fn add(&mut self, op: Op) {
        self.ops.insert(Place::of(&op), op);
    }

    /// Everything that is to be tried again.
    pub(super) fn take(&mut self) -> Vec<Op> {
        self.ops.drain().map(|(_, op)| op).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Whom that concerns.
    pub(super) fn concern(&self) -> Concern {
        let mut concern = Concern::default();
        for place in self.ops.keys() {
            match place.table() {
                Some(table) => drop(concern.tables.insert(table)),
                // which class an address is of concerns every table
                None => concern.everybody = true,
            }
        }
        concern
    }
}

/// The pods that a failure concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Concern {
    everybody: bool,
    tables: FxHashSet<TableId>,
}

impl Concern {
    /// Which directions of a pod have to be closed. One that nothing isolates reads no table.
    pub(super) fn closes(&self, pod: &PodTables) -> Closed {
        let closes = |table: Option<policy_compiler::TableUse>| {
            table.is_some_and(|table| self.everybody || self.tables.contains(&table.id))
        };
        Closed { ingress: closes(pod.ingress), egress: closes(pod.egress) }
    }
}
