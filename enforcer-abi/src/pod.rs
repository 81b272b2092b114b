//! The pod behind an interface: its tables, its addresses, its flags, its counters.

use crate::{Address, Reason, TableId};

/// Bits of [`PodEntry::flags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodFlags;

impl PodFlags {
    /// Some policy isolates the pod for ingress; `ingress_table` decides.
    pub const INGRESS_ISOLATED: u32 = 1 << 0;
    /// Some policy isolates the pod for egress; `egress_table` decides.
    pub const EGRESS_ISOLATED: u32 = 1 << 1;
    /// Whose veth it is isn't known: only the node's own traffic passes, and ARP and neighbour discovery, without which
    /// that couldn't.
    pub const HELD: u32 = 1 << 2;
    /// Held, and the namespace has no process yet: DHCP and echo to the node's addresses pass, too.
    pub const SETUP: u32 = 1 << 3;
    /// What the tables would drop passes and is reported.
    pub const AUDIT: u32 = 1 << 4;
    /// The ingress table could not be programmed: ingress is dropped, the node's own aside.
    pub const INGRESS_CLOSED: u32 = 1 << 5;
    /// The egress table could not be programmed: egress is dropped.
    pub const EGRESS_CLOSED: u32 = 1 << 6;
    /// `PORT_RANGES` has entries for the ingress table.
    pub const INGRESS_RANGES: u32 = 1 << 7;
    /// `PORT_RANGES` has entries for the egress table.
    pub const EGRESS_RANGES: u32 = 1 << 8;
    /// The pod may send from addresses that belong to no pod and no node (annotated namespace).
    pub const FORWARDS: u32 = 1 << 9;
}

/// Value of `PODS`, whose key is an interface index (`u32`). An interface that runs the program without an entry is
/// treated as held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct PodEntry {
    /// The entry's own key.
    pub ifindex: u32,
    /// Bits of [`PodFlags`].
    pub flags: u32,
    /// 0 where the pod is not isolated for ingress.
    pub ingress_table: TableId,
    /// 0 where the pod is not isolated for egress.
    pub egress_table: TableId,
    /// `bpf_jiffies64` until which segments without a flow are also judged by an opposite direction that is not
    /// isolated, because the pod ran before the program was attached; 0 for never.
    pub midstream_until: u64,
    /// Its IPv4 address, mapped; [`Address::NONE`] if it has none.
    pub v4: Address,
    /// Its IPv6 address; [`Address::NONE`] if it has none.
    pub v6: Address,
    /// Index into `COUNTERS`.
    pub slot: u32,
    /// [`crate::Openness`] of the ingress table for peers that have no row in it.
    pub ingress_everybody: u8,
    /// [`crate::Openness`] of the egress table for peers that have no row in it.
    pub egress_everybody: u8,
    /// Zero.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reserved: [u8; 2],
}

/// Value of `COUNTERS`, per CPU: packets on the slow path since the slot was given out, by [`crate::Direction`] and
/// [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// `packets[direction][reason]`
    pub packets: [[u64; Reason::COUNT]; 2],
}

const _: () = {
    assert!(size_of::<PodEntry>() == 72);
    assert!(size_of::<Counters>() == 288);
};
