//! Many connections explained together: pods of workloads, and ports, of which the same can be said are said once.

use policy_compiler::{
    explain::{Direction, Explanation, Judgement, Query, Verdict, explain},
    reach::{Cell, PortRange, Reach, Seat},
};
use serde_json::json;

use super::{One, picture};
use crate::{
    Failure,
    command::Question,
    end::Member,
    format::{Answer, Output},
    picture::gates::Crossing,
    port::{representative, summary},
};

/// Ports at which every pair is judged alike.
struct Group {
    cells: Vec<Cell>,
    probes: Vec<Option<PortRange>>,
}

/// The answer, and whether everything is allowed.
pub(super) fn answer(
    question: &Question,
    probes: &[Option<PortRange>],
    verbose: bool,
    output: Output,
) -> Result<(Answer, bool), Failure> {
    let reach = Reach::of(question.state.cluster(), question.size(probes.len()));
    let seats = |members: &[Member]| -> Result<Vec<Vec<Seat>>, Failure> {
        members.iter().map(|member| reach.seats(&member.end).map_err(Failure::no_answer)).collect()
    };
    let (sources, destinations) = (seats(&question.source.members)?, seats(&question.destination.members)?);
    let mut pairs = Vec::new();
    for (from, sources) in sources.iter().enumerate() {
        for (to, destinations) in destinations.iter().enumerate() {
            for source in sources {
                for destination in destinations.iter().filter(|other| other.family == source.family) {
                    if source.end != destination.end {
                        pairs.push(Pair { from, to, source, destination });
                    }
                }
            }
        }
    }
    if pairs.is_empty() {
        let (source, destination) = (&question.source.label, &question.destination.label);
        let error = anyhow::anyhow!("{source} and {destination} are one, or have no address of the same family");
        return Err(Failure::no_answer(error));
    }
    let mut groups: Vec<Group> = Vec::new();
    for probe in probes {
        let port = representative(*probe);
        let cells: Vec<_> = pairs.iter().map(|pair| reach.judge(pair.source, pair.destination, port)).collect();
        match groups.iter_mut().find(|group| group.cells == cells) {
            Some(group) => group.probes.push(*probe),
            None => groups.push(Group { cells, probes: vec![*probe] }),
        }
    }
    // one story for all: as if it were one connection
    if let [group] = &*groups
        && let ([probe], true) = (probes, group.cells.iter().all(|cell| *cell == group.cells[0]))
    {
        let pair = &pairs[0];
        let ends = (&pair.source.end, &pair.destination.end);
        let one = One::ask(&question.state, ends, *probe)?;
        let mut answer = one.answer(question, verbose);
        answer.set("results", json!([result(question, group, &pairs, None)]));
        answer.special = picture::special(output, &answer, || one.crossing(question));
        return Ok((answer, one.verdict() == "Allowed"));
    }
    let (mut answer, allowed) = told(question, &groups, &pairs);
    answer.special = picture::special(output, &answer, || crossing(question, &groups, &pairs, &answer));
    Ok((answer, allowed))
}

struct Pair<'a> {
    from: usize,
    to: usize,
    source: &'a Seat,
    destination: &'a Seat,
}

fn told(question: &Question, groups: &[Group], pairs: &[Pair<'_>]) -> (Answer, bool) {
    let cells = || groups.iter().flat_map(|group| &group.cells);
    let verdict = if cells().all(|cell| cell.passes()) {
        "Allowed"
    } else if cells().all(|cell| matches!(cell, Cell::Egress | Cell::Ingress | Cell::Both)) {
        "Denied"
    } else if cells().all(|cell| *cell == Cell::Undefined) {
        "Undefined"
    } else {
        "Partly"
    };
    let (source, destination) = (&question.source.label, &question.destination.label);
    let mut text = format!("{:<8}  {source} -> {destination}\n\n", verdict.to_uppercase());
    let mut lines = Vec::new();
    let mut results = Vec::new();
    let sorted = sorted(groups);
    for (index, group) in sorted.iter().enumerate() {
        let is_rest = index + 1 == sorted.len() && sorted.len() > 1 && group.probes.len() > 1;
        let ports = if is_rest { "all other ports".to_owned() } else { summary(&group.probes) };
        let (word, why) = reason(question, group, pairs);
        results.push(result(question, group, pairs, Some(&why)));
        lines.push((ports, word, why));
    }
    let width = lines.iter().map(|(ports, ..)| ports.chars().count()).max().unwrap_or_default().min(40);
    for (ports, word, why) in lines {
        text.push_str(&format!("  {ports:<width$}  {word}   {why}\n"));
    }
    let mut answer = Answer { kind: "Explanation", list: "results", text, ..Answer::default() };
    answer.set("verdict", verdict);
    answer.set("source", source);
    answer.set("destination", destination);
    answer.set("results", results);
    answer.state(&question.state);
    (answer, verdict == "Allowed")
}

/// What is allowed first; what is refused is mostly 'all other ports'.
fn sorted(groups: &[Group]) -> Vec<&Group> {
    let mut sorted: Vec<_> = groups.iter().collect();
    sorted.sort_by_key(|group| (!group.cells.iter().any(|cell| cell.passes()), group.probes.len()));
    sorted
}

/// A line for each group, of one of its pairs.
fn crossing(question: &Question, groups: &[Group], pairs: &[Pair<'_>], answer: &Answer) -> Crossing {
    let sorted = sorted(groups);
    let labels = (&*question.source.label, &*question.destination.label);
    let lane = |(index, group): (usize, &&Group)| {
        let is_rest = index + 1 == sorted.len() && sorted.len() > 1 && group.probes.len() > 1;
        let ports = if is_rest { "all other ports".to_owned() } else { summary(&group.probes) };
        let (word, _) = reason(question, group, pairs);
        let (pair, example) = example(question, group, pairs)?;
        let name = |members: &[Member], place: usize| members[place].name.clone();
        let own = (name(&question.source.members, pair.from), name(&question.destination.members, pair.to));
        let heading = format!("{ports}: {}", word.trim_end());
        Some(picture::lane(&example, &[], heading, (&own.0, &own.1)))
    };
    let verdict = answer.body.get("verdict").and_then(|verdict| verdict.as_str()).unwrap_or_default();
    let left_out = sorted.len().saturating_sub(LANES);
    let notes =
        if left_out > 0 { vec![format!("{left_out} more groups of ports are in the text")] } else { Vec::new() };
    Crossing {
        title: format!("{verdict}: {} to {}", labels.0, labels.1),
        summary: vec!["A line for each set of ports that is judged alike.".to_owned()],
        lanes: sorted.iter().enumerate().take(LANES).filter_map(lane).collect(),
        notes,
        footer: vec![question.state.summary.to_string()],
    }
}

/// So many groups are drawn.
const LANES: usize = 8;

/// One of the pairs that pass, else one that doesn't, explained.
fn example<'a>(question: &Question, group: &Group, pairs: &'a [Pair<'a>]) -> Option<(&'a Pair<'a>, Explanation)> {
    let index = (0..pairs.len()).find(|index| group.cells[*index].passes()).unwrap_or(0);
    let (pair, port) = (&pairs[index], representative(group.probes[0]));
    let query = Query {
        source: pair.source.end.clone(),
        destination: pair.destination.end.clone(),
        port,
        family: Some(pair.source.family),
    };
    let explanation = explain(question.state.cluster(), &query).ok()?.into_iter().next()?;
    Some((pair, explanation))
}

/// The verdict of a group, and on what grounds.
fn reason(question: &Question, group: &Group, pairs: &[Pair<'_>]) -> (String, String) {
    let passing: Vec<usize> = (0..pairs.len()).filter(|index| group.cells[*index].passes()).collect();
    let why = example(question, group, pairs).map(|(_, explanation)| grounds(&explanation)).unwrap_or_default();
    if group.cells.contains(&Cell::Undefined) {
        return ("open by Kubernetes".to_owned(), "a hostNetwork pod may count as a pod or as its node".to_owned());
    }
    if passing.len() == pairs.len() {
        return ("allowed".to_owned(), why);
    }
    if passing.is_empty() {
        return ("denied ".to_owned(), why);
    }
    let name = |index: usize| {
        let pair = &pairs[index];
        let (from, to) = (&question.source.members, &question.destination.members);
        match (from.len(), to.len()) {
            (1, _) => format!("to {}", to[pair.to].name),
            (_, 1) => format!("from {}", from[pair.from].name),
            _ => format!("{} -> {}", from[pair.from].name, to[pair.to].name),
        }
    };
    let mut names: Vec<_> = passing.iter().map(|index| name(*index)).collect();
    names.dedup();
    let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
    names.truncate(3);
    (format!("allowed {}{more} only", names.join(", ")), why)
}

/// What decides, in a few words.
fn grounds(explanation: &Explanation) -> String {
    if explanation.verdict == Verdict::Denied {
        let side = |direction: &Direction| match direction {
            Direction::Egress => format!("egress of {}", explanation.connection.source.name),
            Direction::Ingress => format!("ingress of {}", explanation.connection.destination.name),
        };
        return explanation.decided_by.iter().map(side).collect::<Vec<_>>().join(" and ");
    }
    let by = |judgement: &Judgement| {
        let policy = judgement.policies.iter().find(|policy| policy.matched)?;
        let rule = policy.rules.iter().find(|rule| rule.matched)?;
        Some(format!("{}/{} {}", policy.namespace, policy.name, rule.path.trim_start_matches("spec.")))
    };
    let sides: Vec<_> = [by(&explanation.egress), by(&explanation.ingress)].into_iter().flatten().collect();
    if sides.is_empty() { "no policy stands in the way".to_owned() } else { sides.join(" and ") }
}

fn result(question: &Question, group: &Group, pairs: &[Pair<'_>], why: Option<&str>) -> serde_json::Value {
    let pairs: Vec<_> = pairs
        .iter()
        .zip(&group.cells)
        .map(|(pair, cell)| {
            json!({
                "source": question.source.members[pair.from].name,
                "destination": question.destination.members[pair.to].name,
                "family": pair.source.family,
                "verdict": word(*cell),
            })
        })
        .collect();
    let mut words: Vec<_> = group.cells.iter().map(|cell| word(*cell)).collect();
    words.dedup();
    let verdict = match &*words {
        [one] => *one,
        _ => "partly",
    };
    json!({"ports": summary(&group.probes), "verdict": verdict, "reason": why.unwrap_or_default(), "pairs": pairs})
}

const fn word(cell: Cell) -> &'static str {
    match cell {
        Cell::Allowed | Cell::Itself => "allowed",
        Cell::Egress => "egress",
        Cell::Ingress => "ingress",
        Cell::Both => "both",
        Cell::Undefined => "undefined",
    }
}
