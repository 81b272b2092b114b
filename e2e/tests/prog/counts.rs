//! What a packet costs in look-ups, insertions and events (DESIGN section 9). A count is the same on every machine, so
//! that here is asserted what the benchmark can only measure.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use e2e::packets::{
    frame::{Damage, IpShape, Packet},
    payload::{Payload, TcpFlags},
    program::{Operations, Program, Sizes, Verdict},
    tables,
};
use enforcer_abi::{Address, BlockKey, Direction, Op, PodEntry, PodFlags, PortKey, PortValue, Settings, protocol};

use crate::fixture::{ACK, CLASS, IFINDEX, POD, PORT, REMOTE, SYN, Test, entry, judge, peer, port, row, settings};

pub(crate) const TESTS: &[Test] = &[
    ("counts/established", established),
    ("counts/first-datagram", first_datagram),
    ("counts/first-segment", first_segment),
    ("counts/denied", denied),
    ("counts/from-a-block", from_a_block),
    ("counts/port-in-a-range", port_in_a_range),
    ("counts/not-isolated", not_isolated),
    ("counts/answer", answer),
    ("counts/every-epoch", every_epoch),
];

const SYN_ACK: TcpFlags = TcpFlags(18);
/// In a block, and no pod's.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 9));
const NOTHING: Operations = Operations { look_ups: 0, insertions: 0, removals: 0, trie_look_ups: 0, events: 0 };

/// The program that counts, once loaded: these tests take turns.
static PROGRAM: Mutex<Option<Program>> = Mutex::new(None);

/// Gives a test the fixture's maps, for UDP too, and a block around [`OUTSIDE`] with the same class. New flows are not
/// reported.
fn counted(hz: u64, test: impl FnOnce(&mut Program) -> Result<()>) -> Result<()> {
    let mut place = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    let program = match &mut *place {
        Some(program) => program,
        empty => empty.insert(Program::load_counted(Settings { report_flows: 0, ..settings(hz) }, &Sizes::new())?),
    };
    program.reset()?;
    fill(program)?;
    test(program)
}

fn fill(program: &mut Program) -> Result<()> {
    program.put_pod(entry())?;
    let udp = PortKey { protocol: protocol::UDP, ..port().key };
    let mut block = Address::from(OUTSIDE);
    block.0[15] = 0;
    let ops = [
        Op::PutPeer(peer()),
        Op::PutPort(port()),
        Op::PutPort(PortValue { key: udp, ..port() }),
        Op::PutRow(row()),
        Op::PutBlock(BlockKey { prefix_len: 120, address: block }, CLASS),
    ];
    tables::write(program, &ops)
}

fn tcp(remote: IpAddr, port: u16, flags: TcpFlags) -> (IpAddr, u16, Option<TcpFlags>) {
    (remote, port, Some(flags))
}

fn udp(remote: IpAddr, port: u16) -> (IpAddr, u16, Option<TcpFlags>) {
    (remote, port, None)
}

/// Sends a packet between the remote's port 40000 and this one of the pod's, and compares.
#[track_caller]
fn check(
    program: &mut Program,
    direction: Direction,
    (remote, port, flags): (IpAddr, u16, Option<TcpFlags>),
    expected: (Verdict, Operations),
) -> Result<()> {
    let ((source, from), (destination, to)) = match direction {
        Direction::Ingress => ((remote, 40_000), (POD, port)),
        Direction::Egress => ((POD, port), (remote, 40_000)),
    };
    let payload = match flags {
        Some(flags) => Payload::Tcp { source: from, destination: to, flags, data: 0 },
        None => Payload::Udp { source: from, destination: to, data: 0 },
    };
    let packet = Packet { source, destination, ip: IpShape::default(), payload, damage: Damage::default() };
    program.operations()?;
    let verdict = judge(program, direction, &packet.build()?.bytes)?;
    let cost = program.operations()?;
    ensure!((verdict, cost) == expected, "{verdict:?} for {cost:?}, not {expected:?}");
    Ok(())
}

const IN: Direction = Direction::Ingress;
const OUT: Direction = Direction::Egress;

/// 'One LRU look-up.'
fn established(hz: u64) -> Result<()> {
    counted(hz, |program| {
        judge(program, IN, &crate::fixture::segment(IN, 40_000, PORT, SYN)?)?;
        judge(program, OUT, &crate::fixture::segment(OUT, 40_000, PORT, SYN_ACK)?)?;
        for direction in Direction::ALL {
            check(program, direction, tcp(REMOTE, PORT, ACK), (Verdict::Pass, Operations { look_ups: 1, ..NOTHING }))?;
        }
        Ok(())
    })
}

/// 'At most 6 hash look-ups and one LRU insertion': flows, openings, pods, peers, ports, rows.
fn first_datagram(hz: u64) -> Result<()> {
    counted(hz, |program| {
        let cost = Operations { look_ups: 6, insertions: 1, ..NOTHING };
        check(program, IN, udp(REMOTE, PORT), (Verdict::Pass, cost))
    })
}

/// A SYN asks for no flow, but ends the one that had these ends.
fn first_segment(hz: u64) -> Result<()> {
    counted(hz, |program| {
        let cost = Operations { look_ups: 4, insertions: 1, removals: 1, ..NOTHING };
        check(program, IN, tcp(REMOTE, PORT, SYN), (Verdict::Pass, cost))
    })
}

/// 'At most 6 hash look-ups and one ring event.'
fn denied(hz: u64) -> Result<()> {
    counted(hz, |program| {
        let cost = Operations { look_ups: 6, events: 1, ..NOTHING };
        check(program, IN, udp(REMOTE, 22), (Verdict::Drop, cost))?;
        let cost = Operations { look_ups: 4, events: 1, ..NOTHING };
        check(program, IN, tcp(REMOTE, 22, SYN), (Verdict::Drop, cost))?;
        // from nobody's address: no class, no row
        let stranger = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
        let cost = Operations { look_ups: 5, trie_look_ups: 1, events: 1, ..NOTHING };
        check(program, IN, udp(stranger, PORT), (Verdict::Drop, cost))
    })
}

/// 'Plus one LPM look-up where the address is no pod's.'
fn from_a_block(hz: u64) -> Result<()> {
    counted(hz, |program| {
        let cost = Operations { look_ups: 6, insertions: 1, trie_look_ups: 1, ..NOTHING };
        check(program, IN, udp(OUTSIDE, PORT), (Verdict::Pass, cost))?;
        let cost = Operations { look_ups: 6, events: 1, trie_look_ups: 1, ..NOTHING };
        check(program, IN, udp(OUTSIDE, 22), (Verdict::Drop, cost))
    })
}

/// A table with port ranges costs one more trie look-up for ports that no rule names alone.
fn port_in_a_range(hz: u64) -> Result<()> {
    counted(hz, |program| {
        let flags = entry().flags | PodFlags::INGRESS_RANGES;
        program.put_pod(PodEntry { flags, ..entry() })?;
        let cost = Operations { look_ups: 6, insertions: 1, ..NOTHING };
        check(program, IN, udp(REMOTE, PORT), (Verdict::Pass, cost))?;
        let cost = Operations { look_ups: 6, trie_look_ups: 1, events: 1, ..NOTHING };
        check(program, IN, udp(REMOTE, 22), (Verdict::Drop, cost))
    })
}

/// No table is asked.
fn not_isolated(hz: u64) -> Result<()> {
    counted(hz, |program| {
        program.put_pod(PodEntry { flags: 0, ..entry() })?;
        let cost = Operations { look_ups: 3, insertions: 1, ..NOTHING };
        check(program, IN, udp(REMOTE, 22), (Verdict::Pass, cost))
    })
}

/// The first reply moves the flow, once.
fn answer(hz: u64) -> Result<()> {
    counted(hz, |program| {
        check(program, IN, udp(REMOTE, PORT), (Verdict::Pass, Operations { look_ups: 6, insertions: 1, ..NOTHING }))?;
        let cost = Operations { look_ups: 3, insertions: 1, removals: 1, ..NOTHING };
        check(program, OUT, udp(REMOTE, PORT), (Verdict::Pass, cost))?;
        check(program, OUT, udp(REMOTE, PORT), (Verdict::Pass, Operations { look_ups: 1, ..NOTHING }))
    })
}

/// A flow of an older epoch of its interface is judged again by its next packet, which asks for the flow three times; the
/// epoch of another interface is nothing to it.
fn every_epoch(hz: u64) -> Result<()> {
    counted(hz, |program| {
        judge(program, IN, &crate::fixture::segment(IN, 40_000, PORT, SYN)?)?;
        judge(program, OUT, &crate::fixture::segment(OUT, 40_000, PORT, SYN_ACK)?)?;
        program.raise_epoch(IFINDEX + 1)?;
        check(program, IN, tcp(REMOTE, PORT, ACK), (Verdict::Pass, Operations { look_ups: 1, ..NOTHING }))?;
        program.raise_epoch(IFINDEX)?;
        let cost = Operations { look_ups: 7, insertions: 1, ..NOTHING };
        check(program, IN, tcp(REMOTE, PORT, ACK), (Verdict::Pass, cost))?;
        check(program, IN, tcp(REMOTE, PORT, ACK), (Verdict::Pass, Operations { look_ups: 1, ..NOTHING }))
    })
}
