//! The cluster as the compiler sees it: only what verdicts depend on, already valid. What an API object says wrongly is
//! settled before (see `convert`): an unusable peer is [`Peer::Nobody`], an unusable port [`PortMatch::Nothing`], and
//! the object still isolates.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// Namespace and name; cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ObjectName {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl ObjectName {
    /// From its two parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// `metadata.labels`
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The transport protocols of the API (`NetworkPolicyPort.protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// The default.
    Tcp,
    /// RFC 768
    Udp,
    /// RFC 9260
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IANA number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => enforcer_abi::protocol::TCP,
            Self::Udp => enforcer_abi::protocol::UDP,
            Self::Sctp => enforcer_abi::protocol::SCTP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Its name.
    pub name: ObjectName,
    /// `metadata.uid`; of a pod read from a file that has none, `namespace/name`.
    pub uid: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// `status.podIPs`, at most one a family, in canonical form. Of a `hostNetwork` pod: not the pod's but the node's.
    pub addresses: Vec<IpAddr>,
    /// The named ports of its containers and restartable init containers.
    pub ports: Vec<NamedPort>,
    /// `spec.nodeName`
    pub node: Option<Arc<str>>,
    /// `spec.hostNetwork`
    pub host_network: bool,
    /// `status.phase` is `Succeeded` or `Failed`: it has no address any more.
    pub ended: bool,
}

/// A container port that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// `containers[].ports[].name`
    pub name: Arc<str>,
    /// `containers[].ports[].protocol`
    pub protocol: Protocol,
    /// `containers[].ports[].containerPort`
    pub number: u16,
}

/// A Namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels, `kubernetes.io/metadata.name` included.
    pub labels: Labels,
    /// Annotation `sluice.dev/forwards: "true"`: its pods may forward for addresses that belong to no pod and no node.
    pub forwards: bool,
    /// Annotation `sluice.dev/audit: "true"`: what the tables would drop at its pods passes and is reported.
    pub audit: bool,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// The IP addresses among `status.addresses`.
    pub addresses: Vec<IpAddr>,
}

/// The tiers in which policies are weighed, first to last. Only [`Tier::NetworkPolicy`] has a front end so far; the
/// others are ClusterNetworkPolicy's (sigs.k8s.io/network-policy-api).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Before NetworkPolicies; the administrator's word.
    Admin,
    /// networking.k8s.io/v1 NetworkPolicy: allows only, and isolates.
    NetworkPolicy,
    /// After NetworkPolicies, for pods that none isolates.
    Baseline,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Let it through.
    Allow,
    /// Drop it.
    Deny,
    /// Leave it to the next tier.
    Pass,
}

/// A policy, whatever its API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Its name.
    pub name: ObjectName,
    /// When it is weighed.
    pub tier: Tier,
    /// Within the tier, lower first. NetworkPolicies have 0: their order doesn't matter.
    pub priority: u32,
    /// Whom it is about.
    pub subject: PodMatch,
    /// Its ingress rules; `None` if it says nothing about ingress (`policyTypes`), an empty list isolates.
    pub ingress: Option<Vec<Rule>>,
    /// Its egress rules; `None` if it says nothing about egress.
    pub egress: Option<Vec<Rule>>,
}

/// One element of `spec.ingress` or `spec.egress`, at the same index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// `from` or `to`: `None` is everybody (absent or empty in the API), an empty list nobody.
    pub peers: Option<Vec<Peer>>,
    /// `ports`: `None` is every port and portless protocols (absent or empty in the API), an empty list nothing.
    pub ports: Option<Vec<PortMatch>>,
}

/// One element of `from` or `to`, at the same index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// `podSelector` and `namespaceSelector`.
    Pods(PodMatch),
    /// `ipBlock`, canonical: no host bits, excepts of the same family within the block, sorted, none covering another.
    Block {
        /// `ipBlock.cidr`
        cidr: IpNet,
        /// `ipBlock.except`
        except: Vec<IpNet>,
    },
    /// Unusable; it was reported.
    Nobody,
}

/// Which pods: those in namespaces and with labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodMatch {
    /// Of which namespaces.
    pub namespaces: NamespaceMatch,
    /// With which labels.
    pub pods: Selector,
}

/// Which namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceMatch {
    /// The one of this name (a `podSelector` alone means the policy's own namespace).
    Name(Arc<str>),
    /// Those whose labels match.
    Labels(Selector),
}

/// A label selector (meta/v1 `LabelSelector`): all requirements hold. Without requirements it matches everything.
/// Sorted and without duplicates, `matchLabels` being `In` with one value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
}

/// One requirement of a [`Selector`]; values are sorted and without duplicates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The key is there with one of the values.
    In(Arc<str>, Vec<Arc<str>>),
    /// The key is missing, or has none of the values.
    NotIn(Arc<str>, Vec<Arc<str>>),
    /// The key is there.
    Exists(Arc<str>),
    /// The key is missing.
    DoesNotExist(Arc<str>),
}

impl Requirement {
    /// Whether `labels` meet it.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

impl Selector {
    /// Whether `labels` meet all requirements.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

/// One element of `ports`, at the same index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// `port` absent: all ports of the protocol.
    All(Protocol),
    /// `port` by number, up to and including `endPort` (`first` if it is absent); `first` is from 1.
    Range {
        /// The protocol.
        protocol: Protocol,
        /// `port`
        first: u16,
        /// `endPort`, not below `first`
        last: u16,
    },
    /// `port` by name: resolved on the selected pod for ingress, on each peer for egress.
    Named(Protocol, Arc<str>),
    /// Unusable; it was reported.
    Nothing,
}

/// A Service, as far as kube-proxy translates it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// `spec.clusterIPs`; empty if it is headless or an ExternalName.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`, and the load balancer's addresses whose `ipMode` is not `Proxy`.
    pub external_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy` is `Local`: cluster IPs lead to back ends on the client's node only.
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy` is `Local`. For pods of the cluster external front ends lead to all back ends all
    /// the same (kube-proxy short-circuits pod traffic); kept for explanations.
    pub external_local: bool,
}

/// One of `spec.ports` of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// `name`; empty if there is none. EndpointSlice ports of the same name are its back ends'.
    pub name: Arc<str>,
    /// `protocol`
    pub protocol: Protocol,
    /// `port`
    pub port: u16,
    /// `nodePort`
    pub node_port: Option<u16>,
}

/// An EndpointSlice with addresses (discovery.k8s.io/v1, `addressType` IPv4 or IPv6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSlice {
    /// Its name.
    pub name: ObjectName,
    /// Label `kubernetes.io/service-name`, in the slice's namespace.
    pub service: Arc<str>,
    /// `ports`: name, protocol, number. A port without a number means all ports and is left out, and reported.
    pub ports: Vec<EndpointPort>,
    /// `endpoints`
    pub endpoints: Vec<Endpoint>,
}

/// One of `ports` of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointPort {
    /// `name`; empty if there is none.
    pub name: Arc<str>,
    /// `protocol`
    pub protocol: Protocol,
    /// `port`
    pub number: u16,
}

/// One of `endpoints` of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// `addresses`, all for the same end; kube-proxy uses the first.
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`; absent means true.
    pub ready: bool,
    /// `conditions.serving`; absent means true, as kube-proxy has it too.
    pub serving: bool,
    /// `conditions.terminating`
    pub terminating: bool,
    /// `nodeName`
    pub node: Option<Arc<str>>,
}

/// What a source tells. A `Put` of an object that is there replaces it; a `Delete` of one that isn't does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Pod
    PutPod(Pod),
    /// Pod
    DeletePod(ObjectName),
    /// Namespace. Until it comes, a namespace that pods name has the label `kubernetes.io/metadata.name` only.
    PutNamespace(Namespace),
    /// Namespace
    DeleteNamespace(Arc<str>),
    /// Node
    PutNode(Node),
    /// Node
    DeleteNode(Arc<str>),
    /// NetworkPolicy
    PutPolicy(Policy),
    /// NetworkPolicy
    DeletePolicy(ObjectName),
    /// Service
    PutService(Service),
    /// Service
    DeleteService(ObjectName),
    /// EndpointSlice
    PutEndpointSlice(EndpointSlice),
    /// EndpointSlice
    DeleteEndpointSlice(ObjectName),
}
