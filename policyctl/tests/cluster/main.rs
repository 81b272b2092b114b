//! States that are asked of an API server, and put aside as snapshots: what they answer, and what is said when there is
//! no answer.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

#[path = "../said/mod.rs"]
mod said;
#[path = "../schema/mod.rs"]
mod schema;
#[expect(dead_code, reason = "pods are probed where there are agents")]
mod server;

use std::{ffi::OsStr, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use said::{Said, said};
use serde_json::{Value, json};
use server::{Proxy, Server};

impl Said {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!((self.status, &*self.stderr), (0, ""), "{}", self.stdout);
        self.stdout
    }

    #[track_caller]
    fn fails(self, status: i32, words: &str) {
        assert_eq!((self.status, &*self.stdout), (status, ""), "{}", self.stderr);
        assert!(self.stderr.contains(words), "{}", self.stderr);
    }
}

/// A command beside the files, with nothing of the caller's own configuration.
fn policyctl(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
    command.args(args.split_whitespace()).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shop"));
    for variable in
        ["POLICYCTL_NAMESPACE", "KUBERNETES_SERVICE_HOST", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"]
    {
        command.env_remove(variable);
    }
    command.env("HOME", "/nonexistent").env_remove("KUBECONFIG");
    command
}

/// Asks the cluster that a kubeconfig names.
fn ask(kubeconfig: impl AsRef<OsStr>, args: &str) -> Said {
    let mut command = policyctl(args);
    command.env("KUBECONFIG", kubeconfig);
    said(command)
}

impl Server {
    fn ask(&self, args: &str) -> Said {
        ask(self.folder().join("kubeconfig"), args)
    }
}

/// An answer without what it was asked of.
#[track_caller]
fn answer(said: Said) -> Value {
    let mut answer: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("{}", said.stderr));
    answer.as_object_mut().unwrap().retain(|field, _| field != "state");
    answer
}

const QUESTIONS: [&str; 6] = [
    "list -o json",
    "matrix -o json --ip out=8.8.8.8",
    "can -o json shop/deploy/wbe shop/sts/db:5432",
    "can -o json shop/deploy/web shop/svc/db:80",
    "who -o json shop/sts/db:5432",
    "reach -o json shop/cache-0",
];

#[test]
fn a_cluster_answers_as_its_files_do() {
    let server = Server::of("k8s");
    for question in QUESTIONS {
        let of_files = answer(said(policyctl(&format!("{question} -f k8s"))));
        assert_eq!(answer(server.ask(question)), of_files, "{question}");
        assert_eq!(answer(server.ask(&format!("{question} --cluster"))), of_files, "{question}");
    }
    let state = server.ask("list -o json").ok();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["state"]["source"], "cluster");
    assert_eq!(state["state"]["context"], "lab");
    assert_eq!(state["state"]["server"], format!("http://{}", server.address));
    assert_eq!(state["state"]["resourceVersion"], "1012");
    assert_eq!((&state["state"]["pods"], &state["state"]["policies"]), (&json!(8), &json!(6)));
}

#[test]
fn nothing_of_a_cluster_has_a_line() {
    let server = Server::of("k8s");
    let said = server.ask("explain -v shop/deploy/wbe shop/db-0:5432");
    assert!(said.stderr.contains("\n  3 namespaces\n  2 nodes\n  8 pods (1 in "), "{}", said.stderr);
    let text = said.stdout;
    assert!(text.starts_with("DENIED") && text.contains("fix") && text.contains("cluster lab (8 pods"), "{text}");
    assert!(!text.contains(":0") && !text.contains("()") && !text.contains(".yaml"), "{text}");
    let text = server.ask("effective shop/db-0").ok();
    assert!(text.contains("db-ingress") && !text.contains(":0"), "{text}");
}

#[test]
fn lists_come_by_pages_and_begin_again_when_these_expire() {
    let server = Server::of("k8s");
    let whole = answer(server.ask("list -o json"));
    let before = server.requests().len();
    server.page(2, 1);
    assert_eq!(answer(server.ask("list -o json")), whole);
    let requests = server.requests().split_off(before);
    let pods = requests.iter().filter(|request| request.starts_with("/api/v1/pods?")).count();
    assert!(pods >= 3, "{requests:?}");
    assert!(requests.iter().any(|request| request.contains("continue=2")), "{requests:?}");
    server.page(2, 100);
    server.ask("list").fails(3, "expire");
}

#[test]
fn what_may_not_be_listed_is_named() {
    let server = Server::of("k8s");
    server.refuse("/apis/apps/v1/deployments", 403);
    server.refuse("/apis/batch/v1/cronjobs", 404);
    let without = server.ask("can shop/deploy/wbe shop/db-0:5432");
    assert!(without.stderr.starts_with("warning: you may not list deployments.apps, cronjobs.batch: "));
    server.refuse("/api/v1/nodes", 403);
    server.refuse("/apis/networking.k8s.io/v1/networkpolicies", 403);
    let words = "error: you may not list nodes, networkpolicies.networking.k8s.io: ask for a ClusterRole";
    server.ask("list").fails(3, words);
}

#[test]
fn a_cluster_out_of_reach_is_no_answer() {
    let server = Server::of("k8s");
    server.silence("/api/v1/pods");
    server.ask("list --request-timeout 200ms").fails(3, "has not answered within 0.2 s; --request-timeout");
    let gone = server.kubeconfig(&json!({"server": "http://127.0.0.1:1"}), &json!({}), &json!({}));
    ask(gone, "list").fails(3, "the cluster at http://127.0.0.1:1 can't be reached: ");
}

#[test]
fn odd_answers_are_told() {
    let server = Server::of("k8s");
    server.refuse("/api/v1/pods", 500);
    server.ask("list").fails(3, "refuses to tell pods (500: no)");
    let server = Server::of("k8s");
    server.refuse("/api/v1/pods", 404);
    server.ask("list").fails(3, "serves no pods; is it the address of a Kubernetes API server?");
    for body in
        ["<html>", "{}", "[]", r#"{"items": [7]}"#, r#"{"metadata": {"resourceVersion": "1"}, "items": {"a": 1}}"#, ""]
    {
        let server = Server::of("k8s");
        server.say(body);
        server.ask("list").fails(3, "can't be read");
    }
}

#[test]
fn credentials_come_from_where_the_kubeconfig_says() {
    let server = Server::of("k8s");
    server.require_token("t0p");
    server.ask("list").fails(3, "refuses the credentials (401 Unauthorized); log in again");
    server.kubeconfig(&json!({}), &json!({"token": "t0p"}), &json!({}));
    server.ask("list").ok();
    let plugin = |script: &str| {
        let path = server.folder().join("plugin");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "Never",
        });
        server.kubeconfig(&json!({}), &json!({"exec": exec}), &json!({}));
    };
    plugin(
        r#"echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t0p"}}'"#,
    );
    server.ask("list").ok();
    plugin("echo 'your session has ended' >&2; exit 1");
    server.ask("list").fails(3, "your session has ended");
}

#[test]
fn kubeconfigs_are_merged_as_kubectl_merges_them() {
    let server = Server::of("k8s");
    let folder = server.folder();
    let other = folder.join("other");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "elsewhere",
        "clusters": [{"name": "d", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "elsewhere", "context": {"cluster": "d", "namespace": "shop"}}],
    });
    fs::write(&other, text.to_string()).unwrap();
    let paths = |paths: &[&Path]| std::env::join_paths(paths).unwrap();
    let own = folder.join("kubeconfig");
    let missing = folder.join("missing");
    ask(paths(&[&missing, &own, &other]), "list").ok();
    ask(paths(&[&other, &own]), "list --request-timeout 1s").fails(3, "127.0.0.1:1 can't be reached");
    ask(paths(&[&other, &own]), "list --context lab").ok();
    ask(paths(&[&other, &own]), "list --context lap").fails(2, "there is no context \"lap\"; there are elsewhere, lab");
    ask(&missing, "list").fails(2, "there is no cluster to ask: KUBECONFIG names no cluster");
    let said = said(policyctl(&format!("list --kubeconfig {}", own.display())));
    said.ok();
    fs::write(&other, "a: [").unwrap();
    ask(&other, "list").fails(2, "other can't be read: ");
}

#[test]
fn the_context_says_the_namespace() {
    let server = Server::of("k8s");
    let question = "can -o json deploy/wbe svc/db:80";
    server.ask(question).fails(3, "default/wbe");
    server.kubeconfig(&json!({}), &json!({}), &json!({"namespace": "shop"}));
    assert_eq!(answer(server.ask(question))["answer"], "no");
    server.ask(&format!("{question} -n web")).fails(3, "web/wbe");
}

#[test]
fn proxies_are_used_as_they_are_named() {
    let server = Server::of("k8s");
    let proxy = Proxy::new();
    let url = format!("http://{}", proxy.address);
    // the loopback is never reached through the environment's proxy
    let mut command = policyctl("list");
    command.env("KUBECONFIG", server.folder().join("kubeconfig")).env("HTTP_PROXY", &url);
    said(command).ok();
    assert!(proxy.asked.lock().unwrap().is_empty());
    server.kubeconfig(&json!({"proxy-url": url}), &json!({}), &json!({}));
    server.ask("list").ok();
    let asked = proxy.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|line| *line == format!("CONNECT {} HTTP/1.1\r\n", server.address)), "{asked:?}");
    assert!(!asked.is_empty());
}

#[test]
fn snapshots_answer_as_their_cluster_did() {
    let server = Server::of("k8s");
    let secret = json!([{"name": "PASSWORD", "value": "secret"}]);
    server.put(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "aaa", "namespace": "shop", "labels": {"app": "web"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "secret"}},
        "spec": {"containers": [{"name": "c", "image": "secret", "args": ["--secret"], "env": secret}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.1.0.77"}]},
    }));
    server.put(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "later", "namespace": "shop"},
        "spec": {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "env": secret}]}}},
    }));
    for format in ["yaml", "json"] {
        let text = server.ask(&format!("snapshot -o {format}")).ok();
        assert!(!text.contains("secret") && text.contains("aaa") && text.contains("resourceVersion"), "{text}");
        let path = server.folder().join(format);
        fs::write(&path, &text).unwrap();
        for question in QUESTIONS {
            let live = answer(server.ask(question));
            for flag in ["--snapshot", "-f"] {
                let put_aside = said(policyctl(&format!("{question} {flag} {}", path.display())));
                assert_eq!(put_aside.stderr, "");
                assert_eq!(answer(put_aside), live, "{question} {flag}");
            }
        }
        let text = said(policyctl(&format!("list --snapshot {}", path.display()))).ok();
        assert!(text.contains("of cluster lab at 20") && text.contains(" (10 pods, 6 policies)"), "{text}");
        let broken = server.folder().join("broken");
        fs::write(&broken, &fs::read_to_string(&path).unwrap()[..900]).unwrap();
        let said = said(policyctl(&format!("list --snapshot {}", broken.display())));
        assert_eq!(said.status, 2, "{} {}", said.stdout, said.stderr);
    }
    let wrong = "list --snapshot k8s/db.yaml";
    said(policyctl(wrong)).fails(2, "k8s/db.yaml is no snapshot; make one with policyctl snapshot > FILE");
}

/// A snapshot without the time.
fn timeless(text: &str) -> String {
    text.lines().filter(|line| !line.contains("takenAt")).collect::<Vec<_>>().join("\n")
}

#[test]
fn snapshots_of_one_state_are_alike() {
    let server = Server::of("k8s");
    for format in ["yaml", "json"] {
        let command = format!("snapshot -o {format}");
        let first = server.ask(&command).ok();
        server.reverse();
        server.page(3, 0);
        assert_eq!(timeless(&server.ask(&command).ok()), timeless(&first));
        let first = first.replace(&server.address.to_string(), "ADDRESS");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("snapshot_{format}"), timeless(&first));
        });
    }
}

#[test]
fn a_template_is_filled_in_from_a_snapshot() {
    let server = Server::of("k8s");
    let names = server.ask("snapshot -o jsonpath={.items[?(@.kind=='Pod')].metadata.name}").ok();
    assert_eq!(names.split_whitespace().count(), 6, "{names}");
    server.ask("snapshot -o wide").fails(2, "[possible values: yaml, json, jsonpath=TEMPLATE]");
    server.ask("snapshot -o jsonpath={.items").fails(2, "jsonpath");
}

#[test]
fn a_change_is_compared_with_the_cluster() {
    let server = Server::of("k8s");
    let of_files = answer(said(policyctl("diff -o json k8s new")));
    let of_cluster = answer(server.ask("diff --cluster -o json -f new"));
    assert_eq!(of_cluster["changes"], of_files["changes"]);
    assert_eq!(server.ask("diff -f new -q").status, 1);
    assert_eq!(server.ask("diff -f k8s -q").status, 0);
    let without = answer(server.ask("diff -o json --without shop/db-ingress"));
    assert!(without["changes"].to_string().contains("shop/db-ingress removed"), "{without}");
    assert_eq!(without["old"]["source"], "cluster");
    server.ask("diff").fails(2, "say what to compare");
    let snapshot = server.folder().join("snapshot");
    fs::write(&snapshot, server.ask("snapshot").ok()).unwrap();
    let of_snapshot = answer(said(policyctl(&format!("diff -o json --snapshot {} -f new", snapshot.display()))));
    assert_eq!(of_snapshot["changes"], of_files["changes"]);
}

#[test]
fn what_if_works_on_a_cluster() {
    let server = Server::of("k8s");
    let question = "can shop/deploy/wbe shop/db-0:5432";
    assert_eq!(server.ask(question).status, 1);
    assert_eq!(server.ask(&format!("{question} --with fix.yaml")).status, 0);
    let text = server.ask("explain --with fix.yaml shop/deploy/wbe shop/db-0:5432").ok();
    assert!(text.contains("state: cluster lab with fix.yaml"), "{text}");
}

#[test]
fn as_of_tells_which_state_was_used() {
    let server = Server::of("k8s");
    let told = server.ask("can -q --as-of shop/deploy/web shop/db-0:5432");
    let start = format!(
        "state: cluster lab (8 pods, 6 policies) at http://{}, resourceVersion 1012, taken at 20",
        server.address
    );
    assert!(told.stderr.starts_with(&start), "{}", told.stderr);
    let told = said(policyctl("can -q --as-of -f k8s shop/deploy/web shop/db-0:5432"));
    assert!(told.stderr.starts_with("state: k8s (8 pods, 6 policies, API defaults applied), read at 20"));
    assert_eq!((told.stdout.as_str(), told.status), ("", 0));
}

#[test]
fn answers_about_clusters_are_as_their_schemas_say() {
    let server = Server::of("k8s");
    let snapshot = server.folder().join("snapshot");
    let text = server.ask("snapshot -o json").ok();
    fs::write(&snapshot, &text).unwrap();
    assert_eq!(schema::faults("Snapshot", &serde_json::from_str(&text).unwrap()), [""; 0]);
    for (kind, command) in [
        ("Explanation", "explain shop/deploy/wbe shop/db-0:5432"),
        ("Can", "can shop/deploy/wbe shop/sts/db:9187"),
        ("ConnectionList", "list"),
        ("LintReport", "lint"),
        ("Diff", "diff -f new"),
    ] {
        for flags in [String::new(), format!(" --snapshot {}", snapshot.display())] {
            let said = server.ask(&format!("{command} -o json{flags}"));
            let answer: Value = serde_json::from_str(&said.stdout).unwrap();
            assert_eq!(schema::faults(kind, &answer), [""; 0], "{command}{flags}");
        }
    }
}

#[test]
fn the_servers_version_is_asked_only_if_that_is_asked() {
    let server = Server::of("k8s");
    let text = server.ask("version").ok();
    assert!(text.starts_with("policyctl ") && server.requests().is_empty(), "{text}");
    server.say(
        r#"{"major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "c", "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1", "compiler": "gc", "platform": "linux/amd64"}"#,
    );
    let text = server.ask("version --server").ok();
    assert!(text.ends_with(&format!("server    v1.36.2 at http://{}\n", server.address)), "{text}");
    let answer: Value = serde_json::from_str(&server.ask("version --server -o json").ok()).unwrap();
    assert_eq!(schema::faults("Version", &answer), [""; 0]);
    server.refuse("/version", 403);
    let said = server.ask("version --server");
    assert_eq!(said.status, 3);
    assert!(said.stdout.starts_with("policyctl ") && said.stderr.starts_with("error: "), "{}", said.stderr);
}

#[test]
fn it_is_a_plugin_where_it_is_called_one() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-netpol");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_policyctl"), &plugin).unwrap();
    let run = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&plugin, &["--help"]).contains("Usage: kubectl netpol <COMMAND>"));
    assert!(run(&plugin, &["explain", "--help"]).contains("Usage: kubectl netpol explain [OPTIONS]"));
    assert!(run(&plugin, &["list", "--wrong"]).contains("Usage: kubectl netpol list"));
    let own = Path::new(env!("CARGO_BIN_EXE_policyctl"));
    assert!(run(own, &["explain", "--help"]).contains("Usage: policyctl explain [OPTIONS]"));
}

#[test]
fn pipes_get_no_progress() {
    let server = Server::of("k8s");
    server.silence("/api/v1/pods");
    let said = server.ask("list --request-timeout 1500ms");
    assert!(said.stderr.starts_with("error: ") && !said.stderr.contains('\r'), "{:?}", said.stderr);
}
