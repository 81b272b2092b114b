//! The ends of a connection as they are written on the command line: `shop/web`, `deploy/web`, `svc/db:5432`,
//! `ip:[fd00::1]:53/udp`. [`source`] and [`destination`] read them, [`Ends::find`] looks them up.

mod found;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use policy_compiler::{
    files::WorkloadKind,
    model::{Labels, ObjectName},
};
use thiserror::Error;

pub(crate) use self::found::{Ends, Member, world};
use crate::port::{NoPort, Wanted};

/// An end, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Pod(ObjectName),
    Workload(ObjectName, WorkloadKind),
    Service(ObjectName),
    Node(Arc<str>),
    Address(IpAddr),
    Network(IpNet),
    World,
    /// A pod that does not exist yet: its namespace and labels.
    Labels(Arc<str>, Labels),
}

/// Why a text is no end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Error {
    #[error(
        "{0:?} is no end; write NAMESPACE/POD, deploy/NAME, svc/NAME, node/NAME, ip:ADDRESS, cidr:NETWORK, world or labels:NAMESPACE{{KEY=VALUE,...}}"
    )]
    NoEnd(String),
    #[error("{0:?} is no IP address")]
    NoAddress(String),
    #[error("{0:?} is no network such as 10.0.0.0/8")]
    NoNetwork(String),
    #[error("{0:?} has a port; name it at the destination only")]
    PortAtSource(String),
    #[error("{0:?} has no port; add one, such as :80, :53/udp, :http or :icmp")]
    PortMissing(String),
    #[error(transparent)]
    NoPort(#[from] NoPort),
}

/// Reads the end that opens connections.
pub(crate) fn source(text: &str, namespace: &str) -> Result<Asked, Error> {
    match split_port(text) {
        (end, None) => end_of(end, namespace),
        (_, Some(_)) => Err(Error::PortAtSource(text.to_owned())),
    }
}

/// Reads the end that connections are opened to, and its port.
pub(crate) fn destination(text: &str, namespace: &str) -> Result<(Asked, Option<Wanted>), Error> {
    let (end, port) = split_port(text);
    let port = port.map(Wanted::parse).transpose()?;
    Ok((end_of(end, namespace)?, port))
}

/// Cuts what follows the end, if something does. The colons of an IPv6 address are no ports unless it is in brackets.
fn split_port(text: &str) -> (&str, Option<&str>) {
    let prefix = ["ip:", "cidr:", "labels:"].into_iter().find(|prefix| text.starts_with(prefix)).unwrap_or_default();
    let (prefix, rest) = (prefix.len(), &text[prefix.len()..]);
    if prefix > 0 && (rest.parse::<Ipv6Addr>().is_ok() || rest.parse::<IpNet>().is_ok()) {
        return (text, None);
    }
    let closing = if rest.starts_with('[') { ']' } else { '}' };
    let start = rest.find(closing).filter(|_| prefix > 0).unwrap_or(0);
    match rest[start..].find(':') {
        Some(colon) => (&text[..prefix + start + colon], Some(&text[prefix + start + colon + 1..])),
        None => (text, None),
    }
}

fn end_of(text: &str, namespace: &str) -> Result<Asked, Error> {
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').to_owned();
    if let Some(address) = text.strip_prefix("ip:") {
        let address: IpAddr = bare(address).parse().map_err(|_| Error::NoAddress(address.to_owned()))?;
        return Ok(Asked::Address(address.to_canonical()));
    }
    if let Some(network) = text.strip_prefix("cidr:") {
        let network: IpNet = bare(network).parse().map_err(|_| Error::NoNetwork(network.to_owned()))?;
        return Ok(Asked::Network(network.trunc()));
    }
    if let Some(pod) = text.strip_prefix("labels:") {
        return labels(pod, namespace).ok_or_else(|| Error::NoEnd(text.to_owned()));
    }
    if text == "world" {
        return Ok(Asked::World);
    }
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(Error::NoEnd(text.to_owned()));
    }
    let (namespace, kind, name) = match parts.as_slice() {
        [name] => (namespace, "pod", *name),
        ["node" | "nodes" | "no", name] => return Ok(Asked::Node(Arc::from(*name))),
        [kind, name] if is_kind(kind) => (namespace, *kind, *name),
        [namespace, name] => (*namespace, "pod", *name),
        [namespace, kind, name] if is_kind(kind) => (*namespace, *kind, *name),
        _ => return Err(Error::NoEnd(text.to_owned())),
    };
    let name = ObjectName::new(namespace, name);
    Ok(match kind {
        "svc" | "service" | "services" => Asked::Service(name),
        _ => match WorkloadKind::named(kind) {
            Some(kind) => Asked::Workload(name, kind),
            None => Asked::Pod(name),
        },
    })
}

fn is_kind(text: &str) -> bool {
    matches!(text, "pod" | "pods" | "po" | "svc" | "service" | "services") || WorkloadKind::named(text).is_some()
}

/// `shop{app=web,tier=db}`
fn labels(text: &str, namespace: &str) -> Option<Asked> {
    let (name, rest) = text.split_once('{')?;
    let rest = rest.strip_suffix('}')?;
    let mut labels = Labels::new();
    for pair in rest.split(',').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=')?;
        labels.insert(key.trim().into(), value.trim().into());
    }
    let namespace = if name.is_empty() { namespace } else { name };
    Some(Asked::Labels(namespace.into(), labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy_compiler::model::Protocol;

    fn pod(namespace: &str, name: &str) -> Asked {
        Asked::Pod(ObjectName::new(namespace, name))
    }

    fn address(text: &str) -> Asked {
        Asked::Address(text.parse().unwrap())
    }

    #[test]
    fn sources() {
        #[track_caller]
        fn check(text: &str, expected: Result<Asked, Error>) {
            assert_eq!(source(text, "here"), expected);
        }
        check("web", Ok(pod("here", "web")));
        check("shop/web", Ok(pod("shop", "web")));
        check("pod/web", Ok(pod("here", "web")));
        check("shop/pod/web", Ok(pod("shop", "web")));
        check("deploy/web", Ok(Asked::Workload(ObjectName::new("here", "web"), WorkloadKind::Deployment)));
        check("shop/sts/db", Ok(Asked::Workload(ObjectName::new("shop", "db"), WorkloadKind::StatefulSet)));
        check("jobs/x", Ok(Asked::Workload(ObjectName::new("here", "x"), WorkloadKind::Job)));
        check("node/n1", Ok(Asked::Node("n1".into())));
        check("ip:10.0.0.1", Ok(address("10.0.0.1")));
        check("ip:fd00::1", Ok(address("fd00::1")));
        check("ip:[fd00::1]", Ok(address("fd00::1")));
        check("ip:::ffff:10.0.0.1", Ok(address("10.0.0.1")));
        check("cidr:10.1.0.0/8", Ok(Asked::Network("10.0.0.0/8".parse().unwrap())));
        check("cidr:fd00::/8", Ok(Asked::Network("fd00::/8".parse().unwrap())));
        check("world", Ok(Asked::World));
        let labelled = Labels::from([("app".into(), "web".into()), ("tier".into(), "".into())]);
        check("labels:shop{app=web,tier=}", Ok(Asked::Labels("shop".into(), labelled)));
        check("labels:{}", Ok(Asked::Labels("here".into(), Labels::new())));
        check("labels:shop", Err(Error::NoEnd("labels:shop".into())));
        check("ip:10.0.0", Err(Error::NoAddress("10.0.0".into())));
        check("cidr:10.0.0.0", Err(Error::NoNetwork("10.0.0.0".into())));
        check("shop/web:80", Err(Error::PortAtSource("shop/web:80".into())));
        check("a/b/c", Err(Error::NoEnd("a/b/c".into())));
        check("/web", Err(Error::NoEnd("/web".into())));
        check("", Err(Error::NoEnd(String::new())));
    }

    #[test]
    fn destinations() {
        #[track_caller]
        fn check(text: &str, end: Asked, number: u16) {
            let port = Some(Wanted::number(Protocol::Tcp, number)).filter(|_| number > 0);
            assert_eq!(destination(text, "here"), Ok((end, port)));
        }
        check("shop/db:5432", pod("shop", "db"), 5432);
        check("shop/db", pod("shop", "db"), 0);
        check("svc/db:80", Asked::Service(ObjectName::new("here", "db")), 80);
        check("shop/svc/db:TCP/80", Asked::Service(ObjectName::new("shop", "db")), 80);
        check("ip:10.0.0.1:80", address("10.0.0.1"), 80);
        check("ip:fd00::1", address("fd00::1"), 0);
        check("ip:[fd00::1]:80", address("fd00::1"), 80);
        check("cidr:10.0.0.0/8:80", Asked::Network("10.0.0.0/8".parse().unwrap()), 80);
        check("cidr:[fd00::/8]:80", Asked::Network("fd00::/8".parse().unwrap()), 80);
        let labelled = Labels::from([("a.b/c".into(), "d".into())]);
        check("labels:shop{a.b/c=d}:80", Asked::Labels("shop".into(), labelled), 80);
        for wrong in ["db:0", "db:65536", "db:80/http", "db:", "db:Web_Port"] {
            assert!(matches!(destination(wrong, "here"), Err(Error::NoPort(_))), "{wrong}");
        }
    }
}
