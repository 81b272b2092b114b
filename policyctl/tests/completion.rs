//! What `kubectl` is told that words of `kubectl netpol` may become.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{os::unix::fs::symlink, process::Command};

/// What is offered after these words, the last of which is unfinished; and the directive.
fn offered(words: &[&str]) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("kubectl_complete-netpol");
    symlink(env!("CARGO_BIN_EXE_policyctl"), &program).unwrap();
    let output = Command::new(&program).args(words).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let directive = lines.pop().unwrap();
    (lines, directive)
}

#[track_caller]
fn check(words: &[&str], expected: &[&str], directive: &str) {
    let (lines, found) = offered(words);
    let names: Vec<_> = lines.iter().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!((names.as_slice(), &*found), (expected, directive), "{words:?}");
}

#[test]
fn commands_flags_and_values_are_offered() {
    check(&["ex"], &["explain", "exposure"], ":4");
    check(&["explain", "--no"], &["--no-headers"], ":4");
    check(&["explain", "a", "b", "-o", "js"], &["json", "jsonl"], ":4");
    check(&["explain", "--output=y"], &["--output=yaml"], ":4");
    check(&["list", "-Ao", "w"], &["wide"], ":4");
    check(&["list", "-f", ""], &[], ":0");
    check(&["conformance", "cas"], &[], ":0");
    check(&["explain", "shop/"], &[], ":4");
    check(&["verify", "--probe", "a", ""], &[], ":4");
    check(&["verify", "--probe", "a", "b", "--probe-l"], &["--probe-limit"], ":4");
    check(&["lint", "--level", ""], &["error", "warning", "info"], ":4");
    check(&["completion", ""], &["bash", "elvish", "fish", "powershell", "zsh"], ":4");
    check(&["nothing", "--like", "th"], &[], ":4");
}

#[test]
fn everything_is_explained() {
    let (lines, _) = offered(&[""]);
    assert!(lines.len() > 18 && lines.iter().all(|line| line.split('\t').nth(1).is_some()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("relay") || line.starts_with("probe")), "{lines:?}");
    let (lines, _) = offered(&[]);
    assert!(lines.len() > 18);
    let (lines, _) = offered(&["explain", "-"]);
    assert!(lines.len() > 10 && lines.iter().all(|line| line.split('\t').nth(1).is_some()), "{lines:?}");
}
