//! `policyctl can`: yes or no, as an exit status too.

use anyhow::ensure;
use policy_compiler::reach::{Cell, PortRange, Reach};

use crate::{
    Failure, Outcome, Status,
    command::Question,
    end,
    end::Ends,
    format::{self, Answer},
    port::{Wanted, representative, summary},
    source,
};

/// Flags of `can`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who opens the connection
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to, with its port
    #[arg(value_name = "DESTINATION:PORT")]
    destination: String,
    #[command(flatten)]
    state: source::Args,
    #[command(flatten)]
    format: format::Args,
}

/// Answers: 0 yes, 1 no, 3 Kubernetes leaves it open.
pub(crate) fn run(args: &Args) -> Outcome {
    let question = Question::ask(&args.source, &args.destination, &args.state)?;
    if question.wanted == Wanted::Any && !args.destination.ends_with(":any") && question.destination.ports.is_none() {
        return Err(Failure::wrong_use(end::Error::PortMissing(args.destination.clone())));
    }
    let probes = question.probes()?;
    let reach = Reach::of(question.state.cluster(), question.size(probes.len()));
    let Tally { allowed, asked, undefined, refused_by } =
        tally(&reach, &question.source, &question.destination, &probes).map_err(Failure::no_answer)?;
    let (word, status) = match (allowed == asked, undefined) {
        (true, _) => ("yes", Status::Answered),
        (false, 1..) if allowed + undefined == asked => ("undefined", Status::NoAnswer),
        _ => ("no", Status::Denied),
    };
    let what = format!("{} -> {}  {}", question.source.label, question.destination.label, summary(&probes));
    let why = match (word, allowed) {
        ("yes", _) => String::new(),
        ("undefined", _) => {
            "  Kubernetes leaves open whether a hostNetwork pod counts as a pod or as its node".to_owned()
        }
        (_, 0) => format!("  refused by {}", refused_by.join(" and ")),
        _ => format!(
            "  {allowed} of {asked} connections are allowed, the others refused by {}",
            refused_by.join(" and ")
        ),
    };
    let mut answer = Answer { kind: "Can", text: format!("{word}  {what}{why}\n"), ..Answer::default() };
    answer.set("answer", word);
    answer.set("source", &question.source.label);
    answer.set("destination", &question.destination.label);
    answer.set("ports", summary(&probes));
    answer.set("allowed", allowed);
    answer.set("asked", asked);
    answer.set("refusedBy", refused_by);
    answer.set("state", &question.state.summary);
    answer.print(&args.format)?;
    format::ended(&question.state, status)
}

/// What becomes of all connections between two ends.
pub(crate) struct Tally {
    pub(crate) allowed: usize,
    pub(crate) asked: usize,
    pub(crate) undefined: usize,
    pub(crate) refused_by: Vec<&'static str>,
}

/// Judges all of them; an error if there are none.
pub(crate) fn tally(
    reach: &Reach<'_>,
    source: &Ends,
    destination: &Ends,
    probes: &[Option<PortRange>],
) -> anyhow::Result<Tally> {
    let mut tally = Tally { allowed: 0, asked: 0, undefined: 0, refused_by: Vec::new() };
    for from in &source.members {
        let sources = reach.seats(&from.end)?;
        for to in &destination.members {
            let destinations = reach.seats(&to.end)?;
            for from in &sources {
                for to in destinations.iter().filter(|to| to.family == from.family) {
                    probes.iter().for_each(|probe| tally.add(reach.judge(from, to, representative(*probe))));
                }
            }
        }
    }
    ensure!(tally.asked > 0, "{} and {} have no address of the same family", source.label, destination.label);
    tally.refused_by.sort_unstable();
    tally.refused_by.dedup();
    Ok(tally)
}

impl Tally {
    fn add(&mut self, cell: Cell) {
        self.asked += 1;
        self.allowed += usize::from(cell.passes());
        self.undefined += usize::from(cell == Cell::Undefined);
        if matches!(cell, Cell::Egress | Cell::Both) {
            self.refused_by.push("egress");
        }
        if matches!(cell, Cell::Ingress | Cell::Both) {
            self.refused_by.push("ingress");
        }
    }
}
