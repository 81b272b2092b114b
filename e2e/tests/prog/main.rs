//! Class `prog`: the packet program judged by test run. One test for each packet case, one for each connection case, and
//! those that don't fit into data.
//!
//! The class fails as a whole if no packet to a pod was dropped: where a kernel doesn't take `ingress_ifindex` from the
//! test run's context, every packet to a pod is the node's own, passes, and shows nothing. On a kernel that is known for
//! that, the tests that need it are ignored, by name, and the class says what it has not shown.

mod agree;
mod counts;
mod fixture;
mod fuzz;
mod limits;
mod reuse;
mod verifier;

use std::{
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    connections::{self, Case},
    packets::{
        case,
        connection::Kernel,
        devices,
        program::{INGRESS_DENIALS, Program},
        run,
    },
};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match tests(&arguments) {
        Ok(trials) => {
            let conclusion = libtest_mimic::run(&arguments, trials);
            let whole = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list;
            if whole && !Program::takes_origin().unwrap_or(true) {
                println!("not shown: packets to pods, whose origin this kernel takes in no test run");
            } else if whole && INGRESS_DENIALS.load(Ordering::Relaxed) == 0 {
                eprintln!("no packet to a pod was ever dropped: this kernel shows nothing about ingress by test run");
                return ExitCode::FAILURE;
            }
            conclusion.exit_code()
        }
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn tests(arguments: &Arguments) -> Result<Vec<Trial>> {
    // listing needs neither root nor a kernel
    let (hz, origin) = if arguments.list {
        (1000, true)
    } else {
        devices::enter_private_network()?;
        (Program::hz().context("finding out how long a jiffy is")?, Program::takes_origin()?)
    };
    let mut trials = Vec::new();
    for case in case::load()? {
        let ignored = !origin && case.needs_origin();
        let trial = trial(format!("packets/{}", case.name), move || run::run(&case, hz));
        trials.push(trial.with_ignored_flag(ignored));
    }
    for (name, test) in verifier::TESTS {
        trials.push(trial((*name).to_owned(), move || test(hz)));
    }
    let mut of_both = |name, test: Box<dyn FnOnce() -> Result<()> + Send>| {
        trials.push(trial(name, test).with_ignored_flag(!origin));
    };
    for case in connections::load()? {
        let case = Arc::new(case);
        let same = case.clone();
        of_both(format!("connections/{}", case.name), Box::new(move || connections_of(&case, hz)));
        of_both(format!("agree/{}", same.name), Box::new(move || agree::agree(&same, hz)));
    }
    for (name, test) in [reuse::TESTS, limits::TESTS, fuzz::TESTS, counts::TESTS].concat() {
        of_both(name.to_string(), Box::new(move || test(hz)));
    }
    Ok(trials)
}

/// Evaluator 3.
fn connections_of(case: &Case, hz: u64) -> Result<()> {
    let mismatches = case.check(&Kernel::of(case, hz))?;
    let lines: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    ensure!(
        lines.is_empty(),
        "cases/connections/{}.yaml\n  {}\n  tests: {}",
        case.name,
        lines.join("\n  "),
        case.tests
    );
    Ok(())
}

fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| format!("{error:?}").into()))
}
