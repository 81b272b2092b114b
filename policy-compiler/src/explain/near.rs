//! Near misses: the rules that almost allow a refused connection, and for each the smallest edit that makes it pass.
//! Entry point: [`near_misses`]. Every edit is tried on the whole cluster before it is told ([`Fix::effect`]); one that
//! doesn't open the side is left out, and what else it opens or closes is said.

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::{
    Direction, Element, Explanation, Judgement, Mismatch, MismatchKind, Party, PartyKind, PolicyPart, Reason, RulePart,
    Source, Verdict,
    effect::{Effect, Trial},
    quick::Quick,
};
use crate::{
    cluster::Cluster,
    convert::METADATA_NAME,
    model::{
        Action, Labels, NamespaceMatch, ObjectName, Peer, PodMatch, Policy, PortMatch, Protocol, Requirement, Rule,
        Selector, Tier,
    },
};

/// A rule that almost allows a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NearMiss {
    /// On which side.
    pub direction: Direction,
    /// The policy.
    pub policy: String,
    /// The element, or the rule: `spec.ingress[0].from[1]`.
    pub path: String,
    /// Where it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How many conditions fail.
    pub failures: usize,
    /// Which.
    pub failed: Vec<Mismatch>,
    /// The smaller, the likelier it was meant.
    pub weight: usize,
    /// What the failing element asks for, in short.
    pub summary: String,
    /// What would make this side allow the connection; each has been tried.
    pub fixes: Vec<Fix>,
}

/// An edit that makes one side allow the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fix {
    /// What is edited.
    pub edit: Edit,
    /// What it changes beside the connection that was asked about.
    pub effect: Effect,
}

/// What a [`Fix`] edits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Edit {
    /// The labels of a pod and of all others of its workload.
    PodLabel {
        /// The pod.
        pod: String,
        /// The label's key.
        key: Arc<str>,
        /// What it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Arc<str>>,
        /// What it should be.
        to: Arc<str>,
    },
    /// The labels of a namespace.
    NamespaceLabel {
        /// The namespace.
        namespace: Arc<str>,
        /// The label's key.
        key: Arc<str>,
        /// What it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Arc<str>>,
        /// What it should be.
        to: Arc<str>,
    },
    /// A field of the policy.
    Policy {
        /// Its path.
        path: String,
        /// What to do, such as `add to the list`.
        action: &'static str,
        /// The YAML that belongs there.
        value: String,
    },
    /// A policy of its own.
    NewPolicy {
        /// The manifest.
        manifest: String,
    },
}

/// The near misses of the sides that refuse a connection, best first; at last, where nothing is near, a policy of its
/// own. `siblings` are the pods that a relabelled pod shares its labels' place with, itself included.
#[must_use]
pub fn near_misses(
    cluster: &Cluster,
    explanation: &Explanation,
    siblings: &dyn Fn(&ObjectName) -> Vec<ObjectName>,
) -> Vec<NearMiss> {
    let quick = Quick::new(cluster);
    let mut found = Vec::new();
    let connection = &explanation.connection;
    let port = connection.protocol.zip(connection.port);
    for direction in &explanation.decided_by {
        let (judgement, pod, other) = match direction {
            Direction::Egress => (&explanation.egress, &connection.source, &connection.destination),
            Direction::Ingress => (&explanation.ingress, &connection.destination, &connection.source),
        };
        if judgement.reason == Reason::NoRule {
            let side = Side { cluster, quick: &quick, direction: *direction, pod, other, port, siblings };
            found.extend(side.near(judgement));
        }
    }
    found
}

struct Side<'a> {
    cluster: &'a Cluster,
    quick: &'a Quick<'a>,
    direction: Direction,
    /// Whose rules these are.
    pod: &'a Party,
    other: &'a Party,
    port: Option<(Protocol, u16)>,
    siblings: &'a dyn Fn(&ObjectName) -> Vec<ObjectName>,
}

/// A rule with the elements that come closest.
struct Candidate<'a> {
    policy: &'a PolicyPart,
    rule: &'a RulePart,
    peer: Option<&'a Element>,
    port: Option<&'a Element>,
}

impl<'a> Candidate<'a> {
    fn failed(&self) -> impl Iterator<Item = &'a Mismatch> {
        self.peer.into_iter().chain(self.port).flat_map(|element| &element.failed)
    }

    fn rank(&self) -> (usize, usize) {
        (self.failed().count(), self.failed().map(weight).sum())
    }
}

/// The smaller, the likelier it was meant.
fn weight(mismatch: &Mismatch) -> usize {
    match (mismatch.kind, mismatch.distance) {
        (MismatchKind::LabelValue, Some(distance @ 1..=2)) => distance,
        (MismatchKind::OwnNamespace, _) => 4,
        (MismatchKind::Protocol, _) => 5,
        (MismatchKind::NamedPortMissing | MismatchKind::NamedPortOfNobody, _) => 6,
        (MismatchKind::LabelMissing, _) => 7,
        (MismatchKind::Except | MismatchKind::OtherFamily | MismatchKind::Port, _) => 8,
        (MismatchKind::LabelPresent, _) => 9,
        (MismatchKind::LabelValue, _) => 10,
        (MismatchKind::Portless | MismatchKind::Unusable, _) => 15,
        (MismatchKind::OutsideBlock | MismatchKind::NotAPod, _) => 20,
    }
}

impl<'a> Side<'a> {
    fn near(&self, judgement: &'a Judgement) -> Vec<NearMiss> {
        let mut candidates = Vec::new();
        for policy in &judgement.policies {
            for rule in &policy.rules {
                let best = |list: &'a super::ListPart| {
                    list.tried.iter().min_by_key(|e| (e.failed.len(), e.failed.iter().map(weight).sum::<usize>()))
                };
                let peer = if rule.peers.matched { None } else { best(&rule.peers) };
                let port = if rule.ports.matched { None } else { best(&rule.ports) };
                if (rule.peers.matched || peer.is_some()) && (rule.ports.matched || port.is_some()) {
                    candidates.push(Candidate { policy, rule, peer, port });
                }
            }
        }
        candidates.sort_by_key(Candidate::rank);
        let mut found: Vec<_> = candidates.iter().map(|candidate| self.near_miss(candidate)).collect();
        found.retain(|near| near.failures == 1 || !near.fixes.is_empty());
        found.iter_mut().for_each(|near| near.fixes.sort_by_key(|fix| fix.effect.opens + fix.effect.closes > 0));
        // an edit of a rule changes it for others too; a policy of its own may change less
        let changes = |fix: &Fix| fix.effect.opens + fix.effect.closes;
        let least = found.iter().flat_map(|near| &near.fixes).map(changes).min();
        let own =
            self.own_policy().filter(|own| least.is_none_or(|least| own.fixes.iter().all(|fix| changes(fix) < least)));
        found.extend(own);
        found
    }

    fn near_miss(&self, candidate: &Candidate<'_>) -> NearMiss {
        let Candidate { policy, rule, .. } = candidate;
        let element = candidate.peer.or(candidate.port);
        let line = element.and_then(|element| element.line).or(rule.line);
        NearMiss {
            direction: self.direction,
            policy: format!("{}/{}", policy.namespace, policy.name),
            path: element.map_or_else(|| rule.path.clone(), |element| format!("{}.{}", rule.path, element.path)),
            source: policy.source.as_ref().zip(line).map(|(source, line)| Source { file: source.file.clone(), line }),
            failures: candidate.failed().count(),
            failed: candidate.failed().cloned().collect(),
            weight: candidate.rank().1,
            summary: element.map(|element| element.summary.clone()).unwrap_or_default(),
            fixes: self.fixes(candidate),
        }
    }

    fn fixes(&self, candidate: &Candidate<'_>) -> Vec<Fix> {
        let name = ObjectName { namespace: candidate.policy.namespace.clone(), name: candidate.policy.name.clone() };
        let Some(policy) = self.cluster.policies.get(&name) else { return Vec::new() };
        let Some((rules, index)) = self.rule_of(policy, candidate.rule) else { return Vec::new() };
        let rule = &rules[index];
        let mut fixes = Vec::new();
        if let (Some(element), None) = (candidate.peer, candidate.port)
            && let Some(peer) = rule.peers.as_ref().zip(index_of(&element.path)).and_then(|(peers, at)| peers.get(at))
        {
            self.relabel(element, peer, &mut fixes);
        }
        let mut edited = rule.clone();
        let mut edits = Vec::new();
        if let Some(element) = candidate.peer {
            self.widen_peers(element, &mut edited, &mut edits, &candidate.rule.path);
        }
        if let Some(element) = candidate.port {
            self.widen_ports(element, &mut edited, &mut edits, &candidate.rule.path);
        }
        let wanted = usize::from(candidate.peer.is_some()) + usize::from(candidate.port.is_some());
        if edits.len() == wanted && wanted == 1 {
            let mut new = policy.clone();
            let list = if self.ingress() { &mut new.ingress } else { &mut new.egress };
            if let Some(slot) = list.as_mut().and_then(|rules| rules.get_mut(index)) {
                *slot = edited;
            }
            let mut after = self.quick.clone();
            after.put_policy(&policy.name.namespace, new);
            fixes.extend(edits.into_iter().filter_map(|edit| self.tried(edit, &after, Some(policy), &[])));
        }
        fixes
    }

    fn ingress(&self) -> bool {
        self.direction == Direction::Ingress
    }

    fn rule_of<'b>(&self, policy: &'b Policy, part: &RulePart) -> Option<(&'b [Rule], usize)> {
        let rules = if self.ingress() { policy.ingress.as_deref() } else { policy.egress.as_deref() }?;
        let index = index_of(&part.path)?;
        (index < rules.len()).then_some((rules, index))
    }

    /// Labels that would make the peer match, if one is all that is missing.
    fn relabel(&self, element: &Element, peer: &Peer, fixes: &mut Vec<Fix>) {
        let (Peer::Pods(pods), [failed]) = (peer, &*element.failed) else { return };
        if self.other.kind != PartyKind::Pod {
            return;
        }
        let name = ObjectName { namespace: self.other.namespace.clone(), name: self.other.name.clone() };
        let wanted = |selector: &Selector, labels: &Labels| {
            selector.requirements.iter().find(|requirement| !requirement.matches(labels)).and_then(|r| match r {
                Requirement::In(key, values) => {
                    let near = |value: &&Arc<str>| {
                        labels.get(key).map(|have| crate::files::distance(have, value)).unwrap_or_default()
                    };
                    values.iter().min_by_key(near).map(|value| (key.clone(), value.clone()))
                }
                _ => None,
            })
        };
        if failed.field.starts_with("podSelector") {
            let Some((key, to)) = wanted(&pods.pods, &self.other.labels) else { return };
            let pods = (self.siblings)(&name);
            let mut after = self.quick.clone();
            pods.iter().for_each(|pod| after.label_pod(pod, &key, &to));
            let from = self.other.labels.get(&key).cloned();
            let edit = Edit::PodLabel { pod: name.to_string(), key, from, to };
            fixes.extend(self.tried(edit, &after, None, &pods));
        } else if let NamespaceMatch::Labels(selector) = &pods.namespaces
            && let Some(namespace) = self.cluster.namespaces.get(&name.namespace)
            && let Some((key, to)) = wanted(selector, &namespace.labels)
            && *key != *METADATA_NAME
        {
            let mut after = self.quick.clone();
            after.label_namespace(&name.namespace, &key, &to);
            let inside: Vec<_> =
                self.cluster.pods.keys().filter(|pod| pod.namespace == name.namespace).cloned().collect();
            let from = namespace.labels.get(&key).cloned();
            let edit = Edit::NamespaceLabel { namespace: name.namespace.clone(), key, from, to };
            fixes.extend(self.tried(edit, &after, None, &inside));
        }
    }

    fn widen_peers(&self, element: &Element, rule: &mut Rule, edits: &mut Vec<Edit>, path: &str) {
        let Some(peers) = rule.peers.as_mut() else { return };
        let Some(at) = index_of(&element.path).filter(|at| *at < peers.len()) else { return };
        let path_of = |field: &str| format!("{path}.{}{field}", element.path);
        match (&mut peers[at], &*element.failed) {
            (Peer::Pods(pods), [failed]) if failed.kind == MismatchKind::OwnNamespace => {
                let namespace = &self.other.namespace;
                let requirement = Requirement::In(METADATA_NAME.into(), vec![namespace.clone()]);
                pods.namespaces = NamespaceMatch::Labels(Selector { requirements: vec![requirement] });
                edits.push(Edit::Policy {
                    path: path_of(""),
                    action: "add to the same list element (no new dash)",
                    value: format!("namespaceSelector: {{matchLabels: {{{METADATA_NAME}: {namespace}}}}}"),
                });
            }
            (Peer::Pods(pods), [failed])
                if failed.kind == MismatchKind::LabelValue && failed.field.starts_with("podSelector") =>
            {
                let labels = &self.other.labels;
                let failing = pods.pods.requirements.iter_mut().find(|requirement| !requirement.matches(labels));
                let Some(Requirement::In(key, values)) = failing else { return };
                let Some(have) = labels.get(key) else { return };
                values.push(have.clone());
                values.sort();
                let list = values.iter().map(|value| &**value).collect::<Vec<_>>().join(", ");
                edits.push(Edit::Policy {
                    path: path_of(".podSelector"),
                    action: "widen the selector",
                    value: format!("matchExpressions: [{{key: {key}, operator: In, values: [{list}]}}]"),
                });
            }
            _ => {
                let (peer, value) = self.exactly();
                peers.push(peer);
                let list = if self.ingress() { "from" } else { "to" };
                edits.push(Edit::Policy { path: format!("{path}.{list}"), action: "add to the list", value });
            }
        }
    }

    /// A peer that matches pods like the other end, or its address.
    fn exactly(&self) -> (Peer, String) {
        if self.other.kind != PartyKind::Pod {
            let cidr = IpNet::from(self.other.ip);
            return (Peer::Block { cidr, except: Vec::new() }, format!("- ipBlock: {{cidr: {cidr}}}"));
        }
        let labels = telling(&self.other.labels);
        let namespace = &self.other.namespace;
        let own = *namespace == self.pod.namespace;
        let namespaces = if own {
            NamespaceMatch::Name(namespace.clone())
        } else {
            let requirement = Requirement::In(METADATA_NAME.into(), vec![namespace.clone()]);
            NamespaceMatch::Labels(Selector { requirements: vec![requirement] })
        };
        let selector = format!("podSelector: {}", match_labels(&labels));
        let value = if own {
            format!("- {selector}")
        } else {
            format!("- namespaceSelector: {{matchLabels: {{{METADATA_NAME}: {namespace}}}}}\n  {selector}")
        };
        (Peer::Pods(PodMatch { namespaces, pods: selector_of(&labels) }), value)
    }

    fn widen_ports(&self, element: &Element, rule: &mut Rule, edits: &mut Vec<Edit>, path: &str) {
        let (Some(ports), Some((protocol, number))) = (rule.ports.as_mut(), self.port) else { return };
        if let Some(at) = index_of(&element.path)
            && let Some(PortMatch::Range { protocol: own, first, last }) = ports.get_mut(at)
            && *own == protocol
            && *first < *last
            && last.checked_add(1) == Some(number)
        {
            *last = number;
            let path = format!("{path}.{}", element.path);
            edits.push(Edit::Policy { path, action: "extend the range", value: format!("endPort: {number}") });
            return;
        }
        ports.push(PortMatch::Range { protocol, first: number, last: number });
        edits.push(Edit::Policy {
            path: format!("{path}.ports"),
            action: "add to the list",
            value: format!("- {}", port_value(protocol, number)),
        });
    }

    /// The policy that allows this connection, for pods such as these.
    fn own_policy(&self) -> Option<NearMiss> {
        let labels = telling(&self.pod.labels);
        let namespace = &self.pod.namespace;
        let (peer, peer_text) = self.exactly();
        let (direction, list, kind) =
            if self.ingress() { ("ingress", "from", "Ingress") } else { ("egress", "to", "Egress") };
        let ports =
            self.port.map(|(protocol, number)| vec![PortMatch::Range { protocol, first: number, last: number }]);
        let rule = Rule { action: Action::Allow, peers: Some(vec![peer]), ports };
        let name: Arc<str> = format!("allow-{}-{direction}", self.pod.name.replace('/', "-")).into();
        let policy = Policy {
            name: ObjectName { namespace: namespace.clone(), name: name.clone() },
            tier: Tier::NetworkPolicy,
            priority: 0,
            subject: PodMatch { namespaces: NamespaceMatch::Name(namespace.clone()), pods: selector_of(&labels) },
            ingress: self.ingress().then(|| vec![rule.clone()]),
            egress: (!self.ingress()).then(|| vec![rule.clone()]),
        };
        if self.cluster.policies.contains_key(&policy.name) {
            return None;
        }
        let mut manifest = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: \
             {namespace}}}\nspec:\n  podSelector: {}\n  policyTypes: [{kind}]\n  {direction}:\n  - {list}:\n",
            match_labels(&labels)
        );
        for line in peer_text.lines() {
            manifest.push_str(&format!("    {line}\n"));
        }
        if let Some((protocol, number)) = self.port {
            manifest.push_str(&format!("    ports:\n    - {}\n", port_value(protocol, number)));
        }
        let mut after = self.quick.clone();
        after.put_policy(&self.pod.namespace, policy.clone());
        let path = format!("spec.{direction}");
        let fix = self.tried(Edit::NewPolicy { manifest }, &after, Some(&policy), &[])?;
        Some(NearMiss {
            direction: self.direction,
            policy: policy.name.to_string(),
            path,
            source: None,
            failures: 0,
            failed: Vec::new(),
            weight: 0,
            summary: String::new(),
            fixes: vec![fix],
        })
    }

    /// The fix, if the edited cluster lets the connection through on this side.
    fn tried(&self, edit: Edit, after: &Quick<'_>, policy: Option<&Policy>, pods: &[ObjectName]) -> Option<Fix> {
        let own = ObjectName { namespace: self.pod.namespace.clone(), name: self.pod.name.clone() };
        let other = ObjectName { namespace: self.other.namespace.clone(), name: self.other.name.clone() };
        let trial = Trial {
            before: self.quick,
            after,
            own: &own,
            other: &other,
            other_address: self.other.ip,
            other_is_pod: self.other.kind == PartyKind::Pod,
            ingress: self.ingress(),
            port: self.port,
        };
        (trial.verdict()? == Verdict::Allowed).then(|| Fix { edit, effect: trial.effect(policy, pods) })
    }
}

/// The last index in a path: 1 of `spec.ingress[0].from[1]`.
fn index_of(path: &str) -> Option<usize> {
    path.strip_suffix(']')?.rsplit_once('[')?.1.parse().ok()
}

/// Labels that say what a pod is, without those that its workload makes up anew with every change.
fn telling(labels: &Labels) -> Labels {
    const MADE_UP: [&str; 7] = [
        "pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "controller-uid",
        "batch.kubernetes.io/controller-uid",
    ];
    labels.iter().filter(|(key, _)| !MADE_UP.contains(&&***key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn selector_of(labels: &Labels) -> Selector {
    let requirement = |(key, value): (&Arc<str>, &Arc<str>)| Requirement::In(key.clone(), vec![value.clone()]);
    Selector { requirements: labels.iter().map(requirement).collect() }
}

fn match_labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return "{}".to_owned();
    }
    let quoted = |value: &str| {
        let plain = value.starts_with(|first: char| first.is_ascii_alphabetic());
        let special =
            matches!(&*value.to_ascii_lowercase(), "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n");
        if plain && !special { value.to_owned() } else { format!("\"{value}\"") }
    };
    let all: Vec<_> = labels.iter().map(|(key, value)| format!("{key}: {}", quoted(value))).collect();
    format!("{{matchLabels: {{{}}}}}", all.join(", "))
}

fn port_value(protocol: Protocol, number: u16) -> String {
    if protocol == Protocol::Tcp {
        format!("port: {number}")
    } else {
        format!("{{port: {number}, protocol: {protocol}}}")
    }
}
