//! Remembered connections and fragments.

use crate::Address;

/// Key of `FLOWS` and `OPENINGS`: a connection seen from the pod, the same for both of its directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The other end.
    pub remote: Address,
    /// The host side of the pod's veth.
    pub ifindex: u32,
    /// Host byte order; 0 for protocols without ports.
    pub remote_port: u16,
    /// Host byte order; the identifier of an ICMP echo; 0 for other protocols without ports.
    pub pod_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The states whose time-outs differ, named as nf_conntrack names them
/// (<https://docs.kernel.org/networking/nf_conntrack-sysctl.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// Seen in one direction only: UDP, SCTP, ICMP and the rest.
    OneWay = 0,
    /// Seen in both directions: UDP, SCTP, ICMP and the rest.
    Replied = 1,
    /// A TCP connection whose opening was not answered.
    SynSent = 2,
    /// A TCP connection whose opening was answered, or that was picked up mid-stream.
    Established = 3,
    /// A TCP connection that one end has closed.
    Closing = 4,
    /// A TCP connection that both ends have closed, or that was reset.
    Closed = 5,
}

/// Value of `FLOWS` and `OPENINGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowValue {
    /// The pod's own address in this connection. A packet of this key with another pod address is not of this flow.
    pub pod: Address,
    /// The epoch of its interface in which it was judged, read before the tables were.
    pub epoch: u64,
    /// `bpf_jiffies64` of the last packet, cut to 32 bits; at least as coarse as a second.
    pub last_seen: u32,
    /// A [`crate::Reason`]: why it passes, or that it was refused.
    pub reason: u8,
    /// The [`crate::Direction`] in which it was opened, and is judged again.
    pub opener: u8,
    /// A [`FlowState`].
    pub state: u8,
    /// TCP: which ends have sent FIN, bit 0 the ingress one (the remote), bit 1 the egress one (the pod). 0 otherwise.
    pub fins: u8,
}

/// The length of `EPOCHS`, a power of two: many more than a node has pods.
pub const EPOCH_CELLS: u32 = 4096;

/// Where `EPOCHS` has the epoch of an interface. Others that share it are judged again for nothing, which harms nobody;
/// interface indexes are given out one after the other, so there are hardly any. By the interface and not by something
/// of its pod's, because the packet program reads the epoch first of all (see [`FlowValue::epoch`]), and all that it knows
/// then is the interface.
#[must_use]
pub const fn epoch_cell(ifindex: u32) -> u32 {
    ifindex % EPOCH_CELLS
}

/// Key of `FRAGMENTS`: the fragments of one packet (RFC 791, RFC 8200).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// As in the header.
    pub source: Address,
    /// As in the header.
    pub destination: Address,
    /// As in the header, host byte order; 16 bits in IPv4.
    pub identification: u32,
    /// The host side of the pod's veth.
    pub ifindex: u32,
    /// The IP protocol.
    pub protocol: u8,
    /// A [`crate::Direction`].
    pub direction: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

/// Value of `FRAGMENTS`: what became of the first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentValue {
    /// The epoch in which the first fragment was judged.
    pub epoch: u64,
    /// `bpf_jiffies64` of the first fragment, cut to 32 bits.
    pub seen: u32,
    /// A [`crate::Reason`].
    pub reason: u32,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 28);
    assert!(size_of::<FlowValue>() == 32);
    assert!(size_of::<FragmentKey>() == 44);
    assert!(size_of::<FragmentValue>() == 16);
    assert!(EPOCH_CELLS.is_power_of_two());
};
