//! The maps' contents, hashed, so that a walk costs as little as in the kernel.

use enforcer_abi::{
    Address, BlockKey, ClassId, EVERYBODY, FrontEndKey, FrontEndValue, PeerValue, PortKey, PortRangeKey, PortValue,
    RowKey, RowValue, TableId,
};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

use crate::{
    contents::Contents,
    walk::{Lookup, longest_block, longest_port_range},
};

#[derive(Debug)]
pub(super) struct Tables {
    peers: FxHashMap<Address, PeerValue>,
    blocks: BTreeMap<BlockKey, ClassId>,
    ports: FxHashMap<PortKey, PortValue>,
    port_ranges: FxHashMap<PortRangeKey, PortValue>,
    rows: FxHashMap<RowKey, RowValue>,
}

impl Tables {
    pub(super) fn new(contents: Contents) -> Self {
        Self {
            peers: contents.peers.into_iter().collect(),
            blocks: contents.blocks,
            ports: contents.ports.into_iter().collect(),
            port_ranges: contents.port_ranges.into_iter().collect(),
            rows: contents.rows.into_iter().collect(),
        }
    }

    /// The class of an address.
    pub(super) fn class(&self, address: Address) -> ClassId {
        self.peer(address).map(|peer| peer.class).or_else(|| self.block(address)).unwrap_or(EVERYBODY)
    }
}

impl Lookup for Tables {
    fn peer(&self, address: Address) -> Option<PeerValue> {
        self.peers.get(&address).copied()
    }

    fn block(&self, address: Address) -> Option<ClassId> {
        longest_block(&self.blocks, address, 128)
    }

    fn port(&self, key: PortKey) -> Option<PortValue> {
        self.ports.get(&key).copied()
    }

    fn port_range(&self, table: TableId, protocol: u8, port: u16) -> Option<PortValue> {
        longest_port_range(table, protocol, port, |key| self.port_ranges.get(&key).copied())
    }

    fn row(&self, key: RowKey) -> Option<RowValue> {
        self.rows.get(&key).copied()
    }

    /// Services are not compiled here; their front ends are explained.
    fn front_end(&self, _: FrontEndKey) -> Option<FrontEndValue> {
        None
    }
}
