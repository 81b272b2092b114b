//! An API server that is away, or has forgotten.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{bed::Outcome, lab::Lab};
use nix::sys::signal::Signal;

use crate::{
    scene::{eventually, now},
    servers::{self, PATIENCE, allow, await_cut, from_both, from_steady},
    traffic::Traffic,
};

/// While there is no API server, all is as it was; when it is back, changes count again.
pub(crate) fn api_server_is_away(lab: &Lab) -> Result<()> {
    let scene = servers::open(lab, "away")?;
    let to = servers::addresses(&scene)?;
    let stream = servers::connect(&scene, "client", to[0])?;
    let allowed = scene.ask("client", &to, Outcome::Open)?;
    let refused = scene.ask("other", &to, Outcome::Dropped)?;
    let traffic = Traffic::start(&scene)?;
    lab.stop_api()?;
    let end = Instant::now() + Duration::from_secs(5);
    let meanwhile = || {
        while Instant::now() < end {
            now(&allowed)?;
            now(&refused)?;
        }
        ensure!(stream.flows(PATIENCE), "a connection was cut while the API server was away");
        Ok(())
    };
    let result = meanwhile();
    lab.start_api()?;
    result?;
    scene.apply(&[allow("from", &from_steady())])?;
    await_cut(&stream).context("the API server is back, and a policy no longer allows it")?;
    scene.apply(&[allow("from", &from_both())])?;
    eventually(&allowed)?;
    now(&refused)?;
    traffic.end()
}

/// Agents that have missed changes of which no history is left see what there is now.
pub(crate) fn history_is_compacted(lab: &Lab) -> Result<()> {
    let scene = servers::open(lab, "history")?;
    let stream = servers::connect(&scene, "client", scene.at("far", 80)?[0])?;
    let traffic = Traffic::start(&scene)?;
    let too_old = || lab.machine("n2")?.agent_metric("sluice_watch_restarts_total", r#"reason="too_old""#);
    let before = too_old()?;
    signal_agents(lab, Signal::SIGSTOP)?;
    let changed = || {
        scene.apply(&[allow("from", &from_steady())])?;
        scene.kubectl(&["delete", "networkpolicy", "deny-all"])?;
        lab.compact_history()?;
        // One that starts anew has no history of its own either.
        lab.stop_api()?;
        lab.start_api()
    };
    let result = changed();
    signal_agents(lab, Signal::SIGCONT)?;
    result?;
    await_cut(&stream).context("the agents go on, and a policy no longer allows it")?;
    ensure!(too_old()? > before, "no watch of the agent on n2 was told that its version is too old");
    traffic.end()
}

fn signal_agents(lab: &Lab, signal: Signal) -> Result<()> {
    for node in lab.nodes() {
        let agent = node.machine().find("sluice-agent")?.with_context(|| format!("no agent on {}", node.name()))?;
        node.machine().send(&agent, signal)?;
    }
    Ok(())
}
