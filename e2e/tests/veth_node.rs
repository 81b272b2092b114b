//! Class `veth`: what an agent says of the node that it comes to: other policy engines, an agent that is there already.
#![forbid(unsafe_code)]

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{Agent, Outcome, Scratch, Server, Site, Transport, Wiring, is_root, probe, site::Policy};
use serde_json::{Value, json};

const PORT: u16 = 8080;

const KINDNET: &str = "nftables has the table kindnet-network-policies of kindnet: a packet passes only where Sluice and \
                       they both let it, so switch policies off in one of the two, or remove them if they were left behind";
const CALICO: &str = "pods of Calico (label k8s-app=calico-node in namespace calico-system) run on this node and may \
                      enforce NetworkPolicies, too: a packet passes only where Sluice and they both let it, so switch \
                      policies off in one of the two";

#[test]
fn other_policy_engines_are_told_once_each() -> Result<()> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return Ok(());
    }
    let mut site = Site::start_with(Wiring::PointToPoint, &[], |node| {
        node.namespace()
            .nft("add table inet kindnet-network-policies; add table ip filter; add chain ip filter harmless;")
    })?;
    let told = |state: &Value| {
        let told = state["otherEngines"].as_array().into_iter().flatten();
        told.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<String>>()
    };
    site.agent.wait_for_state("found kindnet's table", |state| told(state) == [KINDNET])?;
    let metric = |site: &Site, kind: &str| -> Result<String> {
        let metrics = site.agent.get("/metrics")?.body;
        let name = format!("sluice_other_engines{{kind=\"{kind}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name)).context("there is no such metric")?;
        Ok(value.to_owned())
    };
    assert_eq!([metric(&site, "nftables")?, metric(&site, "pod")?], ["1", "0"]);

    let labels = json!({"k8s-app": "calico-node"});
    let engine = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "calico-node-x7", "namespace": "calico-system", "uid": "calico-node-x7", "labels": labels},
        "spec": {"nodeName": "n1", "hostNetwork": true, "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": site.node.addresses()[0]}]},
    });
    site.put("engine", &[engine])?;
    site.agent.wait_for_state("noticed Calico's pod", |state| told(state) == [CALICO, KINDNET])?;
    assert_eq!([metric(&site, "nftables")?, metric(&site, "pod")?], ["1", "1"]);
    // a pod that comes is no reason to tell it again
    site.pod("a")?;
    for sentence in [CALICO, KINDNET] {
        let log = site.agent.log();
        assert_eq!(log.lines().filter(|line| line.contains("WARN") && line.ends_with(sentence)).count(), 1, "{log}");
    }
    let maps = site.agent.get("/metrics")?.body;
    assert!(maps.lines().any(|line| line.starts_with("sluice_map_bytes{map=\"FLOWS\"} ")), "{maps}");
    site.put("engine", &[])?;
    site.agent.wait_for_state("noticed that Calico's pod is gone", |state| told(state) == [KINDNET])
}

#[test]
fn a_second_agent_is_refused_and_leaves_the_first_ones_verdicts_alone() -> Result<()> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return Ok(());
    }
    let mut site = Site::start(Wiring::PointToPoint, &[])?;
    let (denied, source) = (site.pod("denied")?, site.pod("source")?);
    let _server = Server::start(denied.namespace(), "denied", &[(Transport::Tcp, PORT)])?;
    site.enforce(&[Policy::deny("nothing", &denied)])?;
    let to = SocketAddr::new(denied.addresses()[0], PORT);
    let is_denied = |from| probe(from, Transport::Tcp, to, Outcome::Dropped).map(|answer| answer.outcome);
    assert_eq!(is_denied(source.namespace())?, Outcome::Dropped);

    // it has a socket and files of its own, but the same pins
    let files = Scratch::create("second")?;
    let objects = files.files().join("objects");
    fs::create_dir(&objects).with_context(|| format!("cannot make {}", objects.display()))?;
    let refusal = Agent::start_in(&site.node, &objects, (files.files(), site.pins()), &["--listen", "127.0.0.1:0"])?
        .wait_until_ready()
        .err()
        .context("two agents are ready on one node")?;
    let first = site.agent.id();
    let sentence = format!(
        "error: the pins below {} are in use by process {first} (sluice-agent): only one agent may run on a node; stop \
         that one first",
        site.pins().display()
    );
    let refusal = format!("{refusal:#}");
    assert!(refusal.lines().any(|line| line == sentence), "{refusal}");
    assert!(refusal.contains("exit status: 1"), "{refusal}");
    assert_eq!(is_denied(source.namespace())?, Outcome::Dropped, "the first one's policies stand");
    ensure!(site.agent.get("/readyz")?.status == 200, "the first one is ready no more");
    Ok(())
}
