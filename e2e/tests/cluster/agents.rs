//! Agents that come and go: killed, replaced by another build, gone for good.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::{Outcome, Stream},
    lab::{Lab, sluice::SYSTEM},
    wait::until,
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    scene::{Scene, now, pod},
    servers::{self, PATIENCE, allow, await_cut, from_steady, still_flow},
    traffic::Traffic,
};

/// Agents that are killed under load: nothing that is refused passes, nothing that is allowed stops; and what has changed
/// meanwhile is in force when they are back.
pub(crate) fn agents_are_killed(lab: &Lab) -> Result<()> {
    let scene = servers::open(lab, "killed")?;
    let streams = streams(&scene)?;
    let traffic = Traffic::start(&scene)?;
    let before = restarts(lab)?;
    kill_agents(lab)?;
    still_flow(&streams)?;
    traffic.goes_on()?;
    await_restarts(lab, &before)?;
    // From the second time on, the kubelet waits before it starts them again.
    kill_agents(lab)?;
    scene.apply(&[allow("from", &from_steady())])?;
    still_flow(&streams)?;
    traffic.goes_on()?;
    for stream in &streams {
        await_cut(stream).context("the agents are back, and a policy no longer allows it")?;
    }
    lab.cluster().await_sluice()?;
    traffic.end()
}

/// Connections of `client` to every server.
fn streams(scene: &Scene<'_>) -> Result<Vec<Stream>> {
    servers::addresses(scene)?.into_iter().map(|to| servers::connect(scene, "client", to)).collect()
}

/// Agents that are upgraded under load, one node after the other, and back again.
pub(crate) fn agents_are_upgraded(lab: &Lab) -> Result<()> {
    let scene = servers::open(lab, "upgraded")?;
    let streams = streams(&scene)?;
    let other = lab.give_other_sluice()?;
    let traffic = Traffic::start(&scene)?;
    let image = format!("agent={other}");
    lab.kubectl(&["set", "image", "daemonset/sluice-agent", "--namespace", SYSTEM, &image])?;
    lab.cluster().await_sluice()?;
    ensure!(images(lab)?.iter().all(|image| image.contains(other)), "not all agents run {other}: {:?}", images(lab)?);
    traffic.goes_on()?;
    still_flow(&streams)?;
    lab.kubectl(&["rollout", "undo", "daemonset/sluice-agent", "--namespace", SYSTEM])?;
    lab.cluster().await_sluice()?;
    ensure!(!images(lab)?.iter().any(|image| image.contains(other)), "an agent still runs {other}");
    traffic.goes_on()?;
    still_flow(&streams)?;
    scene.apply(&[allow("from", &from_steady())])?;
    for stream in &streams {
        await_cut(stream).context("the agents were upgraded, and a policy no longer allows it")?;
    }
    traffic.end()
}

/// Agents that are gone for good enforce on. A pod that is born meanwhile is enforced from the moment that an agent is
/// back, which then names it.
pub(crate) fn born_without_an_agent(lab: &Lab) -> Result<()> {
    let mut scene = servers::open(lab, "born")?;
    let to = servers::addresses(&scene)?;
    let stream = servers::connect(&scene, "client", to[0])?;
    lab.cluster().send_agents_away()?;
    now(&scene.ask("other", &to, Outcome::Dropped)?)?;
    ensure!(stream.flows(PATIENCE), "a connection was cut when its node's agent went");
    scene.add(&[pod("late", "n1", &json!({}))])?;
    call_agents_back(lab)?;
    now(&scene.ask("late", &to, Outcome::Dropped)?)?;
    now(&scene.ask("client", &to, Outcome::Open)?)?;
    let log = lab.cluster().sluice_log(-1);
    let late = format!("{}/late", scene.name());
    let named = log.lines().any(|line| line.contains("not enforced until now") && line.contains(&late));
    ensure!(named, "no agent has said that {late} was not enforced:\n{log}");
    Ok(())
}

/// Waits until every node has an agent again, and every pod is enforced.
pub(crate) fn call_agents_back(lab: &Lab) -> Result<()> {
    lab.cluster().call_agents_back()?;
    lab.cluster().await_sluice()
}

fn kill_agents(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        // One that has just ended is as good.
        if let Some(agent) = node.machine().find("sluice-agent")? {
            node.machine().stop(&agent, Signal::SIGKILL)?;
        }
    }
    Ok(())
}

/// How often each agent was started again, in the order of their names.
fn restarts(lab: &Lab) -> Result<Vec<u32>> {
    let path = "--output=jsonpath={.items[*].status.containerStatuses[0].restartCount}";
    let counts = lab.kubectl(&["get", "pods", "--namespace", SYSTEM, path])?;
    counts.split_whitespace().map(|count| count.parse().context("a count is a number")).collect()
}

/// Until each agent was started once more, and is ready.
fn await_restarts(lab: &Lab, before: &[u32]) -> Result<()> {
    let missing = || format!("the agents are not started again, {before:?} times until then");
    until(Duration::from_secs(60), Duration::from_millis(200), missing, || {
        let now = restarts(lab)?;
        let all = now.len() == before.len() && now.iter().zip(before).all(|(now, before)| now > before);
        Ok(all.then_some(()))
    })?;
    lab.cluster().await_sluice()
}

/// The images of the agents.
fn images(lab: &Lab) -> Result<Vec<String>> {
    let path = "--output=jsonpath={.items[*].spec.containers[*].image}";
    let images = lab.kubectl(&["get", "pods", "--namespace", SYSTEM, path])?;
    Ok(images.split_whitespace().map(str::to_owned).collect())
}
