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

/// Whose labels a selector is held against.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) labels: &'a Labels,
    /// `namespace pay`; `None` if it is the end itself.
    pub(super) called: Option<&'a str>,
    /// The labels of the pod's namespace, or of the namespace's pod, and what a label there is.
    pub(super) elsewhere: Option<(&'a Labels, MismatchKind)>,
}

impl<'a> Holder<'a> {
    /// Labels that are not known by another name.
    pub(super) const fn of(labels: &'a Labels) -> Self {
        Self { labels, called: None, elsewhere: None }
    }
}

/// The requirements of `selector`, which is at `field`, that the labels don't meet. `is_match_label` tells whether a key
/// is under `matchLabels` in the file.
pub(super) fn failed(
    selector: &Selector,
    holder: Holder<'_>,
    field: &str,
    is_match_label: impl Fn(&str) -> bool,
) -> Vec<Mismatch> {
    let failing = selector.requirements.iter().filter(|requirement| !requirement.matches(holder.labels));
    failing
        .map(|requirement| {
            let (Requirement::In(key, _)
            | Requirement::Exists(key)
            | Requirement::NotIn(key, _)
            | Requirement::DoesNotExist(key)) = requirement;
            let Found { kind, have, distance } = found(requirement, holder);
            let single = matches!(requirement, Requirement::In(_, values) if values.len() == 1);
            let field = if single && is_match_label(key) {
                format!("{field}.matchLabels[{key}]")
            } else {
                format!("{field}.matchExpressions")
            };
            let of = holder.called.map(ToOwned::to_owned);
            Mismatch { kind, field, want: condition(requirement), have, distance, of }
        })
        .collect()
}

struct Found {
    kind: MismatchKind,
    have: Option<String>,
    distance: Option<usize>,
}

/// What there is instead.
fn found(requirement: &Requirement, holder: Holder<'_>) -> Found {
    let written = |key: &str, value: &str| Some(format!("{key}={value}"));
    let (key, kind) = match requirement {
        Requirement::In(key, _) | Requirement::Exists(key) => (key, MismatchKind::LabelMissing),
        Requirement::NotIn(key, _) => (key, MismatchKind::LabelValue),
        Requirement::DoesNotExist(key) => (key, MismatchKind::LabelPresent),
    };
    let own = holder.labels.get(key);
    let have = own.and_then(|value| written(key, value));
    let near_value = match (requirement, own) {
        (Requirement::In(_, values), Some(own)) => values.iter().map(|value| distance(value, own)).min(),
        _ => None,
    };
    if near_value.is_some_and(|distance| distance <= 2) {
        return Found { kind: MismatchKind::LabelValue, have, distance: near_value };
    }
    if let Requirement::In(_, values) = requirement {
        let other = |(other, value): &(&std::sync::Arc<str>, &std::sync::Arc<str>)| {
            *other != key && values.contains(value) && (bare(other) == bare(key) || distance(other, key) <= 2)
        };
        if let Some((other, value)) = holder.labels.iter().find(other) {
            return Found { kind: MismatchKind::LabelKey, have: written(other, value), distance: None };
        }
    }
    if let Some((labels, kind)) = holder.elsewhere
        && let (Some(value), true) = (labels.get(key), requirement.matches(labels))
        && matches!(requirement, Requirement::In(..) | Requirement::Exists(_))
    {
        return Found { kind, have: written(key, value), distance: None };
    }
    let kind = if near_value.is_some() { MismatchKind::LabelValue } else { kind };
    Found { kind, have, distance: near_value }
}

/// A key without its prefix, in lower case.
pub(super) fn bare(key: &str) -> String {
    key.rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
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
