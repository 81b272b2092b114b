//! Make before break: puts a [`Delta`] in an order in which every packet, between any two writes, is judged by what was
//! before or by what comes.
//!
//! The law: until a pod has changed tables, a table that it leaves shows what was; when it changes, a table that it joins
//! shows what comes; all other tables show either, for each packet. What a table shows is its rows for the classes that
//! addresses have, and its front ends, as far as the addresses' flags let them be seen.
//!
//! Classes and flags of an address are one write for all tables. It takes its last entry before the pods change (and the
//! tables that are left learn the class) or after them (and the tables that are joined know the old class), where nobody
//! sees the difference; else it goes through an entry made for the purpose, under which each table by itself says what
//! the address is to it ([`Way`]). A table that some pods leave and others join would have to show two things at once:
//! those who join go through a copy of it.
//!
//! Within what is shown, whatever decides first is written first and removed last: front ends of an address before its
//! entry and before the node ports behind them, and away after both.

use enforcer_abi::{Address, ClassId, FrontEndKey, Op, PeerValue, RowKey, RowValue, TableId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    delta::{Delta, PeerEntry, PodChange, Side},
    ways::{Way, Ways, shows_node_ports},
};
use crate::change::{PodTables, PodUpdate, Step, TableUse};

/// The tables of pods that change.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Some pod leaves them for another table, or to be judged by none.
    pub(super) left: FxHashSet<TableId>,
    /// Some pod joins them, and must find what comes; copies instead of the tables that are `copied`.
    pub(super) joined: FxHashSet<TableId>,
    /// Those of `left` and `joined` that judge egress, for which Services count.
    pub(super) egress: FxHashSet<TableId>,
    /// Copies by the tables that they are of.
    pub(super) copied: FxHashMap<TableId, TableId>,
}

impl Moves {
    fn new(pods: &[PodChange], old_side: &impl Side) -> Self {
        let mut moves = Self::default();
        for PodChange { old, new } in pods {
            let Some(new) = new else { continue };
            for is_egress in [false, true] {
                let table = |pod: &PodTables| if is_egress { pod.egress } else { pod.ingress }.map(|table| table.id);
                let (before, after) = (old.as_ref().and_then(table), table(new));
                if before == after {
                    continue;
                }
                // a new pod was held so far: any old verdict will do for it, but not that of a table half made
                let joins = after.filter(|table| old.is_some() || !old_side.has_table(*table));
                moves.left.extend(before);
                moves.joined.extend(joins);
                if is_egress {
                    moves.egress.extend(before.into_iter().chain(joins));
                }
            }
        }
        moves
    }

    pub(super) fn leaves_egress(&self) -> bool {
        self.left.iter().any(|table| self.egress.contains(table))
    }

    pub(super) fn joins_egress(&self) -> bool {
        self.joined.iter().any(|table| self.egress.contains(table))
    }

    /// The table that a copy is of; itself otherwise.
    pub(super) fn original(&self, table: TableId) -> TableId {
        self.copied.iter().find(|(_, copy)| **copy == table).map_or(table, |(original, _)| *original)
    }
}

/// The steps of a difference.
pub(crate) fn steps(delta: &Delta, old: &impl Side, new: &impl Side) -> Vec<Step> {
    let mut moves = Moves::new(&delta.pods, old);
    copy_tables(&mut moves, delta, old, new);
    let mut ways = Ways::new(old, new, &moves, node_ports_change(delta, old, new));
    let peer_ways: Vec<Way> = delta.peers.iter().map(|change| ways.of_peer(change)).collect();
    let block_ways: Vec<ClassId> = delta.blocks.iter().map(|change| ways.of_block(change)).collect();
    let made_rows = ways.into_rows();
    let (early, late, free) = (Vec::new(), Vec::new(), Vec::new());
    let mut order = Order { delta, moves: &moves, old, new, node_port_copies: FxHashSet::default(), early, late, free };
    order.write_tables(&made_rows);
    order.write_copies();
    order.copy_node_ports(&peer_ways);
    order.put_front_ends();
    order.write_entries_and_node_ports(&peer_ways, &block_ways);
    order.delete_front_ends();
    order.late.extend(delta.endpoints_out.iter().map(|address| Op::DeleteEndpoint(*address)));
    order.free_tables(&made_rows);
    order.into_steps()
}

/// Whether a node port of a table changes that was there and stays.
fn node_ports_change(delta: &Delta, old: &impl Side, new: &impl Side) -> bool {
    let changed = delta.front_ends_in.iter().map(|front_end| &front_end.key).chain(&delta.front_ends_out);
    changed.filter(|key| is_node_port(key)).any(|key| old.has_table(key.table) && new.has_table(key.table))
}

/// Where a table that is left and joined would have to show two things at once, those who join get a copy.
fn copy_tables(moves: &mut Moves, delta: &Delta, old: &impl Side, new: &impl Side) {
    let both: Vec<TableId> = moves.left.intersection(&moves.joined).copied().collect();
    for table in both {
        let classes = delta.peers.iter().map(|change| (change.old_class, change.new_class));
        let mut classes = classes.chain(delta.blocks.iter().map(|change| (change.old_class, change.new_class)));
        let flags = |entry: Option<PeerEntry>| entry.map_or(0, |entry| entry.flags);
        let is_egress = moves.egress.contains(&table);
        let front_ends_change = is_egress
            && (delta.peers.iter().any(|change| flags(change.old) != flags(change.new))
                || delta.front_ends_in.iter().any(|front_end| front_end.key.table == table)
                || delta.front_ends_out.iter().any(|key| key.table == table));
        if front_ends_change || classes.any(|(before, after)| old.row(table, before) != new.row(table, after)) {
            let mut hasher = crate::content_id::ContentHasher::new("copy");
            hasher.number(table);
            let copy = hasher.first_id(|id| old.has_table(id) || new.has_table(id));
            moves.copied.insert(table, copy);
            moves.joined.remove(&table);
            moves.joined.insert(copy);
            if is_egress {
                moves.egress.insert(copy);
            }
        }
    }
}

struct Order<'a, O, N> {
    delta: &'a Delta,
    moves: &'a Moves,
    old: &'a O,
    new: &'a N,
    /// Front ends that stand in for node ports while pods change.
    node_port_copies: FxHashSet<FrontEndKey>,
    /// Before the pods change.
    early: Vec<Op>,
    /// After them.
    late: Vec<Op>,
    free: Vec<Op>,
}

impl<O: Side, N: Side> Order<'_, O, N> {
    fn write_tables(&mut self, made_rows: &[RowValue]) {
        let delta = self.delta;
        self.early.extend(delta.endpoints_in.iter().map(|address| Op::PutEndpoint(*address)));
        self.early.extend(delta.ports_in.iter().map(|value| Op::PutPort(*value)));
        self.early.extend(delta.port_ranges_in.iter().map(|(key, value)| Op::PutPortRange(*key, *value)));
        self.early.extend(delta.rows_in.iter().chain(made_rows).map(|row| Op::PutRow(*row)));
    }

    fn write_copies(&mut self) {
        for (&original, &copy) in &self.moves.copied {
            let parts = self.new.parts(original);
            for mut row in parts.rows {
                row.key.table = copy;
                self.early.push(Op::PutRow(row));
                self.free.push(Op::DeleteRow(row.key));
            }
            for mut port in parts.ports {
                port.key.table = copy;
                self.early.push(Op::PutPort(port));
                self.free.push(Op::DeletePort(port.key));
            }
            for (mut key, mut value) in parts.port_ranges {
                key.table = [(copy >> 32) as u32, (copy & 0xffff_ffff) as u32];
                value.key.table = copy;
                self.early.push(Op::PutPortRange(key, value));
                self.free.push(Op::DeletePortRange(key));
            }
            for mut front_end in parts.front_ends {
                front_end.key.table = copy;
                self.early.push(Op::PutFrontEnd(front_end));
                self.free.push(Op::DeleteFrontEnd(front_end.key));
            }
        }
    }

    /// An address on its way through an entry of its own is no node meanwhile, unless it was and will be: each table gets
    /// the node ports that it should see there as front ends of the address.
    fn copy_node_ports(&mut self, ways: &[Way]) {
        let (moves, old, new) = (self.moves, self.old, self.new);
        for (change, way) in self.delta.peers.iter().zip(ways) {
            let Way::Through(meanwhile) = way else { continue };
            let needs_copies = |side: Option<PeerEntry>| {
                side.is_some_and(|entry| shows_node_ports(entry.flags)) && !shows_node_ports(meanwhile.flags)
            };
            if needs_copies(change.old) {
                for &table in moves.left.intersection(&moves.egress) {
                    self.copy_node_ports_of(old, table, table, change.address);
                }
            }
            if needs_copies(change.new) {
                let others = new.tables().into_iter().filter(|table| !moves.left.contains(table));
                for table in others.chain(moves.copied.values().copied()) {
                    self.copy_node_ports_of(new, moves.original(table), table, change.address);
                }
            }
        }
    }

    /// Those that one side shows at an address, but for its own front ends there, as front ends for `table`.
    fn copy_node_ports_of(&mut self, side: &impl Side, original: TableId, table: TableId, address: Address) {
        let own = side.front_ends(original, address);
        for mut port in side.front_ends(original, address.node_port()) {
            (port.key.address, port.key.table) = (address, table);
            if !own.iter().any(|own| (own.key.port, own.key.protocol) == (port.key.port, port.key.protocol)) {
                self.early.push(Op::PutFrontEnd(port));
                self.node_port_copies.insert(port.key);
            }
        }
    }

    /// Front ends of addresses come before the addresses' entries change and the node ports behind them.
    fn put_front_ends(&mut self) {
        for front_end in self.delta.front_ends_in.iter().filter(|front_end| !is_node_port(&front_end.key)) {
            self.phase(front_end.key.table).push(Op::PutFrontEnd(*front_end));
        }
    }

    /// Where changes of what a table shows belong: not before the pods have left it.
    fn phase(&mut self, table: TableId) -> &mut Vec<Op> {
        if self.moves.left.contains(&table) { &mut self.late } else { &mut self.early }
    }

    /// Entries take the classes and flags that they have meanwhile, then node ports change, then entries take their last
    /// ones: so no node port changes under an address that is about to show it, or not to.
    fn write_entries_and_node_ports(&mut self, peer_ways: &[Way], block_ways: &[ClassId]) {
        let delta = self.delta;
        let mut last = Vec::new();
        for (change, way) in delta.peers.iter().zip(peer_ways) {
            let put = |entry: PeerEntry| {
                let PeerEntry { class, flags } = entry;
                Op::PutPeer(PeerValue { address: change.address, class, flags, reserved: 0 })
            };
            let old = change.old.unwrap_or(PeerEntry { class: change.old_class, flags: 0 });
            let new = change.new.unwrap_or(PeerEntry { class: change.new_class, flags: 0 });
            let meanwhile = match way {
                Way::Early => new,
                Way::Late => old,
                Way::Through(entry) => *entry,
            };
            // what has no entry and keeps its class needs none, unless the trie moves under it
            let stays = change.old == Some(meanwhile)
                || (change.old.is_none() && matches!(way, Way::Late) && delta.blocks.is_empty());
            if !stays {
                self.early.push(put(meanwhile));
            }
            last.extend(change.new.filter(|entry| stays || *entry != meanwhile).map(put));
        }
        let late_blocks = self.write_blocks(block_ways);
        self.write_node_ports();
        self.late.extend(last);
        self.late.extend(late_blocks);
        let gone = delta.peers.iter().filter(|change| change.new.is_none());
        self.late.extend(gone.map(|change| Op::DeletePeer(change.address)));
    }

    /// Longer prefixes are written before the shorter ones that would show through, and removed after them. Answers with
    /// what is to be done after the pods.
    fn write_blocks(&mut self, ways: &[ClassId]) -> Vec<Op> {
        let mut late = Vec::new();
        let mut changes: Vec<_> = self.delta.blocks.iter().zip(ways).collect();
        changes.sort_unstable_by_key(|(change, _)| std::cmp::Reverse(change.key));
        for (change, meanwhile) in &changes {
            if change.old != Some(**meanwhile) {
                self.early.push(Op::PutBlock(change.key, **meanwhile));
            }
            if let Some(new) = change.new
                && new != **meanwhile
            {
                late.push(Op::PutBlock(change.key, new));
            }
        }
        let gone = changes.iter().rev().filter(|(change, _)| change.new.is_none());
        late.extend(gone.map(|(change, _)| Op::DeleteBlock(change.key)));
        late
    }

    fn write_node_ports(&mut self) {
        for front_end in self.delta.front_ends_in.iter().filter(|front_end| is_node_port(&front_end.key)) {
            self.phase(front_end.key.table).push(Op::PutFrontEnd(*front_end));
        }
        let vanish = self.delta.front_ends_out.iter().filter(|key| is_node_port(key));
        for key in vanish.filter(|key| self.new.has_table(key.table)) {
            self.phase(key.table).push(Op::DeleteFrontEnd(*key));
        }
    }

    /// Front ends of addresses go after everything else has changed, but those who join a table must not see them. Copies
    /// of node ports go last of all, unless the address has such a front end of its own by now.
    fn delete_front_ends(&mut self) {
        let delta = self.delta;
        let own: FxHashSet<FrontEndKey> = delta.front_ends_in.iter().map(|front_end| front_end.key).collect();
        let mut copies: Vec<FrontEndKey> = self.node_port_copies.difference(&own).copied().collect();
        copies.sort_unstable();
        let vanish =
            delta.front_ends_out.iter().filter(|key| !is_node_port(key) && !self.node_port_copies.contains(key));
        for key in vanish.filter(|key| self.new.has_table(key.table)) {
            let phase = if self.moves.joined.contains(&key.table) { &mut self.early } else { &mut self.late };
            phase.push(Op::DeleteFrontEnd(*key));
        }
        self.late.extend(copies.into_iter().map(Op::DeleteFrontEnd));
    }

    fn free_tables(&mut self, made_rows: &[RowValue]) {
        let delta = self.delta;
        let made: FxHashSet<RowKey> = made_rows.iter().map(|row| row.key).collect();
        let out = delta.rows_out.iter().filter(|key| !made.contains(key));
        self.free.extend(made_rows.iter().map(|row| &row.key).chain(out).map(|key| Op::DeleteRow(*key)));
        self.free.extend(delta.ports_out.iter().map(|key| Op::DeletePort(*key)));
        self.free.extend(delta.port_ranges_out.iter().map(|key| Op::DeletePortRange(*key)));
        let gone = delta.front_ends_out.iter().filter(|key| !self.new.has_table(key.table));
        self.free.extend(gone.map(|key| Op::DeleteFrontEnd(*key)));
    }

    fn into_steps(mut self) -> Vec<Step> {
        let (first, second) = self.pod_updates();
        let mut steps = Vec::new();
        if first.is_empty() {
            self.early.append(&mut self.late);
        }
        let write = |ops: Vec<Op>, steps: &mut Vec<Step>| {
            if !ops.is_empty() {
                steps.push(Step::Write(ops));
            }
        };
        write(self.early, &mut steps);
        for updates in [first, second] {
            if !updates.is_empty() {
                steps.push(Step::Pods(updates));
                write(std::mem::take(&mut self.late), &mut steps);
            }
        }
        if !self.delta.revoked.is_empty() {
            steps.push(Step::RaiseEpoch(self.delta.revoked.clone()));
        }
        if !self.free.is_empty() {
            steps.push(Step::Free(self.free));
        }
        steps
    }

    /// The pods' changes, and those that follow once the copies have served.
    fn pod_updates(&self) -> (Vec<PodUpdate>, Vec<PodUpdate>) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for PodChange { old, new } in &self.delta.pods {
            let Some(new) = new else {
                first.extend(old.iter().map(|old| PodUpdate::Delete { uid: old.uid.clone() }));
                continue;
            };
            let through_copy = |before: Option<TableUse>, after: Option<TableUse>| {
                let after = after?;
                let stays = before.is_some_and(|before| before.id == after.id);
                let copy = self.moves.copied.get(&after.id).filter(|_| old.is_some() && !stays);
                Some(TableUse { id: copy.copied().unwrap_or(after.id), ..after })
            };
            let mut meanwhile = new.clone();
            meanwhile.ingress = through_copy(old.as_ref().and_then(|old| old.ingress), new.ingress);
            meanwhile.egress = through_copy(old.as_ref().and_then(|old| old.egress), new.egress);
            if meanwhile != *new {
                second.push(PodUpdate::Put(new.clone()));
            }
            first.push(PodUpdate::Put(meanwhile));
        }
        (first, second)
    }
}

fn is_node_port(key: &FrontEndKey) -> bool {
    key.address == key.address.node_port()
}
