//! The chained CNI plugin: with it no pod starts before its policies hold, agent or not.

use std::{sync::atomic::Ordering, thread};

use anyhow::{Result, ensure};
use e2e::lab::{Lab, OUTSIDE_V4, OUTSIDE_V6, sluice::Installation};
use serde_json::json;

use crate::{
    agents::call_agents_back,
    birth::{Heard, births, receiver, sender},
    scene::{Scene, policy},
    trace::traces,
};

/// Pods are born with the plugin and an agent, and with the plugin alone; then it is taken out of every node.
pub(crate) fn no_pod_starts_unenforced(lab: &Lab) -> Result<()> {
    lab.give_sluice()?;
    lab.cluster().install_sluice(Installation::WithPlugin)?;
    for node in lab.nodes() {
        let plugin = traces(node)?.into_iter().filter(|trace| trace.contains("cni")).count();
        ensure!(plugin >= 2, "the plugin is not in the configuration of {}", node.name());
    }
    births(lab, "plugin", 3, 6)?;
    without_an_agent(lab)?;
    lab.cluster().uninstall_sluice(Installation::WithPlugin)?;
    for node in lab.nodes() {
        let traces = traces(node)?;
        ensure!(traces.is_empty(), "left on {}: {}", node.name(), traces.join(", "));
    }
    Ok(())
}

/// A pod waits for its node's agent, and sends nothing before.
fn without_an_agent(lab: &Lab) -> Result<()> {
    let scene = Scene::open(lab, "unattended")?;
    scene.apply(&[policy("deny", json!({"podSelector": {}, "policyTypes": ["Egress"]}))])?;
    let receivers = [receiver(lab, OUTSIDE_V4.into())?, receiver(lab, OUTSIDE_V6.into())?];
    let heard = Heard::default();
    thread::scope(|scope| {
        for receiver in &receivers {
            scope.spawn(|| heard.listen(receiver));
        }
        let work = || {
            lab.cluster().send_agents_away()?;
            scene.apply(&[sender("late", "n2", false)])?;
            scene.await_message("no agent", "FailedCreatePodSandBox")?;
            call_agents_back(lab)?;
            scene.await_ready()
        };
        let result = work();
        if result.is_err() {
            // For the tests after this one.
            let _ = call_agents_back(lab);
        }
        heard.done.store(true, Ordering::Relaxed);
        result
    })?;
    heard.none_of(&lab.pods(scene.name(), "")?)
}
