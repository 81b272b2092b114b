//! The tables that the node's pods use.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_abi::{Direction, FrontEndState, TableId};
use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;

use crate::{
    class::classes::Peers,
    front_end::FrontEndId,
    table::{Table, TableRules},
};

#[derive(Debug, Default)]
pub(super) struct Tables {
    entries: FxHashMap<TableId, TableEntry>,
    /// Those that were made in this batch.
    made: Vec<TableId>,
    /// Those that lost a user in this batch.
    released: Vec<TableId>,
    /// Those some of whose front ends have changed in this batch.
    judged: BTreeSet<TableId>,
}

#[derive(Debug)]
pub(super) struct TableEntry {
    pub(super) table: Table,
    /// How many kinds use it.
    users: u32,
    /// It was there when the batch began.
    is_old: bool,
    /// The front ends that have an entry, by what it says ([`FrontEndState`]).
    front_ends: [RoaringBitmap; 3],
    /// What those had when the batch began that have changed since.
    front_ends_before: BTreeMap<FrontEndId, Option<FrontEndState>>,
}

const STATES: [FrontEndState; 3] = [FrontEndState::Closed, FrontEndState::Mixed, FrontEndState::Open];

impl TableEntry {
    fn front_end(&self, id: FrontEndId) -> Option<FrontEndState> {
        STATES.into_iter().find(|state| self.front_ends[*state as usize].contains(id))
    }

    fn set_front_end(&mut self, id: FrontEndId, old: Option<FrontEndState>, new: Option<FrontEndState>) {
        if let Some(old) = old {
            self.front_ends[old as usize].remove(id);
        }
        if let Some(new) = new {
            self.front_ends[new as usize].insert(id);
        }
    }
}

impl Tables {
    pub(super) fn get(&self, id: TableId) -> Option<&TableEntry> {
        self.entries.get(&id)
    }

    /// The table with this content, for one more user.
    pub(super) fn hold(&mut self, rules: TableRules, peers: &mut Peers) -> TableId {
        let id = rules.id(|id| self.entries.get(&id).is_some_and(|entry| entry.table.rules != rules));
        let entry = self.entries.entry(id).or_insert_with(|| {
            let table = Table::new(id, rules);
            table.peers.iter().for_each(|peer| peers.add_table(*peer, id));
            self.made.push(id);
            TableEntry {
                table,
                users: 0,
                is_old: false,
                front_ends: Default::default(),
                front_ends_before: BTreeMap::new(),
            }
        });
        entry.users += 1;
        id
    }

    pub(super) fn release(&mut self, id: TableId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.users -= 1;
            self.released.push(id);
        }
    }

    /// Lets go of the peers of tables that nobody uses any more. The tables themselves stay until the batch ends.
    pub(super) fn release_peers(&mut self, peers: &mut Peers) {
        self.released.sort_unstable();
        self.released.dedup();
        let entries = &self.entries;
        self.released.retain(|id| entries.get(id).is_some_and(|entry| entry.users == 0));
        for id in &self.released {
            let table = &self.entries[id].table;
            table.peers.iter().for_each(|peer| peers.remove_table(*peer, *id));
        }
    }

    /// In use now.
    pub(super) fn used(&self) -> impl Iterator<Item = &Table> {
        self.entries.values().filter(|entry| entry.users > 0).map(|entry| &entry.table)
    }

    /// In use when the batch began.
    pub(super) fn used_before(&self) -> impl Iterator<Item = &Table> {
        self.entries.values().filter(|entry| entry.is_old).map(|entry| &entry.table)
    }

    /// In use now and not before.
    pub(super) fn came(&self) -> impl Iterator<Item = &Table> {
        self.made.iter().filter_map(|id| self.entries.get(id)).filter(|entry| entry.users > 0).map(|entry| &entry.table)
    }

    /// In use before and not now.
    pub(super) fn went(&self) -> impl Iterator<Item = &Table> {
        let went = |entry: &&TableEntry| entry.is_old && entry.users == 0;
        self.released.iter().filter_map(|id| self.entries.get(id)).filter(went).map(|entry| &entry.table)
    }

    pub(super) fn is_used(&self, id: TableId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.users > 0)
    }

    pub(super) fn was_used(&self, id: TableId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.is_old)
    }

    pub(super) fn judge_egress(&self) -> bool {
        self.used().any(|table| table.rules.direction == Direction::Egress)
    }

    /// The entry of a front end.
    pub(super) fn front_end(&self, table: TableId, id: FrontEndId) -> Option<FrontEndState> {
        let entry = self.entries.get(&table).filter(|entry| entry.users > 0)?;
        entry.front_end(id)
    }

    /// All entries of front ends of a table that is in use.
    pub(super) fn front_ends(&self, table: TableId) -> impl Iterator<Item = (FrontEndId, FrontEndState)> {
        let entry = self.entries.get(&table).filter(|entry| entry.users > 0);
        let by_state = entry.into_iter().flat_map(|entry| STATES.into_iter().zip(&entry.front_ends));
        by_state.flat_map(|(state, ids)| ids.iter().map(move |id| (id, state)))
    }

    /// The entry of a front end when the batch began.
    pub(super) fn front_end_before(&self, table: TableId, id: FrontEndId) -> Option<FrontEndState> {
        let entry = self.entries.get(&table).filter(|entry| entry.is_old)?;
        let now = || entry.front_end(id);
        entry.front_ends_before.get(&id).copied().unwrap_or_else(now)
    }

    pub(super) fn set_front_end(&mut self, table: TableId, id: FrontEndId, state: Option<FrontEndState>) {
        let Some(entry) = self.entries.get_mut(&table) else { return };
        let old = entry.front_end(id);
        if old != state {
            entry.set_front_end(id, old, state);
            entry.front_ends_before.entry(id).or_insert(old);
            self.judged.insert(table);
        }
    }

    /// Front ends whose entries change, of tables that are in use now.
    pub(super) fn front_end_changes(
        &self,
    ) -> impl Iterator<Item = (TableId, FrontEndId, Option<FrontEndState>, Option<FrontEndState>)> {
        let judged = self.judged.iter().filter_map(|table| Some((*table, self.entries.get(table)?)));
        let changed = judged.filter(|(_, entry)| entry.users > 0).flat_map(|(table, entry)| {
            let now = |id: FrontEndId| entry.front_end(id);
            entry.front_ends_before.iter().map(move |(id, before)| (table, *id, *before, now(*id)))
        });
        changed.filter(|(_, _, before, now)| before != now)
    }

    /// The front ends of tables that went, which had entries.
    pub(super) fn front_ends_gone(&self) -> impl Iterator<Item = (TableId, FrontEndId)> {
        let went = self.released.iter().filter_map(|table| Some((*table, self.entries.get(table)?)));
        went.filter(|(_, entry)| entry.is_old && entry.users == 0)
            .flat_map(|(table, entry)| entry.front_ends.iter().flatten().map(move |id| (table, id)))
    }

    /// Front ends that are mixed now and were not.
    pub(super) fn newly_mixed(&self) -> Vec<(TableId, FrontEndId)> {
        let mixed = |state| state == Some(FrontEndState::Mixed);
        let changes = self.front_end_changes().filter(|(_, _, before, now)| mixed(*now) && !mixed(*before));
        changes.map(|(table, id, ..)| (table, id)).collect()
    }

    /// Ends the batch.
    pub(super) fn collect(&mut self) {
        for id in std::mem::take(&mut self.judged) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.front_ends_before.clear();
            }
        }
        for id in self.released.drain(..) {
            if self.entries.get(&id).is_some_and(|entry| entry.users == 0) {
                self.entries.remove(&id);
            }
        }
        for id in self.made.drain(..) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.is_old = true;
            }
        }
    }
}
