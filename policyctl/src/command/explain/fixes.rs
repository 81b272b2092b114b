//! Near misses and fixes in words.

use policy_compiler::{
    explain::{Almost, Direction, Edit, Effect, Explanation, Fix, NearMiss},
    model::ObjectName,
};

use crate::source::State;

/// The pods that share a place for their labels: those of one workload.
pub(super) fn siblings(state: &State, pod: &ObjectName) -> Vec<ObjectName> {
    let owners = &state.gathered.owners;
    match owners.get(pod) {
        Some(workload) => owners.iter().filter(|(_, owner)| *owner == workload).map(|(pod, _)| pod.clone()).collect(),
        None => vec![pod.clone()],
    }
}

/// A policy that almost selects an end.
pub(super) fn almost(almost: &Almost, explanation: Option<&Explanation>) -> String {
    let connection = explanation.map(|explanation| &explanation.connection);
    let party = connection.map(|connection| match almost.direction {
        Direction::Egress => &connection.source,
        Direction::Ingress => &connection.destination,
    });
    let who = party.map(|party| &*party.name).unwrap_or_default();
    let place = almost.source.as_ref().map(|source| format!("  {}:{}", source.file, source.line)).unwrap_or_default();
    format!(
        "\n  almost        {}  podSelector {}{place}\n                  {}\n",
        almost.policy,
        almost.summary,
        almost.failed.in_words(who)
    )
}

/// A near miss with its fixes.
pub(super) fn near(near: &NearMiss, explanation: Option<&Explanation>, state: &State) -> String {
    let connection = explanation.map(|explanation| &explanation.connection);
    let other = connection.map(|connection| match near.direction {
        Direction::Egress => &connection.destination,
        Direction::Ingress => &connection.source,
    });
    let other = other.map_or_else(String::new, |party| {
        if party.name.is_empty() { party.ip.to_string() } else { party.name.to_string() }
    });
    let mut text = String::new();
    if near.failed.is_empty() {
        text.push_str("\n  for this alone, a policy of its own would allow it\n");
    } else {
        let path = near.path.trim_start_matches("spec.");
        let place = near.source.as_ref().map(|source| format!("  {}:{}", source.file, source.line)).unwrap_or_default();
        text.push_str(&format!("\n  closest rule  {} {path}{place}\n", near.policy));
        text.push_str(&conditions(near, &other));
    }
    for (index, fix) in near.fixes.iter().enumerate() {
        text.push_str(&self::fix(fix, if index == 0 { "fix  " } else { "or   " }, near, state));
    }
    text
}

/// What doesn't match, and why: on one line where that is short.
fn conditions(near: &NearMiss, other: &str) -> String {
    const INDENT: &str = "                  ";
    const WIDTH: usize = 96;
    if let [failed] = near.failed.as_slice() {
        let words = failed.in_words(other);
        let own = words.strip_prefix(&format!("{}: ", failed.want)).unwrap_or(&words);
        let line = format!("{INDENT}{}    {own}\n", near.summary);
        if line.chars().count() <= WIDTH {
            return line;
        }
    }
    let mut text = format!("{INDENT}{}\n", near.summary);
    for failed in &near.failed {
        text.push_str(&format!("{INDENT}  {}\n", failed.in_words(other)));
    }
    text
}

fn fix(fix: &Fix, word: &str, near: &NearMiss, state: &State) -> String {
    let indent = "                  ";
    let mut text = match &fix.edit {
        Edit::PodLabel { pod, key, from, to } => {
            let name = pod.split_once('/').map(|(namespace, name)| ObjectName::new(namespace, name));
            let (target, place) = name.map_or((pod.clone(), String::new()), |name| target(state, &name, key));
            let change =
                from.as_ref().map_or_else(|| format!("add {key}: {to}"), |from| format!("{key}: {from} -> {to}"));
            format!("  {word}         relabel the pods    {change}   in {target}{place}\n")
        }
        Edit::NamespaceLabel { namespace, key, from, to } => {
            let change =
                from.as_ref().map_or_else(|| format!("add {key}: {to}"), |from| format!("{key}: {from} -> {to}"));
            format!("  {word}         relabel the namespace    {change}   in {namespace}\n")
        }
        Edit::Policy { path, action, value } => {
            let path = path.trim_start_matches("spec.");
            let place =
                near.source.as_ref().map(|source| format!("  {}:{}", source.file, source.line)).unwrap_or_default();
            let mut text = format!("  {word}         {action}    {} {path}{place}\n", near.policy);
            value.lines().for_each(|line| text.push_str(&format!("{indent}  {line}\n")));
            text
        }
        Edit::NewPolicy { manifest } => {
            let mut text = format!("  {word}         add a policy\n");
            manifest.lines().for_each(|line| text.push_str(&format!("{indent}  {line}\n")));
            text
        }
    };
    for (index, line) in folded(&effect(&fix.effect), 100 - indent.len()).iter().enumerate() {
        let inner = if index == 0 { "" } else { " " };
        text.push_str(&format!("{indent}{inner}{line}\n"));
    }
    text
}

/// Broken behind commas, so that no connection is cut.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.split_inclusive(", ") {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.trim_end().chars().count() <= width => line.push_str(part),
            _ => lines.push(part.to_owned()),
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// What else an edit does; said even if it is nothing.
fn effect(effect: &Effect) -> String {
    let part = |verb: &str, count: usize, examples: &[String]| {
        let least = if effect.incomplete { " at least" } else { "" };
        let more =
            if count > examples.len() { format!(" and{least} {} more", count - examples.len()) } else { String::new() };
        format!("{verb} {}{more}", examples.join(", "))
    };
    let rest = if effect.incomplete { "; there are too many pairs to try them all" } else { "" };
    let text = match (effect.opens, effect.closes) {
        (0, 0) if effect.incomplete => "nothing else is known to change".to_owned(),
        (0, 0) => "changes nothing else".to_owned(),
        (opens, 0) => part("also opens", opens, &effect.opened),
        (0, closes) => part("also closes", closes, &effect.closed),
        (opens, closes) => {
            format!("{}; {}", part("also opens", opens, &effect.opened), part("closes", closes, &effect.closed))
        }
    };
    format!("(tried: {text}{rest})")
}

/// Where a pod's labels are to be edited, and the line.
fn target(state: &State, pod: &ObjectName, key: &str) -> (String, String) {
    let owner = state.gathered.owners.get(pod);
    let target = owner.map_or_else(|| pod.to_string(), ToString::to_string);
    let place = state.gathered.labels_of(pod).and_then(|(origin, _)| {
        let field = format!("metadata.labels[{key}]");
        let is_there = origin.fields.contains_key(&*field) || origin.fields.contains_key("metadata.labels");
        is_there.then(|| origin.place_of(&field))
    });
    (target, place.map(|place| format!("  ({}:{})", place.file, place.line)).unwrap_or_default())
}
