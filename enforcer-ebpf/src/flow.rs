//! Remembered connections. The fast path is [`follows`]; [`find`], [`touch`], [`write`] and [`remember`] serve the
//! slow one, whose decisions are in `resolve`.

use enforcer_abi::{Direction, FlowState, FlowValue, Reason, protocol};

use crate::{
    address::same,
    ends::Ends,
    exempt,
    frame::Frame,
    maps::{FLOWS, OPENINGS, PREVIOUS_FLOWS},
    packet::{Packet, Role, TCP_FIN, TCP_RST},
    settings::setting,
    verifier::{Small, forget_small, low},
};

/// Where a flow was found.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    /// Nowhere.
    Nowhere,
    /// In `FLOWS`.
    Flows,
    /// In `OPENINGS`.
    Openings,
    /// In `PREVIOUS_FLOWS`.
    Previous,
}

// SAFETY: `repr(u8)`.
unsafe impl Small for Place {}

const ONE_WAY: u8 = FlowState::OneWay as u8;
const REPLIED: u8 = FlowState::Replied as u8;
const SYN_SENT: u8 = FlowState::SynSent as u8;
const ESTABLISHED: u8 = FlowState::Established as u8;
const CLOSING: u8 = FlowState::Closing as u8;
const CLOSED: u8 = FlowState::Closed as u8;

const NODE_OWN: u8 = Reason::NodeOwn as u8;
const AUDIT: u8 = Reason::Audit as u8;

/// The fast path: whether the packet belongs to a live flow that passes and was judged in this epoch. One look-up.
///
/// Elements of an LRU map are reused under readers, too, and these carry no key; the pod's address must match, and what
/// is written in place is harmless to another flow: a time and a state, never a verdict.
#[inline(always)]
pub(crate) fn follows(frame: Frame, direction: Direction, packet: &mut Packet) -> bool {
    let Some(place) = FLOWS.get_ptr_mut(&packet.ends.key) else {
        packet.flows_has_none = true;
        return false;
    };
    // SAFETY: the look-up has just returned it.
    let flow = unsafe { &mut *place };
    if !same(&flow.pod, &packet.ends.pod) {
        return false;
    }
    let reason = flow.reason;
    if reason >= Reason::NoRule as u8 || (reason == AUDIT && setting!(audit) == 0) {
        return false;
    }
    if reason == NODE_OWN {
        if direction as u8 == Direction::Ingress as u8 && !exempt::is_exempt(frame, direction, packet) {
            return false;
        }
    } else if flow.epoch != packet.epoch && (setting!(keep_established) == 0 || reason == AUDIT) {
        return false;
    }
    if !plays_role(packet, flow) {
        return false;
    }
    let idle = idle(flow, packet.now);
    if idle > time_out(flow.state, packet.ends.key.protocol) {
        return false;
    }
    touch(flow, packet, idle);
    true
}

/// Whether the packet goes in the direction of the flow that its kind belongs to.
#[inline(always)]
pub(crate) fn plays_role(packet: &Packet, flow: &FlowValue) -> bool {
    match packet.role {
        Role::Any => true,
        Role::Request => flow.opener == packet.direction as u8,
        Role::Reply => flow.opener != packet.direction as u8,
        Role::None => false,
    }
}

/// Jiffies since the flow's last packet, and one second more: another CPU may have written a time that is a little
/// later than ours.
#[inline(always)]
pub(crate) fn idle(flow: &FlowValue, now: u64) -> u32 {
    let slack = low(setting!(hz));
    low(now).wrapping_add(slack).wrapping_sub(flow.last_seen)
}

/// What [`idle`] may be at most.
#[inline(always)]
pub(crate) fn time_out(state: u8, protocol: u8) -> u32 {
    let jiffies = match state {
        ESTABLISHED => setting!(timeouts.established),
        SYN_SENT => setting!(timeouts.syn_sent),
        CLOSING => setting!(timeouts.closing),
        CLOSED => setting!(timeouts.closed),
        _ => match (protocol, state) {
            (protocol::ICMP | protocol::ICMPV6, _) => setting!(timeouts.icmp),
            (protocol::SCTP, REPLIED) => setting!(timeouts.established),
            (_, REPLIED) => setting!(timeouts.replied),
            _ => setting!(timeouts.one_way),
        },
    };
    low(jiffies + setting!(hz))
}

/// Writes what this packet changes: the time, once a second, and the state, on FIN and RST.
#[inline(always)]
pub(crate) fn touch(flow: &mut FlowValue, packet: &Packet, idle: u32) {
    if packet.tcp_flags & (TCP_FIN | TCP_RST) != 0 {
        close(flow, packet);
        flow.last_seen = low(packet.now);
    } else if idle >= 2 * low(setting!(hz)) {
        // A connection that goes on for a second after a reset was not reset: the segment was forged, or out of window.
        if flow.state == CLOSED && flow.fins == 0 {
            flow.state = ESTABLISHED;
        }
        flow.last_seen = low(packet.now);
    }
}

#[inline(always)]
fn close(flow: &mut FlowValue, packet: &Packet) {
    if packet.tcp_flags & TCP_RST != 0 {
        flow.state = CLOSED;
    } else {
        flow.fins |= 1 << packet.direction as u8;
        flow.state = if flow.fins == 3 { CLOSED } else { CLOSING };
    }
}

/// What [`touch`] does, to a copy.
#[inline(always)]
pub(crate) fn advance(value: &mut FlowValue, packet: &Packet) {
    value.last_seen = low(packet.now);
    if packet.tcp_flags & (TCP_FIN | TCP_RST) != 0 {
        close(value, packet);
        value.state = forget_small(value.state, packet.now);
    }
}

/// Looks a live flow up, everywhere. The pointer is null if there is none.
#[inline(always)]
pub(crate) fn find(ends: &Ends, now: u64, flows_has_none: bool) -> (Place, *mut FlowValue) {
    if !flows_has_none
        && let Some(flow) = FLOWS.get_ptr_mut(&ends.key)
        && is_live(flow, ends, now)
    {
        return (Place::Flows, flow);
    }
    if let Some(flow) = OPENINGS.get_ptr_mut(&ends.key)
        && is_live(flow, ends, now)
    {
        return (Place::Openings, flow);
    }
    if setting!(previous_flows) != 0
        && let Some(flow) = PREVIOUS_FLOWS.get_ptr_mut(&ends.key)
        && is_live(flow, ends, now)
    {
        return (Place::Previous, flow);
    }
    (Place::Nowhere, core::ptr::null_mut())
}

#[inline(always)]
fn is_live(flow: *mut FlowValue, ends: &Ends, now: u64) -> bool {
    // SAFETY: the look-up has just returned it.
    let flow = unsafe { &*flow };
    same(&flow.pod, &ends.pod) && idle(flow, now) <= time_out(flow.state, ends.key.protocol)
}

/// Replaces a flow's value as a whole. In place, the verdict could land in an element that has become another flow's.
#[inline(always)]
pub(crate) fn write(place: Place, ends: &Ends, value: &FlowValue) {
    // A failure means that the map has no element to spare, and leaves the next packet to be judged as this one was.
    let _result = match place {
        Place::Openings => OPENINGS.insert(&ends.key, value),
        _ => FLOWS.insert(&ends.key, value),
    };
}

/// Moves a flow to `FLOWS` with its first reply, `packet`.
#[inline(always)]
pub(crate) fn promote(packet: &Packet, value: &mut FlowValue) {
    match value.state {
        ONE_WAY => value.state = REPLIED,
        SYN_SENT => value.state = ESTABLISHED,
        _ => {}
    }
    value.state = forget_small(value.state, packet.now);
    write(Place::Flows, &packet.ends, value);
    // It may be gone already.
    let _result = OPENINGS.remove(&packet.ends.key);
}

/// Remembers a flow that this packet begins, or picks up. A reset begins none.
#[inline(never)]
pub(crate) fn remember(packet: &Packet, opener: Direction, reason: Reason) -> bool {
    if packet.tcp_flags & TCP_RST != 0 {
        return false;
    }
    let state = match (packet.ends.key.protocol, packet.opens) {
        (protocol::TCP, true) => SYN_SENT,
        (protocol::TCP, false) => ESTABLISHED,
        _ => ONE_WAY,
    };
    let mut value = FlowValue {
        pod: packet.ends.pod,
        epoch: packet.epoch,
        last_seen: low(packet.now),
        reason: reason as u8,
        opener: opener as u8,
        state,
        fins: 0,
    };
    advance(&mut value, packet);
    write(Place::Openings, &packet.ends, &value);
    if !packet.flows_has_none {
        // Whatever had these ends before is over.
        let _result = FLOWS.remove(&packet.ends.key);
    }
    true
}
