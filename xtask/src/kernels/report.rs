//! What a boot came to, read from what it printed.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context as _, Result};

/// Names of ignored tests that are printed for one reason; of more the log tells.
const NAMES: usize = 6;

/// All of a boot.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// In the order in which they ran.
    targets: Vec<Target>,
    /// What the verifier made of the programs with the usual settings.
    verifier: Vec<Verified>,
    /// Modules that did not load.
    modules: Vec<String>,
}

/// One test target.
#[derive(Debug, Default)]
struct Target {
    name: String,
    passed: usize,
    failed: Vec<String>,
    /// By the reason.
    ignored: BTreeMap<String, Vec<String>>,
    /// What the tests themselves say that they could not show.
    unshown: Vec<String>,
    /// Exit status and seconds; `None` if it didn't end.
    end: Option<(i32, u64)>,
}

/// What the verifier made of one program, as the test `verifier/usual-settings` prints it.
#[derive(Debug)]
struct Verified {
    program: String,
    /// `-` where the kernel doesn't tell.
    instructions: String,
    microseconds: u64,
}

impl Verified {
    /// Out of a line like `sluice-verifier usual PROGRAM INSTRUCTIONS MICROSECONDS`, whatever is before it.
    fn read(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("sluice-verifier usual ")?;
        let mut words = rest.split_whitespace();
        let (program, instructions) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { program, instructions, microseconds: words.next()?.parse().ok()? })
    }
}

impl Report {
    /// Reads the console's file.
    pub(super) fn read(console: &Path) -> Result<Self> {
        let text = fs::read(console).with_context(|| format!("reading {}", console.display()))?;
        Ok(Self::of(&String::from_utf8_lossy(&text).replace('\r', "")))
    }

    fn of(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines() {
            report.verifier.extend(Verified::read(line));
            if let Some(name) = line.strip_prefix("sluice-target ") {
                report.targets.push(Target { name: name.to_owned(), ..Target::default() });
            } else if let Some(module) = line.strip_prefix("sluice-module ") {
                report.modules.push(module.to_owned());
            } else if let Some(target) = report.targets.last_mut() {
                target.read_line(line);
            }
        }
        report
    }

    /// Every target of these ended well, and ran something.
    pub(super) fn passed(&self, targets: usize) -> bool {
        self.modules.is_empty()
            && self.targets.len() == targets
            && self.targets.iter().all(|target| target.end.is_some_and(|(status, _)| status == 0))
            && self.targets.iter().any(|target| target.passed > 0)
    }
}

impl Target {
    fn read_line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("sluice-exit-status ") {
            self.end =
                rest.split_once(' ').and_then(|(status, seconds)| Some((status.parse().ok()?, seconds.parse().ok()?)));
        } else if let Some((_, counts)) = line.split_once("test result: ") {
            let passed = counts.split_once(" passed").and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
            self.passed = passed.unwrap_or(0);
        } else if let Some(at) = ["not run: ", "not shown: ", "skipped: "].iter().find_map(|sign| line.find(sign)) {
            self.unshown.push(line[at..].to_owned());
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            self.read_test(name.trim_end(), result);
        }
    }

    /// A test's reason stands before its name or behind its result.
    fn read_test(&mut self, name: &str, result: &str) {
        let (kind, name) = match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((kind, name)) => (kind, name),
            None => ("", name),
        };
        if let Some(rest) = result.strip_prefix("ignored") {
            let why = rest.strip_prefix(", ").unwrap_or(kind);
            self.ignored.entry(why.to_owned()).or_default().push(name.to_owned());
        } else if result.ends_with("FAILED") {
            self.failed.push(name.to_owned());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for target in &self.targets {
            write!(f, "{target}")?;
        }
        for Verified { program, instructions, microseconds } in &self.verifier {
            writeln!(
                f,
                "  {program:<16} {instructions:>7} instructions verified, loaded in {} ms",
                microseconds / 1000
            )?;
        }
        self.modules.iter().try_for_each(|module| writeln!(f, "  did not load: {module}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ignored: usize = self.ignored.values().map(Vec::len).sum();
        write!(f, "  {:<16} {:>3} passed, {} failed, {ignored} ignored", self.name, self.passed, self.failed.len())?;
        match self.end {
            Some((0, seconds)) => writeln!(f, ", {seconds} s")?,
            Some((status, seconds)) => writeln!(f, ", {seconds} s, exit status {status}")?,
            None => writeln!(f, ", and it did not end")?,
        }
        self.failed.iter().try_for_each(|name| writeln!(f, "    failed: {name}"))?;
        self.unshown.iter().try_for_each(|what| writeln!(f, "    {what}"))?;
        for (why, names) in &self.ignored {
            let colon = if why.is_empty() { "" } else { ": " };
            let names = if names.len() > NAMES { format!("{} tests", names.len()) } else { names.join(", ") };
            writeln!(f, "    ignored{colon}{why}: {names}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "running 3 tests\n\
        sluice-target prog\n\
        test packets/a ... ok\n\
        test verifier/usual-settings ... sluice-verifier usual sluice_to_pod 63926 695000\n\
        ok\n\
        test packets/b ... ignored\n\
        not shown: packets to pods\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.0s\n\
        sluice-exit-status 0 12\n\
        sluice-target kernel\n\
        test [needs Linux 6.6] attach::c ... ignored\n\
        test attach::d ... FAILED\n\
        test e ... ignored, started by another test\n\
        test result: FAILED. 0 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.0s\n\
        sluice-exit-status 101 3\n\
        sluice-target veth\n\
        test f ... not run: BIG TCP\n\
        ok\n";

    #[test]
    fn a_console_tells_what_came_of_each_target() {
        let report = Report::of(CONSOLE);
        let expected = "  prog               2 passed, 0 failed, 1 ignored, 12 s\n    \
            not shown: packets to pods\n    \
            ignored: packets/b\n  \
            kernel             0 passed, 1 failed, 2 ignored, 3 s, exit status 101\n    \
            failed: attach::d\n    \
            ignored: needs Linux 6.6: attach::c\n    \
            ignored: started by another test: e\n  \
            veth               0 passed, 0 failed, 0 ignored, and it did not end\n    \
            not run: BIG TCP\n  \
            sluice_to_pod      63926 instructions verified, loaded in 695 ms\n";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn only_what_ended_well_has_passed() {
        assert!(!Report::of(CONSOLE).passed(3));
        let (first, _) = CONSOLE.split_once("sluice-target kernel").expect("it is there");
        assert!(Report::of(first).passed(1));
        assert!(!Report::of(first).passed(2), "a target never began");
        assert!(!Report::of(&format!("sluice-module veth.ko\n{first}")).passed(1));
        assert!(!Report::of("").passed(0), "nothing ran");
    }
}
