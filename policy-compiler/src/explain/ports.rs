//! The ports of a rule against the port of a connection.

use super::{
    Element, ListPart, Mismatch, MismatchKind,
    judge::{Lines, Packet},
    peers::unusable,
};
use crate::model::{EndpointSlice, ObjectName, Pod, PortMatch, Protocol};

/// What `ports` says; `rule` is the rule's path.
pub(super) fn part(packet: &Packet<'_>, ports: Option<&[PortMatch]>, rule: &str, lines: Lines<'_>) -> ListPart {
    let Some(ports) = ports else { return ListPart { matched: true, by: None, tried: Vec::new() } };
    let tried = ports.iter().enumerate().map(|(index, port)| {
        let path = format!("ports[{index}]");
        let line = lines.of(&format!("{rule}.{path}"));
        let protocol_written = lines.has(&format!("{rule}.{path}.protocol")) != Some(false);
        let failed = failed(packet, port, &path, protocol_written);
        Element { line, summary: summary(packet, port), failed, path }
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

fn failed(packet: &Packet<'_>, port: &PortMatch, path: &str, protocol_written: bool) -> Vec<Mismatch> {
    let protocol = match port {
        PortMatch::Nothing => return vec![unusable(path)],
        PortMatch::All(protocol) | PortMatch::Range { protocol, .. } | PortMatch::Named(protocol, _) => *protocol,
    };
    let mismatch = |kind, field: &str, want: String, have: Option<String>| {
        vec![Mismatch { kind, field: field.to_owned(), want, have, distance: None, of: None }]
    };
    let Some((asked, number)) = packet.port else {
        return mismatch(MismatchKind::Portless, "", "a protocol with ports".to_owned(), None);
    };
    let mut failed = Vec::new();
    if asked != protocol {
        let want = if protocol_written { protocol.to_string() } else { format!("{protocol} (without protocol)") };
        failed = mismatch(MismatchKind::Protocol, "protocol", want, Some(asked.to_string()));
    }
    let have = Some(number.to_string());
    match port {
        PortMatch::Range { first, last, .. } if !(*first..=*last).contains(&number) => {
            let want = if first == last { first.to_string() } else { format!("{first}-{last}") };
            if first < last && last.checked_add(1) == Some(number) {
                failed.extend(mismatch(MismatchKind::PastEnd, "endPort", want, have));
            } else if let Some(service) = leads(packet, asked, *first, number) {
                let mut of_service = mismatch(MismatchKind::ServicePort, "port", want, have);
                of_service.iter_mut().for_each(|mismatch| mismatch.of = Some(service.clone()));
                failed.extend(of_service);
            } else {
                failed.extend(mismatch(MismatchKind::Port, "port", want, have));
            }
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
                    let other = pod.ports.iter().find(|port| *port.name == **name);
                    let have = other.map(|port| format!("{}/{}", port.number, port.protocol));
                    failed.extend(mismatch(MismatchKind::NamedPortMissing, "port", want, have));
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

/// The Service, and its port, that leads from one of two ports to the other at the destination: the port of a rule and
/// the one that was asked for, either way round.
fn leads(packet: &Packet<'_>, protocol: Protocol, of_rule: u16, asked: u16) -> Option<String> {
    let pod = if packet.ingress { packet.pod } else { packet.remote.own_pod(packet.cluster)? };
    let own = |name: &ObjectName| name.namespace == pod.name.namespace;
    for service in packet.cluster.services.values().filter(|service| own(&service.name)) {
        for port in service.ports.iter().filter(|port| port.protocol == protocol) {
            let target = match (port.port == of_rule, port.port == asked) {
                (true, _) => asked,
                (_, true) => of_rule,
                _ => continue,
            };
            let slices = packet.cluster.endpoint_slices.values();
            let mut slices = slices.filter(|slice| own(&slice.name) && slice.service == service.name.name);
            let is_target = |slice: &EndpointSlice| {
                let mut ends = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
                let mut ports = slice.ports.iter().filter(|entry| entry.name == port.name);
                ends.any(|address| pod.addresses.contains(address)) && ports.any(|entry| entry.number == target)
            };
            if slices.any(is_target) {
                return Some(format!(
                    "{} is the port of Service {}, its pods listen on {target}",
                    port.port, service.name
                ));
            }
        }
    }
    None
}
