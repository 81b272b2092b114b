//! Frames of random bytes, and good ones with some bytes changed or cut off: at a pod that nothing may reach, none gets
//! through but what passes everywhere, whatever it pretends to be.

use anyhow::{Result, ensure};
use e2e::packets::{
    frame::{Damage, Extension, Fragment, IpShape, Packet},
    payload::Payload,
    pool::{self, Lease},
    program::{Program, Sizes, Verdict},
};
use enforcer_abi::{Address, Direction, PodEntry, PodFlags, Reason};

use crate::fixture::{IFINDEX, POD, REMOTE, SLOT, SYN, Test, entry, judge, settings};

pub(crate) const TESTS: &[Test] = &[("fuzz/random-bytes", random_bytes), ("fuzz/damaged-packets", damaged_packets)];

/// xorshift64*, so that a failure comes again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits fit") % limit
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// A pod that is isolated both ways by tables that allow nothing.
fn closed(hz: u64) -> Result<Lease> {
    let mut program = pool::lease(settings(hz), Sizes::new())?;
    let flags = PodFlags::INGRESS_ISOLATED | PodFlags::EGRESS_ISOLATED;
    let v6 = Address("fd00::20".parse::<std::net::Ipv6Addr>()?.octets());
    program.put_pod(PodEntry { flags, v6, ..entry() })?;
    Ok(program)
}

/// Passes are those of infrastructure alone; the frame is named otherwise.
fn check(program: &mut Program, direction: Direction, frame: &[u8]) -> Result<()> {
    let before = program.counters(SLOT)?;
    if !is_to_itself(frame) && judge(program, direction, frame)? == Verdict::Pass {
        let after = program.counters(SLOT)?;
        let at = Reason::Infrastructure as usize;
        let infrastructure = after[direction as usize][at] > before[direction as usize][at];
        ensure!(infrastructure, "{direction:?} at interface {IFINDEX} passed: {frame:02x?}");
    }
    Ok(())
}

/// Whether damage has made both addresses one: a pod reaches itself whatever its policies.
fn is_to_itself(frame: &[u8]) -> bool {
    let addresses = |first: usize, length: usize| {
        Some((frame.get(first..first + length)?, frame.get(first + length..first + 2 * length)?))
    };
    let both = match frame.get(16..18) {
        Some([0x08, 0x00]) => addresses(30, 4),
        Some([0x86, 0xdd]) => addresses(26, 16),
        _ => None,
    };
    both.is_some_and(|(source, destination)| source == destination)
}

fn random_bytes(hz: u64) -> Result<()> {
    let mut program = closed(hz)?;
    let mut random = Random(7);
    for number in 0..20_000 {
        // with a VLAN tag, so that the kernel takes any length
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 7];
        frame.extend([[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [0x88, 0xcc]][random.below(4)]);
        frame.extend((0..random.below(120)).map(|_| random.byte()));
        if let (Some(first), true) = (frame.get_mut(18), random.below(4) > 0) {
            *first = [0x45, 0x4f, 0x60, 0x46][random.below(4)];
        }
        check(&mut program, Direction::ALL[number % 2], &frame)?;
    }
    Ok(())
}

fn damaged_packets(hz: u64) -> Result<()> {
    let mut program = closed(hz)?;
    let mut random = Random(11);
    let packets = good_packets()?;
    for number in 0..20_000 {
        let direction = Direction::ALL[number % 2];
        let mut frame = packets[random.below(packets.len())][direction as usize].clone();
        for _ in 0..=random.below(3) {
            let at = 18 + random.below(frame.len() - 18);
            frame[at] = random.byte();
        }
        if random.below(4) == 0 {
            frame.truncate(18 + random.below(frame.len() - 18));
        }
        check(&mut program, direction, &frame)?;
    }
    Ok(())
}

/// Of every shape, in both directions.
fn good_packets() -> Result<Vec<[Vec<u8>; 2]>> {
    let tcp = Payload::Tcp { source: 1, destination: 2, flags: SYN, data: 0 };
    let udp = Payload::Udp { source: 1, destination: 2, data: 8 };
    let echo = Payload::Echo { id: 1, reply: true };
    let error = Payload::Icmp { kind: 3, code: 4, body: vec![0x45; 64] };
    let error6 = Payload::Icmp { kind: 1, code: 4, body: vec![0x60; 64] };
    let shape = IpShape { vlan: Some(7), ..IpShape::default() };
    let fragment = Some(Fragment { id: 7, offset: 0, more: true });
    let extensions = vec![Extension::HopByHop, Extension::Routing, Extension::Auth, Extension::Destination];
    let (pod6, remote6) = ("fd00::20".parse()?, "fd00::10".parse()?);
    let mut packets = Vec::new();
    let mut add = |pod, remote, payload: &Payload, ip: &IpShape| -> Result<()> {
        let both = [(remote, pod), (pod, remote)].map(|(source, destination)| {
            let packet =
                Packet { source, destination, ip: ip.clone(), payload: payload.clone(), damage: Damage::default() };
            packet.build().map(|frame| frame.bytes)
        });
        let [ingress, egress] = both;
        packets.push([ingress?, egress?]);
        Ok(())
    };
    for payload in [&tcp, &udp, &echo, &error] {
        add(POD, REMOTE, payload, &shape)?;
        add(POD, REMOTE, payload, &IpShape { options: 8, ..shape.clone() })?;
        add(POD, REMOTE, payload, &IpShape { fragment, ..shape.clone() })?;
    }
    for payload in [&tcp, &udp, &echo, &error6] {
        add(pod6, remote6, payload, &shape)?;
        add(pod6, remote6, payload, &IpShape { extensions: extensions.clone(), ..shape.clone() })?;
        add(pod6, remote6, payload, &IpShape { extensions: extensions.clone(), fragment, ..shape.clone() })?;
    }
    Ok(packets)
}
