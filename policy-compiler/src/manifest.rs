//! The way back: what the compiler knows of an object as the API would have it, for whoever asks an agent what it
//! enforces. Entry point: [`of`]. What is read from it by `files` is the object again; of one that was unusable in part,
//! the same part is unusable.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::{
    convert::{self, METADATA_NAME},
    diagnostic::Kind,
    model::{
        EndpointSlice, Event, Labels, Namespace, NamespaceMatch, Node, ObjectName, Peer, Pod, PodMatch, Policy,
        PortMatch, Requirement, Rule, Selector, Service,
    },
};

/// The object of a `Put`; `None` of a `Delete`.
#[must_use]
pub fn of(event: &Event) -> Option<Value> {
    Some(match event {
        Event::PutPod(object) => pod(object),
        Event::PutNamespace(object) => namespace(object),
        Event::PutNode(object) => node(object),
        Event::PutPolicy(object) => policy(object),
        Event::PutService(object) => service(object),
        Event::PutEndpointSlice(object) => endpoint_slice(object),
        Event::DeletePod(_)
        | Event::DeleteNamespace(_)
        | Event::DeleteNode(_)
        | Event::DeletePolicy(_)
        | Event::DeleteService(_)
        | Event::DeleteEndpointSlice(_) => return None,
    })
}

fn object(kind: Kind, mut metadata: Map<String, Value>, name: &ObjectName, rest: Vec<(&str, Value)>) -> Value {
    metadata.insert("name".into(), json!(name.name));
    if kind.is_namespaced() {
        metadata.insert("namespace".into(), json!(name.namespace));
    }
    let mut object = Map::from_iter([
        ("apiVersion".to_owned(), json!(kind.api_version())),
        ("kind".to_owned(), json!(kind.name())),
        ("metadata".to_owned(), Value::Object(metadata)),
    ]);
    object.extend(rest.into_iter().map(|(field, value)| (field.to_owned(), value)));
    Value::Object(object)
}

fn labelled(labels: &Labels) -> Map<String, Value> {
    Map::from_iter((!labels.is_empty()).then(|| ("labels".to_owned(), json!(labels))))
}

fn pod(pod: &Pod) -> Value {
    let mut metadata = labelled(&pod.labels);
    if *pod.uid != *pod.name.to_string() {
        metadata.insert("uid".into(), json!(pod.uid));
    }
    let mut spec = Map::new();
    if let Some(node) = &pod.node {
        spec.insert("nodeName".into(), json!(node));
    }
    if pod.host_network {
        spec.insert("hostNetwork".into(), json!(true));
    }
    let ports = pod.ports.iter();
    let ports: Vec<_> =
        ports.map(|port| json!({"name": port.name, "protocol": port.protocol, "containerPort": port.number})).collect();
    if !ports.is_empty() {
        spec.insert("containers".into(), json!([{"name": "all", "ports": ports}]));
    }
    let ips: Vec<_> = pod.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"phase": if pod.ended { "Succeeded" } else { "Running" }, "podIPs": ips});
    object(Kind::Pod, metadata, &pod.name, vec![("spec", Value::Object(spec)), ("status", status)])
}

fn namespace(namespace: &Namespace) -> Value {
    let mut metadata = labelled(&namespace.labels);
    let flags = [(convert::FORWARDS, namespace.forwards), (convert::AUDIT, namespace.audit)];
    let annotations: Map<_, _> =
        flags.into_iter().filter(|(_, set)| *set).map(|(key, _)| (key.to_owned(), json!("true"))).collect();
    if !annotations.is_empty() {
        metadata.insert("annotations".into(), Value::Object(annotations));
    }
    debug_assert!(namespace.labels.contains_key(METADATA_NAME), "every namespace is given this label");
    object(Kind::Namespace, metadata, &ObjectName::new("", namespace.name.clone()), Vec::new())
}

fn node(node: &Node) -> Value {
    let addresses: Vec<_> =
        node.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    let name = ObjectName::new("", node.name.clone());
    object(Kind::Node, Map::new(), &name, vec![("status", json!({"addresses": addresses}))])
}

fn service(service: &Service) -> Value {
    let has_node_ports = service.ports.iter().any(|port| port.node_port.is_some());
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            let mut written = json!({"protocol": port.protocol, "port": port.port});
            if !port.name.is_empty() {
                written["name"] = json!(port.name);
            }
            if let Some(number) = port.node_port {
                written["nodePort"] = json!(number);
            }
            written
        })
        .collect();
    let mut spec = json!({"type": if has_node_ports { "NodePort" } else { "ClusterIP" }, "ports": ports});
    spec["clusterIPs"] = if service.cluster_ips.is_empty() { json!(["None"]) } else { json!(service.cluster_ips) };
    if !service.external_ips.is_empty() {
        spec["externalIPs"] = json!(service.external_ips);
    }
    for (field, local) in
        [("internalTrafficPolicy", service.internal_local), ("externalTrafficPolicy", service.external_local)]
    {
        if local {
            spec[field] = json!("Local");
        }
    }
    object(Kind::Service, Map::new(), &service.name, vec![("spec", spec)])
}

fn endpoint_slice(slice: &EndpointSlice) -> Value {
    let ports: Vec<Value> = slice
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "protocol": port.protocol, "port": port.number}))
        .collect();
    let endpoints: Vec<Value> = slice
        .endpoints
        .iter()
        .map(|end| {
            let conditions = json!({"ready": end.ready, "serving": end.serving, "terminating": end.terminating});
            let mut written = json!({"addresses": end.addresses, "conditions": conditions});
            if let Some(node) = &end.node {
                written["nodeName"] = json!(node);
            }
            written
        })
        .collect();
    let is_v6 = slice.endpoints.iter().flat_map(|end| &end.addresses).any(IpAddr::is_ipv6);
    let metadata = Map::from_iter([("labels".to_owned(), json!({convert::SERVICE_NAME: slice.service}))]);
    let address_type = json!(if is_v6 { "IPv6" } else { "IPv4" });
    let rest = vec![("addressType", address_type), ("ports", json!(ports)), ("endpoints", json!(endpoints))];
    object(Kind::EndpointSlice, metadata, &slice.name, rest)
}

fn policy(policy: &Policy) -> Value {
    let mut spec = Map::from_iter([("podSelector".to_owned(), selector(&policy.subject.pods))]);
    let mut types = Vec::new();
    for (name, field, peers, rules) in
        [("Ingress", "ingress", "from", &policy.ingress), ("Egress", "egress", "to", &policy.egress)]
    {
        let Some(rules) = rules else { continue };
        types.push(name);
        if !rules.is_empty() {
            let rules: Vec<_> = rules.iter().map(|rule| self::rule(rule, peers, &policy.name)).collect();
            spec.insert(field.into(), json!(rules));
        }
    }
    spec.insert("policyTypes".into(), json!(types));
    object(Kind::NetworkPolicy, Map::new(), &policy.name, vec![("spec", Value::Object(spec))])
}

fn rule(rule: &Rule, field: &str, policy: &ObjectName) -> Value {
    let mut written = Map::new();
    if let Some(peers) = &rule.peers {
        let peers: Vec<_> = peers.iter().map(|peer| self::peer(peer, policy)).collect();
        written.insert(field.into(), json!(peers));
    }
    if let Some(ports) = &rule.ports {
        written.insert("ports".into(), ports.iter().map(port).collect());
    }
    Value::Object(written)
}

/// One that matches nobody is written as one that names nobody: reading it says so again.
fn peer(peer: &Peer, policy: &ObjectName) -> Value {
    match peer {
        Peer::Nobody => json!({}),
        Peer::Block { cidr, except } if except.is_empty() => json!({"ipBlock": {"cidr": cidr}}),
        Peer::Block { cidr, except } => json!({"ipBlock": {"cidr": cidr, "except": except}}),
        Peer::Pods(PodMatch { namespaces: NamespaceMatch::Name(name), pods }) if *name == policy.namespace => {
            json!({"podSelector": selector(pods)})
        }
        Peer::Pods(PodMatch { namespaces, pods }) => {
            let namespaces = match namespaces {
                NamespaceMatch::Labels(labels) => selector(labels),
                NamespaceMatch::Name(name) => json!({"matchLabels": {METADATA_NAME: name}}),
            };
            let mut written = json!({"namespaceSelector": namespaces});
            if !pods.requirements.is_empty() {
                written["podSelector"] = selector(pods);
            }
            written
        }
    }
}

/// One that matches nothing is written as one that can't: reading it says so again.
fn port(port: &PortMatch) -> Value {
    match port {
        PortMatch::All(protocol) => json!({"protocol": protocol}),
        PortMatch::Named(protocol, name) => json!({"protocol": protocol, "port": name}),
        PortMatch::Range { protocol, first, last } if first == last => json!({"protocol": protocol, "port": first}),
        PortMatch::Range { protocol, first, last } => json!({"protocol": protocol, "port": first, "endPort": last}),
        PortMatch::Nothing => json!({"port": 0}),
    }
}

fn selector(selector: &Selector) -> Value {
    let (mut labels, mut expressions) = (Map::new(), Vec::new());
    for requirement in &selector.requirements {
        let (key, operator, values) = match requirement {
            Requirement::In(key, values) => match &**values {
                [one] if !labels.contains_key(&**key) => {
                    labels.insert(key.to_string(), json!(one));
                    continue;
                }
                values => (key, "In", values),
            },
            Requirement::NotIn(key, values) => (key, "NotIn", &**values),
            Requirement::Exists(key) => (key, "Exists", &[][..]),
            Requirement::DoesNotExist(key) => (key, "DoesNotExist", &[][..]),
        };
        let mut expression = json!({"key": key, "operator": operator});
        if !values.is_empty() {
            expression["values"] = json!(values);
        }
        expressions.push(expression);
    }
    let mut written = Map::new();
    if !labels.is_empty() {
        written.insert("matchLabels".into(), Value::Object(labels));
    }
    if !expressions.is_empty() {
        written.insert("matchExpressions".into(), Value::Array(expressions));
    }
    Value::Object(written)
}
