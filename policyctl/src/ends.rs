//! The ends of a connection as they are written on the command line: `shop/web`, `svc/db:5432`, `ip:[fd00::1]:53/udp`.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use policy_compiler::{
    cluster::Cluster,
    explain::End,
    model::{ObjectName, Protocol},
};

/// What is wrong with an end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// It is no end.
    #[error(
        "{0:?} is no end of a connection; write NAMESPACE/POD, POD, svc/SERVICE, NAMESPACE/svc/SERVICE, node/NODE or \
         ip:ADDRESS"
    )]
    NoEnd(String),
    /// What follows `ip:` is no address.
    #[error("{0:?} is no IP address; write ip:10.0.0.1, or ip:[fd00::1] where a port follows")]
    NoAddress(String),
    /// The port is no port.
    #[error("{0:?} is no port; write a number from 1 to 65535 or a port's name, then /tcp, /udp or /sctp, or icmp")]
    NoPort(String),
    /// The destination has no port.
    #[error("{0:?} has no port; write {0}:PORT, such as {0}:443 or {0}:53/udp, or {0}:icmp")]
    PortMissing(String),
    /// The source has a port.
    #[error("{0:?} has a port, which belongs to the destination only")]
    PortAtSource(String),
    /// No port of this name, or no pod to look it up at.
    #[error("{end} has no port named {name:?}{}", .known)]
    NoNamedPort {
        /// The end.
        end: String,
        /// The name.
        name: String,
        /// The names that there are, as the end of the sentence.
        known: String,
    },
}

/// A destination's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// A protocol without ports.
    Icmp,
    /// By number.
    Number(Protocol, u16),
    /// By the name of a container port or a Service's port, with the protocol if it was written.
    Named(String, Option<Protocol>),
}

/// Reads the source. `namespace` is that of names without one.
pub(crate) fn source(text: &str, namespace: &str) -> Result<End, Error> {
    match split_port(text) {
        (end, None) => end_of(end, namespace),
        (_, Some(_)) => Err(Error::PortAtSource(text.to_owned())),
    }
}

/// Reads the destination.
pub(crate) fn destination(text: &str, namespace: &str) -> Result<(End, Port), Error> {
    let (end, port) = split_port(text);
    let port = port.ok_or_else(|| Error::PortMissing(text.to_owned()))?;
    Ok((end_of(end, namespace)?, port_of(port)?))
}

/// A port in numbers.
pub(crate) fn resolve(cluster: &Cluster, end: &End, port: Port) -> Result<Option<(Protocol, u16)>, Error> {
    let (name, protocol) = match port {
        Port::Icmp => return Ok(None),
        Port::Number(protocol, number) => return Ok(Some((protocol, number))),
        Port::Named(name, protocol) => (name, protocol),
    };
    let ports: Vec<(&str, Protocol, u16)> = match end {
        End::Pod(pod) => match cluster.pods.get(pod) {
            Some(pod) => pod.ports.iter().map(|port| (&*port.name, port.protocol, port.number)).collect(),
            // explaining says that there is no such pod, and which names are near
            None => return Ok(Some((Protocol::Tcp, 1))),
        },
        End::Service(service) => match cluster.services.get(service) {
            Some(service) => service.ports.iter().map(|port| (&*port.name, port.protocol, port.port)).collect(),
            None => return Ok(Some((Protocol::Tcp, 1))),
        },
        End::Node(_) | End::Address(_) => Vec::new(),
    };
    let wanted =
        |(found, of, _): &&(&str, Protocol, u16)| *found == name && protocol.is_none_or(|wanted| wanted == *of);
    match ports.iter().find(wanted) {
        Some((_, protocol, number)) => Ok(Some((*protocol, *number))),
        None => {
            let names: Vec<_> = ports.iter().map(|(name, ..)| *name).filter(|name| !name.is_empty()).collect();
            let known = match names.as_slice() {
                [] => "; write a number".to_owned(),
                names => format!("; it has {}", names.join(", ")),
            };
            Err(Error::NoNamedPort { end: end.to_string(), name, known })
        }
    }
}

/// Cuts what follows the end, if something does. The colons of an IPv6 address are no ports unless it is in brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    let (prefix, rest) = match text.strip_prefix("ip:") {
        Some(rest) => (3, rest),
        None => (0, text),
    };
    if prefix > 0 && rest.parse::<Ipv6Addr>().is_ok() {
        return (text, None);
    }
    let start = if rest.starts_with('[') { rest.find(']').unwrap_or(0) } else { 0 };
    match rest[start..].find(':') {
        Some(colon) => (&text[..prefix + start + colon], Some(&text[prefix + start + colon + 1..])),
        None => (text, None),
    }
}

fn end_of(text: &str, namespace: &str) -> Result<End, Error> {
    if let Some(address) = text.strip_prefix("ip:") {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address: IpAddr = bare.parse().map_err(|_| Error::NoAddress(address.to_owned()))?;
        return Ok(End::Address(address.to_canonical()));
    }
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(Error::NoEnd(text.to_owned()));
    }
    match parts.as_slice() {
        ["node" | "nodes" | "no", node] => Ok(End::Node(Arc::from(*node))),
        ["svc" | "service" | "services", service] => Ok(End::Service(ObjectName::new(namespace, *service))),
        ["pod" | "pods" | "po", pod] | [pod] => Ok(End::Pod(ObjectName::new(namespace, *pod))),
        [namespace, "svc" | "service" | "services", service] => Ok(End::Service(ObjectName::new(*namespace, *service))),
        [namespace, "pod" | "pods" | "po", pod] | [namespace, pod] => Ok(End::Pod(ObjectName::new(*namespace, *pod))),
        _ => Err(Error::NoEnd(text.to_owned())),
    }
}

fn port_of(text: &str) -> Result<Port, Error> {
    let wrong = || Error::NoPort(text.to_owned());
    let (port, protocol) = match text.split_once('/') {
        Some((port, protocol)) => {
            let named = |known: &Protocol| known.to_string().eq_ignore_ascii_case(protocol);
            (port, Some(Protocol::ALL.into_iter().find(named).ok_or_else(wrong)?))
        }
        None => (text, None),
    };
    if port == "icmp" && protocol.is_none() {
        return Ok(Port::Icmp);
    }
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        return match port.parse() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(number) => Ok(Port::Number(protocol.unwrap_or(Protocol::Tcp), number)),
        };
    }
    // an IANA service name (RFC 6335 section 5.1), which is what the API takes
    let is_name = port.len() <= 15 && port.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_name { Ok(Port::Named(port.to_owned(), protocol)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> End {
        End::Pod(ObjectName::new(namespace, name))
    }

    #[test]
    fn sources() {
        #[track_caller]
        fn check(text: &str, expected: Result<End, Error>) {
            assert_eq!(source(text, "here"), expected);
        }
        check("web", Ok(pod("here", "web")));
        check("shop/web", Ok(pod("shop", "web")));
        check("pod/web", Ok(pod("here", "web")));
        check("shop/pod/web", Ok(pod("shop", "web")));
        check("node/n1", Ok(End::Node("n1".into())));
        check("ip:10.0.0.1", Ok(End::Address([10, 0, 0, 1].into())));
        check("ip:fd00::1", Ok(End::Address("fd00::1".parse().unwrap())));
        check("ip:[fd00::1]", Ok(End::Address("fd00::1".parse().unwrap())));
        check("ip:::ffff:10.0.0.1", Ok(End::Address([10, 0, 0, 1].into())));
        check("ip:10.0.0", Err(Error::NoAddress("10.0.0".into())));
        check("shop/web:80", Err(Error::PortAtSource("shop/web:80".into())));
        check("a/b/c", Err(Error::NoEnd("a/b/c".into())));
        check("/web", Err(Error::NoEnd("/web".into())));
        check("", Err(Error::NoEnd(String::new())));
    }

    #[test]
    fn destinations() {
        #[track_caller]
        fn check(text: &str, end: End, port: Port) {
            assert_eq!(destination(text, "here"), Ok((end, port)));
        }
        check("shop/db:5432", pod("shop", "db"), Port::Number(Protocol::Tcp, 5432));
        check("db:53/UDP", pod("here", "db"), Port::Number(Protocol::Udp, 53));
        check("db:53/sctp", pod("here", "db"), Port::Number(Protocol::Sctp, 53));
        check("db:icmp", pod("here", "db"), Port::Icmp);
        check("db:http", pod("here", "db"), Port::Named("http".into(), None));
        check("db:dns/udp", pod("here", "db"), Port::Named("dns".into(), Some(Protocol::Udp)));
        // a port may have that name
        check("db:icmp/tcp", pod("here", "db"), Port::Named("icmp".into(), Some(Protocol::Tcp)));
        check("svc/db:80", End::Service(ObjectName::new("here", "db")), Port::Number(Protocol::Tcp, 80));
        check("shop/svc/db:80", End::Service(ObjectName::new("shop", "db")), Port::Number(Protocol::Tcp, 80));
        check("ip:10.0.0.1:80", End::Address([10, 0, 0, 1].into()), Port::Number(Protocol::Tcp, 80));
        check("ip:[fd00::1]:80", End::Address("fd00::1".parse().unwrap()), Port::Number(Protocol::Tcp, 80));
    }

    #[test]
    fn wrong_destinations() {
        #[track_caller]
        fn check(text: &str, expected: fn(String) -> Error, part: &str) {
            assert_eq!(destination(text, "here"), Err(expected(part.into())));
        }
        check("shop/db", Error::PortMissing, "shop/db");
        check("ip:fd00::1", Error::PortMissing, "ip:fd00::1");
        check("db:0", Error::NoPort, "0");
        check("db:65536", Error::NoPort, "65536");
        check("db:80/http", Error::NoPort, "80/http");
        check("db:", Error::NoPort, "");
        check("db:Web_Port", Error::NoPort, "Web_Port");
    }
}
