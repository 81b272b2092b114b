//! Single changes, and what they do and don't write.

use std::net::IpAddr;

use enforcer_abi::{Address, Direction, Op, PeerFlags};

use super::*;
use crate::{
    change::{PodUpdate, Step},
    contents::Contents,
    model::{
        Action, Endpoint, EndpointPort, EndpointSlice, Labels, Namespace, NamespaceMatch, ObjectName, Peer, Pod,
        PodMatch, Policy, PortMatch, Protocol, Requirement, Rule, Selector, Service, ServicePort, Tier,
    },
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn label(text: &str) -> (Arc<str>, Arc<str>) {
    let (key, value) = text.split_once('=').unwrap();
    (key.into(), value.into())
}

fn selector(labels: &str) -> Selector {
    let requirement = |text| Requirement::In(label(text).0, vec![label(text).1]);
    Selector { requirements: labels.split_whitespace().map(requirement).collect() }
}

/// In namespace `ns`; on this node if the name begins with `here`.
fn pod(name: &str, labels: &str, addresses: &[&str]) -> Pod {
    Pod {
        name: ObjectName::new("ns", name),
        uid: format!("uid-{name}").into(),
        labels: labels.split_whitespace().map(label).collect(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        ports: Vec::new(),
        node: Some(if name.starts_with("here") { "node" } else { "other" }.into()),
        host_network: false,
        ended: false,
    }
}

fn of_pods(labels: &str) -> Peer {
    Peer::Pods(PodMatch { namespaces: NamespaceMatch::Name("ns".into()), pods: selector(labels) })
}

fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::Block { cidr: cidr.parse().unwrap(), except: except.iter().map(|net| net.parse().unwrap()).collect() }
}

/// TCP 80 of the pods with label `app=server`.
fn policy(name: &str, direction: Direction, peers: Option<Vec<Peer>>) -> Policy {
    let ports = Some(vec![PortMatch::Range { protocol: Protocol::Tcp, first: 80, last: 80 }]);
    let rules = Some(vec![Rule { action: Action::Allow, peers, ports }]);
    let (ingress, egress) = if direction == Direction::Ingress { (rules, None) } else { (None, rules) };
    Policy {
        name: ObjectName::new("ns", name),
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: PodMatch { namespaces: NamespaceMatch::Name("ns".into()), pods: selector("app=server") },
        ingress,
        egress,
    }
}

fn service(ready: &[(&str, bool)]) -> [Event; 2] {
    let endpoint = |(text, ready): &(&str, bool)| Endpoint {
        addresses: vec![ip(text)],
        ready: *ready,
        serving: true,
        terminating: !ready,
        node: None,
    };
    let port = ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 443, node_port: None };
    [
        Event::PutService(Service {
            name: ObjectName::new("ns", "service"),
            cluster_ips: vec![ip("10.96.0.1")],
            external_ips: Vec::new(),
            ports: vec![port],
            internal_local: false,
            external_local: false,
        }),
        Event::PutEndpointSlice(EndpointSlice {
            name: ObjectName::new("ns", "slice"),
            service: "service".into(),
            ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, number: 80 }],
            endpoints: ready.iter().map(endpoint).collect(),
        }),
    ]
}

fn compiler(events: impl IntoIterator<Item = Event>) -> Compiler {
    let mut compiler = Compiler::new(Options::new("node"));
    compiler.apply_all(events);
    compiler
}

/// A server on this node that lets clients in.
fn server_and_client() -> Vec<Event> {
    vec![
        Event::PutPod(pod("here-server", "app=server", &["10.0.0.1"])),
        Event::PutPod(pod("client", "app=client", &["10.0.0.2"])),
        Event::PutPolicy(policy("in", Direction::Ingress, Some(vec![of_pods("app=client")]))),
    ]
}

/// How many operations of each kind, in this order: writes and frees per map, pods, epochs.
fn summary(changes: &Changes) -> String {
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for step in &changes.steps {
        match step {
            Step::Write(ops) | Step::Free(ops) => {
                for op in ops {
                    let name = match op {
                        Op::PutPeer(_) => "+peer",
                        Op::DeletePeer(_) => "-peer",
                        Op::PutBlock(..) => "+block",
                        Op::DeleteBlock(_) => "-block",
                        Op::PutPort(_) => "+port",
                        Op::DeletePort(_) => "-port",
                        Op::PutPortRange(..) => "+range",
                        Op::DeletePortRange(_) => "-range",
                        Op::PutRow(_) => "+row",
                        Op::DeleteRow(_) => "-row",
                        Op::PutFrontEnd(_) => "+front",
                        Op::DeleteFrontEnd(_) => "-front",
                        Op::PutEndpoint(_) => "+endpoint",
                        Op::DeleteEndpoint(_) => "-endpoint",
                    };
                    *counts.entry(name).or_default() += 1;
                }
            }
            Step::Pods(updates) => *counts.entry("pods").or_default() += updates.len(),
            Step::RaiseEpoch(pods) => *counts.entry("epoch").or_default() += pods.len(),
        }
    }
    counts.iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
}

/// What `event` does to a compiler that knows the `before`.
#[track_caller]
fn check(before: Vec<Event>, event: Event, expected: &str) {
    assert_eq!(summary(&compiler(before).apply(event)), expected);
}

#[test]
fn a_pod_elsewhere_costs_its_own_entry() {
    let before = server_and_client;
    check(before(), Event::PutPod(pod("other", "app=client", &["10.0.0.3"])), "+peer=1");
    check(before(), Event::PutPod(pod("other", "app=stranger", &["10.0.0.3"])), "");
    check(before(), Event::PutPod(pod("client", "app=client", &["10.0.0.2"])), "");
    check(before(), Event::PutPod(pod("client", "app=stranger", &["10.0.0.2"])), "-peer=1 -row=1 epoch=1");
    check(before(), Event::DeletePod(ObjectName::new("ns", "client")), "-peer=1 -row=1 epoch=1");
    check(Vec::new(), Event::PutPod(pod("client", "app=client", &["10.0.0.2"])), "");
}

#[test]
fn only_policies_about_this_node_count() {
    let before = vec![Event::PutPod(pod("server", "app=server", &["10.0.0.1"]))];
    let peers = Some(vec![of_pods("app=server"), block("10.0.0.0/8", &[])]);
    check(before, Event::PutPolicy(policy("in", Direction::Ingress, peers)), "");
}

#[test]
fn a_pod_comes_without_raising_the_epoch() {
    let mut before = server_and_client();
    check(before.clone(), Event::PutPod(pod("here-2", "app=server", &[])), "pods=1");
    check(before.clone(), Event::PutPod(pod("here-2", "app=stranger", &[])), "pods=1");
    before.push(Event::PutPod(pod("here-2", "app=server", &[])));
    check(before, Event::PutPod(pod("here-2", "app=server", &["10.0.0.9"])), "pods=1");
    let first = Event::PutPolicy(policy("in", Direction::Ingress, Some(vec![of_pods("app=client")])));
    check(vec![first], Event::PutPod(pod("here-1", "app=server", &["10.0.0.1"])), "+port=1 pods=1");
}

#[test]
fn isolation_raises_the_epoch() {
    let before = vec![Event::PutPod(pod("here-server", "app=server", &["10.0.0.1"]))];
    check(before, Event::PutPolicy(policy("in", Direction::Ingress, Some(Vec::new()))), "epoch=1 pods=1");
    let before = server_and_client();
    check(before, Event::DeletePolicy(ObjectName::new("ns", "in")), "-peer=1 -port=1 -row=1 pods=1");
}

#[test]
fn replicas_and_equal_policies_share_a_table() {
    let mut events = server_and_client();
    events.push(Event::PutPod(pod("here-2", "app=server", &["10.0.0.9"])));
    events.push(Event::PutPod(pod("here-3", "app=server version=2", &["10.0.0.8"])));
    events.push(Event::PutPolicy(policy("again", Direction::Ingress, Some(vec![of_pods("app=client")]))));
    let tables: FxHashSet<_> = compiler(events).pods().iter().map(|pod| pod.ingress).collect();
    assert_eq!(tables.len(), 1);
}

#[test]
fn named_ports_of_peers_follow_the_peers() {
    let named = |pod: Pod, number| Pod {
        ports: vec![NamedPort { name: "web".into(), protocol: Protocol::Tcp, number }],
        ..pod
    };
    let mut out = policy("out", Direction::Egress, Some(vec![of_pods("app=client")]));
    out.egress.as_mut().unwrap()[0].ports = Some(vec![PortMatch::Named(Protocol::Tcp, "web".into())]);
    let mut compiler = compiler([
        Event::PutPod(pod("here-server", "app=server", &["10.0.0.1"])),
        Event::PutPod(named(pod("a", "app=client", &["10.0.0.2"]), 8080)),
        Event::PutPolicy(out),
    ]);
    let ports = |compiler: &Compiler| compiler.contents().ports.keys().map(|key| key.port).collect::<Vec<_>>();
    assert_eq!(ports(&compiler), [8080]);
    compiler.apply(Event::PutPod(named(pod("b", "app=client", &["10.0.0.3"]), 9090)));
    assert_eq!(ports(&compiler), [8080, 9090]);
    let contents = compiler.contents();
    let class = |text: &str| contents.peers[&Address::from(ip(text))].class;
    assert_ne!(class("10.0.0.2"), class("10.0.0.3"));
    compiler.apply(Event::DeletePod(ObjectName::new("ns", "a")));
    assert_eq!(ports(&compiler), [9090]);
}

/// The entries of `BLOCKS` for ingress from these blocks, as prefix lengths and whether anybody is let in there.
#[track_caller]
fn check_blocks(peers: Vec<Peer>, expected: &[(&str, u32, bool)]) {
    let contents = compiler([
        Event::PutPod(pod("here-server", "app=server", &["10.0.0.1"])),
        Event::PutPolicy(policy("in", Direction::Ingress, Some(peers))),
    ])
    .contents();
    let mut blocks: Vec<(Address, u32, bool)> =
        contents.blocks.iter().map(|(key, class)| (key.address, key.prefix_len, *class != 0)).collect();
    blocks.sort();
    let mut wanted: Vec<(Address, u32, bool)> =
        expected.iter().map(|(text, len, open)| (Address::from(ip(text)), *len, *open)).collect();
    wanted.sort();
    assert_eq!(blocks, wanted);
}

#[test]
fn blocks_are_flattened() {
    check_blocks(vec![block("10.0.0.0/8", &[])], &[("10.0.0.0", 104, true)]);
    check_blocks(vec![block("10.0.0.0/8", &["10.1.0.0/16"])], &[("10.0.0.0", 104, true), ("10.1.0.0", 112, false)]);
    check_blocks(vec![block("0.0.0.0/0", &[])], &[("0.0.0.0", 96, true)]);
    // an IPv6 block that covers the mapped addresses doesn't reach IPv4
    check_blocks(vec![block("::/0", &[])], &[("::", 0, true), ("0.0.0.0", 96, false)]);
    check_blocks(vec![block("::/0", &[]), block("0.0.0.0/0", &[])], &[("::", 0, true), ("0.0.0.0", 96, true)]);
    // a block within the other one makes another class
    let nested = vec![block("10.0.0.0/8", &["10.1.0.0/16"]), block("10.1.1.0/24", &[])];
    check_blocks(nested, &[("10.0.0.0", 104, true), ("10.1.0.0", 112, false), ("10.1.1.0", 120, true)]);
    check_blocks(vec![block("::ffff:10.0.0.0/104", &[])], &[]);
}

#[test]
fn a_pod_in_a_block_needs_no_entry_unless_it_differs() {
    let mut events = server_and_client();
    events.push(Event::PutPolicy(policy("block", Direction::Ingress, Some(vec![block("10.0.0.0/8", &[])]))));
    let contents = compiler(events).contents();
    // the client is in the block and a client; the server is in the block only
    assert_eq!(contents.peers.keys().copied().collect::<Vec<_>>(), [Address::from(ip("10.0.0.2"))]);
    assert_ne!(contents.peers[&Address::from(ip("10.0.0.2"))].class, *contents.blocks.values().next().unwrap());
}

#[test]
fn who_claims_an_address_last_has_it_until_it_goes() {
    let mut compiler = compiler(server_and_client());
    let thief = pod("here-thief", "app=thief", &["10.0.0.1"]);
    let changes = compiler.apply(Event::PutPod(thief.clone()));
    let conflict = Report::AddressConflict {
        address: ip("10.0.0.1"),
        holder: thief.name.clone(),
        other: ObjectName::new("ns", "here-server"),
    };
    assert_eq!(changes.reports, [conflict]);
    let held = |compiler: &Compiler| compiler.pods().iter().map(|pod| pod.addresses.len()).collect::<Vec<_>>();
    assert_eq!(held(&compiler), [0, 1]);
    // being told the same again claims nothing
    compiler.apply(Event::PutPod(pod("here-server", "app=server", &["10.0.0.1"])));
    assert_eq!(held(&compiler), [0, 1]);
    compiler.apply(Event::PutPod(Pod { ended: true, ..thief }));
    assert_eq!(held(&compiler), [1]);
}

#[test]
fn a_pod_that_is_bound_keeps_its_address_until_its_veth_goes() {
    let mut compiler = compiler(server_and_client());
    assert!(compiler.set_bound(["uid-here-server", "nobody"]).is_empty());
    let conflict = |holder: &str, other: &str| Report::AddressConflict {
        address: ip("10.0.0.1"),
        holder: ObjectName::new("ns", holder),
        other: ObjectName::new("ns", other),
    };
    let held = |compiler: &Compiler| compiler.pods().iter().map(|pod| pod.addresses.len()).collect::<Vec<_>>();
    let before = compiler.contents().peers;
    let changes = compiler.apply(Event::PutPod(pod("here-thief", "app=client", &["10.0.0.1"])));
    assert_eq!(changes.reports, [conflict("here-server", "here-thief")]);
    assert_eq!((held(&compiler), compiler.contents().peers == before), (vec![1, 0], true));
    // a pod of another node doesn't take it either
    let changes = compiler.apply(Event::PutPod(pod("there", "app=client", &["10.0.0.1"])));
    assert_eq!(changes.reports, [conflict("here-server", "there")]);
    compiler.apply(Event::DeletePod(ObjectName::new("ns", "there")));
    // another label makes it no other pod
    compiler.apply(Event::PutPod(pod("here-server", "app=server tier=x", &["10.0.0.1"])));
    assert_eq!(held(&compiler), [1, 0]);

    // its veth goes: the last one to claim the address has it, whoever that is
    let changes = compiler.set_bound(["uid-here-client"]);
    assert_eq!(changes.reports, [conflict("here-thief", "here-server")]);
    assert_eq!(held(&compiler), [0, 1]);
    assert_ne!(compiler.contents().peers, before, "the address has the labels of its new pod");
    assert!(compiler.set_bound(["uid-here-client", "uid-here-thief"]).is_empty());
    // both bound, as two veths with one address may be: the later claim
    assert!(compiler.set_bound(["uid-here-thief", "uid-here-server"]).is_empty());
    assert_eq!(held(&compiler), [0, 1]);
    // what was bound and goes is forgotten, and so is the number that it had
    compiler.apply(Event::DeletePod(ObjectName::new("ns", "here-thief")));
    compiler.apply(Event::DeletePod(ObjectName::new("ns", "here-server")));
    compiler.apply(Event::PutPod(pod("here-new", "app=server", &["10.0.0.1"])));
    compiler.apply(Event::PutPod(pod("here-later", "app=server", &["10.0.0.1"])));
    let held: Vec<_> = compiler.pods().iter().map(|pod| (pod.name.name.to_string(), pod.addresses.len())).collect();
    assert!(held.contains(&("here-later".into(), 1)) && held.contains(&("here-new".into(), 0)), "{held:?}");
}

#[test]
fn a_pod_of_the_host_is_its_node() {
    let mut events = server_and_client();
    events.push(Event::PutPod(Pod { host_network: true, ..pod("here-host", "app=client", &["192.0.2.1"]) }));
    let contents = compiler(events).contents();
    assert!(!contents.peers.contains_key(&Address::from(ip("192.0.2.1"))));
    assert_eq!(contents.pods.len(), 1);
}

#[test]
fn another_uid_is_another_pod() {
    let before = server_and_client();
    let mut again = pod("here-server", "app=server", &["10.0.0.1"]);
    again.uid = "another".into();
    let mut compiler = compiler(before);
    let changes = compiler.apply(Event::PutPod(again));
    let [Step::Pods(updates)] = &*changes.steps else { panic!("{changes:?}") };
    assert!(matches!(&**updates, [PodUpdate::Put(_), PodUpdate::Delete { .. }]), "{updates:?}");
}

#[test]
fn front_ends_matter_once_egress_is_judged() {
    let allow = policy("out", Direction::Egress, Some(vec![of_pods("app=client")]));
    let mut events = server_and_client();
    events.extend(service(&[("10.0.0.2", true)]));
    let mut compiler = compiler(events);
    assert!(!compiler.contents().peers.contains_key(&Address::from(ip("10.96.0.1"))));
    compiler.apply(Event::PutPolicy(allow));
    let contents = compiler.contents();
    let flags = contents.peers[&Address::from(ip("10.96.0.1"))].flags;
    assert_eq!(flags, PeerFlags::FRONT_END | PeerFlags::CLUSTER_IP);
    let states = |contents: &Contents| contents.front_ends.values().map(|value| value.state).collect::<Vec<_>>();
    assert_eq!(states(&contents), [2]);
    // a second back end that is refused closes it to new connections, and is named
    let [_, slice] = service(&[("10.0.0.2", true), ("10.0.0.7", true)]);
    let changes = compiler.apply(slice);
    let [Report::MixedService { closed_by, .. }] = &*changes.reports else { panic!("{changes:?}") };
    assert_eq!(*closed_by, ip("10.0.0.7"));
    assert_eq!(states(&compiler.contents()), [1]);
    // a table that comes later is reported, too
    let mut later = policy("later", Direction::Egress, Some(vec![of_pods("app=client")]));
    later.subject.pods = selector("app=late");
    compiler.apply(Event::PutPolicy(later));
    let changes = compiler.apply(Event::PutPod(pod("here-late", "app=late", &[])));
    assert_eq!(changes.reports, [], "the same rules are the same table");
    // it doesn't count once it isn't ready any more
    let [_, slice] = service(&[("10.0.0.2", true), ("10.0.0.7", false)]);
    let changes = compiler.apply(slice);
    assert!(matches!(&*changes.reports, [Report::ServiceUnmixed { .. }]), "{changes:?}");
    // of a cluster IP nothing is written that is closed
    let [_, slice] = service(&[("10.0.0.7", true)]);
    compiler.apply(slice);
    assert_eq!(states(&compiler.contents()), [0_u32; 0]);
}

/// Only tables that ask about back ends' peers are asked again what they think of these, but all of them see their ports.
#[test]
fn front_ends_follow_the_ports_of_back_ends_that_are_everybody() {
    let mut events = server_and_client();
    events.extend(service(&[("10.0.0.2", true), ("10.0.0.7", true)]));
    events.push(Event::PutPolicy(policy("out", Direction::Egress, None)));
    let mut compiler = compiler(events);
    let states =
        |compiler: &Compiler| compiler.contents().front_ends.values().map(|value| value.state).collect::<Vec<_>>();
    assert_eq!(states(&compiler), [2]);
    let changes = compiler.apply(Event::PutPod(pod("client", "app=other", &["10.0.0.2"])));
    assert_eq!(summary(&changes), "-peer=1 -row=1 epoch=1", "another class, and the same to this table");
    let with_port = |number| {
        let [_, Event::PutEndpointSlice(mut slice)] = service(&[("10.0.0.2", true), ("10.0.0.7", true)]) else {
            panic!("a slice")
        };
        slice.ports[0].number = number;
        Event::PutEndpointSlice(slice)
    };
    compiler.apply(with_port(81));
    assert_eq!(states(&compiler), [0_u32; 0]);
    compiler.apply(with_port(80));
    assert_eq!(states(&compiler), [2]);
}

/// Neither its old class nor its new one may be forgotten when the tables are looked up that ask about it.
#[test]
fn front_ends_follow_the_labels_of_back_ends() {
    let mut events = server_and_client();
    events.extend(service(&[("10.0.0.2", true)]));
    events.push(Event::PutPolicy(policy("out", Direction::Egress, Some(vec![of_pods("app=client")]))));
    let mut compiler = compiler(events);
    assert_eq!(compiler.contents().front_ends.len(), 1);
    compiler.apply(Event::PutPod(pod("client", "app=other", &["10.0.0.2"])));
    assert!(compiler.contents().front_ends.is_empty());
    compiler.apply(Event::PutPod(pod("client", "app=client", &["10.0.0.2"])));
    assert_eq!(compiler.contents().front_ends.len(), 1);
}

#[test]
fn endpoints_are_told_while_somebody_forwards() {
    let mut compiler = compiler(server_and_client());
    assert!(compiler.contents().endpoints.is_empty());
    let labels = Labels::from([label("kubernetes.io/metadata.name=ns")]);
    let namespace =
        |forwards| Event::PutNamespace(Namespace { name: "ns".into(), labels: labels.clone(), forwards, audit: false });
    compiler.apply(namespace(true));
    assert_eq!(compiler.contents().endpoints.len(), 2);
    assert!(compiler.pods().iter().all(|pod| pod.forwards));
    compiler.apply(namespace(false));
    assert!(compiler.contents().endpoints.is_empty());
}

/// A pod that forwards may have flows from an address that becomes another pod's, from which it may send no longer.
#[test]
fn what_was_forwarded_is_judged_again_when_its_address_becomes_a_pods() {
    let forwarding = |forwards| {
        let labels = Labels::from([label("kubernetes.io/metadata.name=ns")]);
        Event::PutNamespace(Namespace { name: "ns".into(), labels, forwards, audit: false })
    };
    let raises = |compiler: &mut Compiler, event| {
        let steps = compiler.apply(event).steps;
        let raised = steps.into_iter().filter_map(|step| match step {
            Step::RaiseEpoch(pods) => Some(pods),
            _ => None,
        });
        raised.flatten().map(|uid| uid.to_string()).collect::<Vec<_>>()
    };
    let elsewhere = |address| Event::PutPod(Pod { node: Some("there".into()), ..pod("new", "app=new", &[address]) });
    let mut compiler = compiler(server_and_client());
    assert_eq!(raises(&mut compiler, elsewhere("10.0.0.9")), [""; 0], "nobody forwards");
    compiler.apply(forwarding(true));
    let local = raises(&mut compiler, elsewhere("10.0.0.8"));
    let mut pods: Vec<String> = compiler.pods().iter().map(|pod| pod.uid.to_string()).collect();
    pods.sort_unstable();
    assert!(!pods.is_empty());
    assert_eq!(local, pods);
    assert_eq!(raises(&mut compiler, Event::DeletePod(ObjectName::new("ns", "new"))), [""; 0], "nothing is taken away");
    let mut compiler = Compiler::new(Options { endpoints: true, ..Options::new("node") });
    compiler.apply_all(server_and_client());
    assert_eq!(raises(&mut compiler, elsewhere("10.0.0.9")), pods, "all pods may forward");
}
