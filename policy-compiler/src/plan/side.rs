//! Whole contents as one side of a difference.

use enforcer_abi::{
    Address, CHUNK_BITS, ClassId, EVERYBODY, FrontEndKey, FrontEndValue, Openness, PortKey, RowKey, RowValue, TableId,
};
use rustc_hash::FxHashSet;

use super::delta::{Side, TableParts};
use crate::{
    contents::Contents,
    table::{Bits, Row},
};

/// Contents, with the tables and classes that are in use.
pub(super) struct ContentsSide<'a> {
    contents: &'a Contents,
    tables: FxHashSet<TableId>,
    classes: FxHashSet<ClassId>,
}

impl<'a> ContentsSide<'a> {
    pub(super) fn new(contents: &'a Contents) -> Self {
        let uses = contents.pods.values().flat_map(|pod| [pod.ingress, pod.egress]);
        let of_peers = contents.peers.values().map(|peer| peer.class);
        Self {
            contents,
            tables: uses.flatten().map(|table| table.id).collect(),
            classes: of_peers.chain(contents.blocks.values().copied()).chain([EVERYBODY]).collect(),
        }
    }

    pub(super) fn contents(&self) -> &'a Contents {
        self.contents
    }

    /// Whether a packet may see a row.
    pub(super) fn shows(&self, key: &RowKey) -> bool {
        self.tables.contains(&key.table) && self.classes.contains(&key.class)
    }

    fn rows(&self, table: TableId) -> impl Iterator<Item = &'a RowValue> {
        let key = |class, chunk| RowKey { table, class, chunk, reserved: 0 };
        self.contents.rows.range(key(0, 0)..=key(ClassId::MAX, u32::MAX)).map(|(_, row)| row)
    }
}

impl Side for ContentsSide<'_> {
    fn has_table(&self, table: TableId) -> bool {
        self.tables.contains(&table)
    }

    fn tables(&self) -> Vec<TableId> {
        let mut tables: Vec<TableId> = self.tables.iter().copied().collect();
        tables.sort_unstable();
        tables
    }

    fn has_class(&self, class: ClassId) -> bool {
        self.classes.contains(&class)
    }

    fn row(&self, table: TableId, class: ClassId) -> Option<Row> {
        let key = |chunk| RowKey { table, class, chunk, reserved: 0 };
        let open = Openness(self.contents.rows.get(&key(0))?.open);
        let chunks = (0..).map_while(|chunk| self.contents.rows.get(&key(chunk)));
        Some(Row { bits: chunks.flat_map(|row| row.bits).collect::<Bits>(), open })
    }

    fn row_words(&self, table: TableId) -> usize {
        let parts = self.parts(table);
        let of_ports = parts.ports.iter().chain(parts.port_ranges.iter().map(|(_, port)| port));
        let last = of_ports.map(|port| port.class / CHUNK_BITS).max().unwrap_or(0);
        (last as usize + 1) * 2
    }

    fn parts(&self, table: TableId) -> TableParts {
        let port = |port, protocol| PortKey { table, port, protocol, reserved: [0; 5] };
        let ports = self.contents.ports.range(port(0, 0)..=port(u16::MAX, u8::MAX));
        let front_end = |address, port, protocol| FrontEndKey { table, address, port, protocol, reserved: [0; 5] };
        let last = front_end(Address([u8::MAX; 16]), u16::MAX, u8::MAX);
        let front_ends = self.contents.front_ends.range(front_end(Address::NONE, 0, 0)..=last);
        let of_table = self.contents.port_ranges.iter().filter(|(_, port)| port.key.table == table);
        TableParts {
            rows: self.rows(table).filter(|row| self.classes.contains(&row.key.class)).copied().collect(),
            ports: ports.map(|(_, port)| *port).collect(),
            port_ranges: of_table.map(|(key, port)| (*key, *port)).collect(),
            front_ends: front_ends.map(|(_, front_end)| *front_end).collect(),
        }
    }

    fn front_ends(&self, table: TableId, address: Address) -> Vec<FrontEndValue> {
        let key = |port, protocol| FrontEndKey { table, address, port, protocol, reserved: [0; 5] };
        let own = self.contents.front_ends.range(key(0, 0)..=key(u16::MAX, u8::MAX));
        own.map(|(_, front_end)| *front_end).collect()
    }
}
