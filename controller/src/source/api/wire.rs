//! Objects as they come from the API server, cut down while they are read: fields that no verdict depends on
//! (`managedFields`, most of a pod's spec and status) are skipped in the text and never held. Entry point: [`read`].

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::{core::v1, discovery::v1 as discovery, networking::v1 as networking},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use policy_compiler::{
    Event, convert,
    diagnostic::{Diagnostic, Kind},
    model::ObjectName,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// An object that could be read.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) name: ObjectName,
    /// `metadata.resourceVersion`
    pub(super) version: String,
    /// The `Put` of it; `None` if it says nothing to us, and counts as absent.
    pub(super) put: Option<Event>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Of a pod: since when it may have had its addresses. Of two pods that claim one, the later has it.
    pub(super) since: Option<Timestamp>,
}

/// Of an object that can't be read: who it is.
#[derive(Debug, Deserialize)]
pub(super) struct Identity {
    pub(super) metadata: Metadata,
}

/// Reads an object of `kind`.
pub(super) fn read(kind: Kind, text: &str) -> Result<Object, serde_json::Error> {
    match kind {
        Kind::Namespace => parse::<Named>(text).map(|object| {
            let metadata = object.metadata;
            finish(&metadata, None, |metadata, found| {
                let object = v1::Namespace { metadata, ..v1::Namespace::default() };
                convert::namespace(&object, found).map(Event::PutNamespace)
            })
        }),
        Kind::Node => parse::<Node>(text).map(|object| {
            let status = v1::NodeStatus {
                addresses: object.status.and_then(|status| status.addresses),
                ..v1::NodeStatus::default()
            };
            finish(&object.metadata, None, |metadata, found| {
                let object = v1::Node { metadata, status: Some(status), ..v1::Node::default() };
                convert::node(&object, found).map(Event::PutNode)
            })
        }),
        Kind::Pod => parse::<Pod>(text).map(|object| {
            let since = object.since();
            finish(&object.metadata, since, |metadata, found| {
                let spec = object.spec.map(v1::PodSpec::from);
                let status = object.status.map(v1::PodStatus::from);
                let pod = convert::pod(&v1::Pod { metadata, spec, status }, found)?;
                // its address may be another pod's by now
                (!pod.ended).then_some(Event::PutPod(pod))
            })
        }),
        Kind::Service => parse::<Service>(text).map(|object| {
            finish(&object.metadata, None, |metadata, found| {
                let object = v1::Service { metadata, spec: object.spec, status: object.status };
                convert::service(&object, found).map(Event::PutService)
            })
        }),
        Kind::EndpointSlice => parse::<EndpointSlice>(text).map(|object| {
            finish(&object.metadata, None, |metadata, found| {
                let endpoints = object.endpoints.map(|list| list.into_iter().map(discovery::Endpoint::from).collect());
                let (address_type, ports) = (object.address_type, object.ports);
                let object = discovery::EndpointSlice { metadata, address_type, endpoints, ports };
                convert::endpoint_slice(&object, found).map(Event::PutEndpointSlice)
            })
        }),
        Kind::NetworkPolicy => parse::<NetworkPolicy>(text).map(|object| {
            finish(&object.metadata, None, |metadata, found| {
                let object = networking::NetworkPolicy { metadata, spec: object.spec };
                convert::network_policy(&object, found).map(Event::PutPolicy)
            })
        }),
    }
}

fn parse<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

fn finish(
    metadata: &Metadata,
    since: Option<Timestamp>,
    convert: impl FnOnce(ObjectMeta, &mut Vec<Diagnostic>) -> Option<Event>,
) -> Object {
    let mut diagnostics = Vec::new();
    let (name, version) = (metadata.object_name(), metadata.resource_version.clone().unwrap_or_default());
    let put = convert(metadata.to_object_meta(), &mut diagnostics);
    Object { name, version, put, diagnostics, since }
}

/// `metadata`, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<OwnAnnotations>,
}

impl Metadata {
    pub(super) fn object_name(&self) -> ObjectName {
        ObjectName::new(self.namespace.as_deref().unwrap_or_default(), self.name.as_deref().unwrap_or_default())
    }

    fn to_object_meta(&self) -> ObjectMeta {
        ObjectMeta {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            uid: self.uid.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.as_ref().map(|annotations| annotations.0.clone()),
            ..ObjectMeta::default()
        }
    }
}

/// Annotations whose keys are ours; those of others may be large.
#[derive(Debug, Default)]
struct OwnAnnotations(BTreeMap<String, String>);

/// What our annotations begin with.
const OWN: &str = "sluice.dev/";

impl<'de> Deserialize<'de> for OwnAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OwnVisitor;
        impl<'de> Visitor<'de> for OwnVisitor {
            type Value = OwnAnnotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut own = BTreeMap::new();
                while let Some(key) = access.next_key::<String>()? {
                    if key.starts_with(OWN) {
                        own.insert(key, access.next_value()?);
                    } else {
                        access.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(OwnAnnotations(own))
            }
        }
        deserializer.deserialize_map(OwnVisitor)
    }
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    status: Option<NodeStatus>,
}

#[derive(Deserialize)]
struct NodeStatus {
    addresses: Option<Vec<v1::NodeAddress>>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: Option<PodSpec>,
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    ports: Option<Vec<v1::ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<v1::PodIP>>,
    start_time: Option<Time>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<Time>,
}

/// The condition that says that a pod's sandbox, and with it its addresses, is there.
const SANDBOX_READY: &str = "PodReadyToStartContainers";

impl Pod {
    /// Since when it may have had its addresses: kubelets before 1.29 only tell when they began with the pod.
    fn since(&self) -> Option<Timestamp> {
        let status = self.status.as_ref();
        let ready = status.and_then(|status| status.conditions.as_deref()).and_then(|conditions| {
            conditions.iter().find(|condition| condition.kind == SANDBOX_READY && condition.status == "True")
        });
        let ready = ready.and_then(|condition| condition.last_transition_time.as_ref());
        let started = status.and_then(|status| status.start_time.as_ref());
        ready.or(started).or(self.metadata.creation_timestamp.as_ref()).map(|time| time.0)
    }
}

impl From<PodSpec> for v1::PodSpec {
    fn from(spec: PodSpec) -> Self {
        let containers =
            |list: Vec<Container>| list.into_iter().map(v1::Container::from).collect::<Vec<v1::Container>>();
        Self {
            node_name: spec.node_name,
            host_network: spec.host_network,
            containers: spec.containers.map(containers).unwrap_or_default(),
            init_containers: spec.init_containers.map(containers),
            ..Self::default()
        }
    }
}

impl From<Container> for v1::Container {
    fn from(container: Container) -> Self {
        Self { ports: container.ports, restart_policy: container.restart_policy, ..Self::default() }
    }
}

impl From<PodStatus> for v1::PodStatus {
    fn from(status: PodStatus) -> Self {
        Self { phase: status.phase, pod_ip: status.pod_ip, pod_ips: status.pod_ips, ..Self::default() }
    }
}

#[derive(Deserialize)]
struct Service {
    metadata: Metadata,
    spec: Option<v1::ServiceSpec>,
    status: Option<v1::ServiceStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointSlice {
    metadata: Metadata,
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<discovery::EndpointPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<discovery::EndpointConditions>,
    node_name: Option<String>,
}

impl From<Endpoint> for discovery::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            addresses: endpoint.addresses.unwrap_or_default(),
            conditions: endpoint.conditions,
            node_name: endpoint.node_name,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
struct NetworkPolicy {
    metadata: Metadata,
    spec: Option<networking::NetworkPolicySpec>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(extra: &str) -> Object {
        let text = format!(
            r#"{{"metadata": {{"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {{"app": "a"}},
                "annotations": {{"other/large": "x"}}, "managedFields": [{{"fieldsV1": {{"f:a": {{}}}}}}]}},
            "spec": {{"nodeName": "n1", "volumes": [{{"name": "v", "emptyDir": {{}}}}], "containers":
                [{{"name": "c", "image": "i", "ports": [{{"name": "http", "containerPort": 80}}]}}]}},
            "status": {{"podIP": "10.0.0.1", "podIPs": [{{"ip": "10.0.0.1"}}, {{"ip": "fd00::1"}}] {extra}}}}}"#
        );
        read(Kind::Pod, &text).unwrap()
    }

    #[test]
    fn a_pod_is_what_its_full_object_converts_to() {
        let Object { name, version, put, diagnostics, .. } = pod("");
        assert_eq!((name, &*version, diagnostics), (ObjectName::new("n", "a"), "7", vec![]));
        let Some(Event::PutPod(pod)) = put else { panic!("{put:?}") };
        assert_eq!((pod.addresses.len(), pod.ports.len(), pod.node.as_deref()), (2, 1, Some("n1")));
        assert_eq!((&*pod.uid, pod.labels.len(), pod.host_network), ("u", 1, false));
    }

    #[test]
    fn since_when_a_pod_has_its_address() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let condition = |status: &str| {
            format!(
                r#","startTime": "2026-01-01T00:00:01Z", "conditions": [{{"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:09Z"}}, {{"type": "PodReadyToStartContainers",
                "status": "{status}", "lastTransitionTime": "2026-01-01T00:00:05Z"}}]"#
            )
        };
        assert_eq!(pod("").since, at("2026-01-01T00:00:00Z"));
        assert_eq!(pod(&condition("False")).since, at("2026-01-01T00:00:01Z"));
        assert_eq!(pod(&condition("True")).since, at("2026-01-01T00:00:05Z"));
    }

    #[test]
    fn a_pod_that_has_ended_is_absent() {
        for phase in ["Succeeded", "Failed"] {
            assert!(pod(&format!(r#", "phase": "{phase}""#)).put.is_none());
        }
        assert!(pod(r#", "phase": "Running""#).put.is_some());
    }

    #[test]
    fn only_our_annotations_are_read() {
        let text = r#"{"metadata": {"name": "n", "creationTimestamp": null, "labels": null,
            "annotations": {"sluice.dev/audit": "true", "other/x": "y"}}}"#;
        let object = read(Kind::Namespace, text).unwrap();
        let Some(Event::PutNamespace(namespace)) = object.put else { panic!("{object:?}") };
        assert!(namespace.audit);
    }

    #[test]
    fn what_has_no_service_is_absent_and_what_is_misshapen_an_error() {
        let slice = r#"{"metadata": {"name": "s", "namespace": "n"}, "addressType": "IPv4"}"#;
        assert!(read(Kind::EndpointSlice, slice).unwrap().put.is_none());
        let policy = r#"{"metadata": {"name": "p", "namespace": "n"}, "spec": {"ingress": 3}}"#;
        read(Kind::NetworkPolicy, policy).unwrap_err();
        let identity: Identity = serde_json::from_str(policy).unwrap();
        assert_eq!(identity.metadata.object_name(), ObjectName::new("n", "p"));
    }
}
