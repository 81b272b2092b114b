//! The peers of a rule: networking/v1 `NetworkPolicyPeer`.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer};

use super::{address::prefix, selector::selector};
use crate::{
    diagnostic::{FieldPath, Problems},
    model::{NamespaceMatch, Peer, PodMatch, Selector},
};

/// One element of `from` or `to` of a policy in `namespace`; [`Peer::Nobody`] and a diagnostic if it can't be used.
pub(super) fn peer(
    object: &NetworkPolicyPeer,
    namespace: &Arc<str>,
    path: &FieldPath<'_>,
    problems: &mut Problems<'_>,
) -> Peer {
    match (&object.ip_block, &object.namespace_selector, &object.pod_selector) {
        (None, None, None) => {
            problems.error(
                path,
                "the peer names nobody and matches nobody; write podSelector, namespaceSelector or ipBlock (a \
                 namespaceSelector of {} means every pod)",
            );
            Peer::Nobody
        }
        (Some(block), None, None) => ip_block(block, &path.field("ipBlock"), problems).unwrap_or(Peer::Nobody),
        (Some(_), _, _) => {
            problems.error(path, "ipBlock doesn't go with a selector; make two peers of it");
            Peer::Nobody
        }
        (None, namespaces, pods) => {
            let namespaces = match namespaces {
                None => Some(NamespaceMatch::Name(namespace.clone())),
                Some(object) => {
                    selector(object, &path.field("namespaceSelector"), problems).map(NamespaceMatch::Labels)
                }
            };
            let pods = match pods {
                None => Some(Selector::default()),
                Some(object) => selector(object, &path.field("podSelector"), problems),
            };
            match (namespaces, pods) {
                (Some(namespaces), Some(pods)) => Peer::Pods(PodMatch { namespaces, pods }),
                _ => Peer::Nobody,
            }
        }
    }
}

/// `None` if the block or any of its excepts can't be used: what an except should have taken out is not known then.
fn ip_block(object: &IPBlock, path: &FieldPath<'_>, problems: &mut Problems<'_>) -> Option<Peer> {
    let cidr = cidr(&object.cidr, &path.field("cidr"), problems);
    let excepts_path = path.field("except");
    let mut except = Vec::new();
    let mut usable = true;
    for (index, text) in object.except.iter().flatten().enumerate() {
        let path = excepts_path.index(index);
        match (cidr, self::cidr(text, &path, problems)) {
            (Some(cidr), Some(exception)) if cidr == exception || !cidr.contains(&exception) => {
                problems.error(&path, not_within(cidr, exception));
                usable = false;
            }
            (_, Some(exception)) => except.push(exception),
            (_, None) => usable = false,
        }
    }
    let cidr = cidr.filter(|_| usable)?;
    Some(Peer::Block { cidr, except: outermost(except) })
}

/// Sorted, without those that another one covers.
fn outermost(mut prefixes: Vec<IpNet>) -> Vec<IpNet> {
    prefixes.sort();
    let mut kept: Vec<IpNet> = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        if kept.last().is_none_or(|last| !last.contains(&prefix)) {
            kept.push(prefix);
        }
    }
    kept
}

fn not_within(cidr: IpNet, exception: IpNet) -> String {
    let reason = if cidr.addr().is_ipv4() == exception.addr().is_ipv4() {
        "is not a part of"
    } else {
        "is of another address family than"
    };
    format!(
        "{exception} {reason} the block {cidr}, which therefore matches nobody; write a smaller part of it, or remove it"
    )
}

fn cidr(text: &str, path: &FieldPath<'_>, problems: &mut Problems<'_>) -> Option<IpNet> {
    let parsed = prefix(text);
    match parsed {
        None => {
            let hint = match text.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(_)) => format!("write {text}/32 for this one address"),
                Ok(std::net::IpAddr::V6(_)) => format!("write {text}/128 for this one address"),
                Err(_) => "write it like 192.168.1.0/24 or 2001:db8::/64".to_owned(),
            };
            problems.error(path, format!("{text:?} is no CIDR, so the block matches nobody; {hint}"));
        }
        Some(prefix) => {
            let as_written = match prefix {
                IpNet::V4(_) => prefix.to_string() == text,
                IpNet::V6(_) => text.split('/').next().and_then(|address| address.parse().ok()) == Some(prefix.addr()),
            };
            if !as_written {
                problems.warning(path, format!("{text:?} is read as {prefix}; write it like that"));
            }
        }
    }
    parsed
}
