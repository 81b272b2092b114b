//! Fragments: the first one is judged and remembered ([`remember`]), the others follow it
//! ([`first`]).

use enforcer_abi::{Direction, FragmentKey, FragmentValue, Reason};

use crate::{
    maps::{FRAGMENTS, field},
    packet::Packet,
    settings::setting,
};

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    let ends = &packet.ends;
    let (source, destination) = match packet.direction {
        Direction::Ingress => (ends.key.remote, ends.pod),
        Direction::Egress => (ends.pod, ends.key.remote),
    };
    FragmentKey {
        source,
        destination,
        identification: packet.identification,
        ifindex: ends.key.ifindex,
        protocol: packet.fragment_protocol,
        direction: packet.direction as u8,
        reserved: [0; 2],
    }
}

/// Writes down what became of a first fragment.
#[inline(never)]
pub(crate) fn remember(packet: &Packet, reason: u32) -> bool {
    let value = FragmentValue { epoch: packet.epoch, seen: packet.now as u32, reason };
    FRAGMENTS.insert(&key(packet), &value, 0).is_ok()
}

/// Whether the first fragment passed, if it was seen in this epoch.
#[inline(always)]
pub(crate) fn first(packet: &Packet) -> Option<bool> {
    let value = FRAGMENTS.get_ptr(&key(packet))?;
    let age = (packet.now as u32).wrapping_sub(field!(value, seen));
    // As in `flow::idle`, another CPU's clock may have been a little later.
    let slack = setting!(hz) as u32;
    let is_live = age.wrapping_add(slack) <= (setting!(timeouts.fragment) + setting!(hz)) as u32;
    let is_current = field!(value, epoch) == packet.epoch || setting!(keep_established) != 0;
    if is_live && is_current { Some(field!(value, reason) < Reason::NoRule as u32) } else { None }
}
