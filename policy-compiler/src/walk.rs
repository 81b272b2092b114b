//! The tables, walked in user space in exactly the packet program's order: [`walk`] judges a new packet. The program's
//! twin; whoever changes one changes the other.

use std::collections::BTreeMap;

use enforcer_abi::{
    Address, BlockKey, CHUNK_BITS, ClassId, Direction, EVERYBODY, FrontEndKey, FrontEndState, FrontEndValue, Openness,
    PeerFlags, PeerValue, PortKey, PortRangeKey, PortValue, Reason, RowKey, RowValue, TableId, protocol,
};

use crate::{
    change::{PodTables, TableUse},
    contents::Contents,
};

/// The look-ups that the program makes.
pub trait Lookup {
    /// `PEERS`
    fn peer(&self, address: Address) -> Option<PeerValue>;
    /// `BLOCKS`: the longest prefix.
    fn block(&self, address: Address) -> Option<ClassId>;
    /// `PORTS`
    fn port(&self, key: PortKey) -> Option<PortValue>;
    /// `PORT_RANGES`: the longest prefix.
    fn port_range(&self, table: TableId, protocol: u8, port: u16) -> Option<PortValue>;
    /// `ROWS`
    fn row(&self, key: RowKey) -> Option<RowValue>;
    /// `FRONT_ENDS`
    fn front_end(&self, key: FrontEndKey) -> Option<FrontEndValue>;
}

/// A packet at a pod, before there is a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// As the pod sees it.
    pub direction: Direction,
    /// The other end.
    pub remote: Address,
    /// The IP protocol.
    pub protocol: u8,
    /// The destination port; ignored for protocols other than TCP, UDP and SCTP.
    pub port: u16,
    /// It belongs to a flow that was allowed before, and is judged again.
    pub established: bool,
}

/// What became of a [`Packet`], and on what grounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// [`Reason::NotIsolated`], [`Reason::Rule`], [`Reason::NoRule`], [`Reason::FrontEndMixed`] or
    /// [`Reason::FrontEndClosed`].
    pub reason: Reason,
    /// The table that judged; 0 if the pod isn't isolated.
    pub table: TableId,
    /// The remote's class; [`EVERYBODY`] if a front end decided.
    pub class: ClassId,
    /// The port's class; 0 if a front end decided.
    pub port_class: u32,
}

/// Judges a packet.
pub fn walk(tables: &impl Lookup, pod: &PodTables, packet: &Packet) -> Walk {
    let table_use = match packet.direction {
        Direction::Ingress => pod.ingress,
        Direction::Egress => pod.egress,
    };
    let Some(table_use) = table_use else {
        return Walk { reason: Reason::NotIsolated, table: 0, class: EVERYBODY, port_class: 0 };
    };
    let mut walk = Walk { reason: Reason::NoRule, table: table_use.id, class: EVERYBODY, port_class: 0 };
    let peer = tables.peer(packet.remote);
    let has_ports = matches!(packet.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    if let Some(peer) = peer
        && packet.direction == Direction::Egress
        && has_ports
        && let Some(reason) = judge_front_end(tables, table_use.id, peer.flags, packet)
    {
        walk.reason = reason;
        return walk;
    }
    walk.class = peer.map(|peer| peer.class).or_else(|| tables.block(packet.remote)).unwrap_or(EVERYBODY);
    let port = if has_ports { find_port(tables, table_use, packet) } else { None };
    walk.port_class = port.map_or(0, |port| port.class);
    let key = RowKey { table: table_use.id, class: walk.class, chunk: walk.port_class / CHUNK_BITS, reserved: 0 };
    let row = if walk.class == EVERYBODY { None } else { tables.row(key) };
    let open = match (row, port) {
        (Some(row), _) => {
            let bit = walk.port_class % CHUNK_BITS;
            row.bits[bit as usize / 64] >> (bit % 64) & 1 == 1
        }
        (None, Some(port)) => port.everybody == 1,
        (None, None) => table_use.everybody.has(Openness::UNNAMED),
    };
    if open {
        walk.reason = Reason::Rule;
    }
    walk
}

fn find_port(tables: &impl Lookup, table: TableUse, packet: &Packet) -> Option<PortValue> {
    let key = PortKey { table: table.id, port: packet.port, protocol: packet.protocol, reserved: [0; 5] };
    tables
        .port(key)
        .or_else(|| if table.ranges { tables.port_range(table.id, packet.protocol, packet.port) } else { None })
}

/// `None` if no front end decides.
fn judge_front_end(tables: &impl Lookup, table: TableId, flags: u32, packet: &Packet) -> Option<Reason> {
    let state = |address| {
        let key = FrontEndKey { table, address, port: packet.port, protocol: packet.protocol, reserved: [0; 5] };
        tables.front_end(key).map(|value| value.state)
    };
    let own = if flags & PeerFlags::FRONT_END != 0 { state(packet.remote) } else { None };
    let state = match own {
        Some(own) => own,
        None if flags & PeerFlags::CLUSTER_IP != 0 => return Some(Reason::FrontEndClosed),
        None if flags & PeerFlags::NODE != 0 => state(packet.remote.node_port())?,
        None => return None,
    };
    Some(if state == FrontEndState::Open as u32 || (state == FrontEndState::Mixed as u32 && packet.established) {
        Reason::Rule
    } else if state == FrontEndState::Mixed as u32 {
        Reason::FrontEndMixed
    } else {
        Reason::FrontEndClosed
    })
}

impl Lookup for Contents {
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

    fn front_end(&self, key: FrontEndKey) -> Option<FrontEndValue> {
        self.front_ends.get(&key).copied()
    }
}

/// The entry of the longest prefix that has a port, of those that `entry` knows.
pub(crate) fn longest_port_range(
    table: TableId,
    protocol: u8,
    port: u16,
    entry: impl Fn(PortRangeKey) -> Option<PortValue>,
) -> Option<PortValue> {
    (0..=16).rev().find_map(|bits: u32| {
        let first = u32::from(port) >> (16 - bits) << (16 - bits);
        let first = u16::try_from(first).expect("a port with bits cleared is a port");
        entry(PortRangeKey::new(table, protocol, first, bits))
    })
}

/// The class of the longest prefix of at most `longest` bits that has an address.
pub(crate) fn longest_block(
    blocks: &BTreeMap<BlockKey, ClassId>,
    address: Address,
    mut longest: u32,
) -> Option<ClassId> {
    loop {
        let start = BlockKey { prefix_len: 0, address: Address::NONE };
        let end = BlockKey { prefix_len: longest, address: Address([0xff; 16]) };
        // the greatest key at or below says which prefix lengths there are at all
        let prefix_len = blocks.range(start..=end).next_back()?.0.prefix_len;
        if let Some(class) = blocks.get(&BlockKey { prefix_len, address: masked(address, prefix_len) }) {
            return Some(*class);
        }
        longest = prefix_len.checked_sub(1)?;
    }
}

/// The address with everything past the prefix cleared.
fn masked(address: Address, prefix_len: u32) -> Address {
    let mask = (!0_u128).checked_shl(128 - prefix_len).unwrap_or(0);
    Address((u128::from_be_bytes(address.0) & mask).to_be_bytes())
}
