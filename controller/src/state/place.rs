//! What an operation writes to: the key by which a later one overtakes it.

use enforcer_abi::{Address, BlockKey, FrontEndKey, Op, PortKey, PortRangeKey, RowKey, TableId};

/// A map and a key in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Peer(Address),
    Block(BlockKey),
    Port(PortKey),
    PortRange(PortRangeKey),
    Row(RowKey),
    FrontEnd(FrontEndKey),
    Endpoint(Address),
}

impl Place {
    pub(super) fn of(op: &Op) -> Self {
        match op {
            Op::PutPeer(value) => Self::Peer(value.address),
            Op::DeletePeer(address) => Self::Peer(*address),
            Op::PutBlock(key, _) | Op::DeleteBlock(key) => Self::Block(*key),
            Op::PutPort(value) => Self::Port(value.key),
            Op::DeletePort(key) => Self::Port(*key),
            Op::PutPortRange(key, _) | Op::DeletePortRange(key) => Self::PortRange(*key),
            Op::PutRow(value) => Self::Row(value.key),
            Op::DeleteRow(key) => Self::Row(*key),
            Op::PutFrontEnd(value) => Self::FrontEnd(value.key),
            Op::DeleteFrontEnd(key) => Self::FrontEnd(*key),
            Op::PutEndpoint(address) | Op::DeleteEndpoint(address) => Self::Endpoint(*address),
        }
    }

    /// The one table that it is about; `None` if all tables depend on it.
    pub(super) fn table(&self) -> Option<TableId> {
        match self {
            Self::Peer(_) | Self::Block(_) | Self::Endpoint(_) => None,
            Self::Port(key) => Some(key.table),
            Self::PortRange(key) => Some(u64::from(key.table[0]) << 32 | u64::from(key.table[1])),
            Self::Row(key) => Some(key.table),
            Self::FrontEnd(key) => Some(key.table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_a_port_range() {
        let key = PortRangeKey::new(0x1234_5678_9abc_def0, 6, 80, 16);
        assert_eq!(Place::PortRange(key).table(), Some(0x1234_5678_9abc_def0));
    }
}
