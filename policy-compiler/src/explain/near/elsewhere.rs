//! Rules that would allow a connection and don't count: of a direction that `policyTypes` leaves out, or of a policy in
//! a namespace where it selects nobody. And the same for pods that were meant to be isolated: [`ineffective`].

use std::sync::Arc;

use super::{Draft, Edit, NearMiss, Side, name_of, prove::Attempt, weight};
use crate::{
    cluster::Cluster,
    diagnostic::Kind,
    explain::{Almost, Direction, Mismatch, MismatchKind, Other, PartyKind, Quick, Source},
    model::{Event, NamespaceMatch, ObjectName, Peer, Pod, Policy, Rule},
};

impl Side<'_> {
    /// Policies whose rules would allow the connection if they counted.
    pub(super) fn elsewhere(&self) -> Vec<Draft> {
        let Some(pod) = self.quick.pod(&name_of(self.pod)) else { return Vec::new() };
        let mut found = Vec::new();
        for policy in unlisted(self.cluster, self.direction).filter(|policy| self.quick.has(&policy.subject, pod)) {
            if let Some(index) = self.allowing(policy, pod) {
                let (word, field) = words(self.direction);
                found.push(self.ineffective(
                    policy,
                    ("spec.policyTypes", format!("{field}[{index}] would allow it")),
                    direction_missing(self.direction),
                    Edit::Policy {
                        path: "spec.policyTypes".to_owned(),
                        action: "add to the list",
                        value: format!("- {word}"),
                    },
                    policy.clone(),
                ));
            }
        }
        for policy in strangers(self.cluster, self.quick, pod, self.direction) {
            let here = moved(policy, &pod.name.namespace);
            let is_there = self.cluster.policies.contains_key(&here.name);
            if let Some(index) = self.allowing(&here, pod).filter(|_| !is_there) {
                let (_, field) = words(self.direction);
                found.push(self.ineffective(
                    policy,
                    ("metadata.namespace", format!("{field}[{index}] would allow it")),
                    other_namespace(policy, pod),
                    Edit::Policy {
                        path: "metadata.namespace".to_owned(),
                        action: "apply it there",
                        value: format!("namespace: {}", pod.name.namespace),
                    },
                    here,
                ));
            }
        }
        found
    }

    /// The first rule that would allow the connection.
    fn allowing(&self, policy: &Policy, pod: &Pod) -> Option<usize> {
        let rules = if self.ingress() { policy.ingress.as_deref() } else { policy.egress.as_deref() }?;
        let other = (self.other.kind == PartyKind::Pod).then(|| self.quick.pod(&name_of(self.other))).flatten();
        let other = Other { pod: other, address: self.other.ip };
        rules.iter().position(|rule| self.quick.allows(rule, pod, self.ingress(), other, self.port))
    }

    fn ineffective(
        &self,
        policy: &Policy,
        (path, summary): (&str, String),
        failed: Mismatch,
        edit: Edit,
        after: Policy,
    ) -> Draft {
        let near = NearMiss {
            direction: self.direction,
            policy: policy.name.to_string(),
            path: path.to_owned(),
            source: source(self.cluster, policy, path),
            failures: 1,
            weight: weight(&failed),
            failed: vec![failed],
            summary,
            fixes: Vec::new(),
        };
        Draft { near, attempts: vec![Attempt { edit, events: vec![Event::PutPolicy(after)] }] }
    }
}

/// Policies that were probably meant to isolate a pod which nothing isolates in this direction: `policyTypes` leaves the
/// direction out, or they are of another namespace, where they select nobody.
#[must_use]
pub fn ineffective(cluster: &Cluster, pod: &Pod, direction: Direction) -> Vec<Almost> {
    let quick = Quick::new(cluster);
    let almost = |policy: &Policy, path: &str, failed: Mismatch| Almost {
        direction,
        policy: policy.name.to_string(),
        source: source(cluster, policy, path),
        summary: crate::explain::labels::summary(&policy.subject.pods),
        failed,
    };
    let unlisted = unlisted(cluster, direction).filter(|policy| quick.has(&policy.subject, pod));
    let mut found: Vec<_> =
        unlisted.map(|policy| almost(policy, "spec.policyTypes", direction_missing(direction))).collect();
    let strangers = strangers(cluster, &quick, pod, direction);
    found.extend(strangers.map(|policy| almost(policy, "metadata.namespace", other_namespace(policy, pod))));
    found
}

/// Policies as they would be if `policyTypes` named both directions, where they have rules for this one and don't.
fn unlisted(cluster: &Cluster, direction: Direction) -> impl Iterator<Item = &Policy> {
    let origins = cluster
        .origins
        .iter()
        .filter(|((kind, name), _)| *kind == Kind::NetworkPolicy && cluster.policies.contains_key(name));
    origins.filter_map(|(_, origin)| origin.unlisted.as_deref()).filter(move |policy| {
        let counts = cluster.policies.get(&policy.name);
        match direction {
            Direction::Ingress => counts.is_some_and(|counts| counts.ingress.is_none()),
            Direction::Egress => counts.is_some_and(|counts| counts.egress.is_none()),
        }
    })
}

/// Policies of other namespaces whose `podSelector` is this pod's, and nobody's where they are.
fn strangers<'a>(
    cluster: &'a Cluster,
    quick: &'a Quick<'a>,
    pod: &'a Pod,
    direction: Direction,
) -> impl Iterator<Item = &'a Policy> {
    cluster.policies.values().filter(move |policy| {
        let has_rules =
            if direction == Direction::Ingress { policy.ingress.is_some() } else { policy.egress.is_some() };
        has_rules
            && policy.name.namespace != pod.name.namespace
            && !policy.subject.pods.requirements.is_empty()
            && policy.subject.pods.matches(&pod.labels)
            && !quick.pods_in(&policy.name.namespace).any(|other| quick.has(&policy.subject, other))
    })
}

/// The policy as it would be in another namespace.
fn moved(policy: &Policy, namespace: &Arc<str>) -> Policy {
    let here = NamespaceMatch::Name(namespace.clone());
    let mut policy = policy.clone();
    policy.name = ObjectName::new(namespace.clone(), policy.name.name.clone());
    policy.subject.namespaces = here.clone();
    let rules = policy.ingress.iter_mut().chain(&mut policy.egress).flatten();
    for peer in rules.flat_map(|rule: &mut Rule| rule.peers.iter_mut().flatten()) {
        if let Peer::Pods(pods) = peer
            && let NamespaceMatch::Name(_) = pods.namespaces
        {
            pods.namespaces = here.clone();
        }
    }
    policy
}

const fn words(direction: Direction) -> (&'static str, &'static str) {
    match direction {
        Direction::Ingress => ("Ingress", "ingress"),
        Direction::Egress => ("Egress", "egress"),
    }
}

fn direction_missing(direction: Direction) -> Mismatch {
    Mismatch {
        kind: MismatchKind::Direction,
        field: "policyTypes".to_owned(),
        want: words(direction).0.to_owned(),
        have: None,
        distance: None,
        of: None,
    }
}

fn other_namespace(policy: &Policy, pod: &Pod) -> Mismatch {
    Mismatch {
        kind: MismatchKind::OtherNamespace,
        field: "namespace".to_owned(),
        want: pod.name.namespace.to_string(),
        have: Some(policy.name.namespace.to_string()),
        distance: None,
        of: None,
    }
}

fn source(cluster: &Cluster, policy: &Policy, field: &str) -> Option<Source> {
    let place = cluster.origin(Kind::NetworkPolicy, &policy.name)?.place_of(field);
    Some(Source { file: place.file, line: place.line })
}
