//! A made-up cluster of any size, always the same one, for benchmarks: [`Scale::events`] is its initial list.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::model::{
    Action, Endpoint, EndpointPort, EndpointSlice, Event, Labels, NamedPort, Namespace, NamespaceMatch, Node,
    ObjectName, Peer, Pod, PodMatch, Policy, PortMatch, Protocol, Requirement, Rule, Selector, Service, ServicePort,
    Tier,
};

/// How large a cluster is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Pods in all; five make a Deployment with a Service.
    pub pods: u32,
    /// Namespaces, over which pods and policies are spread.
    pub namespaces: u32,
    /// NetworkPolicies.
    pub policies: u32,
    /// Pods on each node.
    pub pods_per_node: u32,
}

/// Replicas of a Deployment.
const REPLICAS: u32 = 5;

impl Scale {
    /// The name of the node `number`.
    #[must_use]
    pub fn node(number: u32) -> Arc<str> {
        format!("node-{number}").into()
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.pods.div_ceil(self.pods_per_node)
    }

    /// Everything there is, in the order in which a source lists it.
    pub fn events(&self) -> impl Iterator<Item = Event> {
        let scale = *self;
        let namespaces = (0..self.namespaces).map(|number| Event::PutNamespace(namespace(number)));
        let nodes = (0..self.nodes()).map(|number| Event::PutNode(node(number)));
        let services = (0..self.pods.div_ceil(REPLICAS)).flat_map(move |number| {
            [Event::PutService(scale.service(number)), Event::PutEndpointSlice(scale.slice(number))]
        });
        let policies = (0..self.policies).map(move |number| Event::PutPolicy(scale.policy(number)));
        let pods = (0..self.pods).map(move |number| Event::PutPod(scale.pod(number)));
        namespaces.chain(nodes).chain(services).chain(policies).chain(pods)
    }

    fn namespace_of(&self, deployment: u32) -> Arc<str> {
        namespace_name(deployment % self.namespaces)
    }

    /// The pod `number`. Pods of a Deployment are on different nodes.
    #[must_use]
    pub fn pod(&self, number: u32) -> Pod {
        let deployment = number / REPLICAS;
        let app = deployment / self.namespaces;
        let port = |name: &str, number| NamedPort { name: name.into(), protocol: Protocol::Tcp, number };
        Pod {
            name: ObjectName::new(
                self.namespace_of(deployment),
                format!("app-{app}-{:08x}-{number:05}", deployment.wrapping_mul(0x9e37_79b1)),
            ),
            uid: format!("{number:08x}-5f3c-4b7a-9e21-{:012x}", u64::from(number) * 0x9e37).into(),
            labels: labels(&[
                ("app", format!("app-{app}")),
                ("app.kubernetes.io/managed-by", "Helm".into()),
                ("pod-template-hash", format!("{:08x}", deployment.wrapping_mul(0x9e37_79b1))),
                ("tier", ["web", "api", "db", "batch"][app as usize % 4].into()),
                ("version", format!("v{}", deployment % 7)),
            ]),
            addresses: vec![pod_address(number)],
            ports: vec![port("http", 8080), port("metrics", 9090 + u16::try_from(app % 3).unwrap_or(0))],
            node: Some(Self::node(number % self.nodes())),
            host_network: false,
            ended: false,
        }
    }

    fn service(&self, deployment: u32) -> Service {
        let app = deployment / self.namespaces;
        let port = |name: &str, port| ServicePort { name: name.into(), protocol: Protocol::Tcp, port, node_port: None };
        Service {
            name: ObjectName::new(self.namespace_of(deployment), format!("app-{app}")),
            cluster_ips: vec![IpAddr::V4(Ipv4Addr::from(0x0a80_0001 + deployment))],
            external_ips: Vec::new(),
            ports: vec![port("http", 80), port("metrics", 9090)],
            internal_local: false,
            external_local: false,
        }
    }

    fn slice(&self, deployment: u32) -> EndpointSlice {
        let app = deployment / self.namespaces;
        let port = |name: &str, number| EndpointPort { name: name.into(), protocol: Protocol::Tcp, number };
        let replicas = deployment * REPLICAS..self.pods.min((deployment + 1) * REPLICAS);
        EndpointSlice {
            name: ObjectName::new(self.namespace_of(deployment), format!("app-{app}-slice")),
            service: format!("app-{app}").into(),
            ports: vec![port("http", 8080), port("metrics", 9090 + u16::try_from(app % 3).unwrap_or(0))],
            endpoints: replicas
                .map(|number| Endpoint {
                    addresses: vec![pod_address(number)],
                    ready: true,
                    serving: true,
                    terminating: false,
                    node: Some(Self::node(number % self.nodes())),
                })
                .collect(),
        }
    }

    /// The policy `number`: four kinds in turn, all in the namespace that their number falls on.
    #[must_use]
    pub fn policy(&self, number: u32) -> Policy {
        let namespace = namespace_name(number % self.namespaces);
        let of_tier = |tier: &str| selector(&[("tier", tier)]);
        let own = |pods: Selector| Peer::Pods(PodMatch { namespaces: NamespaceMatch::Name(namespace.clone()), pods });
        let team = format!("team-{}", number % 50);
        let of_team = |pods: Selector| {
            let namespaces = NamespaceMatch::Labels(selector(&[("team", &team)]));
            Peer::Pods(PodMatch { namespaces, pods })
        };
        let tcp = |port| PortMatch::Range { protocol: Protocol::Tcp, first: port, last: port };
        let rule = |peers: Option<Vec<Peer>>, ports| Rule { action: Action::Allow, peers, ports: Some(ports) };
        let block = |cidr: &str, except: &[&str]| Peer::Block {
            cidr: cidr.parse().expect("written here"),
            except: except.iter().map(|net| net.parse().expect("written here")).collect(),
        };
        let named = || PortMatch::Named(Protocol::Tcp, "http".into());
        let (ingress, egress) = match number / self.namespaces % 4 {
            0 => (Some(vec![rule(Some(vec![own(of_tier("web")), of_team(of_tier("api"))]), vec![tcp(8080)])]), None),
            1 => {
                let dns = PortMatch::Range { protocol: Protocol::Udp, first: 53, last: 53 };
                let outside = block("0.0.0.0/0", &["10.0.0.0/8", "169.254.169.254/32"]);
                let egress = vec![
                    rule(None, vec![dns]),
                    rule(Some(vec![outside]), vec![tcp(443)]),
                    rule(Some(vec![own(Selector::default()), of_team(of_tier("db"))]), vec![named(), tcp(5432)]),
                ];
                (None, Some(egress))
            }
            2 => (Some(vec![rule(Some(vec![block("10.0.0.0/8", &[])]), vec![named()])]), None),
            _ => {
                let high = PortMatch::Range { protocol: Protocol::Tcp, first: 9000, last: 9999 };
                let monitoring = NamespaceMatch::Name(namespace_name(0));
                let peer = Peer::Pods(PodMatch { namespaces: monitoring, pods: Selector::default() });
                (Some(vec![rule(Some(vec![peer]), vec![high])]), None)
            }
        };
        Policy {
            name: ObjectName::new(namespace.clone(), format!("policy-{number}")),
            tier: Tier::NetworkPolicy,
            priority: 0,
            subject: PodMatch { namespaces: NamespaceMatch::Name(namespace.clone()), pods: Selector::default() },
            ingress,
            egress,
        }
    }
}

/// The namespace `number`.
#[must_use]
pub fn namespace(number: u32) -> Namespace {
    let name = namespace_name(number);
    let labels = labels(&[
        ("kubernetes.io/metadata.name", name.to_string()),
        ("env", ["prod", "staging", "dev"][number as usize % 3].into()),
        ("team", format!("team-{}", number % 50)),
    ]);
    Namespace { name, labels, forwards: false, audit: false }
}

fn namespace_name(number: u32) -> Arc<str> {
    format!("namespace-{number}").into()
}

fn node(number: u32) -> Node {
    Node { name: Scale::node(number), addresses: vec![IpAddr::V4(Ipv4Addr::from(0xac10_0001 + number))] }
}

fn pod_address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + number))
}

fn labels(labels: &[(&str, String)]) -> Labels {
    labels.iter().map(|(key, value)| (Arc::from(*key), Arc::from(value.as_str()))).collect()
}

fn selector(labels: &[(&str, &str)]) -> Selector {
    let requirement = |(key, value): &(&str, &str)| Requirement::In(Arc::from(*key), vec![Arc::from(*value)]);
    Selector { requirements: labels.iter().map(requirement).collect() }
}
