//! Front ends are judged by the node's egress tables: by their back ends, at the back ends' ports.

use std::collections::BTreeSet;

use enforcer_abi::{Address, ClassId, Direction, FrontEndState, FrontEndValue, TableId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Batch, Compiler};
use crate::{
    change::Report,
    class::PeerId,
    front_end::{self, FrontEndId, Target, Unjudged},
    model::ObjectName,
    plan::Delta,
    table::{Row, Table, is_set},
};

/// The rows of a table that were needed so far.
type Rows = FxHashMap<ClassId, Option<Row>>;

/// Front ends by their back ends.
type Groups<'a> = FxHashMap<&'a [Target], Vec<FrontEndId>>;

/// Services some of whose back ends are refused, as they were last reported.
pub(super) type Mixed = BTreeSet<(ObjectName, TableId)>;

impl Compiler {
    pub(super) fn judge_front_ends(&mut self, batch: &mut Batch) {
        let changed = self.services.refresh(&self.addresses);
        let mut states: Vec<(TableId, FrontEndId, Option<FrontEndState>)> = Vec::new();
        // many front ends have back ends that are the same to a table, so those are judged once
        let mut groups: Groups<'_> = Groups::default();
        for Unjudged { id, .. } in &changed {
            groups.entry(&self.services.front_end(*id).targets).or_default().push(*id);
        }
        for table in self.concerned(&changed) {
            self.judge(table, &groups, &mut Rows::default(), &mut states);
        }
        for table in self.tables.came().filter(|table| table.rules.direction == Direction::Egress) {
            let mut rows = Rows::default();
            let groups = self.groups_with_entry(table, &mut rows);
            self.judge(table, &groups, &mut rows, &mut states);
        }
        let may_be_mixed = !changed.is_empty() || !states.is_empty() || self.tables.went().next().is_some();
        for (table, id, state) in states {
            self.tables.set_front_end(table, id, state);
        }
        if may_be_mixed {
            self.report_mixed(batch);
        }
        batch.front_ends = changed.into_iter().map(|front_end| front_end.id).collect();
    }

    /// The tables that were there before and may see front ends otherwise than before. To a table that asks about none of
    /// the peers behind a front end, before or now, they all are everybody: it sees which ports they have, no more.
    fn concerned(&self, changed: &[Unjudged]) -> impl Iterator<Item = &Table> {
        let ids: Vec<TableId> = if changed.iter().any(|front_end| front_end.for_all) {
            self.tables.used().map(|table| table.id).collect()
        } else {
            let targets = changed.iter().flat_map(|front_end| {
                front_end.old_targets.iter().chain(&self.services.front_end(front_end.id).targets)
            });
            let classes: FxHashSet<ClassId> = targets.map(|(class, ..)| *class).collect();
            let peers: FxHashSet<PeerId> =
                classes.iter().flat_map(|class| self.classes.members(*class)).copied().collect();
            self.peers.tables(peers.iter())
        };
        let stays = |id: &TableId| self.tables.was_used(*id) && self.tables.is_used(*id);
        let tables = ids.into_iter().filter(stays).filter_map(|id| Some(&self.tables.get(id)?.table));
        tables.filter(|table| table.rules.direction == Direction::Egress)
    }

    /// Adds to `states` what is otherwise than a table's entries say.
    fn judge(
        &self,
        table: &Table,
        groups: &Groups<'_>,
        rows: &mut Rows,
        states: &mut Vec<(TableId, FrontEndId, Option<FrontEndState>)>,
    ) {
        for (targets, front_ends) in groups {
            let open = targets.iter().filter(|target| self.opens(table, target, rows)).count();
            for &id in front_ends {
                let state = self.state(id, open);
                if self.tables.front_end(table.id, id) != state {
                    states.push((table.id, id, state));
                }
            }
        }
    }

    /// The front ends that need an entry in a table that is new.
    fn groups_with_entry(&self, table: &Table, rows: &mut Rows) -> Groups<'_> {
        let mut groups = Groups::default();
        let classes = self.peers.classes(&table.peers);
        let to_everybody = |port, protocol| is_set(&table.everybody.bits, table.port_class(protocol, port));
        for id in self.services.with_entry(&classes, to_everybody, |target| self.opens(table, target, rows)) {
            groups.entry(&self.services.front_end(id).targets).or_default().push(id);
        }
        groups
    }

    /// The state of a front end of whose targets so many are open. `None` where no entry is needed: at a cluster IP, which
    /// is closed where nothing says otherwise.
    fn state(&self, id: FrontEndId, open: usize) -> Option<FrontEndState> {
        if !self.services.is_used(id) {
            return None;
        }
        match open {
            0 => self.services.is_spelt_out(id).then_some(FrontEndState::Closed),
            open if open == self.services.front_end(id).targets.len() => Some(FrontEndState::Open),
            _ => Some(FrontEndState::Mixed),
        }
    }

    fn opens(&self, table: &Table, &(class, port, protocol): &Target, rows: &mut Rows) -> bool {
        let row = rows.entry(class).or_insert_with(|| table.row(self.classes.members(class)));
        is_set(&row.as_ref().unwrap_or(&table.everybody).bits, table.port_class(protocol, port))
    }

    /// Reports front ends that have become mixed, and Services none of whose front ends is any more.
    fn report_mixed(&mut self, batch: &mut Batch) {
        for (table, id) in self.tables.newly_mixed() {
            let (address, port, protocol) = self.services.front_end(id).name;
            for (service, back_ends) in self.services.users(id) {
                let Some(entry) = self.tables.get(table) else { continue };
                let mut rows = Rows::default();
                let mut refused: Vec<Address> = back_ends
                    .into_iter()
                    .map(|(address, port)| (self.addresses.get(address), port))
                    .filter(|(end, port)| !self.opens(&entry.table, &(end.class, *port, protocol), &mut rows))
                    .map(|(end, _)| end.address)
                    .collect();
                refused.sort_unstable();
                let Some(closed_by) = refused.first() else { continue };
                self.mixed.insert((service.clone(), table));
                batch.reports.push(Report::MixedService {
                    service: service.clone(),
                    address: (address != address.node_port()).then(|| address.into()),
                    port,
                    closed_by: (*closed_by).into(),
                    table,
                });
            }
        }
        let is_mixed = |(service, table): &(ObjectName, TableId)| {
            let of_service = self.services.of_service(service);
            of_service.iter().any(|id| self.tables.front_end(*table, *id) == Some(FrontEndState::Mixed))
        };
        let over: Vec<_> = self.mixed.iter().filter(|mixed| !is_mixed(mixed)).cloned().collect();
        for mixed in over {
            self.mixed.remove(&mixed);
            batch.reports.push(Report::ServiceUnmixed { service: mixed.0, table: mixed.1 });
        }
    }

    pub(super) fn add_front_ends(&self, delta: &mut Delta) {
        for (table, id, before, now) in self.tables.front_end_changes() {
            let name = self.services.front_end(id).name;
            match (before, now) {
                (_, Some(state)) => delta.front_ends_in.push(front_end::value(table, name, state)),
                (Some(_), None) => delta.front_ends_out.push(front_end::key(table, name)),
                (None, None) => {}
            }
        }
        for (table, id) in self.tables.front_ends_gone() {
            delta.front_ends_out.push(front_end::key(table, self.services.front_end(id).name));
        }
    }

    /// Tables that stay and of which a front end may refuse what it, or the address behind it, allowed.
    pub(super) fn closing_tables(&self, delta: &Delta) -> impl Iterator<Item = TableId> {
        let is_egress = |table: &Table| table.rules.direction == Direction::Egress;
        let flags_change = delta
            .peers
            .iter()
            .any(|change| change.old.map_or(0, |old| old.flags) != change.new.map_or(0, |new| new.flags));
        let judge_egress =
            self.tables.used().filter(move |table| flags_change && is_egress(table)).map(|table| table.id);
        let closing = self.tables.front_end_changes().filter(|(_, id, before, now)| {
            // without an entry, a cluster IP is closed and the rest is judged by its class
            let (address, ..) = self.services.front_end(*id).name;
            let is_cluster_ip = || self.addresses.find(address).is_some_and(|entry| entry.cluster_ips > 0);
            match (before, now) {
                (Some(before), Some(now)) => now < before,
                (Some(before), None) => *before > FrontEndState::Closed,
                (None, Some(now)) => *now < FrontEndState::Open && !is_cluster_ip(),
                (None, None) => false,
            }
        });
        let tables = judge_egress.chain(closing.map(|(table, ..)| table));
        tables.filter(|table| self.tables.was_used(*table) && self.tables.is_used(*table))
    }

    /// The front ends of one address as a table sees or saw them.
    pub(super) fn front_ends_at(&self, table: TableId, address: Address, before: bool) -> Vec<FrontEndValue> {
        let state = |id| {
            if before { self.tables.front_end_before(table, id) } else { self.tables.front_end(table, id) }
        };
        let front_ends = self.services.at(address);
        front_ends.filter_map(|(id, front_end)| Some(front_end::value(table, front_end.name, state(id)?))).collect()
    }

    /// The front ends that a table has entries for.
    pub(super) fn front_ends_of(&self, table: TableId) -> impl Iterator<Item = FrontEndValue> {
        let front_ends = self.tables.front_ends(table);
        front_ends.map(move |(id, state)| front_end::value(table, self.services.front_end(id).name, state))
    }

    /// Ends the batch.
    pub(super) fn collect_front_ends(&mut self, batch: &Batch) {
        for id in &batch.front_ends {
            self.services.forget_front_end(*id);
        }
    }
}
