//! Class `veth`: the policy cases that ask for it with real sockets between network namespaces and real agents, one test
//! each. Tests take turns in as many arenas as there are threads.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use e2e::{
    bed::is_root,
    connections::{self, Arena, Case},
};
use libtest_mimic::{Arguments, Failed, Trial};

/// Tests for each processor at once. Most of the time one waits for what may not come.
const AT_ONCE: usize = 3;

type Arenas = Arc<Mutex<Vec<Arena>>>;

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments
        .test_threads
        .or_else(|| thread::available_parallelism().ok().map(|processors| AT_ONCE * processors.get()));
    if !is_root() && !arguments.list {
        eprintln!("skipped: needs root");
        return Ok(());
    }
    let arenas = Arenas::default();
    let cases = connections::load()?.into_iter().filter(|case| case.sockets);
    let trials = cases.map(|case| {
        let arenas = arenas.clone();
        Trial::test(case.name.clone(), move || in_arena(&arenas, &case))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Leaving the process would leave their namespaces.
    drop(std::mem::take(&mut *arenas.lock().unwrap_or_else(PoisonError::into_inner)));
    conclusion.exit()
}

/// An arena in which a case went wrong is not used again.
fn in_arena(arenas: &Arenas, case: &Case) -> Result<(), Failed> {
    let free = arenas.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut arena = free.map_or_else(Arena::create, Ok).map_err(described)?;
    let wrong = arena.run(case).map_err(described)?;
    arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
    if wrong.is_empty() {
        return Ok(());
    }
    let lines = wrong.join("\n  ");
    Err(format!("cases/connections/{}.yaml\n  {lines}\n  tests: {}", case.name, case.tests.trim()).into())
}

fn described(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}
