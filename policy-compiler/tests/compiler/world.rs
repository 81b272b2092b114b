//! The objects as they are after events, and the events that lead there afresh.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use policy_compiler::{
    Event,
    model::{EndpointSlice, Namespace, Node, ObjectName, Pod, Policy, Service},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) pods: BTreeMap<ObjectName, Pod>,
    pub(crate) namespaces: BTreeMap<Arc<str>, Namespace>,
    pub(crate) nodes: BTreeMap<Arc<str>, Node>,
    pub(crate) policies: BTreeMap<ObjectName, Policy>,
    pub(crate) services: BTreeMap<ObjectName, Service>,
    pub(crate) slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Which pod claimed which address, in the order in which they did.
    claims: Vec<(IpAddr, ObjectName)>,
}

impl World {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event.clone() {
            Event::PutPod(pod) => {
                let is_other = self.pods.get(&pod.name).is_some_and(|old| old.uid != pod.uid);
                let new: &[IpAddr] = if pod.ended || pod.host_network { &[] } else { &pod.addresses };
                self.claims.retain(|(address, name)| *name != pod.name || (!is_other && new.contains(address)));
                for address in new {
                    let claim = (*address, pod.name.clone());
                    if !self.claims.contains(&claim) {
                        self.claims.push(claim);
                    }
                }
                self.pods.insert(pod.name.clone(), pod);
            }
            Event::DeletePod(name) => {
                self.claims.retain(|(_, other)| *other != name);
                self.pods.remove(&name);
            }
            Event::PutNamespace(namespace) => drop(self.namespaces.insert(namespace.name.clone(), namespace)),
            Event::DeleteNamespace(name) => drop(self.namespaces.remove(&name)),
            Event::PutNode(node) => drop(self.nodes.insert(node.name.clone(), node)),
            Event::DeleteNode(name) => drop(self.nodes.remove(&name)),
            Event::PutPolicy(policy) => drop(self.policies.insert(policy.name.clone(), policy)),
            Event::DeletePolicy(name) => drop(self.policies.remove(&name)),
            Event::PutService(service) => drop(self.services.insert(service.name.clone(), service)),
            Event::DeleteService(name) => drop(self.services.remove(&name)),
            Event::PutEndpointSlice(slice) => drop(self.slices.insert(slice.name.clone(), slice)),
            Event::DeleteEndpointSlice(name) => drop(self.slices.remove(&name)),
        }
    }

    /// The pod that holds an address.
    pub(crate) fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        let (_, name) = self.claims.iter().rev().find(|(claimed, _)| *claimed == address)?;
        self.pods.get(name)
    }

    /// Events that lead here from nothing, in an order that has little to do with the one in which it came about.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = self.slices.values().rev().cloned().map(Event::PutEndpointSlice).collect();
        events.extend(self.policies.values().rev().cloned().map(Event::PutPolicy));
        events.extend(self.pods.values().rev().map(|pod| {
            let addresses = if pod.host_network { pod.addresses.clone() } else { Vec::new() };
            Event::PutPod(Pod { addresses, ..pod.clone() })
        }));
        // addresses are claimed in the order in which they were
        for (at, (_, name)) in self.claims.iter().enumerate() {
            let Some(pod) = self.pods.get(name) else { continue };
            let claimed = |address: &IpAddr| self.claims[..=at].contains(&(*address, name.clone()));
            let addresses = pod.addresses.iter().copied().filter(claimed).collect();
            events.push(Event::PutPod(Pod { addresses, ..pod.clone() }));
        }
        events.extend(self.services.values().cloned().map(Event::PutService));
        events.extend(self.namespaces.values().cloned().map(Event::PutNamespace));
        events.extend(self.nodes.values().cloned().map(Event::PutNode));
        events
    }
}
