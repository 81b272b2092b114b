//! Addresses of Services: which one was dialled, and where it leads.

use std::net::IpAddr;

use super::{
    BackEnd, Connection, Family, Judgement, Party, PartyKind, Reason, ServicePath, Verdict,
    judge::{Ask, Remote},
};
use crate::{
    cluster::Cluster,
    model::{EndpointSlice, Pod, Protocol, Service, ServicePort},
};

/// The front end that a connection was dialled to.
pub(super) struct FrontEnd<'a> {
    service: &'a Service,
    /// `None`: a cluster IP without such a port.
    port: Option<&'a ServicePort>,
    entrance: Entrance,
    family: Family,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entrance {
    ClusterIp,
    External,
    NodePort,
}

/// A Service with this cluster IP or external address.
pub(super) fn service_at(cluster: &Cluster, address: IpAddr) -> Option<&Service> {
    let with = |addresses: fn(&Service) -> &[IpAddr]| {
        cluster.services.values().find(move |service| addresses(service).contains(&address))
    };
    with(|service| &service.cluster_ips).or_else(|| with(|service| &service.external_ips))
}

impl<'a> FrontEnd<'a> {
    /// `None` if the destination is no front end: then the address itself is reached.
    pub(super) fn of(cluster: &'a Cluster, connection: &Connection) -> Option<Self> {
        let (protocol, number) = connection.protocol.zip(connection.port)?;
        let address = connection.destination.ip;
        let family = connection.family;
        let is_node = cluster.nodes_at(address).next().is_some();
        let matching = |entrance: Entrance| {
            let services = cluster.services.values().filter(move |service| match entrance {
                Entrance::ClusterIp => service.cluster_ips.contains(&address),
                Entrance::External => service.external_ips.contains(&address),
                Entrance::NodePort => is_node,
            });
            services.flat_map(move |service| {
                let ports = service.ports.iter().filter(move |port| is_dialled(port, entrance, protocol, number));
                ports.map(move |port| FrontEnd { service, port: Some(port), entrance, family })
            })
        };
        let dialled = matching(Entrance::ClusterIp).chain(matching(Entrance::External)).next();
        dialled
            .or_else(|| {
                let service = cluster.services.values().find(|service| service.cluster_ips.contains(&address))?;
                Some(FrontEnd { service, port: None, entrance: Entrance::ClusterIp, family })
            })
            .or_else(|| matching(Entrance::NodePort).next())
    }

    /// Every back end that the connection may lead to, judged.
    pub(super) fn path(&self, ask: &Ask<'_>) -> ServicePath {
        let source = ask.source.own_pod(ask.cluster);
        let back_ends = self.addresses(ask.cluster, source).into_iter().map(|(address, port)| {
            let party = Party::at(ask.cluster, address);
            let remote = Remote { party: &party, port: Some(port) };
            let egress = ask.egress_to_back_end(remote);
            BackEnd { port, egress, ingress: ask.ingress(remote), party }
        });
        ServicePath {
            namespace: self.service.name.namespace.clone(),
            name: self.service.name.name.clone(),
            entrance: match self.entrance {
                Entrance::ClusterIp => "clusterIP",
                Entrance::External => "externalIP",
                Entrance::NodePort => "nodePort",
            },
            back_ends: back_ends.collect(),
        }
    }

    /// All back ends together, at the source.
    pub(super) fn egress(&self, ask: &Ask<'_>, path: &ServicePath) -> Judgement {
        let Some(pod) = ask.source.own_pod(ask.cluster) else { return Judgement::open(Reason::NoPod) };
        if ask.isolating(pod, false).next().is_none() {
            return Judgement::open(Reason::NotIsolated);
        }
        let mut judgement = together(path.back_ends.iter().map(|back_end| &back_end.egress));
        if path.back_ends.is_empty() {
            judgement.verdict = Verdict::Denied;
            judgement.reason = if self.port.is_none() { Reason::NoSuchPort } else { Reason::NoBackEnds };
        }
        Judgement { isolated: true, ..judgement }
    }

    /// All back ends together, each at itself.
    pub(super) fn ingress(&self, path: &ServicePath) -> Judgement {
        if path.back_ends.is_empty() {
            let reason = if self.port.is_none() { Reason::NoSuchPort } else { Reason::NoBackEnds };
            return Judgement::open(reason);
        }
        together(path.back_ends.iter().map(|back_end| &back_end.ingress))
    }

    /// The addresses and ports that kube-proxy would choose from: ready ones; if there are none, those that serve while
    /// they terminate.
    fn addresses(&self, cluster: &Cluster, client: Option<&Pod>) -> Vec<(IpAddr, u16)> {
        let Some(port) = self.port else { return Vec::new() };
        let local_only = self.service.internal_local && self.entrance == Entrance::ClusterIp;
        let client_node = client.and_then(|pod| pod.node.as_ref());
        let of_service = |slice: &&EndpointSlice| {
            slice.service == self.service.name.name && slice.name.namespace == self.service.name.namespace
        };
        let mut ready = Vec::new();
        let mut terminating = Vec::new();
        for slice in cluster.endpoint_slices.values().filter(of_service) {
            let ports = slice.ports.iter().filter(|entry| entry.name == port.name && entry.protocol == port.protocol);
            for number in ports.map(|entry| entry.number) {
                for endpoint in &slice.endpoints {
                    let Some(address) = endpoint.addresses.first() else { continue };
                    let is_local = client_node.is_some() && endpoint.node.as_ref() == client_node;
                    if Family::of(*address) != self.family || (local_only && !is_local) {
                        continue;
                    }
                    if endpoint.ready {
                        ready.push((*address, number));
                    } else if endpoint.serving && endpoint.terminating {
                        terminating.push((*address, number));
                    }
                }
            }
        }
        let mut chosen = if ready.is_empty() { terminating } else { ready };
        chosen.sort();
        chosen.dedup();
        chosen
    }
}

fn is_dialled(port: &ServicePort, entrance: Entrance, protocol: Protocol, number: u16) -> bool {
    let own = if entrance == Entrance::NodePort { port.node_port } else { Some(port.port) };
    port.protocol == protocol && own == Some(number)
}

/// A new connection needs all of them.
fn together<'a>(judgements: impl Iterator<Item = &'a Judgement>) -> Judgement {
    let (mut allowed, mut denied, mut isolated) = (0, 0, false);
    for judgement in judgements {
        isolated |= judgement.isolated;
        if judgement.verdict == Verdict::Allowed {
            allowed += 1;
        } else {
            denied += 1;
        }
    }
    let (verdict, reason) = match (allowed, denied) {
        (_, 0) => (Verdict::Allowed, Reason::BackEnds),
        (0, _) => (Verdict::Denied, Reason::RefusedBackEnds),
        _ => (Verdict::Denied, Reason::MixedBackEnds),
    };
    Judgement { verdict, reason, isolated, policies: Vec::new() }
}

impl Ask<'_> {
    /// At the source, a back end is judged even if it is the source itself: the packet carries the front end's address,
    /// and nobody knows yet where it will lead.
    fn egress_to_back_end(&self, to: Remote<'_>) -> Judgement {
        match self.source.own_pod(self.cluster) {
            Some(pod) if to.party.kind == PartyKind::Pod && to.party.ip == self.source.ip => {
                self.judge(pod, to.party, to.port, false)
            }
            _ => self.egress(to),
        }
    }
}
