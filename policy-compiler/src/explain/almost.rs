//! Policies that almost select a pod: why something is open that was meant to be closed.

use serde::Serialize;

use super::{
    Direction, Mismatch, MismatchKind, Source,
    labels::{self, Holder},
};
use crate::{cluster::Cluster, diagnostic::Kind, model::Pod};

/// A policy whose `podSelector` misses a pod by little.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Almost {
    /// The direction that it would isolate.
    pub direction: Direction,
    /// The policy.
    pub policy: String,
    /// Where its selector is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What the selector asks for, in short.
    pub summary: String,
    /// The one condition that fails.
    pub failed: Mismatch,
}

/// Policies of the pod's namespace that would isolate it if one label differed in two letters at most, in its value or
/// in its key.
#[must_use]
pub fn almost_selecting(cluster: &Cluster, pod: &Pod, direction: Direction) -> Vec<Almost> {
    let policies = cluster.policies.values().filter(|policy| {
        let rules = if direction == Direction::Ingress { &policy.ingress } else { &policy.egress };
        rules.is_some() && policy.name.namespace == pod.name.namespace
    });
    let mut found = Vec::new();
    for policy in policies {
        let selector = &policy.subject.pods;
        let failed = labels::failed(selector, Holder::of(&pod.labels), "podSelector", |_| true);
        let [failed] = &*failed else { continue };
        let near_value = failed.distance.is_some_and(|distance| distance <= 2);
        let near_key = failed.kind == MismatchKind::LabelKey;
        if near_value || near_key {
            let origin = cluster.origin(Kind::NetworkPolicy, &policy.name);
            let place = origin.map(|origin| origin.place_of("spec.podSelector"));
            found.push(Almost {
                direction,
                policy: policy.name.to_string(),
                source: place.map(|place| Source { file: place.file, line: place.line }),
                summary: labels::summary(selector),
                failed: failed.clone(),
            });
        }
    }
    found
}
