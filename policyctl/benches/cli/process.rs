//! One run of a program: [`measure`]. The kernel tells the memory of all children that were waited for together
//! (getrusage(2)), so each run is started by a process of its own, this program with [`ONCE`].

use std::{
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};

/// The argument that has the rest started once.
pub(crate) const ONCE: &str = "--once";

/// What a run took.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// From its start to its end.
    pub(crate) millis: f64,
    /// The most that was resident.
    pub(crate) megabytes: f64,
    /// The beginning of what it said.
    pub(crate) stdout: String,
}

/// Runs a command, which is to end with `status` if one is given.
pub(crate) fn measure(command: &[String], status: Option<i32>) -> Result<Run> {
    let own = std::env::current_exe().context("where is this program?")?;
    let output = Command::new(own).arg(ONCE).args(command).output().context("cannot start a run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let (head, stdout) = text.split_once('\n').with_context(|| format!("a run said nothing: {stderr}"))?;
    let fields: Vec<&str> = head.split(' ').collect();
    let [millis, kilobytes, ended] = *fields else { anyhow::bail!("a run said {head:?}: {stderr}") };
    ensure!(
        status.is_none_or(|status| ended == status.to_string()),
        "{} ended with {ended}: {stderr}",
        command.join(" ")
    );
    let kilobytes: f64 = kilobytes.parse().context("kilobytes")?;
    let megabytes = kilobytes * 1024.0 / 1e6;
    Ok(Run { millis: millis.parse().context("milliseconds")?, megabytes, stdout: stdout.to_owned() })
}

/// Runs a command, and prints milliseconds, kilobytes and exit status, then the beginning of its output.
pub(crate) fn once(command: &[String]) -> Result<ExitCode> {
    let [program, arguments @ ..] = command else { anyhow::bail!("{ONCE} wants a command") };
    let answer = tempfile::tempfile().context("no file for the answer")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(answer.try_clone().context("the answer's file")?);
    let start = Instant::now();
    let status = command.spawn().with_context(|| format!("cannot start {program}"))?.wait().context("waiting")?;
    let taken = start.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let code = status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
    println!("{} {} {code}", taken.as_secs_f64() * 1e3, usage.max_rss());
    print!("{}", beginning(answer).context("the answer")?);
    Ok(ExitCode::SUCCESS)
}

fn beginning(mut answer: std::fs::File) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    answer.rewind()?;
    answer.take(8192).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
