//! The routes over real connections, with a state that answers as the tests like.

use std::net::SocketAddr;

use enforcer_abi::{Address, BlockKey, Direction, Event as PacketEvent, EventKind, Reason};
use jiff::Timestamp;
use policy_compiler::{Cluster, Compiler, Event, Options, files, model::Node};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    cni::Standing,
    report::Names,
    state::{Moment, Page},
};

const BLOCK: BlockKey = BlockKey { prefix_len: 128, address: Address::from_v4([10, 0, 0, 1]) };

const DENY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: shop}, \
                    spec: {podSelector: {}}}";

/// A server, and what stands behind it.
struct Server {
    address: SocketAddr,
    health: watch::Sender<Health>,
    stop: watch::Sender<bool>,
    shared: Shared,
}

/// Serves `router`; the state answers unless it is `dead`.
async fn serve(router: fn(Shared) -> Router, dead: bool) -> Server {
    let (health, health_seen) = watch::channel(Health::default());
    let (stop, stopping) = watch::channel(false);
    let (requests, mut asked) = mpsc::channel(4);
    let journal = Arc::new(Journal::default());
    let shared = Shared {
        metrics: Metrics::new().unwrap(),
        journal,
        health: health_seen,
        requests,
        identity: Identity { node: "n1".into(), endpoints: false },
        loaded: Loaded(Arc::new(|| Ok(enforcer::Contents { blocks: vec![(BLOCK, 7)], ..Default::default() }))),
        stopping,
    };
    let drops = shared.metrics.drops.clone();
    let mut compiler = Compiler::new(Options::new("n1"));
    let nodes = ["n1", "n2"].map(|name| Event::PutNode(Node { name: name.into(), addresses: Vec::new() }));
    let policy = files::parse("p.yaml", DENY.as_bytes());
    let policy = files::assemble([&policy]).cluster.events_since(&Cluster::default());
    compiler.apply_all(nodes.into_iter().chain(policy));
    tokio::spawn(async move {
        if dead {
            return;
        }
        while let Some(request) = asked.recv().await {
            match request {
                Request::Ping(answer) => answer.send(()).unwrap(),
                Request::Counters(answer) => {
                    drops.with_label_values(&["ingress", "shop", "db", "no_rule"]).inc();
                    answer.send(()).unwrap();
                }
                Request::View(answer) => {
                    let view = View { node: "n1".into(), epoch: 7, ..View::default() };
                    answer.send(Box::new(view)).unwrap();
                }
                Request::Notices(answer) => answer.send(Vec::new()).unwrap(),
                Request::Moment(answer) => answer.send(Moment { generation: 3, settled: true }).unwrap(),
                Request::Objects(from, answer) => {
                    let (items, next) = compiler.objects(from, 1);
                    let moment = Moment { generation: 4, settled: true };
                    assert!(answer.send(Page { items, next, moment }).is_ok());
                }
                Request::Pods(answer) => answer.send((Moment::default(), Vec::new())).unwrap(),
                Request::Tables(from, answer) => {
                    let (items, next) = compiler.writes(from, 1);
                    assert!(answer.send(Page { items, next, moment: Moment::default() }).is_ok());
                }
                Request::Call(call, patience, answer) => {
                    let reason = format!("{} waits for {patience:?}", call.pod());
                    answer.send(Standing::Held { reason }).unwrap();
                }
                Request::HangUp(gone, answer) => {
                    assert_eq!(gone.container_id, "c1");
                    assert!(gone.container_interface.is_none_or(|interface| interface == "eth+0"));
                    answer.send(()).unwrap();
                }
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(shared.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server { address, health, stop, shared }
}

impl Server {
    async fn open(&self, path: &str) -> TcpStream {
        self.send(&format!("GET {path} HTTP/1.0\r\n\r\n")).await
    }

    async fn send(&self, request: &str) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        connection
    }

    /// Status and body.
    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.0\r\n\r\n")).await
    }

    async fn ask(&self, request: &str) -> (u16, String) {
        let mut text = String::new();
        self.send(request).await.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn record(&self) {
        let event = PacketEvent {
            time: 0,
            table: 0,
            class: 0,
            pod: Address::from_v4([10, 0, 0, 2]),
            remote: Address::from_v4([10, 0, 0, 3]),
            ifindex: 1,
            length: 60,
            port_class: 0,
            remote_port: 1,
            pod_port: 2,
            protocol: 6,
            direction: Direction::Ingress as u8,
            reason: Reason::Rule as u8,
            kind: EventKind::NewFlow as u8,
            tcp_flags: 0,
            reserved: [0; 3],
        };
        self.shared.journal.record(&event, Names::default(), Timestamp::UNIX_EPOCH);
    }
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let server = serve(public, false).await;
    let (status, body) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("initial list"), "{body}");
    server.health.send_replace(Health { synced: true, ..Health::default() });
    assert_eq!(server.get("/readyz").await, (200, "ready\n".into()));
    let closed = vec!["shop/db".to_owned()];
    server.health.send_replace(Health { synced: true, closed, ..Health::default() });
    let (status, body) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("shop/db is closed"), "{body}");
}

#[tokio::test]
async fn health_is_whether_the_state_answers() {
    assert_eq!(serve(public, false).await.get("/healthz").await, (200, "ok\n".into()));
    assert_eq!(serve(public, true).await.get("/healthz").await.0, 503);
}

#[tokio::test]
async fn metrics_are_brought_up_to_date_first() {
    let server = serve(public, false).await;
    let line = |count| {
        format!(r#"sluice_drops_total{{direction="ingress",namespace="shop",pod="db",reason="no_rule"}} {count}"#)
    };
    for count in 1..3 {
        let (status, body) = server.get("/metrics").await;
        assert_eq!(status, 200);
        assert!(body.lines().any(|l| l == line(count)), "{body}");
    }
    // old counters are better than none
    assert_eq!(serve(public, true).await.get("/metrics").await.0, 200);
}

#[tokio::test]
async fn the_network_sees_neither_state_nor_events() {
    let server = serve(public, false).await;
    assert_eq!(server.get("/state").await.0, 404);
    assert_eq!(server.get("/events").await.0, 404);
    let server = serve(private, false).await;
    let (status, body) = server.get("/state").await;
    assert_eq!(status, 200);
    let state: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((state["node"].as_str(), state["epoch"].as_u64()), (Some("n1"), Some(7)));
    assert_eq!(server.get("/readyz").await.0, 503, "the socket has the others' routes too");
}

#[tokio::test]
async fn events_that_were() {
    let server = serve(private, false).await;
    server.record();
    server.record();
    let sequences = |body: &str| -> Vec<u64> {
        let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"].as_u64().unwrap();
        body.lines().map(line).collect()
    };
    assert_eq!(sequences(&server.get("/events?follow=false").await.1), [1, 2]);
    assert_eq!(sequences(&server.get("/events?follow=false&since=1").await.1), [2]);
    assert_eq!(server.get("/events?folow=false").await.0, 400);
}

#[tokio::test]
async fn events_to_come_until_the_agent_stops() {
    let server = serve(private, false).await;
    server.record();
    let mut connection = server.open("/events").await;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    for sequence in 1..4 {
        while !text.contains(&format!("\"sequence\":{sequence},")) {
            let length = connection.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "the stream ended: {text}");
            text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        server.record();
    }
    server.stop.send_replace(true);
    // whatever is on its way still comes, then the end
    connection.read_to_string(&mut text).await.unwrap();
}

#[tokio::test]
async fn the_cni_plugin_asks() {
    let server = serve(private, false).await;
    let put = |query: &str, body: &str| {
        let length = body.len();
        format!(
            "PUT /v1/cni{query} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let call = r#"{"containerId": "c1", "namespace": "shop", "name": "db", "uid": "u", "interface": "veth7", "ifindex": 7,
        "addresses": ["10.1.0.7"], "network": "unknown fields are a newer plugin's"}"#;
    let held = |seconds: &str| (200, format!(r#"{{"state":"held","reason":"shop/db waits for {seconds}"}}"#));
    assert_eq!(server.ask(&put("", call)).await, held("5s"));
    assert_eq!(server.ask(&put("?patience=2500", call)).await, held("2.5s"));
    assert_eq!(server.ask(&put("?patience=0", "{}")).await.0, 422);
    assert_eq!(server.ask(&put("?patients=0", call)).await.0, 400);
    let gone = "DELETE /v1/cni?containerId=c1&containerInterface=eth%2b0 HTTP/1.0\r\n\r\n";
    assert_eq!(server.ask(gone).await.0, 204);
    assert_eq!(server.ask("DELETE /v1/cni?containerId=c1 HTTP/1.0\r\n\r\n").await.0, 204);

    let (status, body) = server.get("/v1/cni").await;
    assert_eq!(status, 503);
    assert!(body.contains("initial list"), "{body}");
    let (closed, unenforceable) = (vec!["shop/db".to_owned()], vec!["shop/web".to_owned()]);
    server.health.send_replace(Health { synced: true, closed, unenforceable, ..Health::default() });
    assert_eq!(server.get("/v1/cni").await, (200, r#"{"limited":["shop/db"]}"#.into()));
    assert_eq!(serve(public, false).await.get("/v1/cni").await.0, 404, "not over the network");
    assert_eq!(serve(private, true).await.get("/v1/cni").await.0, 503);
}

#[tokio::test]
async fn what_is_enforced_is_told_in_lines() {
    let server = serve(private, false).await;
    let (status, body) = server.get("/v1/objects").await;
    assert_eq!(status, 200);
    let lines: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["agent"]["node"], "n1");
    assert_eq!(lines[0]["agent"]["moment"]["generation"], 3);
    let kinds: Vec<_> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!(kinds, ["Node", "Node", "Namespace", "NetworkPolicy"]);
    // it was another state when it ended
    assert_eq!(lines.last().unwrap(), &serde_json::json!({"end": {"moment": {"generation": 4, "settled": true}}}));

    let (status, body) = server.get("/v1/tables?of=loaded").await;
    let lines: Vec<&str> = body.lines().skip(1).collect();
    assert_eq!((status, lines[0]), (200, r#"{"put":{"PutBlock":[{"prefix_len":128,"address":"10.0.0.1"},7]}}"#));
    let (status, body) = server.get("/v1/tables?of=compiled").await;
    assert_eq!((status, body.lines().count()), (200, 2), "{body}");
    assert_eq!(server.get("/v1/tables?of=both").await.0, 400);
}

#[tokio::test]
async fn before_there_is_a_state_nothing_is_told() {
    let server = serve(private, true).await;
    for path in ["/v1/objects", "/v1/tables?of=compiled", "/v1/tables?of=loaded"] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 503);
        assert!(body.starts_with("the agent's state does not answer"), "{body}");
    }
}
