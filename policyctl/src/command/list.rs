//! `policyctl list`: all allowed connections, workloads folded.

use policy_compiler::reach::{Reach, port_ranges};
use serde_json::json;

use super::units::{self, Probes};
use crate::{
    Outcome, Status,
    format::{self, Answer, Table},
    port::summary,
    progress::Progress,
    source,
};

/// Flags of `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    state: source::Scoped,
    #[command(flatten)]
    format: format::Args,
    /// Only connections to or from ends whose name begins like this, such as `shop/`
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
}

/// Answers.
pub(crate) fn run(args: &Args) -> Outcome {
    let state = source::read_scoped(&args.state)?;
    let reach = Reach::new(state.cluster());
    let ranges: Vec<_> = port_ranges(state.cluster()).into_iter().map(Some).chain([None]).collect();
    let probes = Probes::new(&reach, &ranges);
    let pods = units::pods(&state, &reach);
    let world = units::world(&state, &reach);
    let mut rows = Vec::new();
    let mut elements = Vec::new();
    let is_wanted = |unit: &units::Unit| {
        args.only.as_ref().is_none_or(|only| unit.name.starts_with(only.as_str())) && unit.is_listed(&state)
    };
    let mut progress = Progress::begin();
    for (done, from) in pods.iter().chain(&world).enumerate() {
        progress.tell(|| format!("{done} of {} clients judged", pods.len() + world.len()));
        for to in pods.iter().chain(&world) {
            let outside = |unit: &units::Unit| world.iter().any(|other| other.name == unit.name);
            if (outside(from) && outside(to)) || !(is_wanted(from) || is_wanted(to)) {
                continue;
            }
            let Some(open) = probes.between(from, to).filter(|open| !open.is_empty()) else { continue };
            rows.push(vec![from.name.clone(), to.name.clone(), open.written()]);
            elements.push(json!({
                "source": from.name,
                "destination": to.name,
                "ports": summary(&open.all),
                "portsOfSome": summary(&open.some),
            }));
        }
    }
    drop(progress);
    let mut answer = Answer {
        kind: "ConnectionList",
        list: "connections",
        names: rows.iter().map(|row| format!("{} -> {}", row[0], row[1])).collect(),
        table: Some(Table { head: vec!["SOURCE", "DESTINATION", "PORTS"], narrow: 3, rows }),
        ..Answer::default()
    };
    answer.set("connections", elements);
    answer.state(&state);
    answer.print(&args.format)?;
    format::ended(&state, Status::Answered)
}
