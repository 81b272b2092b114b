//! How long the compiler takes: a fresh compilation of a large cluster, and single events in it.
//! `cargo run --release -p policy-compiler --example compile_bench [PODS]`

use std::{sync::Arc, time::Duration};

use nix::time::{ClockId, clock_gettime};
use policy_compiler::{
    Changes, Compiler, Event, Options, Step,
    generate::{self, Scale},
    model::Pod,
};

/// Time that this thread has run; what other processes take doesn't count.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Resident memory in bytes (proc_pid_statm(5)).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn ops(changes: &Changes) -> usize {
    let count = |step: &Step| match step {
        Step::Write(ops) | Step::Free(ops) => ops.len(),
        Step::Pods(updates) => updates.len(),
        Step::RaiseEpoch => 0,
    };
    changes.steps.iter().map(count).sum()
}

/// Applies events one by one and prints a row.
fn row(compiler: &mut Compiler, name: &str, events: impl IntoIterator<Item = Event>) {
    let mut times: Vec<(Duration, usize)> = events
        .into_iter()
        .map(|event| {
            let start = now();
            let changes = compiler.apply(event);
            (now() - start, ops(&changes))
        })
        .collect();
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000];
    let (median, p99, worst) = (at(500), at(990), at(1000));
    println!(
        "{name:34} n {:5}  median {:8.1} us ({:5} ops)  p99 {:8.1} us ({:5} ops)  worst {:8.1} us ({:6} ops)",
        times.len(),
        median.0.as_secs_f64() * 1e6,
        median.1,
        p99.0.as_secs_f64() * 1e6,
        p99.1,
        worst.0.as_secs_f64() * 1e6,
        worst.1
    );
}

fn main() {
    let pods = std::env::args().nth(1).and_then(|pods| pods.parse().ok()).unwrap_or(100_000);
    let scale = Scale { pods, namespaces: pods.div_ceil(20), policies: pods.div_ceil(10), pods_per_node: 110 };
    println!("{scale:?}, {} nodes", scale.nodes());
    let before = resident();
    let mut compiler = Compiler::new(Options::new(Scale::node(0)));
    // the events are made on the way, so that only what the compiler holds is there in the end
    let start = now();
    let changes = compiler.apply_all(scale.events());
    let taken = now() - start;
    let start = now();
    scale.events().for_each(drop);
    let made = now() - start;
    println!("full compilation {:.1} ms, {} ops", (taken - made).as_secs_f64() * 1e3, ops(&changes));
    drop(changes);
    println!("resident {:.1} MB", (resident() - before) as f64 / 1e6);
    let contents = compiler.contents();
    println!(
        "peers {} blocks {} ports {} ranges {} rows {} front ends {} pods {}",
        contents.peers.len(),
        contents.blocks.len(),
        contents.ports.len(),
        contents.port_ranges.len(),
        contents.rows.len(),
        contents.front_ends.len(),
        contents.pods.len()
    );
    drop(contents);
    let nodes = scale.nodes();
    let elsewhere = |number: &u32| !number.is_multiple_of(nodes);
    let some = || (0..scale.pods).step_by(97).filter(elsewhere).take(1000);
    let here = || (0..scale.pods).step_by(nodes as usize).take(100);
    let put = |number: u32| Event::PutPod(scale.pod(number));
    let relabelled = |number: u32| {
        let mut pod: Pod = scale.pod(number);
        pod.labels.insert(Arc::from("tier"), Arc::from("other"));
        Event::PutPod(pod)
    };
    let delete = |number: u32| Event::DeletePod(scale.pod(number).name);
    row(&mut compiler, "pod elsewhere: no change", some().map(put));
    row(&mut compiler, "pod elsewhere: relabelled", some().map(relabelled));
    row(&mut compiler, "pod elsewhere: relabelled back", some().map(put));
    row(&mut compiler, "pod elsewhere: removed", some().map(delete));
    row(&mut compiler, "pod elsewhere: added", some().map(put));
    row(&mut compiler, "pod here: relabelled", here().map(relabelled));
    row(&mut compiler, "pod here: relabelled back", here().map(put));
    row(&mut compiler, "pod here: removed", here().map(delete));
    row(&mut compiler, "pod here: added", here().map(put));
    let policies = || (0..scale.policies).step_by(scale.policies.div_ceil(500) as usize);
    let policy = |number: u32| Event::PutPolicy(scale.policy(number));
    row(&mut compiler, "policy removed", policies().map(|number| Event::DeletePolicy(scale.policy(number).name)));
    row(&mut compiler, "policy added", policies().map(policy));
    let namespaces = || (0..scale.namespaces).step_by(scale.namespaces.div_ceil(200) as usize);
    let moved = |number: u32| {
        let mut namespace = generate::namespace(number);
        namespace.labels.insert(Arc::from("team"), Arc::from(format!("team-{}", (number + 1) % 50)));
        Event::PutNamespace(namespace)
    };
    row(&mut compiler, "namespace relabelled", namespaces().map(moved));
    row(&mut compiler, "namespace relabelled back", namespaces().map(|n| Event::PutNamespace(generate::namespace(n))));
}
