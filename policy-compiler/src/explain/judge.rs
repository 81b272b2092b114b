//! One side of a connection: the policies that isolate a pod, and what each of their rules says.

use std::sync::Arc;

use super::{Judgement, Party, PartyKind, PolicyPart, Reason, RulePart, Source, Verdict, peers, ports};
use crate::{
    cluster::{Cluster, Origin},
    diagnostic::Kind,
    model::{NamespaceMatch, Pod, PodMatch, Policy, Protocol, Rule},
};

/// What is asked of the cluster.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) source: &'a Party,
    /// The dialled port; `None` for protocols without ports.
    pub(super) port: Option<(u16, Protocol)>,
    /// The source is known by its address alone.
    pub(super) by_address: bool,
}

/// Where a connection arrives: the dialled end, or a back end of it.
#[derive(Clone, Copy)]
pub(super) struct Remote<'a> {
    pub(super) party: &'a Party,
    pub(super) port: Option<u16>,
}

/// What one rule is held against.
#[derive(Clone, Copy)]
pub(super) struct Packet<'a> {
    pub(super) cluster: &'a Cluster,
    /// Whose policies these are.
    pub(super) pod: &'a Pod,
    pub(super) remote: &'a Party,
    /// Protocol and destination port.
    pub(super) port: Option<(Protocol, u16)>,
    pub(super) ingress: bool,
}

impl Ask<'_> {
    /// What the source's own policies say.
    pub(super) fn egress(&self, to: Remote<'_>) -> Judgement {
        let Some(pod) = self.source.own_pod(self.cluster) else { return Judgement::open(Reason::NoPod) };
        if self.source.ip == to.party.ip {
            return Judgement::open(Reason::Itself);
        }
        self.judge(pod, to.party, to.port, false)
    }

    /// What the destination's own policies say.
    pub(super) fn ingress(&self, at: Remote<'_>) -> Judgement {
        let Some(pod) = at.party.own_pod(self.cluster) else { return Judgement::open(Reason::NoPod) };
        if self.source.ip == at.party.ip {
            return Judgement::open(Reason::Itself);
        }
        let is_node = matches!(self.source.kind, PartyKind::Node | PartyKind::HostNetworkPod) && !self.by_address;
        if is_node && pod.node.is_some() && pod.node == self.source.node {
            return Judgement {
                isolated: self.isolating(pod, true).next().is_some(),
                ..Judgement::open(Reason::OwnNode)
            };
        }
        self.judge(pod, self.source, at.port, true)
    }

    /// The policies that isolate `pod`.
    pub(super) fn isolating(&self, pod: &Pod, ingress: bool) -> impl Iterator<Item = (&Policy, &[Rule])> {
        let rules = move |policy: &'_ Policy| if ingress { policy.ingress.is_some() } else { policy.egress.is_some() };
        self.cluster.policies.values().filter(move |policy| rules(policy) && is_subject(self.cluster, policy, pod)).map(
            move |policy| {
                let rules = if ingress { &policy.ingress } else { &policy.egress };
                (policy, rules.as_deref().unwrap_or_default())
            },
        )
    }

    pub(super) fn judge(&self, pod: &Pod, remote: &Party, port: Option<u16>, ingress: bool) -> Judgement {
        let port = self.port.zip(port).map(|((_, protocol), port)| (protocol, port));
        let packet = Packet { cluster: self.cluster, pod, remote, port, ingress };
        let policies: Vec<_> =
            self.isolating(pod, ingress).map(|(policy, rules)| packet.policy(policy, rules)).collect();
        let reason = if policies.is_empty() {
            Reason::NotIsolated
        } else if policies.iter().any(|policy| policy.matched) {
            Reason::Rule
        } else {
            Reason::NoRule
        };
        let verdict = if reason == Reason::NoRule { Verdict::Denied } else { Verdict::Allowed };
        Judgement { verdict, reason, isolated: !policies.is_empty(), policies }
    }
}

impl Judgement {
    /// It passes, without any policy having been asked.
    pub(super) const fn open(reason: Reason) -> Self {
        Self { verdict: Verdict::Allowed, reason, isolated: false, policies: Vec::new() }
    }
}

/// Whether a policy is about a pod.
fn is_subject(cluster: &Cluster, policy: &Policy, pod: &Pod) -> bool {
    let PodMatch { namespaces, pods } = &policy.subject;
    let in_namespace = match namespaces {
        NamespaceMatch::Name(name) => *name == pod.name.namespace,
        NamespaceMatch::Labels(selector) => {
            cluster.namespaces.get(&pod.name.namespace).is_some_and(|namespace| selector.matches(&namespace.labels))
        }
    };
    in_namespace && pods.matches(&pod.labels)
}

/// Where the pieces of a policy are in its file.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a>(Option<&'a Origin>);

impl Lines<'_> {
    pub(super) fn of(self, field: &str) -> Option<usize> {
        self.0.map(|origin| origin.place_of(field).line)
    }

    /// Whether the file has this very field.
    pub(super) fn has(self, field: &str) -> Option<bool> {
        self.0.map(|origin| origin.fields.contains_key(field))
    }
}

impl Packet<'_> {
    fn policy(&self, policy: &Policy, rules: &[Rule]) -> PolicyPart {
        let origin = self.cluster.origin(Kind::NetworkPolicy, &policy.name);
        let direction = if self.ingress { "ingress" } else { "egress" };
        let rules: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| self.rule(rule, format!("spec.{direction}[{index}]"), Lines(origin)))
            .collect();
        let source = origin.map(|origin| Source { file: Arc::clone(&origin.place.file), line: origin.place.line });
        PolicyPart {
            namespace: policy.name.namespace.clone(),
            name: policy.name.name.clone(),
            source,
            matched: rules.iter().any(|rule| rule.matched),
            rules,
        }
    }

    fn rule(&self, rule: &Rule, path: String, lines: Lines<'_>) -> RulePart {
        let peers = peers::part(self, rule.peers.as_deref(), &path, lines);
        let ports = ports::part(self, rule.ports.as_deref(), &path, lines);
        RulePart { line: lines.of(&path), matched: peers.matched && ports.matched, path, peers, ports }
    }
}
