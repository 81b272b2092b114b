//! From bytes to a [`Packet`]: [`parse`].

pub(crate) mod extension;
pub(crate) mod ip;
pub(crate) mod transport;

use enforcer_abi::Direction;

use crate::{
    frame::{Frame, Room, Wire},
    packet::{Fragment, Packet, Role, Shape},
    verifier::opaque_small,
};

const ETHERNET_LEN: u32 = 14;
const VLAN_LEN: u32 = 4;

/// In network byte order.
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_ARP: u16 = 0x0806_u16.to_be();
const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8_u16.to_be();

#[derive(Clone, Copy)]
#[repr(C)]
struct Ethernet {
    addresses: [u16; 6],
    ethertype: u16,
}

// SAFETY: integers, no padding.
unsafe impl Wire for Ethernet {}

#[derive(Clone, Copy)]
#[repr(C)]
struct Vlan {
    control: u16,
    ethertype: u16,
}

// SAFETY: integers, no padding.
unsafe impl Wire for Vlan {}

/// Reads the packet's headers. Whatever can't be read leaves the shape opaque.
#[inline(always)]
pub(crate) fn parse(frame: Frame, direction: Direction, packet: &mut Packet) {
    let room = &mut Room::new();
    let Some(ethernet) = frame.header::<Ethernet>(0, room) else { return };
    let mut ethertype = ethernet.ethertype;
    let mut offset = ETHERNET_LEN;
    // The tag that hardware or the stack has taken out is not in the data; one more may be.
    if ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN {
        let Some(vlan) = frame.header::<Vlan>(offset, room) else { return };
        ethertype = vlan.ethertype;
        offset += VLAN_LEN;
    }
    packet.shape = match ethertype {
        ETHERTYPE_IPV4 => match ip::parse_v4(frame, offset, direction, packet, room) {
            Some(()) => Shape::Ip,
            None => Shape::Opaque,
        },
        ETHERTYPE_IPV6 => match ip::parse_v6(frame, offset, direction, packet, room) {
            Some(()) => Shape::Ip,
            None => Shape::OpaqueV6,
        },
        ETHERTYPE_ARP => Shape::Arp,
        _ => Shape::Opaque,
    };
    // Hidden, or the compiler repeats all that follows for each way that leads here.
    packet.shape = opaque_small(packet.shape);
    packet.opens = opaque_small(packet.opens);
    packet.role = opaque_small(packet.role);
    packet.fragment = opaque_small(packet.fragment);
    packet.may_follow = packet.shape as u8 == Shape::Ip as u8
        && packet.fragment as u8 == Fragment::Whole as u8
        && packet.role as u8 != Role::None as u8
        && !packet.opens;
}
