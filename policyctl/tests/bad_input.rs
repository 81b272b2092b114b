//! Input that nobody meant: each ends with an error that says where and what, soon, and in little memory.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{
    fs,
    process::{Command, Output},
};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {app: a}}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, labels: {app: b}}
status: {podIPs: [{ip: 10.0.0.2}]}
";

/// Memory that a question may take: far above what it does, far below what a bomb asks for.
const MEMORY: u64 = 600_000_000;

/// Asks `can shop/a shop/b:80` of the pods and one more file, with an end to its memory.
fn ask(name: &str, bytes: &[u8]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a-pods.yaml"), PODS).unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    limited(&["can", "-f", ".", "shop/a", "shop/b:80"]).current_dir(folder.path()).output().unwrap()
}

/// The program under a limit (prlimit(1) of util-linux).
fn limited(args: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={MEMORY}")).arg(env!("CARGO_BIN_EXE_policyctl")).args(args);
    command
}

/// What is said of a file beside two pods that may speak to each other.
#[track_caller]
fn check(name: &str, bytes: &[u8], status: i32, expected: &[&str]) {
    let output = ask(name, bytes);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    for wanted in expected {
        assert!(stderr.contains(wanted), "{wanted:?} is not in\n{}", stderr.chars().take(2000).collect::<String>());
    }
    if expected.is_empty() {
        assert_eq!(stderr, "");
    }
}

#[test]
fn what_windows_and_editors_add_is_fine() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  \
                  podSelector: {matchLabels: {app: b}}\n";
    check("p.yaml", policy.replace('\n', "\r\n").as_bytes(), 1, &[]);
    check("p.yaml", format!("\u{feff}{policy}").as_bytes(), 1, &[]);
    check("p.yaml", format!("{policy}\n\t\n").as_bytes(), 1, &[]);
}

#[test]
fn tabs_and_repeated_and_unknown_fields() {
    check(
        "p.yaml",
        b"apiVersion: v1\nkind: Pod\nmetadata:\n\tname: x\n",
        2,
        &["p.yaml:4:2: error: document 1: tabs disallowed within this context"],
    );
    let twice = b"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nmetadata: {name: y}\n";
    check("p.yaml", twice, 2, &["p.yaml:4:1: error: ", "metadata: the field is there more than once; keep one"]);
    let unknown =
        b"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  \
                    podSelector: {}\n  ingres: [{}]\n";
    check("p.yaml", unknown, 2, &["p.yaml:6:3: error: ", "spec.ingres: there is no such field; write ingress"]);
}

#[test]
fn files_that_are_no_manifests() {
    check("p.yaml", b"\x7fELF\x02\x01\x01\0\0\xff\xfe", 2, &["p.yaml:1:1: error: ", "not text in UTF-8"]);
    check("p.yaml", &[0; 4096], 2, &["p.yaml:"]);
    check("p.json", b"{\"apiVersion\": ", 2, &["p.json:1:"]);
    check("p.yaml", b"just some words\n", 2, &["p.yaml:1:1: error: "]);
}

/// What comes through a pipe has a name too.
#[test]
fn what_is_wrong_with_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, format!("{PODS}---\napiVersion: v1\nkind: Pod\nmetadata:\n\tname: x\n")).unwrap();
    let output =
        limited(&["can", "-f", "-", "shop/a", "shop/b:80"]).stdin(fs::File::open(&text).unwrap()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("stdin:15:2: error: document 3: tabs disallowed"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().next().unwrap().split(' ').next(), Some("yes"));
}

/// The aliases of nine levels would be a thousand million values.
#[test]
fn bombs() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let alias = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [&*alias; 10].join(", ")));
    }
    check("bomb.yaml", text.as_bytes(), 2, &["bomb.yaml:"]);
    check("deep.yaml", "[".repeat(200_000).as_bytes(), 2, &["deep.yaml:"]);
    check("deep.json", "{\"a\":".repeat(200_000).as_bytes(), 2, &["deep.json:"]);
    let long = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\n", "x".repeat(5_000_000));
    check("long.yaml", long.as_bytes(), 2, &["long.yaml:1:1: error: document 1: one object of more than 4 MB"]);
}

/// A file of 100 MB in one document, and one that is larger still and full of nothing.
#[test]
fn large_files() {
    let line = "- {a: [1, 2, 3], b: {c: d}, e: 'f', g: \"h\", i: *j}\n";
    let dense = format!("x: &j 1\ny:\n{}", line.repeat(90_000_000 / line.len()));
    check("dense.yaml", dense.as_bytes(), 2, &["dense.yaml:1:1: error: document 1: one object of more than 4 MB"]);
    drop(dense);
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("p.yaml")).unwrap().set_len(100_000_001).unwrap();
    let output = limited(&["can", "-f", ".", "shop/a", "shop/b:80"]).current_dir(folder.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("p.yaml holds more than 100 MB; leave out what verdicts don't depend on"), "{stderr}");
}

#[test]
fn ends_that_are_not_there_or_several() {
    let folder = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| {
        let output = limited(args).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, stderr) = said(&["can", "-f", ".", "shop/a", "shop/b:80"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains(". holds no file whose name ends in .yaml, .yml or .json"), "{stderr}");
    fs::write(folder.path().join("p.yaml"), format!("{PODS}---\n{}", PODS.replace("shop", "pay"))).unwrap();
    let (status, stderr) = said(&["can", "-f", ".", "shop/a", "shop/bb:80"]);
    assert_eq!(status, Some(3));
    assert!(stderr.contains("there is no pod shop/bb; did you mean"), "{stderr}");
    // a name without its namespace may be one of several
    let (status, stderr) = said(&["can", "-f", ".", "a", "shop/b:80"]);
    assert_eq!(status, Some(3));
    assert!(stderr.contains("pay/a") && stderr.contains("shop/a"), "{stderr}");
}
