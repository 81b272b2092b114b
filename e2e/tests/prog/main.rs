//! Class `prog`: the packet program judged by test run. One test for each packet case, one for each connection case, and
//! those that don't fit into data.
//!
//! The class fails as a whole if no packet to a pod was dropped: where a kernel doesn't take `ingress_ifindex` from the
//! test run's context, every packet to a pod is the node's own, passes, and shows nothing.

mod fixture;
mod fuzz;
mod limits;
mod reuse;

use std::{process::ExitCode, sync::atomic::Ordering};

use anyhow::{Context as _, Result};
use e2e::packets::{
    devices,
    program::{INGRESS_DENIALS, Program},
};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match tests(&arguments) {
        Ok(trials) => {
            let conclusion = libtest_mimic::run(&arguments, trials);
            let whole = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list;
            if whole && INGRESS_DENIALS.load(Ordering::Relaxed) == 0 {
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
    let hz = if arguments.list {
        1000
    } else {
        devices::enter_private_network()?;
        Program::hz().context("finding out how long a jiffy is")?
    };
    let mut trials = Vec::new();
    e2e::packets::case::load()?; //CASES
    for (name, test) in [reuse::TESTS, limits::TESTS, fuzz::TESTS].concat() {
        trials.push(trial(name.to_string(), move || test(hz)));
    }
    Ok(trials)
}

fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| format!("{error:?}").into()))
}
