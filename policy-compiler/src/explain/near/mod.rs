//! Near misses: the rules that almost allow a refused connection, and for each the smallest edit that makes it pass.
//! Entry point: [`near_misses`]. Every edit is tried on the whole cluster before it is told: one that doesn't make the
//! connection pass, both sides and every back end of a Service included, is left out, and what else it opens or closes
//! is said ([`Fix::effect`]).

mod edits;
mod elsewhere;
mod prove;
mod write;

use std::sync::Arc;

use serde::Serialize;

pub use self::elsewhere::ineffective;
use self::prove::{Attempt, Legs};
use super::{
    Direction, Element, Explanation, Judgement, Mismatch, MismatchKind, Party, PolicyPart, RulePart, Source,
    effect::Effect, quick::Quick,
};
use crate::{
    cluster::Cluster,
    model::{ObjectName, Protocol},
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
    /// What would make the connection pass; each has been tried.
    pub fixes: Vec<Fix>,
}

/// An edit that makes the connection pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fix {
    /// What is edited.
    pub edit: Edit,
    /// What it changes beside the connection that was asked about.
    pub effect: Effect,
    /// The other side refuses the connection too, and needs a fix of its own; they were tried together.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub needs_other_side: bool,
    /// The objects as they would be: manifests, for `--with`.
    pub objects: Vec<serde_json::Value>,
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

/// How many rules of a side are looked at, nearest first.
const MAX_CANDIDATES: usize = 12;

/// The near misses of the sides that refuse a connection, best first; at last, where nothing is near, a policy of its
/// own. `explanations` are those of each family. `siblings` are the pods that a relabelled pod shares its labels' place
/// with, itself included.
#[must_use]
pub fn near_misses(
    cluster: &Cluster,
    explanations: &[Explanation],
    siblings: &dyn Fn(&ObjectName) -> Vec<ObjectName>,
) -> Vec<NearMiss> {
    let quick = Quick::new(cluster);
    let legs = Legs::of(explanations);
    let mut drafts = Vec::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let refused = legs.refused(direction);
        if let Some(leg) = refused.first() {
            let (judgement, pod, other) = match direction {
                Direction::Egress => (leg.egress, leg.source, leg.destination),
                Direction::Ingress => (leg.ingress, leg.destination, leg.source),
            };
            let side = Side { cluster, quick: &quick, direction, pod, other, legs: &refused, port: leg.port, siblings };
            let mut near = side.drafts(judgement);
            near.extend(side.elsewhere());
            near.sort_by_key(|draft| (draft.near.failures, draft.near.weight));
            let own = side.own_policy();
            drafts.push((near, own));
        }
    }
    let prover = prove::Prover { cluster, quick: &quick, legs: &legs };
    prover.prove(drafts)
}

/// A side that refuses a connection.
struct Side<'a> {
    cluster: &'a Cluster,
    quick: &'a Quick<'a>,
    direction: Direction,
    /// Whose rules these are.
    pod: &'a Party,
    other: &'a Party,
    /// Every connection that it refuses; the first is the one that is looked at.
    legs: &'a [prove::Leg<'a>],
    port: Option<(Protocol, u16)>,
    siblings: &'a dyn Fn(&ObjectName) -> Vec<ObjectName>,
}

/// A near miss before its edits are tried.
struct Draft {
    near: NearMiss,
    attempts: Vec<Attempt>,
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
        (MismatchKind::LabelKey, _) => 3,
        (MismatchKind::OnNamespace | MismatchKind::OnPod | MismatchKind::OwnNamespace, _) => 4,
        (MismatchKind::Protocol, _) => 5,
        (MismatchKind::ServicePort | MismatchKind::PastEnd, _) => 5,
        (MismatchKind::NamedPortMissing | MismatchKind::NamedPortOfNobody, _) => 6,
        (MismatchKind::LabelMissing | MismatchKind::Direction | MismatchKind::OtherNamespace, _) => 7,
        (MismatchKind::Except | MismatchKind::OtherFamily | MismatchKind::Port, _) => 8,
        (MismatchKind::LabelPresent, _) => 9,
        (MismatchKind::LabelValue, _) => 10,
        (MismatchKind::Portless | MismatchKind::Unusable, _) => 15,
        (MismatchKind::OutsideBlock | MismatchKind::NotAPod, _) => 20,
    }
}

impl<'a> Side<'a> {
    fn ingress(&self) -> bool {
        self.direction == Direction::Ingress
    }

    fn drafts(&self, judgement: &'a Judgement) -> Vec<Draft> {
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
        candidates.truncate(MAX_CANDIDATES);
        candidates.iter().map(|candidate| self.draft(candidate)).collect()
    }

    fn draft(&self, candidate: &Candidate<'_>) -> Draft {
        let Candidate { policy, rule, .. } = candidate;
        let element = candidate.peer.or(candidate.port);
        let line = element.and_then(|element| element.line).or(rule.line);
        let near = NearMiss {
            direction: self.direction,
            policy: format!("{}/{}", policy.namespace, policy.name),
            path: element.map_or_else(|| rule.path.clone(), |element| format!("{}.{}", rule.path, element.path)),
            source: policy.source.as_ref().zip(line).map(|(source, line)| Source { file: source.file.clone(), line }),
            failures: candidate.failed().count(),
            failed: candidate.failed().cloned().collect(),
            weight: candidate.rank().1,
            summary: element.map(|element| element.summary.clone()).unwrap_or_default(),
            fixes: Vec::new(),
        };
        Draft { near, attempts: self.attempts(candidate) }
    }
}

/// The name of a pod that is an end.
fn name_of(party: &Party) -> ObjectName {
    ObjectName { namespace: party.namespace.clone(), name: party.name.clone() }
}

/// The last index in a path: 1 of `spec.ingress[0].from[1]`.
fn index_of(path: &str) -> Option<usize> {
    path.strip_suffix(']')?.rsplit_once('[')?.1.parse().ok()
}
