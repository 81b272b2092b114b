//! Services under policies: cluster addresses, and the names that pods ask for.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    policies::{openings, shop},
    scene::{PORT, Scene, client},
    venue::Venue,
};
use crate::{
    bed::Outcome,
    lab::objects::{deny_all, policy},
    wait::until,
};

/// The longest until names are found, or are not.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Service is open to whom policies let reach the pods behind it, and to nobody else.
pub(super) fn cluster_ip(venue: &Venue) -> Result<()> {
    const FRONT: u16 = 80;
    let scene = shop(venue, "service")?;
    let ports = ["TCP", "UDP"].map(
        |protocol| json!({"name": protocol.to_lowercase(), "port": FRONT, "targetPort": PORT, "protocol": protocol}),
    );
    let spec = json!({"selector": {"app": "web"}, "ipFamilyPolicy": "PreferDualStack", "ports": ports});
    scene.apply(&[json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})])?;
    let to = scene.at_service("web", FRONT)?;
    ensure!(!to.is_empty(), "the Service has no cluster address");
    scene.eventually(&[scene.ask("client", &to, Outcome::Open), scene.ask("other", &to, Outcome::Open)].concat())?;
    scene.apply(&[deny_all()])?;
    scene.eventually(&scene.ask("client", &to, Outcome::Dropped))?;
    scene.apply(&openings(&json!([])))?;
    scene.eventually(&scene.ask("client", &to, Outcome::Open))?;
    scene.now(&scene.ask("other", &to, Outcome::Dropped))
}

/// A pod that may only ask the cluster's name servers, by their labels, asks them through their Service.
pub(super) fn names_are_found(venue: &Venue) -> Result<()> {
    let names = venue.names().context("the cluster has no Service kube-system/kube-dns with pods behind it")?;
    let scene = Scene::open(venue, "names")?;
    scene.add(&[client("client", venue.near(), &json!({}))])?;
    let expected = venue.cluster().kubectl(&["get", "service", "kubernetes", "--output=jsonpath={.spec.clusterIP}"])?;
    let domain = scene.exec("client", "grep -o '[ \t]svc\\.[^ \t]*' /etc/resolv.conf | head -n 1")?;
    let name = format!("kubernetes.default.{}.", domain.trim());
    // Whatever else a resolver says, it says the address.
    let found = || {
        names.servers.iter().try_fold(true, |all, server| {
            let said = scene.exec("client", &format!("timeout 4 nslookup {name} {server} 2>&1 || true"))?;
            anyhow::Ok(all && said.split_whitespace().any(|word| word == expected))
        })
    };
    let await_found = |wanted: bool, wrong: &str| {
        until(PATIENCE, Duration::ZERO, || wrong.to_owned(), || Ok((found()? == wanted).then_some(())))
    };
    await_found(true, "names are not found although nothing forbids it")?;
    scene.apply(&[deny_all()])?;
    await_found(false, "names are found in spite of a policy that denies everything")?;
    let to = json!([{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": names.selector},
    }]);
    // Of the pods, whose port need not be that of the Service.
    scene.apply(&[policy("names", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to}]}))])?;
    await_found(true, "names are not found although a policy allows the name servers")
}
