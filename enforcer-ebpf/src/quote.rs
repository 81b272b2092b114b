//! The packet that an ICMP error quotes: [`read`].

use enforcer_abi::{Direction, protocol};

use crate::{
    ends::Ends,
    address::{is_v4, same},
    frame::Frame,
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

/// Writes the ends of the quoted packet, which went the other way. False if it can't be read, is a later fragment or
/// ICMP without a flow, or if the error does not concern the pod's own traffic with that remote: what a pod sends as an
/// error must go to whom it quotes, or it would be a way out to anybody.
#[inline(never)]
pub(crate) fn read(frame: Frame, packet: &Packet, ends: &mut Ends) -> bool {
    forget_small(read_ends(frame, packet, ends), packet.now)
}

#[inline(always)]
fn read_ends(frame: Frame, packet: &Packet, written: &mut Ends) -> bool {
    let ends = &mut Ends::new(packet.ends.key.ifindex);
    let direction = packet.direction.opposite();
    let offset = packet.transport + ICMP_LEN;
    let transport = if is_v4(&packet.ends.pod) {
        read_v4(frame, offset, direction, ends)
    } else {
        read_v6(frame, offset, direction, ends)
    };
    let Some(transport) = transport else { return false };
    if read_ports(frame, transport, direction, ends).is_none() {
        return false;
    }
    if !same(&ends.pod, &packet.ends.pod)
        || (is_egress(packet) && !same(&ends.key.remote, &packet.ends.key.remote))
    {
        return false;
    }
    *written = *ends;
    true
}

#[inline(always)]
fn is_egress(packet: &Packet) -> bool {
    packet.direction as u8 == Direction::Egress as u8
}

#[inline(always)]
fn read_v4(frame: Frame, offset: u32, direction: Direction, ends: &mut Ends) -> Option<u32> {
    let header = frame.copy::<Ipv4>(offset)?;
    let length = header.header_len()?;
    ends.set_addresses(direction, header.source(), header.destination());
    ends.key.protocol = header.protocol;
    if header.fragment_offset() == 0 { Some(offset + length) } else { None }
}

#[inline(always)]
fn read_v6(frame: Frame, offset: u32, direction: Direction, ends: &mut Ends) -> Option<u32> {
    let header = frame.copy::<Ipv6>(offset)?;
    if !header.is_sound() {
        return None;
    }
    ends.set_addresses(direction, header.source(), header.destination());
    let mut extensions = Extensions::new(offset + Ipv6::LEN, header.next_header);
    if !extension::walk(frame, &mut extensions) || extensions.fragment as u8 == Fragment::Later as u8 {
        return None;
    }
    ends.key.protocol = extensions.next_header;
    Some(extensions.offset)
}

#[inline(always)]
fn read_ports(frame: Frame, offset: u32, direction: Direction, ends: &mut Ends) -> Option<()> {
    match ends.key.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let (source, destination) = frame.copy::<Ports>(offset)?.get();
            ends.set_ports(direction, source, destination);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let icmp = frame.copy::<Icmp>(offset)?;
            if transport::role(is_v4(&ends.pod), ends.key.protocol, icmp.kind) as u8 == Role::None as u8 {
                return None;
            }
            ends.key.pod_port = icmp.identifier();
        }
        _ => {}
    }
    Some(())
}
