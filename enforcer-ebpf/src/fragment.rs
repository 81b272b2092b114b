//! Fragments: the first one is judged and remembered ([`remember`]), the others follow it
//! ([`first`]).

use enforcer_abi::{Direction, FragmentKey, FragmentValue, Reason};

use crate::{
    address::words,
    maps::{FRAGMENTS, field},
    packet::Packet,
    settings::setting,
    verifier::{Small, forget_small, low},
};

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    let ends = &packet.ends;
    let (source, destination) = match packet.direction() {
        Direction::Ingress => (&ends.key.remote, &ends.pod),
        Direction::Egress => (&ends.pod, &ends.key.remote),
    };
    let [s0, s1, s2, s3] = words(source);
    let [d0, d1, d2, d3] = words(destination);
    let last = u32::from_ne_bytes([packet.fragment_protocol, packet.direction() as u8, 0, 0]);
    // From words: the compiler would call `memset` for the reserved bytes.
    // SAFETY: 44 bytes of integers, without padding.
    unsafe {
        core::mem::transmute::<[u32; 11], FragmentKey>([
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
            packet.identification,
            ends.key.ifindex,
            last,
        ])
    }
}

/// Writes down what became of a first fragment.
#[inline(never)]
pub(crate) fn remember(packet: &Packet, reason: u32) -> bool {
    let value = FragmentValue { epoch: packet.epoch, seen: low(packet.now), reason };
    FRAGMENTS.insert(&key(packet), &value)
}

/// What is known of a later fragment's first one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum First {
    /// It was not seen in this epoch.
    Unseen,
    /// It passed.
    Passed,
    /// It was refused.
    Refused,
}

// SAFETY: `repr(u8)`.
unsafe impl Small for First {}

/// Looks a later fragment's first one up.
#[inline(never)]
pub(crate) fn first(packet: &Packet) -> First {
    forget_small(find(packet), packet.now)
}

#[inline(always)]
fn find(packet: &Packet) -> First {
    let Some(value) = FRAGMENTS.get_ptr(&key(packet)) else { return First::Unseen };
    let age = low(packet.now).wrapping_sub(field!(value, seen));
    // As in `flow::idle`, another CPU's clock may have been a little later.
    let slack = low(setting!(hz));
    let is_live = age.wrapping_add(slack) <= low(setting!(timeouts.fragment) + setting!(hz));
    let is_current = field!(value, epoch) == packet.epoch || setting!(keep_established) != 0;
    match is_live && is_current {
        false => First::Unseen,
        true if field!(value, reason) < Reason::NoRule as u32 => First::Passed,
        true => First::Refused,
    }
}
