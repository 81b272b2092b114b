//! The peers of a rule against the other end of a connection.

use ipnet::IpNet;

use super::{
    Element, Family, ListPart, Mismatch, MismatchKind, PartyKind,
    judge::{Lines, Packet},
    labels::{self, Holder},
};
use crate::model::{Labels, NamespaceMatch, Peer, PodMatch};

/// What `from` or `to` says; `rule` is the rule's path.
pub(super) fn part(packet: &Packet<'_>, peers: Option<&[Peer]>, rule: &str, lines: Lines<'_>) -> ListPart {
    let Some(peers) = peers else { return ListPart { matched: true, by: None, tried: Vec::new() } };
    let list = if packet.ingress { "from" } else { "to" };
    let tried = peers.iter().enumerate().map(|(index, peer)| {
        let path = format!("{list}[{index}]");
        let full = format!("{rule}.{path}");
        let (summary, failed) = match peer {
            Peer::Nobody => ("nothing that can be used".to_owned(), vec![unusable(&path)]),
            Peer::Block { cidr, except } => (block_summary(*cidr, except), block(packet, *cidr, except)),
            Peer::Pods(pods) => (pods_summary(pods), self::pods(packet, pods, &full, lines)),
        };
        Element { path, line: lines.of(&full), summary, failed }
    });
    ListPart::of(tried.collect())
}

impl ListPart {
    /// Of a list with these elements.
    pub(super) fn of(tried: Vec<Element>) -> Self {
        let by = tried.iter().find(|element| element.matched()).map(|element| element.path.clone());
        Self { matched: by.is_some(), by, tried }
    }
}

/// Of an element that was reported.
pub(super) fn unusable(path: &str) -> Mismatch {
    Mismatch {
        kind: MismatchKind::Unusable,
        field: String::new(),
        want: format!("a valid {}", if path.starts_with("ports") { "port" } else { "peer" }),
        have: None,
        distance: None,
        of: None,
    }
}

fn block_summary(cidr: IpNet, except: &[IpNet]) -> String {
    if except.is_empty() {
        return format!("ipBlock {cidr}");
    }
    let except: Vec<_> = except.iter().map(ToString::to_string).collect();
    format!("ipBlock {cidr} except {}", except.join(", "))
}

fn block(packet: &Packet<'_>, cidr: IpNet, except: &[IpNet]) -> Vec<Mismatch> {
    let address = packet.remote.ip;
    let mismatch = |kind, field: &str, want| {
        vec![Mismatch {
            kind,
            field: field.to_owned(),
            want,
            have: Some(address.to_string()),
            distance: None,
            of: None,
        }]
    };
    if Family::of(cidr.addr()) != Family::of(address) {
        return mismatch(MismatchKind::OtherFamily, "ipBlock.cidr", cidr.to_string());
    }
    if !cidr.contains(&address) {
        return mismatch(MismatchKind::OutsideBlock, "ipBlock.cidr", cidr.to_string());
    }
    match except.iter().find(|except| except.contains(&address)) {
        Some(except) => mismatch(MismatchKind::Except, "ipBlock.except", format!("not in {except}")),
        None => Vec::new(),
    }
}

/// As the YAML says it: a `podSelector` alone names no namespace.
fn pods_summary(pods: &PodMatch) -> String {
    let labels = labels::summary(&pods.pods);
    match &pods.namespaces {
        NamespaceMatch::Name(_) => format!("podSelector {labels}"),
        NamespaceMatch::Labels(selector) if pods.pods.requirements.is_empty() => {
            format!("namespaceSelector {}", labels::summary(selector))
        }
        NamespaceMatch::Labels(selector) => {
            format!("namespaceSelector {} + podSelector {labels}", labels::summary(selector))
        }
    }
}

/// A peer of a policy of `namespace` as one would say it.
#[must_use]
pub fn peer_summary(peer: &Peer, namespace: &str) -> String {
    match peer {
        Peer::Nobody => "nobody (the peer can't be used)".to_owned(),
        Peer::Block { cidr, except } => block_summary(*cidr, except),
        Peer::Pods(pods) => match &pods.namespaces {
            NamespaceMatch::Name(_) => format!("{} in {namespace}", pods_summary(pods)),
            NamespaceMatch::Labels(_) => pods_summary(pods),
        },
    }
}

/// `peer` is the peer's whole path.
fn pods(packet: &Packet<'_>, pods: &PodMatch, peer: &str, lines: Lines<'_>) -> Vec<Mismatch> {
    let remote = packet.remote;
    let Some(pod) = remote.own_pod(packet.cluster) else {
        let have = match remote.kind {
            PartyKind::HostNetworkPod => format!("{}/{}, which is its node here", remote.namespace, remote.name),
            PartyKind::Node => format!("node {}", remote.name),
            PartyKind::Service => format!("Service {}/{}", remote.namespace, remote.name),
            PartyKind::Pod | PartyKind::Outside => format!("{}, which is no pod's", remote.ip),
        };
        let (kind, want) = (MismatchKind::NotAPod, "a pod".to_owned());
        return vec![Mismatch { kind, field: String::new(), want, have: Some(have), distance: None, of: None }];
    };
    let under = |selector: &str| {
        let prefix = format!("{peer}.{selector}.matchLabels");
        move |key: &str| lines.has(&format!("{prefix}[{key}]")).unwrap_or(true)
    };
    let mut failed = Vec::new();
    let namespace = packet.cluster.namespaces.get(&pod.name.namespace).map(|namespace| &namespace.labels);
    let none = Labels::new();
    let namespace = namespace.unwrap_or(&none);
    match &pods.namespaces {
        NamespaceMatch::Name(name) if *name == pod.name.namespace => {}
        NamespaceMatch::Name(name) => failed.push(Mismatch {
            kind: MismatchKind::OwnNamespace,
            field: "namespaceSelector".to_owned(),
            want: format!("namespace {name}"),
            have: Some(format!("namespace {}", pod.name.namespace)),
            distance: None,
            of: None,
        }),
        NamespaceMatch::Labels(selector) => {
            let called = format!("namespace {}", pod.name.namespace);
            let elsewhere = Some((&pod.labels, MismatchKind::OnPod));
            let holder = Holder { labels: namespace, called: Some(&called), elsewhere };
            failed.extend(labels::failed(selector, holder, "namespaceSelector", under("namespaceSelector")));
        }
    }
    let elsewhere = Some((namespace, MismatchKind::OnNamespace));
    let holder = Holder { labels: &pod.labels, called: None, elsewhere };
    failed.extend(labels::failed(&pods.pods, holder, "podSelector", under("podSelector")));
    failed
}
