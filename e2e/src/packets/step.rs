//! The steps of a packet case as the file writes them. Entry point: [`Step`].

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use enforcer_abi::{Direction, EventKind, FlowState, Reason};
use serde::Deserialize;

use super::{
    frame::{Damage, IpShape},
    payload::{IcmpName, TcpFlags},
};

/// One step of a case.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawStep")]
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
    /// `rebind:`: the pod's veth goes, and its interface index is another pod's from now on.
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
    Sctp(Ports),
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
    /// This reason, counted, and its verdict. `established` is a pass on the fast path, where nothing is counted.
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTcp {
    remote: u16,
    pod: u16,
    flags: TcpFlags,
    #[serde(default)]
    data: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEcho {
    id: u16,
    #[serde(default)]
    reply: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawError {
    kind: IcmpName,
    quotes: Box<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHold {
    pod: String,
    #[serde(default)]
    setup: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRebind {
    from: String,
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClose {
    pod: String,
    directions: Vec<Towards>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrace {
    pod: String,
    seconds: u64,
}

/// Every key that a step may have. Which ones go together is settled when it becomes a [`Step`].
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct RawStep {
    ingress: Option<String>,
    egress: Option<String>,
    remote: Option<String>,
    family: Option<u8>,
    pod_address: Option<IpAddr>,
    tcp: Option<RawTcp>,
    udp: Option<Ports>,
    sctp: Option<Ports>,
    echo: Option<RawEcho>,
    icmp: Option<IcmpName>,
    error: Option<RawError>,
    protocol: Option<u8>,
    arp: bool,
    ether_type: Option<u16>,
    ip: IpShape,
    damage: Damage,
    keep_each: Option<(usize, usize)>,
    flood: Option<u16>,
    arrived: Arrival,
    gso: Option<(u32, u32)>,
    same_direction: bool,
    expect: Option<String>,
    event: Option<String>,
    flow: Option<FlowStep>,
    apply: Option<String>,
    delete: Option<Vec<String>>,
    advance: Option<String>,
    evict: Option<Evicted>,
    rebind: Option<RawRebind>,
    hold: Option<RawHold>,
    release: Option<String>,
    close: Option<RawClose>,
    grace: Option<RawGrace>,
    raise_epoch: Option<u32>,
}

impl TryFrom<RawStep> for Step {
    type Error = anyhow::Error;

    fn try_from(mut raw: RawStep) -> Result<Self> {
        let mut steps = Vec::new();
        steps.extend(raw.flow.take().map(Self::Flow));
        steps.extend(raw.apply.take().map(Self::Apply));
        steps.extend(raw.delete.take().map(Self::Delete));
        steps.extend(raw.advance.take().map(|text| duration(&text).map(Self::Advance)).transpose()?);
        steps.extend(raw.evict.take().map(Self::Evict));
        steps.extend(raw.rebind.take().map(|RawRebind { from, to }| Self::Rebind { from, to }));
        steps.extend(raw.hold.take().map(|RawHold { pod, setup }| Self::Hold { pod, setup }));
        steps.extend(raw.release.take().map(Self::Release));
        steps.extend(raw.close.take().map(|RawClose { pod, directions }| Self::Close { pod, directions }));
        steps.extend(raw.grace.take().map(|RawGrace { pod, seconds }| Self::Grace { pod, seconds }));
        steps.extend(raw.raise_epoch.take().map(Self::RaiseEpoch));
        if raw.ingress.is_some() || raw.egress.is_some() {
            steps.push(Self::Packet(Box::new(raw.packet()?)));
        }
        ensure!(steps.len() == 1, "a step is one action, and this one has {}", steps.len());
        Ok(steps.remove(0))
    }
}

impl RawStep {
    fn packet(self) -> Result<PacketStep> {
        let (direction, pod) = match (&self.ingress, &self.egress) {
            (Some(pod), None) => (Direction::Ingress, pod.clone()),
            (None, Some(pod)) => (Direction::Egress, pod.clone()),
            _ => bail!("a packet goes one way: `ingress` or `egress`"),
        };
        let expect = match self.expect.clone().context("a packet has no `expect`")? {
            text if text == "pass" => Expectation::Pass,
            text if text == "drop" => Expectation::Drop,
            text => Expectation::Reason(ReasonName::try_from(text)?.0),
        };
        let kinds = BTreeMap::from([
            ("none", Reported::Nothing),
            ("drop", Reported::Kind(EventKind::Drop)),
            ("new-flow", Reported::Kind(EventKind::NewFlow)),
            ("audit", Reported::Kind(EventKind::Audit)),
            ("cut", Reported::Kind(EventKind::Cut)),
        ]);
        let event = self
            .event
            .as_deref()
            .map(|name| kinds.get(name).copied().with_context(|| format!("`{name}` is no kind of event")))
            .transpose()?;
        ensure!(!self.same_direction, "`same-direction` is said of a quoted packet");
        let shape = (self.ip.clone(), self.damage.clone());
        Ok(PacketStep {
            direction,
            pod,
            remote: self.remote.clone().context("a packet has no `remote`")?,
            family: self.family,
            pod_address: self.pod_address,
            keep_each: self.keep_each,
            flood: self.flood.unwrap_or(1),
            arrived: self.arrived,
            gso: self.gso,
            content: self.content()?,
            ip: shape.0,
            damage: shape.1,
            expect,
            event,
        })
    }

    fn content(self) -> Result<Content> {
        let mut contents = Vec::new();
        contents.extend(self.tcp.map(|tcp| Content::Tcp {
            ports: Ports { remote: tcp.remote, pod: tcp.pod },
            flags: tcp.flags,
            data: tcp.data,
        }));
        contents.extend(self.udp.map(Content::Udp));
        contents.extend(self.sctp.map(Content::Sctp));
        contents.extend(self.echo.map(|echo| Content::Echo { id: echo.id, reply: echo.reply }));
        contents.extend(self.icmp.map(Content::Icmp));
        contents.extend(self.protocol.map(Content::Protocol));
        contents.extend(self.arp.then_some(Content::Arp));
        contents.extend(self.ether_type.map(Content::EtherType));
        if let Some(error) = self.error {
            let quotes = Box::new(error.quotes.quoted()?);
            contents.push(Content::Error { kind: error.kind, quotes });
        }
        ensure!(contents.len() == 1, "a packet carries one thing, and this one {}", contents.len());
        Ok(contents.remove(0))
    }

    fn quoted(self) -> Result<Quoted> {
        Ok(Quoted {
            remote: self.remote.clone(),
            pod_address: self.pod_address,
            ip: self.ip.clone(),
            damage: self.damage.clone(),
            same_direction: self.same_direction,
            content: self.content()?,
        })
    }
}

/// Seconds in `90s`, `5m`, `2h` or `5d`.
fn duration(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        other => bail!("`{text}` ends in `{other}`, which is no unit of time"),
    };
    Ok(digits.parse::<u64>().with_context(|| format!("`{text}` is no duration"))? * unit)
}
