//! What it takes to read a large cluster from an API server: time and memory of the source alone, which holds names and
//! hashes only. The server is a process of its own and makes its pods up as it sends them.
//!
//! `cargo bench -p controller --bench source [-- PODS]`

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::Path,
    response::{IntoResponse, Response},
    routing::get,
};
use controller::{
    metrics::Metrics,
    source::{Api, Source as _, api::Pace},
};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};

/// The argument with which the program is the server.
const SERVE: &str = "serve";
const PODS: usize = 100_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let pods = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(PODS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if arguments.iter().any(|argument| argument == SERVE) {
        runtime.block_on(serve(pods))
    } else {
        runtime.block_on(measure(pods))
    }
}

/// Ends the server with the measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure(pods: usize) -> anyhow::Result<()> {
    let this = std::env::current_exe()?;
    let mut child = Command::new(this).args([SERVE, &pods.to_string()]).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("the server's output is piped")?;
    let _server = Server(child);
    let mut port = String::new();
    BufReader::new(output).read_line(&mut port)?;
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", port.trim())}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(&kubeconfig, config.to_string())?;

    let (sender, mut updates) = mpsc::channel(1);
    let before = memory("VmRSS")?;
    let began = Instant::now();
    let api = Api {
        node: "n0".into(),
        kubeconfig: Some(kubeconfig),
        metrics: Metrics::new()?,
        troubles: Box::new(|troubles| troubles.iter().for_each(|trouble| eprintln!("{trouble}"))),
        pace: Pace::default(),
    };
    let task = tokio::spawn(api.run(sender));
    let update = updates.recv().await.context("the source ended")?;
    let (took, events) = (began.elapsed(), update.events.len());
    println!("{events} events of {} MB in {:.2} s", text_of(0).len() * pods / 1_000_000, took.as_secs_f64());
    println!("memory before: {before} kB; with all events: {} kB", memory("VmRSS")?);
    drop(update);
    println!("memory once they are handed on: {} kB; at most: {} kB", memory("VmRSS")?, memory("VmHWM")?);
    task.abort();
    Ok(())
}

/// A line of `/proc/self/status`, in kB.
fn memory(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).context("no such line")?;
    Ok(value.trim().trim_end_matches("kB").trim().parse()?)
}

async fn serve(pods: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let list = move |Path(resource): Path<String>| async move { answer(&resource, pods) };
    let router = Router::new().route("/api/v1/{resource}", get(list)).route(
        "/apis/{group}/v1/{resource}",
        get(move |Path((_, resource)): Path<(String, String)>| async move { answer(&resource, pods) }),
    );
    Ok(axum::serve(listener, router).await?)
}

/// A streamed list, and nothing after it.
fn answer(resource: &str, pods: usize) -> Response {
    let count = match resource {
        "pods" => pods,
        "nodes" => 1,
        _ => 0,
    };
    let is_pod = resource == "pods";
    let objects = (0..count).map(move |number| if is_pod { text_of(number) } else { node(number) });
    let end = json!({"type": "BOOKMARK", "object": {"kind": "X", "apiVersion": "v1", "metadata":
        {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}}});
    let lines = objects.chain([format!("{end}\n")]).map(Ok::<_, std::convert::Infallible>);
    Body::from_stream(stream::iter(lines).chain(stream::pending())).into_response()
}

fn node(number: usize) -> String {
    let object = json!({"metadata": {"name": format!("n{number}"), "resourceVersion": "2"}});
    format!("{}\n", json!({"type": "ADDED", "object": object}))
}

/// A pod as a Deployment makes them, of about the size that they have.
fn text_of(number: usize) -> String {
    let (namespace, app) = (format!("team-{}", number % 5_000), format!("service-{}", number % 20_000));
    let address = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
    let fields: serde_json::Map<String, serde_json::Value> =
        (0..40).map(|field| (format!("f:field{field}"), json!({".": {}, "f:value": {}}))).collect();
    let environment: Vec<_> = (0..10).map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "something"})).collect();
    let object = json!({
        "metadata": {
            "name": format!("{app}-7d4b9c6f5-{number:05x}"), "generateName": format!("{app}-7d4b9c6f5-"),
            "namespace": namespace, "uid": format!("00000000-0000-4000-8000-{number:012x}"),
            "resourceVersion": (number + 3).to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": app, "app.kubernetes.io/instance": app, "team": namespace,
                "pod-template-hash": "7d4b9c6f5"},
            "annotations": {"checksum/config": "0123456789abcdef".repeat(4)},
            "managedFields": [{"manager": "kubelet", "fieldsV1": fields}],
        },
        "spec": {
            "nodeName": format!("n{}", number % 1_000), "serviceAccountName": "default",
            "containers": [{"name": "main", "image": format!("registry.example.com/{app}:1.2.3"), "env": environment,
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run/secrets", "readOnly": true}]}],
            "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": []}}],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "startTime": "2026-01-01T00:00:01Z",
            "conditions": [{"type": "PodReadyToStartContainers", "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:02Z"}],
            "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "image": app}],
        },
    });
    format!("{}\n", json!({"type": "ADDED", "object": object}))
}
