//! Selectors against labels: which requirements fail, and by how much.

use std::fmt::Write as _;

use super::{Mismatch, MismatchKind};
use crate::{
    files::distance,
    model::{Labels, Requirement, Selector},
};

/// A selector as one would say it: `app=web, tier in (a, b)`; `any` if it matches everything.
pub(super) fn summary(selector: &Selector) -> String {
    let mut text = String::new();
    for requirement in &selector.requirements {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&condition(requirement));
    }
    if text.is_empty() { "any".to_owned() } else { text }
}

/// The requirements of `selector`, which is at `field`, that `labels` don't meet. `is_match_label` tells whether a key is
/// under `matchLabels` in the file.
pub(super) fn failed(
    selector: &Selector,
    labels: &Labels,
    field: &str,
    is_match_label: impl Fn(&str) -> bool,
) -> Vec<Mismatch> {
    let failing = selector.requirements.iter().filter(|requirement| !requirement.matches(labels));
    failing
        .map(|requirement| {
            let (key, kind) = match requirement {
                Requirement::In(key, _) | Requirement::Exists(key) => (key, MismatchKind::LabelMissing),
                Requirement::NotIn(key, _) | Requirement::DoesNotExist(key) => (key, MismatchKind::LabelPresent),
            };
            let have = labels.get(key);
            let (kind, distance) = match (requirement, have) {
                (Requirement::In(_, values), Some(have)) => {
                    (MismatchKind::LabelValue, values.iter().map(|value| distance(value, have)).min())
                }
                (Requirement::NotIn(..), _) => (MismatchKind::LabelValue, None),
                _ => (kind, None),
            };
            let single = matches!(requirement, Requirement::In(_, values) if values.len() == 1);
            let field = if single && is_match_label(key) {
                format!("{field}.matchLabels[{key}]")
            } else {
                format!("{field}.matchExpressions")
            };
            let have = have.map(|value| format!("{key}={value}"));
            Mismatch { kind, field, want: condition(requirement), have, distance }
        })
        .collect()
}

fn condition(requirement: &Requirement) -> String {
    let list = |values: &[std::sync::Arc<str>]| values.join(", ");
    match requirement {
        Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", values[0]),
        Requirement::In(key, values) => format!("{key} in ({})", list(values)),
        Requirement::NotIn(key, values) => format!("{key} not in ({})", list(values)),
        Requirement::Exists(key) => format!("{key} exists"),
        Requirement::DoesNotExist(key) => format!("{key} does not exist"),
    }
}

/// Labels as `app=web, tier=front`; `no labels` if there are none.
pub(super) fn written(labels: &Labels) -> String {
    let mut text = String::new();
    for (key, value) in labels {
        let separator = if text.is_empty() { "" } else { ", " };
        write!(text, "{separator}{key}={value}").expect("writing to a string never fails");
    }
    if text.is_empty() { "no labels".to_owned() } else { text }
}
