//! The same question to another tool, and ours beside it over the same file: [`measure`].
//!
//! cyclonus is built by `go build` from the Go module proxy, by the pins in `benches/peers/cyclonus`. It reads one list of
//! policies and is told the labels of both ends, where `policyctl` finds them with their pods; so both are asked about
//! ends that are told by labels. Peers that can't be run so are named, with the reason.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use policy_compiler::{
    generate,
    model::{Labels, Pod},
};
use serde_json::{Value, json};

use super::{LARGE, best, best_of, note, row};

/// The folder with the `go.mod` of a peer, and what is built of it.
const CYCLONUS: (&str, &str) =
    (concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/cyclonus"), "github.com/mattfenwick/cyclonus/cmd/cyclonus");

/// Peers of which no Go module could be had when the pins were made.
const NOT_RUN: [&str; 2] = ["policy-assistant", "netpol-analyzer"];

/// Rows for each of them. `policies` is a list of the large cluster's policies alone.
pub(crate) fn measure(policies: &Path, rows: &mut Vec<Value>) -> Result<()> {
    let (from, allowed, denied) = (LARGE.pod(0), LARGE.pod(1), LARGE.pod(7));
    let file = policies.display().to_string();
    let cyclonus = built();
    for (verdict, to, port) in [("allowed", &allowed, 8080), ("denied", &denied, 81)] {
        let (source, destination) = (end(&from), format!("{}:{port}", end(to)));
        let run = best(&["explain", "-f", &file, &source, &destination], 0)?;
        ensure!(run.stdout.starts_with(&verdict.to_uppercase()), "{destination} is not {verdict}: {}", run.stdout);
        rows.push(row(&format!("policies/{verdict}"), run.millis, "ms", None));
        rows.push(row(&format!("policies/{verdict}/resident"), run.megabytes, "MB", None));
        let title = format!("policies/{verdict}/cyclonus");
        let program = match &cyclonus {
            Ok(program) => program.display().to_string(),
            Err(error) => {
                rows.push(note(&title, &format!("not run: {error:#}")));
                continue;
            }
        };
        let traffic = policies.with_file_name(format!("{verdict}.json"));
        fs::write(&traffic, question(&from, to, port).to_string()).context("the question")?;
        let arguments = ["analyze", "--mode", "query-traffic", "--policy-path", &file, "--traffic-path"];
        let traffic = traffic.display().to_string();
        let command: Vec<String> =
            [&*program].into_iter().chain(arguments).chain([&*traffic]).map(str::to_owned).collect();
        let run = best_of(&command, 0)?;
        rows.push(row(&title, run.millis, "ms", None));
        rows.push(row(&format!("{title}/resident"), run.megabytes, "MB", None));
    }
    rows.extend(NOT_RUN.map(|peer| note(&format!("peer/{peer}"), "not run: it could not be had as a Go module")));
    Ok(())
}

/// `labels:NAMESPACE{...}`
fn end(pod: &Pod) -> String {
    let labels: Vec<_> = pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("labels:{}{{{}}}", pod.name.namespace, labels.join(","))
}

/// A connection as cyclonus is asked about it.
fn question(from: &Pod, to: &Pod, port: u16) -> Value {
    let object = |labels: &Labels| -> Value {
        labels
            .iter()
            .map(|(key, value)| (key.to_string(), Value::from(&**value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let peer = |pod: &Pod| {
        let number = pod.name.namespace.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        let namespace = generate::namespace(number);
        json!({
            "IP": pod.addresses[0],
            "Internal": {
                "PodLabels": object(&pod.labels), "NamespaceLabels": object(&namespace.labels),
                "Namespace": pod.name.namespace,
            },
        })
    };
    json!([{
        "Source": peer(from), "Destination": peer(to), "ResolvedPort": port, "ResolvedPortName": "", "Protocol": "TCP",
    }])
}

/// Builds it, where Go is installed.
fn built() -> Result<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("peers");
    let (module, package) = CYCLONUS;
    let mut command = Command::new("go");
    command.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(folder.join("")).arg(package);
    let output = command.current_dir(module).env("CGO_ENABLED", "0").output().context("go is not installed")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go build: {}", said.lines().last().unwrap_or_default());
    Ok(folder.join("cyclonus"))
}
