//! One packet of a case: its bytes, the program's verdict, and whether verdict, counters and reports are as expected.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use enforcer_abi::{Address, Direction, Event, EventKind, FlowKey, FlowValue, Reason, map, protocol};

use super::{
    devices,
    frame::{self, Frame, IpShape, Packet},
    payload::{IcmpName, Payload},
    program::{Context, Verdict},
    run::{Run, UNKNOWN},
    step::{Arrival, Content, Expectation, FlowStep, PacketStep, Quoted, Reported, kebab},
};

/// The interface index that packets from elsewhere arrived by; no test run checks that it exists.
pub(super) const ELSEWHERE: u32 = 7;

/// The two ends of a packet.
#[derive(Clone, Copy)]
struct Ends {
    pod: IpAddr,
    remote: IpAddr,
}

impl Run {
    /// Sends a step's packets and compares.
    ///
    /// # Errors
    /// One did not fare as expected.
    pub(super) fn packet(&mut self, step: &PacketStep) -> Result<()> {
        for number in 0..step.flood {
            let frame = self.frame(step, number)?;
            match step.keep_each {
                None => self.judge(step, &frame, number)?,
                Some((first, last)) => {
                    for keep in first..=last {
                        let mut short = frame.clone();
                        short.bytes.truncate(frame.network + keep);
                        self.judge(step, &short, number).with_context(|| format!("cut to {keep} bytes"))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Compares what is remembered of a connection.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn flow(&mut self, step: &FlowStep) -> Result<()> {
        let ends = self.ends(&step.pod, None, &step.remote, step.family)?;
        let icmp = if ends.pod.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let (protocol, remote_port, pod_port) = match (step.tcp, step.udp, step.sctp, step.echo, step.protocol) {
            (Some(ports), ..) => (protocol::TCP, ports.remote, ports.pod),
            (_, Some(ports), ..) => (protocol::UDP, ports.remote, ports.pod),
            (_, _, Some(ports), ..) => (protocol::SCTP, ports.remote, ports.pod),
            (_, _, _, Some(id), _) => (icmp, 0, id),
            (.., Some(protocol)) => (protocol, 0, 0),
            _ => bail!("a flow has a protocol"),
        };
        let ifindex = self.veth(&step.pod)?.ifindex;
        let remote = Address::from(ends.remote);
        let key = FlowKey { remote, ifindex, remote_port, pod_port, protocol, reserved: [0; 3] };
        let mut found = None;
        for name in [map::FLOWS, map::OPENINGS] {
            let value = self.program.hash::<FlowKey, FlowValue>(name)?.get(&key, 0).ok();
            found = found.or(value);
        }
        let Some(value) = found else {
            ensure!(step.absent, "nothing is remembered of it");
            return Ok(());
        };
        ensure!(!step.absent, "this is remembered of it: {value:?}");
        ensure!(step.state.is_none_or(|state| state.0 as u8 == value.state), "its state is {}", value.state);
        let opener = step.opener.map(|towards| Direction::from(towards) as u8);
        ensure!(opener.is_none_or(|opener| opener == value.opener), "its opener is {}", value.opener);
        ensure!(step.reason.is_none_or(|reason| reason.0 as u8 == value.reason), "its reason is {}", value.reason);
        Ok(())
    }

    /// Which addresses a packet has.
    fn ends(&mut self, pod: &str, pod_address: Option<IpAddr>, remote: &str, family: Option<u8>) -> Result<Ends> {
        let literal = remote.parse::<IpAddr>().ok();
        let v4 = match (family, literal.or(pod_address)) {
            (Some(family), _) => family == 4,
            (None, Some(address)) => address.is_ipv4(),
            (None, None) => true,
        };
        let of = |run: &Self, name: &str| {
            let known = run.addresses.get(name).with_context(|| format!("the case has no {name}"))?;
            let address = known.iter().find(|address| address.is_ipv4() == v4).copied();
            address.with_context(|| format!("{name} has no address of that family"))
        };
        let remote = literal.map_or_else(|| of(self, remote), Ok)?;
        let pod = pod_address.map_or_else(|| of(self, pod), Ok)?;
        Ok(Ends { pod, remote })
    }

    fn frame(&mut self, step: &PacketStep, number: u16) -> Result<Frame> {
        let ends = self.ends(&step.pod, step.pod_address, &step.remote, step.family)?;
        let (source, destination) = in_order(step.direction, ends.remote, ends.pod);
        match &step.content {
            Content::Arp => frame::arp(source, destination, step.ip.vlan),
            Content::EtherType(number) => frame::foreign(*number, step.ip.vlan),
            content => {
                let payload = self.payload(content, step, ends, number)?;
                let ip = shape(&step.ip, content);
                Packet { source, destination, ip, payload, damage: step.damage.clone() }.build()
            }
        }
    }

    fn payload(&mut self, content: &Content, step: &PacketStep, ends: Ends, number: u16) -> Result<Payload> {
        let Content::Error { kind, quotes } = content else {
            return plain(content, step.direction, ends.pod.is_ipv4(), number);
        };
        let quoted = self.quoted(quotes, step)?;
        let (kind, code) = kind.numbers(ends.pod.is_ipv4())?;
        // four bytes that mean something in some errors, then the packet (RFC 792, RFC 4443)
        Ok(Payload::Icmp { kind, code, body: [vec![0; 4], quoted].concat() })
    }

    fn quoted(&mut self, quotes: &Quoted, step: &PacketStep) -> Result<Vec<u8>> {
        let direction = if quotes.same_direction { step.direction } else { step.direction.opposite() };
        let remote = quotes.remote.as_ref().unwrap_or(&step.remote);
        let v4 = self.ends(&step.pod, step.pod_address, &step.remote, step.family)?.pod.is_ipv4();
        let family = Some(if v4 { 4 } else { 6 });
        let ends = self.ends(&step.pod, quotes.pod_address, remote, family)?;
        let (source, destination) = in_order(direction, ends.remote, ends.pod);
        let payload = plain(&quotes.content, direction, v4, 0)?;
        let ip = shape(&quotes.ip, &quotes.content);
        Packet { source, destination, ip, payload, damage: quotes.damage.clone() }.build_quoted()
    }

    fn judge(&mut self, step: &PacketStep, frame: &Frame, number: u16) -> Result<()> {
        let veth = if step.pod == UNKNOWN { None } else { Some(self.veth(&step.pod)?.clone()) };
        let ifindex = veth.as_ref().map_or(devices::FIRST, |veth| veth.ifindex);
        let slot = veth.and_then(|veth| veth.entry).map(|entry| entry.slot);
        let ingress_ifindex = match (step.arrived, step.direction) {
            (Arrival::Usual, Direction::Ingress) => ELSEWHERE,
            (Arrival::Usual, Direction::Egress) => ifindex,
            (Arrival::NodeMade, _) => 0,
            (Arrival::Interface(index), _) => index,
        };
        let (gso_segs, gso_size) = step.gso.unwrap_or((0, 0));
        let context = Context { ifindex, ingress_ifindex, gso_segs, gso_size, ..Context::default() };
        let before = slot.map(|slot| self.program.counters(slot)).transpose()?;
        let verdict = self.program.run(step.direction, &frame.bytes, context)?;
        let after = slot.map(|slot| self.program.counters(slot)).transpose()?;
        let events = self.program.events()?;
        let counted = before.zip(after).map(|(before, after)| counted(&before, &after));
        let facts = || format!("{verdict:?}, counted {counted:?}, reported {events:?}");
        check_verdict(step.expect, verdict).with_context(facts)?;
        if let Some(counted) = &counted {
            check_counters(step, counted).with_context(facts)?;
        }
        check_events(step, verdict, &events).with_context(facts)?;
        if let ([event], None) = (events.as_slice(), step.keep_each) {
            self.check_header(step, frame, event, ifindex, number).with_context(facts)?;
        }
        Ok(())
    }

    /// Whether a report describes the packet.
    fn check_header(
        &mut self,
        step: &PacketStep,
        frame: &Frame,
        event: &Event,
        ifindex: u32,
        number: u16,
    ) -> Result<()> {
        ensure!(event.ifindex == ifindex, "the report names interface {}", event.ifindex);
        ensure!(event.direction == step.direction as u8, "the report names direction {}", event.direction);
        ensure!(usize::try_from(event.length)? == frame.bytes.len(), "the report says {} bytes", event.length);
        ensure!(event.reserved == [0; 3], "the report's last bytes are {:?}", event.reserved);
        // what could not be parsed is described as far as it went
        if event.reason == Reason::Unparsable as u8 || matches!(step.content, Content::Arp | Content::EtherType(_)) {
            return Ok(());
        }
        let ends = self.ends(&step.pod, step.pod_address, &step.remote, step.family)?;
        ensure!(event.pod == Address::from(ends.pod), "the report names pod {:?}", IpAddr::from(event.pod));
        ensure!(event.remote == Address::from(ends.remote), "the report names remote {:?}", IpAddr::from(event.remote));
        let payload = self.payload(&step.content, step, ends, number)?;
        // a later fragment has no ports, and may not say which protocol it is of
        if step.ip.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return Ok(());
        }
        ensure!(event.protocol == payload.protocol(ends.pod), "the report names protocol {}", event.protocol);
        let (from, to, flags) = match payload {
            Payload::Tcp { source, destination, flags, .. } => (source, destination, flags.0),
            Payload::Udp { source, destination, .. } | Payload::Sctp { source, destination, .. } => {
                (source, destination, 0)
            }
            _ => return Ok(()),
        };
        let (remote, pod) = in_order(step.direction, from, to);
        ensure!((event.remote_port, event.pod_port) == (remote, pod), "the report has other ports");
        ensure!(event.tcp_flags == flags, "the report has TCP flags {}", event.tcp_flags);
        Ok(())
    }
}

/// Remote's and pod's, as source's and destination's; or the other way round, which is the same exchange.
fn in_order<T>(direction: Direction, remote: T, pod: T) -> (T, T) {
    match direction {
        Direction::Ingress => (remote, pod),
        Direction::Egress => (pod, remote),
    }
}

/// A payload that quotes nothing.
fn plain(content: &Content, direction: Direction, v4: bool, number: u16) -> Result<Payload> {
    let ports = |remote: u16, pod: u16| in_order(direction, remote.wrapping_add(number), pod);
    Ok(match content {
        Content::Tcp { ports: both, flags, data } => {
            let (source, destination) = ports(both.remote, both.pod);
            Payload::Tcp { source, destination, flags: *flags, data: *data }
        }
        Content::Udp(both) => {
            let (source, destination) = ports(both.remote, both.pod);
            Payload::Udp { source, destination, data: 16 }
        }
        Content::Sctp { ports: both, chunk } => {
            let (source, destination) = ports(both.remote, both.pod);
            Payload::Sctp { source, destination, chunk: *chunk }
        }
        Content::Echo { id, reply } => Payload::Echo { id: id.wrapping_add(number), reply: *reply },
        Content::Icmp(name) => {
            let (kind, code) = name.numbers(v4)?;
            Payload::Icmp { kind, code, body: vec![0; body_length(*name, v4)] }
        }
        Content::Protocol(number) => Payload::Other(*number),
        Content::Error { .. } => bail!("an error does not quote an error"),
        Content::Arp | Content::EtherType(_) => bail!("nothing quotes what is not IP"),
    })
}

/// Bytes behind the checksum (RFC 4861 section 4, RFC 2710, RFC 3810, RFC 792).
const fn body_length(name: IcmpName, v4: bool) -> usize {
    match name {
        IcmpName::RouterAdvertisement => 12,
        IcmpName::NeighbourSolicitation
        | IcmpName::NeighbourAdvertisement
        | IcmpName::MldQuery
        | IcmpName::MldReport
        | IcmpName::MldDone => 20,
        IcmpName::MldReportV2 => 24,
        IcmpName::Redirect if !v4 => 36,
        IcmpName::Timestamp | IcmpName::NodeInformation => 16,
        _ => 4,
    }
}

/// With the hop limit that neighbour discovery and MLD ask for, unless told.
fn shape(ip: &IpShape, content: &Content) -> IpShape {
    let usual = match content {
        Content::Icmp(
            IcmpName::RouterSolicitation
            | IcmpName::RouterAdvertisement
            | IcmpName::NeighbourSolicitation
            | IcmpName::NeighbourAdvertisement
            | IcmpName::Redirect,
        ) => 255,
        Content::Icmp(IcmpName::MldQuery | IcmpName::MldReport | IcmpName::MldDone | IcmpName::MldReportV2) => 1,
        _ => 64,
    };
    IpShape { hop_limit: ip.hop_limit.or(Some(usual)), ..ip.clone() }
}

/// What was counted in between: direction, reason, packets.
fn counted(before: &[[u64; Reason::COUNT]; 2], after: &[[u64; Reason::COUNT]; 2]) -> Vec<(Direction, Reason, u64)> {
    let mut out = Vec::new();
    for direction in Direction::ALL {
        for reason in Reason::ALL {
            let at = |counters: &[[u64; Reason::COUNT]; 2]| counters[direction as usize][reason as usize];
            if at(after) != at(before) {
                out.push((direction, reason, at(after) - at(before)));
            }
        }
    }
    out
}

fn check_verdict(expect: Expectation, verdict: Verdict) -> Result<()> {
    let passes = match expect {
        Expectation::Pass => true,
        Expectation::Drop => false,
        Expectation::Reason(reason) => reason.passes(),
    };
    let wanted = if passes { Verdict::Pass } else { Verdict::Drop };
    ensure!(verdict == wanted, "the verdict is {verdict:?}");
    Ok(())
}

fn check_counters(step: &PacketStep, counted: &[(Direction, Reason, u64)]) -> Result<()> {
    match step.expect {
        Expectation::Reason(Reason::Established) => {
            ensure!(counted.is_empty(), "what a flow has decided is counted nowhere");
        }
        Expectation::Reason(reason) => {
            ensure!(*counted == [(step.direction, reason, 1)], "`{}` is what should be counted", kebab(reason));
        }
        Expectation::Drop => {
            let one = matches!(counted, [(direction, reason, 1)] if *direction == step.direction && !reason.passes());
            ensure!(one, "a drop is counted, once");
        }
        Expectation::Pass => {
            let fine = counted.iter().all(|(direction, reason, _)| *direction == step.direction && reason.passes());
            ensure!(fine, "a pass is not counted as a drop");
        }
    }
    Ok(())
}

fn check_events(step: &PacketStep, verdict: Verdict, events: &[Event]) -> Result<()> {
    match step.event {
        Some(Reported::Nothing) => ensure!(events.is_empty(), "nothing should be reported"),
        Some(Reported::Kind(kind)) => {
            ensure!(matches!(events, [event] if event.kind == kind as u8), "one {kind:?} should be reported");
        }
        None if verdict == Verdict::Drop => {
            let dropped = [EventKind::Drop as u8, EventKind::Cut as u8];
            ensure!(matches!(events, [event] if dropped.contains(&event.kind)), "the drop should be reported, once");
        }
        None if step.expect == Expectation::Reason(Reason::Established) => {
            ensure!(events.is_empty(), "packets of a known flow are not reported");
        }
        None => ensure!(events.len() <= 1, "at most one thing should be reported"),
    }
    if let (Expectation::Reason(reason), [event]) = (step.expect, events) {
        ensure!(event.reason == reason as u8, "the report's reason is {}", event.reason);
    }
    Ok(())
}
