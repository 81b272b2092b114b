//! Class `veth`: the agent on every way of wiring pods, in both families, and what depends on the wiring: by which
//! interface the node's own traffic comes, and who a pod is to itself behind its Service.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use e2e::bed::{
    Namespace, Outcome, Pod, Probe, Server, Site, Transport, Wiring, is_root, probe, probe_all,
    services::Ruleset,
    site::{Policy, peer},
};
use policy_compiler::model::{Endpoint, EndpointPort, EndpointSlice, ObjectName, Protocol, Service, ServicePort};
use serde_json::json;

const PORT: u16 = 8080;
const OTHER_PORT: u16 = 8081;
const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];

fn entitled() -> bool {
    if !is_root() {
        eprintln!("skipped: needs root");
    }
    is_root()
}

fn serve(namespace: &Namespace, name: &str) -> Result<Server> {
    let both = |port| [(Transport::Tcp, port), (Transport::Udp, port)];
    Server::start(namespace, name, &[both(PORT), both(OTHER_PORT)].concat())
}

/// A question: from where, with what, to what, and what is to become of it.
type Question<'a> = (&'a Namespace, Transport, SocketAddr, Outcome);

fn ask(what: &str, questions: &[Question<'_>]) -> Result<()> {
    let probes: Vec<Probe<'_>> = questions
        .iter()
        .map(|(from, transport, to, expected)| Probe {
            from,
            source: None,
            transport: *transport,
            to: *to,
            expected: *expected,
        })
        .collect();
    for (answer, (from, transport, to, expected)) in probe_all(&probes)?.into_iter().zip(questions) {
        assert_eq!(answer.outcome, *expected, "{what}: {} to {to} over {transport}", from.name());
    }
    Ok(())
}

/// Two pods that may talk on one port, one that may not; rules of both directions; the node and the outside.
fn both_directions_in_both_families(wiring: Wiring) -> Result<()> {
    use Outcome::{Dropped, Open};
    use Transport::{Icmp, Tcp, Udp};
    if !entitled() {
        return Ok(());
    }
    let mut site = Site::start(wiring, &[])?;
    let (a, b, c) = (site.pod("a")?, site.pod("b")?, site.pod("c")?);
    let namespaces = [(a.namespace(), "a"), (b.namespace(), "b"), (c.namespace(), "c"), (site.outside(), "outside")];
    let _servers = namespaces.map(|(namespace, name)| serve(namespace, name));
    let ports = json!([{"port": PORT}, {"port": PORT, "protocol": "UDP"}]);
    let to_a = json!([{"to": [peer(&a)], "ports": ports.clone()}]);
    let policies =
        [Policy::ingress("b", &b, json!([{"from": [peer(&a)], "ports": ports}])), Policy::egress("c", &c, to_a)];

    for enforced in [false, true] {
        site.enforce(if enforced { &policies } else { &[] })?;
        let closed = if enforced { Dropped } else { Open };
        let mut questions: Vec<Question<'_>> = Vec::new();
        for family in [0, 1] {
            let at = |pod: &Pod, port| SocketAddr::new(pod.addresses()[family], port);
            let away = SocketAddr::new(site.fabric.outside_addresses()[family], PORT);
            let (node, outside) = (site.node.namespace(), site.outside());
            for transport in [Tcp, Udp] {
                questions.extend([
                    (a.namespace(), transport, at(&b, PORT), Open),
                    (a.namespace(), transport, at(&b, OTHER_PORT), closed),
                    (c.namespace(), transport, at(&b, PORT), closed),
                    (c.namespace(), transport, at(&a, PORT), Open),
                    (c.namespace(), transport, at(&a, OTHER_PORT), closed),
                    (node, transport, at(&b, OTHER_PORT), Open),
                    (node, transport, at(&c, PORT), Open),
                    (outside, transport, at(&b, PORT), closed),
                    (outside, transport, at(&a, PORT), Open),
                ]);
            }
            questions.extend([
                (c.namespace(), Tcp, away, closed),
                (b.namespace(), Tcp, away, Open),
                (a.namespace(), Icmp, at(&b, 0), closed),
                (node, Icmp, at(&b, 0), Open),
                (b.namespace(), Icmp, at(&a, 0), Open),
            ]);
        }
        ask(&format!("{wiring:?}, with policies: {enforced}"), &questions)?;
    }
    Ok(())
}

#[test]
fn point_to_point() -> Result<()> {
    both_directions_in_both_families(Wiring::PointToPoint)
}

#[test]
fn bridge() -> Result<()> {
    both_directions_in_both_families(Wiring::Bridge)
}

#[test]
fn routed() -> Result<()> {
    both_directions_in_both_families(Wiring::Routed)
}

/// A pod that the API knows by its IPv6 address alone is found by it, and an IPv4 address that it has taken by itself is
/// none that it may use.
#[test]
fn a_pod_known_by_its_ipv6_address_alone() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let mut site = Site::start(Wiring::PointToPoint, &[])?;
    let (a, six, c) = (site.pod("a")?, site.pod_known_by("six", IpAddr::is_ipv6)?, site.pod("c")?);
    let _servers = [serve(a.namespace(), "a")?, serve(six.namespace(), "six")?];
    site.enforce(&[Policy::ingress("six", &six, json!([{"from": [peer(&a)], "ports": [{"port": PORT}]}]))])?;
    let [Some(v4), Some(v6)] = [six.v4(), six.v6()] else { anyhow::bail!("the pod has an address of each family") };
    let [Some(a4), Some(a6)] = [a.v4(), a.v6()] else { anyhow::bail!("the pod has an address of each family") };
    let at = |address| SocketAddr::new(address, PORT);
    ask(
        "known by its IPv6 address",
        &[
            (a.namespace(), Transport::Tcp, at(v6), Outcome::Open),
            (c.namespace(), Transport::Tcp, at(v6), Outcome::Dropped),
            (six.namespace(), Transport::Tcp, at(a6), Outcome::Open),
            (six.namespace(), Transport::Tcp, at(a4), Outcome::Dropped),
            (a.namespace(), Transport::Tcp, at(v4), Outcome::Dropped),
        ],
    )
}

/// As with CNI plugins that lead the node's traffic to its pods through a pair of veths: it arrives as if it had been
/// forwarded. By the interface that the flag names it is the node's own if it comes from a node's address, by any other
/// it isn't.
#[test]
fn the_nodes_traffic_by_a_pair_of_veths() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let pairs = |node: &e2e::bed::Node| {
        for (near, far) in [("host0", "host1"), ("side0", "side1")] {
            let namespace = node.namespace();
            namespace.ip(&[
                format!("link add {near} address 02:00:00:00:0a:00 type veth peer name {far}"),
                format!("link set {far} address 02:00:00:00:0a:01"),
                format!("link set {near} up"),
                format!("link set {far} up"),
            ])?;
            // The source is one of the node's own addresses, which the kernel takes for a lie otherwise.
            namespace.sysctl(&format!("ipv4/conf/{far}/accept_local"), "1")?;
        }
        lead(node, "lo")
    };
    let flags = ["--node-interface", "host1"];
    let mut site = Site::start_with(Wiring::PointToPoint, &flags, pairs)?;
    let (a, b) = (site.pod("a")?, site.pod("b")?);
    let _server = serve(b.namespace(), "b")?;
    site.enforce(&[Policy::deny("nothing", &b)])?;
    let node = site.node.namespace();
    for (near, expected) in [("host0", Outcome::Open), ("side0", Outcome::Dropped)] {
        for (address, own) in b.addresses().iter().zip(site.node.addresses()) {
            let length = if address.is_ipv4() { 32 } else { 128 };
            node.ip(&[
                format!("route replace {address}/{length} dev {near} src {own} table 100"),
                format!("neigh replace {address} lladdr 02:00:00:00:0a:01 dev {near} nud permanent"),
            ])?;
            let to = SocketAddr::new(*address, PORT);
            let what = format!("from the node to {to} by {near}");
            let answer = probe(node, Transport::Tcp, to, expected)?;
            assert_eq!(answer.outcome, expected, "{what}");
            if let Some(greeting) = answer.greeting {
                assert_eq!(greeting.client, own, "{what}");
            }
            let answer = probe(a.namespace(), Transport::Tcp, to, Outcome::Dropped)?;
            assert_eq!(answer.outcome, Outcome::Dropped, "a pod to {to}");
        }
    }
    // What comes from elsewhere by the named interface is nobody's licence.
    lead(&site.node, "eth0")?;
    for address in b.addresses() {
        let length = if address.is_ipv4() { 32 } else { 128 };
        node.ip(&[format!("route replace {address}/{length} dev host0 table 100")])?;
    }
    for (policies, expected) in [(&[Policy::deny("still-nothing", &b)][..], Outcome::Dropped), (&[], Outcome::Open)] {
        site.enforce(policies)?;
        for address in b.addresses() {
            let answer = probe(site.outside(), Transport::Tcp, SocketAddr::new(*address, PORT), expected)?;
            assert_eq!(answer.outcome, expected, "from outside to {address} by host0");
        }
    }
    Ok(())
}

/// What comes by `interface` (`lo`: what the node makes itself) follows the routes of table 100 first.
fn lead(node: &e2e::bed::Node, interface: &str) -> Result<()> {
    let rule = [format!("rule add iif {interface} lookup 100 pref 0")];
    node.namespace().ip(&rule)?;
    node.namespace().ip6(&rule)
}

/// Through its Service a pod reaches itself as long as the packet shows that it came by the pod's own veth: routed, and
/// over a bridge that translates by itself (br_netfilter). Where it goes up to the bridge's own address first, it can't be
/// told from the node's address, to which it is masqueraded, and is judged as that (docs/meaning.md).
#[test]
fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    for (wiring, translates, recognised) in [
        (Wiring::PointToPoint, true, Outcome::Open),
        (Wiring::Bridge, true, Outcome::Open),
        (Wiring::Bridge, false, Outcome::Dropped),
    ] {
        let mut site = Site::start(wiring, &[])?;
        let pod = site.pod("self")?;
        let _server = serve(pod.namespace(), "self")?;
        let (service, slices) = own_service(&pod);
        site.node.set_services(&Ruleset::new("n1", &[service], &slices))?;
        let gateways = site.node.seen_by_pods();
        let block = |address: &IpAddr| {
            let length = if address.is_ipv4() { 32 } else { 128 };
            json!({"ipBlock": {"cidr": format!("{address}/{length}")}})
        };
        let gateways = json!([{"from": gateways.iter().map(block).collect::<Vec<_>>()}]);
        if !translates {
            for family in ["iptables", "ip6tables"] {
                site.node.namespace().sysctl(&format!("bridge/bridge-nf-call-{family}"), "0")?;
            }
        }
        for (name, rules, expected) in [("nothing", json!([]), recognised), ("gateways", gateways, Outcome::Open)] {
            site.enforce(&[Policy::ingress(name, &pod, rules)])?;
            for address in CLUSTER_IPS {
                let to = SocketAddr::new(address.parse().context("an address")?, 80);
                let answer = probe(pod.namespace(), Transport::Tcp, to, expected)?;
                assert_eq!(answer.outcome, expected, "{wiring:?}, translates: {translates}, {name} allowed, {address}");
                if let Some(greeting) = answer.greeting {
                    assert!(site.node.seen_by_pods().contains(&greeting.client), "it is masqueraded");
                }
            }
        }
    }
    Ok(())
}

/// Port 80 of the cluster IPs, with the pod behind them.
fn own_service(pod: &Pod) -> (Service, Vec<EndpointSlice>) {
    let service = Service {
        name: ObjectName::new("shop", "self"),
        cluster_ips: CLUSTER_IPS.iter().map(|text| text.parse().expect("the constants are addresses")).collect(),
        external_ips: Vec::new(),
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        internal_local: false,
        external_local: false,
    };
    let slice = |(number, address): (usize, &IpAddr)| EndpointSlice {
        name: ObjectName::new("shop", format!("self-{number}")),
        service: "self".into(),
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, number: PORT }],
        endpoints: vec![Endpoint {
            addresses: vec![*address],
            ready: true,
            serving: true,
            terminating: false,
            node: Some("n1".into()),
        }],
    };
    (service, pod.addresses().iter().enumerate().map(slice).collect())
}
