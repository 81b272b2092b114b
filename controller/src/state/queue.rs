//! Changes that are to be carried out: taken apart into pieces that are short enough to let others go in between, and
//! handed out in the order in which they came.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use enforcer_abi::Op;
use policy_compiler::{PodUpdate, Step};

/// How many writes are made without looking at the time, a tenth of a millisecond's worth.
const PIECE: usize = 64;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Queue {
    changes: VecDeque<Change>,
}

#[derive(Debug)]
struct Change {
    steps: VecDeque<Step>,
    /// How many writes of the first step are handed out already.
    written: usize,
    /// When the source noticed what this is the answer to.
    seen: Option<Instant>,
}

/// What is to be done next, and at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Write(Vec<Op>),
    Pods(Vec<PodUpdate>),
    RaiseEpoch(Vec<Arc<str>>),
    Free(Vec<Op>),
    /// All of a change is done.
    Finished(Option<Instant>),
}

impl Queue {
    /// Adds the steps of a change behind those of the ones before: they presume what these have written.
    pub(super) fn push(&mut self, steps: Vec<Step>, seen: Option<Instant>) {
        self.changes.push_back(Change { steps: steps.into(), written: 0, seen });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The writes of the next piece; empty if it is none of writes.
    pub(super) fn next_writes(&self) -> &[Op] {
        let first = self.changes.front().and_then(|change| Some((change.steps.front()?, change.written)));
        match first {
            Some((Step::Write(ops), written)) => &ops[written..ops.len().min(written + PIECE)],
            _ => &[],
        }
    }

    /// All writes that are left.
    pub(super) fn writes(&self) -> Vec<&[Op]> {
        let mut writes = Vec::new();
        for change in &self.changes {
            for (at, step) in change.steps.iter().enumerate() {
                if let Step::Write(ops) = step {
                    writes.push(&ops[if at == 0 { change.written } else { 0 }..]);
                }
            }
        }
        writes
    }

    /// Hands out the next piece.
    pub(super) fn pop(&mut self) -> Option<Piece> {
        let writes = self.next_writes().to_vec();
        let change = self.changes.front_mut()?;
        if let Some(Step::Write(ops)) = change.steps.front() {
            change.written += writes.len();
            if change.written == ops.len() {
                change.steps.pop_front();
                change.written = 0;
            }
            return Some(Piece::Write(writes));
        }
        Some(match change.steps.pop_front() {
            Some(Step::Write(ops)) => Piece::Write(ops),
            Some(Step::Pods(updates)) => Piece::Pods(updates),
            Some(Step::RaiseEpoch(pods)) => Piece::RaiseEpoch(pods),
            Some(Step::Free(ops)) => Piece::Free(ops),
            None => Piece::Finished(self.changes.pop_front().and_then(|change| change.seen)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_abi::Address;

    fn ops(count: u8) -> Vec<Op> {
        (0..count).map(|last| Op::PutEndpoint(Address::from_v4([10, 0, 0, last]))).collect()
    }

    #[test]
    fn changes_come_out_in_pieces_and_in_order() {
        let mut queue = Queue::default();
        let seen = Instant::now();
        queue.push(vec![Step::Write(ops(150)), Step::RaiseEpoch(vec!["a".into()]), Step::Free(ops(100))], Some(seen));
        queue.push(vec![Step::Pods(Vec::new()), Step::Write(ops(1))], None);
        let left = |queue: &Queue| queue.writes().iter().map(|ops| ops.len()).collect::<Vec<_>>();
        assert_eq!(left(&queue), [150, 1]);
        let mut written = Vec::new();
        for expected in [64, 64, 22] {
            assert_eq!(queue.next_writes().len(), expected);
            let Some(Piece::Write(piece)) = queue.pop() else { panic!("{queue:?}") };
            assert_eq!(piece.len(), expected);
            written.extend(piece);
        }
        assert_eq!(written, ops(150));
        assert_eq!((left(&queue), queue.next_writes().len()), (vec![1], 0));
        let rest: Vec<Piece> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(
            rest,
            [
                Piece::RaiseEpoch(vec!["a".into()]),
                Piece::Free(ops(100)),
                Piece::Finished(Some(seen)),
                Piece::Pods(Vec::new()),
                Piece::Write(ops(1)),
                Piece::Finished(None),
            ]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn a_step_without_writes_ends() {
        let mut queue = Queue::default();
        queue.push(vec![Step::Write(Vec::new())], None);
        assert_eq!(queue.pop(), Some(Piece::Write(Vec::new())));
        assert_eq!(queue.pop(), Some(Piece::Finished(None)));
        assert_eq!(queue.pop(), None);
    }
}
