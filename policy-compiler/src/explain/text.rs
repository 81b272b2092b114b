//! An explanation in words: the verdict first, in one line; then one block per side, the deciding one first. Policies,
//! rules and elements are named as in the YAML, with file and line.

use std::ops::RangeInclusive;

use super::{
    Direction, Element, Explanation, Judgement, ListPart, Mismatch, MismatchKind, Party, PartyKind, PolicyPart, Reason,
    RulePart, ServicePath, Verdict, labels,
};

/// Where the places in files are written: at the first of these that all texts before them leave room for.
const PLACE_COLUMNS: RangeInclusive<usize> = 76..=100;

/// How long a line may get before what is wrong with an element goes to the next one.
const WIDTH: usize = 100;

/// Puts the explanations of one question into words. Only deciding facts, unless `verbose` asks for every rule and what
/// it failed on. Families of which the same can be said are said once.
#[must_use]
pub fn render(explanations: &[Explanation], verbose: bool) -> String {
    let mut texts: Vec<(String, String)> = Vec::new();
    for explanation in explanations {
        let page = page(explanation, verbose);
        let family = format!("{:?}", explanation.connection.family);
        // What differs between the families are the addresses; those are in the text of no plain case.
        match texts.iter_mut().find(|(_, text)| *text == page) {
            Some((families, _)) => *families = format!("{families} and {family}"),
            None => texts.push((family, page)),
        }
    }
    let single = texts.len() == 1;
    let named = |(families, text): &(String, String)| match text.split_once('\n') {
        Some((head, rest)) if !single => format!("{head}  over {families}\n{rest}"),
        _ => text.clone(),
    };
    texts.iter().map(named).collect::<Vec<_>>().join("\n")
}

fn page(explanation: &Explanation, verbose: bool) -> String {
    let mut page = Page { lines: Vec::new(), verbose };
    page.text(headline(explanation));
    page.text(String::new());
    let mut sides = [(Direction::Egress, &explanation.egress), (Direction::Ingress, &explanation.ingress)];
    sides.sort_by_key(|(direction, _)| !explanation.decided_by.contains(direction));
    for (direction, judgement) in sides {
        page.side(explanation, direction, judgement);
    }
    if !explanation.notes.is_empty() {
        page.text(String::new());
    }
    for note in &explanation.notes {
        page.text(format!("  note  {note}"));
    }
    page.text(String::new());
    page.written()
}

fn headline(explanation: &Explanation) -> String {
    let connection = &explanation.connection;
    let verdict = match explanation.verdict {
        Verdict::Allowed => "ALLOWED",
        Verdict::Denied => "DENIED",
    };
    let port = match (connection.protocol, connection.port) {
        (Some(protocol), Some(port)) => format!("{protocol}/{port}"),
        _ => "without ports".to_owned(),
    };
    let mut line = format!("{verdict:<8}  {} -> {}  {port}", whole(&connection.source), whole(&connection.destination));
    let sides: Vec<_> = explanation
        .decided_by
        .iter()
        .map(|direction| match direction {
            Direction::Egress => format!("egress of {}", short(&connection.source)),
            Direction::Ingress => format!("ingress of {}", short(&connection.destination)),
        })
        .collect();
    if !sides.is_empty() {
        line.push_str(&format!("      refused by {}", sides.join(" and ")));
    }
    line
}

/// As one would ask for it.
fn whole(party: &Party) -> String {
    match party.kind {
        PartyKind::Pod | PartyKind::HostNetworkPod => format!("{}/{}", party.namespace, party.name),
        PartyKind::Node => format!("node {} ({})", party.name, party.ip),
        PartyKind::Service => format!("Service {}/{} ({})", party.namespace, party.name, party.ip),
        PartyKind::Outside => party.ip.to_string(),
    }
}

fn short(party: &Party) -> String {
    if party.name.is_empty() { party.ip.to_string() } else { party.name.to_string() }
}

struct Page {
    lines: Vec<Line>,
    verbose: bool,
}

struct Line {
    text: String,
    /// In a file.
    place: Option<String>,
}

/// How far something is indented.
#[derive(Clone, Copy)]
struct Indent(usize);

impl Page {
    fn text(&mut self, text: String) {
        self.lines.push(Line { text, place: None });
    }

    fn line(&mut self, indent: Indent, text: &str, place: Option<String>) {
        self.lines.push(Line { text: format!("{:indent$}{text}", "", indent = indent.0), place });
    }

    /// All of it, with the places in one column.
    fn written(self) -> String {
        let ends = self.lines.iter().filter(|line| line.place.is_some()).map(|line| line.text.chars().count() + 2);
        let column = ends.filter(|end| PLACE_COLUMNS.contains(end)).max().unwrap_or(*PLACE_COLUMNS.start());
        let lines = self.lines.iter().map(|Line { text, place }| match place {
            Some(place) => {
                let gap = column.saturating_sub(text.chars().count()).max(2);
                format!("{text}{:gap$}{place}", "")
            }
            None => text.clone(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn side(&mut self, explanation: &Explanation, direction: Direction, judgement: &Judgement) {
        let connection = &explanation.connection;
        let (label, party) = match direction {
            Direction::Egress => ("egress   from", &connection.source),
            Direction::Ingress => ("ingress  to  ", &connection.destination),
        };
        let width = short(&connection.source).chars().count().max(short(&connection.destination).chars().count());
        let head = format!("  {label} {:<width$}  ", short(party));
        let begin = self.lines.len();
        let indent = Indent(head.chars().count());
        match &explanation.service {
            Some(path) => self.service(indent, direction, judgement, path, explanation),
            None => {
                let other = if direction == Direction::Egress { &connection.destination } else { &connection.source };
                self.judgement(indent, direction, judgement, party, other);
            }
        }
        if let Some(first) = self.lines.get_mut(begin) {
            first.text.replace_range(..indent.0.min(first.text.len()), &head);
        }
    }

    fn service(
        &mut self,
        indent: Indent,
        direction: Direction,
        judgement: &Judgement,
        path: &ServicePath,
        explanation: &Explanation,
    ) {
        let service = format!("Service {}/{}", path.namespace, path.name);
        let count = path.back_ends.len();
        let side = |index: usize| match direction {
            Direction::Egress => &path.back_ends[index].egress,
            Direction::Ingress => &path.back_ends[index].ingress,
        };
        let refused = (0..count).filter(|index| side(*index).verdict == Verdict::Denied).count();
        let text = match judgement.reason {
            Reason::NotIsolated | Reason::NoPod => {
                self.judgement(
                    indent,
                    direction,
                    judgement,
                    &explanation.connection.source,
                    &explanation.connection.source,
                );
                return;
            }
            Reason::NoBackEnds => format!("{service} has no back end that is ready for this port"),
            Reason::NoSuchPort => format!("{service} has no such port"),
            Reason::BackEnds => format!("all back ends of {service} are allowed ({count})"),
            Reason::RefusedBackEnds => format!("all back ends of {service} are refused ({count})"),
            _ => format!("refused: {refused} of {count} back ends of {service}, and any of them may be chosen"),
        };
        self.line(indent, &text, None);
        for (index, back_end) in path.back_ends.iter().enumerate() {
            if !self.verbose && refused > 0 && side(index).verdict == Verdict::Allowed {
                continue;
            }
            let inner = Indent(indent.0 + 2);
            self.line(inner, &format!("back end {} port {}", whole(&back_end.party), back_end.port), None);
            let (party, other) = match direction {
                Direction::Egress => (&explanation.connection.source, &back_end.party),
                Direction::Ingress => (&back_end.party, &explanation.connection.source),
            };
            self.judgement(Indent(inner.0 + 2), direction, side(index), party, other);
        }
    }

    /// `party` is whose side it is.
    fn judgement(&mut self, indent: Indent, direction: Direction, judgement: &Judgement, party: &Party, other: &Party) {
        let side = direction.word();
        match judgement.reason {
            Reason::NotIsolated => {
                self.line(indent, &format!("open: no policy selects {} for {side}", whole(party)), None);
            }
            Reason::Itself => self.line(indent, "open: a pod always reaches itself", None),
            Reason::OwnNode => {
                let node = party.node.as_deref().unwrap_or_default();
                self.line(indent, &format!("open: its own node {node} always reaches it"), None);
            }
            Reason::NoPod => self.line(indent, &no_pod(party), None),
            Reason::Rule => self.allowed(indent, judgement, side, other),
            _ => {
                let text = match judgement.policies.len() {
                    1 => "1 policy isolates it, no rule matches".to_owned(),
                    count => format!("{count} policies isolate it, no rule matches"),
                };
                self.line(indent, &text, None);
                self.policies(Indent(indent.0 + 2), &judgement.policies.iter().collect::<Vec<_>>(), side, other);
            }
        }
    }

    fn allowed(&mut self, indent: Indent, judgement: &Judgement, side: &str, other: &Party) {
        let rules = |policy: &'_ PolicyPart| policy.rules.iter().filter(|rule| rule.matched).count();
        let mut verb = "allowed by";
        for policy in judgement.policies.iter().filter(|policy| policy.matched) {
            for rule in
                policy.rules.iter().filter(|rule| rule.matched).take(if self.verbose { rules(policy) } else { 1 })
            {
                let elements = [&rule.peers.by, &rule.ports.by].into_iter().flatten().cloned().collect::<Vec<_>>();
                let path = rule.path.trim_start_matches("spec.");
                let path =
                    if elements.is_empty() { path.to_owned() } else { format!("{path}.{}", elements.join(" + ")) };
                let place = place(policy, matched_line(rule).or(rule.line));
                self.line(indent, &format!("{verb} {}/{}  {path}", policy.namespace, policy.name), place);
                if verb == "allowed by" || self.verbose {
                    self.matched(Indent(indent.0 + 2), rule, other);
                }
                verb = "and by    ";
            }
        }
        let names: Vec<_> = judgement.policies.iter().map(name).collect();
        self.line(indent, &format!("isolated by {}", names.join(", ")), None);
        if self.verbose {
            let others: Vec<_> = judgement.policies.iter().filter(|policy| !policy.matched).collect();
            self.policies(Indent(indent.0 + 2), &others, side, other);
        }
    }

    /// What of a rule matched.
    fn matched(&mut self, indent: Indent, rule: &RulePart, other: &Party) {
        let who = match other.kind {
            PartyKind::Pod => format!("{} ({})", short(other), labels::written(&other.labels)),
            _ => other.ip.to_string(),
        };
        match rule.peers.matching() {
            Some(peer) => self.line(indent, &format!("{:<32}  matches {who}", peer.summary), None),
            None => self.line(indent, "every peer", None),
        }
        match rule.ports.matching() {
            Some(port) => self.line(indent, &port.summary, None),
            None => self.line(indent, "every port", None),
        }
    }

    /// Policies none of whose rules matches.
    fn policies(&mut self, indent: Indent, policies: &[&PolicyPart], side: &str, other: &Party) {
        let width = policies.iter().map(|policy| name(policy).chars().count()).max().unwrap_or_default();
        for policy in policies {
            self.policy(indent, policy, &format!("{:<width$}", name(policy)), side, other);
        }
    }

    fn policy(&mut self, indent: Indent, policy: &PolicyPart, name: &str, side: &str, other: &Party) {
        if policy.rules.is_empty() {
            let text = format!("{name}  no {side} rules");
            self.line(indent, &text, place(policy, policy.source.as_ref().map(|source| source.line)));
        }
        for rule in &policy.rules {
            let word = |list: &ListPart| if list.matched { "ok" } else { "no" };
            let path = rule.path.trim_start_matches("spec.");
            let text = format!("{name}  {path}  port {}, peer {}", word(&rule.ports), word(&rule.peers));
            self.line(indent, &text, place(policy, rule.line));
            if self.verbose {
                for list in [&rule.peers, &rule.ports].into_iter().filter(|list| !list.matched) {
                    for element in &list.tried {
                        self.element(Indent(indent.0 + 2), policy, element, other);
                    }
                }
            }
        }
    }

    /// An element that doesn't match, and why; on two lines if one would be too long.
    fn element(&mut self, indent: Indent, policy: &PolicyPart, element: &Element, other: &Party) {
        let failed: Vec<_> = element.failed.iter().map(|mismatch| words(mismatch, &short(other))).collect();
        let failed = failed.join("; ");
        let head = format!("{}  {}", element.path, element.summary);
        let place = place(policy, element.line);
        let fits = indent.0 + head.chars().count() + failed.chars().count() + 4 <= *PLACE_COLUMNS.start();
        if fits || element.summary.is_empty() {
            self.line(indent, &format!("{head}    {failed}"), place);
            return;
        }
        self.line(indent, &head, place);
        let indent = Indent(indent.0 + element.path.chars().count() + 2);
        for line in wrapped(&failed, WIDTH.saturating_sub(indent.0).max(40)) {
            self.line(indent, &line, None);
        }
    }
}

/// Breaks at spaces.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

impl ListPart {
    /// The first element that matches.
    fn matching(&self) -> Option<&Element> {
        self.tried.iter().find(|element| element.matched())
    }
}

fn matched_line(rule: &RulePart) -> Option<usize> {
    rule.peers.matching().and_then(|element| element.line)
}

fn name(policy: &PolicyPart) -> String {
    format!("{}/{}", policy.namespace, policy.name)
}

fn place(policy: &PolicyPart, line: Option<usize>) -> Option<String> {
    policy.source.as_ref().zip(line).map(|(source, line)| format!("{}:{line}", source.file))
}

fn no_pod(party: &Party) -> String {
    match party.kind {
        PartyKind::Outside => "not judged: it is outside the cluster".to_owned(),
        PartyKind::HostNetworkPod => "not judged: a pod on its node's network has no policies".to_owned(),
        PartyKind::Node => "not judged: a node has no policies".to_owned(),
        PartyKind::Pod | PartyKind::Service => "not judged: it is no pod".to_owned(),
    }
}

impl Mismatch {
    /// The condition in words; `who` is the end that it is about.
    #[must_use]
    pub fn in_words(&self, who: &str) -> String {
        words(self, who)
    }
}

/// A condition that isn't met, in words; `who` is the other end.
fn words(mismatch: &Mismatch, who: &str) -> String {
    let Mismatch { kind, want, have, distance, of, .. } = mismatch;
    let service = of.as_deref().unwrap_or_default();
    let who = of.as_deref().unwrap_or(who);
    let have = have.as_deref();
    let had = have.unwrap_or_default();
    match kind {
        MismatchKind::LabelValue => {
            let letters = match distance {
                Some(1) => ", one letter apart",
                Some(2) => ", two letters apart",
                _ => "",
            };
            format!("{want}: {who} has {had}{letters}")
        }
        MismatchKind::LabelMissing => format!("{want}: {who} has no such label"),
        MismatchKind::LabelKey => format!("{want}: {who} has {had}, another key"),
        MismatchKind::OnNamespace => format!("{want}: its namespace has that label, not {who}"),
        MismatchKind::OnPod => format!("{want}: the pod has that label, not {who}"),
        MismatchKind::LabelPresent => format!("{want}: {who} has {had}"),
        MismatchKind::OwnNamespace => {
            format!("a podSelector alone means pods of {want}; {who} is in {}", had.trim_start_matches("namespace "))
        }
        MismatchKind::NotAPod => format!("selectors match pods only, not {had}"),
        MismatchKind::OutsideBlock => format!("{had} is outside"),
        MismatchKind::Except => format!("{had} is in except {}", want.trim_start_matches("not in ")),
        MismatchKind::OtherFamily => format!("{had} is of the other address family"),
        MismatchKind::Protocol if want.ends_with(')') => format!("not {had}: no protocol means TCP"),
        MismatchKind::Protocol | MismatchKind::Port => format!("not {had}"),
        MismatchKind::PastEnd => format!("{had} is one past the end"),
        MismatchKind::ServicePort => format!("not {had}: {service}"),
        MismatchKind::NamedPortMissing | MismatchKind::NamedPortOfNobody => {
            let other = have.map(|have| format!("; it is {have} there")).unwrap_or_default();
            format!("there is no {}{other}", want.trim_start_matches("a "))
        }
        MismatchKind::Direction => format!("policyTypes leaves out {want}, so these rules don't count"),
        MismatchKind::OtherNamespace => {
            format!("a policy selects pods of its own namespace, {had}; these are in {want}")
        }
        MismatchKind::Portless => "the protocol has no ports".to_owned(),
        MismatchKind::Unusable => "it was reported".to_owned(),
    }
}
