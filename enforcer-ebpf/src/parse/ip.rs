//! IPv4 and IPv6 headers: [`parse_v4`], [`parse_v6`].

use enforcer_abi::{Address, Direction, protocol};

use super::{
    extension::{self, Extensions},
    transport,
};
use crate::{
    address::{from_words, is_mapped, mapped},
    frame::{Frame, Room, Wire, size},
    packet::{Fragment, Packet},
    verifier::opaque_u32,
};

/// No transport header starts later: that is what a bounded number of extension headers can add up to.
const MAX_OFFSET: u32 = 0x7fff;

/// RFC 791 section 3.1
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ipv4 {
    version_and_length: u8,
    type_of_service: u8,
    total_length: u16,
    identification: u16,
    flags_and_offset: u16,
    time_to_live: u8,
    pub(crate) protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

// SAFETY: integers, no padding.
unsafe impl Wire for Ipv4 {}

impl Ipv4 {
    /// The header's length in bytes, options included, if version and length make sense.
    #[inline(always)]
    pub(crate) fn header_len(&self) -> Option<u32> {
        let length = u32::from(self.version_and_length & 0x0f) * 4;
        if self.version_and_length >> 4 == 4 && length >= size::<Self>() { Some(length) } else { None }
    }

    /// The offset in units of 8 bytes.
    #[inline(always)]
    pub(crate) fn fragment_offset(&self) -> u16 {
        u16::from_be(self.flags_and_offset) & 0x1fff
    }

    #[inline(always)]
    fn more_fragments(&self) -> bool {
        u16::from_be(self.flags_and_offset) & 0x2000 != 0
    }

    #[inline(always)]
    pub(crate) fn source(&self) -> Address {
        mapped(self.source)
    }

    #[inline(always)]
    pub(crate) fn destination(&self) -> Address {
        mapped(self.destination)
    }
}

/// RFC 8200 section 3
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ipv6 {
    version: u8,
    traffic_class: u8,
    flow_label: u16,
    payload_length: u16,
    pub(crate) next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

// SAFETY: integers, no padding.
unsafe impl Wire for Ipv6 {}

impl Ipv6 {
    pub(crate) const LEN: u32 = size::<Self>();

    /// Whether the version is right and neither address is an IPv4-mapped one, which would be taken for IPv4.
    #[inline(always)]
    pub(crate) fn is_sound(&self) -> bool {
        self.version >> 4 == 6 && !is_mapped(self.source) && !is_mapped(self.destination)
    }

    #[inline(always)]
    pub(crate) fn source(&self) -> Address {
        copied(&self.source)
    }

    #[inline(always)]
    pub(crate) fn destination(&self) -> Address {
        copied(&self.destination)
    }
}

/// A later fragment has nothing more to read. One that starts 8 bytes into a TCP header could overwrite the flags that
/// were judged (RFC 1858 section 4.2, RFC 3128), and no sender needs it.
#[inline(always)]
fn later(protocol: u8, fragment_offset: u16) -> Option<()> {
    if protocol == protocol::TCP && fragment_offset == 1 { None } else { Some(()) }
}

/// Word by word, or the compiler calls `memmove`.
#[inline(always)]
fn copied(address: &[u32; 4]) -> Address {
    let [a, b, c, d] = *address;
    from_words([opaque_u32(a), b, c, d])
}

/// Reads the IPv4 header at `offset` and what follows.
#[inline(always)]
pub(crate) fn parse_v4(
    frame: Frame,
    offset: u32,
    direction: Direction,
    packet: &mut Packet,
    room: &mut Room,
) -> Option<()> {
    let header = frame.header::<Ipv4>(offset, room)?;
    let header_len = header.header_len()?;
    let total_length = u32::from(u16::from_be(header.total_length));
    let end = match total_length {
        // BIG TCP: more than the field can say (Linux, `iph_totlen`).
        0 => frame.len(),
        total_length if total_length < header_len => return None,
        total_length => offset + total_length,
    };
    packet.ends.set_addresses(direction, header.source(), header.destination());
    packet.ends.key.protocol = header.protocol;
    let fragment_offset = header.fragment_offset();
    if fragment_offset != 0 || header.more_fragments() {
        packet.identification = u32::from(u16::from_be(header.identification));
        packet.fragment_protocol = header.protocol;
        packet.fragment = if fragment_offset == 0 { Fragment::First } else { Fragment::Later };
        if fragment_offset != 0 {
            return later(header.protocol, fragment_offset);
        }
    }
    transport::parse(frame, offset + header_len, end, direction, packet, room)
}

/// Reads the IPv6 header at `offset` and what follows.
#[inline(always)]
pub(crate) fn parse_v6(
    frame: Frame,
    offset: u32,
    direction: Direction,
    packet: &mut Packet,
    room: &mut Room,
) -> Option<()> {
    let header = frame.header::<Ipv6>(offset, room)?;
    packet.ends.set_addresses(direction, header.source(), header.destination());
    if !header.is_sound() {
        return None;
    }
    let end = match u16::from_be(header.payload_length) {
        // BIG TCP, with a jumbo hop-by-hop option (RFC 2675) or, in newer kernels, without.
        0 => frame.len(),
        length => offset + Ipv6::LEN + u32::from(length),
    };
    packet.hop_limit = header.hop_limit;
    let mut next_header = header.next_header;
    let mut transport = offset + Ipv6::LEN;
    if extension::is_one(next_header) {
        let mut extensions = Extensions::new(transport, next_header);
        // The second condition holds, but the verifier has lost sight of it: "invalid access to packet, off=2 size=2,
        // R9(id=16198,off=2,r=0)" (6.18).
        if !extension::walk(frame, &mut extensions, room) || extensions.offset > MAX_OFFSET {
            return None;
        }
        next_header = extensions.next_header;
        transport = extensions.offset;
        packet.identification = extensions.identification;
        packet.fragment = extensions.fragment;
        packet.fragment_protocol = extensions.fragment_protocol;
        packet.v6_fragment = extensions.has_fragment_header;
        if extensions.fragment as u8 == Fragment::Later as u8 {
            packet.ends.key.protocol = next_header;
            return later(next_header, extensions.fragment_offset);
        }
    }
    packet.ends.key.protocol = next_header;
    transport::parse(frame, transport, end, direction, packet, room)
}
