//! The steps of a packet case as the file writes them. Entry point: [`Step`].

mod read;

use std::net::IpAddr;

use anyhow::{Context as _, Result, anyhow};
use enforcer_abi::{Direction, EventKind, FlowState, Reason};
use serde::Deserialize;

use super::{
    frame::{Damage, IpShape},
    payload::{IcmpName, SctpChunk, TcpFlags},
};

/// One step of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "read::RawStep")]
pub enum Step {
    /// `ingress:` or `egress:`: a packet and what is expected of it.
    Packet(Box<PacketStep>),
    /// `flow:`: what is remembered.
    Flow(FlowStep),
    /// `apply:`: manifests, which replace objects of the same name.
    Apply(String),
    /// `delete:`: objects, each as `KIND NAMESPACE/NAME` or `KIND NAME`.
    Delete(Vec<String>),
    /// `advance:`: seconds that all flows, fragments and grace periods get older.
    Advance(u64),
    /// `evict:`: which maps lose all entries.
    Evict(Evicted),
    /// `rebind:`: the pod's veth goes, and its interface index is another pod's from now on, which raises the epoch.
    Rebind {
        /// Whose veth goes.
        from: String,
        /// Whose veth has the index then.
        to: String,
    },
    /// `hold:`: the pod's veth is held.
    Hold {
        /// The pod.
        pod: String,
        /// Its namespace has no process yet.
        setup: bool,
    },
    /// `release:`: the pod's veth isn't held any more.
    Release(String),
    /// `close:`: the pod's tables could not be programmed.
    Close {
        /// The pod.
        pod: String,
        /// Which.
        directions: Vec<Towards>,
    },
    /// `grace:`: the pod ran before the program was attached, which was just now; seconds of grace for its segments
    /// without a flow.
    Grace {
        /// The pod.
        pod: String,
        /// How long.
        seconds: u64,
    },
    /// `raise-epoch:`: how often.
    RaiseEpoch(u32),
}

/// A [`Direction`] as files write it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Towards {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Which maps lose their entries.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Evicted {
    /// `OPENINGS`
    Openings,
    /// `FLOWS`
    Flows,
    /// Both of them.
    Both,
    /// `FRAGMENTS`
    Fragments,
}

/// A packet and what is expected of it.
#[derive(Clone, Debug)]
pub struct PacketStep {
    /// Where it is seen.
    pub direction: Direction,
    /// Whose veth it is seen at.
    pub pod: String,
    /// A pod, a node or an address.
    pub remote: String,
    /// `family: 4` or `6`; by default what `remote` is, and 4 for names.
    pub family: Option<u8>,
    /// The pod's end, where it isn't the pod's address.
    pub pod_address: Option<IpAddr>,
    /// What it carries.
    pub content: Content,
    /// Its IP header.
    pub ip: IpShape,
    /// What is wrong with it.
    pub damage: Damage,
    /// Every length from the first to the last of these, counted from the IP header, each a packet.
    pub keep_each: Option<(usize, usize)>,
    /// So many packets, with the remote's port (or echo id) one higher each.
    pub flood: u16,
    /// How it came to the node.
    pub arrived: Arrival,
    /// Segments and their size, of a GSO packet.
    pub gso: Option<(u32, u32)>,
    /// What is expected.
    pub expect: Expectation,
    /// Which report is expected; by default a drop's.
    pub event: Option<Reported>,
}

/// What a packet carries: one of these.
#[derive(Clone, Debug)]
pub enum Content {
    /// `tcp:`
    Tcp {
        /// Ports.
        ports: Ports,
        /// Flags.
        flags: TcpFlags,
        /// Bytes of data.
        data: usize,
    },
    /// `udp:`
    Udp(Ports),
    /// `sctp:`
    Sctp {
        /// Ports.
        ports: Ports,
        /// Its first chunk.
        chunk: SctpChunk,
    },
    /// `echo:`
    Echo {
        /// Identifier.
        id: u16,
        /// Reply, not request.
        reply: bool,
    },
    /// `icmp:`
    Icmp(IcmpName),
    /// `error:`
    Error {
        /// Its kind.
        kind: IcmpName,
        /// The packet that it quotes.
        quotes: Box<Quoted>,
    },
    /// `protocol:`
    Protocol(u8),
    /// `arp: true`
    Arp,
    /// `ether-type:`
    EtherType(u16),
}

/// A pair of ports.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// The remote's.
    pub remote: u16,
    /// The pod's.
    pub pod: u16,
}

/// The packet that an ICMP error quotes: by default one between the same ends in the opposite direction.
#[derive(Clone, Debug)]
pub struct Quoted {
    /// Its other end; by default the error's.
    pub remote: Option<String>,
    /// The pod's end, where it isn't the pod's address.
    pub pod_address: Option<IpAddr>,
    /// What it carries.
    pub content: Content,
    /// Its IP header.
    pub ip: IpShape,
    /// How much of it is quoted.
    pub damage: Damage,
    /// It went the error's own way.
    pub same_direction: bool,
}

/// How a packet came to the node.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// By some other interface (ingress), or by the pod's veth (egress).
    #[default]
    Usual,
    /// It was made on the node: `ingress_ifindex` is 0.
    NodeMade,
    /// By this interface.
    Interface(u32),
}

/// What is expected of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Whatever the reason.
    Pass,
    /// Whatever the reason.
    Drop,
    /// This reason, counted, and its verdict. `established` is a pass by a flow that was judged before, which only the
    /// slow path counts.
    Reason(Reason),
}

/// A report of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// Exactly one, of this kind.
    Kind(EventKind),
    /// None.
    Nothing,
}

/// What is expected to be remembered of a connection.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FlowStep {
    /// Whose.
    pub pod: String,
    /// The other end.
    pub remote: String,
    /// As in packets.
    pub family: Option<u8>,
    /// TCP.
    pub tcp: Option<Ports>,
    /// UDP.
    pub udp: Option<Ports>,
    /// SCTP.
    pub sctp: Option<Ports>,
    /// The identifier of an echo.
    pub echo: Option<u16>,
    /// Another protocol.
    pub protocol: Option<u8>,
    /// Nothing is remembered.
    #[serde(default)]
    pub absent: bool,
    /// Its state.
    pub state: Option<FlowStateName>,
    /// In which direction it was opened.
    pub opener: Option<Towards>,
    /// Why it passes, or that it was refused.
    pub reason: Option<ReasonName>,
}

/// A [`FlowState`] as files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FlowStateName(pub FlowState);

/// A [`Reason`] as files write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ReasonName(pub Reason);

impl TryFrom<String> for FlowStateName {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        use FlowState::{Closed, Closing, Established, OneWay, Replied, SynSent};
        [OneWay, Replied, SynSent, Established, Closing, Closed]
            .into_iter()
            .find(|state| kebab(*state) == text)
            .map(Self)
            .ok_or_else(|| anyhow!("`{text}` is no state of a flow"))
    }
}

impl TryFrom<String> for ReasonName {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let known = Reason::ALL.into_iter().find(|reason| kebab(*reason) == text);
        known.map(Self).with_context(|| format!("`{text}` is neither `pass`, `drop` nor a reason"))
    }
}

/// A variant's name as files write it: `NoRule` is `no-rule`.
pub fn kebab(variant: impl std::fmt::Debug) -> String {
    let mut out = String::new();
    for letter in format!("{variant:?}").chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

impl From<Towards> for Direction {
    fn from(towards: Towards) -> Self {
        match towards {
            Towards::Ingress => Self::Ingress,
            Towards::Egress => Self::Egress,
        }
    }
}
