//! `policyctl graph`: a cluster as a picture, or one end with all that leads to and from it (`--focus`).

mod focus;

use std::collections::BTreeSet;

use policy_compiler::reach::{Reach, port_ranges};
use serde_json::{Value, json};

use crate::{
    Failure, Outcome, Status,
    command::units::unit_of,
    format::{self, Answer, Output, Table},
    picture::{
        graph::{
            html,
            model::{Graph, Start},
            source as languages,
            svg::{self, Words},
        },
        grid::{self, Asked, Grid},
    },
    port::summary,
    source::{self, Scope, State, plural},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
Formats: text, json, yaml, csv, md; svg and html draw it; dot and mermaid are for other renderers.
What everybody may enter is said once and not drawn as a line from each. Large clusters fold to namespaces.";

/// Flags of `graph`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state: source::Scoped,
    #[command(flatten)]
    format: format::Args,
    /// One end alone: who may enter, what selects it, where it may go
    #[arg(long, value_name = "POD", conflicts_with_all = ["denied", "expand", "no_nodes", "all_namespaces", "selector"])]
    focus: Option<String>,
    /// Also who is refused at every port
    #[arg(long)]
    denied: bool,
    /// Leave the nodes out
    #[arg(long)]
    no_nodes: bool,
    /// In a picture that is folded: open this namespace or workload (repeatable)
    #[arg(long, value_name = "NAMESPACE|WORKLOAD")]
    expand: Vec<String>,
}

/// Answers.
pub(crate) fn run(args: &Args) -> Outcome {
    if let Some(focus) = &args.focus {
        return focus::run(focus, &args.state.state, &args.format);
    }
    let mut state = source::read_scoped(&args.state)?;
    // who may enter is judged with everybody in view, whatever of it is drawn
    let scope = std::mem::take(&mut state.scope);
    let reach = Reach::new(state.cluster());
    let probes = port_ranges(state.cluster()).into_iter().map(Some).chain([None]).collect();
    let others = grid::outside(&[state.cluster()], !args.no_nodes);
    let grid = Grid::new(&[Asked { state: &state, reach: &reach, others }], probes);
    grid.check(&args.expand).map_err(Failure::no_answer)?;
    let mut graph = Graph::new(&grid, &args.expand, args.denied);
    if !scope.is_everything() {
        let listed = names(&state, &scope);
        // one of several sorts of pods is called by its first
        graph.keep(|card| listed.contains(card.name.split(" and ").next().unwrap_or_default()));
    }
    let note = (!scope.is_everything()).then_some(CHOSEN);
    answer(&graph, &state, note, args.format.output).print(&args.format)?;
    format::ended(&state, Status::Answered)
}

/// What pods that are to be listed are drawn as: themselves, their workloads, their namespaces.
fn names(state: &State, scope: &Scope) -> BTreeSet<String> {
    let pods = state.cluster().pods.values().filter(|pod| scope.has(pod)).map(|pod| &pod.name);
    pods.flat_map(|pod| [pod.to_string(), unit_of(state, pod), pod.namespace.to_string()]).collect()
}

/// What is said of a graph of a part.
const CHOSEN: &str =
    "Only what is chosen is shown, with what has a line to or from it; what else lets everyone in is left out.";

fn answer(graph: &Graph, state: &State, note: Option<&str>, output: Output) -> Answer {
    let mut answer = Answer { kind: "Graph", list: "edges", ..Answer::default() };
    let inside = || graph.cards.iter().filter(|card| !graph.groups[card.group].outside);
    let folded = inside().filter(|card| card.folded).count();
    let what = match (folded, inside().count() - folded) {
        (0, count) => plural(count, "workload", "workloads"),
        (folded, 0) => plural(folded, "namespace", "namespaces"),
        (folded, count) => {
            format!("{} and {}", plural(folded, "namespace", "namespaces"), plural(count, "workload", "workloads"))
        }
    };
    let open = inside().filter(|card| !card.protected).count();
    let restricted = inside().filter(|card| card.restricted).count();
    let mut lines = vec![format!("{what}; {open} refuse nobody, the egress of {restricted} is restricted.")];
    lines.extend(note.map(str::to_owned));
    let mut rows = Vec::new();
    let mut edges = Vec::new();
    for (to, card) in graph.cards.iter().enumerate() {
        for row in &card.rows {
            let mut from: Vec<String> = row.everyone.iter().map(|everyone| everyone.name().to_owned()).collect();
            from.extend(graph.bundled(to, row).into_iter().map(|start| match start {
                Start::Card(own) if own == to => "each other".to_owned(),
                start => graph.name(start),
            }));
            let ports = if row.denied { "refused".to_owned() } else { row.ports.written() };
            rows.push(vec![from.join(", "), card.name.clone(), ports]);
            edges.push(json!({
                "from": row.from.iter().map(|from| &*graph.cards[*from].name).collect::<Vec<_>>(),
                "everyone": row.everyone.map(|everyone| everyone.name()),
                "to": card.name,
                "ports": summary(&row.ports.all), "portsOfSome": summary(&row.ports.some),
                "verdict": if row.denied { "Denied" } else { "Allowed" },
            }));
        }
    }
    let free = graph.cards.iter().filter(|card| card.says_where());
    rows.extend(free.map(|card| vec![card.name.clone(), "anywhere".to_owned(), summary(&card.anywhere)]));
    let node = |card: &crate::picture::graph::model::Card| -> Value {
        let group = &graph.groups[card.group];
        json!({
            "name": card.name, "group": group.name, "outside": group.outside, "folded": card.folded, "pods": card.pods,
            "protected": card.protected, "restricted": card.restricted, "anywhere": summary(&card.anywhere),
        })
    };
    answer.set("nodes", graph.cards.iter().map(node).collect::<Vec<_>>());
    answer.set("edges", edges);
    answer.text = format!("{}\n\n", lines.join("\n"));
    answer.names = graph.cards.iter().map(|card| card.name.clone()).collect();
    answer.table = Some(Table { head: vec!["SOURCE", "DESTINATION", "PORTS"], narrow: 3, rows });
    answer.state(state);
    let footer = [state.summary.to_string()];
    let words = Words { title: "What network policies let through", summary: &lines, footer: &footer };
    let drawn = match output {
        Output::Svg => svg::draw(graph, &words),
        Output::Html => html::page_of(graph, &words),
        Output::Dot => languages::dot(graph),
        Output::Mermaid => languages::mermaid(graph),
        _ => return answer,
    };
    answer.special = vec![(output, drawn)];
    answer
}
