//! Policies, pods' labels and namespaces' labels that change under open connections: what is no longer allowed is cut, and
//! nothing else.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    scene::{PORT, Scene, client, server},
    talk::Stream,
    venue::Venue,
};
use crate::{
    bed::{Outcome, Transport},
    lab::objects::{deny_all, policy},
};

/// A policy that narrows.
pub(super) fn policy_cuts(venue: &Venue) -> Result<()> {
    let scene = stage(venue, "narrowed")?;
    scene.apply(&[ingress(&json!([steady(), role("client")]))])?;
    let narrow = || scene.apply(&[ingress(&json!([steady()]))]);
    cut_by(&scene, narrow).context("after its policy has changed")
}

/// A pod that loses its label.
pub(super) fn pod_label_cuts(venue: &Venue) -> Result<()> {
    let scene = stage(venue, "relabelled")?;
    scene.apply(&[ingress(&json!([steady(), role("client")]))])?;
    let relabel = || scene.kubectl(&["label", "pod", "client", "role=nobody", "--overwrite"]).map(drop);
    cut_by(&scene, relabel).context("after its pod's label has changed")
}

/// A namespace that loses its label.
pub(super) fn namespace_label_cuts(venue: &Venue) -> Result<()> {
    let scene = stage(venue, "moved")?;
    scene.kubectl(&["label", "namespace", scene.name(), "team=a"])?;
    let team = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}});
    scene.apply(&[ingress(&json!([steady(), team]))])?;
    let relabel = || scene.kubectl(&["label", "namespace", scene.name(), "team=b", "--overwrite"]).map(drop);
    cut_by(&scene, relabel).context("after its namespace's label has changed")
}

/// Opens connections from `client`, which a change is to cut, and from `steady`, which it is not, over TCP and UDP, in
/// every family of the cluster.
fn cut_by(scene: &Scene<'_>, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let to = scene.at("far", PORT)?;
    scene.eventually(&[scene.ask("client", &to, Outcome::Open), scene.ask("steady", &to, Outcome::Open)].concat())?;
    let mut doomed = streams(scene, "client", "far")?;
    let kept = streams(scene, "steady", "far")?;
    change()?;
    doomed.iter_mut().try_for_each(Stream::await_cut)?;
    kept.iter().try_for_each(Stream::ensure_flows)?;
    scene.now(&scene.ask("client", &to, Outcome::Dropped))
}

/// A connection over TCP and one over UDP to each address of a server.
pub(super) fn streams(scene: &Scene<'_>, from: &str, to: &str) -> Result<Vec<Stream>> {
    let to = scene.at(to, PORT)?;
    let each = to.iter().flat_map(|to| [(Transport::Tcp, *to), (Transport::Udp, *to)]);
    each.map(|(transport, to)| Stream::open(scene, from, transport, to)).collect()
}

/// A server to which policies let nobody yet, and two clients on the other node that may send.
fn stage<'a>(venue: &'a Venue, label: &str) -> Result<Scene<'a>> {
    let scene = Scene::open(venue, label)?;
    scene.add(&[
        client("client", venue.near(), &json!({"role": "client"})),
        client("steady", venue.near(), &json!({"role": "steady"})),
        server("far", venue.far(), &json!({"app": "web"})),
    ])?;
    let egress = json!([{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]);
    scene
        .apply(&[deny_all(), policy("out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}))])?;
    Ok(scene)
}

/// What the server lets in.
fn ingress(from: &Value) -> Value {
    policy("in", json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": from}]}))
}

fn steady() -> Value {
    role("steady")
}

fn role(role: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"role": role}}})
}
