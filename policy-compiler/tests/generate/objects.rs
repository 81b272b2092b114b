//! Nodes, namespaces, pods, Services and their EndpointSlices.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{NAMESPACES, NODES};

/// Both nodes, each with an address of either family.
pub(crate) fn nodes() -> Vec<Value> {
    let node = |(index, name): (usize, &&str)| {
        let [v4, v6] = node_addresses(index);
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [
                {"type": "InternalIP", "address": v4}, {"type": "ExternalIP", "address": v6},
                {"type": "Hostname", "address": name},
            ]},
        })
    };
    NODES.iter().enumerate().map(node).collect()
}

fn node_addresses(index: usize) -> [String; 2] {
    [format!("192.168.0.{}", index + 1), format!("fd77::{}", index + 1)]
}

/// Labels of a vocabulary that selectors share.
pub(crate) fn labels() -> impl Strategy<Value = Value> {
    let value = || option::of(select(vec!["web", "db", ""]));
    (value(), value()).prop_map(|(app, tier)| {
        let entries = [("app", app), ("tier", tier)].into_iter().filter_map(|(key, value)| Some((key, value?)));
        entries.map(|(key, value)| (key.to_owned(), json!(value))).collect()
    })
}

/// All namespaces but the last, which is only named.
pub(crate) fn namespaces() -> impl Strategy<Value = Vec<Value>> {
    let defined = NAMESPACES.len() - 1;
    vec(labels(), defined).prop_map(|labels| {
        let namespace = |(name, labels): (&&str, Value)| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        };
        NAMESPACES.iter().zip(labels).map(namespace).collect()
    })
}

/// A pod before it has a number, which its addresses come from.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    namespace: &'static str,
    labels: Value,
    families: (bool, bool),
    node: Option<usize>,
    host_network: bool,
    phase: &'static str,
    ports: Vec<Value>,
    sidecar_ports: Vec<Value>,
    init_ports: Vec<Value>,
}

/// A pod.
pub(crate) fn pod() -> impl Strategy<Value = Pod> {
    let place =
        (select(NAMESPACES.to_vec()), labels(), prop_oneof![3 => Just(Some(0)), 1 => Just(Some(1)), 1 => Just(None)]);
    let state = (
        prop_oneof![4 => Just((true, true)), 1 => Just((true, false)), 1 => Just((false, true)), 1 => Just((false, false))],
        prop::bool::weighted(0.1),
        prop_oneof![8 => Just("Running"), 1 => Just("Pending"), 1 => Just("Failed"), 1 => Just("Succeeded")],
    );
    let ports = (vec(container_port(), 0..3), vec(container_port(), 0..2), vec(container_port(), 0..2));
    (place, state, ports).prop_map(
        |((namespace, labels, node), (families, host_network, phase), (ports, sidecar_ports, init_ports))| Pod {
            namespace,
            labels,
            families,
            node,
            host_network: host_network && node.is_some(),
            phase,
            ports,
            sidecar_ports,
            init_ports,
        },
    )
}

fn container_port() -> impl Strategy<Value = Value> {
    let name = option::weighted(0.9, select(vec!["http", "dns"]));
    (name, select(vec![80, 443, 8080, 53]), option::of(select(vec!["TCP", "UDP", "SCTP"]))).prop_map(
        |(name, number, protocol)| {
            let mut port = json!({"containerPort": number});
            if let Some(name) = name {
                port["name"] = json!(name);
            }
            if let Some(protocol) = protocol {
                port["protocol"] = json!(protocol);
            }
            port
        },
    )
}

/// The addresses that the pod of this number has if it has its own: the first pods are close together, so that small
/// blocks tell them apart.
pub(crate) fn pod_addresses(index: usize) -> [String; 2] {
    [format!("10.0.{}.{}", index % 2, index + 1), format!("fd00::{:x}", index + 1)]
}

impl Pod {
    /// The object.
    pub(crate) fn object(self, index: usize) -> Value {
        let own = match self.node {
            Some(node) if self.host_network => node_addresses(node),
            _ => pod_addresses(index),
        };
        let [v4, v6] = own.map(|ip| json!({"ip": ip}));
        let ips: Vec<_> = [(self.families.0, v4), (self.families.1, v6)]
            .into_iter()
            .filter_map(|(has, ip)| has.then_some(ip))
            .collect();
        let mut spec = json!({
            "containers": [{"name": "main", "ports": self.ports}],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "ports": self.sidecar_ports},
                {"name": "init", "ports": self.init_ports},
            ],
            "hostNetwork": self.host_network,
        });
        if let Some(node) = self.node {
            spec["nodeName"] = json!(NODES[node]);
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("pod{index}"), "namespace": self.namespace, "labels": self.labels},
            "spec": spec, "status": {"phase": self.phase, "podIPs": ips},
        })
    }
}

/// A Service and its back ends before it has a number, which its addresses and node ports come from.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    namespace: &'static str,
    families: (bool, bool),
    kind: &'static str,
    headless: bool,
    external: bool,
    balancer: Option<&'static str>,
    internal: Option<&'static str>,
    ports: Vec<(u16, &'static str, u16)>,
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    /// Below 8 a pod, from 8 a node or an outside address.
    who: usize,
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
    node: Option<usize>,
}

/// A Service.
pub(crate) fn service() -> impl Strategy<Value = Service> {
    let shape = (
        select(NAMESPACES.to_vec()),
        prop_oneof![3 => Just((true, true)), 2 => Just((true, false)), 1 => Just((false, true))],
        select(vec!["ClusterIP", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
        prop::bool::weighted(0.1),
        any::<bool>(),
        option::of(select(vec!["VIP", "Proxy", ""])),
        option::of(select(vec!["Local", "Cluster"])),
    );
    let port = (select(vec![80_u16, 81, 443]), select(vec!["TCP", "TCP", "UDP"]), select(vec![80_u16, 8080, 53]));
    let condition = || option::of(any::<bool>());
    let endpoint = (0..11_usize, condition(), condition(), condition(), option::of(0..2_usize))
        .prop_map(|(who, ready, serving, terminating, node)| Endpoint { who, ready, serving, terminating, node });
    (shape, vec(port, 1..3), vec(endpoint, 0..5)).prop_map(
        |((namespace, families, kind, headless, external, balancer, internal), mut ports, endpoints)| {
            ports.sort_unstable();
            ports.dedup_by_key(|(port, protocol, _)| (*port, *protocol));
            Service { namespace, families, kind, headless, external, balancer, internal, ports, endpoints }
        },
    )
}

impl Service {
    /// The Service and a slice for each family.
    pub(crate) fn objects(self, index: usize) -> Vec<Value> {
        let name = format!("svc{index}");
        let ips =
            [(self.families.0, format!("10.96.0.{}", index + 1)), (self.families.1, format!("fd96::{}", index + 1))];
        let ips: Vec<_> = ips.into_iter().filter_map(|(has, ip)| has.then_some(ip)).collect();
        let has_node_ports = matches!(self.kind, "NodePort" | "LoadBalancer") && !self.headless;
        let ports: Vec<_> = self
            .ports
            .iter()
            .enumerate()
            .map(|(number, (port, protocol, _))| {
                let mut object = json!({"name": format!("p{number}"), "port": port, "protocol": protocol});
                if has_node_ports {
                    object["nodePort"] = json!(30080 + index * 10 + number);
                }
                object
            })
            .collect();
        let mut spec = json!({"type": self.kind, "ports": ports});
        if self.kind == "ExternalName" {
            spec["externalName"] = json!("example.com");
        } else {
            spec["clusterIPs"] = if self.headless { json!(["None"]) } else { json!(ips) };
            spec["clusterIP"] = spec["clusterIPs"][0].clone();
        }
        if self.external {
            spec["externalIPs"] = json!([format!("198.51.100.{}", index + 1), format!("2001:db8:1::{}", index + 1)]);
        }
        if let Some(policy) = self.internal {
            spec["internalTrafficPolicy"] = json!(policy);
        }
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        if let Some(mode) = self.balancer {
            let mut ingress = json!({"ip": format!("198.51.101.{}", index + 1)});
            if !mode.is_empty() {
                ingress["ipMode"] = json!(mode);
            }
            service["status"] = json!({"loadBalancer": {"ingress": [ingress]}});
        }
        let mut objects = vec![service, self.slice(&name, "IPv4", 0)];
        // A node port of a Service without IPv6 back ends is closed at the nodes' IPv6 addresses.
        if !(has_node_ports && index % 2 == 1) {
            objects.push(self.slice(&name, "IPv6", 1));
        }
        objects
    }

    fn slice(&self, service: &str, address_type: &str, family: usize) -> Value {
        let ports: Vec<_> = self
            .ports
            .iter()
            .enumerate()
            .map(|(number, (_, protocol, target))| {
                json!({"name": format!("p{number}"), "port": target, "protocol": protocol})
            })
            .collect();
        let endpoints: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.object(family)).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": address_type,
            "metadata": {
                "name": format!("{service}-{family}"), "namespace": self.namespace,
                "labels": {"kubernetes.io/service-name": service},
            },
            "ports": ports, "endpoints": endpoints,
        })
    }
}

impl Endpoint {
    fn object(&self, family: usize) -> Value {
        let addresses = match self.who {
            pod @ 0..8 => pod_addresses(pod),
            node @ 8..10 => node_addresses(node - 8),
            _ => ["203.0.113.9".to_owned(), "2001:db8::9".to_owned()],
        };
        let mut conditions = json!({});
        for (name, value) in [("ready", self.ready), ("serving", self.serving), ("terminating", self.terminating)] {
            if let Some(value) = value {
                conditions[name] = json!(value);
            }
        }
        let mut endpoint = json!({"addresses": [addresses[family]], "conditions": conditions});
        if let Some(node) = self.node {
            endpoint["nodeName"] = json!(NODES[node]);
        }
        endpoint
    }
}
