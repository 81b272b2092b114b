//! The ports of a rule against the port of a connection.

use super::{
    Element, ListPart, Mismatch, MismatchKind,
    judge::{Lines, Packet},
    peers::unusable,
};
use crate::model::{Pod, PortMatch, Protocol};

/// What `ports` says; `rule` is the rule's path.
pub(super) fn part(packet: &Packet<'_>, ports: Option<&[PortMatch]>, rule: &str, lines: Lines<'_>) -> ListPart {
    let Some(ports) = ports else { return ListPart { matched: true, by: None, tried: Vec::new() } };
    let tried = ports.iter().enumerate().map(|(index, port)| {
        let path = format!("ports[{index}]");
        let line = lines.of(&format!("{rule}.{path}"));
        Element { line, summary: summary(packet, port), failed: failed(packet, port, &path), path }
    });
    ListPart::of(tried.collect())
}

fn summary(packet: &Packet<'_>, port: &PortMatch) -> String {
    match port {
        PortMatch::All(protocol) => format!("all {protocol} ports"),
        PortMatch::Range { protocol, first, last } if first == last => format!("port {first}/{protocol}"),
        PortMatch::Range { protocol, first, last } => format!("ports {first}-{last}/{protocol}"),
        PortMatch::Named(protocol, name) => {
            let numbers = named_on(packet).map(|pod| numbers(pod, *protocol, name)).unwrap_or_default();
            if numbers.is_empty() {
                format!("port {name}/{protocol}")
            } else {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                format!("port {name} = {}/{protocol}", numbers.join(","))
            }
        }
        PortMatch::Nothing => "nothing that can be used".to_owned(),
    }
}

/// A port as one would say it.
#[must_use]
pub fn port_summary(port: &PortMatch) -> String {
    match port {
        PortMatch::All(protocol) => format!("{protocol}"),
        PortMatch::Range { protocol, first, last } if first == last => format!("{protocol}/{first}"),
        PortMatch::Range { protocol, first, last } => format!("{protocol}/{first}-{last}"),
        PortMatch::Named(protocol, name) => format!("{protocol}/{name}"),
        PortMatch::Nothing => "none (the port can't be used)".to_owned(),
    }
}

/// Whose names count: the selected pod's for ingress, the peer's for egress.
fn named_on<'a>(packet: &Packet<'a>) -> Option<&'a Pod> {
    if packet.ingress { Some(packet.pod) } else { packet.remote.own_pod(packet.cluster) }
}

fn numbers(pod: &Pod, protocol: Protocol, name: &str) -> Vec<u16> {
    let ports = pod.ports.iter().filter(|port| port.protocol == protocol && &*port.name == name);
    ports.map(|port| port.number).collect()
}

fn failed(packet: &Packet<'_>, port: &PortMatch, path: &str) -> Vec<Mismatch> {
    let protocol = match port {
        PortMatch::Nothing => return vec![unusable(path)],
        PortMatch::All(protocol) | PortMatch::Range { protocol, .. } | PortMatch::Named(protocol, _) => *protocol,
    };
    let mismatch = |kind, field: &str, want: String, have: Option<String>| {
        vec![Mismatch { kind, field: field.to_owned(), want, have, distance: None }]
    };
    let Some((asked, number)) = packet.port else {
        return mismatch(MismatchKind::Portless, "", "a protocol with ports".to_owned(), None);
    };
    let mut failed = Vec::new();
    if asked != protocol {
        failed = mismatch(MismatchKind::Protocol, "protocol", protocol.to_string(), Some(asked.to_string()));
    }
    let have = Some(number.to_string());
    match port {
        PortMatch::Range { first, last, .. } if !(*first..=*last).contains(&number) => {
            let want = if first == last { first.to_string() } else { format!("{first}-{last}") };
            failed.extend(mismatch(MismatchKind::Port, "port", want, have));
        }
        PortMatch::Named(_, name) => match named_on(packet) {
            None => {
                let want = format!("a pod with a port {name}");
                failed.extend(mismatch(MismatchKind::NamedPortOfNobody, "port", want, None));
            }
            Some(pod) => {
                let numbers = numbers(pod, protocol, name);
                if numbers.is_empty() {
                    let want = format!("a {protocol} port {name} on {}", pod.name);
                    failed.extend(mismatch(MismatchKind::NamedPortMissing, "port", want, None));
                } else if !numbers.contains(&number) {
                    let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                    let want = format!("{} ({name})", numbers.join(","));
                    failed.extend(mismatch(MismatchKind::Port, "port", want, have));
                }
            }
        },
        _ => {}
    }
    failed
}
