//! What `policyctl` tells of a cluster's nodes, asked as its user does: through the API server.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use e2e::{
    bed::{Outcome, agent::program},
    lab::Lab,
};
use enforcer_abi::{LAYOUT_VERSION, RowKey, RowValue};
use serde_json::{Value, json};

use crate::scene::{Scene, eventually, now, pod, policy};

/// `policyctl ARGS` with the cluster's kubeconfig.
fn policyctl(lab: &Lab, args: &[&str]) -> Result<(String, Option<i32>)> {
    let mut command = Command::new(program("policyctl")?);
    command.args(args).env("KUBECONFIG", lab.cluster().kubeconfig());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Output { stdout, stderr, status } = lab.cluster().spawn(&mut command)?.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ok((said, status.code()))
}

/// All nodes are asked: how they are, whether all is as it is meant to be, and who was refused what by whom.
pub(crate) fn nodes_are_asked(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "ctl")?;
    scene.add(&[pod("client", "n1", &json!({})), pod("server", "n2", &json!({"app": "server"}))])?;
    scene.serve("server", &[80])?;
    let rules = json!([{"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}], "ports": [{"port": 80}]}]);
    let selector = json!({"matchLabels": {"app": "server"}});
    scene.apply(&[policy("refuses", json!({"podSelector": selector, "ingress": rules}))])?;
    let to = scene.at("server", 80)?;
    eventually(&scene.ask("client", &to, Outcome::Dropped)?)?;
    let namespace = scene.name().to_owned();

    let (said, status) = policyctl(lab, &["status"])?;
    ensure!(status == Some(0), "status {status:?}: {said}");
    for node in lab.nodes() {
        ensure!(said.contains(&format!("{}  ready, ", node.name())), "nothing of {}: {said}", node.name());
    }
    ensure!(said.contains(&format!("{namespace}/server")) && said.contains(&format!("{namespace}/refuses")), "{said}");

    let (said, status) = policyctl(lab, &["verify"])?;
    ensure!(status == Some(0) && said.matches("intended = compiled = loaded").count() == lab.nodes().len(), "{said}");

    let to_server = format!("{namespace}/server");
    let (said, status) = policyctl(lab, &["flows", "--to", &to_server, "--verdict", "denied", "-o", "jsonl"])?;
    ensure!(status == Some(0), "status {status:?}: {said}");
    let first: Value = serde_json::from_str(said.lines().next().context("nothing was refused")?)?;
    let named = (&first["node"], &first["remote"]["pod"], &first["policies"]);
    let expected = (&json!("n2"), &json!(format!("{namespace}/client")), &json!([format!("{namespace}/refuses")]));
    ensure!(named == expected, "{first:#}");

    let client = format!("{namespace}/client");
    let (said, status) = policyctl(lab, &["can", "--agent", "n2", &client, &format!("{to_server}:80")])?;
    ensure!(status == Some(1) && said.contains("refused by ingress"), "{said}");
    let (said, status) = policyctl(lab, &["dump", "--agent", "n2", &to_server])?;
    ensure!(status == Some(0) && said.contains(&format!("isolated by {namespace}/refuses")), "{said}");
    let (said, status) = policyctl(lab, &["status", "--agent", "n9"])?;
    ensure!(status == Some(3) && said.contains("there is no agent on node n9, but on n1, n2"), "{said}");
    now(&scene.ask("client", &to, Outcome::Dropped)?)
}

/// An entry of a kernel map that nobody but this test has changed is found, and named.
pub(crate) fn verify_finds_it(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "verify")?;
    let role = json!({"role": "client"});
    scene.add(&[pod("client", "n1", &role), pod("server", "n1", &json!({"app": "server"}))])?;
    scene.serve("server", &[80])?;
    let ports = json!([{"port": 80}, {"protocol": "UDP", "port": 80}]);
    let rules = json!([{"from": [{"podSelector": {"matchLabels": role}}], "ports": ports}]);
    let selector = json!({"matchLabels": {"app": "server"}});
    scene.apply(&[policy("opens", json!({"podSelector": selector, "ingress": rules}))])?;
    eventually(&scene.ask("client", &scene.at("server", 80)?, Outcome::Open)?)?;

    let server = format!("{}/server", scene.name());
    let table = ingress_table(lab, "n1", &server)?;
    let before = change_row(lab, "n1", table, None)?;
    let (said, status) = policyctl(lab, &["verify", "--agent", "n1"])?;
    change_row(lab, "n1", table, Some(before))?;
    ensure!(status == Some(1), "status {status:?}: {said}");
    let client = format!("({}/client ", scene.name());
    let named =
        said.contains(&server) && said.contains(&client) && said.contains("TCP/80: intended open, loaded closed");
    ensure!(named, "{said}");
    let (said, status) = policyctl(lab, &["verify", "--agent", "n1"])?;
    ensure!(status == Some(0), "{said}");
    Ok(())
}

/// The table of a pod of a node that decides who may enter.
fn ingress_table(lab: &Lab, node: &str, pod: &str) -> Result<u64> {
    let (said, status) = policyctl(lab, &["dump", "--agent", node, "-o", "json", pod])?;
    ensure!(status == Some(0), "{said}");
    let told: Value = serde_json::from_str(&said)?;
    let table = told["ingress"]["table"].as_str().context("it isn't isolated")?;
    Ok(u64::from_str_radix(table, 16)?)
}

/// Writes into a row of a table, behind the agent's back: these bits, or none at all. What was there before.
fn change_row(lab: &Lab, node: &str, table: u64, bits: Option<[u64; 2]>) -> Result<[u64; 2]> {
    let found = lab.nodes().iter().find(|other| other.name() == node);
    let machine = found.with_context(|| format!("there is a node {node}"))?.machine();
    // the machine's own file system, seen from here
    let path = format!("/proc/{}/root/sys/fs/bpf/sluice/v{LAYOUT_VERSION}/ROWS", machine.pid());
    let rows = MapData::from_pin(path).context("ROWS can't be opened")?;
    let mut rows: HashMap<_, RowKey, RowValue> = Map::HashMap(rows).try_into()?;
    let found = rows.iter().find(|entry| entry.as_ref().is_ok_and(|(key, _)| key.table == table));
    let (key, row) = found.context("the table has no row")??;
    rows.insert(key, RowValue { bits: bits.unwrap_or([0; 2]), ..row }, 0)?;
    Ok(row.bits)
}

/// A pod that a namespace of the level *restricted* takes.
fn restricted(name: &str, node: &str, labels: &Value) -> Value {
    let mut pod = pod(name, node, labels);
    pod["spec"]["containers"][0]["securityContext"] = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "runAsUser": 65535,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    pod
}

/// Real connections are as they are explained; one that is not, because somebody has written into the kernel's tables, is
/// found. The namespace takes no pod, and no container, that may do more than *restricted*.
pub(crate) fn probes_find_it(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "probes")?;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    lab.kubectl(&["label", "namespace", scene.name(), level])?;
    let role = json!({"role": "client"});
    scene.add(&[restricted("client", "n1", &role), restricted("server", "n1", &json!({"app": "server"}))])?;
    scene.serve("server", &[80, 82])?;
    // nobody listens at 81
    let ports = json!([{"port": 80}, {"port": 81}, {"protocol": "UDP", "port": 80}, {"protocol": "UDP", "port": 81}]);
    let rules = json!([{"from": [{"podSelector": {"matchLabels": role}}], "ports": ports}]);
    let selector = json!({"matchLabels": {"app": "server"}});
    scene.apply(&[policy("opens", json!({"podSelector": selector, "ingress": rules}))])?;
    eventually(&scene.ask("client", &scene.at("server", 80)?, Outcome::Open)?)?;
    eventually(&scene.ask("client", &scene.at("server", 82)?, Outcome::Dropped)?)?;

    let [client, server] = ["client", "server"].map(|name| format!("{}/{name}", scene.name()));
    let probe = |ports: &[&str]| {
        let to: Vec<_> = ports.iter().map(|port| format!("{server}:{port}")).collect();
        let flags: Vec<_> = to.iter().flat_map(|to| ["--probe", &*client, to]).collect();
        policyctl(lab, &[&["verify", "--agent", "n1"], &*flags].concat())
    };
    let (said, status) = probe(&["80", "81", "82", "81/udp"])?;
    ensure!(status == Some(0) && said.contains("8 connections probed: 8 as explained"), "status {status:?}: {said}");
    for line in
        ["TCP/80 over IPv4: allowed; let through, answered", "TCP/81 over IPv6: allowed; let through, the port is"]
    {
        ensure!(said.contains(line), "no {line:?}: {said}");
    }
    ensure!(said.contains("TCP/82 over IPv6: refused by ingress; dropped"), "{said}");
    ensure!(said.contains("UDP/81 over IPv4: allowed; let through, the port is closed"), "{said}");

    // over UDP, silence is no answer, and neither is there one over SCTP
    let (said, status) = probe(&["82/udp", "80/sctp"])?;
    ensure!(status == Some(3) && said.contains("4 connections probed: 0 as explained, 4 not known"), "{said}");

    let table = ingress_table(lab, "n1", &server)?;
    let before = change_row(lab, "n1", table, None)?;
    let found = probe(&["80", "82"]);
    change_row(lab, "n1", table, Some(before))?;
    let (said, status) = found?;
    ensure!(status == Some(1) && said.contains("4 connections probed: 2 as explained, 2 otherwise"), "{said}");
    ensure!(said.contains("TCP/80 over IPv4: explained as allowed, probed: dropped"), "{said}");
    let (said, status) = probe(&["80"])?;
    ensure!(status == Some(0), "{said}");
    Ok(())
}
