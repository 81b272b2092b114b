//! Maps written by hand, for what the compiler never says: one pod, one remote, one port.

use std::net::IpAddr;

use anyhow::Result;
use e2e::packets::{
    case::SettingsFile,
    devices,
    frame::{Damage, IpShape, Packet},
    payload::{Payload, TcpFlags},
    pool::{self, Lease},
    program::{Context, Program, Sizes, Verdict},
    tables,
};
use enforcer_abi::{
    Address, Direction, Op, PeerValue, PodEntry, PodFlags, PortKey, PortValue, RowKey, RowValue, Settings, protocol,
};

/// A test that is told how many jiffies a second has.
pub(crate) type Test = (&'static str, fn(u64) -> Result<()>);

pub(crate) const IFINDEX: u32 = devices::FIRST + 3;
pub(crate) const SLOT: u32 = 3;
pub(crate) const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 20));
pub(crate) const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 10));
pub(crate) const TABLE: u64 = 0x1234_5678_9abc_def0;
pub(crate) const CLASS: u64 = 0x0fed_cba9_8765_4321;
pub(crate) const PORT: u16 = 5432;
pub(crate) const SYN: TcpFlags = TcpFlags(2);
pub(crate) const ACK: TcpFlags = TcpFlags(16);

/// As packet cases without settings have them, whose loaded programs can be used here, too.
pub(crate) fn settings(hz: u64) -> Settings {
    SettingsFile::default().settings(hz)
}

/// A program whose maps say: the pod is isolated for ingress and egress by one table, which opens [`PORT`] to [`REMOTE`].
pub(crate) fn program(settings: Settings, sizes: Sizes) -> Result<Lease> {
    let mut program = pool::lease(settings, sizes)?;
    program.put_pod(entry())?;
    tables::write(&mut program, &[Op::PutPeer(peer()), Op::PutPort(port()), Op::PutRow(row())])?;
    Ok(program)
}

pub(crate) fn entry() -> PodEntry {
    PodEntry {
        ifindex: IFINDEX,
        flags: PodFlags::INGRESS_ISOLATED | PodFlags::EGRESS_ISOLATED,
        ingress_table: TABLE,
        egress_table: TABLE,
        midstream_until: 0,
        v4: Address::from(POD),
        v6: Address::NONE,
        slot: SLOT,
        ingress_everybody: 0,
        egress_everybody: 0,
        reserved: [0; 2],
    }
}

pub(crate) fn peer() -> PeerValue {
    PeerValue { address: Address::from(REMOTE), class: CLASS, flags: 0, reserved: 0 }
}

pub(crate) fn port() -> PortValue {
    let key = PortKey { table: TABLE, port: PORT, protocol: protocol::TCP, reserved: [0; 5] };
    PortValue { key, class: 1, everybody: 0 }
}

pub(crate) fn row() -> RowValue {
    let key = RowKey { table: TABLE, class: CLASS, chunk: 0, reserved: 0 };
    RowValue { key, bits: [0b10, 0], open: 0, reserved: [0; 7] }
}

/// A TCP segment between [`REMOTE`] and the pod.
pub(crate) fn segment(direction: Direction, remote_port: u16, pod_port: u16, flags: TcpFlags) -> Result<Vec<u8>> {
    let ((source, from), (destination, to)) = match direction {
        Direction::Ingress => ((REMOTE, remote_port), (POD, pod_port)),
        Direction::Egress => ((POD, pod_port), (REMOTE, remote_port)),
    };
    let payload = Payload::Tcp { source: from, destination: to, flags, data: 0 };
    let packet = Packet { source, destination, ip: IpShape::default(), payload, damage: Damage::default() };
    Ok(packet.build()?.bytes)
}

/// The verdict on a frame that did not come from the node itself.
pub(crate) fn judge(program: &Program, direction: Direction, frame: &[u8]) -> Result<Verdict> {
    program.run(direction, frame, Context { ifindex: IFINDEX, ingress_ifindex: 7, ..Context::default() })
}
