//! Labels, selectors and ports as YAML, for edits that are told.

use std::sync::Arc;

use crate::model::{Labels, Protocol, Requirement, Selector};

/// Labels that say what a pod is, without those that its workload makes up anew with every change.
pub(super) fn telling(labels: &Labels) -> Labels {
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

/// A selector of pods with these labels.
pub(super) fn selector_of(labels: &Labels) -> Selector {
    let requirement = |(key, value): (&Arc<str>, &Arc<str>)| Requirement::In(key.clone(), vec![value.clone()]);
    Selector { requirements: labels.iter().map(requirement).collect() }
}

/// The same in YAML.
pub(super) fn match_labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return "{}".to_owned();
    }
    let all: Vec<_> = labels.iter().map(|(key, value)| format!("{key}: {}", quoted(value))).collect();
    format!("{{matchLabels: {{{}}}}}", all.join(", "))
}

/// Any selector in YAML.
pub(super) fn selector(selector: &Selector) -> String {
    let simple = |requirement: &Requirement| match requirement {
        Requirement::In(key, values) if values.len() == 1 => Some((key.clone(), values[0].clone())),
        _ => None,
    };
    if let Some(labels) = selector.requirements.iter().map(simple).collect::<Option<Vec<_>>>() {
        let text: Vec<_> = labels.iter().map(|(key, value)| format!("{key}: {}", quoted(value))).collect();
        return if text.is_empty() { "{}".to_owned() } else { format!("{{matchLabels: {{{}}}}}", text.join(", ")) };
    }
    format!("{{{}}}", expressions(selector))
}

/// All requirements of a selector as `matchExpressions`.
pub(super) fn expressions(selector: &Selector) -> String {
    let list = |values: &[Arc<str>]| values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ");
    let expression = |requirement: &Requirement| match requirement {
        Requirement::In(key, values) => format!("{{key: {key}, operator: In, values: [{}]}}", list(values)),
        Requirement::NotIn(key, values) => format!("{{key: {key}, operator: NotIn, values: [{}]}}", list(values)),
        Requirement::Exists(key) => format!("{{key: {key}, operator: Exists}}"),
        Requirement::DoesNotExist(key) => format!("{{key: {key}, operator: DoesNotExist}}"),
    };
    let all: Vec<_> = selector.requirements.iter().map(expression).collect();
    format!("matchExpressions: [{}]", all.join(", "))
}

fn quoted(value: &str) -> String {
    let plain = value.starts_with(|first: char| first.is_ascii_alphabetic());
    let special =
        matches!(&*value.to_ascii_lowercase(), "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n");
    if plain && !special { value.to_owned() } else { format!("\"{value}\"") }
}

/// An entry of `ports`.
pub(super) fn port(protocol: Protocol, number: u16) -> String {
    if protocol == Protocol::Tcp {
        format!("port: {number}")
    } else {
        format!("{{port: {number}, protocol: {protocol}}}")
    }
}
