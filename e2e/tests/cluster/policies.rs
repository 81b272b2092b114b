//! What policies do on a cluster: to pods of one node and of two, to a Service, to names, and not to the kubelet.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::Outcome,
    lab::{Lab, dns},
    wait::{retry, until},
};
use serde_json::{Value, json};

use crate::scene::{AGNHOST, Scene, deny_all, eventually, now, pod, policy, service, with_container};

/// The longest until a policy holds for names.
const PATIENCE: Duration = Duration::from_secs(20);

/// Denying all cuts everything, allowing by label opens that and nothing else, and removing opens again.
pub(crate) fn cut_and_open(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "shop")?;
    let (web, client) = (json!({"app": "web"}), json!({"role": "client"}));
    scene.add(&[
        pod("client", "n1", &client),
        pod("other", "n1", &json!({})),
        pod("near", "n1", &web),
        pod("far", "n2", &web),
    ])?;
    scene.apply(&[service("web", &web, 8080, 80)])?;
    for name in ["near", "far"] {
        scene.serve(name, &[80, 81])?;
    }
    let pods = [scene.at("near", 80)?, scene.at("far", 80)?].concat();
    let other_port = [scene.at("near", 81)?, scene.at("far", 81)?].concat();
    let front_end = scene.at_service("web", 8080)?;
    let all = [pods, front_end].concat();
    let ask = |from: &str, to: &[_], expected| scene.ask(from, to, expected);

    let everything = [ask("client", &all, Outcome::Open)?, ask("client", &other_port, Outcome::Open)?].concat();
    eventually(&everything)?;

    scene.apply(&[deny_all()])?;
    eventually(&[ask("client", &all, Outcome::Dropped)?, ask("other", &all, Outcome::Dropped)?].concat())?;

    let to_web = json!([{"to": [{"podSelector": {"matchLabels": web}}]}]);
    let from_client = json!([{
        "from": [{"podSelector": {"matchLabels": client}}],
        "ports": [{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 80}],
    }]);
    scene.apply(&[
        policy("to-web", json!({"podSelector": {"matchLabels": client}, "policyTypes": ["Egress"], "egress": to_web})),
        policy("from-client", json!({"podSelector": {"matchLabels": web}, "ingress": from_client})),
    ])?;
    eventually(&ask("client", &all, Outcome::Open)?)?;
    now(&[ask("other", &all, Outcome::Dropped)?, ask("client", &other_port, Outcome::Dropped)?].concat())?;

    scene.kubectl(&["delete", "networkpolicy", "--all"])?;
    eventually(&[everything, ask("other", &all, Outcome::Open)?].concat())
}

/// A pod that may only ask the cluster's name servers, by their labels, asks them through their Service.
pub(crate) fn names_are_found(lab: &Lab) -> Result<()> {
    const NAME: &str = "kubernetes.default.svc.cluster.local";
    let mut scene = Scene::open(lab, "names")?;
    scene.add(&[pod("client", "n1", &json!({}))])?;
    let ask = || {
        let network = scene.network("client")?;
        dns::SERVICE.iter().try_for_each(|server| network.run(|| dns::ask(*server, NAME)).map(drop))
    };
    let found = || {
        let found = retry(PATIENCE, Duration::ZERO, ask);
        found.context("names are not found although nothing forbids it")
    };
    found()?;
    scene.apply(&[deny_all()])?;
    let goes_on = || "names are found in spite of a policy that denies everything".to_owned();
    until(PATIENCE, Duration::ZERO, goes_on, || Ok(ask().is_err().then_some(())))?;
    let to = json!([{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }]);
    let egress = json!([{"to": to, "ports": [{"protocol": "UDP", "port": 53}]}]);
    scene.apply(&[policy("names", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}))])?;
    found()
}

/// The kubelet reaches pods that nobody else may reach: one that runs already goes on being ready, and one that is born
/// under the policy becomes so.
pub(crate) fn probes_of_the_kubelet(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "probes")?;
    scene.add(&[probed("before")])?;
    scene.apply(&[deny_all()])?;
    scene.add(&[probed("after")])?;
    let restarts =
        scene.kubectl(&["get", "pods", "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}"])?;
    ensure!(restarts == "0 0", "the pods were restarted: {restarts}");
    // Those of a start-up that takes its time say that a connection is refused, which is the container's own doing.
    let events = scene.kubectl(&[
        "get",
        "events",
        "--field-selector=reason=Unhealthy",
        "--output=jsonpath={.items[*].message}",
    ])?;
    ensure!(!events.contains("deadline") && !events.contains("timeout"), "probes failed: {events}");
    let changes = scene.kubectl(&[
        "get",
        "pod",
        "before",
        "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}",
    ])?;
    ensure!(changes == "True", "the pod that ran before is not ready any more");
    Ok(())
}

/// A server that is asked by the kubelet in every way that it knows, once a second.
fn probed(name: &str) -> Value {
    let every_second = |mut probe: Value| {
        probe["periodSeconds"] = json!(1);
        probe["timeoutSeconds"] = json!(1);
        probe
    };
    let mut container = json!({"name": "server", "image": AGNHOST, "args": ["netexec", "--http-port=8080"]});
    container["startupProbe"] = every_second(json!({"tcpSocket": {"port": 8080}, "failureThreshold": 30}));
    container["livenessProbe"] = every_second(json!({"tcpSocket": {"port": 8080}, "failureThreshold": 2}));
    container["readinessProbe"] = every_second(
        json!({"httpGet": {"port": 8080, "path": "/hostname"}, "successThreshold": 3, "failureThreshold": 1}),
    );
    with_container(name, "n1", &json!({}), container)
}
