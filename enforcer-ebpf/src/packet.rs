//! What the program knows of a packet once it is parsed, as its pod sees it.

use enforcer_abi::{Direction, protocol};

use crate::{
    address::is_v4,
    ends::Ends,
    frame::Frame,
    maps::field,
    verifier::{self, Small, opaque},
};

/// The FIN bit of a TCP header's flags (RFC 9293 section 3.1).
pub(crate) const TCP_FIN: u8 = 1 << 0;
/// The SYN bit.
pub(crate) const TCP_SYN: u8 = 1 << 1;
/// The RST bit.
pub(crate) const TCP_RST: u8 = 1 << 2;
/// The ACK bit.
pub(crate) const TCP_ACK: u8 = 1 << 4;

/// How far parsing came.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Shape {
    /// Neither IP nor ARP, or IPv4 that can't be parsed.
    Opaque,
    /// IPv6 that can't be parsed, so that it may be a fragment.
    OpaqueV6,
    /// An ARP packet (RFC 826).
    Arp,
    /// IPv4 or IPv6 with everything that a verdict needs.
    Ip,
}

/// Which fragment of its datagram it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fragment {
    /// The whole datagram.
    Whole,
    /// The first of several: it has the transport header.
    First,
    /// A later one: it has no ports.
    Later,
}

/// Which directions of a flow a packet may belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Role {
    /// Both.
    Any,
    /// The direction in which the flow was opened: ICMP requests.
    Request,
    /// The other one: ICMP replies.
    Reply,
    /// ICMP that belongs to no flow of its own: errors, redirects, discovery.
    None,
}

/// A parsed packet.
#[repr(C)]
pub(crate) struct Packet {
    /// Read before any table was.
    pub(crate) epoch: u64,
    /// `bpf_jiffies64`
    pub(crate) now: u64,
    pub(crate) ends: Ends,
    /// Of its datagram, if it is a fragment.
    pub(crate) identification: u32,
    /// Where its transport header starts, in bytes from the Ethernet header; 0 for later fragments.
    pub(crate) transport: u32,
    pub(crate) direction: Direction,
    pub(crate) shape: Shape,
    pub(crate) fragment: Fragment,
    /// As the IPv4 header or the fragment header names it.
    pub(crate) fragment_protocol: u8,
    /// Whether an IPv6 fragment header was seen, atomic fragments (RFC 6946) included.
    pub(crate) v6_fragment: bool,
    pub(crate) role: Role,
    pub(crate) tcp_flags: u8,
    pub(crate) icmp_type: u8,
    pub(crate) icmp_code: u8,
    pub(crate) hop_limit: u8,
    /// Whether it asks for a new connection: SYN without ACK, or an SCTP INIT.
    pub(crate) opens: bool,
    /// Whether a flow may decide it without more ado.
    pub(crate) may_follow: bool,
    /// Whether the fast path has found nothing under its key.
    pub(crate) flows_has_none: bool,
    /// No padding: [`Packet::forget`] reads every byte.
    reserved: [u8; 7],
}

const WORDS: usize = size_of::<Packet>() / 8;

const _: () = assert!(size_of::<Packet>() == 8 * WORDS && align_of::<Packet>() == 8);

impl Packet {
    /// Opaque, whole, without ends: all bytes zero but what is given here. The zeros are hidden from the compiler,
    /// which would call `memset` for them: aya's loop over bytes, which costs more than a look-up.
    #[inline(always)]
    pub(crate) fn new(frame: Frame, direction: Direction, epoch: u64, now: u64) -> Self {
        const { assert!(Shape::Opaque as u8 == 0 && Fragment::Whole as u8 == 0 && Role::Any as u8 == 0) };
        // SAFETY: as many words as a packet has, which has no padding; zero is a value of each of its fields.
        let mut packet = unsafe { core::mem::transmute::<[u64; WORDS], Self>([opaque(0); WORDS]) };
        packet.epoch = epoch;
        packet.now = now;
        packet.ends.key.ifindex = frame.ifindex();
        packet.direction = direction;
        packet
    }

    /// Has the verifier forget all of it, so that the slow path is walked once and not once for each way of parsing.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        let unknown = self.now;
        let words = core::ptr::from_mut(self).cast::<u64>();
        for index in 0..WORDS {
            // SAFETY: within the packet, which has no padding, and whose bytes keep their values.
            unsafe {
                let word = words.add(index);
                word.write(verifier::forget(word.read(), unknown));
            }
        }
    }

    /// Where it goes. This and its like read afresh each time: a copy in a register or on the stack would carry what the
    /// branches before have shown of it, and so make states of the verifier unequal.
    #[inline(always)]
    pub(crate) fn direction(&self) -> Direction {
        field!(self, direction)
    }

    /// Whether it goes out of the pod.
    #[inline(always)]
    pub(crate) fn is_egress(&self) -> bool {
        self.direction() as u8 == Direction::Egress as u8
    }

    /// What it is to a flow of its ends.
    #[inline(always)]
    pub(crate) fn role(&self) -> Role {
        field!(self, role)
    }

    /// The protocol of its transport header.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        field!(self, ends.key.protocol)
    }

    /// Whether it has been parsed.
    #[inline(always)]
    pub(crate) fn is_ip(&self) -> bool {
        field!(self, shape) as u8 == Shape::Ip as u8
    }

    /// Whether it is a fragment after the first one.
    #[inline(always)]
    pub(crate) fn is_later(&self) -> bool {
        field!(self, fragment) as u8 == Fragment::Later as u8
    }

    /// Whether it asks for a new connection.
    #[inline(always)]
    pub(crate) fn opens(&self) -> bool {
        field!(self, opens)
    }

    /// Whether all of these TCP flags are set.
    #[inline(always)]
    pub(crate) fn has_flags(&self, flags: u8) -> bool {
        field!(self, tcp_flags) & flags == flags
    }

    /// Whether it claims to belong to a connection that exists. An answer to an opening that was not seen doesn't: the
    /// opening will be repeated.
    #[inline(always)]
    pub(crate) fn continues(&self) -> bool {
        matches!(self.protocol(), protocol::TCP | protocol::SCTP)
            && !self.opens()
            && !self.has_flags(TCP_SYN)
            && !self.is_later()
    }

    /// Whether it is ICMPv6 over IPv6, with its header in this packet.
    #[inline(always)]
    fn is_icmp6(&self) -> bool {
        self.is_ip() && self.protocol() == protocol::ICMPV6 && field!(self, transport) != 0 && !is_v4(&self.ends.pod)
    }

    /// Whether it is a router advertisement or a redirect (RFC 4861 sections 4.2 and 4.5).
    #[inline(always)]
    pub(crate) fn is_from_router(&self) -> bool {
        self.is_icmp6() && matches!(field!(self, icmp_type), 134 | 137)
    }

    /// Whether it is neighbour discovery (RFC 4861: never fragmented, by RFC 6980; the hop limit proves that it comes
    /// from the link) or multicast listener discovery (RFC 2710, RFC 3810: hop limit 1).
    #[inline(always)]
    pub(crate) fn is_infrastructure(&self) -> bool {
        if !self.is_icmp6() || field!(self, v6_fragment) {
            return false;
        }
        match field!(self, icmp_type) {
            133..=136 => field!(self, hop_limit) == 255,
            130..=132 | 143 => field!(self, hop_limit) == 1,
            _ => false,
        }
    }

    /// Whether it is an ICMP error (RFC 792, RFC 4443 section 2.1), whole or the first fragment of one, which quotes the
    /// packet that it is about. Redirects quote one too, but must not pass by it; source quench is obsolete (RFC 6633).
    #[inline(always)]
    pub(crate) fn is_icmp_error(&self) -> bool {
        if field!(self, transport) == 0 {
            return false;
        }
        let icmp_type = field!(self, icmp_type);
        match self.protocol() {
            protocol::ICMP => is_v4(&self.ends.pod) && matches!(icmp_type, 3 | 11 | 12),
            protocol::ICMPV6 => !is_v4(&self.ends.pod) && matches!(icmp_type, 1..=4),
            _ => false,
        }
    }
}

// SAFETY: `repr(u8)`.
unsafe impl Small for Shape {}
// SAFETY: `repr(u8)`.
unsafe impl Small for Fragment {}
// SAFETY: `repr(u8)`.
unsafe impl Small for Role {}
