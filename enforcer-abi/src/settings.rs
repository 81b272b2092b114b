//! What is fixed when the program is loaded: read-only data, so that the verifier removes what is off.

/// What a pod may use as a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum SourceCheck {
    /// Anything.
    Off = 0,
    /// Its own addresses, and those that belong to no pod and no node.
    Pods = 1,
    /// Its own addresses.
    Strict = 2,
}

/// Time-outs in jiffies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Timeouts {
    /// UDP and unknown protocols, seen in one direction.
    pub one_way: u64,
    /// UDP and unknown protocols, seen in both.
    pub replied: u64,
    /// ICMP.
    pub icmp: u64,
    /// TCP before the answer to its opening.
    pub syn_sent: u64,
    /// TCP; SCTP seen in both directions has it too.
    pub established: u64,
    /// TCP closed by one end.
    pub closing: u64,
    /// TCP closed by both ends, or reset.
    pub closed: u64,
    /// Fragments after their first one (RFC 8200 section 4.5: 60 s).
    pub fragment: u64,
}

/// The program's read-only global `SETTINGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// Jiffies in a second.
    pub hz: u64,
    /// Events per second and CPU, and the depth of the bucket.
    pub event_rate: u64,
    /// A [`SourceCheck`].
    pub source_check: u32,
    /// 1: what the tables would drop passes and is reported.
    pub audit: u32,
    /// 1: `NODE_INTERFACES` has entries.
    pub node_interfaces: u32,
    /// 1: established flows are judged once and never again (`--established=keep`).
    pub keep_established: u32,
    /// 1: new flows are reported, not only drops.
    pub report_flows: u32,
    /// 1: flows that `FLOWS` has not are looked up in `PREVIOUS_FLOWS`.
    pub previous_flows: u32,
}

impl Settings {
    /// nf_conntrack's defaults (net/netfilter/nf_conntrack_proto_{tcp,udp,icmp}.c) for a kernel of `hz` jiffies a
    /// second, 1,000 events a second and CPU, strict source checks.
    #[must_use]
    pub const fn defaults(hz: u64) -> Self {
        Self {
            timeouts: Timeouts {
                one_way: 30 * hz,
                replied: 120 * hz,
                icmp: 30 * hz,
                syn_sent: 120 * hz,
                established: 5 * 24 * 3600 * hz,
                closing: 120 * hz,
                closed: 10 * hz,
                fragment: 60 * hz,
            },
            hz,
            event_rate: 1000,
            source_check: SourceCheck::Strict as u32,
            audit: 0,
            node_interfaces: 0,
            keep_established: 0,
            report_flows: 1,
            previous_flows: 0,
        }
    }
}

const _: () = assert!(size_of::<Settings>() == 104);
