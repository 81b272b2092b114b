//! Agents by their nodes' names: an API server that lists their pods and lets them be entered, on the loopback. Some
//! answer what a real agent once has; others do what a broken one does.

use std::{fs, net::SocketAddr, os::unix::net::UnixListener, path::PathBuf, process::Command, thread};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

use super::{
    Recorded, reply,
    said::{Said, said},
    schema,
};

/// What the agent of a node does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer,
    /// Its pod can be entered, and nothing is ever said.
    Nothing,
    /// The request to enter it is never answered.
    NotLetIn,
    /// Its pod can't be entered.
    Refuse,
    /// Half an answer, and then nothing.
    Stop,
    /// There is no such file in its pod.
    LackRelay,
}

/// An API server with the pods of agents. It stops when it is dropped.
struct Cluster {
    address: SocketAddr,
    folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

/// Serves connections on the loopback, each in a task of its own.
fn serve<F: Future<Output = ()> + 'static>(
    connection: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::task::spawn_local(connection(stream));
                }
            };
            tokio::select! {
                () = accept => {}
                _ = stopped => {}
            }
        });
    });
    (told.recv().unwrap(), stop)
}

impl Cluster {
    /// With an agent on each of these nodes.
    fn of(nodes: &'static [(&'static str, Does)]) -> Self {
        let (address, stop) = serve(move |stream| answer(stream, nodes));
        Self::at("http", address, stop)
    }

    /// One that takes connections and says nothing.
    fn silent(scheme: &str) -> Self {
        let (address, stop) = serve(async |stream| {
            let _open = stream;
            std::future::pending::<()>().await;
        });
        Self::at(scheme, address, stop)
    }

    fn at(scheme: &str, address: SocketAddr, stop: oneshot::Sender<()>) -> Self {
        let this = Self { address, folder: tempfile::tempdir().unwrap(), _stop: stop };
        let cluster = json!({"server": format!("{scheme}://{address}")});
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "c", "cluster": cluster}],
            "contexts": [{"name": "lab", "context": {"cluster": "c"}}],
        });
        fs::write(this.kubeconfig(), kubeconfig.to_string()).unwrap();
        this
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn ask(&self, args: &str) -> Said {
        let mut command = limited(args);
        command.env("KUBECONFIG", self.kubeconfig());
        let said = said(command);
        let short = |text: String| text.replace(&self.address.to_string(), "ADDRESS");
        Said { stdout: short(said.stdout), stderr: short(said.stderr), ..said }
    }
}

/// Memory that a question to agents may take: far above what it does.
const MEMORY: u64 = 1_000_000_000;

/// The program under a limit of its memory (prlimit(1) of util-linux), and of its time, so that one that hangs fails
/// and doesn't make the test hang too.
fn limited(args: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["120", "prlimit", &format!("--as={MEMORY}"), env!("CARGO_BIN_EXE_policyctl")]);
    command.args(args.split(' '));
    for variable in ["POLICYCTL_NAMESPACE", "KUBERNETES_SERVICE_HOST", "HTTP_PROXY", "http_proxy"] {
        command.env_remove(variable);
    }
    command
}

async fn answer(mut stream: TcpStream, nodes: &[(&str, Does)]) {
    // the handshake of a WebSocket wants to read the request itself
    let mut head = vec![0; 1 << 14];
    let read = stream.peek(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let named = |(node, _): &&(&str, Does)| path.contains(&format!("/pods/agent-{node}/exec?"));
    let Some((node, does)) = nodes.iter().find(named) else {
        stream.read_exact(&mut vec![0; read]).await.unwrap();
        let pods: Vec<Value> = nodes.iter().map(|(node, _)| pod(node)).collect();
        let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}).to_string();
        return http(&mut stream, "200 OK", &list).await;
    };
    match does {
        Does::NotLetIn => std::future::pending().await,
        Does::Refuse => {
            stream.read_exact(&mut vec![0; read]).await.unwrap();
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": "pods/exec is forbidden"});
            http(&mut stream, "403 Forbidden", &status.to_string()).await;
        }
        does => enter(stream, node, *does).await,
    }
}

fn pod(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("agent-{node}"), "namespace": "sluice-system"},
        "spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running"},
    })
}

async fn http(stream: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}");
    stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n{body}").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// `policyctl relay` in the pod of an agent, as the API server hands it on: a byte says of each message whose it is.
async fn enter(stream: TcpStream, node: &str, does: Does) {
    const OUT: u8 = 1;
    const ERROR: u8 = 2;
    const STATUS: u8 = 3;
    #[expect(clippy::result_large_err, reason = "the signature is the library's")]
    let protocol = |_: &Request, mut response: Response| {
        response.headers_mut().insert("sec-websocket-protocol", "v4.channel.k8s.io".parse().unwrap());
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, protocol).await.unwrap();
    let message = |channel: u8, text: &str| {
        let bytes: Vec<u8> = std::iter::once(channel).chain(text.bytes()).collect();
        Message::Binary(bytes.into())
    };
    if does == Does::LackRelay {
        socket.send(message(ERROR, "exec: \"/policyctl\": no such file")).await.unwrap();
    } else {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Some(Ok(next)) = socket.next().await else { return };
            request.extend(next.into_data().iter().skip(1));
        }
        if does == Does::Nothing {
            std::future::pending::<()>().await;
        }
        let request = String::from_utf8(request).unwrap();
        let whole = reply(request.split(' ').nth(1).unwrap(), "loaded.jsonl");
        let mut whole = whole.replace(r#""n1""#, &format!("\"{node}\""));
        for pod in ["db", "web"] {
            // as they are called in the documentation
            whole = whole.replace(&format!(r#""name":"{pod}""#), &format!(r#""name":"{pod}-0""#));
            whole = whole.replace(&format!(r#""shop/{pod}""#), &format!(r#""shop/{pod}-0""#));
        }
        let said = if does == Does::Stop { &whole[..whole.len() / 2] } else { &*whole };
        // whoever asked may have heard enough
        let _ = socket.send(message(OUT, said)).await;
        if does == Does::Stop {
            std::future::pending::<()>().await;
        }
    }
    let _ = socket.send(message(STATUS, r#"{"metadata":{},"status":"Success"}"#)).await;
    let _ = socket.close(None).await;
}

const SILENT: &[(&str, Does)] = &[("n1", Does::Answer), ("n2", Does::Nothing), ("n3", Does::Answer)];

#[track_caller]
fn silent_node_is_named(said: &Said) {
    let expected = "error: the agent at node n2 has said nothing for 3 s\n";
    assert_eq!((said.status, &*said.stderr), (3, expected), "{}", said.stdout);
}

#[test]
fn all_nodes_are_asked_and_a_silent_one_is_named() {
    let cluster = Cluster::of(SILENT);
    let status = cluster.ask("status --agent-timeout 3s");
    silent_node_is_named(&status);
    for node in ["n1", "n3"] {
        assert!(status.stdout.lines().any(|line| line.starts_with(node)), "{node}: {}", status.stdout);
    }
    let verified = cluster.ask("verify --agent-timeout 3s");
    silent_node_is_named(&verified);
    for node in ["n1", "n3"] {
        let line = format!("{node}  3 pods: intended = compiled = loaded\n");
        assert!(verified.stdout.contains(&line), "{}", verified.stdout);
    }
    let flows = cluster.ask("flows --agent-timeout 3s");
    silent_node_is_named(&flows);
    let alone = Recorded::start("loaded.jsonl").said("flows");
    let told = |node: &str| flows.stdout.lines().filter(|line| line.starts_with(node)).count();
    let expected = alone.lines().filter(|line| line.contains("->")).count();
    assert!(expected > 2 && told("n1") >= expected && told("n1") == told("n3"), "{}", flows.stdout);
    // the pod is on a node that answers: nothing is missing, and the silent one is not waited for
    let dump = cluster.ask("dump shop/db-0 --agent-timeout 0");
    let is_there = dump.stdout.starts_with("shop/db-0 on n1") || dump.stdout.starts_with("shop/db-0 on n3");
    assert!(dump.status == 0 && is_there && dump.stderr.is_empty(), "{}{}", dump.stdout, dump.stderr);
    let dump = cluster.ask("dump shop/nobody --agent-timeout 3s");
    assert_eq!(dump.status, 3);
    assert!(dump.stderr.contains("no pod shop/nobody is on a node of the agents that answer"), "{}", dump.stderr);
}

/// What goes on goes on for the others.
#[test]
fn followed_flows_go_on_beside_a_silent_node() {
    let flows = Cluster::of(SILENT).ask("flows -f --agent-timeout 3s");
    let lines = |node: &str| flows.stdout.lines().filter(|line| line.starts_with(node)).count();
    assert!(lines("n1") > 2 && lines("n1") == lines("n3"), "{}", flows.stdout);
    assert!(flows.stderr.contains("error: the agent at node n2 has said nothing for 3 s\n"), "{}", flows.stderr);
    assert_eq!(flows.status, 3);
}

#[test]
fn answers_say_which_agents_gave_none() {
    let cluster = Cluster::of(SILENT);
    for (kind, command) in [("Status", "status"), ("Verification", "verify")] {
        let said = cluster.ask(&format!("{command} --agent-timeout 3s -o json"));
        let answer: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(schema::faults(kind, &answer), [""; 0], "{command}");
        let nodes = answer["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 3, "{answer}");
        assert_eq!(nodes[1]["agent"], "node n2");
        assert_eq!(nodes[1]["error"], "the agent at node n2 has said nothing for 3 s");
    }
}

#[test]
fn every_way_to_give_no_answer_is_told() {
    const ALL: &[(&str, Does)] = &[
        ("n1", Does::NotLetIn),
        ("n2", Does::Refuse),
        ("n3", Does::Stop),
        ("n4", Does::LackRelay),
        ("n5", Does::Answer),
    ];
    let said = Cluster::of(ALL).ask("verify --agent-timeout 5s --request-timeout 2s");
    assert_eq!(said.status, 3);
    assert_eq!(said.stdout, "n5  3 pods: intended = compiled = loaded\n");
    let expected = "\
error: no agent answers at node n1: pod sluice-system/agent-n1 can't be entered within 2 s
error: no agent answers at node n2: pod sluice-system/agent-n2 can't be entered (403 pods/exec is forbidden); it takes \
                    the verb \"create\" for \"pods/exec\" there
error: the agent at node n3 has said nothing for 5 s
error: no agent answers at node n4: exec: \"/policyctl\": no such file
";
    assert_eq!(said.stderr, expected);
}

/// Nothing of the API server, whatever is asked of it; and nothing of the TLS handshake.
#[test]
fn a_cluster_that_says_nothing() {
    for scheme in ["http", "https"] {
        let cluster = Cluster::silent(scheme);
        for command in [
            "list",
            "can shop/a shop/b:80",
            "snapshot",
            "diff -f .",
            "version --server",
            "status",
            "verify",
            "flows",
            "flows -f",
            "dump shop/db",
            "list --agent n1",
        ] {
            let said = cluster.ask(&format!("{command} --request-timeout 300ms"));
            assert_eq!(said.status, 3, "{scheme} {command}: {}", said.stderr);
            let is_told = said.stderr.starts_with("error: ") && said.stderr.contains("ADDRESS");
            assert!(is_told && said.stderr.contains("0.3 s"), "{scheme} {command}: {}", said.stderr);
        }
    }
}

/// A socket where somebody listens and never answers; also for commands whose state is an agent's.
#[test]
fn a_socket_that_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let socket = path.display().to_string();
    let expected = format!("error: the agent at {socket} has said nothing for 0.5 s\n");
    for command in ["status", "verify", "flows", "flows -f"] {
        let said = said(limited(&format!("{command} --agent {socket} --agent-timeout 500ms")));
        assert_eq!((said.status, &*said.stderr), (3, &*expected), "{command}");
    }
    for command in ["list", "can shop/a shop/b:80", "explain shop/a shop/b:80", "lint", "matrix"] {
        let mut command = limited(&format!("{command} --agent {socket}"));
        command.env("POLICYCTL_AGENT_TIMEOUT", "500ms");
        let said = said(command);
        assert_eq!((said.status, &*said.stderr), (3, &*expected));
    }
    let mut command = limited(&format!("list --agent {socket}"));
    command.env("POLICYCTL_AGENT_TIMEOUT", "soon");
    let said = said(command);
    let expected = "error: POLICYCTL_AGENT_TIMEOUT is \"soon\": write a time such as 30s or 1m\n";
    assert_eq!((said.status, &*said.stderr), (2, expected));
}

/// Somebody who never stops talking, in the head of an answer and after it.
#[test]
fn what_never_ends_is_not_kept() {
    for head in ["", "HTTP/1.0 200 OK\r\n\r\n"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            use std::io::Write as _;
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let _ = connection.write_all(head.as_bytes());
                while connection.write_all(&[b'x'; 1 << 16]).is_ok() {}
            }
        });
        let socket = path.display().to_string();
        for command in ["status", "verify", "flows"] {
            let said = said(limited(&format!("{command} --agent {socket}")));
            assert_eq!(said.status, 3, "{command}: {}", said.stderr);
            let is_told = said.stderr.starts_with("error: ") && said.stderr.contains(&socket);
            assert!(is_told && said.stderr.len() < 400, "{command}: {}", said.stderr);
        }
    }
}

/// The commands of `docs/policyctl.md` that ask agents and nobody else; probes want a cluster that runs pods.
#[test]
fn the_walkthrough_runs() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policyctl.md")).unwrap();
    let commands = text.lines().filter_map(|line| line.strip_prefix("policyctl "));
    let commands: Vec<_> = commands.filter(|command| !command.contains("--probe")).collect();
    let cluster = Cluster::of(&[("n1", Does::Answer), ("n2", Does::Answer)]);
    let here = Recorded::start("loaded.jsonl");
    let asks = |name: &str| commands.iter().any(|command| command.starts_with(name));
    assert!(["status", "verify", "dump", "flows", "explain"].iter().all(|name| asks(name)), "{commands:?}");
    for command in commands {
        let socket = here.socket().display().to_string();
        let said = cluster.ask(&command.replace("/run/sluice/agent.sock", &socket));
        // what follows goes on until the agents have gone away
        let is_endless = command.contains(" -f");
        assert_eq!(said.status, if is_endless { 3 } else { 0 }, "{command}: {}{}", said.stdout, said.stderr);
        assert!(is_endless || said.stderr.is_empty(), "{command}: {}", said.stderr);
        assert!(!said.stdout.is_empty(), "{command}");
    }
}
