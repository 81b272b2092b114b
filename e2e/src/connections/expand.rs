//! The shorthand of a case's file, written out as manifests.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, bail, ensure};
use policy_compiler::model::Protocol;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    line::{Family, object, port},
    ordered::Ordered,
};

/// The nodes of every case.
pub(super) const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// A namespace: its labels.
pub(super) type NamespaceLine = BTreeMap<String, String>;

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct PodLine {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// One of each family if it isn't said.
    ips: Option<Vec<IpAddr>>,
    /// Named ports: `http: 80`, `dns: 53/udp`.
    #[serde(default)]
    ports: BTreeMap<String, String>,
    #[serde(default = "first_node")]
    node: String,
    #[serde(default)]
    host_network: bool,
    #[serde(default = "running")]
    phase: String,
}

fn first_node() -> String {
    NODES[0].to_owned()
}

fn running() -> String {
    "Running".to_owned()
}

/// A Service with one port, and its EndpointSlices.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ServiceLine {
    /// One of each family if it isn't said; `[None]` for a headless one.
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(default, rename = "externalIPs")]
    external_ips: Vec<IpAddr>,
    port: String,
    node_port: Option<u16>,
    internal_traffic_policy: Option<String>,
    external_traffic_policy: Option<String>,
    /// `POD[:PORT]`, the port being the Service's if it isn't said.
    endpoints: Ordered<Condition>,
}

/// The conditions of an endpoint.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Condition {
    Ready,
    /// Neither ready nor serving.
    Unready,
    /// Serving, and on its way out.
    Terminating,
    /// On its way out, and no longer serving.
    Gone,
}

/// The addresses of a node: as [`crate::bed::Node`] has them.
fn node_addresses(name: &str) -> Result<[IpAddr; 2]> {
    let number = number(name)?;
    Ok([Ipv4Addr::new(192, 168, 77, number).into(), Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, number.into()).into()])
}

fn number(node: &str) -> Result<u8> {
    let place = NODES.iter().position(|name| *name == node);
    let place = place.with_context(|| format!("there is no node {node:?}; the nodes are {}", NODES.join(", ")))?;
    Ok(u8::try_from(place + 1)?)
}

/// The nodes.
pub(super) fn nodes() -> Result<Vec<Value>> {
    NODES
        .iter()
        .map(|name| {
            let addresses = node_addresses(name)?.map(|address| json!({"type": "InternalIP", "address": address}));
            Ok(json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": addresses},
            }))
        })
        .collect()
}

/// A namespace.
pub(super) fn namespace(name: &str, labels: &NamespaceLine) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

impl PodLine {
    /// The pod's addresses; `place` is the pod's in the file, from 0.
    fn addresses(&self, place: usize) -> Result<Vec<IpAddr>> {
        if self.host_network {
            ensure!(self.ips.is_none(), "a hostNetwork pod has its node's addresses");
            return Ok(node_addresses(&self.node)?.to_vec());
        }
        if let Some(ips) = &self.ips {
            return Ok(ips.clone());
        }
        let (node, last) = (number(&self.node)?, u8::try_from(place + 101).context("too many pods for one case")?);
        Ok(vec![
            Ipv4Addr::new(10, 244, node, last).into(),
            Ipv6Addr::new(0xfd00, 0x10, 0x244, node.into(), 0, 0, 0, last.into()).into(),
        ])
    }

    fn manifest(&self, name: &str, place: usize) -> Result<Value> {
        let ports = self.ports.iter().map(|(name, text)| {
            let (protocol, number) = port(text)?;
            Ok(json!({"name": name, "containerPort": number, "protocol": protocol.to_string()}))
        });
        let ports: Vec<Value> = ports.collect::<Result<_>>()?;
        let name = object(name)?;
        let mut metadata = json!({"name": name.name, "namespace": name.namespace});
        if !self.labels.is_empty() {
            metadata["labels"] = json!(self.labels);
        }
        let ips: Vec<Value> = self.addresses(place)?.iter().map(|ip| json!({"ip": ip})).collect();
        let mut status = json!({"phase": self.phase});
        if let Some(first) = ips.first() {
            status["podIP"] = first["ip"].clone();
            status["podIPs"] = json!(ips);
        }
        let containers = json!([{"name": "main", "image": "main", "ports": ports}]);
        let mut spec = json!({"nodeName": self.node, "containers": containers});
        if self.host_network {
            spec["hostNetwork"] = json!(true);
        }
        Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}))
    }
}

/// The pods.
pub(super) fn pods(lines: &Ordered<PodLine>) -> Result<Vec<Value>> {
    let pods = lines.0.iter().enumerate();
    pods.map(|(place, (name, line))| line.manifest(name, place).with_context(|| format!("pod {name}"))).collect()
}

/// The Services and their EndpointSlices.
pub(super) fn services(lines: &Ordered<ServiceLine>, pods: &Ordered<PodLine>) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for (place, (name, line)) in lines.0.iter().enumerate() {
        let expanded = line.manifests(name, place, pods).with_context(|| format!("Service {name}"))?;
        objects.extend(expanded);
    }
    Ok(objects)
}

impl ServiceLine {
    fn manifests(&self, name: &str, place: usize, pods: &Ordered<PodLine>) -> Result<Vec<Value>> {
        let name = object(name)?;
        let (protocol, own_port) = port(&self.port)?;
        let mut objects = vec![self.service(&name.namespace, &name.name, place)?];
        let mut slices: BTreeMap<(Family, u16), Vec<Value>> = BTreeMap::new();
        for (back_end, condition) in &self.endpoints.0 {
            let (pod, target) = match back_end.rsplit_once(':') {
                Some((pod, target)) => (pod, target.parse().with_context(|| format!("{target:?} is no port"))?),
                None => (&**back_end, own_port),
            };
            let found = pods.0.iter().enumerate().find(|(_, (name, _))| name == pod);
            let Some((place, (_, line))) = found else { bail!("there is no pod {pod:?} among `pods`") };
            for address in line.addresses(place)? {
                let endpoint = condition.endpoint(address, &line.node);
                slices.entry((Family::of(address), target)).or_default().push(endpoint);
            }
        }
        for (number, ((family, target), endpoints)) in slices.into_iter().enumerate() {
            objects.push(json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{}-{number}", name.name),
                    "namespace": name.namespace,
                    "labels": {"kubernetes.io/service-name": name.name},
                },
                "addressType": family.to_string(),
                "ports": [{"name": "", "port": target, "protocol": protocol.to_string()}],
                "endpoints": endpoints,
            }));
        }
        Ok(objects)
    }

    fn service(&self, namespace: &str, name: &str, place: usize) -> Result<Value> {
        let last = u8::try_from(place + 1)?;
        let cluster_ips = self.cluster_ips.clone().unwrap_or_else(|| {
            let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x96, 1, 0, 0, 0, last.into());
            vec![Ipv4Addr::new(10, 96, 1, last).to_string(), v6.to_string()]
        });
        let (protocol, number): (Protocol, u16) = port(&self.port)?;
        let mut port = json!({"port": number, "protocol": protocol.to_string()});
        let mut spec = json!({
            "type": "ClusterIP",
            "clusterIP": cluster_ips.first().context("`clusterIPs` is empty; a headless Service says [None]")?,
            "clusterIPs": cluster_ips,
        });
        if let Some(node_port) = self.node_port {
            port["nodePort"] = json!(node_port);
            spec["type"] = json!("NodePort");
        }
        spec["ports"] = json!([port]);
        if !self.external_ips.is_empty() {
            spec["externalIPs"] = json!(self.external_ips);
        }
        for (field, value) in [
            ("internalTrafficPolicy", &self.internal_traffic_policy),
            ("externalTrafficPolicy", &self.external_traffic_policy),
        ] {
            if let Some(value) = value {
                spec[field] = json!(value);
            }
        }
        Ok(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        }))
    }
}

impl Condition {
    fn endpoint(self, address: IpAddr, node: &str) -> Value {
        let (ready, serving, terminating) = match self {
            Self::Ready => (true, true, false),
            Self::Unready => (false, false, false),
            Self::Terminating => (false, true, true),
            Self::Gone => (false, false, true),
        };
        json!({
            "addresses": [address],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "nodeName": node,
        })
    }
}
