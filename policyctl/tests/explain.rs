//! `policyctl explain` as the program that is shipped: answers, exit statuses, what goes to which stream.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Two tiers and a policy: web may speak to db on port 5432.
const SHOP: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: web}]}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: db, ports: [{name: postgres, containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.0.0.3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: other, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: stranger}]}
status: {podIPs: [{ip: 10.0.0.4}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-ingress, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 5432}]
  - from: [{podSelector: {matchLabels: {app: backup}}}]
";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }
}

fn policyctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
    command.args(args);
    command
}

fn explain(folder: &Path, args: &[&str]) -> Output {
    policyctl(&["explain", "-f"]).arg(folder).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Asks, and compares the exit status, the beginning of stdout and a part of stderr.
#[track_caller]
fn check(args: &[&str], status: i32, out: &str, err: &str) {
    let folder = Folder::new(&[("shop.yaml", SHOP)]);
    let output = explain(&folder.path(), args);
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert!(stdout(&output).starts_with(out), "{said}");
    assert!(stderr(&output).contains(err), "{said}");
}

#[test]
fn allowed_and_denied() {
    check(&["shop/web", "shop/db:5432"], 0, "ALLOWED", "");
    check(&["shop/web", "shop/db:5433"], 0, "DENIED", "");
    check(&["other/stranger", "shop/db:5432"], 0, "DENIED", "");
    check(&["shop/web", "shop/db:5432/udp"], 0, "DENIED", "");
    check(&["shop/db", "shop/web:80"], 0, "ALLOWED", "");
    check(&["shop/web", "shop/db:icmp"], 0, "DENIED", "");
    check(&["-n", "shop", "web", "db:postgres"], 0, "ALLOWED", "");
    check(&["ip:10.0.0.2", "shop/db:5432"], 0, "ALLOWED", "");
    check(&["ip:192.0.2.1", "shop/db:5432"], 0, "DENIED", "");
    check(&["shop/db", "ip:192.0.2.1:80"], 0, "ALLOWED", "");
}

#[test]
fn a_denial_can_be_an_exit_status() {
    check(&["--exit-code", "shop/web", "shop/db:5432"], 0, "ALLOWED", "");
    check(&["--exit-code", "shop/web", "shop/db:5433"], 1, "DENIED", "");
}

#[test]
fn wrong_use() {
    check(&["shop/web:1", "shop/db:1"], 2, "", "error: \"shop/web:1\" has a port");
    check(&["shop/web", "shop/db:http/80"], 2, "", "is no port");
    check(&["shop/web"], 2, "", "required");
    check(&["--nonsense", "shop/web", "shop/db:1"], 2, "", "--nonsense");
    let output = policyctl(&["explain", "a", "b:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "without -f");
}

#[test]
fn unknown_ends_offer_the_nearest_name() {
    check(&["shop/wbe", "shop/db:5432"], 3, "", "error: there is no pod shop/wbe; did you mean shop/web?");
    check(&["shop/web", "shop/dbx:5432"], 3, "", "did you mean shop/db?");
    check(&["shop/web", "shop/dbx:postgres"], 3, "", "did you mean shop/db?");
    check(&["shop/web", "shop/db:http"], 3, "", "shop/db has no port named \"http\"; it has postgres");
    check(&["node/n9", "shop/db:1"], 3, "", "no node n9");
}

#[test]
fn unreadable_input_is_told_and_the_rest_is_answered() {
    let broken = "apiVersion: v1\nkind: Pod\nmetadata: [";
    let folder = Folder::new(&[("a.yaml", SHOP), ("b.yaml", broken)]);
    let output = explain(&folder.path(), &["shop/web", "shop/db:5432"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stdout(&output).starts_with("ALLOWED"), "{}", stdout(&output));
    assert!(stderr(&output).contains("b.yaml:"), "{}", stderr(&output));

    let output = explain(Path::new("/nonexistent"), &["shop/web", "shop/db:5432"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: /nonexistent can't be read"), "{}", stderr(&output));

    let empty = Folder::new(&[("notes.txt", "nothing")]);
    let output = explain(&empty.path(), &["shop/web", "shop/db:5432"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("holds no file"), "{}", stderr(&output));
}

#[test]
fn folders_files_and_stdin() {
    let policy = &SHOP[SHOP.find("apiVersion: networking").unwrap()..];
    let pods = &SHOP[..SHOP.find("apiVersion: networking").unwrap()];
    let folder = Folder::new(&[("pods/pods.yml", pods), ("pods/.hidden.yaml", policy)]);
    // a folder that links back up is read once
    std::os::unix::fs::symlink("..", folder.path().join("pods/up")).unwrap();
    let output = explain(&folder.path(), &["other/stranger", "shop/db:5432"]);
    assert!(stdout(&output).starts_with("ALLOWED"), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("(3 pods, 0 policies"), "{}", stdout(&output));

    let mut child = policyctl(&["explain", "-f"])
        .arg(folder.path())
        .args(["-f", "-", "other/stranger", "shop/db:5432"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(policy.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(stdout(&output).starts_with("DENIED"), "{}", stdout(&output));
    assert!(stdout(&output).contains("db-ingress"), "{}", stdout(&output));
}

#[test]
fn json() {
    let folder = Folder::new(&[("shop.yaml", SHOP)]);
    let output = explain(&folder.path(), &["-o", "json", "other/stranger", "shop/db:5432"]);
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["apiVersion"], "policyctl/v1");
    assert_eq!(json["kind"], "Explanation");
    assert_eq!(json["verdict"], "Denied");
    assert_eq!(json["decidedBy"], serde_json::json!(["ingress"]));
    assert_eq!(json["ingress"]["policies"][0]["name"], "db-ingress");
    assert_eq!(json["state"]["pods"], 3);
}

#[test]
fn verbose_says_more() {
    let folder = Folder::new(&[("shop.yaml", SHOP)]);
    let short = stdout(&explain(&folder.path(), &["other/stranger", "shop/db:5433"]));
    let long = stdout(&explain(&folder.path(), &["-v", "other/stranger", "shop/db:5433"]));
    assert!(!short.contains("not 5433") && long.contains("not 5433"), "{short}\n{long}");
}
