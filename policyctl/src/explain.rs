//! `policyctl explain`: asks the compiler's own explanation, and prints it as text or JSON.

use policy_compiler::explain::{Explanation, Query, Verdict, explain, render};
use serde_json::json;

use crate::{Status, ends, source};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
Ends:
  web                     a pod of the namespace that -n names
  shop/web                a pod
  svc/db, shop/svc/db     a Service, by its cluster IP
  node/n1                 a node
  ip:10.0.0.1, ip:[fd00::1]   any address; pods are recognised by theirs
Ports, after the destination:
  :5432  :53/udp  :http (a named port)  :icmp (a protocol without ports)

Exit status:
  0 answered   1 denied, only with --exit-code   2 wrong use or invalid input   3 no such end";

/// Flags of `explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who opens the connection
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to, with its port
    #[arg(value_name = "DESTINATION:PORT[/PROTOCOL]")]
    destination: String,
    #[command(flatten)]
    state: source::Args,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
    /// Also the rules that took no part, and what each of them failed on
    #[arg(short, long)]
    verbose: bool,
    /// End with status 1 if the connection is denied
    #[arg(long)]
    exit_code: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

type Failure = (Status, anyhow::Error);

/// Answers. Errors of the input are told, and the answer is given all the same, for what could be read.
pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let wrong_use = |error: ends::Error| (Status::BadInput, error.into());
    let source = ends::source(&args.source, &args.state.namespace).map_err(wrong_use)?;
    let (destination, port) = ends::destination(&args.destination, &args.state.namespace).map_err(wrong_use)?;
    let input = source::read(&args.state).map_err(|error| (Status::BadInput, error))?;
    let port = ends::resolve(input.cluster(), &destination, port).map_err(|error| (Status::NoAnswer, error.into()))?;
    let query = Query { source, destination, port, family: None };
    let explanations = explain(input.cluster(), &query).map_err(|error| (Status::NoAnswer, error.into()))?;
    match args.output {
        Output::Text => println!("{}\n{}", render(&explanations, args.verbose), input.summary),
        Output::Json => println!("{:#}", to_json(&explanations, &input)),
    }
    Ok(if input.has_errors {
        Status::BadInput
    } else if args.exit_code && verdict(&explanations) != "Allowed" {
        Status::Denied
    } else {
        Status::Answered
    })
}

/// Over all address families.
fn verdict(explanations: &[Explanation]) -> &'static str {
    let denied = explanations.iter().filter(|explanation| explanation.verdict == Verdict::Denied).count();
    match denied {
        0 => "Allowed",
        all if all == explanations.len() => "Denied",
        _ => "Partly",
    }
}

fn to_json(explanations: &[Explanation], input: &source::State) -> serde_json::Value {
    json!({
        "apiVersion": "policyctl/v1",
        "kind": "Explanation",
        "verdict": verdict(explanations),
        "results": explanations,
        "state": input.summary,
    })
}
