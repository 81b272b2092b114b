//! What is said of agents: by sockets that answer what a real agent once has, about one node with three pods and a policy.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

#[path = "../schema/mod.rs"]
mod schema;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

/// An agent that has said its last.
struct Recorded {
    folder: TempDir,
}

impl Recorded {
    /// `loaded` is the file that says what its kernel holds.
    fn start(loaded: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = BufReader::new(connection.unwrap());
                let mut request = String::new();
                connection.read_line(&mut request).unwrap();
                let path = request.split(' ').nth(1).unwrap();
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
                // whoever asked may have heard enough
                let _ = write!(connection.get_mut(), "HTTP/1.0 {status}\r\n\r\n{body}");
            }
        });
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    fn ask(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
        command.args(args.split(' ')).arg("--agent").arg(self.socket()).env_remove("POLICYCTL_NAMESPACE");
        command.output().unwrap()
    }

    /// All that is said, with the socket's path made short.
    fn said(&self, args: &str) -> String {
        let Output { status, stdout, stderr } = self.ask(args);
        let stderr = String::from_utf8(stderr).unwrap();
        let stderr = if stderr.is_empty() { stderr } else { format!("--- stderr\n{stderr}") };
        let stdout = String::from_utf8(stdout).unwrap();
        let said = format!("$ policyctl {args}\n{stdout}{stderr}--- status {}\n", status.code().unwrap());
        said.replace(&self.socket().display().to_string(), "SOCKET")
    }
}

fn recorded(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents/n1").join(file)).unwrap()
}

#[track_caller]
fn check(name: &str, loaded: &'static str, args: &str) {
    let said = Recorded::start(loaded).said(args);
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
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = BufReader::new(connection.unwrap());
            connection.read_line(&mut String::new()).unwrap();
            let half: String = recorded("objects.jsonl").lines().take(3).map(|line| format!("{line}\n")).collect();
            let _ = write!(connection.get_mut(), "HTTP/1.0 200 OK\r\n\r\n{half}");
        }
    });
    let agent = Recorded { folder };
    for args in ["verify", "can shop/web shop/db:8080"] {
        let said = agent.said(args);
        let expected =
            "error: the agent at SOCKET has broken off; it may have been restarted, so ask again\n--- status 3\n";
        assert!(said.ends_with(expected), "{said}");
    }
}
