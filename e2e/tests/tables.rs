//! Class `tables`: every policy case by the reference and by the compiled tables, one test each. No privileges, no
//! network, no kernel.

use std::sync::Arc;

use e2e::connections::{self, Case, Evaluator, Reference, Tables};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::from_args();
    let cases = connections::load()?;
    let trials = cases.into_iter().map(Arc::new).flat_map(|case| {
        [trial("reports", &case, reports), trial("reference", &case, reference), trial("tables", &case, tables)]
    });
    let trials = trials.collect();
    libtest_mimic::run(&arguments, trials).exit()
}

fn trial(evaluator: &str, case: &Arc<Case>, test: fn(&Case) -> Result<(), Failed>) -> Trial {
    let case = case.clone();
    Trial::test(format!("{evaluator}/{}", case.name), move || test(&case))
}

/// What is wrong with the objects is said, and nothing else.
fn reports(case: &Case) -> Result<(), Failed> {
    fail_with(case, &case.wrong_reports())
}

/// Evaluator 1, side by side, and the whole connections that it can be asked for.
fn reference(case: &Case) -> Result<(), Failed> {
    let reference = Reference::of(case);
    sides(case, &reference)?;
    let mut lines = Vec::new();
    for connection in &case.connections {
        if let Some(got) = reference.judge(connection)?.filter(|got| *got != connection.expected) {
            lines.push(format!("{connection}: expected {}, got {got} as a whole", connection.expected));
        }
    }
    fail_with(case, &lines)
}

/// Evaluator 2.
fn tables(case: &Case) -> Result<(), Failed> {
    sides(case, &Tables::of(case))
}

fn sides(case: &Case, evaluator: &impl Evaluator) -> Result<(), Failed> {
    let mismatches = case.check(evaluator)?;
    fail_with(case, &mismatches.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn fail_with(case: &Case, lines: &[String]) -> Result<(), Failed> {
    if lines.is_empty() {
        return Ok(());
    }
    Err(format!("cases/connections/{}.yaml\n  {}\n  tests: {}", case.name, lines.join("\n  "), case.tests.trim())
        .into())
}
