//! What the documentation promises: the commands of `docs/policyctl.md` run, and every JSON answer is as its schema in
//! `docs/schema/` says.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod schema;
#[path = "cluster/server.rs"]
#[expect(dead_code, reason = "the walkthrough asks of nothing that goes wrong")]
mod server;

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use server::Server;

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop");

/// Runs a command in a copy of `tests/shop`, where it may redirect to a file; its cluster is one with the same objects.
fn walk(command: &str, shop: &Path, cluster: &Server) -> (String, i32) {
    let (args, file) = command.split_once(" > ").map_or((command, None), |(args, file)| (args, Some(file)));
    let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(words(args))
        .current_dir(shop)
        .env_remove("POLICYCTL_NAMESPACE")
        .env("KUBECONFIG", cluster.folder().join("kubeconfig"))
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
    if let Some(file) = file {
        fs::write(shop.join(file), &output.stdout).unwrap();
    }
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

/// The words of a command; single quotes hold one together.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for letter in command.chars() {
        match letter {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words
}

fn docs(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file)).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_walkthrough_runs() {
    let text = docs("policyctl.md") + &docs("pictures.md");
    let commands: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("$ policyctl ")).collect();
    assert!(commands.len() > 10, "{commands:?}");
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(SHOP), folder.path());
    let cluster = Server::of("k8s");
    for command in commands {
        let (said, status) = walk(command, folder.path(), &cluster);
        let finds = ["diff", "lint", "test"].iter().any(|name| command.starts_with(name));
        assert_eq!(status, i32::from(finds), "{command}: {said}");
        assert!(said.lines().count() > 0, "{command}");
    }
}

/// Each picture of `docs/pictures.md` is what the command above it draws. `INSTA_UPDATE=always` draws them anew.
#[test]
fn pictures_are_as_they_are_drawn() {
    let text = docs("pictures.md");
    let cluster = Server::of("k8s");
    let mut drawn = 0;
    let mut command = None;
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("$ policyctl ") {
            command = Some(next);
        }
        let Some(file) = line.strip_prefix("![").and_then(|rest| rest.split_once("](")?.1.strip_suffix(')')) else {
            continue;
        };
        let (said, status) = walk(command.take().unwrap(), Path::new(SHOP), &cluster);
        assert!(status == 0 || status == 1, "{file}: {said}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
        if std::env::var_os("INSTA_UPDATE").is_some_and(|wanted| wanted == "always") {
            fs::write(&path, &said).unwrap();
        }
        assert!(fs::read_to_string(&path).unwrap_or_default() == said, "{file} is not what is drawn now");
        drawn += 1;
    }
    assert!(drawn >= 6, "{drawn} pictures");
}

#[test]
fn answers_are_as_their_schemas_say() {
    for (kind, command) in [
        ("Explanation", "explain -f k8s shop/deploy/web shop/db-0:5432"),
        ("Explanation", "explain -f k8s shop/deploy/wbe shop/db-0:5432"),
        ("Explanation", "explain -f k8s shop/cache-0 pay/api-0:8443"),
        ("Explanation", "explain -f k8s web/front-0 shop/cache-0:6379"),
        ("Explanation", "explain -f k8s shop/deploy/web shop/sts/db"),
        ("Explanation", "explain -f k8s shop/deploy/web shop/sts/db:5432"),
        ("Explanation", "explain -f k8s shop/deploy/web shop/svc/db:80"),
        ("Explanation", "explain -f k8s -f host k8s/ingress-y pay/api-0:8443"),
        ("Explanation", "explain -f k8s world shop/db-0:icmp"),
        ("Explanation", "explain -f smells a/dns a/dns:53"),
        ("Can", "can -f k8s shop/deploy/wbe shop/sts/db:9187"),
        ("Reach", "reach -f k8s shop/cache-0"),
        ("Who", "who -f k8s shop/sts/db:5432"),
        ("EffectivePolicy", "effective -f k8s shop/db-0"),
        ("ConnectionList", "list -f k8s"),
        ("Matrix", "matrix -f k8s -f host --ports TCP/80,UDP/53 --ip out=8.8.8.8 --ip six=2001:db8::1"),
        ("Exposure", "exposure -f k8s"),
        ("Graph", "graph -f k8s --denied"),
        ("Focus", "graph -f k8s --focus shop/db-0"),
        ("Diff", "diff k8s new"),
        ("LintReport", "lint -f k8s"),
        ("Version", "version"),
        ("TestReport", "test -f k8s shop.test.yaml"),
        ("ConformanceReport", "conformance cases cases-off"),
        ("ExpectedMatrix", "matrix -f k8s -f host --ports TCP/80,UDP/53 --ip out=8.8.8.8"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_policyctl"))
            .args(command.split(' ').chain(["-o", "json"]))
            .current_dir(SHOP)
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let wrong = schema::faults(kind, &answer);
        assert!(wrong.is_empty(), "{command}: {wrong:#?}");
    }
}
