//! The node's own traffic to its pods, which always passes: [`is_exempt`].

use enforcer_abi::Direction;

use crate::{
    frame::Frame,
    maps::{NODE_ADDRESSES, NODE_INTERFACES},
    packet::{Packet, Shape},
    settings::setting,
    verifier::forget_small,
};

/// Whether the packet is the node's own: made here, as the kernel knows it, never by its source address alone, since
/// what is masqueraded to a node's address is not the node's own. A pod's own packet that comes back to it by its own
/// veth (through a Service) counts too: a pod can't cut itself off.
///
/// An IPv6 fragment is never exempt: when the kernel fragments what it forwards anew, it forgets where it came from
/// (`ip6_copy_metadata` in net/ipv6/ip6_output.c has no `skb_iif`), so that forwarded fragments look made here.
#[inline(always)]
pub(crate) fn is_exempt(frame: Frame, direction: Direction, packet: &Packet) -> bool {
    forget_small(is_own(frame, direction, packet), packet.now)
}

#[inline(always)]
fn is_own(frame: Frame, direction: Direction, packet: &Packet) -> bool {
    if direction as u8 == Direction::Egress as u8 || packet.v6_fragment || packet.shape as u8 == Shape::OpaqueV6 as u8 {
        return false;
    }
    let came_by = frame.ingress_ifindex();
    if came_by == 0 || came_by == packet.ends.key.ifindex {
        return true;
    }
    setting!(node_interfaces) != 0
        && NODE_INTERFACES.get_ptr(&came_by).is_some()
        && NODE_ADDRESSES.get_ptr(&packet.ends.key.remote).is_some()
}
