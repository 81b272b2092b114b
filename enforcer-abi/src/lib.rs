//! What the packet program and user space share: keys, values, events and the names of the maps. Layouts are asserted
//! at compile time; nothing here knows what a policy is.
//!
//! Every struct is `repr(C)` without implicit padding: the kernel hashes a key's bytes, so every byte must be written.
//! Integers are in host byte order unless a field says otherwise; addresses are in network order.
#![no_std]

mod address;
mod event;
mod flow;
pub mod map;
mod op;
mod pod;
mod settings;
mod table;
#[cfg(feature = "user")]
mod user;

pub use address::Address;
pub use event::{Event, EventBudget, EventKind};
pub use flow::{EPOCH_CELLS, FlowKey, FlowState, FlowValue, FragmentKey, FragmentValue, epoch_cell};
pub use op::Op;
pub use pod::{Counters, PodEntry, PodFlags};
pub use settings::{Settings, SourceCheck, Timeouts};
pub use table::{
    BlockKey, CHUNK_BITS, ClassId, EVERYBODY, FrontEndKey, FrontEndState, FrontEndValue, Openness, PeerFlags,
    PeerValue, PortKey, PortRangeKey, PortValue, RowKey, RowValue, TableId,
};

/// The version of every layout in this crate. Maps of another version live in another pin folder and are never read.
pub const LAYOUT_VERSION: u32 = 2;

/// The direction of a packet as the policy API names it, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// To the pod: the host side's TC egress hook.
    Ingress = 0,
    /// From the pod: the host side's TC ingress hook.
    Egress = 1,
}

impl Direction {
    /// Both, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
}

/// Why a packet passed or was dropped. The discriminant is the index into [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Passed: a rule of the pod's table allows it.
    Rule = 0,
    /// Passed: nothing isolates the pod in this direction.
    NotIsolated = 1,
    /// Passed: the node itself made it (ingress only).
    NodeOwn = 2,
    /// Passed: the table refuses it, and audit mode is on.
    Audit = 3,
    /// Passed: a segment without a flow, allowed by the opposite direction.
    MidStream = 4,
    /// Passed: ARP, neighbour discovery, MLD.
    Infrastructure = 5,
    /// Passed: an ICMP error that quotes a packet of a flow that passes.
    Related = 6,
    /// Passed: a flow that was judged before. Never counted on the fast path; the reason of a later fragment.
    Established = 7,
    /// Dropped: the pod is isolated in this direction and no rule allows it.
    NoRule = 8,
    /// Dropped: the front end of a Service some of whose back ends are refused.
    FrontEndMixed = 9,
    /// Dropped: the front end of a Service that has no back end, or none that is allowed.
    FrontEndClosed = 10,
    /// Dropped: its flow was refused when it was judged again after a change of policy.
    FlowRefused = 11,
    /// Dropped: the source address is none that this pod may use.
    Impersonation = 12,
    /// Dropped: a router advertisement or redirect from a pod.
    RouterImpersonation = 13,
    /// Dropped: whose veth it is isn't known yet.
    Held = 14,
    /// Dropped: could not be parsed, at a pod that is isolated in this direction.
    Unparsable = 15,
    /// Dropped: a later fragment whose first one was refused or not seen.
    Fragment = 16,
    /// Dropped: the pod's tables could not be programmed.
    Closed = 17,
}

impl Reason {
    /// The number of reasons, which is the length of a counter row.
    pub const COUNT: usize = 18;

    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Rule,
        Self::NotIsolated,
        Self::NodeOwn,
        Self::Audit,
        Self::MidStream,
        Self::Infrastructure,
        Self::Related,
        Self::Established,
        Self::NoRule,
        Self::FrontEndMixed,
        Self::FrontEndClosed,
        Self::FlowRefused,
        Self::Impersonation,
        Self::RouterImpersonation,
        Self::Held,
        Self::Unparsable,
        Self::Fragment,
        Self::Closed,
    ];

    /// Whether a packet judged for this reason goes on.
    #[must_use]
    pub const fn passes(self) -> bool {
        (self as u8) < (Self::NoRule as u8)
    }

    /// The reason with this discriminant.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        if (value as usize) < Self::COUNT { Some(Self::ALL[value as usize]) } else { None }
    }
}

/// IP protocol numbers that the tables know ports of (IANA, Assigned Internet Protocol Numbers).
pub mod protocol {
    /// ICMP (RFC 792)
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293)
    pub const TCP: u8 = 6;
    /// UDP (RFC 768)
    pub const UDP: u8 = 17;
    /// ICMPv6 (RFC 4443)
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260)
    pub const SCTP: u8 = 132;
}
