//! What the state tells of itself piece by piece, so that nobody waits for it: its objects, and the tables that it has
//! compiled of them.

use std::sync::Arc;

use enforcer_abi::Op;
use policy_compiler::{Cursor, Event, PodTables, TableCursor};
use serde::Serialize;

use super::{Condition, Datapath, State};

/// How many objects or writes are told at once: about a millisecond's worth.
const PAGE: usize = 500;

/// Which state it is that something is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// Counts up with every change of the tables.
    pub generation: u64,
    /// All of it is written to the kernel.
    pub settled: bool,
}

/// A piece of what is told.
#[derive(Debug)]
pub struct Page<T, C> {
    /// Some of all.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<C>,
    /// The state that these are of.
    pub moment: Moment,
}

/// A pod of this node, as the compiler has it and as the kernel should.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CompiledPod {
    /// What the compiler says.
    #[serde(flatten)]
    pub tables: PodTables,
    /// The interface that it is bound to.
    pub ifindex: Option<u32>,
    /// How it is.
    pub state: Condition,
}

impl<D: Datapath> State<D> {
    pub(super) fn moment(&self) -> Moment {
        Moment { generation: self.generation, settled: !self.applier.is_busy() }
    }

    pub(super) fn objects(&self, from: Cursor) -> Page<Event, Cursor> {
        let (items, next) = self.compiler.objects(from, PAGE);
        Page { items, next, moment: self.moment() }
    }

    pub(super) fn writes(&self, from: TableCursor) -> Page<Op, TableCursor> {
        let (items, next) = self.compiler.writes(from, PAGE);
        Page { items, next, moment: self.moment() }
    }

    pub(super) fn compiled_pods(&self) -> Vec<CompiledPod> {
        let pods = self.compiler.pods().into_iter();
        pods.map(|tables| {
            let uid: Arc<str> = tables.uid.clone();
            CompiledPod { tables, ifindex: self.applier.binder.interface_of(&uid), state: self.applier.condition(&uid) }
        })
        .collect()
    }
}
