//! `policyctl reach` and `policyctl who`: everything that an end may open, everybody who may open it.

use policy_compiler::reach::{PortRange, Reach, port_ranges};
use serde_json::json;

use super::units::{self, Between, Probes, Unit};
use crate::{
    Failure, Outcome, Status, end,
    end::Ends,
    format::{self, Answer, Table},
    port::{Wanted, summary},
    source::{self, State},
};

/// Flags of `reach`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReachArgs {
    /// Who opens connections
    #[arg(value_name = "SOURCE")]
    source: String,
    #[command(flatten)]
    state: source::Args,
    #[command(flatten)]
    format: format::Args,
}

/// Flags of `who`.
#[derive(Debug, clap::Args)]
pub(crate) struct WhoArgs {
    /// Where connections are opened to
    #[arg(value_name = "DESTINATION[:PORT]")]
    destination: String,
    #[command(flatten)]
    state: source::Args,
    #[command(flatten)]
    format: format::Args,
}

/// Answers `reach`.
pub(crate) fn reach(args: &ReachArgs) -> Outcome {
    let asked = end::source(&args.source, &args.state.namespace()?).map_err(Failure::wrong_use)?;
    let mut state = source::read(&args.state)?;
    let ends = Ends::find(&asked, &mut state, false).map_err(Failure::no_answer)?;
    let probes: Vec<_> = port_ranges(state.cluster()).into_iter().map(Some).chain([None]).collect();
    let found = Found { state: &state, ends: &ends, probes: &probes, outgoing: true };
    found.print(&args.format)
}

/// Answers `who`.
pub(crate) fn who(args: &WhoArgs) -> Outcome {
    let (asked, port) = end::destination(&args.destination, &args.state.namespace()?).map_err(Failure::wrong_use)?;
    let mut state = source::read(&args.state)?;
    // the pods behind a Service, since clients of every node are asked about
    let ends = Ends::find(&asked, &mut state, true).map_err(Failure::no_answer)?;
    let ranges = port_ranges(state.cluster());
    let wanted = port.unwrap_or(Wanted::Any);
    let pod = ends.members.iter().find_map(|member| member.pod_of(state.cluster()));
    let probes = match (&ends.ports, &wanted) {
        (Some(ports), Wanted::Any) => ports.iter().copied().map(Some).collect(),
        _ => wanted.probes(&ranges, pod),
    };
    if probes.is_empty() {
        return Err(Failure::no_answer(anyhow::anyhow!("{} has no such port", ends.label)));
    }
    let found = Found { state: &state, ends: &ends, probes: &probes, outgoing: false };
    found.print(&args.format)
}

struct Found<'a> {
    state: &'a State,
    ends: &'a Ends,
    probes: &'a [Option<PortRange>],
    /// From the ends, not to them.
    outgoing: bool,
}

impl Found<'_> {
    fn rows(&self) -> Result<Vec<(Unit, Between)>, Failure> {
        let reach = Reach::new(self.state.cluster());
        for member in &self.ends.members {
            reach.seats(&member.end).map_err(Failure::no_answer)?;
        }
        let own = Unit::new(self.ends.label.clone(), self.ends.members.clone(), &reach);
        let mut all = units::pods(self.state, &reach);
        all.extend(units::world(self.state, &reach));
        let probes = Probes::new(&reach, self.probes);
        let rows = all.into_iter().filter_map(|unit| {
            let (from, to) = if self.outgoing { (&own, &unit) } else { (&unit, &own) };
            let between = probes.between(from, to)?;
            Some((unit, between))
        });
        Ok(rows.collect())
    }

    fn print(&self, args: &format::Args) -> Outcome {
        let rows = self.rows()?;
        let label = &self.ends.label;
        let asked = rows.len();
        let open: Vec<_> = rows.into_iter().filter(|(_, between)| !between.is_empty()).collect();
        let (kind, head, list) =
            if self.outgoing { ("Reach", "DESTINATION", "destinations") } else { ("Who", "SOURCE", "sources") };
        let what = summary(self.probes);
        let first = if self.outgoing {
            format!("{label} may open connections to {} of {asked} ends\n\n", open.len())
        } else {
            format!("{} of {asked} ends may open connections to {label}  {what}\n\n", open.len())
        };
        let row = |(unit, between): &(Unit, Between)| {
            let pods: Vec<_> = unit.members.iter().map(|member| member.name.clone()).collect();
            vec![unit.name.clone(), between.written(), pods.join(", ")]
        };
        let table = Table { head: vec![head, "PORTS", "PODS"], narrow: 2, rows: open.iter().map(row).collect() };
        let mut answer = Answer {
            kind,
            list,
            text: first,
            table: Some(table).filter(|table| !table.rows.is_empty()),
            names: open.iter().map(|(unit, _)| unit.name.clone()).collect(),
            ..Answer::default()
        };
        answer.set("end", label);
        answer.set("asked", asked);
        let element = |(unit, between): &(Unit, Between)| {
            json!({
                "name": unit.name,
                "members": unit.members.iter().map(|member| &member.name).collect::<Vec<_>>(),
                "ports": summary(&between.all),
                "portsOfSome": summary(&between.some),
            })
        };
        answer.set(list, open.iter().map(element).collect::<Vec<_>>());
        answer.state(self.state);
        answer.print(args)?;
        format::ended(self.state, Status::Answered)
    }
}
