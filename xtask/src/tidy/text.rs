//! What a file must look like: its first line, its length, and words that only some files may use.

use std::path::Path;

use super::{Finding, Source};

/// Past this a file has more than one subject.
const LINES: usize = 600;

/// The prefix of the verdicts that the kernel understands; spelt so that this file doesn't use it.
const VERDICT: &str = concat!("TC_", "ACT_");
/// The one file that may name them.
const VERDICT_FILE: &str = "enforcer-ebpf/src/verdict.rs";

/// Where unsafe code may be: the packet program, the plain-data impls of the shared layouts, one module of the loader.
const UNSAFE: [&str; 4] = ["enforcer-ebpf", "enforcer-abi/src/user.rs", "enforcer/src/sys", "enforcer/src/sys.rs"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let at = |line: usize, message: String| Finding { file: source.file.clone(), line, message };
    let mut findings = Vec::new();
    if !source.text.starts_with("//!") {
        findings.push(at(1, "does not open with `//!` and what it owns".to_owned()));
    }
    let count = source.text.lines().count();
    if count > LINES {
        findings.push(at(LINES + 1, format!("has {count} lines; past {LINES} a file wants to be two")));
    }
    let may_be_unsafe = UNSAFE.iter().any(|path| source.file.starts_with(path));
    for (index, line) in source.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if !may_be_unsafe && words(code).any(|word| word == concat!("un", "safe")) {
            findings.push(at(
                index + 1,
                "code that the compiler can't vouch for has its own places: see UNSAFE in xtask".to_owned(),
            ));
        }
        if source.file != Path::new(VERDICT_FILE) && words(code).any(|word| word.starts_with(VERDICT)) {
            findings.push(at(index + 1, format!("{VERDICT}* is named in {VERDICT_FILE} alone; use its `Verdict`")));
        }
    }
    findings
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character: char| !character.is_alphanumeric() && character != '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn lines(file: &str, text: &str, expected: &[usize]) {
        let found: Vec<usize> = check(&Source { file: file.into(), text: text.to_owned() })
            .into_iter()
            .map(|finding| finding.line)
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_says_what_it_owns() {
        lines("a/src/lib.rs", "//! A.\n", &[]);
        lines("a/src/lib.rs", "use std::fs;\n", &[1]);
    }

    #[test]
    fn a_file_has_an_end() {
        lines("a/src/lib.rs", &format!("//! A.{}", "\n//".repeat(LINES - 1)), &[]);
        lines("a/src/lib.rs", &format!("//! A.{}", "\n//".repeat(LINES)), &[LINES + 1]);
    }

    #[test]
    fn words_have_their_places() {
        let text = format!("//! A.\nlet a = {VERDICT}OK; // {VERDICT}SHOT\n{} {{}}\n", concat!("un", "safe"));
        lines("enforcer/src/lib.rs", &text, &[2, 3]);
        lines("enforcer-ebpf/src/verdict.rs", &text, &[]);
        lines("enforcer-ebpf/src/main.rs", &text, &[2]);
        lines("a/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]\n", &[]);
    }
}
