//! Every packet that no flow has decided: [`judge`].

use enforcer_abi::{Direction, EventKind, PodEntry, PodFlags, Reason};

use crate::{
    ends::Ends,
    exempt, flow,
    fragment::{self, First},
    frame::Frame,
    held,
    judge::{self as tables, Question},
    maps::{PODS, field},
    packet::{Fragment, Packet, Role, Shape},
    quote,
    report::{self, Trace},
    resolve::{self, Answer},
    settings::setting,
    source,
    verdict::Verdict,
    verifier::forget_small,
};

/// Judges, counts and reports.
#[inline(never)]
pub(crate) fn judge(frame: Frame, packet: &Packet) -> Verdict {
    let mut trace = Trace::new();
    let pod = find_pod(packet.ends.key.ifindex);
    let reason = forget_small(decide(frame, packet, pod, &mut trace), packet.now);
    if packet.is_ip() && packet.fragment as u8 == Fragment::First as u8 {
        fragment::remember(packet, reason as u32);
    }
    // What a flow has decided is counted nowhere, here as on the fast path.
    if !pod.is_null() && (reason as u8 != Reason::Established as u8 || packet.is_later()) {
        report::count(field!(pod, slot), packet, reason);
    }
    if !reason.passes() && trace.kind == Trace::SILENT {
        trace.kind = EventKind::Drop as u32;
    }
    if trace.kind != Trace::SILENT && (trace.kind != EventKind::NewFlow as u32 || setting!(report_flows) != 0) {
        report::send(frame, packet, &trace, reason as u8);
    }
    if reason.passes() { Verdict::Pass } else { Verdict::Drop }
}

/// The entry of the interface, or null. An entry that is replaced while it is found is found the second time.
#[inline(always)]
fn find_pod(ifindex: u32) -> *const PodEntry {
    for _ in 0..2 {
        if let Some(pod) = PODS.get_ptr(&ifindex)
            && field!(pod, ifindex) == ifindex
        {
            return pod;
        }
    }
    core::ptr::null()
}

#[inline(always)]
fn decide(frame: Frame, packet: &Packet, pod: *const PodEntry, trace: &mut Trace) -> Reason {
    if packet.is_egress() && packet.is_from_router() {
        return Reason::RouterImpersonation;
    }
    let is_exempt = exempt::is_exempt(frame, packet.direction(), packet);
    let flags = if pod.is_null() { PodFlags::HELD } else { field!(pod, flags) };
    if pod.is_null() || flags & PodFlags::HELD != 0 {
        return hold(packet, flags, is_exempt, trace);
    }
    let reason = match packet.shape {
        Shape::Arp => Reason::Infrastructure,
        Shape::Ip => decide_ip(frame, packet, pod, is_exempt, trace),
        Shape::Opaque | Shape::OpaqueV6 if is_exempt => Reason::NodeOwn,
        Shape::Opaque | Shape::OpaqueV6 => opaque(flags, packet.direction()),
    };
    if matches!(reason, Reason::Unparsable | Reason::Fragment) && audits(flags) {
        trace.kind = EventKind::Audit as u32;
        return Reason::Audit;
    }
    reason
}

/// Audit mode waives what policies deny, whichever way: not impersonation, not the hold, not what closes a pod whose
/// policies could not be programmed.
#[inline(always)]
fn audits(flags: u32) -> bool {
    setting!(audit) != 0 || flags & PodFlags::AUDIT != 0
}

#[inline(always)]
fn opaque(flags: u32, direction: Direction) -> Reason {
    if tables::is_closed(flags, direction) {
        Reason::Closed
    } else if tables::is_isolated(flags, direction) {
        Reason::Unparsable
    } else {
        Reason::NotIsolated
    }
}

/// While it isn't known whose veth it is: the node's own, the replies to it, and what setting it up takes.
#[inline(always)]
fn hold(packet: &Packet, flags: u32, is_exempt: bool, trace: &mut Trace) -> Reason {
    let is_ip = packet.is_ip();
    if is_exempt {
        if is_ip {
            resolve::exempted(packet, false, true, trace);
        }
        return Reason::NodeOwn;
    }
    if is_ip
        && packet.is_egress()
        && is_trackable(packet)
        && matches!(resolve::resolve(packet, &packet.ends, false, true), Answer::Passes)
    {
        return Reason::Established;
    }
    held::judge(packet, flags)
}

/// Whether a flow that exists may decide.
#[inline(always)]
fn is_trackable(packet: &Packet) -> bool {
    !packet.opens() && packet.role() as u8 != Role::None as u8 && !packet.is_later()
}

#[inline(always)]
fn decide_ip(frame: Frame, packet: &Packet, pod: *const PodEntry, is_exempt: bool, trace: &mut Trace) -> Reason {
    let is_own = source::may_use(pod, packet);
    if packet.is_egress() && !is_own {
        return Reason::Impersonation;
    }
    if packet.is_infrastructure() {
        return Reason::Infrastructure;
    }
    if is_exempt {
        resolve::exempted(packet, audits(field!(pod, flags)), false, trace);
        return Reason::NodeOwn;
    }
    if packet.is_later() {
        match fragment::first(packet) {
            First::Passed => return Reason::Established,
            First::Refused => return Reason::Fragment,
            First::Unseen => {}
        }
    }
    let audits = forget_small(audits(field!(pod, flags)), packet.now);
    let mut case = Case { ends: packet.ends, direction: packet.direction(), question: question(packet) };
    let quotes = forget_small(packet.is_icmp_error() && quote::read(frame, packet, &mut case.ends), packet.now);
    let mut remembers =
        forget_small(is_own && matches!(packet.role(), Role::Any | Role::Request) && !packet.is_later(), packet.now);
    case.question = forget_small(case.question, packet.now);
    let mut is_due = false;
    if quotes || is_trackable(packet) {
        let answer = resolve::resolve(packet, &case.ends, audits, false);
        if answer as u8 == Answer::Passes as u8 {
            return if quotes { Reason::Related } else { Reason::Established };
        }
        if answer as u8 == Answer::Refused as u8 && !quotes {
            return Reason::FlowRefused;
        }
        remembers &= answer as u8 != Answer::Foreign as u8;
        if let Some((direction, question)) = answer.question() {
            (case.direction, case.question) = (direction, question);
            is_due = true;
        }
    }
    if !is_due {
        case.ends = packet.ends;
    }
    let remembers = forget_small(remembers, packet.now);
    let is_due = forget_small(is_due, packet.now);
    case.direction = forget_small(case.direction, packet.now);
    case.question = forget_small(case.question, packet.now);
    let reason = tables::judge(pod, &case.ends, case.direction, case.question, trace);
    if is_due && !quotes {
        return resolve::renew(packet, reason, audits, trace);
    }
    if is_due && reason.passes() {
        return Reason::Related;
    }
    begin(packet, pod, &mut case, reason, Begin { audits, remembers, quotes: is_due }, trace)
}

/// One question to the tables.
struct Case {
    ends: Ends,
    direction: Direction,
    question: Question,
}

/// What to ask of a packet that no flow decides. A segment without a flow is not known to be of an established one.
#[inline(always)]
fn question(packet: &Packet) -> Question {
    if packet.is_later() { Question::AllPorts } else { Question::New }
}

/// What [`begin`] must know besides.
struct Begin {
    audits: bool,
    remembers: bool,
    /// The first judgement was of the flow that the packet quotes, not of the packet.
    quotes: bool,
}

/// Ends the judgement of a packet that no flow decides, and remembers the flow that it begins, if it does. `reason` is
/// the first answer of the tables. A second opinion is asked for where the first one is a denial, and of another flow
/// than the packet's own (which is judged now), or of a segment without a flow (for which the opposite direction may
/// vouch).
#[inline(always)]
fn begin(
    packet: &Packet,
    pod: *const PodEntry,
    case: &mut Case,
    mut reason: Reason,
    begin: Begin,
    trace: &mut Trace,
) -> Reason {
    let mut opener = packet.direction();
    if !reason.passes() && (begin.quotes || packet.continues()) {
        let denied = *trace;
        let in_grace = packet.now < field!(pod, midstream_until);
        if begin.quotes {
            *case = Case { ends: packet.ends, direction: packet.direction(), question: Question::New };
        } else {
            case.direction = packet.direction().opposite();
            case.question = forget_small(if in_grace { Question::New } else { Question::Named }, packet.now);
        }
        let second = tables::judge(pod, &case.ends, case.direction, case.question, trace);
        if begin.quotes {
            reason = second;
        } else if second as u8 == Reason::Rule as u8 || (second as u8 == Reason::NotIsolated as u8 && in_grace) {
            reason = Reason::MidStream;
            opener = case.direction;
        } else {
            *trace = denied;
        }
    }
    trace.kind = EventKind::NewFlow as u32;
    if !reason.passes() {
        if packet.is_later() {
            reason = Reason::Fragment;
        }
        if !begin.audits || reason as u8 == Reason::Closed as u8 {
            trace.kind = Trace::SILENT;
            return reason;
        }
        trace.kind = EventKind::Audit as u32;
        reason = Reason::Audit;
    }
    if begin.remembers {
        flow::remember(packet, opener, reason);
    }
    reason
}
