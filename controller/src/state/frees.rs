//! Removals that wait for their grace period: packets that are on their way still read what nobody points to any more.
//!
//! What is written again meanwhile is needed again, so its removal is forgotten: ids stand for contents, and the same
//! content may come back.

use std::time::{Duration, Instant};

use enforcer_abi::Op;
use rustc_hash::FxHashMap;

use super::place::Place;

/// Long enough for many changes to be freed after one wait for the packets that still read what they replaced.
const GRACE: Duration = Duration::from_secs(1);

/// Removals that are due later.
#[derive(Debug, Default)]
pub(super) struct Frees {
    due: FxHashMap<Place, (Instant, Op)>,
}

impl Frees {
    /// These are about to be carried out: what they write is not removed any more.
    pub(super) fn overtaken_by(&mut self, ops: &[Op]) {
        if !self.due.is_empty() {
            for op in ops {
                self.due.remove(&Place::of(op));
            }
        }
    }

    /// These are to be carried out a grace period from `now`.
    pub(super) fn later(&mut self, ops: Vec<Op>, now: Instant) {
        self.due.extend(ops.into_iter().map(|op| (Place::of(&op), (now + GRACE, op))));
    }

    /// Those whose time has come.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Op> {
        self.due.extract_if(|_, (due, _)| *due <= now).map(|(_, (_, op))| op).collect()
    }

    /// When the next one's time comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.values().map(|(due, _)| *due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_abi::{RowKey, RowValue};

    fn key(class: u64) -> RowKey {
        RowKey { table: 1, class, chunk: 0, reserved: 0 }
    }

    #[test]
    fn a_removal_waits_and_is_forgotten_when_its_place_is_written_again() {
        let mut frees = Frees::default();
        let start = Instant::now();
        frees.later(vec![Op::DeleteRow(key(1)), Op::DeleteRow(key(2))], start);
        assert_eq!(frees.take(start), []);
        let row = RowValue { key: key(1), bits: [0; 2], open: 0, reserved: [0; 7] };
        frees.overtaken_by(&[Op::PutRow(row)]);
        assert_eq!(frees.next(), Some(start + GRACE));
        assert_eq!(frees.take(start + GRACE), [Op::DeleteRow(key(2))]);
        assert_eq!(frees.next(), None);
    }

    #[test]
    fn a_second_removal_waits_its_own_time() {
        let mut frees = Frees::default();
        let start = Instant::now();
        frees.later(vec![Op::DeleteRow(key(1))], start);
        frees.later(vec![Op::DeleteRow(key(1))], start + GRACE / 2);
        assert_eq!(frees.take(start + GRACE), []);
        assert_eq!(frees.take(start + GRACE * 3 / 2), [Op::DeleteRow(key(1))]);
    }
}
