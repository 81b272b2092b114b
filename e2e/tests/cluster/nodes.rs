//! Pods and their nodes: the host's network, host ports, the way out, and a pod's own loopback.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::{Namespace, Outcome, Probe, Server, Transport},
    lab::{Lab, OUTSIDE_V4, OUTSIDE_V6},
};
use serde_json::{Value, json};

use crate::{
    scene::{AGNHOST, Scene, deny_all, eventually, now, pod, policy, with_container},
    services::{addresses_of, blocks, from_outside},
};

/// A device of a node that is never up.
const SINK: &str = "sluice-sink";

/// A pod in the host's network is its node: no selector matches it, blocks do. A node reaches its own pods, another
/// node's as policies say.
pub(crate) fn host_network(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "host-network")?;
    let (web, client) = (json!({"app": "web"}), json!({"role": "client"}));
    let on_host = |name: &str, node: &str| {
        let mut object = pod(name, node, &client);
        object["spec"]["hostNetwork"] = json!(true);
        object
    };
    scene.add(&[pod("web", "n1", &web), on_host("own", "n1"), on_host("other", "n2")])?;
    scene.serve("web", &[80])?;
    let to = scene.at("web", 80)?;
    eventually(&[scene.ask("own", &to, Outcome::Open)?, scene.ask("other", &to, Outcome::Open)?].concat())?;
    let of = |from: &Value| policy("web", json!({"podSelector": {"matchLabels": web}, "ingress": [{"from": from}]}));
    scene.apply(&[of(&json!([{"podSelector": {"matchLabels": client}}]))])?;
    eventually(&scene.ask("other", &to, Outcome::Dropped)?)?;
    now(&scene.ask("own", &to, Outcome::Open)?)?;
    let [v4, v6] = addresses_of(lab, "n2")?;
    scene.apply(&[of(&blocks(&[format!("{v4}/32"), format!("{v6}/128")]))])?;
    eventually(&scene.ask("other", &to, Outcome::Open)?)
}

/// What the port of a node leads to a pod (portmap) is judged at the pod, with the client's own address.
pub(crate) fn host_ports(lab: &Lab) -> Result<()> {
    const PORT: u16 = 8181;
    let mut scene = Scene::open(lab, "host-ports")?;
    let mut web = pod("web", "n1", &json!({}));
    web["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": PORT}]);
    scene.add(&[web])?;
    scene.serve("web", &[80])?;
    let outside = Namespace::of_process("outside", lab.control().pid())?;
    let ask = |expected| from_outside(lab, &outside, "n1", PORT, expected);
    eventually(&ask(Outcome::Open)?)?;
    scene.apply(&[deny_all()])?;
    eventually(&ask(Outcome::Dropped)?)?;
    let from = blocks(&[format!("{OUTSIDE_V4}/32"), format!("{OUTSIDE_V6}/128")]);
    scene.apply(&[policy("from", json!({"podSelector": {}, "ingress": [{"from": from}]}))])?;
    eventually(&ask(Outcome::Open)?)
}

/// Outside of the cluster pods are seen with their node's address; at the pod their packets are judged by whom they are
/// for.
pub(crate) fn masquerade(lab: &Lab) -> Result<()> {
    const TABLE: &str = "inet sluice_test";
    let mut scene = Scene::open(lab, "masquerade")?;
    scene.add(&[pod("client", "n3", &json!({}))])?;
    let node = Namespace::of_process("n3", lab.machine("n3")?.pid())?;
    node.nft(&format!(
        "table {TABLE} {{ chain out {{ type nat hook postrouting priority 90; ip daddr {OUTSIDE_V4} masquerade; ip6 daddr \
         {OUTSIDE_V6} masquerade; }}; }}"
    ))?;
    let result = behind_masquerade(lab, &scene);
    node.nft(&format!("delete table {TABLE}"))?;
    result
}

fn behind_masquerade(lab: &Lab, scene: &Scene<'_>) -> Result<()> {
    let network = Namespace::of_process("outside", lab.control().pid())?;
    let to = [IpAddr::from(OUTSIDE_V4), IpAddr::from(OUTSIDE_V6)].map(|at| SocketAddr::new(at, 8086));
    let _outside = Server::start_at(&network, "outside", &to.map(|at| (Transport::Tcp, at)))?;
    let from = scene.network("client")?;
    let ask = |expected| to.map(|to| Probe { from, source: None, transport: Transport::Tcp, to, expected });
    eventually(&ask(Outcome::Open))?;
    for answer in e2e::bed::probe_all(&ask(Outcome::Open))? {
        let seen = answer.greeting.map(|greeting| greeting.client);
        let nodes = addresses_of(lab, "n3")?;
        ensure!(seen.is_some_and(|seen| nodes.contains(&seen)), "the pod is seen as {seen:?}, not as {nodes:?}");
    }
    scene.apply(&[deny_all()])?;
    eventually(&ask(Outcome::Dropped))?;
    let egress = json!([{"to": blocks(&[format!("{OUTSIDE_V4}/32"), format!("{OUTSIDE_V6}/128")])}]);
    scene.apply(&[policy("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}))])?;
    eventually(&ask(Outcome::Open))
}

/// What other programs do with a pod's packets at the same interface goes on: a filter behind Sluice sees what Sluice lets
/// pass, and nothing else.
pub(crate) fn other_filters(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "filters")?;
    scene.add(&[pod("web", "n1", &json!({})), pod("client", "n2", &json!({}))])?;
    scene.serve("web", &[80])?;
    let to = scene.at("web", 80)?;
    eventually(&scene.ask("client", &to, Outcome::Open)?)?;
    let node = Namespace::of_process("n1", lab.machine("n1")?.pid())?;
    let link = host_side(&scene, "web", &node)?;
    // Of what every kernel has: a filter that matches everything, and an action that counts. The copies go to a device
    // that is down, which is to say nowhere.
    node.ip(&[format!("link add {SINK} type ifb")])?;
    let result = behind_sluice(&scene, &node, &link, &to);
    node.ip(&[format!("link delete {SINK}")])?;
    result
}

fn behind_sluice(scene: &Scene<'_>, node: &Namespace, link: &str, to: &[SocketAddr]) -> Result<()> {
    let everything = "protocol ip u32 match u32 0 0 flowid 1:1";
    node.tc(&[
        format!("qdisc add dev {link} clsact"),
        format!("filter add dev {link} egress {everything} action mirred egress mirror dev {SINK}"),
    ])?;
    now(&scene.ask("client", to, Outcome::Open)?)?;
    let passed = seen_by_filter(node, link)?;
    ensure!(passed > 0, "a filter behind Sluice sees nothing");
    scene.apply(&[deny_all()])?;
    let refused = scene.ask("client", to, Outcome::Dropped)?;
    eventually(&refused)?;
    let before = seen_by_filter(node, link)?;
    now(&refused)?;
    let after = seen_by_filter(node, link)?;
    ensure!(before == after, "a filter behind Sluice sees {} packets that Sluice refuses", after - before);
    Ok(())
}

/// The node's end of a pod's veth pair.
fn host_side(scene: &Scene<'_>, pod: &str, node: &Namespace) -> Result<String> {
    let links = |network: &Namespace| {
        let output = network.run(|| Command::new("ip").args(["-json", "link"]).output().context("cannot start ip"))?;
        serde_json::from_slice::<Value>(&output.stdout).context("ip prints no JSON")
    };
    let inside = links(scene.network(pod)?)?;
    let eth0 = inside.as_array().into_iter().flatten().find(|link| link["ifname"] == "eth0");
    let index = eth0.context("the pod has no eth0")?["link_index"].clone();
    let outside = links(node)?;
    let link = outside.as_array().into_iter().flatten().find(|link| link["ifindex"] == index);
    let name = link.and_then(|link| link["ifname"].as_str()).context("the node has no such link")?;
    Ok(name.to_owned())
}

/// Packets that a filter's action has let go on.
fn seen_by_filter(node: &Namespace, link: &str) -> Result<u64> {
    let show = ["-json", "-stats", "filter", "show", "dev", link, "egress"];
    let output = node.run(|| Command::new("tc").args(show).output().context("cannot start tc"))?;
    let filters: Value = serde_json::from_slice(&output.stdout).context("tc prints no JSON")?;
    let packets = filters
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|filter| filter.pointer("/options/actions/0/stats/packets").and_then(Value::as_u64));
    packets.with_context(|| format!("tc tells no packets: {filters}"))
}

/// Containers of one pod reach each other whatever policies say.
pub(crate) fn loopback(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "loopback")?;
    scene.apply(&[deny_all()])?;
    let container = |name: &str, port: u16| {
        let args = json!(["netexec", format!("--http-port={port}"), "--udp-port=-1"]);
        json!({"name": name, "image": AGNHOST, "imagePullPolicy": "Never", "args": args})
    };
    let mut object = with_container("both", "n1", &json!({}), container("one", 8080));
    object["spec"]["containers"] = json!([container("one", 8080), container("other", 8081)]);
    scene.add(&[object])?;
    let own = scene.at("both", 8080)?;
    let own: Vec<String> = own.iter().map(ToString::to_string).collect();
    for target in ["127.0.0.1:8080", "[::1]:8080"].into_iter().chain(own.iter().map(String::as_str)) {
        scene.kubectl(&["exec", "both", "--container=other", "--", "/agnhost", "connect", "--timeout=5s", target])?;
    }
    Ok(())
}
