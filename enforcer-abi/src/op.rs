//! One write to one map of the compiled tables.

use crate::{
    Address, BlockKey, ClassId, FrontEndKey, FrontEndValue, PeerValue, PortKey, PortRangeKey, PortValue, RowKey,
    RowValue,
};

/// One write to one map. Values carry their own keys. Each is atomic for a reader in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Op {
    /// `PEERS`
    PutPeer(PeerValue),
    /// `PEERS`
    DeletePeer(Address),
    /// `BLOCKS`
    PutBlock(BlockKey, ClassId),
    /// `BLOCKS`
    DeleteBlock(BlockKey),
    /// `PORTS`
    PutPort(PortValue),
    /// `PORTS`
    DeletePort(PortKey),
    /// `PORT_RANGES`
    PutPortRange(PortRangeKey, PortValue),
    /// `PORT_RANGES`
    DeletePortRange(PortRangeKey),
    /// `ROWS`
    PutRow(RowValue),
    /// `ROWS`
    DeleteRow(RowKey),
    /// `FRONT_ENDS`
    PutFrontEnd(FrontEndValue),
    /// `FRONT_ENDS`
    DeleteFrontEnd(FrontEndKey),
    /// `ENDPOINTS`
    PutEndpoint(Address),
    /// `ENDPOINTS`
    DeleteEndpoint(Address),
}
