//! What the program reports through its ring buffer.

use crate::{Address, ClassId, TableId};

/// What an [`Event`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// A packet was dropped.
    Drop = 0,
    /// A new flow passed, or a packet that is no flow's.
    NewFlow = 1,
    /// What the tables refuse passed, because audit mode is on.
    Audit = 2,
    /// An established flow was refused when it was judged again.
    Cut = 3,
}

/// One report. Ports and addresses are those of the packet, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Event {
    /// `bpf_ktime_get_ns`: nanoseconds of the monotonic clock.
    pub time: u64,
    /// The table that judged it, 0 if none did.
    pub table: TableId,
    /// The remote's class, if the table judged it.
    pub class: ClassId,
    /// The pod's end.
    pub pod: Address,
    /// The other end.
    pub remote: Address,
    /// The host side of the pod's veth.
    pub ifindex: u32,
    /// Bytes, the Ethernet header included.
    pub length: u32,
    /// The port class, if the table judged it.
    pub port_class: u32,
    /// Host byte order. ICMP: type in the upper byte, code in the lower one.
    pub remote_port: u16,
    /// Host byte order. ICMP: the identifier of an echo.
    pub pod_port: u16,
    /// The IP protocol; 0 if the packet could not be parsed so far.
    pub protocol: u8,
    /// A [`crate::Direction`].
    pub direction: u8,
    /// A [`crate::Reason`].
    pub reason: u8,
    /// An [`EventKind`].
    pub kind: u8,
    /// The flags byte of a TCP header, else 0.
    pub tcp_flags: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of `EVENT_BUDGET`, per CPU: a token bucket, refilled by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EventBudget {
    /// `bpf_jiffies64` of the last refill.
    pub refilled: u64,
    /// Events that may still be sent.
    pub tokens: u64,
    /// Events that were not sent, because the budget was spent.
    pub suppressed: u64,
    /// Events that were not sent, because the ring buffer was full.
    pub lost: u64,
}

const _: () = {
    assert!(size_of::<Event>() == 80);
    assert!(size_of::<EventBudget>() == 32);
};
