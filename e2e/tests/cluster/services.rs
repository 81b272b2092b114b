//! Services: where a packet to one goes is not what it says at the pod's interface, so each kind of front end has a
//! scenario.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use e2e::{
    bed::{Namespace, Outcome, Probe, Server, Transport},
    lab::{Lab, OUTSIDE_V4, OUTSIDE_V6},
};
use serde_json::{Value, json};

use crate::scene::{Scene, deny_all, eventually, now, pod, policy, service};

/// From outside through a node port, with the client's own address (`Local`) and with a node's (`Cluster`). What is
/// masqueraded to a node's address, the pod's own node included, is not the node's own traffic.
pub(crate) fn node_ports(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "node-ports")?;
    let web = json!({"app": "web"});
    scene.add(&[pod("web", "n1", &web), pod("client", "n2", &json!({"role": "client"}))])?;
    scene.serve("web", &[80])?;
    let typed = |name: &str, traffic: &str| {
        let mut object = service(name, &web, 8080, 80);
        object["spec"]["type"] = json!("NodePort");
        object["spec"]["externalTrafficPolicy"] = json!(traffic);
        object
    };
    scene.apply(&[typed("local", "Local"), typed("everywhere", "Cluster")])?;
    let (local, everywhere) = (node_port(&scene, "local")?, node_port(&scene, "everywhere")?);
    let outside = Namespace::of_process("outside", lab.control().pid())?;
    let ask = |node: &str, port: u16, expected| from_outside(lab, &outside, node, port, expected);

    // Without a policy, to see that the ports lead where they are to.
    let open = [
        ask("n1", local, Outcome::Open)?,
        ask("n1", everywhere, Outcome::Open)?,
        ask("n2", everywhere, Outcome::Open)?,
    ];
    eventually(&open.concat())?;

    let outside_alone = blocks(&[format!("{OUTSIDE_V4}/32"), format!("{OUTSIDE_V6}/128")]);
    let of = |from: &Value| policy("web", json!({"podSelector": {"matchLabels": web}, "ingress": [{"from": from}]}));
    scene.apply(&[of(&outside_alone)])?;
    eventually(&[ask("n1", everywhere, Outcome::Dropped)?, ask("n2", everywhere, Outcome::Dropped)?].concat())?;
    now(&ask("n1", local, Outcome::Open)?)?;

    // A pod's packet to a node port is judged by the back ends: at the pod it says the node's address, and no ipBlock.
    let to = json!([{"to": [{"podSelector": {"matchLabels": web}}]}]);
    let client = json!({"matchLabels": {"role": "client"}});
    let from_client = json!([{"podSelector": client}]);
    scene.apply(&[
        of(&from_client),
        policy("client", json!({"podSelector": client, "policyTypes": ["Egress"], "egress": to})),
    ])?;
    eventually(&ask("n1", local, Outcome::Dropped)?)?;
    let node: Vec<SocketAddr> = addresses_of(lab, "n1")?.into_iter().map(|at| SocketAddr::new(at, local)).collect();
    eventually(&scene.ask("client", &node, Outcome::Open)?)?;
    scene.apply(&[policy("client", json!({"podSelector": client, "policyTypes": ["Egress"]}))])?;
    eventually(&scene.ask("client", &node, Outcome::Dropped)?)
}

/// A load balancer's address that the nodes translate themselves is judged by the back ends, too.
pub(crate) fn load_balancers(lab: &Lab) -> Result<()> {
    const BALANCER: &str = "198.51.100.9";
    let mut scene = Scene::open(lab, "balancers")?;
    let (web, client) = (json!({"app": "web"}), json!({"role": "client"}));
    scene.add(&[pod("web", "n1", &web), pod("client", "n2", &client)])?;
    scene.serve("web", &[80])?;
    let mut object = service("web", &web, 8080, 80);
    object["spec"]["type"] = json!("LoadBalancer");
    // Else kube-proxy masquerades what pods send there, and the back end's policy sees a node.
    object["spec"]["externalTrafficPolicy"] = json!("Local");
    scene.apply(&[object])?;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": BALANCER, "ipMode": "VIP"}]}}}).to_string();
    scene.kubectl(&["patch", "service", "web", "--subresource=status", "--type=merge", "--patch", &status])?;
    let balancer = [SocketAddr::new(BALANCER.parse().context("no address")?, 8080)];
    eventually(&scene.ask("client", &balancer, Outcome::Open)?)?;

    let to_web = json!([{"to": [{"podSelector": {"matchLabels": web}}]}]);
    scene.apply(&[deny_all()])?;
    eventually(&scene.ask("client", &balancer, Outcome::Dropped)?)?;
    let from_client = json!([{"from": [{"podSelector": {"matchLabels": client}}]}]);
    scene.apply(&[
        policy("to-web", json!({"podSelector": {"matchLabels": client}, "policyTypes": ["Egress"], "egress": to_web})),
        policy("from-client", json!({"podSelector": {"matchLabels": web}, "ingress": from_client})),
    ])?;
    eventually(&scene.ask("client", &balancer, Outcome::Open)?)
}

/// A Service of which policies allow one back end and refuse another is closed, and an event of it says so; when both
/// are allowed, it opens.
pub(crate) fn mixed_services(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "mixed")?;
    let (good, bad) = (json!({"app": "web", "is": "good"}), json!({"app": "web", "is": "bad"}));
    scene.add(&[pod("good", "n1", &good), pod("bad", "n2", &bad), pod("client", "n2", &json!({"role": "client"}))])?;
    for name in ["good", "bad"] {
        scene.serve(name, &[80])?;
    }
    scene.apply(&[service("web", &json!({"app": "web"}), 8080, 80)])?;
    let front_end = scene.at_service("web", 8080)?;
    eventually(&scene.ask("client", &front_end, Outcome::Open)?)?;
    let of = |labels: Value| {
        let to = json!([{"to": [{"podSelector": {"matchLabels": labels}}]}]);
        policy(
            "client",
            json!({"podSelector": {"matchLabels": {"role": "client"}}, "policyTypes": ["Egress"], "egress": to}),
        )
    };
    scene.apply(&[of(json!({"is": "good"}))])?;
    eventually(
        &[
            scene.ask("client", &front_end, Outcome::Dropped)?,
            scene.ask("client", &scene.at("good", 80)?, Outcome::Open)?,
        ]
        .concat(),
    )?;
    scene.await_event("ServiceClosed")?;
    scene.apply(&[of(json!({"app": "web"}))])?;
    eventually(&scene.ask("client", &front_end, Outcome::Open)?)
}

/// Without a front end: a headless Service is its pods, one of an external name is what that name stands for.
pub(crate) fn without_a_front_end(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "headless")?;
    let (web, client) = (json!({"app": "web"}), json!({"role": "client"}));
    scene.add(&[pod("web", "n1", &web), pod("client", "n2", &client)])?;
    scene.serve("web", &[80])?;
    let mut headless = service("web", &web, 8080, 80);
    headless["spec"]["clusterIP"] = json!("None");
    let name = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "out"},
        "spec": {"type": "ExternalName", "externalName": "outside.test"}});
    scene.apply(&[headless, name, deny_all()])?;
    let web_alone = scene.ask("client", &scene.at("web", 80)?, Outcome::Dropped)?;
    eventually(&web_alone)?;
    let both = [IpAddr::from(OUTSIDE_V4), IpAddr::from(OUTSIDE_V6)].map(|at| SocketAddr::new(at, 8085));
    let ports = both.into_iter().flat_map(|at| [(Transport::Tcp, at), (Transport::Udp, at)]);
    let network = Namespace::of_process("outside", lab.control().pid())?;
    let _outside = Server::start_at(&network, "outside", &ports.collect::<Vec<_>>())?;
    now(&scene.ask("client", &both, Outcome::Dropped)?)?;
    let to = json!([
        {"to": [{"podSelector": {"matchLabels": web}}]},
        {"to": blocks(&[format!("{OUTSIDE_V4}/32"), format!("{OUTSIDE_V6}/128")])},
    ]);
    let from = json!([{"from": [{"podSelector": {"matchLabels": client}}]}]);
    scene.apply(&[
        policy("to", json!({"podSelector": {"matchLabels": client}, "policyTypes": ["Egress"], "egress": to})),
        policy("from", json!({"podSelector": {"matchLabels": web}, "ingress": from})),
    ])?;
    eventually(
        &[scene.ask("client", &scene.at("web", 80)?, Outcome::Open)?, scene.ask("client", &both, Outcome::Open)?]
            .concat(),
    )
}

/// Questions from the address outside of the cluster to a port of a node, in both families.
pub(crate) fn from_outside<'a>(
    lab: &Lab,
    outside: &'a Namespace,
    node: &str,
    port: u16,
    expected: Outcome,
) -> Result<Vec<Probe<'a>>> {
    let probe = |at: IpAddr| {
        let source = if at.is_ipv4() { IpAddr::from(OUTSIDE_V4) } else { IpAddr::from(OUTSIDE_V6) };
        Probe {
            from: outside,
            source: Some(source),
            transport: Transport::Tcp,
            to: SocketAddr::new(at, port),
            expected,
        }
    };
    Ok(addresses_of(lab, node)?.into_iter().map(probe).collect())
}

/// A node's own, IPv4 first.
pub(crate) fn addresses_of(lab: &Lab, node: &str) -> Result<[IpAddr; 2]> {
    let node = lab.nodes().iter().find(|other| other.name() == node);
    Ok(node.context("there is no such node")?.addresses())
}

fn node_port(scene: &Scene<'_>, service: &str) -> Result<u16> {
    let path = "--output=jsonpath={.spec.ports[?(@.name=='tcp')].nodePort}";
    scene.kubectl(&["get", "service", service, path])?.parse().context("the Service has no node port")
}

/// These blocks as peers.
pub(crate) fn blocks(blocks: &[String]) -> Value {
    blocks.iter().map(|block| json!({"ipBlock": {"cidr": block}})).collect()
}
