//! `policyctl can`: yes or no, as an exit status too.

use policy_compiler::reach::{Cell, Reach};

use crate::{
    Failure, Outcome, Status,
    command::Question,
    end,
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
    let reach = Reach::new(question.state.cluster());
    let (mut allowed, mut asked, mut undefined, mut refused_by) = (0, 0, 0, Vec::new());
    for source in &question.source.members {
        for destination in &question.destination.members {
            let sources = reach.seats(&source.end).map_err(Failure::no_answer)?;
            let destinations = reach.seats(&destination.end).map_err(Failure::no_answer)?;
            for from in &sources {
                for to in destinations.iter().filter(|to| to.family == from.family) {
                    for probe in &probes {
                        let cell = reach.judge(from, to, representative(*probe));
                        asked += 1;
                        allowed += usize::from(cell.passes());
                        undefined += usize::from(cell == Cell::Undefined);
                        let sides: &[&str] = match cell {
                            Cell::Egress => &["egress"],
                            Cell::Ingress => &["ingress"],
                            Cell::Both => &["egress", "ingress"],
                            _ => &[],
                        };
                        refused_by.extend(
                            sides.iter().filter(|side| !refused_by.contains(*side)).copied().collect::<Vec<_>>(),
                        );
                    }
                }
            }
        }
    }
    if asked == 0 {
        let (source, destination) = (&question.source.label, &question.destination.label);
        return Err(Failure::no_answer(anyhow::anyhow!(
            "{source} and {destination} have no address of the same family"
        )));
    }
    let (word, status) = match (allowed == asked, undefined) {
        (true, _) => ("yes", Status::Answered),
        (false, 1..) if allowed + undefined == asked => ("undefined", Status::NoAnswer),
        _ => ("no", Status::Denied),
    };
    refused_by.sort_unstable();
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
