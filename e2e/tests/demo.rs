//! The demo itself: it succeeds, prints plain text where no terminal is, and leaves nothing behind, also when it is
//! interrupted.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::is_root;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const DEMO: &str = env!("CARGO_BIN_EXE_sluice-demo");

/// What a process of this number has left.
fn leftovers(pid: u32) -> Vec<String> {
    let start = format!("sluice-{pid}-");
    let temporary = std::env::temp_dir();
    [Path::new("/run/netns"), Path::new("/sys/fs/bpf"), &temporary]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&start))
        .collect()
}

#[test]
fn every_result_is_what_the_policies_say() -> Result<()> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return Ok(());
    }
    let demo = Command::new(DEMO).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start it")?;
    let pid = demo.id();
    let output = demo.wait_with_output().context("cannot wait for it")?;
    let said = String::from_utf8(output.stdout).context("the demo prints UTF-8")?;
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the demo failed ({}):\n{said}\n{complained}", output.status);
    assert!(!said.contains('\x1b'), "colours are for terminals:\n{said}");
    assert!(!said.contains("WRONG"), "{said}");
    // Otherwise it might have shown nothing at all.
    for words in ["open", "drop*", "no longer allowed; cut", "allowed; flows on", "is gone", "DENIED"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 100), "a line is longer than 100 columns:\n{said}");
    assert_eq!(leftovers(pid), [""; 0]);
    Ok(())
}

#[test]
fn an_interrupt_removes_everything() -> Result<()> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return Ok(());
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut demo =
            Command::new(DEMO).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cannot start it")?;
        let pid = demo.id();
        let output = demo.stdout.take().context("stdout was asked for")?;
        let mut lines = BufReader::new(output).lines();
        // The second step: the cluster stands and the agent runs.
        ensure!(lines.by_ref().flatten().any(|line| line.starts_with("2  ")), "the demo ended before its second step");
        assert!(!leftovers(pid).is_empty(), "so there is something to remove");
        kill(Pid::from_raw(i32::try_from(pid).context("process numbers are small")?), signal)?;
        // Read to its end, or the demo would die of a closed pipe.
        lines.for_each(drop);
        let status = demo.wait().context("cannot wait for it")?;
        assert_eq!(status.code(), Some(128 + signal as i32), "{signal}");
        assert_eq!(leftovers(pid), [""; 0], "{signal}");
    }
    Ok(())
}
