//! `cargo xtask bench compile`: fresh compilations and single events in clusters of 1,000, 10,000 and 100,000 pods, a
//! policy for every ten of them, 110 pods on the node. Times are of this thread's processor time.
#![forbid(unsafe_code)]

use std::{sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};
use policy_compiler::{
    Changes, Compiler, Event, Options, Step,
    generate::{self, Scale},
    model::Pod,
};
use serde_json::{Value, json};

/// Goals of a pod's event: median and 99th percentile in microseconds.
const POD_GOALS: (f64, f64) = (100.0, 1000.0);

/// Goal of other events: microseconds, and one more for each address, row or pod that changes.
const EVENT_GOAL: f64 = 1000.0;

/// Goals of a fresh compilation of 100,000 pods: milliseconds, and megabytes held.
const FRESH_GOALS: (f64, f64) = (1000.0, 150.0);

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let mut rows = Vec::new();
    for pods in [1_000, 10_000, 100_000] {
        measure(pods, &mut rows);
    }
    if json {
        println!("{}", json!({ "rows": rows }));
    } else {
        print(&rows);
    }
}

fn measure(pods: u32, rows: &mut Vec<Value>) {
    let scale = Scale { pods, namespaces: pods.div_ceil(20), policies: pods.div_ceil(10), pods_per_node: 110 };
    let size = format!("{}k", pods / 1000);
    let compiler = fresh(&scale, &size, rows);
    events(compiler, &scale, &size, rows);
}

/// A compilation from nothing, less the time that making the objects takes.
fn fresh(scale: &Scale, size: &str, rows: &mut Vec<Value>) -> Compiler {
    let before = resident();
    let mut compiler = Compiler::new(Options::new(Scale::node(0)));
    let start = now();
    let changes = compiler.apply_all(scale.events());
    let taken = now() - start;
    let start = now();
    scale.events().for_each(drop);
    let made = now() - start;
    let changed = operations(&changes);
    drop(changes);
    let (time, held) = (millis(taken.saturating_sub(made)), resident().saturating_sub(before));
    let goals = (scale.pods == 100_000).then_some(FRESH_GOALS);
    rows.push(row(&format!("fresh/{size}"), time, "ms", goals.map(|goals| goals.0)));
    #[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
    {
        rows.push(row(&format!("fresh/{size}/held"), held as f64 / 1e6, "MB", goals.map(|goals| goals.1)));
        rows.push(row(&format!("fresh/{size}/changes"), changed as f64, "operations", None));
    }
    compiler
}

fn events(mut compiler: Compiler, scale: &Scale, size: &str, rows: &mut Vec<Value>) {
    let nodes = scale.nodes();
    let elsewhere = || (0..scale.pods).step_by(97).filter(|number| !number.is_multiple_of(nodes)).take(1000);
    let here = || (0..scale.pods).step_by(nodes as usize).take(100);
    let put = |number: u32| Event::PutPod(scale.pod(number));
    let relabelled = |number: u32| {
        let mut pod: Pod = scale.pod(number);
        pod.labels.insert(Arc::from("tier"), Arc::from("other"));
        Event::PutPod(pod)
    };
    let delete = |number: u32| Event::DeletePod(scale.pod(number).name);
    let mut pod = |name: &str, events: Vec<Event>| {
        let sample = Sample::of(&mut compiler, events);
        rows.push(row(&format!("{name}/{size}/median"), sample.at(500).0, "us", Some(POD_GOALS.0)));
        rows.push(row(&format!("{name}/{size}/p99"), sample.at(990).0, "us", Some(POD_GOALS.1)));
        rows.push(row(&format!("{name}/{size}/changes"), sample.at(500).1, "operations", None));
    };
    pod("pod-elsewhere/relabelled", elsewhere().map(relabelled).collect());
    pod("pod-elsewhere/removed", elsewhere().map(delete).collect());
    pod("pod-elsewhere/added", elsewhere().map(put).collect());
    pod("pod-here/relabelled", here().map(relabelled).collect());
    pod("pod-here/removed", here().map(delete).collect());
    pod("pod-here/added", here().map(put).collect());

    let mut other = |name: &str, events: Vec<Event>| {
        let sample = Sample::of(&mut compiler, events);
        let (time, changed) = sample.at(990);
        rows.push(row(&format!("{name}/{size}/p99"), time, "us", Some(EVENT_GOAL + changed)));
        rows.push(row(&format!("{name}/{size}/changes"), changed, "operations", None));
    };
    let policies = || (0..scale.policies).step_by(scale.policies.div_ceil(500) as usize);
    let without = |number: u32| Event::DeletePolicy(scale.policy(number).name);
    other("policy/removed", policies().map(without).collect());
    other("policy/added", policies().map(|number| Event::PutPolicy(scale.policy(number))).collect());
    let namespaces = (0..scale.namespaces).step_by(scale.namespaces.div_ceil(200) as usize);
    let moved = |number: u32| {
        let mut namespace = generate::namespace(number);
        namespace.labels.insert(Arc::from("team"), Arc::from(format!("team-{}", (number + 1) % 50)));
        Event::PutNamespace(namespace)
    };
    other("namespace/relabelled", namespaces.map(moved).collect());
}

/// Microseconds and operations of each event, sorted by time.
struct Sample(Vec<(f64, f64)>);

impl Sample {
    fn of(compiler: &mut Compiler, events: Vec<Event>) -> Self {
        let mut times: Vec<(f64, f64)> = events
            .into_iter()
            .map(|event| {
                let start = now();
                let changes = compiler.apply(event);
                let taken = now() - start;
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
                let changed = operations(&changes) as f64;
                (taken.as_secs_f64() * 1e6, changed)
            })
            .collect();
        times.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Self(times)
    }

    fn at(&self, per_mille: usize) -> (f64, f64) {
        self.0.get((self.0.len().saturating_sub(1)) * per_mille / 1000).copied().unwrap_or_default()
    }
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

fn print(rows: &[Value]) {
    println!("{:<36} {:>10} {:<11} {:>10}  met", "what", "value", "unit", "goal");
    for row in rows {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let met = row["met"].as_bool().map_or("", |met| if met { "yes" } else { "NO" });
        let value = row["value"].as_f64().unwrap_or_default();
        println!("{:<36} {value:>10.1} {:<11} {:>10}  {met}", text("name"), text("unit"), text("goal"));
    }
}

/// Time that this thread has run; what other processes take doesn't count.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Resident memory in bytes (proc_pid_statm(5)).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn operations(changes: &Changes) -> usize {
    let count = |step: &Step| match step {
        Step::Write(ops) | Step::Free(ops) => ops.len(),
        Step::Pods(updates) => updates.len(),
        Step::RaiseEpoch(_) => 0,
    };
    changes.steps.iter().map(count).sum()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
