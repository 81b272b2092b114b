//! Fills the maps of the program and those of the bare primitives alike: one pod, its peers, blocks and flows. Entry
//! point: [`fill`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use e2e::packets::{
    devices,
    frame::{Damage, IpShape, Packet},
    payload::{Payload, TcpFlags},
    program::{Context, Program},
    tables,
};
use enforcer_abi::{
    Address, BlockKey, Direction, FlowKey, FlowState, FlowValue, Op, PeerValue, PodEntry, PodFlags, PortKey, PortValue,
    Reason, RowKey, RowValue, map, protocol,
};

use crate::bare::{Bare, Plan};

pub(crate) const IFINDEX: u32 = devices::FIRST;
const TABLE: u64 = 0x1234_5678_9abc_def0;
/// A port that a rule opens.
pub(crate) const OPEN: u16 = 5432;
/// A port that no rule names.
pub(crate) const CLOSED: u16 = 22;
/// 10.128.0.0: where peers begin, in the last 32 bits of their address.
const FIRST_PEER: u32 = 0x0a80_0000;
/// 100.64.0.1: in the first block, which is a /24.
const FIRST_IN_BLOCK: u32 = 0x6440_0001;
/// So many classes at most, as in a cluster where replicas share theirs.
pub(crate) const CLASSES: u32 = 1000;

/// What is in the maps, and where packets come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) peers: u32,
    pub(crate) blocks: u32,
    pub(crate) flows: u32,
    /// With a table of their own each; packets go to the first.
    pub(crate) pods: u32,
    pub(crate) v4: bool,
    /// Packets come from addresses in blocks, not from peers.
    pub(crate) from_blocks: bool,
}

impl Fill {
    /// Keys of the flows that are there.
    pub(crate) fn established(self) -> Plan {
        let addresses = self.peers.min(self.flows);
        Plan { keys: self.flows.into(), addresses: addresses.into(), first: FIRST_PEER, step: 1, unique: false }
    }

    /// Keys of flows that aren't, from every address that may open some.
    pub(crate) fn new_flows(self) -> Plan {
        let (addresses, first, step) =
            if self.from_blocks { (self.blocks, FIRST_IN_BLOCK, 256) } else { (self.peers, FIRST_PEER, 1) };
        // port numbers from 1024
        Plan { keys: u64::from(addresses) * 60_000, addresses: addresses.into(), first, step, unique: true }
    }

    fn address(self, last: u32) -> Address {
        let octets = last.to_be_bytes();
        if self.v4 { Address::from_v4(octets) } else { Address::from(IpAddr::V6(v6(last))) }
    }
}

fn v6(last: u32) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xfd00_u128 << 112 | u128::from(last))
}

/// Writes a fill to both sides.
pub(crate) fn fill(program: &mut Program, bare: &mut Bare, fill: Fill) -> Result<()> {
    let mut ops = Vec::new();
    for number in 0..fill.pods {
        program.put_pod(pod_entry(number))?;
        table(TABLE + u64::from(number), &mut ops);
    }
    let class = |number: u32| u64::from(1 + number % CLASSES);
    for number in 0..fill.peers {
        let address = fill.address(FIRST_PEER + number);
        let value = PeerValue { address, class: class(number), flags: 0, reserved: 0 };
        ops.push(Op::PutPeer(value));
        bare.peers()?.insert(address, value, 0)?;
    }
    for number in 0..fill.blocks {
        let mut address = fill.address((FIRST_IN_BLOCK & !0xff) + number * 256);
        address.0[15] = 0;
        ops.push(Op::PutBlock(BlockKey { prefix_len: 120, address }, class(number)));
        bare.put_block(120, address, class(number))?;
    }
    tables::write(program, &ops)?;
    flows(program, bare, fill)
}

fn pod_entry(number: u32) -> PodEntry {
    let table = TABLE + u64::from(number);
    PodEntry {
        ifindex: IFINDEX + number,
        flags: PodFlags::INGRESS_ISOLATED | PodFlags::EGRESS_ISOLATED,
        ingress_table: table,
        egress_table: table,
        midstream_until: 0,
        v4: Address::from_v4([10, 0, 0, 20]),
        v6: Address::from(IpAddr::V6(v6(1))),
        slot: 1 + number,
        ingress_everybody: 0,
        egress_everybody: 0,
        reserved: [0; 2],
    }
}

/// Opens one port to every class.
fn table(table: u64, ops: &mut Vec<Op>) {
    for protocol in [protocol::TCP, protocol::UDP] {
        let key = PortKey { table, port: OPEN, protocol, reserved: [0; 5] };
        ops.push(Op::PutPort(PortValue { key, class: 1, everybody: 0 }));
    }
    for class in 1..=CLASSES {
        let key = RowKey { table, class: class.into(), chunk: 0, reserved: 0 };
        ops.push(Op::PutRow(RowValue { key, bits: [0b10, 0], open: 0, reserved: [0; 7] }));
    }
}

fn flows(program: &mut Program, bare: &mut Bare, fill: Fill) -> Result<()> {
    let value = FlowValue {
        pod: Address::from(pod(fill.v4)),
        epoch: 0,
        last_seen: u32::try_from(program.jiffies()? & 0xffff_ffff)?,
        reason: Reason::Rule as u8,
        opener: Direction::Ingress as u8,
        state: FlowState::Established as u8,
        fins: 0,
    };
    let mut known = program.hash::<FlowKey, FlowValue>(map::FLOWS)?;
    let mut bare = bare.flows()?;
    let peers = fill.peers.min(fill.flows.max(1));
    for number in 0..fill.flows {
        let key = FlowKey {
            remote: fill.address(FIRST_PEER + number % peers),
            ifindex: IFINDEX,
            remote_port: u16::try_from(1024 + number / peers)?,
            pod_port: OPEN,
            protocol: protocol::TCP,
            reserved: [0; 3],
        };
        known.insert(key, value, 0)?;
        bare.insert(key, value, 0)?;
    }
    Ok(())
}

fn pod(v4: bool) -> IpAddr {
    if v4 { IpAddr::V4(Ipv4Addr::new(10, 0, 0, 20)) } else { IpAddr::V6(v6(1)) }
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A segment of a connection.
    Tcp,
    /// A datagram to a port.
    Udp(u16),
}

/// A packet to the pod, whose source the driver overwrites.
pub(crate) fn packet(v4: bool, kind: Kind) -> Result<(Vec<u8>, Context)> {
    let source = if v4 { IpAddr::V4(Ipv4Addr::new(10, 128, 0, 0)) } else { IpAddr::V6(v6(FIRST_PEER)) };
    let payload = match kind {
        Kind::Tcp => Payload::Tcp { source: 1024, destination: OPEN, flags: TcpFlags(16), data: 32 },
        Kind::Udp(destination) => Payload::Udp { source: 1024, destination, data: 32 },
    };
    let packet = Packet { source, destination: pod(v4), ip: IpShape::default(), payload, damage: Damage::default() };
    let context = Context { ifindex: IFINDEX, ingress_ifindex: 7, ..Context::default() };
    Ok((packet.build()?.bytes, context))
}
