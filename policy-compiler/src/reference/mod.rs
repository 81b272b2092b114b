//! The reference: a slow reading of the API's own documentation, which every other evaluator is held against. It works
//! on API objects, not on the [`crate::model`], so that a mistake in the conversion shows as well. Ask [`Objects`].
//!
//! Quotations are from the API reference of networking.k8s.io/v1, core/v1 and discovery.k8s.io/v1, and from
//! <https://kubernetes.io/docs/concepts/services-networking/network-policies/> ('Network Policies'). Where they leave
//! room, DESIGN section 4 is quoted.
//!
//! Objects that the API server would have refused are read as strictly as possible: what can't be used never allows
//! anything, and a policy always isolates.

mod cidr;
mod rule;
mod selector;
mod service;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{files::Object, model::ObjectName};

/// The objects of a cluster. Each kind's names are expected to be unique (see [`Self::put`]).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Objects {
    /// Namespaces; one that only pods name needs no object.
    pub namespaces: Vec<Namespace>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods. Of two live ones with one address the later has it.
    pub pods: Vec<Pod>,
    /// Services.
    pub services: Vec<Service>,
    /// EndpointSlices.
    pub endpoint_slices: Vec<EndpointSlice>,
    /// Policies.
    pub policies: Vec<NetworkPolicy>,
}

/// An end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A pod, by the address that it has of the connection's family.
    Pod(ObjectName),
    /// A process on this node itself, outside every pod. As a destination: the node's address of the family.
    Node(String),
    /// An address, whoever has it: a pod, a node, a Service's front end, or somebody outside.
    Address(IpAddr),
}

/// A connection that somebody opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opens it.
    pub source: End,
    /// Where to.
    pub destination: End,
    /// The IP protocol. Without ports: everything but TCP (6), UDP (17) and SCTP (132).
    pub protocol: u8,
    /// The destination port, ignored for protocols without ports.
    pub port: u16,
    /// Over IPv6, not IPv4. Two addresses tell it by themselves.
    pub ipv6: bool,
}

/// Whose rules refuse a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Nobody's.
    Allowed,
    /// The source pod's.
    RefusedByEgress,
    /// The destination pod's, or those of one of the back ends that it may lead to.
    RefusedByIngress,
    /// Both.
    RefusedByBoth,
}

impl Objects {
    /// Adds an object; one of the same kind and name is replaced.
    pub fn put(&mut self, object: &Object) {
        match object {
            Object::Namespace(object) => put(&mut self.namespaces, object, |object| &object.metadata),
            Object::Node(object) => put(&mut self.nodes, object, |object| &object.metadata),
            Object::Pod(object) => put(&mut self.pods, object, |object| &object.metadata),
            Object::Service(object) => put(&mut self.services, object, |object| &object.metadata),
            Object::EndpointSlice(object) => put(&mut self.endpoint_slices, object, |object| &object.metadata),
            Object::NetworkPolicy(object) => put(&mut self.policies, object, |object| &object.metadata),
        }
    }

    /// Judges a connection; `None` if an end doesn't exist or has no address of the family.
    #[must_use]
    pub fn judge(&self, connection: &Connection) -> Option<Verdict> {
        let source_address = self.address(&connection.source, connection.ipv6)?;
        let destination_address = self.address(&connection.destination, connection.ipv6)?;
        if source_address.is_ipv4() != destination_address.is_ipv4() {
            return None;
        }
        let Connection { protocol, port, .. } = *connection;
        let source_pod = self.pod_of(&connection.source);
        // 'A Pod cannot block access to itself' (Network Policies).
        if source_pod.is_some() && source_address == destination_address {
            return Some(Verdict::Allowed);
        }
        let egress = source_pod.is_none_or(|pod| self.pod_may_send(pod, destination_address, protocol, port));
        let back_ends = self.back_ends_of(source_pod, destination_address, protocol, port);
        let arrivals = back_ends.unwrap_or_else(|| vec![(destination_address, port)]);
        let ingress = arrivals.into_iter().all(|(address, port)| {
            let Some(pod) = self.pod_at(address) else { return true };
            // Through its own Service a pod may lead to itself again.
            if address == source_address {
                return true;
            }
            // 'OR if the traffic source is the pod's local node' (NetworkPolicySpec.ingress). A hostNetwork pod is its
            // node.
            let made_by_node = self.node_of_process(&connection.source);
            (made_by_node.is_some() && made_by_node == node_name(pod))
                || self.pod_may_receive(pod, source_address, protocol, port)
        });
        Some(match (egress, ingress) {
            (true, true) => Verdict::Allowed,
            (false, true) => Verdict::RefusedByEgress,
            (true, false) => Verdict::RefusedByIngress,
            (false, false) => Verdict::RefusedByBoth,
        })
    }

    /// Whether a pod may open a connection to `remote`, an address as the packet carries it (so maybe a front end), as
    /// far as its own rules go. `None` if there is no such pod, or it has no veth of its own.
    #[must_use]
    pub fn may_send(&self, pod: &ObjectName, remote: IpAddr, protocol: u8, port: u16) -> Option<bool> {
        Some(self.pod_may_send(self.pod_named(pod)?, remote, protocol, port))
    }

    /// Whether a connection from `remote`, not made by the pod's own node, may enter a pod. `None` as in
    /// [`Self::may_send`].
    #[must_use]
    pub fn may_receive(&self, pod: &ObjectName, remote: IpAddr, protocol: u8, port: u16) -> Option<bool> {
        Some(self.pod_may_receive(self.pod_named(pod)?, remote, protocol, port))
    }

    fn pod_may_send(&self, pod: &Pod, remote: IpAddr, protocol: u8, port: u16) -> bool {
        // 'By default, a pod is non-isolated for egress; all outbound connections are allowed. A pod is isolated for
        // egress if there is any NetworkPolicy that both selects the pod and has "Egress" in its policyTypes' (Network
        // Policies).
        if !self.policies.iter().any(|policy| rule::isolates_egress(policy, pod)) {
            return true;
        }
        match self.back_ends_of(Some(pod), remote, protocol, port) {
            // 'A front end is judged by the back ends that kube-proxy would use, at their target ports; [...] if none,
            // closed. [...] A new connection needs all of them open' (DESIGN 4).
            Some(back_ends) => {
                !back_ends.is_empty()
                    && back_ends.iter().all(|(address, port)| self.egress_rules_allow(pod, *address, protocol, *port))
            }
            None => self.egress_rules_allow(pod, remote, protocol, port),
        }
    }

    /// 'When a pod is isolated for egress, the only allowed connections from the pod are those allowed by the egress
    /// list of some NetworkPolicy that applies to the pod for egress. [...] The effects of those egress lists combine
    /// additively' (Network Policies).
    fn egress_rules_allow(&self, pod: &Pod, remote: IpAddr, protocol: u8, port: u16) -> bool {
        let policies = self.policies.iter().filter(|policy| rule::isolates_egress(policy, pod));
        policies.flat_map(|policy| rule::egress_rules(policy).map(move |rule| (policy, rule))).any(|(policy, rule)| {
            let peer = rule.to.as_deref().unwrap_or_default();
            let ports = rule.ports.as_deref().unwrap_or_default();
            // 'This can either be a numerical or named port on a pod': on each peer for egress (DESIGN 4).
            self.is_peer(policy, peer, remote) && rule::is_port(self.pod_at(remote), ports, protocol, port)
        })
    }

    fn pod_may_receive(&self, pod: &Pod, remote: IpAddr, protocol: u8, port: u16) -> bool {
        // The same for ingress, word by word.
        let mut isolating = self.policies.iter().filter(|policy| rule::isolates_ingress(policy, pod)).peekable();
        isolating.peek().is_none()
            || isolating.flat_map(|policy| rule::ingress_rules(policy).map(move |rule| (policy, rule))).any(
                |(policy, rule)| {
                    let peer = rule.from.as_deref().unwrap_or_default();
                    let ports = rule.ports.as_deref().unwrap_or_default();
                    // On the selected pod for ingress (DESIGN 4).
                    self.is_peer(policy, peer, remote) && rule::is_port(Some(pod), ports, protocol, port)
                },
            )
    }

    fn pod_named(&self, name: &ObjectName) -> Option<&Pod> {
        self.pods.iter().find(|pod| is_named(&pod.metadata, name)).filter(|pod| has_own_address(pod))
    }

    /// The live pod with its own network that has this address.
    fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.iter().rfind(|pod| has_own_address(pod) && addresses(pod).contains(&address))
    }

    /// The pod with its own network behind an end.
    fn pod_of(&self, end: &End) -> Option<&Pod> {
        match end {
            End::Pod(name) => self.pod_named(name),
            End::Address(address) => self.pod_at(*address),
            End::Node(_) => None,
        }
    }

    /// The node whose own process this end is.
    fn node_of_process<'a>(&'a self, end: &'a End) -> Option<&'a str> {
        match end {
            End::Node(name) => Some(name),
            End::Pod(name) => {
                let pod = self.pods.iter().find(|pod| is_named(&pod.metadata, name))?;
                if is_host_network(pod) { node_name(pod) } else { None }
            }
            // Who only has a node's address may have been given it on the way (masquerading): 'not by its source
            // address' (DESIGN 4).
            End::Address(_) => None,
        }
    }

    fn address(&self, end: &End, ipv6: bool) -> Option<IpAddr> {
        let of_node = |name: &str| {
            let node = self.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name))?;
            node_addresses(node).into_iter().find(|address| address.is_ipv6() == ipv6)
        };
        match end {
            End::Address(address) => Some(*address),
            End::Node(name) => of_node(name),
            End::Pod(name) => {
                let pod = self.pods.iter().find(|pod| is_named(&pod.metadata, name))?;
                if is_ended(pod) {
                    return None;
                }
                let own = addresses(pod).into_iter().find(|address| address.is_ipv6() == ipv6);
                if is_host_network(pod) { own.or_else(|| of_node(node_name(pod)?)) } else { own }
            }
        }
    }
}

fn put<T: Clone>(list: &mut Vec<T>, object: &T, metadata: fn(&T) -> &ObjectMeta) {
    let same = |a: &ObjectMeta, b: &ObjectMeta| a.name == b.name && namespace_name(a) == namespace_name(b);
    list.retain(|other| !same(metadata(other), metadata(object)));
    list.push(object.clone());
}

fn is_named(metadata: &ObjectMeta, name: &ObjectName) -> bool {
    namespace_name(metadata) == &*name.namespace && metadata.name.as_deref() == Some(&*name.name)
}

fn namespace_name(metadata: &ObjectMeta) -> &str {
    match metadata.namespace.as_deref() {
        None | Some("") => "default",
        Some(namespace) => namespace,
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// 'Host networking requested for this pod. Use the host's network namespace' (PodSpec.hostNetwork).
fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

/// 'Succeeded: All containers in the pod have terminated in success, and will not be restarted. Failed: All containers
/// in the pod have terminated' (PodStatus.phase). 'Pods in a final phase have no address any more' (DESIGN 4).
fn is_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Succeeded") || phase == Some("Failed")
}

/// 'hostNetwork pods are their node: selectors don't match them, ipBlocks do' (DESIGN 4).
fn has_own_address(pod: &Pod) -> bool {
    !is_host_network(pod) && !is_ended(pod)
}

/// 'podIPs holds the IP addresses allocated to the pod. If this field is specified, the 0th entry must match the podIP
/// field. Pods may be allocated at most 1 value for each of IPv4 and IPv6' (PodStatus).
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let listed: Vec<&str> = status.pod_ips.iter().flatten().map(|entry| &*entry.ip).collect();
    let texts = if listed.is_empty() { status.pod_ip.iter().map(|text| &**text).collect() } else { listed };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in texts.into_iter().filter_map(usable_address) {
        if !addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            addresses.push(address);
        }
    }
    addresses
}

/// 'Node address type, one of Hostname, ExternalIP or InternalIP' (NodeAddress.type).
fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let listed = listed.filter(|entry| entry.type_ == "InternalIP" || entry.type_ == "ExternalIP");
    listed.filter_map(|entry| usable_address(&entry.address)).collect()
}

/// An address that one host can have.
fn usable_address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    let unusable = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address == IpAddr::from([255, 255, 255, 255]);
    (!unusable).then_some(address)
}
