//! Transport headers: [`parse`].

use enforcer_abi::{Direction, protocol};

use crate::{
    address::is_v4,
    frame::{Frame, Room, Wire},
    packet::{Packet, Role, TCP_ACK, TCP_SYN},
};

/// The lengths of the headers, without options: RFC 9293, RFC 768, RFC 9260, RFC 792.
const TCP_LEN: u32 = 20;
const UDP_LEN: u32 = 8;
const SCTP_LEN: u32 = 12;
const ICMP_LEN: u32 = 8;

/// The chunk that opens an association; it comes alone (RFC 9260 section 3.3.2).
const SCTP_INIT: u8 = 1;

/// What TCP, UDP and SCTP begin with.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ports {
    source: u16,
    destination: u16,
}

// SAFETY: integers, no padding.
unsafe impl Wire for Ports {}

impl Ports {
    /// In host byte order.
    #[inline(always)]
    pub(crate) fn get(self) -> (u16, u16) {
        (u16::from_be(self.source), u16::from_be(self.destination))
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Tcp {
    ports: Ports,
    sequence: u32,
    acknowledgment: u32,
    data_offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

// SAFETY: integers, no padding.
unsafe impl Wire for Tcp {}

#[derive(Clone, Copy)]
#[repr(C)]
struct SctpChunk {
    kind: u8,
}

// SAFETY: an integer.
unsafe impl Wire for SctpChunk {}

#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    code: u8,
    checksum: u16,
    identifier: u16,
    sequence: u16,
}

// SAFETY: integers, no padding.
unsafe impl Wire for Icmp {}

impl Icmp {
    /// In host byte order.
    #[inline(always)]
    pub(crate) fn identifier(self) -> u16 {
        u16::from_be(self.identifier)
    }
}

/// Reads the header at `offset` of a packet that ends at `end`, by the protocol in the packet's key.
#[inline(always)]
pub(crate) fn parse(
    frame: Frame,
    offset: u32,
    end: u32,
    direction: Direction,
    packet: &mut Packet,
    room: &mut Room,
) -> Option<()> {
    packet.transport = offset;
    // What the IP header counts may be missing from the packet, and what the packet has behind it is not the datagram's.
    let end = if end > frame.len() { frame.len() } else { end };
    match packet.ends.key.protocol {
        protocol::TCP => {
            let tcp = frame.header::<Tcp>(within(offset, TCP_LEN, end)?, room)?;
            let (source, destination) = tcp.ports.get();
            packet.ends.set_ports(direction, source, destination);
            packet.tcp_flags = tcp.flags;
            packet.opens = tcp.flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
        }
        protocol::UDP => {
            let (source, destination) = frame.header::<Ports>(within(offset, UDP_LEN, end)?, room)?.get();
            packet.ends.set_ports(direction, source, destination);
        }
        protocol::SCTP => {
            let (source, destination) = frame.header::<Ports>(within(offset, SCTP_LEN, end)?, room)?.get();
            packet.ends.set_ports(direction, source, destination);
            packet.opens = within(offset, SCTP_LEN + 1, end).is_some()
                && frame.copied::<SctpChunk>(offset + SCTP_LEN, room).is_some_and(|chunk| chunk.kind == SCTP_INIT);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let icmp = frame.header::<Icmp>(within(offset, ICMP_LEN, end)?, room)?;
            packet.icmp_type = icmp.kind;
            packet.icmp_code = icmp.code;
            packet.role = role(is_v4(&packet.ends.pod), packet.ends.key.protocol, icmp.kind);
            if packet.role as u8 != Role::None as u8 {
                packet.ends.key.pod_port = icmp.identifier();
            }
        }
        _ => {}
    }
    Some(())
}

/// `offset`, if a header of `length` fits before `end`.
#[inline(always)]
fn within(offset: u32, length: u32, end: u32) -> Option<u32> {
    if offset + length <= end { Some(offset) } else { None }
}

/// The ICMP types that ask and answer, which all have an identifier where echo has it: echo (RFC 792, RFC 4443),
/// timestamp (RFC 792), address mask (RFC 950), extended echo (RFC 8335).
#[inline(always)]
pub(crate) fn role(is_v4: bool, protocol: u8, icmp_type: u8) -> Role {
    match (is_v4, protocol, icmp_type) {
        (true, protocol::ICMP, 8 | 13 | 17 | 42) | (false, protocol::ICMPV6, 128 | 160) => Role::Request,
        (true, protocol::ICMP, 0 | 14 | 18 | 43) | (false, protocol::ICMPV6, 129 | 161) => Role::Reply,
        _ => Role::None,
    }
}
