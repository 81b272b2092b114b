//! Front ends of Services: where a packet to one of them may go.

use std::net::IpAddr;

use k8s_openapi::api::{
    core::v1::{Pod, Service, ServicePort, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice},
};

use super::{
    Objects, namespace_name, node_addresses, node_name,
    rule::{is_number, number_of},
    usable_address,
};

/// How a front end was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entrance {
    ClusterIp,
    External,
    NodePort,
}

impl Objects {
    /// The back ends that `client`'s connection to an address may lead to: address and port. `None` if it is no front
    /// end, and so leads to the address itself.
    pub(super) fn back_ends_of(
        &self,
        client: Option<&Pod>,
        remote: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Option<Vec<(IpAddr, u16)>> {
        // Other protocols have no ports, and nobody translates them.
        if ![6, 17, 132].contains(&protocol) {
            return None;
        }
        for entrance in [Entrance::ClusterIp, Entrance::External, Entrance::NodePort] {
            let mut back_ends = Vec::new();
            let mut found = false;
            for service in self.services.iter().filter(|service| self.has(service, entrance, remote)) {
                for service_port in ports(service).filter(|entry| is_entered(service, entry, entrance, protocol, port))
                {
                    found = true;
                    back_ends.extend(self.usable(service, service_port, entrance, remote, client));
                }
                // A cluster IP is nobody's address: on other ports it leads nowhere.
                found |= entrance == Entrance::ClusterIp;
            }
            if found {
                return Some(back_ends);
            }
        }
        None
    }

    /// Whether a Service is reached at this address.
    fn has(&self, service: &Service, entrance: Entrance, address: IpAddr) -> bool {
        let Some(spec) = &service.spec else { return false };
        let listed = cluster_ips(spec);
        // '"None": headless service (no virtual IP)' and 'ExternalName' have no proxying (ServiceSpec.clusterIP, type).
        if listed.contains(&"None") || spec.type_.as_deref() == Some("ExternalName") {
            return false;
        }
        let is_this = |text: &str| usable_address(text) == Some(address);
        match entrance {
            Entrance::ClusterIp => listed.into_iter().any(is_this),
            // 'externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this
            // service' (ServiceSpec.externalIPs).
            Entrance::External => {
                let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
                let balanced = balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
                // 'Setting this to "VIP" indicates that traffic is delivered to the node with the destination set to the
                // load-balancer's IP and port. Setting this to "Proxy" indicates that traffic is delivered to the node
                // or pod with the destination set to the node's IP and node port or the pod's IP and port'
                // (LoadBalancerIngress.ipMode). Nodes leave the latter's address alone.
                let mut balanced = balanced.filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
                spec.external_ips.iter().flatten().any(|text| is_this(text))
                    || balanced.any(|entry| entry.ip.as_deref().is_some_and(is_this))
            }
            // 'the port on each node on which this service is exposed when type is NodePort or LoadBalancer'
            // (ServicePort.nodePort).
            Entrance::NodePort => {
                matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
                    && self.nodes.iter().any(|node| node_addresses(node).contains(&address))
            }
        }
    }

    /// 'the ready ones; if none, those serving while terminating; if none, closed; internalTrafficPolicy Local: this
    /// node's only' (DESIGN 4; kube-proxy's `CategorizeEndpoints`).
    fn usable(
        &self,
        service: &Service,
        port: &ServicePort,
        entrance: Entrance,
        front_end: IpAddr,
        client: Option<&Pod>,
    ) -> Vec<(IpAddr, u16)> {
        let spec = service.spec.as_ref();
        let is_local = spec.and_then(|spec| spec.internal_traffic_policy.as_deref()) == Some("Local");
        let client_node = client.and_then(node_name);
        let mut ready = Vec::new();
        let mut terminating = Vec::new();
        let address_type = if front_end.is_ipv4() { "IPv4" } else { "IPv6" };
        for (endpoint, number) in self.endpoints(service, port, address_type) {
            // 'No semantics are defined for additional addresses beyond the first' (Endpoint.addresses).
            let Some(address) = endpoint.addresses.first().and_then(|text| usable_address(text)) else { continue };
            if address.is_ipv4() != front_end.is_ipv4() {
                continue;
            }
            // '"Local", the proxy will assume that pods only want to talk to endpoints of the service on the same node
            // as the pod, dropping the traffic if there are no local endpoints' (ServiceSpec.internalTrafficPolicy).
            let elsewhere = client_node.is_none() || endpoint.node_name.as_deref() != client_node;
            if is_local && entrance == Entrance::ClusterIp && elsewhere {
                continue;
            }
            // 'A nil value should be interpreted as "true"' of ready and serving, and as "false" of terminating
            // (EndpointConditions).
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            if conditions.ready.unwrap_or(true) {
                ready.push((address, number));
            } else if conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false) {
                terminating.push((address, number));
            }
        }
        if ready.is_empty() { terminating } else { ready }
    }

    /// The endpoints of a Service's port, each with its number there. 'All addresses in this slice must be the same
    /// type' (EndpointSlice.addressType).
    fn endpoints(&self, service: &Service, port: &ServicePort, address_type: &str) -> Vec<(&Endpoint, u16)> {
        let mut endpoints = Vec::new();
        let slices = self.endpoint_slices.iter().filter(|slice| is_of(slice, service));
        for slice in slices.filter(|slice| slice.address_type == address_type) {
            for entry in slice.ports.iter().flatten() {
                // 'Each port must have a unique name' and 'if the EndpointSlice is derived from a Kubernetes service,
                // this corresponds to the Service.ports[].name' (EndpointPort.name); 'Default is empty string'.
                let same_name = entry.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default();
                let same_protocol = number_of(entry.protocol.as_deref()) == number_of(port.protocol.as_deref());
                // 'If the EndpointSlice is derived from a Kubernetes service, this must be set to the service's target
                // port. EndpointSlices used for other purposes may have a nil port' (EndpointPort.port).
                let number =
                    entry.port.filter(|number| is_number(*number)).and_then(|number| u16::try_from(number).ok());
                if let Some(number) = number.filter(|_| same_name && same_protocol) {
                    endpoints.extend(slice.endpoints.iter().flatten().map(|endpoint| (endpoint, number)));
                }
            }
        }
        endpoints
    }
}

fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.spec.iter().flat_map(|spec| spec.ports.iter().flatten())
}

/// 'If this field is not specified, it will be initialized from the clusterIP field' (ServiceSpec.clusterIPs).
fn cluster_ips(spec: &ServiceSpec) -> Vec<&str> {
    let listed: Vec<&str> = spec.cluster_ips.iter().flatten().map(|text| &**text).collect();
    if listed.is_empty() { spec.cluster_ip.iter().map(|text| &**text).collect() } else { listed }
}

fn is_entered(service: &Service, entry: &ServicePort, entrance: Entrance, protocol: u8, port: u16) -> bool {
    let number = if entrance == Entrance::NodePort { entry.node_port } else { Some(entry.port) };
    let valid = is_number(entry.port) && entry.node_port.is_none_or(|port| is_valid_node_port(service, port));
    valid && number_of(entry.protocol.as_deref()) == Some(protocol) && number == Some(i32::from(port))
}

/// 0 is none at all; a Service without node ports is not asked for its numbers.
fn is_valid_node_port(service: &Service, port: i32) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    port == 0 || is_number(port) || !matches!(kind, Some("NodePort" | "LoadBalancer"))
}

/// 'kubernetes.io/service-name [...] indicates the name of the Service' in the slice's namespace (EndpointSlices).
fn is_of(slice: &EndpointSlice, service: &Service) -> bool {
    let of = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
    of.is_some()
        && of == service.metadata.name.as_ref()
        && namespace_name(&slice.metadata) == namespace_name(&service.metadata)
}
