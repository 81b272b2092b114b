//! What policies do to connections that begin after them, and not to the kubelet.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    scene::{OTHER_PORT, PORT, Scene, client, netexec, pod, server},
    venue::Venue,
};
use crate::{
    bed::Outcome,
    lab::objects::{deny_all, policy},
};

/// How long the kubelet is watched.
const LONG: Duration = Duration::from_secs(5);

/// Denying all cuts everything, allowing by label and port opens that and nothing else, and removing opens again.
pub(super) fn deny_and_allow(venue: &Venue) -> Result<()> {
    let scene = shop(venue, "allow")?;
    let pods = [scene.at("near", PORT)?, scene.at("far", PORT)?].concat();
    let other_port = [scene.at("near", OTHER_PORT)?, scene.at("far", OTHER_PORT)?].concat();
    let all = [pods.clone(), other_port.clone()].concat();
    let everything = [scene.ask("client", &all, Outcome::Open), scene.ask("other", &all, Outcome::Open)].concat();
    scene.eventually(&everything)?;

    scene.apply(&[deny_all()])?;
    scene.eventually(
        &[scene.ask("client", &all, Outcome::Dropped), scene.ask("other", &all, Outcome::Dropped)].concat(),
    )?;

    scene.apply(&openings(&json!([{"protocol": "TCP", "port": PORT}, {"protocol": "UDP", "port": PORT}])))?;
    scene.eventually(&scene.ask("client", &pods, Outcome::Open))?;
    scene.now(
        &[scene.ask("other", &all, Outcome::Dropped), scene.ask("client", &other_port, Outcome::Dropped)].concat(),
    )?;

    scene.kubectl(&["delete", "networkpolicy", "--all"])?;
    scene.eventually(&everything)
}

/// A pod gets a label that a policy asks for, and loses it.
pub(super) fn labels_count(venue: &Venue) -> Result<()> {
    let scene = shop(venue, "labels")?;
    scene.apply(&[deny_all()])?;
    scene.apply(&openings(&json!([])))?;
    let to = [scene.at("near", PORT)?, scene.at("far", PORT)?].concat();
    let (open, dropped) = (scene.ask("other", &to, Outcome::Open), scene.ask("other", &to, Outcome::Dropped));
    scene.eventually(&scene.ask("client", &to, Outcome::Open))?;
    scene.now(&dropped)?;
    scene.kubectl(&["label", "pod", "other", "role=client"])?;
    scene.eventually(&open)?;
    scene.kubectl(&["label", "pod", "other", "role-"])?;
    scene.eventually(&dropped)?;
    scene.now(&scene.ask("client", &to, Outcome::Open))
}

/// Two servers, on two nodes if there are two, `client` and `other`.
pub(super) fn shop<'a>(venue: &'a Venue, label: &str) -> Result<Scene<'a>> {
    let scene = Scene::open(venue, label)?;
    let web = json!({"app": "web"});
    scene.add(&[
        client("client", venue.near(), &json!({"role": "client"})),
        client("other", venue.near(), &json!({})),
        server("near", venue.near(), &web),
        server("far", venue.far(), &web),
    ])?;
    Ok(scene)
}

/// Policies that let `client` reach the servers at these ports.
pub(super) fn openings(ports: &Value) -> [Value; 2] {
    let (web, client) = (json!({"matchLabels": {"app": "web"}}), json!({"matchLabels": {"role": "client"}}));
    let to_web = json!([{"to": [{"podSelector": web}]}]);
    let from_client = json!([{"from": [{"podSelector": client}], "ports": ports}]);
    [
        policy("to-web", json!({"podSelector": client, "policyTypes": ["Egress"], "egress": to_web})),
        policy("from-client", json!({"podSelector": web, "ingress": from_client})),
    ]
}

/// The kubelet reaches pods that nobody else may reach: one that runs already goes on being ready, and one that is born
/// under the policy becomes so.
pub(super) fn probes_of_the_kubelet(venue: &Venue) -> Result<()> {
    let scene = Scene::open(venue, "probes")?;
    scene.add(&[probed("before", venue.near())])?;
    scene.apply(&[deny_all()])?;
    scene.add(&[probed("after", venue.far())])?;
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        let path = "--output=jsonpath={.items[*].status.containerStatuses[*]['ready','restartCount']}";
        let state = scene.kubectl(&["get", "pods", path])?;
        ensure!(state == "true true 0 0", "the kubelet finds pods under a policy not ready, or dead: {state}");
        thread::sleep(Duration::from_millis(500));
    }
    // Those of a start-up that takes its time say that a connection is refused, which is the container's own doing.
    let path = "--output=jsonpath={.items[*].message}";
    let events = scene.kubectl(&["get", "events", "--field-selector=reason=Unhealthy", path])?;
    ensure!(!events.contains("deadline") && !events.contains("timeout"), "probes failed: {events}");
    Ok(())
}

/// A server that the kubelet asks once a second, over HTTP and for a mere connection.
fn probed(name: &str, node: &str) -> Value {
    let every_second = |mut probe: Value| {
        probe["periodSeconds"] = json!(1);
        probe["timeoutSeconds"] = json!(2);
        probe
    };
    let mut container = netexec("main", PORT);
    container["startupProbe"] = every_second(json!({"tcpSocket": {"port": PORT}, "failureThreshold": 60}));
    container["livenessProbe"] = every_second(json!({"tcpSocket": {"port": PORT}, "failureThreshold": 2}));
    container["readinessProbe"] = every_second(
        json!({"httpGet": {"port": PORT, "path": "/healthz"}, "successThreshold": 3, "failureThreshold": 1}),
    );
    pod(name, node, &json!({}), &[container])
}
