//! Ports as they are written on the command line: `5432`, `53/udp`, `UDP/53`, `http`, `80-90`, `any`, `icmp`.

use policy_compiler::{
    model::{Pod, Protocol},
    reach::{Port, PortRange},
};
use thiserror::Error;

/// A port, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Every port of every protocol.
    Any,
    /// By number.
    Range(PortRange),
    /// By the name that the destination gives it.
    Named(String, Option<Protocol>),
    /// A protocol without ports.
    Icmp,
}

/// Why a text is no port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no port; write 80, 53/udp, 8000-8999, http, any or icmp")]
pub(crate) struct NoPort(pub(crate) String);

impl Wanted {
    /// One number.
    #[cfg(test)]
    pub(crate) const fn number(protocol: Protocol, number: u16) -> Self {
        Self::Range(PortRange { protocol, first: number, last: number })
    }

    /// Reads a port.
    pub(crate) fn parse(text: &str) -> Result<Self, NoPort> {
        let wrong = || NoPort(text.to_owned());
        let protocol =
            |text: &str| Protocol::ALL.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(text));
        let (port, protocol) = match text.split_once('/') {
            Some((first, second)) => match (protocol(first), protocol(second)) {
                (_, Some(protocol)) => (first, Some(protocol)),
                (Some(protocol), None) => (second, Some(protocol)),
                (None, None) => return Err(wrong()),
            },
            None => (text, None),
        };
        match port {
            "icmp" if protocol.is_none() => return Ok(Self::Icmp),
            "any" if protocol.is_none() => return Ok(Self::Any),
            _ => {}
        }
        if port.starts_with(|first: char| first.is_ascii_digit()) && !port.contains(|c: char| c.is_ascii_alphabetic()) {
            let (first, last) = port.split_once('-').unwrap_or((port, port));
            let number = |text: &str| text.parse().ok().filter(|number: &u16| *number > 0).ok_or_else(wrong);
            let (first, last) = (number(first)?, number(last)?);
            let protocol = protocol.unwrap_or(Protocol::Tcp);
            return if first <= last { Ok(Self::Range(PortRange { protocol, first, last })) } else { Err(wrong()) };
        }
        // an IANA service name (RFC 6335 section 5.1), which is what the API takes
        let is_name = !port.is_empty()
            && port.len() <= 15
            && port.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if is_name { Ok(Self::Named(port.to_owned(), protocol)) } else { Err(wrong()) }
    }

    /// The ports that are to be asked about at a destination: of `ranges`, which nothing in the cluster tells apart, the
    /// parts that are wanted; `None` for protocols without ports. Nothing if the destination has no port of the name.
    pub(crate) fn probes(&self, ranges: &[PortRange], pod: Option<&Pod>) -> Vec<Option<PortRange>> {
        match self {
            Self::Icmp => vec![None],
            Self::Any => ranges.iter().copied().map(Some).chain([None]).collect(),
            Self::Range(wanted) => ranges
                .iter()
                .filter(|range| range.protocol == wanted.protocol)
                .filter(|range| range.first <= wanted.last && wanted.first <= range.last)
                .map(|range| {
                    let (first, last) = (range.first.max(wanted.first), range.last.min(wanted.last));
                    Some(PortRange { first, last, ..*range })
                })
                .collect(),
            Self::Named(name, protocol) => pod
                .iter()
                .flat_map(|pod| &pod.ports)
                .filter(|port| *port.name == **name && protocol.is_none_or(|wanted| wanted == port.protocol))
                .map(|port| Some(PortRange { protocol: port.protocol, first: port.number, last: port.number }))
                .collect(),
        }
    }
}

/// One port of a probe; all of them are judged alike.
pub(crate) fn representative(probe: Option<PortRange>) -> Port {
    probe.map(|range| (range.protocol, range.first))
}

/// `TCP/5432`, `TCP/8000-8999`, `ICMP`
pub(crate) fn written(probe: Option<PortRange>) -> String {
    match probe {
        None => "ICMP".to_owned(),
        Some(PortRange { protocol, first, last }) if first == last => format!("{protocol}/{first}"),
        Some(PortRange { protocol, first, last }) => format!("{protocol}/{first}-{last}"),
    }
}

/// Ports as short as can be: neighbours joined, whole protocols by name.
pub(crate) fn summary(probes: &[Option<PortRange>]) -> String {
    let mut joined: Vec<PortRange> = Vec::new();
    let mut ranges: Vec<_> = probes.iter().flatten().copied().collect();
    ranges.sort();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.protocol == range.protocol && u32::from(last.last) + 1 >= u32::from(range.first) => {
                last.last = last.last.max(range.last);
            }
            _ => joined.push(range),
        }
    }
    let icmp = probes.contains(&None);
    let is_whole = |range: &&PortRange| range.first == 1 && range.last == u16::MAX;
    if icmp && joined.iter().filter(is_whole).count() == Protocol::ALL.len() {
        return "all ports".to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    for protocol in Protocol::ALL {
        let own: Vec<_> = joined.iter().filter(|range| range.protocol == protocol).collect();
        if own.is_empty() {
            continue;
        }
        if own.iter().any(&is_whole) {
            words.push(format!("{protocol}"));
            continue;
        }
        let numbers: Vec<_> = own
            .iter()
            .map(|range| {
                if range.first == range.last {
                    range.first.to_string()
                } else {
                    format!("{}-{}", range.first, range.last)
                }
            })
            .collect();
        words.push(format!("{protocol} {}", numbers.join(",")));
    }
    if icmp {
        words.push("ICMP".to_owned());
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        #[track_caller]
        fn check(text: &str, expected: Wanted) {
            assert_eq!(Wanted::parse(text), Ok(expected));
        }
        check("80", Wanted::number(Protocol::Tcp, 80));
        check("53/udp", Wanted::number(Protocol::Udp, 53));
        check("UDP/53", Wanted::number(Protocol::Udp, 53));
        check("sctp/53", Wanted::number(Protocol::Sctp, 53));
        check("80-90", Wanted::Range(PortRange { protocol: Protocol::Tcp, first: 80, last: 90 }));
        check("icmp", Wanted::Icmp);
        check("any", Wanted::Any);
        check("http", Wanted::Named("http".into(), None));
        check("dns/udp", Wanted::Named("dns".into(), Some(Protocol::Udp)));
        check("icmp/tcp", Wanted::Named("icmp".into(), Some(Protocol::Tcp)));
        check("8080-web", Wanted::Named("8080-web".into(), None));
        for wrong in ["0", "65536", "80/http", "", "Web_Port", "90-80", "http/80", "80-", "-"] {
            let is_name = wrong == "-";
            assert_eq!(Wanted::parse(wrong).is_err(), !is_name, "{wrong}");
        }
    }

    #[test]
    fn neighbours_are_joined() {
        let range = |protocol, first, last| Some(PortRange { protocol, first, last });
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        assert_eq!(summary(&[range(tcp, 80, 80), range(tcp, 81, 90), range(udp, 53, 53)]), "TCP 80-90 UDP 53");
        assert_eq!(summary(&[range(tcp, 1, 79), range(tcp, 80, 65535), None]), "TCP ICMP");
        let all = Protocol::ALL.map(|protocol| range(protocol, 1, 65535));
        assert_eq!(summary(&[all[0], all[1], all[2], None]), "all ports");
    }
}
