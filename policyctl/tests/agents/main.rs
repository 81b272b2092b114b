//! What is said of agents: by sockets that answer what a real agent once has, about one node with three pods and a policy.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod nodes;
#[path = "../said/mod.rs"]
mod said;
#[path = "../schema/mod.rs"]
mod schema;
#[path = "../cluster/server.rs"]
#[expect(dead_code, reason = "the agents' cluster does nothing wrong")]
mod server;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use serde_json::Value;
use server::Server;
use tempfile::TempDir;

/// An agent that has said its last.
struct Recorded {
    folder: TempDir,
    /// Of another cluster altogether.
    cluster: Server,
}

impl Recorded {
    /// `loaded` is the file that says what its kernel holds.
    fn start(loaded: &'static str) -> Self {
        Self::replying(move |request| reply(request.split(' ').nth(1).unwrap(), loaded))
    }

    /// One that answers everything so.
    fn serve(answer: fn(&str) -> String) -> Self {
        Self::replying(move |request| format!("HTTP/1.0 200 OK\r\n\r\n{}", answer(request)))
    }

    /// `reply` is told the first line of a request.
    fn replying(reply: impl Fn(&str) -> String + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = BufReader::new(connection.unwrap());
                let mut request = String::new();
                connection.read_line(&mut request).unwrap();
                // whoever asked may have heard enough
                let _ = write!(connection.get_mut(), "{}", reply(&request));
            }
        });
        Self { folder, cluster: Server::of("k8s") }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    fn ask(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
        command.args(args.split(' ')).arg("--agent").arg(self.socket()).env_remove("POLICYCTL_NAMESPACE");
        command.env("KUBECONFIG", self.cluster.folder().join("kubeconfig"));
        command.output().unwrap()
    }

    /// All that is said, with the socket's path made short.
    fn said(&self, args: &str) -> String {
        let Output { status, stdout, stderr } = self.ask(args);
        let stderr = String::from_utf8(stderr).unwrap();
        let stderr = if stderr.is_empty() { stderr } else { format!("--- stderr\n{stderr}") };
        let stdout = String::from_utf8(stdout).unwrap();
        let said = format!("$ policyctl {args}\n{stdout}{stderr}--- status {}\n", status.code().unwrap());
        let said = said.replace(&self.socket().display().to_string(), "SOCKET");
        let time = said.split_once("policyctl-probe-").and_then(|(_, rest)| rest.split([',', ' ', '"']).next());
        time.map(|time| said.replace(time, "TIME")).unwrap_or(said)
    }
}

/// What an agent answers at `path`.
fn reply(path: &str, loaded: &str) -> String {
    let (status, body) = match path.split('?').next().unwrap() {
        "/state" => ("200 OK", recorded("state.json")),
        "/events" if path.contains("pod=old") => ("404 Not Found", String::new()),
        "/events" if path.contains("verdict=denied") => {
            let all = recorded("events.jsonl");
            let denied = all.lines().filter(|line| !line.contains(r#""kind":"flow""#));
            ("200 OK", denied.map(|line| format!("{line}\n")).collect())
        }
        "/events" => ("200 OK", recorded("events.jsonl")),
        "/v1/objects" => ("200 OK", recorded("objects.jsonl")),
        "/v1/tables" if path.ends_with("compiled") => ("200 OK", recorded("compiled.jsonl")),
        _ => ("200 OK", recorded(loaded)),
    };
    format!("HTTP/1.0 {status}\r\n\r\n{body}")
}

fn recorded(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents/n1").join(file)).unwrap()
}

#[track_caller]
fn check(name: &str, loaded: &'static str, args: &str) {
    check_with(name, &Recorded::start(loaded), args);
}

#[track_caller]
fn check_with(name: &str, agent: &Recorded, args: &str) {
    let said = agent.said(args);
    insta::with_settings!({
        prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "../snapshots"
    }, {
        insta::assert_snapshot!(name, said);
    });
}

#[test]
fn status() {
    check("agent_status", "loaded.jsonl", "status");
    check("agent_status_wide", "loaded.jsonl", "status -o wide");
    check("agent_status_json", "loaded.jsonl", "status -o json");
}

#[test]
fn verify() {
    check("agent_verify", "loaded.jsonl", "verify");
    check("agent_verify_difference", "tampered.jsonl", "verify");
    check("agent_verify_csv", "tampered.jsonl", "verify -o csv");
}

#[test]
fn probes() {
    let probe = |agent: &Recorded, name: &str, ends: &[&str], more: &str| {
        let ends: Vec<_> = ends.iter().map(|ends| format!(" --probe {ends}")).collect();
        check_with(name, agent, &format!("verify --probe-image i{}{more}", ends.concat()));
    };
    let agent = Recorded::start("loaded.jsonl");
    agent.cluster.finds("TCP/10.1.0.11:6379", "answered");
    agent.cluster.finds("TCP/10.1.0.11:80", "refused");
    agent.cluster.finds("UDP/10.1.0.11:53", "refused");
    let good = ["web/front-0 shop/cache-0:6379", "web/front-0 shop/cache-0:80", "web/front-0 shop/db-0:5432"];
    probe(
        &agent,
        "probe_same",
        &[&good[..], &["shop/cache-0 pay/api-0:https", "web/front-0 shop/cache-0:53/udp"]].concat(),
        "",
    );
    let containers = agent.cluster.containers();
    assert_eq!(containers.keys().collect::<Vec<_>>(), ["shop/cache-0", "web/front-0"]);
    let targets = ["TCP/10.1.0.11:6379", "TCP/10.1.0.11:80", "TCP/10.1.0.10:5432", "UDP/10.1.0.11:53"];
    let command: Vec<_> = ["/policyctl", "probe"].into_iter().chain(targets).collect();
    assert_eq!(containers["web/front-0"]["command"], serde_json::json!(command));

    let agent = Recorded::start("tampered.jsonl");
    agent.cluster.finds("TCP/10.1.0.10:5432", "refused");
    probe(&agent, "probe_differs", &good, "");
    probe(&agent, "probe_differs_json", &good[..1], " -o json");

    let agent = Recorded::start("loaded.jsonl");
    agent.cluster.finds("TCP/10.1.1.12:443", "unreachable");
    agent.cluster.finds("TCP/10.96.0.10:80", "refused");
    let unknown = ["web/front-0 shop/cache-0:53/udp", "web/front-0 shop/cache-0:80/sctp", "web/front-0 pay/api-0:443"];
    let unknown =
        [&unknown[..], &["web/front-0 shop/svc/db", "web/front-0 ip:203.0.113.7:80", "web/front-0 node/n2:22"]];
    probe(&agent, "probe_unknown", &unknown.concat(), "");

    let agent = Recorded::start("loaded.jsonl");
    probe(&agent, "probe_from_a_node", &["node/n1 shop/cache-0:80"], "");
    probe(&agent, "probe_from_nobody_yet", &["shop/deploy/web shop/cache-0:80"], "");
    probe(&agent, "probe_no_port", &["web/front-0 shop/cache-0"], "");
    probe(&agent, "probe_limit", &["shop/sts/db shop/cache-0:80"], " --probe-limit 1");
    assert!(agent.cluster.containers().is_empty());
    agent.cluster.refuse("/api/v1/namespaces/web/pods/front-0/ephemeralcontainers", 403);
    probe(&agent, "probe_forbidden", &["web/front-0 shop/cache-0:80"], "");
}

#[test]
fn versions() {
    check("agent_version", "loaded.jsonl", "version -v");
    // one of another version
    let agent = Recorded::serve(|_| recorded("state.json").replacen("0.1.0", "0.0.9", 1));
    check_with("agent_version_differs", &agent, "version");
    let answer: Value = serde_json::from_slice(&agent.ask("version -o json").stdout).unwrap();
    assert_eq!(schema::faults("Version", &answer), [""; 0]);
    let agent = Recorded::serve(|_| "nonsense".to_owned());
    check_with("agent_version_unreadable", &agent, "version");
}

#[test]
fn dump() {
    check("agent_dump", "loaded.jsonl", "dump shop/db");
    check("agent_dump_yaml", "loaded.jsonl", "dump -n shop db -o yaml");
    check("agent_dump_nobody", "loaded.jsonl", "dump nobody");
}

#[test]
fn flows() {
    check("agent_flows", "loaded.jsonl", "flows");
    check("agent_flows_jsonl", "loaded.jsonl", "flows -o jsonl");
    check("agent_flows_md", "loaded.jsonl", "flows -o md");
    check("agent_flows_wrong_end", "loaded.jsonl", "flows --from db");
    check("agent_flows_old_agent", "loaded.jsonl", "flows --pod old/one");
    check("agent_flows_follow_json", "loaded.jsonl", "flows -f -o json");
}

#[test]
fn questions() {
    check("agent_explain", "loaded.jsonl", "explain shop/other shop/db:8080 --as-of");
    check("agent_matrix", "loaded.jsonl", "matrix --ports TCP/8080");
}

#[test]
fn answers_are_as_their_schemas_say() {
    for (kind, args) in [
        ("Status", "status"),
        ("Verification", "verify"),
        (
            "Verification",
            "verify --probe-image i --probe web/front-0 shop/cache-0:80 --probe web/front-0 shop/db-0:80/sctp",
        ),
        ("Dump", "dump shop/db"),
        ("Dump", "dump shop/web"),
        ("FlowList", "flows"),
        ("Can", "can shop/other shop/db:8080"),
    ] {
        let output = Recorded::start("tampered.jsonl").ask(&format!("{args} -o json"));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let wrong = schema::faults(kind, &answer);
        assert!(wrong.is_empty(), "{args}: {wrong:#?}");
    }
}

/// An agent that goes away in the middle is not taken for one that has little to say.
#[test]
fn half_an_answer_is_none() {
    let agent =
        Recorded::serve(|_| recorded("objects.jsonl").lines().take(3).map(|line| format!("{line}\n")).collect());
    for args in ["verify", "can shop/web shop/db:8080"] {
        let said = agent.said(args);
        let expected =
            "error: the agent at SOCKET has broken off; it may have been restarted, so ask again\n--- status 3\n";
        assert!(said.ends_with(expected), "{said}");
    }
}

#[test]
fn every_format() {
    let agent = Recorded::start("loaded.jsonl");
    for question in ["status", "flows", "verify", "dump shop/db"] {
        let formats = ["wide", "json", "yaml", "jsonl", "name", "csv", "md", "tap", "sarif", "svg", "dot"];
        let said: Vec<String> = formats.iter().map(|format| agent.said(&format!("{question} -o {format}"))).collect();
        let name = question.split(' ').next().unwrap();
        insta::with_settings!({
            prepend_module_to_snapshot => false, omit_expression => true, snapshot_path => "../snapshots"
        }, {
            insta::assert_snapshot!(format!("formats_{name}"), said.join("\n"));
        });
    }
}
