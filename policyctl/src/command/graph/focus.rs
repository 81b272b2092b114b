//! `graph --focus`: the union of all policies for one end, in pods that there are.

use std::collections::{BTreeMap, BTreeSet};

use policy_compiler::{
    diagnostic::Kind,
    explain::{Query, Quick, explain},
    reach::{PortRange, Reach, port_ranges},
};
use serde_json::{Value, json};

use crate::{
    Failure, Outcome, Status,
    command::units::{self, Between, Probes, Unit},
    end::{self, Ends},
    format::{self, Answer, Output, Table},
    picture::graph::{
        focus::{self, Bundle, Direction, Focus},
        model::Ports,
        svg::Words,
    },
    port::{representative, summary},
    source::{self, State, plural},
};

/// Answers.
pub(super) fn run(text: &str, state: &source::Args, format: &format::Args) -> Outcome {
    if matches!(format.output, Output::Dot | Output::Mermaid) {
        return Err(Failure::wrong_use(anyhow::anyhow!("--focus is drawn as svg or html")));
    }
    let asked = end::source(text, &state.namespace()?).map_err(Failure::wrong_use)?;
    let mut state = source::read(state)?;
    let ends = Ends::find(&asked, &mut state, false).map_err(Failure::no_answer)?;
    let reach = Reach::new(state.cluster());
    for member in &ends.members {
        reach.seats(&member.end).map_err(Failure::no_answer)?;
    }
    let asker = Asker {
        state: &state,
        own: Unit::new(ends.label.clone(), ends.members.clone(), &reach),
        others: units::pods(&state, &reach).into_iter().chain(units::world(&state, &reach)).collect(),
        probes: port_ranges(state.cluster()).into_iter().map(Some).chain([None]).collect(),
        reach: &reach,
    };
    let focus = asker.focus();
    answer(&focus, &state, format.output).print(format)?;
    format::ended(&state, Status::Answered)
}

struct Asker<'a> {
    state: &'a State,
    reach: &'a Reach<'a>,
    own: Unit,
    others: Vec<Unit>,
    probes: Vec<Option<PortRange>>,
}

impl Asker<'_> {
    fn focus(&self) -> Focus {
        let pods: Vec<_> = self.own.members.iter().filter_map(|member| member.pod_of(self.state.cluster())).collect();
        let mut lines = Vec::new();
        if let [pod] = &*pods {
            lines.push(pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
            lines.extend(pod.labels.iter().map(|(key, value)| format!("{key}={value}")).take(6));
            lines
                .extend(pod.ports.iter().map(|port| format!("port {} = {}/{}", port.name, port.number, port.protocol)));
        }
        Focus { name: self.own.name.clone(), lines, ingress: self.direction(true), egress: self.direction(false) }
    }

    fn direction(&self, ingress: bool) -> Direction {
        let quick = Quick::new(self.state.cluster());
        let mut policies = BTreeSet::new();
        for pod in self.own.members.iter().filter_map(|member| member.pod_of(self.state.cluster())) {
            let isolating = quick.isolating(pod, ingress).map(|(policy, _)| policy.name.clone());
            policies.extend(isolating.filter(|_| !pod.host_network));
        }
        let place = |policy| {
            let origin = self.state.cluster().origin(Kind::NetworkPolicy, policy);
            origin.map(|origin| format!("  {origin}")).unwrap_or_default()
        };
        let mut bundles: BTreeMap<(Ports, Ports), Vec<&Unit>> = BTreeMap::new();
        let mut refused = 0;
        let probes = Probes::new(self.reach, &self.probes);
        for other in &self.others {
            let (from, to) = if ingress { (other, &self.own) } else { (&self.own, other) };
            match probes.between(from, to) {
                Some(open) if open.is_empty() => refused += 1,
                Some(Between { all, some }) => bundles.entry((all, some)).or_default().push(other),
                None => {}
            }
        }
        let bundle = |((all, some), units): ((Vec<_>, Vec<_>), Vec<&Unit>)| Bundle {
            by: self.by(ingress, units[0], all.iter().chain(&some)),
            ports: Between { all, some },
            ends: units.iter().map(|unit| unit.name.clone()).collect(),
        };
        let mut bundles: Vec<_> = bundles.into_iter().map(bundle).collect();
        // the most first
        bundles.sort_by_key(|bundle| std::cmp::Reverse((bundle.ports.all.len(), bundle.ports.some.len())));
        Direction {
            policies: policies.iter().map(|policy| format!("{policy}{}", place(policy))).collect(),
            bundles,
            refused,
        }
    }

    /// The rules of this direction that let `other` use the ports.
    fn by<'b>(&self, ingress: bool, other: &Unit, probes: impl Iterator<Item = &'b Option<PortRange>>) -> Vec<String> {
        let mut by = BTreeSet::new();
        let (from, to) = if ingress { (other, &self.own) } else { (&self.own, other) };
        let pairs = units::pairs(from, to);
        for probe in probes {
            let port = representative(*probe);
            let Some((from, to)) = pairs.iter().find(|(from, to)| self.reach.enforced(from, to, port).passes()) else {
                continue;
            };
            let family = Some(from.family);
            let query = Query { source: from.end.clone(), destination: to.end.clone(), port, family };
            for explanation in explain(self.state.cluster(), &query).unwrap_or_default() {
                let judgement = if ingress { explanation.ingress } else { explanation.egress };
                for policy in judgement.policies.iter().filter(|policy| policy.matched) {
                    for rule in policy.rules.iter().filter(|rule| rule.matched) {
                        let path = rule.path.trim_start_matches("spec.");
                        by.insert(format!("{}/{} {path}", policy.namespace, policy.name));
                    }
                }
            }
        }
        by.into_iter().collect()
    }
}

fn answer(focus: &Focus, state: &State, output: Output) -> Answer {
    let mut answer = Answer { kind: "Focus", list: "edges", ..Answer::default() };
    let directions = [("ingress", &focus.ingress), ("egress", &focus.egress)];
    let mut rows = Vec::new();
    let mut edges = Vec::new();
    for (word, direction) in directions {
        for bundle in &direction.bundles {
            rows.push(vec![word.to_owned(), bundle.ports.written(), bundle.ends.join(", "), bundle.by.join(", ")]);
            edges.push(json!({
                "direction": word, "ends": bundle.ends, "by": bundle.by,
                "ports": summary(&bundle.ports.all), "portsOfSome": summary(&bundle.ports.some),
            }));
        }
        let side: Value = json!({"policies": direction.policies, "refused": direction.refused});
        answer.set(word, side);
    }
    answer.set("end", &focus.name);
    answer.set("edges", edges);
    let count = |direction: &Direction| direction.bundles.iter().map(|bundle| bundle.ends.len()).sum::<usize>();
    let said = format!(
        "{} may enter, it may go to {}.",
        plural(count(&focus.ingress), "end", "ends"),
        plural(count(&focus.egress), "end", "ends")
    );
    answer.text = format!("{}\n{said}\n\n", focus.name);
    answer.names = focus.ingress.bundles.iter().chain(&focus.egress.bundles).flat_map(|b| b.ends.clone()).collect();
    answer.table = Some(Table { head: vec!["DIRECTION", "PORTS", "ENDS", "BY"], narrow: 4, rows });
    answer.state(state);
    let (title, summary, footer) =
        (format!("What leads to and from {}", focus.name), [said], [state.summary.to_string()]);
    let words = Words { title: &title, summary: &summary, footer: &footer };
    answer.special = match output {
        Output::Svg => vec![(output, focus::draw(focus, &words))],
        Output::Html => vec![(output, focus::page_of(focus, &words))],
        _ => Vec::new(),
    };
    answer
}
