//! Counters and events: [`count`], [`send`].

use aya_ebpf::helpers::bpf_ktime_get_ns;
use enforcer_abi::{Event, EventBudget, EventKind, Reason, protocol};

use crate::{
    frame::Frame,
    maps::{COUNTERS, EVENT_BUDGET, EVENTS},
    packet::{Packet, Shape},
    settings::setting,
    verifier::{low, opaque, opaque_u32},
};

/// What the judgement used, for the report.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Trace {
    pub(crate) table: u64,
    pub(crate) class: u64,
    pub(crate) port_class: u32,
    /// An [`EventKind`], or [`Trace::SILENT`].
    pub(crate) kind: u32,
}

impl Trace {
    /// Nothing to report.
    pub(crate) const SILENT: u32 = 255;

    #[inline(always)]
    pub(crate) fn new() -> Self {
        // Hidden, or the compiler calls `memset`.
        let zero = opaque(0);
        Self { table: zero, class: zero, port_class: low(zero), kind: Self::SILENT }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "there are few")]
const REASONS: u32 = Reason::COUNT as u32;

/// Counts a packet in its pod's row.
#[inline(always)]
pub(crate) fn count(slot: u32, packet: &Packet, reason: Reason) {
    let Some(counters) = COUNTERS.get_ptr_mut(slot) else { return };
    let index = packet.direction as u32 * REASONS + reason as u32;
    // The compiler knows the range of both and drops the check that the verifier needs, which then says "invalid access
    // to map value, value_size=288 off=2032 size=8, R0 max value is outside of the allowed memory range" (6.18).
    let index = opaque_u32(index);
    if index < 2 * REASONS {
        // SAFETY: within the row, which is this CPU's own.
        unsafe { *counters.cast::<u64>().add(index as usize) += 1 };
    }
}

/// Sends an event, if this CPU's budget allows.
#[inline(never)]
pub(crate) fn send(frame: Frame, packet: &Packet, trace: &Trace, reason: u8) -> bool {
    let Some(budget) = EVENT_BUDGET.get_ptr_mut(0) else { return false };
    if !spend(budget, packet.now, trace.kind == EventKind::NewFlow as u32) {
        return false;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>() else {
        // SAFETY: this CPU's own element.
        unsafe { (*budget).lost += 1 };
        return false;
    };
    write(entry.as_mut_ptr(), frame, packet, trace, reason);
    entry.submit(0);
    true
}

/// Writes every byte of an event, where it is.
#[inline(always)]
fn write(event: *mut Event, frame: Frame, packet: &Packet, trace: &Trace, reason: u8) {
    let key = &packet.ends.key;
    let remote_port = if packet.shape as u8 == Shape::Ip as u8 && is_icmp(key.protocol) {
        (u16::from(packet.icmp_type) << 8) | u16::from(packet.icmp_code)
    } else {
        key.remote_port
    };
    // SAFETY: `event` is a reservation of the size of an event, nobody else's yet. The last four bytes are written as
    // one word: the compiler would call `memset` for the three reserved ones.
    unsafe {
        (*event).time = bpf_ktime_get_ns();
        (*event).table = trace.table;
        (*event).class = trace.class;
        (*event).pod = packet.ends.pod;
        (*event).remote = key.remote;
        (*event).ifindex = key.ifindex;
        (*event).length = frame.len();
        (*event).port_class = trace.port_class;
        (*event).remote_port = remote_port;
        (*event).pod_port = key.pod_port;
        (*event).protocol = key.protocol;
        (*event).direction = packet.direction as u8;
        (*event).reason = reason;
        (*event).kind = (trace.kind & 0xff) as u8;
        let last = u32::from_ne_bytes([packet.tcp_flags, 0, 0, 0]);
        (&raw mut (*event).tcp_flags).cast::<u32>().write(last);
    }
}

#[inline(always)]
fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, protocol::ICMP | protocol::ICMPV6)
}

/// Takes one token from the bucket. New flows leave the lower half of it to drops, which matter more.
#[inline(always)]
fn spend(budget: *mut EventBudget, now: u64, is_new_flow: bool) -> bool {
    let (rate, hz) = (setting!(event_rate), setting!(hz));
    // SAFETY: this CPU's own element; nobody else writes it but user space, once.
    let budget = unsafe { &mut *budget };
    let elapsed = now - budget.refilled;
    if elapsed >= hz {
        budget.tokens = rate;
        budget.refilled = now;
    } else if elapsed > 0 {
        let earned = elapsed * rate / if hz == 0 { 1 } else { hz };
        if earned > 0 {
            let tokens = budget.tokens + earned;
            budget.tokens = if tokens > rate { rate } else { tokens };
            budget.refilled = now;
        }
    }
    let reserve = if is_new_flow { rate / 2 } else { 0 };
    if budget.tokens <= reserve {
        budget.suppressed += 1;
        return false;
    }
    budget.tokens -= 1;
    true
}
