//! Changes of several things at once that were in the wrong order at some time, each as small as it gets: random tests
//! need tens of thousands of clusters to find them again.

use std::{net::IpAddr, sync::Arc};

use policy_compiler::{
    Event,
    model::{
        Action, Endpoint, EndpointPort, EndpointSlice, NamespaceMatch, Node, ObjectName, Peer, Pod, PodMatch, Policy,
        PortMatch, Protocol, Requirement, Rule, Selector, Service, ServicePort, Tier,
    },
};

use crate::{contents, generate::NODE, kernel, plan_to, run};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn app(value: &str) -> PodMatch {
    let requirements = vec![Requirement::In("app".into(), vec![value.into()])];
    PodMatch { namespaces: NamespaceMatch::Name("red".into()), pods: Selector { requirements } }
}

/// On this node, with the label `app`.
fn pod(name: &str, app: &str, address: Option<&str>) -> Event {
    Event::PutPod(Pod {
        name: ObjectName::new("red", name),
        uid: name.into(),
        labels: [(Arc::from("app"), Arc::from(app))].into(),
        addresses: address.map(ip).into_iter().collect(),
        ports: Vec::new(),
        node: Some(NODE.into()),
        host_network: false,
        ended: false,
    })
}

/// Pods labelled `from` may only open TCP connections to this port of pods labelled `to`, or to any.
fn egress(from: &str, to: &str, port: Option<u16>) -> Event {
    let ports = port.map(|port| vec![PortMatch::Range { protocol: Protocol::Tcp, first: port, last: port }]);
    let rule = Rule { action: Action::Allow, peers: Some(vec![Peer::Pods(app(to))]), ports };
    Event::PutPolicy(Policy {
        name: ObjectName::new("red", from),
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: app(from),
        ingress: None,
        egress: Some(vec![rule]),
    })
}

fn node(addresses: &[&str]) -> Event {
    Event::PutNode(Node { name: NODE.into(), addresses: addresses.iter().map(|text| ip(text)).collect() })
}

/// A Service `service` with a TCP port, and its back ends on port 80.
fn service(external_ip: Option<&str>, port: u16, node_port: Option<u16>, back_ends: &[&str]) -> [Event; 2] {
    let endpoint = |text: &&str| Endpoint {
        addresses: vec![ip(text)],
        ready: true,
        serving: true,
        terminating: false,
        node: None,
    };
    [
        Event::PutService(Service {
            name: ObjectName::new("red", "service"),
            cluster_ips: Vec::new(),
            external_ips: external_ip.map(ip).into_iter().collect(),
            ports: vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, port, node_port }],
            internal_local: false,
            external_local: false,
        }),
        Event::PutEndpointSlice(EndpointSlice {
            name: ObjectName::new("red", "slice"),
            service: "service".into(),
            ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, number: 80 }],
            endpoints: back_ends.iter().map(endpoint).collect(),
        }),
    ]
}

/// From one cluster to another, as one batch of events.
#[track_caller]
fn check(before: Vec<Event>, batch: Vec<Event>) {
    run(vec![before, batch]).unwrap_or_else(|error| panic!("{error}"));
}

/// From one cluster to another, and from wherever that was cut short to a third.
#[track_caller]
fn check_cuts(clusters: [Vec<Event>; 3]) {
    let [old, new, third] = clusters.map(contents);
    let steps = plan_to(&old, &new).unwrap_or_else(|error| panic!("{error}"));
    for writes in 0..=kernel::writes(&steps) {
        let half = kernel::cut_short(&old, &steps, writes);
        plan_to(&half, &third).unwrap_or_else(|error| panic!("cut short after {writes} writes: {error}"));
    }
}

/// The class opens what the node port closes, so neither may change before the other.
#[test]
fn a_node_port_comes_as_its_node_changes_class() {
    let before = vec![egress("x", "x", None), pod("one", "x", None), node(&["10.0.1.1"])];
    let mut batch = service(None, 80, Some(30080), &[]).to_vec();
    batch.push(pod("one", "x", Some("10.0.1.1")));
    check(before.clone(), batch.clone());
    // and away again
    let before = [before, batch].concat();
    let batch = vec![Event::DeleteService(ObjectName::new("red", "service")), pod("one", "x", None)];
    check(before, batch);
}

/// Pods that swap tables go through copies; the node's address is judged by what each table says of it.
#[test]
fn pods_swap_tables_as_a_node_and_a_node_port_go() {
    let policies = [egress("x", "y", Some(80)), egress("y", "x", Some(80))];
    let pods = |first: &str, second: &str| {
        [
            pod("one", first, Some("10.0.0.1")),
            pod("two", second, Some("10.0.0.2")),
            pod("three", "x", None),
            pod("four", "y", None),
        ]
    };
    let mut before = [policies.to_vec(), pods("x", "y").to_vec()].concat();
    before.push(node(&["10.0.1.1", "10.0.1.2"]));
    before.extend(service(None, 80, Some(30080), &["10.0.0.1"]));
    let mut batch = pods("y", "x").to_vec();
    batch.push(node(&["10.0.1.2"]));
    batch.extend(service(Some("10.0.1.1"), 80, None, &["10.0.0.2"]));
    check(before.clone(), batch.clone());
    check([before.clone(), batch].concat(), before);
}

/// A front end that was written for an address before its entry would show under the next entry.
#[test]
fn a_front_end_was_written_for_an_entry_that_never_came() {
    let base = vec![egress("x", "x", Some(80)), pod("one", "x", Some("10.0.0.1"))];
    let with = |port| [base.clone(), service(Some("8.8.8.8"), port, None, &["10.0.0.1"]).to_vec()].concat();
    check_cuts([base.clone(), with(80), with(443)]);
}

/// A table about to go knows the new class of an address by a row that isn't that class's own.
#[test]
fn a_row_was_lent_to_a_class_that_the_table_comes_to_know() {
    let cluster = |port, two: &str, three: &str| {
        vec![
            egress("x", "z", Some(port)),
            pod("one", "x", Some("10.0.0.1")),
            pod("two", two, Some("10.0.0.2")),
            pod("three", three, Some("10.0.0.3")),
        ]
    };
    check_cuts([cluster(80, "y", "y"), cluster(443, "z", "z"), cluster(80, "z", "y")]);
    check_cuts([cluster(80, "z", "y"), cluster(443, "y", "z"), cluster(80, "y", "z")]);
}

/// To this block only, of the excepts nothing.
fn egress_to_block(cidr: &str, except: &[&str]) -> Event {
    let net = |text: &str| text.parse().expect("a prefix");
    let except = except.iter().map(|text| net(text)).collect();
    let peers = Some(vec![Peer::Block { cidr: net(cidr), except }]);
    Event::PutPolicy(Policy {
        name: ObjectName::new("red", "x"),
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: app("x"),
        ingress: None,
        egress: Some(vec![Rule { action: Action::Allow, peers, ports: None }]),
    })
}

/// Blocks within excepts that cover them open nothing, and are no entries.
#[test]
fn a_block_that_excepts_itself_matches_nobody() {
    for net in ["10.0.0.2/31", "10.0.0.0/8"] {
        check(vec![egress_to_block(net, &[net])], vec![pod("one", "x", None)]);
    }
}

/// The entry of IPv4 lies within that of IPv6, and is what changes with either.
#[test]
fn all_of_one_family_becomes_all_of_the_other() {
    let of = |cidr| vec![egress_to_block(cidr, &[]), pod("one", "x", None)];
    check(of("::/0"), of("0.0.0.0/0"));
    check(of("0.0.0.0/0"), of("::/0"));
}
