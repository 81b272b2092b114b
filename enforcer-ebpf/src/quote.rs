//! The packet that an ICMP error quotes: [`read`].

use enforcer_abi::{Direction, protocol};

use crate::{
    address::{is_v4, same},
    ends::Ends,
    frame::{Frame, Room},
    packet::{Fragment, Packet, Role},
    parse::{
        extension::{self, Extensions},
        ip::{Ipv4, Ipv6},
        transport::{self, Icmp, Ports},
    },
    verifier::forget_small,
};

/// ICMP's own header before the quotation (RFC 792, RFC 4443).
const ICMP_LEN: u32 = 8;

/// Writes the ends of the quoted packet, which went the other way, over those of the error. False if it can't be read, is a later fragment or
/// ICMP without a flow, or if the error does not concern the pod's own traffic with that remote: what a pod sends as an
/// error must go to whom it quotes, or it would be a way out to anybody. What is written then means nothing.
#[inline(never)]
pub(crate) fn read(frame: Frame, packet: &Packet, ends: &mut Ends) -> bool {
    forget_small(read_ends(frame, packet, ends), packet.now)
}

#[inline(always)]
fn read_ends(frame: Frame, packet: &Packet, ends: &mut Ends) -> bool {
    let room = &mut Room::new();
    let direction = packet.direction().opposite();
    let offset = packet.transport + ICMP_LEN;
    let transport = if is_v4(&packet.ends.pod) {
        read_v4(frame, offset, direction, ends, room)
    } else {
        read_v6(frame, offset, direction, ends, room)
    };
    let Some(transport) = transport else { return false };
    if read_ports(frame, transport, direction, ends, room).is_none() {
        return false;
    }
    same(&ends.pod, &packet.ends.pod) && (!packet.is_egress() || same(&ends.key.remote, &packet.ends.key.remote))
}

#[inline(always)]
fn read_v4(frame: Frame, offset: u32, direction: Direction, ends: &mut Ends, room: &mut Room) -> Option<u32> {
    let header = frame.copied::<Ipv4>(offset, room)?;
    let length = header.header_len()?;
    ends.set_addresses(direction, header.source(), header.destination());
    ends.key.protocol = header.protocol;
    if header.fragment_offset() == 0 { Some(offset + length) } else { None }
}

#[inline(always)]
fn read_v6(frame: Frame, offset: u32, direction: Direction, ends: &mut Ends, room: &mut Room) -> Option<u32> {
    let header = frame.copied::<Ipv6>(offset, room)?;
    if !header.is_sound() {
        return None;
    }
    ends.set_addresses(direction, header.source(), header.destination());
    let mut extensions = Extensions::new(offset + Ipv6::LEN, header.next_header);
    if !extension::walk(frame, &mut extensions, room) || extensions.fragment as u8 == Fragment::Later as u8 {
        return None;
    }
    ends.key.protocol = extensions.next_header;
    Some(extensions.offset)
}

#[inline(always)]
fn read_ports(frame: Frame, offset: u32, direction: Direction, ends: &mut Ends, room: &mut Room) -> Option<()> {
    match ends.key.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let (source, destination) = frame.copied::<Ports>(offset, room)?.get();
            ends.set_ports(direction, source, destination);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let icmp = frame.copied::<Icmp>(offset, room)?;
            if transport::role(is_v4(&ends.pod), ends.key.protocol, icmp.kind) as u8 == Role::None as u8 {
                return None;
            }
            ends.key.pod_port = icmp.identifier();
        }
        _ => {}
    }
    Some(())
}
