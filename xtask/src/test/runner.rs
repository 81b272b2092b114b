//! Runs one `cargo test` and counts what its runners say.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// What came of some tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: usize,
    /// What the runners say that they took: without cargo, its lock and what it may build.
    pub(super) took: Duration,
    /// What failed, by name.
    pub(super) failures: Vec<String>,
    /// What did not run, and why.
    pub(super) skipped: Vec<(String, String)>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.took += other.took;
        self.failures.extend(other.failures);
        self.skipped.extend(other.skipped);
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failures.push(what);
    }

    pub(super) fn skip(&mut self, what: String, why: &str) {
        self.skipped.push((what, why.to_owned()));
    }

    pub(super) fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Takes in a line that a runner prints; whether a reader wants to see it.
    fn read(&mut self, line: &str) -> bool {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += before(counts, "passed").and_then(|count| count.parse().ok()).unwrap_or(0);
            self.took += after(counts, "finished in ").map_or(Duration::ZERO, Duration::from_secs_f64);
            return true;
        }
        // A runner that knows before its tests what it can't do.
        if let Some((what, why)) = line.strip_prefix("skipped: ").and_then(|rest| rest.split_once(": ")) {
            self.skip(what.to_owned(), why);
            return false;
        }
        let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else {
            return !line.is_empty() && !line.starts_with("running ");
        };
        match result.split(',').next().unwrap_or(result) {
            "ok" => false,
            "ignored" => {
                let why = result.split_once(", ").map_or("no reason is given", |(_, why)| why);
                self.skip(name.to_owned(), why);
                false
            }
            "FAILED" => {
                self.fail(name.to_owned());
                true
            }
            _ => true,
        }
    }
}

/// Runs it, and shows of its output all but the tests that pass.
pub(super) fn run(mut command: Command) -> Result<Tally> {
    let what: Vec<String> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    // Every target runs, also after one that failed. Not `--quiet`: that hides the names.
    command.arg("--no-fail-fast").stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("stdout was asked for")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read what cargo prints")?;
        if tally.read(&line) {
            println!("{line}");
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && tally.failures.is_empty() {
        // A runner that died has no result of its own.
        tally.fail(format!("cargo {} ({status})", what.join(" ")));
    }
    Ok(tally)
}

/// The word before `word`, as in `ok. 8 passed; 0 failed`.
fn before<'a>(counts: &'a str, word: &str) -> Option<&'a str> {
    let words: Vec<&str> = counts.split([' ', ';']).filter(|part| !part.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == word).map(|pair| pair[0])
}

/// The seconds after `words`, as in `finished in 0.01s`.
fn after(counts: &str, words: &str) -> Option<f64> {
    let (_, rest) = counts.split_once(words)?;
    rest.split('s').next()?.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_runners_say() {
        let mut tally = Tally::default();
        let said = "skipped: the cases over SCTP: the kernel has none\n\
                    running 4 tests\n\
                    test a::b ... ok\n\
                    test c ... FAILED\n\
                    test d ... ignored, needs a kernel from 6.6\n\
                    test e - f (line 3) ... ok\n\
                    test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
                    test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n";
        let shown: Vec<bool> = said.lines().map(|line| tally.read(line)).collect();
        assert_eq!(shown, [false, false, false, true, false, false, true, true]);
        assert_eq!(tally.passed, 7);
        assert_eq!(tally.took, Duration::from_millis(1510));
        assert_eq!(tally.failures, ["c"]);
        let skipped = [("the cases over SCTP", "the kernel has none"), ("d", "needs a kernel from 6.6")];
        assert_eq!(tally.skipped, skipped.map(|(what, why)| (what.to_owned(), why.to_owned())));
    }
}
