//! The edits that might make a rule allow a connection; whether they do is tried by [`super::prove`].

use std::sync::Arc;

use ipnet::IpNet;

use super::{Candidate, Draft, Edit, NearMiss, Side, index_of, name_of, prove::Attempt, write};
use crate::{
    convert::METADATA_NAME,
    explain::{Element, Mismatch, MismatchKind, PartyKind},
    model::{
        Action, Event, Labels, NamespaceMatch, ObjectName, Peer, PodMatch, Policy, PortMatch, Requirement, Rule,
        Selector, Tier,
    },
};

impl Side<'_> {
    /// Edits of one rule, and of the labels that it misses.
    pub(super) fn attempts(&self, candidate: &Candidate<'_>) -> Vec<Attempt> {
        let name = ObjectName { namespace: candidate.policy.namespace.clone(), name: candidate.policy.name.clone() };
        let Some(policy) = self.cluster.policies.get(&name) else { return Vec::new() };
        let rules = if self.ingress() { policy.ingress.as_deref() } else { policy.egress.as_deref() };
        let Some((index, rule)) = index_of(&candidate.rule.path).and_then(|index| Some((index, rules?.get(index)?)))
        else {
            return Vec::new();
        };
        let mut attempts = Vec::new();
        let mut edited: Vec<(Edit, Rule)> = Vec::new();
        match (candidate.peer, candidate.port) {
            (Some(element), None) => {
                let peer = rule.peers.as_ref().zip(index_of(&element.path)).and_then(|(peers, at)| peers.get(at));
                attempts.extend(peer.and_then(|peer| self.relabelled(element, peer)));
                edited.extend(self.split(element, rule, &candidate.rule.path));
                edited.extend(self.with_peers(element, rule, &candidate.rule.path));
            }
            (None, Some(element)) => edited.extend(self.with_ports(element, rule, &candidate.rule.path)),
            _ => {}
        }
        attempts.extend(edited.into_iter().map(|(edit, rule)| {
            let mut new = policy.clone();
            let list = if self.ingress() { &mut new.ingress } else { &mut new.egress };
            if let Some(slot) = list.as_mut().and_then(|rules| rules.get_mut(index)) {
                *slot = rule;
            }
            Attempt { edit, events: vec![Event::PutPolicy(new)] }
        }));
        attempts
    }

    /// Labels that would make the peer match, if one is all that is missing.
    fn relabelled(&self, element: &Element, peer: &Peer) -> Option<Attempt> {
        let (Peer::Pods(pods), [failed]) = (peer, &*element.failed) else { return None };
        if self.other.kind != PartyKind::Pod {
            return None;
        }
        let name = name_of(self.other);
        if failed.field.starts_with("podSelector") {
            let (key, to) = wanted(&pods.pods, &self.other.labels)?;
            let from = self.other.labels.get(&key).cloned();
            let with_label = |pod: &ObjectName| {
                let mut pod = self.cluster.pods.get(pod)?.clone();
                pod.labels.insert(key.clone(), to.clone());
                Some(Event::PutPod(pod))
            };
            let events = (self.siblings)(&name).iter().filter_map(with_label).collect();
            return Some(Attempt {
                edit: Edit::PodLabel { pod: name.to_string(), key: key.clone(), from, to: to.clone() },
                events,
            });
        }
        let NamespaceMatch::Labels(selector) = &pods.namespaces else { return None };
        let mut namespace = self.cluster.namespaces.get(&name.namespace)?.clone();
        let (key, to) = wanted(selector, &namespace.labels)?;
        if *key == *METADATA_NAME {
            return None;
        }
        let from = namespace.labels.insert(key.clone(), to.clone());
        let edit = Edit::NamespaceLabel { namespace: name.namespace, key, from, to };
        Some(Attempt { edit, events: vec![Event::PutNamespace(namespace)] })
    }

    /// `namespaceSelector` and `podSelector` of one element made two: either is enough then.
    fn split(&self, element: &Element, rule: &Rule, path: &str) -> Option<(Edit, Rule)> {
        let at = index_of(&element.path)?;
        let Peer::Pods(PodMatch { namespaces: NamespaceMatch::Labels(namespaces), pods }) =
            rule.peers.as_ref()?.get(at)?
        else {
            return None;
        };
        let fails = |prefix: &str| element.failed.iter().any(|failed| failed.field.starts_with(prefix));
        if pods.requirements.is_empty()
            || namespaces.requirements.is_empty()
            || fails("namespaceSelector") == fails("podSelector")
        {
            return None;
        }
        let own = NamespaceMatch::Name(self.pod.namespace.clone());
        let value =
            format!("- namespaceSelector: {}\n- podSelector: {}", write::selector(namespaces), write::selector(pods));
        let two = [
            Peer::Pods(PodMatch { namespaces: NamespaceMatch::Labels(namespaces.clone()), pods: Selector::default() }),
            Peer::Pods(PodMatch { namespaces: own, pods: pods.clone() }),
        ];
        let mut rule = rule.clone();
        rule.peers.as_mut()?.splice(at..=at, two);
        let action = "make two list elements of one (a dash each): either is enough then";
        Some((Edit::Policy { path: format!("{path}.{}", element.path), action, value }, rule))
    }

    fn with_peers(&self, element: &Element, rule: &Rule, path: &str) -> Option<(Edit, Rule)> {
        let mut rule = rule.clone();
        let peers = rule.peers.as_mut()?;
        let at = index_of(&element.path).filter(|at| *at < peers.len())?;
        let path_of = |field: &str| format!("{path}.{}{field}", element.path);
        let edit = match (&mut peers[at], &*element.failed) {
            (Peer::Pods(pods), [failed]) if failed.kind == MismatchKind::OwnNamespace => {
                let namespace = &self.other.namespace;
                pods.namespaces = named(namespace);
                Edit::Policy {
                    path: path_of(""),
                    action: "add to the same list element (no new dash)",
                    value: format!("namespaceSelector: {{matchLabels: {{{METADATA_NAME}: {namespace}}}}}"),
                }
            }
            (Peer::Pods(pods), failed) if !failed.is_empty() && failed.iter().all(is_on_namespace) => {
                moved_to_namespace(pods, failed);
                let NamespaceMatch::Labels(namespaces) = &pods.namespaces else { return None };
                let mut value = format!("namespaceSelector: {}", write::selector(namespaces));
                if !pods.pods.requirements.is_empty() {
                    value.push_str(&format!("\npodSelector: {}", write::selector(&pods.pods)));
                }
                Edit::Policy { path: path_of(""), action: "ask the namespace for it", value }
            }
            (Peer::Pods(pods), [failed]) if failed.kind == MismatchKind::OnPod => {
                let NamespaceMatch::Labels(namespaces) = &mut pods.namespaces else { return None };
                let labels = &self.cluster.namespaces.get(&self.other.namespace)?.labels;
                let (fails, stays): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut namespaces.requirements).into_iter().partition(|r| !r.matches(labels));
                namespaces.requirements = stays;
                pods.pods.requirements.extend(fails);
                let own = self.other.namespace == self.pod.namespace && namespaces.requirements.is_empty();
                let selector = write::selector(&pods.pods);
                let mut value = format!("podSelector: {selector}");
                if own {
                    pods.namespaces = NamespaceMatch::Name(self.pod.namespace.clone());
                } else {
                    if namespaces.requirements.is_empty() {
                        pods.namespaces = named(&self.other.namespace);
                    }
                    let NamespaceMatch::Labels(namespaces) = &pods.namespaces else { return None };
                    value = format!("namespaceSelector: {}\n{value}", write::selector(namespaces));
                }
                Edit::Policy { path: path_of(""), action: "ask the pod for it", value }
            }
            (Peer::Pods(pods), [failed])
                if failed.kind == MismatchKind::LabelValue && failed.field.starts_with("podSelector") =>
            {
                let labels = &self.other.labels;
                let failing = pods.pods.requirements.iter_mut().find(|requirement| !requirement.matches(labels))?;
                let Requirement::In(key, values) = failing else { return None };
                values.push(labels.get(key)?.clone());
                values.sort();
                let value = write::expressions(&pods.pods);
                Edit::Policy { path: path_of(".podSelector"), action: "widen the selector to", value }
            }
            _ => {
                let (new, value) = self.exactly();
                peers.extend(new);
                let list = if self.ingress() { "from" } else { "to" };
                Edit::Policy { path: format!("{path}.{list}"), action: "add to the list", value }
            }
        };
        Some((edit, rule))
    }

    /// Peers that match pods like the other end, or its addresses.
    fn exactly(&self) -> (Vec<Peer>, String) {
        if self.other.kind != PartyKind::Pod {
            let mut blocks: Vec<IpNet> =
                self.legs.iter().map(|leg| IpNet::from(leg.other(self.direction).ip)).collect();
            blocks.sort();
            blocks.dedup();
            let text: Vec<_> = blocks.iter().map(|cidr| format!("- ipBlock: {{cidr: {}}}", written(*cidr))).collect();
            let peers = blocks.into_iter().map(|cidr| Peer::Block { cidr, except: Vec::new() }).collect();
            return (peers, text.join("\n"));
        }
        let labels = write::telling(&self.other.labels);
        let namespace = &self.other.namespace;
        let own = *namespace == self.pod.namespace;
        let namespaces = if own { NamespaceMatch::Name(namespace.clone()) } else { named(namespace) };
        let selector = format!("podSelector: {}", write::match_labels(&labels));
        let value = if own {
            format!("- {selector}")
        } else {
            format!("- namespaceSelector: {{matchLabels: {{{METADATA_NAME}: {namespace}}}}}\n  {selector}")
        };
        (vec![Peer::Pods(PodMatch { namespaces, pods: write::selector_of(&labels) })], value)
    }

    /// The ports of all refused connections.
    fn ports(&self) -> Vec<(crate::model::Protocol, u16)> {
        let mut ports: Vec<_> = self.legs.iter().filter_map(|leg| leg.port).collect();
        ports.sort();
        ports.dedup();
        ports
    }

    fn with_ports(&self, element: &Element, rule: &Rule, path: &str) -> Option<(Edit, Rule)> {
        let (protocol, number) = self.port?;
        let mut rule = rule.clone();
        let ports = rule.ports.as_mut()?;
        if let Some(at) = index_of(&element.path)
            && let Some(PortMatch::Range { protocol: own, first, last }) = ports.get_mut(at)
            && *own == protocol
            && *first < *last
            && last.checked_add(1) == Some(number)
        {
            *last = number;
            let path = format!("{path}.{}", element.path);
            return Some((
                Edit::Policy { path, action: "extend the range", value: format!("endPort: {number}") },
                rule,
            ));
        }
        let wanted = self.ports();
        ports.extend(wanted.iter().map(|(protocol, number)| PortMatch::Range {
            protocol: *protocol,
            first: *number,
            last: *number,
        }));
        let value: Vec<_> =
            wanted.iter().map(|(protocol, number)| format!("- {}", write::port(*protocol, *number))).collect();
        let edit = Edit::Policy { path: format!("{path}.ports"), action: "add to the list", value: value.join("\n") };
        Some((edit, rule))
    }

    /// The policy that allows this connection, for pods such as these.
    pub(super) fn own_policy(&self) -> Option<Draft> {
        let labels = write::telling(&self.pod.labels);
        let namespace = &self.pod.namespace;
        let (peers, peers_text) = self.exactly();
        let (direction, list, kind) =
            if self.ingress() { ("ingress", "from", "Ingress") } else { ("egress", "to", "Egress") };
        let wanted = self.ports();
        let range =
            |(protocol, number): &(_, u16)| PortMatch::Range { protocol: *protocol, first: *number, last: *number };
        let ports = self.port.map(|_| wanted.iter().map(range).collect());
        let rule = Rule { action: Action::Allow, peers: Some(peers), ports };
        let name: Arc<str> = format!("allow-{}-{direction}", self.pod.name.replace('/', "-")).into();
        let policy = Policy {
            name: ObjectName { namespace: namespace.clone(), name: name.clone() },
            tier: Tier::NetworkPolicy,
            priority: 0,
            subject: PodMatch {
                namespaces: NamespaceMatch::Name(namespace.clone()),
                pods: write::selector_of(&labels),
            },
            ingress: self.ingress().then(|| vec![rule.clone()]),
            egress: (!self.ingress()).then(|| vec![rule.clone()]),
        };
        if self.cluster.policies.contains_key(&policy.name) {
            return None;
        }
        let mut manifest = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: \
             {namespace}}}\nspec:\n  podSelector: {}\n  policyTypes: [{kind}]\n  {direction}:\n  - {list}:\n",
            write::match_labels(&labels)
        );
        peers_text.lines().for_each(|line| manifest.push_str(&format!("    {line}\n")));
        if self.port.is_some() {
            manifest.push_str("    ports:\n");
            wanted.iter().for_each(|(protocol, number)| {
                manifest.push_str(&format!("    - {}\n", write::port(*protocol, *number)));
            });
        }
        let near = NearMiss {
            direction: self.direction,
            policy: policy.name.to_string(),
            path: format!("spec.{direction}"),
            source: None,
            failures: 0,
            failed: Vec::new(),
            weight: 0,
            summary: String::new(),
            fixes: Vec::new(),
        };
        Some(Draft {
            near,
            attempts: vec![Attempt { edit: Edit::NewPolicy { manifest }, events: vec![Event::PutPolicy(policy)] }],
        })
    }
}

/// The label that a requirement which isn't met asks for, with the value that is nearest to what is there.
fn wanted(selector: &Selector, labels: &Labels) -> Option<(Arc<str>, Arc<str>)> {
    let requirement = selector.requirements.iter().find(|requirement| !requirement.matches(labels))?;
    let Requirement::In(key, values) = requirement else { return None };
    let near = |value: &&Arc<str>| labels.get(key).map(|have| crate::files::distance(have, value)).unwrap_or_default();
    values.iter().min_by_key(near).map(|value| (key.clone(), value.clone()))
}

/// The namespace of this name.
fn named(namespace: &Arc<str>) -> NamespaceMatch {
    let requirement = Requirement::In(METADATA_NAME.into(), vec![namespace.clone()]);
    NamespaceMatch::Labels(Selector { requirements: vec![requirement] })
}

/// A condition that a pod doesn't meet and its namespace does; that a `podSelector` alone means the policy's own
/// namespace follows from the same mistake.
fn is_on_namespace(failed: &Mismatch) -> bool {
    matches!(failed.kind, MismatchKind::OnNamespace | MismatchKind::OwnNamespace)
}

/// Moves the requirements that are meant for the namespace there.
fn moved_to_namespace(pods: &mut PodMatch, failed: &[Mismatch]) {
    let is_meant = |requirement: &Requirement| {
        let (Requirement::In(key, _)
        | Requirement::Exists(key)
        | Requirement::NotIn(key, _)
        | Requirement::DoesNotExist(key)) = requirement;
        failed.iter().any(|failed| {
            failed.kind == MismatchKind::OnNamespace
                && failed.have.as_ref().is_some_and(|have| have.split('=').next() == Some(&**key))
        })
    };
    let (meant, stays): (Vec<_>, Vec<_>) = std::mem::take(&mut pods.pods.requirements).into_iter().partition(is_meant);
    pods.pods.requirements = stays;
    match &mut pods.namespaces {
        NamespaceMatch::Labels(selector) => selector.requirements.extend(meant),
        NamespaceMatch::Name(_) => pods.namespaces = NamespaceMatch::Labels(Selector { requirements: meant }),
    }
}

/// An IPv6 block needs quotes where it stands in braces.
fn written(cidr: IpNet) -> String {
    match cidr {
        IpNet::V4(_) => cidr.to_string(),
        IpNet::V6(_) => format!("'{cidr}'"),
    }
}
