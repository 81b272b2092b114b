//! The difference that a batch makes, and both of its sides.

use std::sync::Arc;

use enforcer_abi::{Address, ClassId, EVERYBODY, FrontEndValue, RowKey, TableId};
use rustc_hash::FxHashSet;

use super::{Batch, Compiler};
use crate::{
    change::{PodTables, TableUse},
    plan::{Delta, PodChange, Side, TableParts},
    table::{Row, Table},
};

impl Compiler {
    pub(super) fn difference(&mut self, batch: &mut Batch) -> Delta {
        let mut delta = Delta {
            peers: std::mem::take(&mut batch.peers),
            blocks: std::mem::take(&mut batch.blocks),
            endpoints_in: std::mem::take(&mut batch.endpoints_in),
            endpoints_out: std::mem::take(&mut batch.endpoints_out),
            ..Delta::default()
        };
        self.add_rows(&mut delta);
        for table in self.tables.came() {
            delta.ports_in.extend(table.ports());
            delta.port_ranges_in.extend(table.port_ranges());
        }
        for table in self.tables.went() {
            delta.ports_out.extend(table.ports().map(|port| port.key));
            delta.port_ranges_out.extend(table.port_ranges().map(|(key, _)| key));
        }
        self.add_front_ends(&mut delta);
        self.add_pods(batch, &mut delta);
        delta.revoked = self.revoked_pods(&delta);
        sort(&mut delta);
        delta
    }

    /// A row is there if its table is in use and an entry has its class.
    fn add_rows(&self, delta: &mut Delta) {
        let (appeared, vanished) = self.classes.appeared_and_vanished();
        for &class in &appeared {
            let members = self.classes.members(class);
            for table in self.peers.tables(members) {
                let entry = self.tables.get(table).filter(|_| self.tables.was_used(table));
                let row = entry.and_then(|entry| entry.table.row(members));
                delta.rows_in.extend(row.iter().flat_map(|row| row.values(table, class)));
            }
        }
        for table in self.tables.came() {
            for class in self.peers.classes(&table.peers) {
                if self.classes.is_sent(class) {
                    let row = table.row(self.classes.members(class));
                    delta.rows_in.extend(row.iter().flat_map(|row| row.values(table.id, class)));
                }
            }
        }
        let mut forget = |table: &Table, class: ClassId| {
            if table.row(self.classes.members(class)).is_some() {
                let chunks = u32::try_from(table.row_words() / 2).expect("a table has fewer than 2^32 port classes");
                delta.rows_out.extend((0..chunks).map(|chunk| RowKey { table: table.id, class, chunk, reserved: 0 }));
            }
        };
        for &class in &vanished {
            for table in self.peers.tables(self.classes.members(class)) {
                if let Some(entry) = self.tables.get(table).filter(|_| self.tables.was_used(table)) {
                    forget(&entry.table, class);
                }
            }
        }
        for table in self.tables.went() {
            for class in self.peers.classes(&table.peers) {
                if self.classes.was_sent(class) {
                    forget(table, class);
                }
            }
        }
    }

    fn add_pods(&mut self, batch: &mut Batch, delta: &mut Delta) {
        delta.pods.extend(batch.gone.drain(..).map(|old| PodChange { old: Some(old), new: None }));
        for id in batch.stale_pods.drain() {
            let Some(local) = self.local_pods.get(&id) else { continue };
            let new = self.pod_tables(id, local);
            if local.sent.as_ref() == Some(&new) {
                continue;
            }
            let Some(local) = self.local_pods.get_mut(&id) else { continue };
            let old = local.sent.replace(new.clone());
            delta.pods.push(PodChange { old, new: Some(new) });
        }
    }

    /// The pods from which something may have been taken.
    fn revoked_pods(&self, delta: &Delta) -> Vec<Arc<str>> {
        let tables: FxHashSet<TableId> = self.narrowed_tables(delta).chain(self.closing_tables(delta)).collect();
        let mut pods: Vec<_> = delta.pods.iter().filter(|change| revokes(change)).filter_map(uid).collect();
        if !tables.is_empty() {
            let uses = |table: Option<TableUse>| table.is_some_and(|table| tables.contains(&table.id));
            pods.extend(
                self.sent_pods().filter(|pod| uses(pod.ingress) || uses(pod.egress)).map(|pod| pod.uid.clone()),
            );
        }
        if !delta.endpoints_in.is_empty() {
            // what a pod has forwarded so far may come from the address of another pod or a node now
            let forwards = |pod: &&PodTables| self.options.endpoints || pod.forwards;
            pods.extend(self.sent_pods().filter(forwards).map(|pod| pod.uid.clone()));
        }
        pods.sort_unstable();
        pods.dedup();
        pods
    }

    fn sent_pods(&self) -> impl Iterator<Item = &PodTables> {
        self.local_pods.values().filter_map(|local| local.sent.as_ref())
    }

    /// Tables that were there before and whose rows may refuse what they allowed.
    fn narrowed_tables(&self, delta: &Delta) -> impl Iterator<Item = TableId> {
        let mut pairs: Vec<(ClassId, ClassId)> = delta
            .peers
            .iter()
            .map(|change| (change.old_class, change.new_class))
            .chain(delta.blocks.iter().map(|change| (change.old_class, change.new_class)))
            .filter(|(before, after)| before != after)
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        let narrows = |table: &Table, (before, after): (ClassId, ClassId)| {
            let row = |class| table.row(self.classes.members(class));
            let Some(before) = row(before) else { return row(after).is_some_and(|row| !row.covers(&table.everybody)) };
            !row(after).as_ref().unwrap_or(&table.everybody).covers(&before)
        };
        pairs.into_iter().flat_map(move |pair| {
            let members = [self.classes.members(pair.0), self.classes.members(pair.1)].concat();
            let tables = self.peers.tables(&members).into_iter().filter(|table| self.tables.was_used(*table));
            tables.filter(move |table| self.tables.get(*table).is_some_and(|entry| narrows(&entry.table, pair)))
        })
    }

    /// Ends the batch: what was before is forgotten.
    pub(super) fn collect(&mut self, batch: &Batch) {
        self.collect_front_ends(batch);
        self.tables.collect();
        self.classes.collect(&mut self.peers);
        self.peers.collect();
    }
}

/// Sets have no order, answers do.
fn sort(delta: &mut Delta) {
    // the order of the bytes, as one number: there may be thousands
    delta.peers.sort_unstable_by_key(|change| u128::from_be_bytes(change.address.0));
    delta.blocks.sort_unstable_by_key(|change| change.key);
    delta.rows_in.sort_unstable_by_key(|row| row.key);
    delta.rows_out.sort_unstable();
    delta.rows_out.dedup();
    delta.ports_in.sort_unstable_by_key(|port| port.key);
    delta.ports_out.sort_unstable();
    delta.port_ranges_in.sort_unstable_by_key(|(key, _)| *key);
    delta.port_ranges_out.sort_unstable();
    delta.front_ends_in.sort_unstable_by_key(|front_end| front_end.key);
    delta.front_ends_out.sort_unstable();
    delta.endpoints_in.sort_unstable();
    delta.endpoints_out.sort_unstable();
    delta.pods.sort_by_cached_key(uid);
}

fn uid(change: &PodChange) -> Option<Arc<str>> {
    change.new.as_ref().or(change.old.as_ref()).map(|pod| pod.uid.clone())
}

/// Whether a pod's change may refuse what was allowed.
fn revokes(change: &PodChange) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return false };
    let table_revokes = |old: Option<TableUse>, new: Option<TableUse>| new.is_some() && old != new;
    table_revokes(old.ingress, new.ingress)
        || table_revokes(old.egress, new.egress)
        || (old.audit && !new.audit)
        || (old.forwards && !new.forwards)
}

/// As it was when the batch began.
pub(super) struct Before<'a>(pub(super) &'a Compiler);

/// As it is now.
pub(super) struct After<'a>(pub(super) &'a Compiler);

impl Compiler {
    fn row(&self, table: TableId, class: ClassId) -> Option<Row> {
        if class == EVERYBODY { None } else { self.tables.get(table)?.table.row(self.classes.members(class)) }
    }

    fn row_words(&self, table: TableId) -> usize {
        self.tables.get(table).map_or(0, |entry| entry.table.row_words())
    }
}

impl Side for Before<'_> {
    fn has_table(&self, table: TableId) -> bool {
        self.0.tables.was_used(table)
    }

    fn tables(&self) -> Vec<TableId> {
        let mut tables: Vec<TableId> = self.0.tables.used_before().map(|table| table.id).collect();
        tables.sort_unstable();
        tables
    }

    fn has_class(&self, class: ClassId) -> bool {
        self.0.classes.was_sent(class)
    }

    fn row(&self, table: TableId, class: ClassId) -> Option<Row> {
        self.0.row(table, class)
    }

    fn row_words(&self, table: TableId) -> usize {
        self.0.row_words(table)
    }

    fn parts(&self, _table: TableId) -> TableParts {
        TableParts::default()
    }

    fn front_ends(&self, table: TableId, address: Address) -> Vec<FrontEndValue> {
        self.0.front_ends_at(table, address, true)
    }
}

impl Side for After<'_> {
    fn has_table(&self, table: TableId) -> bool {
        self.0.tables.is_used(table)
    }

    fn tables(&self) -> Vec<TableId> {
        let mut tables: Vec<TableId> = self.0.tables.used().map(|table| table.id).collect();
        tables.sort_unstable();
        tables
    }

    fn has_class(&self, class: ClassId) -> bool {
        self.0.classes.is_sent(class)
    }

    fn row(&self, table: TableId, class: ClassId) -> Option<Row> {
        self.0.row(table, class)
    }

    fn row_words(&self, table: TableId) -> usize {
        self.0.row_words(table)
    }

    fn parts(&self, id: TableId) -> TableParts {
        let Some(entry) = self.0.tables.get(id) else { return TableParts::default() };
        let table = &entry.table;
        let classes = self.0.peers.classes(&table.peers);
        let sent = classes.into_iter().filter(|class| self.0.classes.is_sent(*class));
        let rows = sent.filter_map(|class| Some((class, self.0.row(id, class)?)));
        TableParts {
            rows: rows.flat_map(|(class, row)| row.values(id, class).collect::<Vec<_>>()).collect(),
            ports: table.ports().collect(),
            port_ranges: table.port_ranges().collect(),
            front_ends: self.0.front_ends_of(id).collect(),
        }
    }

    fn front_ends(&self, table: TableId, address: Address) -> Vec<FrontEndValue> {
        self.0.front_ends_at(table, address, false)
    }
}
