//! What needs a kernel: root, a BPF file system (mounted if it isn't) and `ip` and `tc`. Every test lives in network
//! namespaces and a pin folder of its own, which end with it however it ends. Tests of what a kernel doesn't have are
//! ignored on it, by name.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// The functions of a module as its tests, each by its own name: `tests![one, another needs Tcx]`.
macro_rules! tests {
    ($($name:ident $(needs $feature:ident)?),* $(,)?) => {
        [$($crate::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            needs: [$(crate::Feature::$feature)?].as_slice(),
            run: $name,
        }),*]
    };
}

mod attach;
mod clock;
mod grow;
mod lifecycle;
mod support;
mod survey;
mod tables;
mod unattended;
mod veths;

/// A test, which panics if what it is about isn't so.
struct Test {
    /// Begins with the crate's name.
    name: &'static str,
    needs: &'static [Feature],
    run: fn(),
}

/// What not every kernel has.
#[derive(Clone, Copy, Debug)]
enum Feature {
    Tcx,
}

impl Feature {
    fn is_there(self) -> bool {
        match self {
            Self::Tcx => support::has_tcx(),
        }
    }

    /// Why a test that needs it is ignored.
    const fn reason(self) -> &'static str {
        match self {
            Self::Tcx => "needs TCX, which Linux has from 6.6",
        }
    }
}

fn main() -> ExitCode {
    if let Some(pin_dir) = std::env::var_os(lifecycle::CHILD) {
        lifecycle::child_that_is_killed(&pin_dir);
        return ExitCode::SUCCESS;
    }
    let modules = [
        attach::TESTS,
        clock::TESTS,
        grow::TESTS,
        lifecycle::TESTS,
        survey::TESTS,
        tables::TESTS,
        unattended::TESTS,
        veths::TESTS,
    ];
    let trials = modules.into_iter().flatten().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(test: &'static Test) -> Trial {
    let name = test.name.split_once("::").map_or(test.name, |(_, name)| name);
    let trial = Trial::test(name, || {
        (test.run)();
        Ok(())
    });
    match test.needs.iter().find(|feature| !feature.is_there()) {
        Some(feature) => trial.with_kind(feature.reason()).with_ignored_flag(true),
        None => trial,
    }
}
