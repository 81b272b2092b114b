//! Random events over few names, labels, addresses and ports.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use policy_compiler::{
    Event,
    model::{
        Action, Endpoint, EndpointPort, EndpointSlice, Labels, NamedPort, Namespace, NamespaceMatch, Node, ObjectName,
        Peer, Pod, PodMatch, Policy, PortMatch, Protocol, Requirement, Rule, Selector, Service, ServicePort, Tier,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};

pub(crate) const NODE: &str = "here";

/// Ports that objects name, with one beside each range.
pub(crate) const PORTS: [u16; 7] = [53, 80, 81, 82, 443, 8080, 30080];

fn text(choice: &[&'static str]) -> impl Strategy<Value = Arc<str>> + use<> {
    select(choice.to_vec()).prop_map(Arc::from)
}

fn name() -> impl Strategy<Value = ObjectName> {
    (text(&["red", "blue", "green"]), text(&["one", "two", "three"])).prop_map(|(ns, name)| ObjectName::new(ns, name))
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(text(&["app", "tier"]), text(&["x", "y"]), 0..3)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The addresses that objects have; the last ones are front ends' and nobody's.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let texts = [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.1.1",
        "10.0.1.2",
        "10.96.0.1",
        "10.96.0.2",
        "8.8.8.8",
        "fd00::1",
        "fd00::2",
        "fd00::1:1",
        "fd96::1",
        "2001:db8::1",
    ];
    texts.map(address).to_vec()
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

fn pod_addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let v4 = text(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let v6 = text(&["fd00::1", "fd00::2"]);
    (prop::option::weighted(0.9, v4), prop::option::weighted(0.4, v6))
        .prop_map(|(v4, v6)| v4.into_iter().chain(v6).map(|text| address(&text)).collect())
}

fn pod() -> impl Strategy<Value = Pod> {
    let port = (text(&["http", "dns"]), protocol(), select(vec![53, 80, 8080]))
        .prop_map(|(name, protocol, number)| NamedPort { name, protocol, number });
    let node = prop_oneof![4 => Just(Some(Arc::from(NODE))), 2 => Just(Some(Arc::from("there"))), 1 => Just(None)];
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1), 0..2);
    (name(), labels(), pod_addresses(), vec(port, 0..3), node, flags).prop_map(
        |(name, labels, addresses, ports, node, (host_network, ended, generation))| Pod {
            uid: Arc::from(format!("{name}#{generation}")),
            name,
            labels,
            addresses: if host_network { vec![address("10.0.1.1")] } else { addresses },
            ports,
            node,
            host_network,
            ended,
        },
    )
}

fn namespace() -> impl Strategy<Value = Namespace> {
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (text(&["red", "blue", "green"]), labels(), flags).prop_map(|(name, mut labels, (forwards, audit))| {
        labels.insert(Arc::from("kubernetes.io/metadata.name"), name.clone());
        Namespace { name, labels, forwards, audit }
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    let values = || prop::collection::btree_set(text(&["x", "y", "z"]), 1..3).prop_map(|set| set.into_iter().collect());
    let key = || text(&["app", "tier", "kubernetes.io/metadata.name"]);
    let requirement = prop_oneof![
        4 => (key(), values()).prop_map(|(key, values)| Requirement::In(key, values)),
        1 => (key(), values()).prop_map(|(key, values)| Requirement::NotIn(key, values)),
        1 => key().prop_map(Requirement::Exists),
        1 => key().prop_map(Requirement::DoesNotExist),
        1 => text(&["red", "blue"])
            .prop_map(|name| Requirement::In(Arc::from("kubernetes.io/metadata.name"), vec![name])),
    ];
    prop::collection::btree_set(requirement, 0..3)
        .prop_map(|requirements| Selector { requirements: requirements.into_iter().collect() })
}

fn pod_match() -> impl Strategy<Value = PodMatch> {
    let namespaces = prop_oneof![
        text(&["red", "blue", "green"]).prop_map(NamespaceMatch::Name),
        selector().prop_map(NamespaceMatch::Labels),
    ];
    (namespaces, selector()).prop_map(|(namespaces, pods)| PodMatch { namespaces, pods })
}

fn block() -> impl Strategy<Value = Peer> {
    let nets: Vec<IpNet> = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.0.0/30",
        "10.0.0.2/31",
        "10.0.0.2/32",
        "10.96.0.0/16",
        "::/0",
        "fd00::/16",
        "fd00::/64",
        "fd00::/127",
        "fd00::2/128",
    ]
    .map(|net| net.parse().expect("a prefix"))
    .to_vec();
    (select(nets.clone()), prop::collection::btree_set(select(nets), 0..3)).prop_map(|(cidr, except)| {
        let same_family = |net: &IpNet| net.addr().is_ipv4() == cidr.addr().is_ipv4();
        let within: Vec<IpNet> = except.into_iter().filter(|net| same_family(net) && cidr.contains(net)).collect();
        let outer = |net: &&IpNet| !within.iter().any(|other| other != *net && other.contains(*net));
        Peer::Block { cidr, except: within.iter().filter(outer).copied().collect() }
    })
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    prop_oneof![
        4 => (protocol(), select(PORTS.to_vec()))
            .prop_map(|(protocol, port)| PortMatch::Range { protocol, first: port, last: port }),
        2 => (protocol(), select(vec![(80, 81), (1, 100), (81, 8080), (1, 65535), (443, 65535)]))
            .prop_map(|(protocol, (first, last))| PortMatch::Range { protocol, first, last }),
        3 => (protocol(), text(&["http", "dns"])).prop_map(|(protocol, name)| PortMatch::Named(protocol, name)),
        1 => protocol().prop_map(PortMatch::All),
        1 => Just(PortMatch::Nothing),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let peer = prop_oneof![5 => pod_match().prop_map(Peer::Pods), 3 => block(), 1 => Just(Peer::Nobody)];
    (prop::option::weighted(0.85, vec(peer, 0..4)), prop::option::weighted(0.7, vec(port_match(), 0..4)))
        .prop_map(|(peers, ports)| Rule { action: Action::Allow, peers, ports })
}

fn policy() -> impl Strategy<Value = Policy> {
    let rules = || prop::option::weighted(0.7, vec(rule(), 0..3));
    (name(), selector(), rules(), rules()).prop_map(|(name, pods, ingress, egress)| Policy {
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: PodMatch { namespaces: NamespaceMatch::Name(name.namespace.clone()), pods },
        name,
        ingress,
        egress,
    })
}

/// What ClusterNetworkPolicies will be: tiers, priorities, actions, subjects in all namespaces.
fn tiered_policy() -> impl Strategy<Value = Policy> {
    let action = || select(vec![Action::Allow, Action::Deny, Action::Pass]);
    let rules = || {
        prop::option::weighted(0.7, vec((rule(), action()).prop_map(|(rule, action)| Rule { action, ..rule }), 0..3))
    };
    (text(&["one", "two"]), select(vec![Tier::Admin, Tier::Baseline]), 0..3_u32, pod_match(), rules(), rules())
        .prop_map(|(name, tier, priority, subject, ingress, egress)| Policy {
            name: ObjectName::new("", name),
            tier,
            priority,
            subject,
            ingress,
            egress,
        })
}

fn node() -> impl Strategy<Value = Node> {
    (text(&[NODE, "there"]), prop::collection::btree_set(text(&["10.0.1.1", "10.0.1.2", "fd00::1:1"]), 0..3))
        .prop_map(|(name, texts)| Node { name, addresses: texts.iter().map(|text| address(text)).collect() })
}

fn service() -> impl Strategy<Value = Service> {
    let port = (text(&["", "web"]), protocol(), select(vec![80, 443]), prop::option::weighted(0.3, Just(30080)))
        .prop_map(|(name, protocol, port, node_port)| ServicePort { name, protocol, port, node_port });
    let cluster = prop::collection::btree_set(text(&["10.96.0.1", "10.96.0.2", "fd96::1"]), 0..3);
    let external = prop::collection::btree_set(text(&["8.8.8.8", "10.0.1.1", "10.96.0.2"]), 0..2);
    (name(), cluster, external, vec(port, 0..3), any::<bool>()).prop_map(
        |(name, cluster_ips, external_ips, ports, internal_local)| Service {
            name,
            cluster_ips: cluster_ips.iter().map(|text| address(text)).collect(),
            external_ips: external_ips.iter().map(|text| address(text)).collect(),
            ports,
            internal_local,
            external_local: false,
        },
    )
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let port = (text(&["", "web"]), protocol(), select(vec![80, 8080]))
        .prop_map(|(name, protocol, number)| EndpointPort { name, protocol, number });
    let node = prop_oneof![Just(Some(Arc::from(NODE))), Just(Some(Arc::from("there"))), Just(None)];
    let endpoint = |texts: &'static [&'static str]| {
        let conditions =
            select(vec![(true, true, false), (false, true, true), (false, false, true), (false, false, false)]);
        (text(texts), conditions, node.clone()).prop_map(|(text, (ready, serving, terminating), node)| Endpoint {
            addresses: vec![address(&text)],
            ready,
            serving,
            terminating,
            node,
        })
    };
    let endpoints = prop_oneof![
        3 => vec(endpoint(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "8.8.8.8"]), 0..4),
        1 => vec(endpoint(&["fd00::1", "fd00::2"]), 0..3),
    ];
    let slice = (text(&["red", "blue"]), text(&["s1", "s2"]), text(&["one", "two"]));
    (slice, vec(port, 0..3), endpoints).prop_map(|((namespace, name, service), ports, endpoints)| EndpointSlice {
        name: ObjectName::new(namespace, name),
        service,
        ports,
        endpoints,
    })
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        9 => pod().prop_map(Event::PutPod),
        3 => name().prop_map(Event::DeletePod),
        3 => namespace().prop_map(Event::PutNamespace),
        1 => text(&["red", "blue", "green"]).prop_map(Event::DeleteNamespace),
        1 => node().prop_map(Event::PutNode),
        1 => text(&[NODE, "there"]).prop_map(Event::DeleteNode),
        8 => policy().prop_map(Event::PutPolicy),
        2 => name().prop_map(Event::DeletePolicy),
        1 => tiered_policy().prop_map(Event::PutPolicy),
        1 => text(&["one", "two"]).prop_map(|name| Event::DeletePolicy(ObjectName::new("", name))),
        3 => service().prop_map(Event::PutService),
        1 => name().prop_map(Event::DeleteService),
        3 => slice().prop_map(Event::PutEndpointSlice),
        1 => (text(&["red", "blue"]), text(&["s1", "s2"]))
            .prop_map(|(namespace, name)| Event::DeleteEndpointSlice(ObjectName::new(namespace, name))),
    ]
}

/// Events in which front ends come and go while pods change egress tables: one namespace, few pods, many Services.
pub(crate) fn service_event() -> impl Strategy<Value = Event> {
    let red = |name: ObjectName| ObjectName { namespace: Arc::from("red"), ..name };
    let policy = (name(), selector(), vec(rule(), 0..3)).prop_map(move |(name, pods, egress)| Policy {
        name: red(name),
        tier: Tier::NetworkPolicy,
        priority: 0,
        subject: PodMatch { namespaces: NamespaceMatch::Name(Arc::from("red")), pods },
        ingress: None,
        egress: Some(egress),
    });
    let pod = pod().prop_map(move |pod| Pod {
        uid: Arc::from(&*format!("{}", pod.name.name)),
        name: red(pod.name),
        node: Some(Arc::from(NODE)),
        host_network: false,
        ended: false,
        ..pod
    });
    prop_oneof![
        4 => pod.prop_map(Event::PutPod),
        5 => policy.prop_map(Event::PutPolicy),
        3 => name().prop_map(move |name| Event::DeletePolicy(red(name))),
        3 => node().prop_map(Event::PutNode),
        1 => text(&[NODE, "there"]).prop_map(Event::DeleteNode),
        4 => service().prop_map(move |service| Event::PutService(Service { name: red(service.name), ..service })),
        3 => name().prop_map(move |name| Event::DeleteService(red(name))),
        3 => slice().prop_map(move |slice| Event::PutEndpointSlice(EndpointSlice { name: red(slice.name), ..slice })),
    ]
}

/// Two policies for egress, for pods labelled `app=x` and `app=y`, whose tables stand while pods change from one to the
/// other.
pub(crate) fn two_tables() -> impl Strategy<Value = Vec<Event>> {
    [vec(rule(), 0..3), vec(rule(), 0..3)].prop_map(|rules| {
        let policies = rules.into_iter().zip(["x", "y"]).map(|(rules, value)| {
            let requirements = vec![Requirement::In(Arc::from("app"), vec![Arc::from(value)])];
            Event::PutPolicy(Policy {
                name: ObjectName::new("red", value),
                tier: Tier::NetworkPolicy,
                priority: 0,
                subject: PodMatch {
                    namespaces: NamespaceMatch::Name(Arc::from("red")),
                    pods: Selector { requirements },
                },
                ingress: None,
                egress: Some(rules),
            })
        });
        let pods = (0..4).map(|number| Event::PutPod(labelled(number, if number < 2 { "x" } else { "y" })));
        policies.chain(pods).collect()
    })
}

fn labelled(number: usize, app: &str) -> Pod {
    let name = ["one", "two", "three", "four"][number];
    Pod {
        name: ObjectName::new("red", name),
        uid: Arc::from(name),
        labels: Labels::from([(Arc::from("app"), Arc::from(app))]),
        addresses: if number < 3 { vec![addresses()[number]] } else { Vec::new() },
        ports: vec![NamedPort { name: Arc::from("http"), protocol: Protocol::Tcp, number: 80 }],
        node: Some(Arc::from(NODE)),
        host_network: false,
        ended: false,
    }
}

/// What happens to pods that stand under [`two_tables`].
pub(crate) fn move_or_service() -> impl Strategy<Value = Event> {
    let red = |name: ObjectName| ObjectName { namespace: Arc::from("red"), ..name };
    prop_oneof![
        6 => (0_usize..4, text(&["x", "y"])).prop_map(|(number, app)| Event::PutPod(labelled(number, &app))),
        3 => node().prop_map(Event::PutNode),
        1 => text(&[NODE, "there"]).prop_map(Event::DeleteNode),
        3 => service().prop_map(move |service| Event::PutService(Service { name: red(service.name), ..service })),
        2 => name().prop_map(move |name| Event::DeleteService(red(name))),
        3 => slice().prop_map(move |slice| Event::PutEndpointSlice(EndpointSlice { name: red(slice.name), ..slice })),
    ]
}

fn behind(number: usize, labels: Labels, ports: Vec<NamedPort>) -> Event {
    Event::PutPod(Pod { labels, ports, node: Some(Arc::from("there")), ..labelled(number, "") })
}

/// A pod of this node under a policy for egress, and a Service of two pods elsewhere.
pub(crate) fn behind_a_service() -> impl Strategy<Value = Vec<Event>> {
    let front_end = ServicePort { name: Arc::from(""), protocol: Protocol::Tcp, port: 80, node_port: None };
    let service = Service {
        name: ObjectName::new("red", "one"),
        cluster_ips: vec![address("10.96.0.1")],
        external_ips: Vec::new(),
        ports: vec![front_end],
        internal_local: false,
        external_local: false,
    };
    let endpoint = |number: usize| Endpoint {
        addresses: vec![addresses()[number]],
        ready: true,
        serving: true,
        terminating: false,
        node: Some(Arc::from("there")),
    };
    let slice = EndpointSlice {
        name: ObjectName::new("red", "s1"),
        service: Arc::from("one"),
        ports: vec![EndpointPort { name: Arc::from(""), protocol: Protocol::Tcp, number: 8080 }],
        endpoints: vec![endpoint(1), endpoint(2)],
    };
    two_tables().prop_map(move |events| {
        let policies = events.into_iter().filter(|event| matches!(event, Event::PutPolicy(_)));
        let pods = [Event::PutPod(labelled(0, "x")), behind(1, Labels::new(), Vec::new())];
        let objects = [Event::PutService(service.clone()), Event::PutEndpointSlice(slice.clone())];
        policies.chain(pods).chain(objects).collect()
    })
}

/// What happens to pods behind a Service, and to what is said of it.
pub(crate) fn relabelled_or_service() -> impl Strategy<Value = Event> {
    let port = (text(&["http", "dns"]), select(vec![80, 8080])).prop_map(|(name, number)| NamedPort {
        name,
        protocol: Protocol::Tcp,
        number,
    });
    let pod = (1_usize..3, labels(), vec(port, 0..2)).prop_map(|(number, labels, ports)| behind(number, labels, ports));
    let slice = slice().prop_map(|slice| EndpointSlice {
        name: ObjectName::new("red", "s1"),
        service: Arc::from("one"),
        ..slice
    });
    prop_oneof![
        8 => pod,
        1 => namespace().prop_map(Event::PutNamespace),
        1 => slice.prop_map(Event::PutEndpointSlice),
    ]
}
