//! core/v1 `Service` and discovery/v1 `EndpointSlice`, as far as kube-proxy translates them.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::{core::v1, discovery::v1 as discovery};

use super::{address::unicast, object_name, port_number, protocol};
use crate::{
    diagnostic::{Diagnostic, FieldPath, Kind, Problems},
    model::{Endpoint, EndpointPort, EndpointSlice, ObjectName, Service, ServicePort},
};

/// The label of an EndpointSlice that names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service; `None` only if it has no name. One that kube-proxy skips (headless, `ExternalName`) has no front ends.
pub fn service(object: &v1::Service, diagnostics: &mut Vec<Diagnostic>) -> Option<Service> {
    let name = object_name(Kind::Service, &object.metadata, diagnostics)?;
    let problems = &mut Problems::of(Kind::Service, name.clone(), diagnostics);
    let empty = v1::ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let listed = match spec.cluster_ips.as_deref() {
        None | Some([]) => spec.cluster_ip.as_slice(),
        Some(listed) => listed,
    };
    let skipped = kind == "ExternalName" || listed.iter().any(|text| text == "None");
    let path = FieldPath::ROOT.field("spec");
    let mut front_ends = FrontEnds { service: name.clone(), skipped, problems };
    let cluster_ips_path = path.field("clusterIPs");
    let external_ips_path = path.field("externalIPs");
    let balancer_path = FieldPath::ROOT.field("status");
    let balancer_path = balancer_path.field("loadBalancer");
    let balancer_path = balancer_path.field("ingress");

    let cluster_ips = front_ends.addresses(listed.iter().enumerate(), &cluster_ips_path);
    let external = spec.external_ips.iter().flatten().enumerate();
    let mut external_ips = front_ends.addresses(external, &external_ips_path);
    for address in front_ends.addresses(balancer_addresses(object), &balancer_path) {
        if !external_ips.contains(&address) {
            external_ips.push(address);
        }
    }
    let has_node_ports = !skipped && matches!(kind, "NodePort" | "LoadBalancer");
    Some(Service {
        name,
        cluster_ips,
        external_ips,
        ports: service_ports(spec, has_node_ports, &path.field("ports"), problems),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
    })
}

/// The load balancer's addresses that nodes translate: 'Setting this to "VIP" indicates that traffic is delivered to the
/// node with the destination set to the load-balancer's IP and port', and that is the default.
fn balancer_addresses(object: &v1::Service) -> impl Iterator<Item = (usize, &String)> {
    let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten()).enumerate();
    entries
        .filter(|(_, entry)| entry.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|(index, entry)| Some((index, entry.ip.as_ref()?)))
}

struct FrontEnds<'a, 'b> {
    service: ObjectName,
    skipped: bool,
    problems: &'a mut Problems<'b>,
}

impl FrontEnds<'_, '_> {
    fn addresses<'t>(&mut self, texts: impl Iterator<Item = (usize, &'t String)>, path: &FieldPath<'_>) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        if self.skipped {
            return addresses;
        }
        for (index, text) in texts.filter(|(_, text)| !text.is_empty()) {
            match unicast(text) {
                Some(address) if addresses.contains(&address) => {}
                Some(address) => addresses.push(address),
                None => {
                    let message = format!("{text:?} is no address for {} to be reached at; correct it", self.service);
                    self.problems.error(&path.index(index), message);
                }
            }
        }
        addresses
    }
}

fn service_ports(
    spec: &v1::ServiceSpec,
    has_node_ports: bool,
    path: &FieldPath<'_>,
    problems: &mut Problems<'_>,
) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let path = path.index(index);
        let node_port = port.node_port.filter(|number| has_node_ports && *number != 0);
        let converted = || {
            Ok(ServicePort {
                name: Arc::from(port.name.as_deref().unwrap_or_default()),
                protocol: protocol(port.protocol.as_deref()).map_err(|message| ("protocol", message))?,
                port: port_number(port.port).map_err(|message| ("port", message))?,
                node_port: node_port.map(port_number).transpose().map_err(|message| ("nodePort", message))?,
            })
        };
        match converted() {
            Ok(port) => ports.push(port),
            Err((field, message)) => problems.error(&path.field(field), message),
        }
    }
    ports
}

/// An EndpointSlice; `None` if it has no name, is no Service's, or holds names instead of addresses.
pub fn endpoint_slice(object: &discovery::EndpointSlice, diagnostics: &mut Vec<Diagnostic>) -> Option<EndpointSlice> {
    let name = object_name(Kind::EndpointSlice, &object.metadata, diagnostics)?;
    let problems = &mut Problems::of(Kind::EndpointSlice, name.clone(), diagnostics);
    let service = object.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let v4 = match &*object.address_type {
        "IPv4" => true,
        "IPv6" => false,
        "FQDN" => return None,
        other => {
            let message = format!("{other:?} is no address type, so the slice does not count; write IPv4 or IPv6");
            problems.error(&FieldPath::ROOT.field("addressType"), message);
            return None;
        }
    };
    let ports = endpoint_ports(object, problems);
    let path = FieldPath::ROOT.field("endpoints");
    let listed = object.endpoints.iter().flatten().enumerate();
    let endpoints = listed.filter_map(|(index, entry)| endpoint(entry, v4, &path.index(index), problems)).collect();
    Some(EndpointSlice { name, service: Arc::from(&**service), ports, endpoints })
}

fn endpoint_ports(object: &discovery::EndpointSlice, problems: &mut Problems<'_>) -> Vec<EndpointPort> {
    let path = FieldPath::ROOT.field("ports");
    let mut ports = Vec::new();
    for (index, port) in object.ports.iter().flatten().enumerate() {
        let path = path.index(index);
        let number = match port.port {
            Some(number) => port_number(number),
            None => Err("a port without a number means every port, and of a Service no port at all; give the target \
                         port's number"
                .to_owned()),
        };
        let converted = number.map_err(|message| ("port", message)).and_then(|number| {
            let protocol = protocol(port.protocol.as_deref()).map_err(|message| ("protocol", message))?;
            Ok(EndpointPort { name: Arc::from(port.name.as_deref().unwrap_or_default()), protocol, number })
        });
        match converted {
            Ok(port) => ports.push(port),
            Err((field, message)) => problems.error(&path.field(field), message),
        }
    }
    ports
}

/// `None` if its first address, the one that kube-proxy uses, can't be used.
fn endpoint(
    object: &discovery::Endpoint,
    v4: bool,
    path: &FieldPath<'_>,
    problems: &mut Problems<'_>,
) -> Option<Endpoint> {
    let path = path.field("addresses");
    let mut addresses = Vec::with_capacity(1);
    for (index, text) in object.addresses.iter().enumerate() {
        match unicast(text).filter(|address| address.is_ipv4() == v4) {
            Some(address) => addresses.push(address),
            None => {
                let family = if v4 { "IPv4" } else { "IPv6" };
                problems
                    .error(&path.index(index), format!("{text:?} is no {family} address of a back end; correct it"));
                if index == 0 {
                    return None;
                }
            }
        }
    }
    if addresses.is_empty() {
        problems.error(&path, "a back end without an address does not count; give it one");
        return None;
    }
    let conditions = object.conditions.as_ref();
    let condition = |field: fn(&discovery::EndpointConditions) -> Option<bool>| conditions.and_then(field);
    Some(Endpoint {
        addresses,
        ready: condition(|conditions| conditions.ready).unwrap_or(true),
        serving: condition(|conditions| conditions.serving).unwrap_or(true),
        terminating: condition(|conditions| conditions.terminating).unwrap_or(false),
        node: object.node_name.as_deref().filter(|node| !node.is_empty()).map(Arc::from),
    })
}
