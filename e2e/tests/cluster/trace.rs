//! Sluice removed: nothing of it is left on any node, and nothing is enforced.

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use e2e::{
    bed::Outcome,
    lab::{Lab, Node, sluice::Installation},
};
use nix::ifaddrs::getifaddrs;
use serde_json::json;

use crate::scene::{Scene, deny_all, eventually, pod};

/// What there is on every node with Sluice is on none without it, while pods run whose policies were in force.
pub(crate) fn nothing_is_left(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "trace")?;
    scene.add(&[pod("client", "n1", &json!({})), pod("near", "n1", &json!({})), pod("far", "n2", &json!({}))])?;
    for server in ["near", "far"] {
        scene.serve(server, &[80])?;
    }
    scene.apply(&[deny_all()])?;
    let to: Vec<_> = [scene.at("near", 80)?, scene.at("far", 80)?].concat();
    eventually(&scene.ask("client", &to, Outcome::Dropped)?)?;
    for node in &lab.nodes()[..2] {
        let traces = traces(node)?;
        ensure!(traces.len() >= 3, "pins, the folder and programs are what is looked for, not {traces:?}");
    }

    lab.cluster().uninstall_sluice(Installation::Agents)?;
    eventually(&scene.ask("client", &to, Outcome::Open)?)?;
    for node in lab.nodes() {
        let traces = traces(node)?;
        ensure!(traces.is_empty(), "left on {}: {}", node.name(), traces.join(", "));
    }
    Ok(())
}

/// Pins, files, the CNI plugin, and programs on interfaces.
pub(crate) fn traces(node: &Node) -> Result<Vec<String>> {
    let script = "for path in /sys/fs/bpf/sluice* /run/sluice/* /opt/cni/bin/sluice*; do if [ -e $path ]; then echo $path; fi; done; grep -l sluice \
                  /etc/cni/net.d/* || true";
    let files = node.machine().output(std::process::Command::new("sh").args(["-c", script]))?;
    let mut traces: Vec<String> = files.lines().map(str::to_owned).collect();
    traces.extend(node.machine().run(|| {
        let mut names: Vec<String> =
            getifaddrs().context("cannot list interfaces")?.map(|entry| entry.interface_name).collect();
        names.sort();
        names.dedup();
        let mut found = Vec::new();
        for name in names {
            for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
                let (_, programs) = SchedClassifier::query_tcx(&name, hook).context("cannot ask for programs")?;
                found.extend(programs.iter().map(|program| format!("program {} on {name}", program.id())));
            }
        }
        Ok(found)
    })?);
    Ok(traces)
}
