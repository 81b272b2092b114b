//! Explanations as pictures: what an [`Explanation`] says, as the gates that a connection passes.

use policy_compiler::{
    explain::{Direction, Explanation, Judgement, NearMiss, Party, PartyKind, PolicyPart, Reason, Verdict},
    model::ObjectName,
};

use crate::{
    format::{Answer, Output},
    picture::gates::{Card, Crossing, Gate, Lane, Line},
    source::plural,
};

/// So many policies are told of a gate.
const TOLD: usize = 3;

/// The picture in a format, if that is one.
pub(super) fn special(output: Output, answer: &Answer, crossing: impl FnOnce() -> Crossing) -> Vec<(Output, String)> {
    match output {
        Output::Svg => vec![(output, crossing().draw())],
        Output::Html => vec![(output, crossing().page(&answer.text))],
        _ => Vec::new(),
    }
}

/// The way of one connection.
pub(super) fn lane(explanation: &Explanation, near: &[NearMiss], heading: String, labels: (&str, &str)) -> Lane {
    let connection = &explanation.connection;
    let gates = [
        (Direction::Egress, &explanation.egress, &connection.source, &connection.destination),
        (Direction::Ingress, &explanation.ingress, &connection.destination, &connection.source),
    ];
    Lane {
        heading,
        from: card(&connection.source, labels.0),
        to: card(&connection.destination, labels.1),
        gates: gates
            .map(|(direction, judgement, own, other)| gate(explanation, near, direction, judgement, own, other)),
    }
}

fn card(party: &Party, label: &str) -> Card {
    let mut lines = Vec::new();
    match party.kind {
        PartyKind::Pod => lines.push(format!("pod {}", party.ip)),
        PartyKind::HostNetworkPod => lines.push(format!("pod on the network of its node, {}", party.ip)),
        PartyKind::Node => lines.push(format!("node, {}", party.ip)),
        PartyKind::Service => lines.push(format!("Service, {}", party.ip)),
        PartyKind::Outside => lines.push(format!("outside, such as {}", party.ip)),
    }
    lines.extend(party.labels.iter().map(|(key, value)| format!("{key}={value}")).take(4));
    Card { name: label.to_owned(), lines }
}

fn gate(
    explanation: &Explanation,
    near: &[NearMiss],
    direction: Direction,
    judgement: &Judgement,
    own: &Party,
    other: &Party,
) -> Gate {
    let word = direction.word();
    let name = |party: &Party| if party.name.is_empty() { party.ip.to_string() } else { party.name.to_string() };
    let mut lines = Vec::new();
    if judgement.reason == Reason::NoRule {
        let closest = near.iter().find(|near| near.direction == direction && !near.failed.is_empty());
        if let Some(near) = closest {
            lines.push(Line::Plain(format!("closest: {} {}", near.policy, near.path.trim_start_matches("spec."))));
            lines.push(Line::Plain(format!("asks for {}", near.summary)));
            lines.extend(
                near.failed.iter().map(|failed| Line::Failed(format!("\u{d7} {}", failed.in_words(&name(other))))),
            );
        } else {
            lines.extend(judgement.policies.iter().take(TOLD).map(|policy| Line::Plain(taken(policy, word))));
        }
        let also: Vec<_> = judgement.policies.iter().map(|policy| full(policy).to_string()).collect();
        lines.push(Line::Plain(format!("isolated by {}", few(&also))));
    }
    if judgement.reason == Reason::Rule {
        let also: Vec<_> = judgement.policies.iter().map(|policy| full(policy).to_string()).collect();
        lines.extend(matched(judgement).map(Line::Plain));
        lines.push(Line::Plain(format!("isolated by {}", few(&also))));
    }
    if let Some(service) = &explanation.service {
        for back_end in service.back_ends.iter().take(TOLD) {
            let own = if direction == Direction::Egress { &back_end.egress } else { &back_end.ingress };
            let said = format!("{}:{} {}", name(&back_end.party), back_end.port, because(own, word));
            lines.push(if own.verdict == Verdict::Allowed { Line::Plain(said) } else { Line::Failed(said) });
        }
        if service.back_ends.len() > TOLD {
            lines.push(Line::Plain(format!("and {} more", service.back_ends.len() - TOLD)));
        }
    }
    Gate {
        title: format!("{word} of {}", name(own)),
        passes: judgement.verdict == Verdict::Allowed,
        because: because(judgement, word),
        lines,
    }
}

fn full(policy: &PolicyPart) -> ObjectName {
    ObjectName { namespace: policy.namespace.clone(), name: policy.name.clone() }
}

fn few(names: &[String]) -> String {
    match names.len() {
        count if count > TOLD => format!("{} and {} more", names[..TOLD].join(", "), count - TOLD),
        _ => names.join(", "),
    }
}

/// What a policy had to say that did not match.
fn taken(policy: &PolicyPart, word: &str) -> String {
    let part = |matched| if matched { "ok" } else { "no" };
    let rules: Vec<_> = policy
        .rules
        .iter()
        .map(|rule| {
            let path = rule.path.trim_start_matches("spec.");
            format!("{path}: port {}, peer {}", part(rule.ports.matched), part(rule.peers.matched))
        })
        .collect();
    if rules.is_empty() {
        format!("{}: no {word} rules", full(policy))
    } else {
        format!("{} {}", full(policy), few(&rules))
    }
}

/// The elements of the rule that matched.
fn matched(judgement: &Judgement) -> impl Iterator<Item = String> {
    let rule = judgement.policies.iter().flat_map(|policy| &policy.rules).find(|rule| rule.matched);
    rule.into_iter().flat_map(|rule| {
        [&rule.peers, &rule.ports].into_iter().filter_map(|list| {
            let element = list.tried.iter().find(|element| Some(&element.path) == list.by.as_ref())?;
            Some(format!("{}: {}", element.path, element.summary))
        })
    })
}

/// The grounds, in a few words.
fn because(judgement: &Judgement, word: &str) -> String {
    match judgement.reason {
        Reason::Rule => {
            let by = judgement.policies.iter().find(|policy| policy.matched);
            let rule = by.and_then(|policy| Some((full(policy), policy.rules.iter().find(|rule| rule.matched)?)));
            match rule {
                Some((policy, rule)) => format!("allowed by {policy} {}", rule.path.trim_start_matches("spec.")),
                None => "allowed by a rule".to_owned(),
            }
        }
        Reason::NoRule => match judgement.policies.len() {
            1 => "refused: no rule of its policy matches".to_owned(),
            count => format!("refused: no rule of {} matches", plural(count, "policy", "policies")),
        },
        Reason::NotIsolated => format!("no policy selects it for {word}"),
        Reason::NoPod => "no pod with a network of its own".to_owned(),
        Reason::OwnNode => "the pod's own node may".to_owned(),
        Reason::Itself => "the pod speaks to itself".to_owned(),
        Reason::BackEnds => "every back end is allowed".to_owned(),
        Reason::MixedBackEnds => "some back ends are refused".to_owned(),
        Reason::RefusedBackEnds => "every back end is refused".to_owned(),
        Reason::NoBackEnds => "no back end is ready".to_owned(),
        Reason::NoSuchPort => "the Service has no such port".to_owned(),
    }
}
