//! `cargo xtask bench cli`: policyctl from process start to its end, wall time and largest resident memory, on clusters
//! in YAML that [`manifests`] makes up, always the same. Each question is asked several times, and the best counts:
//! what else the machine does only ever adds.
#![forbid(unsafe_code)]

mod manifests;
mod peers;
mod process;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use policy_compiler::generate::Scale;
use serde_json::{Value, json};

use manifests::Style;
use process::{Run, measure};

/// One explanation in this cluster.
const LARGE: Scale = Scale { pods: 10_000, namespaces: 500, policies: 5_000, pods_per_node: 110 };

/// A matrix of this one, a diff of two of them.
const MIDDLE: Scale = Scale { pods: 1_000, namespaces: 50, policies: 1_000, pods_per_node: 110 };

/// How often each question is asked.
const ROUNDS: usize = 7;

/// In how many namespaces the second of the two differs.
const CHANGED: u32 = 10;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((process::ONCE, command)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return process::once(command);
    }
    if let [first, folder] = &*arguments
        && first == "--write"
    {
        return write_all(Path::new(folder)).map(|()| ExitCode::SUCCESS);
    }
    let folder = tempfile::tempdir().context("no folder for the manifests")?;
    write_all(folder.path())?;
    let mut rows = vec![load("load/before")];
    start_up(&mut rows)?;
    explain(folder.path(), &mut rows)?;
    matrix_and_diff(folder.path(), &mut rows)?;
    peers::measure(&folder.path().join("policies.yaml"), &mut rows)?;
    rows.push(load("load/after"));
    if arguments.iter().any(|argument| argument == "--json") {
        println!("{}", json!({ "rows": rows }));
    } else {
        print(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that the questions are about; `--write FOLDER` leaves them there, for a profiler.
fn write_all(folder: &Path) -> Result<()> {
    manifests::write(&folder.join("large.yaml"), &LARGE, Style::Written, 0)?;
    manifests::write(&folder.join("printed.yaml"), &LARGE, Style::Printed, 0)?;
    manifests::write_policies(&folder.join("policies.yaml"), &LARGE)?;
    manifests::write(&folder.join("old.yaml"), &MIDDLE, Style::Written, 0)?;
    manifests::write(&folder.join("new.yaml"), &MIDDLE, Style::Written, CHANGED)
}

/// Nothing to do.
fn start_up(rows: &mut Vec<Value>) -> Result<()> {
    let run = best(&["--version"], 0)?;
    rows.push(row("start-up", run.millis, "ms", Some(10.0)));
    rows.push(row("start-up/resident", run.megabytes, "MB", None));
    Ok(())
}

/// One question to the large cluster: as people write manifests, and as `kubectl get -o yaml` prints them.
fn explain(folder: &Path, rows: &mut Vec<Value>) -> Result<()> {
    for (name, style) in [("large", Style::Written), ("printed", Style::Printed)] {
        let path = folder.join(format!("{name}.yaml"));
        rows.push(row(&format!("{name}/size"), megabytes(fs::metadata(&path)?.len()), "MB", None));
        let (source, allowed, denied) = (name_of(&LARGE, 0), name_of(&LARGE, 1), name_of(&LARGE, 7));
        for (verdict, destination) in [("ALLOWED", format!("{allowed}:8080")), ("DENIED", format!("{denied}:81"))] {
            let path = path.display().to_string();
            let run = best(&["explain", "-f", &path, &source, &destination], 0)?;
            anyhow::ensure!(run.stdout.starts_with(verdict), "{destination} is not {verdict}: {}", run.stdout);
            let goals = (style == Style::Written).then_some((300.0, 80.0));
            let title = format!("explain/{name}/{}", verdict.to_lowercase());
            rows.push(row(&title, run.millis, "ms", goals.map(|goals| goals.0)));
            rows.push(row(&format!("{title}/resident"), run.megabytes, "MB", goals.map(|goals| goals.1)));
        }
    }
    Ok(())
}

fn matrix_and_diff(folder: &Path, rows: &mut Vec<Value>) -> Result<()> {
    let path = |name: &str| folder.join(name).display().to_string();
    let (old, new) = (path("old.yaml"), path("new.yaml"));
    let ports = "TCP/80,TCP/443,TCP/8080,TCP/9090,UDP/53,SCTP/80";
    let run = best(&["matrix", "-o", "json", "-f", &old, "--ports", ports], 0)?;
    rows.push(row("matrix", run.millis, "ms", Some(2000.0)));
    rows.push(row("matrix/resident", run.megabytes, "MB", None));
    let run = best(&["diff", &old, &new], 1)?;
    rows.push(row("diff", run.millis, "ms", Some(3000.0)));
    rows.push(row("diff/resident", run.megabytes, "MB", None));
    Ok(())
}

fn name_of(scale: &Scale, pod: u32) -> String {
    scale.pod(pod).name.to_string()
}

/// The fastest run and the one that needed the least memory, in one.
fn best(arguments: &[&str], status: i32) -> Result<Run> {
    let command: Vec<String> =
        std::iter::once(env!("CARGO_BIN_EXE_policyctl")).chain(arguments.iter().copied()).map(String::from).collect();
    best_of(&command, status)
}

/// The same of any program.
fn best_of(command: &[String], status: i32) -> Result<Run> {
    let mut best = measure(command, Some(status))?;
    for _ in 1..ROUNDS {
        let run = measure(command, Some(status))?;
        best.millis = best.millis.min(run.millis);
        best.megabytes = best.megabytes.min(run.megabytes);
    }
    Ok(best)
}

fn row(name: &str, value: f64, unit: &str, goal: Option<f64>) -> Value {
    let value = (value * 10.0).round() / 10.0;
    match goal {
        Some(goal) => {
            json!({"name": name, "value": value, "unit": unit, "goal": format!("<= {goal}"), "met": value <= goal})
        }
        None => json!({"name": name, "value": value, "unit": unit}),
    }
}

/// What has no value, and why.
fn note(name: &str, note: &str) -> Value {
    json!({"name": name, "note": note})
}

/// What the machine does beside, over a minute (proc_loadavg(5)).
fn load(name: &str) -> Value {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    row(name, text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(), "load", None)
}

#[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn print(rows: &[Value]) {
    println!("{:<36} {:>10} {:<6} {:>10}  met", "what", "value", "unit", "goal");
    for row in rows {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let met = row["met"].as_bool().map_or("", |met| if met { "yes" } else { "NO" });
        match row["value"].as_f64() {
            Some(value) => {
                println!("{:<36} {value:>10.1} {:<6} {:>10}  {met}", text("name"), text("unit"), text("goal"));
            }
            None => println!("{:<36} {}", text("name"), text("note")),
        }
    }
}
