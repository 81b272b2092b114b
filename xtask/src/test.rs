//! `cargo xtask test`: every test there is, by class, each with its time; what could not run, and why; one line at the
//! end that adds it all up.

mod checks;
mod class;
mod runner;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use cargo_metadata::MetadataCommand;
use nix::unistd::geteuid;

pub(crate) use class::{Class, programs};
use runner::Tally;

use crate::{lab, toolchain::Toolchain};

/// What a class that can't run means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipping {
    /// It is named, and the others count.
    Allowed,
    /// It fails.
    Fails,
}

/// Runs `classes`, or all.
pub(crate) fn run(toolchain: &Toolchain, classes: &[Class], skipping: Skipping) -> Result<ExitCode> {
    let chosen: Vec<Class> =
        Class::ALL.into_iter().filter(|class| classes.is_empty() || classes.contains(class)).collect();
    let mut total = Tally::default();
    let mut able = Vec::new();
    for class in chosen {
        match hindrance(toolchain, class)? {
            None => able.push(class),
            Some(why) => {
                total.skip(format!("class {class}"), &why);
                if skipping == Skipping::Fails {
                    total.fail(format!("class {class} could not run"));
                }
            }
        }
    }

    let targets = targets(toolchain)?;
    println!("building what is to be tested");
    let built = Instant::now();
    if !class::build(toolchain, &able, &targets)? {
        total.fail("the build".to_owned());
        return Ok(conclude(&total, &[]));
    }
    println!("built in {}", seconds(built.elapsed()));

    let mut times = Vec::new();
    for class in able {
        println!("\n== {class}: {}", class.about());
        let mut tally = Tally::default();
        for command in class::invocations(toolchain, class, &targets) {
            tally.add(runner::run(command)?);
        }
        let line = format!(
            "{class:<7} {:>8} of {:>4} s   {} passed, {} failed{}",
            seconds(tally.took),
            class.budget().as_secs(),
            tally.passed,
            tally.failed(),
            if tally.took > class.budget() { "   OVER ITS BUDGET" } else { "" }
        );
        println!("{line}");
        times.push(line);
        total.add(tally);
        if class == Class::Unit {
            times.push(checks::run(toolchain, &mut total)?);
        }
    }
    Ok(conclude(&total, &times))
}

/// Why a class can't run here. What one has to have first, beside what is tested, is built for that.
fn hindrance(toolchain: &Toolchain, class: Class) -> Result<Option<String>> {
    if class.needs_root() && !geteuid().is_root() {
        return Ok(Some("needs root".to_owned()));
    }
    if class != Class::Cluster {
        return Ok(None);
    }
    println!("building what a cluster runs, from Go modules, where that has not been done before");
    let start = Instant::now();
    let hindrance = lab::build(toolchain)?;
    println!("done in {}", seconds(start.elapsed()));
    Ok(hindrance)
}

/// Prints the summary.
fn conclude(total: &Tally, times: &[String]) -> ExitCode {
    println!("\n== summary");
    for line in times {
        println!("{line}");
    }
    for (what, why) in &total.skipped {
        println!("skipped: {what}: {why}");
    }
    for what in &total.failures {
        println!("failed: {what}");
    }
    println!("\n{} passed, {} failed", total.passed, total.failed());
    if total.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every test target of the workspace.
fn targets(toolchain: &Toolchain) -> Result<Vec<class::Target>> {
    let metadata =
        MetadataCommand::new().current_dir(&toolchain.root).no_deps().exec().context("cargo metadata failed")?;
    Ok(class::targets(&metadata))
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
