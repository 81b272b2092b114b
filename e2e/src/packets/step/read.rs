//! Turns what a file says into a [`Step`], and refuses what makes no sense together.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, bail, ensure};
use enforcer_abi::{Direction, EventKind};
use serde::Deserialize;

use super::{
    Arrival, Content, Evicted, Expectation, FlowStep, PacketStep, Ports, Quoted, ReasonName, Reported, Step, Towards,
};
use crate::packets::{
    frame::{Damage, IpShape},
    payload::{IcmpName, SctpChunk, TcpFlags},
};

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
struct RawSctp {
    remote: u16,
    pod: u16,
    chunk: SctpChunk,
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
pub(super) struct RawStep {
    ingress: Option<String>,
    egress: Option<String>,
    remote: Option<String>,
    family: Option<u8>,
    pod_address: Option<IpAddr>,
    tcp: Option<RawTcp>,
    udp: Option<Ports>,
    sctp: Option<RawSctp>,
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
        contents.extend(
            self.sctp
                .map(|sctp| Content::Sctp { ports: Ports { remote: sctp.remote, pod: sctp.pod }, chunk: sctp.chunk }),
        );
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
