//! Packets of an interface whose pod isn't known yet: [`judge`].

use enforcer_abi::{PodFlags, Reason, protocol};

use crate::{
    address::is_v4,
    maps::NODE_ADDRESSES,
    packet::{Fragment, Packet, Role, Shape},
};

/// UDP ports of DHCP (RFC 2131 section 4.1) and DHCPv6 (RFC 8415 section 7.2), client and server.
const DHCP_V4: (u16, u16) = (68, 67);
const DHCP_V6: (u16, u16) = (546, 547);

/// What becomes of a packet that is not the node's own. `flags` are 0 for an interface without an entry.
#[inline(always)]
pub(crate) fn judge(packet: &Packet, flags: u32) -> Reason {
    let passes = is_neighbours(packet) || (flags & PodFlags::SETUP != 0 && is_setup(packet));
    if passes { Reason::Infrastructure } else { Reason::Held }
}

/// Whether it only tells neighbours of each other. The node's own packets can't reach a pod whose answers to that are
/// dropped, and whoever asks in vain asks again after a second. MLD goes with it: bridges that snoop deliver solicitations
/// to those only who have reported.
#[inline(always)]
fn is_neighbours(packet: &Packet) -> bool {
    matches!(packet.shape, Shape::Arp) || packet.is_infrastructure()
}

/// Whether a CNI may need it to set the interface up.
#[inline(always)]
fn is_setup(packet: &Packet) -> bool {
    packet.is_ip() && (is_dhcp(packet) || is_echo_to_node(packet))
}

#[inline(always)]
fn is_dhcp(packet: &Packet) -> bool {
    let key = &packet.ends.key;
    let ports = if is_v4(&packet.ends.pod) { DHCP_V4 } else { DHCP_V6 };
    key.protocol == protocol::UDP
        && packet.fragment as u8 == Fragment::Whole as u8
        && (key.pod_port, key.remote_port) == ports
}

#[inline(always)]
fn is_echo_to_node(packet: &Packet) -> bool {
    packet.is_egress()
        && packet.role() as u8 == Role::Request as u8
        && matches!(packet.icmp_type, 8 | 128)
        && NODE_ADDRESSES.get_ptr(&packet.ends.key.remote).is_some()
}
