//! Keys and values of the compiled tables: peer classes, port classes, rows of bits, front ends.
//!
//! Table and class ids are hashes of what they stand for, so an id never changes its meaning: the row of a table and a
//! class is the same bits for ever, whoever computes it, before and after a restart of the agent.

use crate::Address;

/// A table: the content of one direction for all pods whose policies amount to the same. Never 0.
pub type TableId = u64;

/// A peer class: all addresses that the same peers match.
pub type ClassId = u64;

/// The class of every address that no peer matches.
pub const EVERYBODY: ClassId = 0;

/// How many port classes one row holds; the next ones are in the row of the next chunk.
pub const CHUNK_BITS: u32 = 128;

/// What is open to everybody without a look at the rows: a bit set for a peer class (or, in a [`crate::PodEntry`], for
/// peers of class [`EVERYBODY`] and of classes that have no row in the table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Openness(pub u8);

impl Openness {
    /// Port class 0 is open: portless protocols, and ports that no rule names.
    pub const UNNAMED: u8 = 1 << 0;
    /// Every TCP port is open.
    pub const ALL_TCP: u8 = 1 << 1;
    /// Every UDP port is open.
    pub const ALL_UDP: u8 = 1 << 2;
    /// Every SCTP port is open.
    pub const ALL_SCTP: u8 = 1 << 3;

    /// Whether all of `bits` are set.
    #[must_use]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// The bit that says 'open on all ports' of an IP protocol; protocols without ports have [`Self::UNNAMED`].
    #[must_use]
    pub const fn all_ports_bit(protocol: u8) -> u8 {
        match protocol {
            crate::protocol::TCP => Self::ALL_TCP,
            crate::protocol::UDP => Self::ALL_UDP,
            crate::protocol::SCTP => Self::ALL_SCTP,
            _ => Self::UNNAMED,
        }
    }
}

/// Bits of [`PeerValue::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFlags;

impl PeerFlags {
    /// Some Service has this address as a front end: look the port up in `FRONT_ENDS` before anything else.
    pub const FRONT_END: u32 = 1 << 0;
    /// A cluster IP: ports without a front end are closed to TCP, UDP and SCTP.
    pub const CLUSTER_IP: u32 = 1 << 1;
    /// A node's address: node ports are looked up in `FRONT_ENDS` under [`Address::node_port`].
    pub const NODE: u32 = 1 << 2;
}

/// Value of `PEERS`, whose key is an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PeerValue {
    /// The entry's own key: the kernel reuses elements of a hash at once, under readers.
    pub address: Address,
    /// The address's class, blocks that cover it included.
    pub class: ClassId,
    /// Bits of [`PeerFlags`].
    pub flags: u32,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reserved: u32,
}

/// Key of `BLOCKS`, an LPM trie with values of type [`ClassId`]: the class of addresses that have no entry in `PEERS`.
/// The trie has an entry for the root of each family wherever a prefix of the other could cover it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct BlockKey {
    /// In bits, the 96 of the mapping included for IPv4.
    pub prefix_len: u32,
    /// Zero past the prefix.
    pub address: Address,
}

/// Key of `PORTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PortKey {
    /// The table.
    pub table: TableId,
    /// The destination port.
    pub port: u16,
    /// The IP protocol: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reserved: [u8; 5],
}

/// Key of `PORT_RANGES`, an LPM trie with values of type [`PortValue`] (whose `key.port` is the prefix's first port),
/// consulted when `PORTS` has no answer and the pod's flags say that its table has ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PortRangeKey {
    /// In bits: [`Self::FIXED_BITS`] and 0 to 16 of the port.
    pub prefix_len: u32,
    /// The table's id in two halves, so that the struct needs no padding.
    pub table: [u32; 2],
    /// The IP protocol: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reserved: u8,
    /// Network byte order, zero past the prefix.
    pub port: [u8; 2],
}

impl PortRangeKey {
    /// The bits before the port: table, protocol, reserved.
    pub const FIXED_BITS: u32 = 80;

    /// The key for `bits` leading bits of `port`.
    #[must_use]
    pub const fn new(table: TableId, protocol: u8, port: u16, bits: u32) -> Self {
        Self {
            prefix_len: Self::FIXED_BITS + bits,
            table: [(table >> 32) as u32, (table & 0xffff_ffff) as u32],
            protocol,
            reserved: 0,
            port: port.to_be_bytes(),
        }
    }
}

/// Value of `PORTS` and `PORT_RANGES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PortValue {
    /// The entry's own key.
    pub key: PortKey,
    /// The port class, from 1: the index of a bit in the table's rows.
    pub class: u32,
    /// 1 if this port class is open to peers that have no row in the table, else 0.
    pub everybody: u32,
}

/// Key of `ROWS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct RowKey {
    /// The table.
    pub table: TableId,
    /// The peer class, never [`EVERYBODY`].
    pub class: ClassId,
    /// The port class divided by [`CHUNK_BITS`].
    pub chunk: u32,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reserved: u32,
}

/// Value of `ROWS`: what one peer class may reach through one table. A row holds what is open to everybody, too. If a
/// table has a row for a class, it has the rows of all its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct RowValue {
    /// The entry's own key.
    pub key: RowKey,
    /// Port class `64 * i + j` of this chunk is bit `j` of word `i`; 1 is open.
    pub bits: [u64; 2],
    /// [`Openness`] of the class, in every chunk.
    pub open: u8,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reserved: [u8; 7],
}

/// Key of `FRONT_ENDS`: a Service's front end as the pods of one egress table see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct FrontEndKey {
    /// The egress table.
    pub table: TableId,
    /// The front end's address; [`Address::node_port`] for a node port, which every node has.
    pub address: Address,
    /// The front end's port.
    pub port: u16,
    /// The IP protocol: TCP, UDP or SCTP.
    pub protocol: u8,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reserved: [u8; 5],
}

/// What the back ends of a front end make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum FrontEndState {
    /// No back end, or none that the table allows.
    Closed = 0,
    /// Some are allowed and some are not: closed to new connections, open to established ones.
    Mixed = 1,
    /// All are allowed.
    Open = 2,
}

/// Value of `FRONT_ENDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct FrontEndValue {
    /// The entry's own key.
    pub key: FrontEndKey,
    /// A [`FrontEndState`].
    pub state: u32,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<PeerValue>() == 32);
    assert!(size_of::<BlockKey>() == 20);
    assert!(size_of::<PortKey>() == 16);
    assert!(size_of::<PortRangeKey>() == 16);
    assert!(size_of::<PortValue>() == 24);
    assert!(size_of::<RowKey>() == 24);
    assert!(size_of::<RowValue>() == 48);
    assert!(size_of::<FrontEndKey>() == 32);
    assert!(size_of::<FrontEndValue>() == 40);
};
