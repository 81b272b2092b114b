//! The state as it is: the maps' whole contents, the node's pods, and the look-ups of a walk.

use std::sync::Arc;

use enforcer_abi::{
    Address, ClassId, FrontEndKey, FrontEndValue, Op, PeerValue, PortKey, PortValue, RowKey, RowValue, TableId,
};

use super::Compiler;
use crate::{
    change::PodTables,
    contents::Contents,
    front_end,
    model::{ObjectName, Protocol},
    table::Table,
    walk::Lookup,
};

impl Compiler {
    /// The pods of this node, by UID.
    #[must_use]
    pub fn pods(&self) -> Vec<PodTables> {
        let mut pods: Vec<PodTables> = self.local_pods.values().filter_map(|pod| pod.sent.clone()).collect();
        pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        pods
    }

    /// The policies that isolate each pod of this node, by its UID: for ingress, for egress, each in the order in which
    /// they are weighed.
    pub fn isolating(&self) -> impl Iterator<Item = (&Arc<str>, [Vec<&ObjectName>; 2])> {
        self.local_pods.values().filter_map(|pod| {
            let policies = self.local_kinds.get(&pod.kind)?.policies.iter().map(|id| self.policies.get(*id));
            let ingress = policies.clone().filter(|policy| policy.ingress.is_some()).map(|policy| &policy.name);
            let egress = policies.filter(|policy| policy.egress.is_some()).map(|policy| &policy.name);
            Some((&pod.uid, [ingress.collect(), egress.collect()]))
        })
    }

    /// Everything that belongs in the kernel's maps now.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        let mut from = Some(TableCursor::default());
        while let Some(cursor) = from {
            let (ops, next) = self.writes(cursor, usize::MAX);
            ops.iter().for_each(|op| contents.apply(op));
            from = next;
        }
        contents.pods = self.pods().into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        contents
    }

    /// Everything that belongs in the kernel's maps but for the pods, as the writes that put it there: about as many as
    /// `limit` says from `from` on, all prefixes or a whole table at least, and where to go on; `None` at the end.
    #[must_use]
    pub fn writes(&self, from: TableCursor, limit: usize) -> (Vec<Op>, Option<TableCursor>) {
        let mut ops = Vec::new();
        match from {
            TableCursor::Addresses(first) => {
                for entry in self.addresses.from(first) {
                    if ops.len() >= limit {
                        return (ops, Some(TableCursor::Addresses(entry.address)));
                    }
                    ops.extend(entry.sent_value().map(Op::PutPeer));
                    ops.extend(entry.sent_as_endpoint.then_some(Op::PutEndpoint(entry.address)));
                }
                (ops, Some(TableCursor::Blocks))
            }
            TableCursor::Blocks => {
                ops.extend(self.blocks.sent().map(|(key, class)| Op::PutBlock(key, class)));
                (ops, Some(TableCursor::Tables(0)))
            }
            TableCursor::Tables(first) => {
                let mut tables: Vec<&Table> = self.tables.used().filter(|table| table.id >= first).collect();
                tables.sort_unstable_by_key(|table| table.id);
                for table in tables {
                    if ops.len() >= limit {
                        return (ops, Some(TableCursor::Tables(table.id)));
                    }
                    self.write_table(table, &mut ops);
                }
                (ops, None)
            }
        }
    }

    fn write_table(&self, table: &Table, ops: &mut Vec<Op>) {
        ops.extend(table.ports().map(Op::PutPort));
        ops.extend(table.port_ranges().map(|(key, value)| Op::PutPortRange(key, value)));
        ops.extend(self.front_ends_of(table.id).map(Op::PutFrontEnd));
        for (id, class) in self.classes.sent() {
            let row = table.row(&class.members);
            ops.extend(row.iter().flat_map(|row| row.values(table.id, id)).map(Op::PutRow));
        }
    }
}

/// How far [`Compiler::writes`] has come. The default is the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableCursor {
    /// Addresses from this one on.
    Addresses(Address),
    /// The prefixes.
    Blocks,
    /// Tables from this one on.
    Tables(TableId),
}

impl Default for TableCursor {
    fn default() -> Self {
        Self::Addresses(Address::NONE)
    }
}

impl Lookup for Compiler {
    fn peer(&self, address: Address) -> Option<PeerValue> {
        self.addresses.find(address)?.sent_value()
    }

    fn block(&self, address: Address) -> Option<ClassId> {
        Some(self.blocks.class(address))
    }

    fn port(&self, key: PortKey) -> Option<PortValue> {
        self.tables.get(key.table)?.table.ports().find(|value| value.key == key)
    }

    fn port_range(&self, table: TableId, protocol: u8, port: u16) -> Option<PortValue> {
        let protocol = Protocol::ALL.into_iter().find(|known| known.number() == protocol)?;
        self.tables.get(table)?.table.port_range(protocol, port)
    }

    fn row(&self, key: RowKey) -> Option<RowValue> {
        let row = self.tables.get(key.table)?.table.row(self.classes.members(key.class))?;
        row.values(key.table, key.class).nth(key.chunk as usize)
    }

    fn front_end(&self, key: FrontEndKey) -> Option<FrontEndValue> {
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == key.protocol)?;
        let name = (key.address, key.port, protocol);
        let state = self.tables.front_end(key.table, self.services.find(name)?)?;
        Some(front_end::value(key.table, name, state))
    }
}
