//! `sluice-demo`: what Sluice does, on a small cluster of network namespaces, with real sockets and the real agent.
//! Nothing is scripted: every result is observed and held against what the policies say, and one that differs makes the
//! demo fail.
#![forbid(unsafe_code)]

mod matrix;
mod screen;
mod stage;
mod streams;

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{Agent, agent::program};
use policy_compiler::model::ObjectName;

use crate::{
    matrix::Matrix,
    screen::{Screen, Style},
    stage::Stage,
    streams::Streams,
};

const POLICY: &str = include_str!("policy.yaml");
const NARROWED: &str = include_str!("narrowed.yaml");

fn main() -> ExitCode {
    let screen = Screen::new();
    let start = Instant::now();
    match run(screen) {
        Ok(0) => {
            let time = start.elapsed().as_secs_f64();
            println!(
                "\n{}",
                screen.paint(
                    Style::Good,
                    &format!("everything as the policies say ({time:.1} s); all of it is removed again")
                )
            );
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            println!("\n{}", screen.paint(Style::Bad, &format!("{wrong} results are not what the policies say")));
            ExitCode::FAILURE
        }
        Err(error) => {
            screen.done();
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The number of results that are not what the policies say. Everything is removed when this returns.
fn run(screen: Screen) -> Result<usize> {
    println!("{}", screen.paint(Style::Heading, "Sluice: network policies, judged by eBPF at every pod's own veth"));

    screen.heading(1, "A cluster of network namespaces, and the agent of its node");
    screen.progress("making namespaces");
    let stage = Stage::build()?;
    screen.progress("starting the agent, whose program the kernel verifies first");
    let started = Instant::now();
    let mut agent = Agent::start_ready(&stage.node, &stage.directory, &stage.scratch, &[])?;
    screen.done();
    introduce(screen, &stage, &agent, started)?;

    screen.heading(2, "No policy: everybody reaches everybody");
    let (open, mut wrong) = look(screen, &stage, None)?;

    screen.heading(3, "A policy file is written to the agent's directory");
    screen.quote(POLICY);
    apply(screen, &stage, &mut agent, POLICY)?;
    let (isolated, more) = look(screen, &stage, Some(&open))?;
    wrong += more;

    screen.heading(4, "The policy changes while connections are open");
    let clients = [name("web-0"), name("web-1")];
    let mut streams = Streams::open(&stage, &clients, &name("db-0"))?;
    streams.heads(screen);
    streams.watch(screen, 4);
    screen.quote(&difference(POLICY, NARROWED));
    let written = Instant::now();
    apply(screen, &stage, &mut agent, NARROWED)?;
    streams.judge_again(&stage)?;
    streams.watch(screen, 4);
    wrong += streams.compare(screen, Some(written));
    let (narrowed, more) = look(screen, &stage, Some(&isolated))?;
    wrong += more;

    screen.heading(5, "The agent is killed (SIGKILL): the kernel goes on");
    let pid = agent.id();
    agent.kill()?;
    screen.line(&format!("sluice-agent, process {pid}, is gone"));
    wrong += streams.compare(screen, None);
    let (_, more) = look(screen, &stage, Some(&narrowed))?;
    wrong += more;

    screen.heading(6, "Why was that denied? From the same files, without an agent");
    explain(screen, &stage, "other/stranger", "shop/db-0:5432")?;
    Ok(wrong)
}

fn name(pod: &str) -> ObjectName {
    ObjectName::new("shop", pod)
}

fn introduce(screen: Screen, stage: &Stage, agent: &Agent, started: Instant) -> Result<()> {
    let manifests = stage.manifests()?;
    let cluster = &manifests.cluster;
    let addresses =
        |list: &[std::net::IpAddr]| -> String { list.iter().map(|address| format!("{address:<20} ")).collect() };
    for node in cluster.nodes.values() {
        let line = format!("{:<16}{:<40}{}", format!("node {}", node.name), "", addresses(&node.addresses));
        screen.line(line.trim_end());
    }
    for pod in manifests.pods.iter().filter_map(|name| cluster.pods.get(name)) {
        let labels: Vec<String> = pod.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let ports: Vec<String> = pod.ports.iter().map(|port| port.number.to_string()).collect();
        let about = format!("{:<26}TCP {}", labels.join(" "), ports.join(" "));
        screen.line(format!("{:<16}{about:<40}{}", pod.name.to_string(), addresses(&pod.addresses)).trim_end());
    }
    for service in cluster.services.values() {
        let ports: Vec<String> = service.ports.iter().map(|port| port.port.to_string()).collect();
        let about = format!("{:<26}TCP {}", "Service", ports.join(" "));
        screen
            .line(format!("{:<16}{about:<40}{}", service.name.to_string(), addresses(&service.cluster_ips)).trim_end());
    }
    let ready = format!(
        "sluice-agent runs in the node's namespace, process {}, ready after {:.1} s",
        agent.id(),
        started.elapsed().as_secs_f64()
    );
    screen.good(&ready);
    Ok(())
}

/// Observes and shows; also the number of results that are wrong.
fn look(screen: Screen, stage: &Stage, before: Option<&Matrix>) -> Result<(Matrix, usize)> {
    screen.progress("trying every connection");
    let matrix = Matrix::observe(stage)?;
    screen.done();
    matrix.show(screen, before);
    let wrong = matrix.wrong();
    Ok((matrix, wrong))
}

/// Writes the policies and waits until they are in force, which the agent tells by its epoch.
fn apply(screen: Screen, stage: &Stage, agent: &mut Agent, text: &str) -> Result<()> {
    let epoch = |state: &serde_json::Value| state["epoch"].as_u64();
    let before = epoch(&agent.state()?).context("/state tells no epoch")?;
    let start = Instant::now();
    stage.apply("policies.yaml", text)?;
    agent.wait_for_state("put the policies in force", |state| epoch(state).is_some_and(|now| now > before))?;
    screen.good(&format!("in force {} ms after the file was written", start.elapsed().as_millis()));
    Ok(())
}

/// The lines that differ, as diff shows them; both texts have the same number of lines.
fn difference(before: &str, after: &str) -> String {
    let pairs = before.lines().zip(after.lines()).filter(|(before, after)| before != after);
    pairs.map(|(before, after)| format!("- {before}\n+ {after}\n")).collect()
}

fn explain(screen: Screen, stage: &Stage, from: &str, to: &str) -> Result<()> {
    println!("{}", screen.paint(Style::Heading, &format!("$ policyctl explain -f cluster {from} {to}")));
    let mut command = Command::new(program("policyctl")?);
    // From the folder above, so that files are named shortly.
    let folder = stage.directory.parent().context("the directory lies in a folder")?;
    command.current_dir(folder).args(["explain", "-f", "cluster", from, to]);
    let output = command.output().context("cannot start policyctl")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "policyctl: {}", String::from_utf8_lossy(&output.stderr).trim());
    // As wide as it is: it has the whole line in mind.
    println!("{}", said.trim_end());
    ensure!(said.contains("DENIED"), "policyctl does not say that this is denied");
    Ok(())
}
