//! What a transition starts from: a difference, and both sides of it.

use std::sync::Arc;

use enforcer_abi::{
    Address, ClassId, FrontEndKey, FrontEndValue, PortKey, PortRangeKey, PortValue, RowKey, RowValue, TableId,
};

use crate::{
    change::PodTables,
    class::blocks::BlockChange,
    table::{Bits, Row},
};

/// The class and flags of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerEntry {
    pub(crate) class: ClassId,
    pub(crate) flags: u32,
}

/// An entry of `PEERS` that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerChange {
    pub(crate) address: Address,
    pub(crate) old: Option<PeerEntry>,
    pub(crate) new: Option<PeerEntry>,
    /// What the maps say of the address, with or without an entry.
    pub(crate) old_class: ClassId,
    pub(crate) new_class: ClassId,
}

/// A pod of this node that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodChange {
    pub(crate) old: Option<PodTables>,
    pub(crate) new: Option<PodTables>,
}

/// A difference between two contents.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub(crate) peers: Vec<PeerChange>,
    pub(crate) blocks: Vec<BlockChange>,
    pub(crate) rows_in: Vec<RowValue>,
    pub(crate) rows_out: Vec<RowKey>,
    pub(crate) ports_in: Vec<PortValue>,
    pub(crate) ports_out: Vec<PortKey>,
    pub(crate) port_ranges_in: Vec<(PortRangeKey, PortValue)>,
    pub(crate) port_ranges_out: Vec<PortRangeKey>,
    pub(crate) front_ends_in: Vec<FrontEndValue>,
    pub(crate) front_ends_out: Vec<FrontEndKey>,
    pub(crate) endpoints_in: Vec<Address>,
    pub(crate) endpoints_out: Vec<Address>,
    pub(crate) pods: Vec<PodChange>,
    /// The pods from which something may have been taken: UIDs, in order.
    pub(crate) revoked: Vec<Arc<str>>,
}

/// One side of a difference: the tables that pods use and the classes that addresses have.
pub(crate) trait Side {
    /// Whether a pod uses the table.
    fn has_table(&self, table: TableId) -> bool;
    /// All tables that pods use.
    fn tables(&self) -> Vec<TableId>;
    /// Whether an entry of `PEERS` or `BLOCKS` has the class.
    fn has_class(&self, class: ClassId) -> bool;
    /// The row of a table that has it and a class that it has.
    fn row(&self, table: TableId, class: ClassId) -> Option<Row>;
    /// The number of words of a table's rows.
    fn row_words(&self, table: TableId) -> usize;
    /// Everything that belongs to a table.
    fn parts(&self, table: TableId) -> TableParts;
    /// The front ends of a table, of one address only.
    fn front_ends(&self, table: TableId, address: Address) -> Vec<FrontEndValue>;
}

/// Everything that belongs to a table.
#[derive(Debug, Default)]
pub(crate) struct TableParts {
    pub(crate) rows: Vec<RowValue>,
    pub(crate) ports: Vec<PortValue>,
    pub(crate) port_ranges: Vec<(PortRangeKey, PortValue)>,
    pub(crate) front_ends: Vec<FrontEndValue>,
}

/// A row that opens nothing.
pub(crate) fn closed_row(words: usize) -> Row {
    Row { bits: Bits::from_elem(0, words), open: enforcer_abi::Openness::default() }
}
