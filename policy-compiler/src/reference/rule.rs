//! Policies and their rules: whom they isolate, which peers and ports they match.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        core::v1::{Container, Pod},
        networking::v1::{
            NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
            NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{Objects, cidr, namespace_name, selector};

pub(super) fn isolates_ingress(policy: &NetworkPolicy, pod: &Pod) -> bool {
    selects(policy, pod) && (named(policy, "Ingress") || is_unclear(policy))
}

pub(super) fn isolates_egress(policy: &NetworkPolicy, pod: &Pod) -> bool {
    selects(policy, pod) && (named(policy, "Egress") || is_unclear(policy))
}

/// The ingress rules that count: none in a direction that the policy doesn't name, none if whom it selects isn't known.
pub(super) fn ingress_rules(policy: &NetworkPolicy) -> impl Iterator<Item = &NetworkPolicyIngressRule> {
    let counts = named(policy, "Ingress") && has_subject(policy);
    policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten()).filter(move |_| counts)
}

/// The same for egress.
pub(super) fn egress_rules(policy: &NetworkPolicy) -> impl Iterator<Item = &NetworkPolicyEgressRule> {
    let counts = named(policy, "Egress") && has_subject(policy);
    policy.spec.iter().flat_map(|spec| spec.egress.iter().flatten()).filter(move |_| counts)
}

impl Objects {
    /// 'If this field is empty or missing, this rule matches all sources (traffic not restricted by source). If this
    /// field is present and contains at least one item, this rule allows traffic only if the traffic matches at least
    /// one item in the from list' (NetworkPolicyIngressRule.from; egress has the same of `to`).
    pub(super) fn is_peer(&self, policy: &NetworkPolicy, peers: &[NetworkPolicyPeer], remote: IpAddr) -> bool {
        peers.is_empty() || peers.iter().any(|peer| self.peer_matches(policy, peer, remote))
    }

    fn peer_matches(&self, policy: &NetworkPolicy, peer: &NetworkPolicyPeer, remote: IpAddr) -> bool {
        match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
            // 'If this field is set then neither of the other fields can be' (NetworkPolicyPeer.ipBlock).
            (Some(block), None, None) => cidr::matches(block, remote),
            (Some(_), _, _) => false,
            // 'NetworkPolicyPeer describes a peer to allow traffic to/from. Only certain combinations of fields are
            // allowed': not none at all.
            (None, None, None) => false,
            (None, namespaces, pods) => {
                let Some(pod) = self.pod_at(remote) else { return false };
                let everything = LabelSelector::default();
                let namespace = namespace_name(&pod.metadata);
                let namespace_matches = match namespaces {
                    // 'Otherwise it selects the pods matching podSelector in the policy's own namespace'
                    // (NetworkPolicyPeer.podSelector).
                    None => Some(namespace == namespace_name(&policy.metadata)),
                    // 'namespaceSelector selects namespaces using cluster-scoped labels. This field follows standard
                    // label selector semantics; if present but empty, it selects all namespaces'.
                    Some(selector) => selector::matches(selector, &self.namespace_labels(namespace)),
                };
                // 'Otherwise it selects all pods in the namespaces selected by namespaceSelector'.
                let pod_matches = selector::matches(pods.as_ref().unwrap_or(&everything), labels(pod));
                namespace_matches == Some(true) && pod_matches == Some(true)
            }
        }
    }

    /// 'The Kubernetes control plane sets an immutable label kubernetes.io/metadata.name on all namespaces, the value of
    /// the label is the namespace name' (Network Policies).
    fn namespace_labels(&self, name: &str) -> BTreeMap<String, String> {
        let object = self.namespaces.iter().find(|namespace| namespace.metadata.name.as_deref() == Some(name));
        let mut labels = object.and_then(|object| object.metadata.labels.clone()).unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        labels
    }
}

/// 'podSelector selects the pods to which this NetworkPolicy object applies. [...] An empty selector matches all
/// pods in the policy's namespace. [...] This field is optional. If it is not specified, it defaults to an empty
/// selector' (NetworkPolicySpec.podSelector). If the selector can't be used: every pod of the namespace.
fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let subject = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
    namespace_name(&policy.metadata) == namespace_name(&pod.metadata)
        && selector::matches(&subject, labels(pod)).unwrap_or(true)
}

/// 'If this field is empty or missing, this rule matches all ports (traffic not restricted by port). If this field
/// is present and contains at least one item, then this rule allows traffic only if the traffic matches at least one
/// port in the list' (NetworkPolicyIngressRule.ports). `pod` is who has the named ports.
pub(super) fn is_port(pod: Option<&Pod>, ports: &[NetworkPolicyPort], protocol: u8, port: u16) -> bool {
    ports.is_empty() || ports.iter().any(|element| port_matches(pod, element, protocol, port))
}

fn labels(pod: &Pod) -> &BTreeMap<String, String> {
    const NONE: &BTreeMap<String, String> = &BTreeMap::new();
    pod.metadata.labels.as_ref().unwrap_or(NONE)
}

fn has_subject(policy: &NetworkPolicy) -> bool {
    let subject = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref());
    subject.is_none_or(|subject| selector::matches(subject, &BTreeMap::new()).is_some())
}

/// 'policyTypes is a list of rule types that the NetworkPolicy relates to. [...] If this field is not specified, it will
/// default based on the existence of ingress or egress rules; policies that contain an egress section are assumed to
/// affect egress, and all policies (whether or not they contain an ingress section) are assumed to affect ingress. [...]
/// (since such a policy would not include an egress section and would otherwise default to just ["Ingress"])'. The API
/// server counts egress rules (`SetDefaults_NetworkPolicy`: `len(obj.Spec.Egress) != 0`).
fn named(policy: &NetworkPolicy, direction: &str) -> bool {
    let default = NetworkPolicySpec::default();
    let spec = policy.spec.as_ref().unwrap_or(&default);
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        direction == "Ingress" || !spec.egress.as_deref().unwrap_or_default().is_empty()
    } else {
        types.iter().any(|name| name == direction)
    }
}

/// 'Valid options are ["Ingress"], ["Egress"], or ["Ingress", "Egress"]' (NetworkPolicySpec.policyTypes). With another
/// one it isn't known which direction was meant.
fn is_unclear(policy: &NetworkPolicy) -> bool {
    let types = policy.spec.iter().flat_map(|spec| spec.policy_types.iter().flatten());
    types.into_iter().any(|name| name != "Ingress" && name != "Egress")
}

fn port_matches(pod: Option<&Pod>, element: &NetworkPolicyPort, protocol: u8, port: u16) -> bool {
    // 'protocol represents the protocol (TCP, UDP, or SCTP) which traffic must match. If not specified, this field
    // defaults to TCP' (NetworkPolicyPort.protocol). Protocols without ports match no element.
    if number_of(element.protocol.as_deref()) != Some(protocol) {
        return false;
    }
    match (&element.port, element.end_port) {
        // 'If this field is not provided, this matches all port names and numbers' (NetworkPolicyPort.port).
        (None, None) => true,
        (Some(IntOrString::Int(number)), None) => is_number(*number) && i32::from(port) == *number,
        // 'endPort indicates that the range of ports from port to endPort if set, inclusive, should be allowed by the
        // policy. [...] The endPort must be equal or greater than port' (NetworkPolicyPort.endPort).
        (Some(IntOrString::Int(first)), Some(last)) => {
            is_number(*first) && is_number(last) && (*first..=last).contains(&i32::from(port))
        }
        // 'This can either be a numerical or named port on a pod. [...] If present, only traffic on the specified
        // protocol AND port will be matched' (NetworkPolicyPort.port).
        (Some(IntOrString::String(name)), None) => {
            pod.is_some_and(|pod| is_port_name(name) && has_named_port(pod, name, protocol, port))
        }
        // 'This field cannot be defined if the port field is not defined or if the port field is defined as a named
        // (string) port' (NetworkPolicyPort.endPort).
        (None | Some(IntOrString::String(_)), Some(_)) => false,
    }
}

fn has_named_port(pod: &Pod, name: &str, protocol: u8, port: u16) -> bool {
    let Some(spec) = &pod.spec else { return false };
    // 'Sidecar containers are [...] init containers [...] with a restartPolicy of Always [...] remain running during the
    // entire life of the Pod' (Sidecar Containers).
    let sidecars =
        spec.init_containers.iter().flatten().filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let containers: Vec<&Container> = spec.containers.iter().chain(sidecars).collect();
    containers.iter().flat_map(|container| container.ports.iter().flatten()).any(|entry| {
        entry.name.as_deref() == Some(name)
            && number_of(entry.protocol.as_deref()) == Some(protocol)
            && is_number(entry.container_port)
            && entry.container_port == i32::from(port)
    })
}

pub(super) fn number_of(protocol: Option<&str>) -> Option<u8> {
    match protocol.unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

/// 'Number of port to expose on the pod's IP address. This must be a valid port number, 0 < x < 65536'
/// (ContainerPort.containerPort).
pub(super) fn is_number(port: i32) -> bool {
    0 < port && port < 65536
}

/// 'IANA_SVC_NAME [...] must be no more than 15 characters, only lower-case letters, digits and -, at least one letter,
/// no -- and no - at either end' (RFC 6335 section 5.1; ContainerPort.name).
fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && name.chars().any(|c| c.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}
