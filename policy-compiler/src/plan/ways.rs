//! On which way an address gets from one entry to another while pods change tables. [`Ways`] decides once for every
//! pair of entries, and collects the rows that the ways need beyond those of both sides.
//!
//! An address that goes through an entry made for the purpose is the general case, right whatever else changes: under
//! it, tables that are left see what was and all others what comes, down to the last port (see [`Ways::through`]).
//! Going directly is what ordinary changes can afford, where a look at the rows proves that nobody sees a difference.

use enforcer_abi::{ClassId, PeerFlags, RowValue, TableId};
use rustc_hash::FxHashMap;

use super::{
    delta::{PeerChange, PeerEntry, Side, closed_row},
    transition::Moves,
};
use crate::{class::blocks::BlockChange, content_id::ContentHasher, table::Row};

/// When an address takes its new class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Before the pods change tables.
    Early,
    /// After them.
    Late,
    /// After them, and it has this class until then.
    Through(PeerEntry),
}

/// From what to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    old: PeerEntry,
    new: PeerEntry,
    prefers_late: bool,
}

pub(super) struct Ways<'a, O, N> {
    old: &'a O,
    new: &'a N,
    moves: &'a Moves,
    left: Vec<TableId>,
    joined: Vec<TableId>,
    /// Of a table that was there and stays.
    node_ports_change: bool,
    decided: FxHashMap<Pair, Way>,
    /// New classes that tables that are left have learnt, and as which old ones.
    learnt: FxHashMap<ClassId, ClassId>,
    /// Old classes that tables that are joined know, and as which new ones.
    known: FxHashMap<ClassId, ClassId>,
    rows: Vec<RowValue>,
}

impl<'a, O: Side, N: Side> Ways<'a, O, N> {
    pub(super) fn new(old: &'a O, new: &'a N, moves: &'a Moves, node_ports_change: bool) -> Self {
        let sorted = |tables: &rustc_hash::FxHashSet<TableId>| {
            let mut tables: Vec<TableId> = tables.iter().copied().collect();
            tables.sort_unstable();
            tables
        };
        Self {
            old,
            new,
            moves,
            left: sorted(&moves.left),
            joined: sorted(&moves.joined),
            node_ports_change,
            decided: FxHashMap::default(),
            learnt: FxHashMap::default(),
            known: FxHashMap::default(),
            rows: Vec::new(),
        }
    }

    /// The rows that were made for ways; nobody needs them afterwards.
    pub(super) fn into_rows(self) -> Vec<RowValue> {
        self.rows
    }

    pub(super) fn of_peer(&mut self, change: &PeerChange) -> Way {
        let flags = |entry: Option<PeerEntry>| entry.map_or(0, |entry| entry.flags);
        self.of(Pair {
            old: PeerEntry { class: change.old_class, flags: flags(change.old) },
            new: PeerEntry { class: change.new_class, flags: flags(change.new) },
            prefers_late: change.new.is_none(),
        })
    }

    /// The class that a prefix has while the pods change.
    pub(super) fn of_block(&mut self, change: &BlockChange) -> ClassId {
        let way = self.of(Pair {
            old: PeerEntry { class: change.old_class, flags: 0 },
            new: PeerEntry { class: change.new_class, flags: 0 },
            prefers_late: change.new.is_none(),
        });
        match way {
            Way::Early => change.new_class,
            Way::Late => change.old_class,
            Way::Through(entry) => entry.class,
        }
    }

    fn of(&mut self, pair: Pair) -> Way {
        if let Some(way) = self.decided.get(&pair) {
            return *way;
        }
        let way = if self.node_ports_change && (pair.old.flags | pair.new.flags) & PeerFlags::NODE != 0 {
            // its own change would have to come between those of two node ports
            None
        } else if pair.prefers_late {
            self.late(pair).or_else(|| self.early(pair))
        } else {
            self.early(pair).or_else(|| self.late(pair))
        };
        let way = way.unwrap_or_else(|| self.through(pair));
        self.decided.insert(pair, way);
        way
    }

    /// Early is right if the tables that are left see the same in the new class as in the old one.
    fn early(&mut self, Pair { old, new, .. }: Pair) -> Option<Way> {
        if old.flags != new.flags && self.moves.leaves_egress() {
            return None;
        }
        let is_known = self.old.has_class(new.class);
        let learnt_as = self.learnt.get(&new.class).copied();
        for &table in &self.left {
            let before = self.old.row(table, old.class);
            let meanwhile = match (self.new.has_table(table), is_known, learnt_as) {
                (true, ..) => self.new.row(table, new.class),
                (false, true, _) => self.old.row(table, new.class),
                (false, false, Some(class)) => self.old.row(table, class),
                (false, false, None) => continue,
            };
            if before != meanwhile {
                return None;
            }
        }
        if !is_known && learnt_as.is_none() {
            self.learnt.insert(new.class, old.class);
            for &table in self.left.iter().filter(|table| !self.new.has_table(**table)) {
                let row = self.old.row(table, old.class);
                self.rows.extend(row.iter().flat_map(|row| row.values(table, new.class)));
            }
        }
        Some(Way::Early)
    }

    /// Late is right if the tables that are joined see the same in the old class as in the new one.
    fn late(&mut self, Pair { old, new, .. }: Pair) -> Option<Way> {
        if old.flags != new.flags && self.moves.joins_egress() {
            return None;
        }
        let is_known = self.new.has_class(old.class);
        let known_as = self.known.get(&old.class).copied();
        for &table in &self.joined {
            let after = self.new.row(self.moves.original(table), new.class);
            let meanwhile = match (self.old.has_table(table), is_known, known_as) {
                (true, ..) => self.old.row(table, old.class),
                (false, true, _) => self.new.row(self.moves.original(table), old.class),
                (false, false, Some(class)) => self.new.row(self.moves.original(table), class),
                (false, false, None) => continue,
            };
            if after != meanwhile {
                return None;
            }
        }
        if !is_known && known_as.is_none() {
            self.known.insert(old.class, new.class);
            for &table in self.joined.iter().filter(|table| !self.old.has_table(**table)) {
                let row = self.new.row(self.moves.original(table), new.class);
                self.rows.extend(row.iter().flat_map(|row| row.values(table, old.class)));
            }
        }
        Some(Way::Late)
    }

    /// An entry of its own, in which every table sees what it should. What flags say for all tables at once is said for
    /// each by itself: where a cluster IP closes every port without a front end, the row does, and node ports are
    /// front ends of the address's own (see `transition`).
    fn through(&mut self, pair: Pair) -> Way {
        let Pair { old, new, .. } = pair;
        let mut hasher = ContentHasher::new("transition");
        for entry in [old, new] {
            hasher.number(entry.class);
            hasher.number(u64::from(entry.flags));
        }
        let class = hasher.first_id(|id| self.old.has_class(id) || self.new.has_class(id));
        let keeps_node = shows_node_ports(old.flags) && shows_node_ports(new.flags) && !self.node_ports_change;
        let mut flags = old.flags & new.flags & PeerFlags::CLUSTER_IP;
        if old.flags | new.flags != 0 {
            flags |= PeerFlags::FRONT_END;
        }
        if keeps_node {
            flags |= PeerFlags::NODE;
        }
        let closes = |side: PeerEntry| side.flags & !flags & PeerFlags::CLUSTER_IP != 0;
        let mut rows: Vec<(TableId, Option<Row>)> = Vec::new();
        for &table in &self.left {
            let is_closed = closes(old) && self.moves.egress.contains(&table);
            let closed = || Some(closed_row(self.old.row_words(table)));
            rows.push((table, if is_closed { closed() } else { self.old.row(table, old.class) }));
        }
        for &table in self.joined.iter().filter(|table| !self.moves.left.contains(table)) {
            let original = self.moves.original(table);
            let is_closed = closes(new) && self.moves.egress.contains(&table);
            let closed = || Some(closed_row(self.new.row_words(original)));
            rows.push((table, if is_closed { closed() } else { self.new.row(original, new.class) }));
        }
        for table in self.new.tables() {
            if self.moves.left.contains(&table) || self.moves.joined.contains(&table) {
                continue;
            }
            // nobody waits for what comes there, and portless packets are better off with what was
            let keeps = closes(new) && self.old.has_table(table) && !shows_node_ports(old.flags);
            let row = match closes(new) {
                true if keeps => self.old.row(table, old.class),
                true => Some(closed_row(self.new.row_words(table))),
                false => self.new.row(table, new.class),
            };
            rows.push((table, row));
        }
        for (table, row) in rows {
            self.rows.extend(row.iter().flat_map(|row| row.values(table, class)));
        }
        Way::Through(PeerEntry { class, flags })
    }
}

/// Whether node ports decide about packets to an address with these flags, where it has no front end of its own.
pub(super) fn shows_node_ports(flags: u32) -> bool {
    flags & PeerFlags::NODE != 0 && flags & PeerFlags::CLUSTER_IP == 0
}
