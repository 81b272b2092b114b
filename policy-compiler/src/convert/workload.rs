//! core/v1 `Pod`, `Namespace` and `Node`.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1;

use super::{
    address::unicast,
    labels, object_name,
    port::port_name,
    port_number, protocol,
    selector::{label_key, label_value},
};
use crate::{
    diagnostic::{Diagnostic, FieldPath, Kind, Problems},
    model::{Labels, NamedPort, Namespace, Node, Pod},
};

/// The label that the API server gives every namespace, with the namespace's name.
pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// Annotation of a namespace whose pods may forward (see [`Namespace::forwards`]).
pub(crate) const FORWARDS: &str = "sluice.dev/forwards";

/// Annotation of a namespace whose denials are only reported (see [`Namespace::audit`]).
pub(crate) const AUDIT: &str = "sluice.dev/audit";

/// A pod; `None` only if it has no name.
pub fn pod(object: &v1::Pod, diagnostics: &mut Vec<Diagnostic>) -> Option<Pod> {
    let name = object_name(Kind::Pod, &object.metadata, diagnostics)?;
    let problems = &mut Problems::of(Kind::Pod, name.clone(), diagnostics);
    let labels = labels(&object.metadata);
    check_labels(&labels, problems);
    let uid = match object.metadata.uid.as_deref() {
        None | Some("") => name.to_string().into(),
        Some(uid) => uid.into(),
    };
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    Some(Pod {
        uid,
        labels,
        addresses: status.map(|status| pod_addresses(status, problems)).unwrap_or_default(),
        ports: spec.map(|spec| named_ports(spec, problems)).unwrap_or_default(),
        node: spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty()).map(Arc::from),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        ended: status
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed")),
        name,
    })
}

/// `status.podIPs`, or `status.podIP` where it is absent. 'Pods may be allocated at most 1 value for each of IPv4 and
/// IPv6'.
fn pod_addresses(status: &v1::PodStatus, problems: &mut Problems<'_>) -> Vec<IpAddr> {
    let path = FieldPath::ROOT.field("status");
    let list_path = path.field("podIPs");
    let listed = status.pod_ips.as_deref().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(2);
    let mut add = |text: &str, path: &FieldPath<'_>| match unicast(text) {
        _ if text.is_empty() => {}
        None => problems.error(path, format!("{text:?} is no address of a pod and does not count; correct it")),
        Some(address) if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) => {
            if !addresses.contains(&address) {
                problems.error(path, format!("{text} does not count: a pod has one address of each family at most"));
            }
        }
        Some(address) => addresses.push(address),
    };
    for (index, entry) in listed.iter().enumerate() {
        add(&entry.ip, &list_path.index(index));
    }
    if listed.is_empty()
        && let Some(text) = &status.pod_ip
    {
        add(text, &path.field("podIP"));
    }
    addresses
}

/// The named ports of the containers that run as long as the pod does: init containers only if they are restartable
/// (sidecars). Sorted and without duplicates; two containers may give the same name to different ports.
fn named_ports(spec: &v1::PodSpec, problems: &mut Problems<'_>) -> Vec<NamedPort> {
    let path = FieldPath::ROOT.field("spec");
    let mut ports = Vec::new();
    for (field, containers, sidecars_only) in [
        ("containers", &*spec.containers, false),
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default(), true),
    ] {
        let path = path.field(field);
        for (index, container) in containers.iter().enumerate() {
            if sidecars_only && container.restart_policy.as_deref() != Some("Always") {
                continue;
            }
            let path = path.index(index);
            let path = path.field("ports");
            for (index, port) in container.ports.iter().flatten().enumerate() {
                ports.extend(named_port(port, &path.index(index), problems));
            }
        }
    }
    ports.sort();
    ports.dedup();
    ports
}

fn named_port(object: &v1::ContainerPort, path: &FieldPath<'_>, problems: &mut Problems<'_>) -> Option<NamedPort> {
    let name = object.name.as_deref().filter(|name| !name.is_empty())?;
    let checked = |result: Result<_, _>, field| result.map_err(|message| (field, message));
    let port = checked(port_name(name).map(|()| 0), "name")
        .and_then(|_| checked(port_number(object.container_port), "containerPort"))
        .and_then(|number| match protocol(object.protocol.as_deref()) {
            Ok(protocol) => Ok(NamedPort { name: Arc::from(name), protocol, number }),
            Err(message) => Err(("protocol", message)),
        });
    port.map_err(|(field, message)| problems.error(&path.field(field), message)).ok()
}

/// A namespace; `None` only if it has no name.
pub fn namespace(object: &v1::Namespace, diagnostics: &mut Vec<Diagnostic>) -> Option<Namespace> {
    let name = object_name(Kind::Namespace, &object.metadata, diagnostics)?;
    let problems = &mut Problems::of(Kind::Namespace, name.clone(), diagnostics);
    let mut labels = labels(&object.metadata);
    check_labels(&labels, problems);
    let metadata = FieldPath::ROOT.field("metadata");
    let given = labels.insert(METADATA_NAME.into(), name.name.clone());
    if given.is_some_and(|given| given != name.name) {
        let message = format!("the API server sets this label to {:?}, and so it counts", name.name);
        problems.error(&metadata.field("labels").key(METADATA_NAME), message);
    }
    let annotations = metadata.field("annotations");
    let mut annotated = |key| match object.metadata.annotations.as_ref().and_then(|all| all.get(key)).map(|v| &**v) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            problems
                .error(&annotations.key(key), format!("{other:?} counts as \"false\"; write \"true\" or \"false\""));
            false
        }
    };
    Some(Namespace { forwards: annotated(FORWARDS), audit: annotated(AUDIT), name: name.name, labels })
}

/// The namespace that something in it names, before the namespace itself is known.
#[must_use]
pub fn implied_namespace(name: &Arc<str>) -> Namespace {
    let labels = Labels::from([(METADATA_NAME.into(), name.clone())]);
    Namespace { name: name.clone(), labels, forwards: false, audit: false }
}

/// A node; `None` only if it has no name.
pub fn node(object: &v1::Node, diagnostics: &mut Vec<Diagnostic>) -> Option<Node> {
    let name = object_name(Kind::Node, &object.metadata, diagnostics)?;
    let problems = &mut Problems::of(Kind::Node, name.clone(), diagnostics);
    let path = FieldPath::ROOT.field("status");
    let path = path.field("addresses");
    let mut addresses = Vec::new();
    let listed = object.status.iter().flat_map(|status| status.addresses.iter().flatten()).enumerate();
    for (index, entry) in listed.filter(|(_, entry)| matches!(&*entry.type_, "InternalIP" | "ExternalIP")) {
        match unicast(&entry.address) {
            Some(address) if addresses.contains(&address) => {}
            Some(address) => addresses.push(address),
            None => {
                let message = format!("{:?} is no address of a node and does not count; correct it", entry.address);
                problems.error(&path.index(index).field("address"), message);
            }
        }
    }
    Some(Node { name: name.name, addresses })
}

/// Odd labels count as they are: leaving one out could make a `NotIn` or `DoesNotExist` match.
fn check_labels(labels: &Labels, problems: &mut Problems<'_>) {
    let path = FieldPath::ROOT.field("metadata");
    let path = path.field("labels");
    for (key, value) in labels {
        if let Err(message) = label_key(key).and_then(|()| label_value(value)) {
            problems.warning(&path.key(key), message);
        }
    }
}
