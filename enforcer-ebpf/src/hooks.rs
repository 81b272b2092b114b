//! The programs: one for each direction, and the clock.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::classifier, programs::TcContext};
use enforcer_abi::Direction;

use crate::{flow, frame::Frame, maps, packet::Packet, parse, slow, verdict::Verdict};

/// For packets to the pod: the host side's TC egress.
#[classifier]
pub(crate) fn sluice_to_pod(context: TcContext) -> i32 {
    enforce::<false>(&context).into()
}

/// For packets from the pod: the host side's TC ingress.
#[classifier]
pub(crate) fn sluice_from_pod(context: TcContext) -> i32 {
    enforce::<true>(&context).into()
}

/// For a test run only: overwrites the first 16 bytes by `bpf_jiffies64` and `bpf_ktime_get_ns`, so that user space
/// learns how long a jiffy is.
#[classifier]
pub(crate) fn sluice_clock(context: TcContext) -> i32 {
    // SAFETY: no argument, no memory.
    let clocks = [maps::now(), unsafe { bpf_ktime_get_ns() }];
    match context.store(0, &clocks, 0) {
        Ok(()) => Verdict::Pass.into(),
        Err(_) => Verdict::Drop.into(),
    }
}

#[inline(always)]
fn enforce<const EGRESS: bool>(context: &TcContext) -> Verdict {
    let frame = Frame::new(context);
    let mut packet = MaybeUninit::uninit();
    if follows::<EGRESS>(frame, &mut packet) {
        return Verdict::Pass;
    }
    // SAFETY: `follows` has written it.
    slow::judge(frame, unsafe { packet.assume_init_ref() })
}

/// The way of a packet whose flow is known. It has a stack frame of its own, because what it needs is needed no more
/// when the slow path begins: "combined stack size of 3 calls is 576. Too large" (6.18).
#[inline(never)]
fn follows<const EGRESS: bool>(frame: Frame, packet: &mut MaybeUninit<Packet>) -> bool {
    let direction = if EGRESS { Direction::Egress } else { Direction::Ingress };
    // The epoch comes before anything that it vouches for.
    let packet = packet.write(Packet::new(frame, direction, maps::epoch(frame.ifindex()), maps::now()));
    parse::parse(frame, direction, packet);
    if packet.may_follow && flow::follows(frame, direction, packet) {
        return true;
    }
    packet.forget();
    false
}
