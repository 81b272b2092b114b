//! The tables that the node's pods use.

use enforcer_abi::{Direction, TableId};
use rustc_hash::FxHashMap;

use crate::{
    class::classes::Peers,
    table::{Table, TableRules},
};

#[derive(Debug, Default)]
pub(super) struct Tables {
    entries: FxHashMap<TableId, TableEntry>,
    /// Those that were made in this batch.
    made: Vec<TableId>,
    /// Those that lost a user in this batch.
    released: Vec<TableId>,
}

#[derive(Debug)]
pub(super) struct TableEntry {
    pub(super) table: Table,
    /// How many kinds use it.
    users: u32,
    /// It was there when the batch began.
    is_old: bool,
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
            TableEntry { table, users: 0, is_old: false }
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

    /// Ends the batch.
    pub(super) fn collect(&mut self) {
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
