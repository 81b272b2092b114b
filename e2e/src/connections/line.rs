//! The words of a connection as a case writes it: `SOURCE -> TARGET[:PORT[/PROTOCOL]] [via POD:PORT] [over FAMILY]`.

use std::{fmt, net::IpAddr, str::FromStr};

use anyhow::{Context as _, Error, Result, bail, ensure};
use policy_compiler::model::{ObjectName, Protocol};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// RFC 791
    V4,
    /// RFC 8200
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A destination port of a protocol that has ports.
    Port(Protocol, u16),
    /// Echo requests of the family's ICMP.
    Icmp,
    /// RFC 2784; stands for all protocols that have no ports.
    Gre,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(Protocol::Tcp, port) => write!(f, "{port}"),
            Self::Port(Protocol::Udp, port) => write!(f, "{port}/udp"),
            Self::Port(Protocol::Sctp, port) => write!(f, "{port}/sctp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Gre => f.write_str("gre"),
        }
    }
}

impl FromStr for Transport {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "icmp" => Self::Icmp,
            "gre" => Self::Gre,
            _ => {
                let (protocol, number) = port(text)?;
                Self::Port(protocol, number)
            }
        })
    }
}

/// `80`, `80/tcp`, `53/udp`, `3868/sctp`.
pub(super) fn port(text: &str) -> Result<(Protocol, u16)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => bail!("{other:?} is none of tcp, udp and sctp"),
    };
    Ok((protocol, number.parse().with_context(|| format!("{number:?} is no port"))?))
}

/// An end as a case names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `shop/web`
    Pod(ObjectName),
    /// `node n1`
    Node(String),
    /// `service shop/db`: its cluster IPs.
    Service(ObjectName),
    /// `203.0.113.9`, and `[2001:db8::9]` before a port.
    Address(IpAddr),
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        Ok(if let Some(name) = text.strip_prefix("node ") {
            Self::Node(name.to_owned())
        } else if let Some(name) = text.strip_prefix("service ") {
            Self::Service(object(name)?)
        } else {
            Self::Pod(object(text)?)
        })
    }
}

/// `shop/web`
pub(super) fn object(text: &str) -> Result<ObjectName> {
    let (namespace, name) = text.split_once('/').with_context(|| format!("{text:?} is no NAMESPACE/NAME"))?;
    ensure!(!namespace.is_empty() && !name.is_empty() && !name.contains(['/', ' ']), "{text:?} is no NAMESPACE/NAME");
    Ok(ObjectName::new(namespace, name))
}

/// A connection as a case writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) source: Name,
    pub(super) target: Name,
    pub(super) transport: Transport,
    /// The back end that a front end leads to, and its port.
    pub(super) via: Option<(ObjectName, u16)>,
    /// Both, where both ends have both, if it isn't said.
    pub(super) family: Option<Family>,
}

impl FromStr for Line {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (rest, family) = match text.rsplit_once(" over ") {
            None => (text, None),
            Some((rest, "IPv4")) => (rest, Some(Family::V4)),
            Some((rest, "IPv6")) => (rest, Some(Family::V6)),
            Some((_, other)) => bail!("{other:?} is neither IPv4 nor IPv6"),
        };
        let (rest, via) = match rest.rsplit_once(" via ") {
            None => (rest, None),
            Some((rest, back_end)) => {
                let (name, port) = back_end.rsplit_once(':').context("`via` needs a pod and its port")?;
                (rest, Some((object(name)?, port.parse().with_context(|| format!("{port:?} is no port"))?)))
            }
        };
        let (source, target) = rest.split_once(" -> ").context("there is no ` -> `")?;
        let (target, transport) = target.rsplit_once(':').context("the target has no `:PORT`")?;
        let line =
            Self { source: source.parse()?, target: target.parse()?, transport: transport.parse()?, via, family };
        ensure!(!matches!(line.source, Name::Service(_)), "a Service opens no connections");
        ensure!(
            line.via.is_none() || matches!(line.transport, Transport::Port(..)),
            "only protocols with ports go through front ends"
        );
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, source: &str, target: &str, transport: Transport) {
        let line: Line = text.parse().unwrap();
        assert_eq!(line.source, source.parse().unwrap());
        assert_eq!(line.target, target.parse().unwrap());
        assert_eq!(line.transport, transport);
    }

    #[test]
    fn ends_are_told_apart() {
        let tcp = Transport::Port(Protocol::Tcp, 80);
        check("a/b -> c/d:80", "a/b", "c/d", tcp);
        check("a/b -> c/d:80/tcp", "a/b", "c/d", tcp);
        check("a/b -> service c/d:80 via c/e:8080 over IPv6", "a/b", "service c/d", tcp);
        check("node n1 -> c/d:icmp", "node n1", "c/d", Transport::Icmp);
        check("10.0.0.1 -> node n2:53/udp", "10.0.0.1", "node n2", Transport::Port(Protocol::Udp, 53));
        check("2001:db8::1 -> [2001:db8::2]:9/sctp", "2001:db8::1", "2001:db8::2", Transport::Port(Protocol::Sctp, 9));
    }

    #[test]
    fn what_is_no_connection_is_refused() {
        for text in [
            "",
            "a/b",
            "a/b -> c/d",
            "a/b -> c:80",
            "a/b -> c/d:http",
            "a/b -> c/d:65536",
            "a/b -> c/d:80/TCP",
            "a/b -> c/d:80 over ipv4",
            "a/b -> c/d:80 via c/e",
            "a/b -> service c/d:icmp via c/e:80",
            "service a/b -> c/d:80",
            "a/b -> c/d/e:80",
        ] {
            assert!(text.parse::<Line>().is_err(), "{text}");
        }
    }
}
