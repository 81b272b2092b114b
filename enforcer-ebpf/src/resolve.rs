//! What the slow path makes of flows that it finds: [`resolve`], and [`exempted`] for the node's own.

use enforcer_abi::{Direction, EventKind, FlowValue, Reason, protocol};

use crate::{
    ends::Ends,
    flow::{self, Place},
    judge::Question,
    packet::{Packet, Role, TCP_ACK, TCP_RST, TCP_SYN},
    report::Trace,
    settings::setting,
    verifier::{Small, forget_small},
};

/// Whether a flow decides.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answer {
    /// There is none.
    NoFlow,
    /// There is one of these ends, but the packet is not of it and must not replace it.
    Foreign,
    /// It passes.
    Passes,
    /// It was refused.
    Refused,
    /// It must be judged again first, and answer a question in the direction in which it was opened; then comes
    /// [`renew`]. Four variants without content, because of one with content the compiler leaves a part unwritten that
    /// the verifier then sees returned: "R8 !read_ok" (6.18).
    DueIngressNew,
    DueIngressEstablished,
    DueEgressNew,
    DueEgressEstablished,
}

impl Answer {
    #[inline(always)]
    fn due(flow: &FlowValue, is_new: bool) -> Self {
        match (flow.opener == Direction::Ingress as u8, is_new) {
            (true, true) => Self::DueIngressNew,
            (true, false) => Self::DueIngressEstablished,
            (false, true) => Self::DueEgressNew,
            (false, false) => Self::DueEgressEstablished,
        }
    }

    /// What to ask the tables, if it is due.
    #[inline(always)]
    pub(crate) fn question(self) -> Option<(Direction, Question)> {
        match self {
            Self::DueIngressNew => Some((Direction::Ingress, Question::New)),
            Self::DueIngressEstablished => Some((Direction::Ingress, Question::Established)),
            Self::DueEgressNew => Some((Direction::Egress, Question::New)),
            Self::DueEgressEstablished => Some((Direction::Egress, Question::Established)),
            Self::NoFlow | Self::Foreign | Self::Passes | Self::Refused => None,
        }
    }
}

const NODE_OWN: u8 = Reason::NodeOwn as u8;
const AUDIT: u8 = Reason::Audit as u8;

/// Whether what a flow's value says is no longer, or was never, a licence to pass.
#[inline(always)]
fn is_due(value: &FlowValue, epoch: u64, audits: bool) -> bool {
    if value.reason == AUDIT {
        return !audits || value.epoch != epoch;
    }
    !passes(value) || (value.epoch != epoch && setting!(keep_established) == 0)
}

#[inline(always)]
fn passes(value: &FlowValue) -> bool {
    value.reason < Reason::NoRule as u8
}

// SAFETY: `repr(u8)`.
unsafe impl Small for Answer {}

/// Finds the flow with these ends, which are the packet's own or those of the packet that it quotes. `is_held`: only what
/// the node opened goes on.
#[inline(never)]
pub(crate) fn resolve(packet: &Packet, ends: &Ends, audits: bool, is_held: bool) -> Answer {
    forget_small(look(packet, ends, audits, is_held), packet.now)
}

#[inline(always)]
fn look(packet: &Packet, ends: &Ends, audits: bool, is_held: bool) -> Answer {
    let is_quoted = packet.role() as u8 == Role::None as u8;
    let (place, found) = flow::find(ends, packet.now, packet.flows_has_none && !is_quoted);
    if found.is_null() {
        return Answer::NoFlow;
    }
    let place = forget_small(place, packet.now);
    // SAFETY: the look-up has just returned it.
    let flow = unsafe { &*found };
    if !is_quoted && !flow::plays_role(packet, flow) {
        return Answer::Foreign;
    }
    let mut answer = Answer::Passes;
    if flow.reason == NODE_OWN {
        // Packets that are exempt themselves have passed before.
        if !packet.is_egress() {
            return Answer::Foreign;
        }
    } else if is_held {
        return Answer::NoFlow;
    } else if is_due(flow, packet.epoch, audits) {
        let was_refused = !passes(flow);
        if !was_refused || audits || !is_stream(ends.key.protocol) {
            let is_new = was_refused || place as u8 == Place::Openings as u8;
            return Answer::due(flow, is_new);
        }
        answer = Answer::Refused;
    }
    if !is_quoted {
        go_on(packet, place, found);
    }
    answer
}

/// Writes what a packet changes at the live flow that it belongs to.
#[inline(never)]
fn go_on(packet: &Packet, place: Place, found: *mut FlowValue) -> bool {
    // SAFETY: the caller's look-up has just returned it, or the caller would not be here; only time and state are
    // written in place.
    let flow = unsafe { &mut *found };
    let is_moved = place as u8 == Place::Previous as u8 || is_promoted(packet, place, flow);
    if is_moved {
        let mut value = *flow;
        flow::advance(&mut value, packet);
        settle(packet, place, &mut value);
    } else {
        flow::touch(flow, packet, flow::idle(flow, packet.now));
    }
    is_moved
}

/// Protocols whose connections have a beginning that shows: a refused one stays so until the next. The others have
/// none, so each of their packets is judged in the direction of the opening, and passes once that is allowed again.
#[inline(always)]
fn is_stream(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::SCTP)
}

/// Writes the outcome of another judgement to the packet's flow, and returns what becomes of the packet.
#[inline(never)]
pub(crate) fn renew(packet: &Packet, judged: Reason, audits: bool, trace: &mut Trace) -> Reason {
    let reason = if judged.passes() {
        judged
    } else if audits && judged as u8 != Reason::Closed as u8 {
        trace.kind = EventKind::Audit as u32;
        Reason::Audit
    } else {
        Reason::FlowRefused
    };
    let (place, found) = flow::find(&packet.ends, packet.now, packet.flows_has_none);
    if found.is_null() {
        // Evicted in between: the next packet has no flow, and is judged as such.
        return reason;
    }
    let place = forget_small(place, packet.now);
    // SAFETY: the look-up has just returned it.
    let mut value = unsafe { *found };
    let was_refused = !passes(&value);
    value.reason = reason as u8;
    if reason.passes() {
        value.epoch = packet.epoch;
    } else if !was_refused {
        // The epoch stays the old one: nobody who reads the value half written finds the current one beside the old
        // reason.
        trace.kind = EventKind::Cut as u32;
    }
    flow::advance(&mut value, packet);
    settle(packet, place, &mut value);
    forget_small(reason, packet.now)
}

/// Whether the packet is the first reply of a flow that passes. A reset is no answer worth a place among the
/// established.
#[inline(always)]
fn is_promoted(packet: &Packet, place: Place, flow: &FlowValue) -> bool {
    place as u8 == Place::Openings as u8
        && flow.opener != packet.direction() as u8
        && packet.tcp_flags & TCP_RST == 0
        && passes(flow)
}

/// Writes a flow's value to where it belongs after this packet.
#[inline(always)]
fn settle(packet: &Packet, place: Place, value: &mut FlowValue) {
    if is_promoted(packet, place, value) {
        flow::promote(packet, value);
    } else {
        flow::write(place, &packet.ends, value);
    }
}

/// What a packet of the node's own, which passes, means to flows: an answer to what the pod opened is one like any
/// other's, and what the node opened is remembered, so that the pod's replies pass. `is_held`: the pod's own flows are
/// left alone.
#[inline(never)]
pub(crate) fn exempted(packet: &Packet, audits: bool, is_held: bool, trace: &mut Trace) {
    if packet.is_later() || packet.role() as u8 == Role::None as u8 {
        return;
    }
    let (place, found) = flow::find(&packet.ends, packet.now, packet.flows_has_none);
    if !found.is_null() && !packet.opens() {
        let place = forget_small(place, packet.now);
        // SAFETY: the look-up has just returned it.
        let flow = unsafe { &*found };
        let is_pods = flow.opener == Direction::Egress as u8;
        if is_pods || flow.reason == NODE_OWN {
            // What the pod opened is judged as the pod's, whoever answers: one that is due waits for the pod's packet.
            let counts = !is_pods || (!is_held && !is_due(flow, packet.epoch, audits));
            if counts && flow::plays_role(packet, flow) {
                go_on(packet, place, found);
            }
            return;
        }
    }
    if packet.role() as u8 == Role::Reply as u8 || packet.has_flags(TCP_SYN | TCP_ACK) {
        return;
    }
    flow::remember(packet, Direction::Ingress, Reason::NodeOwn);
    trace.kind = EventKind::NewFlow as u32;
}
