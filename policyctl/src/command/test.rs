//! `policyctl test`: assertions beside the policies.

use std::fs;

use anyhow::{Context as _, ensure};
use policy_compiler::reach::{PortRange, Reach, port_ranges};
use serde::Deserialize;
use serde_json::json;
use serde_saphyr::Spanned;

use super::{
    can::tally,
    checks::{self, Check},
};
use crate::{
    Failure, Outcome, Status,
    end::{self, Ends},
    format::{self, Answer},
    port::Wanted,
    source::{self, State, plural},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
A file of assertions:
  apiVersion: policyctl/v1
  kind: Test
  allow:
  - shop/deploy/web -> shop/sts/db:5432
  deny:
  - world -> shop/sts/db:any
allow holds if every connection passes, deny if none does; ends and ports are written as for explain.";

/// Flags of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files of assertions
    #[arg(value_name = "FILE", required = true)]
    tests: Vec<String>,
    #[command(flatten)]
    state: source::Args,
    #[command(flatten)]
    format: format::Args,
}

/// A file of assertions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    deny: Vec<Spanned<String>>,
}

/// An assertion with its ends found.
struct Assertion {
    place: String,
    allow: bool,
    text: String,
    /// Why it can't be answered.
    ends: Result<(Ends, Ends, Wanted), String>,
}

/// How an assertion went.
struct Outcomes<'a> {
    assertion: &'a Assertion,
    /// What is wrong; `None` if it holds.
    failure: Option<String>,
}

/// Answers: 0 all hold, 1 some fail.
pub(crate) fn run(args: &Args) -> Outcome {
    let mut files = Vec::new();
    for name in &args.tests {
        files.push((name, read(name).map_err(Failure::wrong_use)?));
    }
    let namespace = args.state.namespace()?;
    let mut state = source::read(&args.state)?;
    let mut assertions = Vec::new();
    for (name, file) in files {
        for (allow, list) in [(true, file.allow), (false, file.deny)] {
            for text in list {
                let place = format!("{name}:{}", text.referenced.line());
                let ends = find(&text.value, &mut state, &namespace).map_err(|error| format!("{error:#}"));
                assertions.push(Assertion { place, allow, text: text.value, ends });
            }
        }
    }
    if assertions.is_empty() {
        return Err(Failure::wrong_use(anyhow::anyhow!("there is not one assertion under allow or deny")));
    }
    let reach = Reach::new(state.cluster());
    let ranges = port_ranges(state.cluster());
    let outcomes: Vec<_> = assertions
        .iter()
        .map(|assertion| Outcomes { assertion, failure: failure(assertion, &reach, &ranges, &state) })
        .collect();
    answer(&outcomes, &state).print(&args.format)?;
    let failed = outcomes.iter().any(|outcome| outcome.failure.is_some());
    format::ended(&state, if failed { Status::Denied } else { Status::Answered })
}

fn read(name: &str) -> anyhow::Result<File> {
    let text = fs::read_to_string(name).with_context(|| format!("{name} can't be read"))?;
    let file: File = serde_saphyr::from_str(&text).map_err(|error| {
        let place = error.location().map(|at| format!(":{}:{}", at.line(), at.column())).unwrap_or_default();
        let message = error.without_snippet().to_string();
        anyhow::anyhow!("{name}{place}: {}", message.split(" at line ").next().unwrap_or_default())
    })?;
    ensure!(
        file.api_version == "policyctl/v1" && file.kind == "Test",
        "{name}: this is no file of assertions; write apiVersion: policyctl/v1 and kind: Test"
    );
    Ok(file)
}

fn find(text: &str, state: &mut State, namespace: &str) -> anyhow::Result<(Ends, Ends, Wanted)> {
    let (source, destination) =
        text.split_once("->").context("an assertion is SOURCE -> DESTINATION:PORT; there is no ->")?;
    let source = end::source(source.trim(), namespace)?;
    let (destination, wanted) = end::destination(destination.trim(), namespace)?;
    let source = Ends::find(&source, state, false)?;
    Ok((source, Ends::find(&destination, state, true)?, wanted.unwrap_or(Wanted::Any)))
}

fn failure(assertion: &Assertion, reach: &Reach<'_>, ranges: &[PortRange], state: &State) -> Option<String> {
    let (source, destination, wanted) = match &assertion.ends {
        Ok(ends) => ends,
        Err(error) => return Some(error.clone()),
    };
    let pod = destination.members.iter().find_map(|member| member.pod_of(state.cluster()));
    let probes: Vec<_> = match (&destination.ports, wanted) {
        (Some(ports), Wanted::Any) => ports.iter().copied().map(Some).collect(),
        _ => wanted.probes(ranges, pod),
    };
    if probes.is_empty() {
        return Some(format!("{} has no such port", destination.label));
    }
    match tally(reach, source, destination, &probes) {
        Err(error) => Some(error.to_string()),
        Ok(tally) if assertion.allow && tally.allowed == tally.asked => None,
        Ok(tally) if !assertion.allow && tally.allowed == 0 && tally.undefined == 0 => None,
        Ok(tally) if tally.undefined > 0 => Some("Kubernetes leaves it open: a hostNetwork pod takes part".to_owned()),
        Ok(tally) if assertion.allow => Some(format!(
            "{} of {} are allowed, the others refused by {}",
            tally.allowed,
            tally.asked,
            tally.refused_by.join(" and ")
        )),
        Ok(tally) => Some(format!("{} of {} are allowed", tally.allowed, tally.asked)),
    }
}

fn answer(outcomes: &[Outcomes<'_>], state: &State) -> Answer {
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let mut answer = Answer { kind: "TestReport", list: "tests", ..Answer::default() };
    for outcome in outcomes {
        let verb = verb(outcome);
        let word = if outcome.failure.is_some() { "FAILED" } else { "ok" };
        answer.text.push_str(&format!("{word:<6}  {verb:<5}  {}\n", outcome.assertion.text));
        if let Some(failure) = &outcome.failure {
            answer.text.push_str(&format!("               {failure}\n               {}\n", outcome.assertion.place));
        }
    }
    let tests = plural(outcomes.len(), "assertion", "assertions");
    answer.text.push_str(&format!("\n{tests}, {failed} failed\n"));
    let element = |outcome: &Outcomes<'_>| {
        json!({
            "assertion": outcome.assertion.text, "expected": verb(outcome), "place": outcome.assertion.place,
            "passed": outcome.failure.is_none(), "failure": outcome.failure,
        })
    };
    answer.set("tests", outcomes.iter().map(element).collect::<Vec<_>>());
    answer.set("failed", failed);
    answer.names =
        outcomes.iter().filter(|outcome| outcome.failure.is_some()).map(|o| o.assertion.text.clone()).collect();
    let checks: Vec<_> = outcomes.iter().map(check).collect();
    answer.special = checks::special(&checks);
    answer.state(state);
    answer
}

fn check(outcome: &Outcomes<'_>) -> Check {
    let place = &outcome.assertion.place;
    Check {
        class: place.rsplit_once(':').map_or("", |(file, _)| file).to_owned(),
        name: format!("{} {}", verb(outcome), outcome.assertion.text),
        failure: outcome.failure.clone(),
        detail: place.clone(),
    }
}

const fn verb(outcome: &Outcomes<'_>) -> &'static str {
    if outcome.assertion.allow { "allow" } else { "deny" }
}
