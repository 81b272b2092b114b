//! Events, taken in: objects are stored and indexed, and what may follow from them is noted in the batch.

use std::{hash::BuildHasher, net::IpAddr, sync::Arc};

use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::{Batch, Compiler};
use crate::{
    change::Report,
    class::addresses::AddressId,
    index::population::{NamespaceId, PodId},
    model::{Event, NamedPort, Node, ObjectName, Pod, Policy},
};

impl Compiler {
    pub(super) fn take_in(&mut self, event: Event, batch: &mut Batch) {
        match event {
            Event::PutPod(pod) => self.put_pod(&pod, batch),
            Event::DeletePod(name) => {
                if let Some(id) = self.population.find_pod(&name) {
                    self.delete_pod(id, batch);
                }
            }
            Event::PutNamespace(namespace) => {
                let changed = self.population.put_namespace(&namespace);
                self.note_flags(changed, batch);
            }
            Event::DeleteNamespace(name) => {
                let changed = self.population.delete_namespace(&name);
                self.note_flags(changed, batch);
            }
            Event::PutNode(node) => self.put_node(node),
            Event::DeleteNode(name) => self.delete_node(&name),
            Event::PutPolicy(policy) => self.put_policy(policy, batch),
            Event::DeletePolicy(name) => self.delete_policy(&name, batch),
            Event::PutService(service) => {
                self.services.set_service(&service.name.clone(), Some(service), &mut self.addresses);
            }
            Event::DeleteService(name) => self.services.set_service(&name, None, &mut self.addresses),
            Event::PutEndpointSlice(slice) => {
                let name = slice.name.clone();
                self.services.set_slice(&name, Some(slice), &self.options.node, &mut self.addresses);
            }
            Event::DeleteEndpointSlice(name) => {
                self.services.set_slice(&name, None, &self.options.node, &mut self.addresses);
            }
        }
    }

    fn put_pod(&mut self, pod: &Pod, batch: &mut Batch) {
        let uid_hash = FxBuildHasher.hash_one(&*pod.uid);
        let id = match self.population.find_pod(&pod.name) {
            Some(id) if self.population.pods[id].uid_hash == uid_hash => id,
            other => {
                if let Some(id) = other {
                    self.delete_pod(id, batch);
                }
                self.population.insert_pod(&pod.name, uid_hash)
            }
        };
        if self.population.pods[id].node != pod.node {
            self.population.pods[id].node = pod.node.clone();
        }
        let mut ports: SmallVec<[NamedPort; 4]> = pod.ports.iter().cloned().collect();
        ports.sort_unstable();
        ports.dedup();
        let has_kind = !pod.host_network && !pod.ended;
        let changed_kind = self.population.set_kind(id, has_kind.then_some((&pod.labels, &ports)));
        let is_local = has_kind && pod.node.as_ref() == Some(&self.options.node);
        self.set_local(id, is_local.then_some(&pod.uid), batch);
        if changed_kind {
            for address in self.population.pods[id].addresses.clone() {
                self.addresses.touch(address);
            }
        }
        let addresses = if pod.ended { &[] } else { &*pod.addresses };
        self.set_pod_addresses(id, pod.host_network, addresses, batch);
    }

    fn delete_pod(&mut self, id: PodId, batch: &mut Batch) {
        self.set_pod_addresses(id, false, &[], batch);
        self.set_local(id, None, batch);
        self.population.set_kind(id, None);
        self.population.remove_pod(id);
    }

    fn set_pod_addresses(&mut self, id: PodId, host: bool, addresses: &[IpAddr], batch: &mut Batch) {
        let old = self.population.pods[id].addresses.clone();
        let was_host = std::mem::replace(&mut self.population.pods[id].host, host);
        let same = |(known, address): (&AddressId, &IpAddr)| self.addresses.get(*known).address == (*address).into();
        if was_host == host && old.len() == addresses.len() && old.iter().zip(addresses).all(same) {
            return;
        }
        let new: SmallVec<[AddressId; 2]> =
            addresses.iter().map(|address| self.addresses.touch_address(*address)).collect();
        let keeps = was_host == host;
        for &address in old.iter().filter(|address| !keeps || !new.contains(address)) {
            self.unclaim(id, address, was_host);
        }
        for &address in new.iter().filter(|address| !keeps || !old.contains(address)) {
            self.claim(id, address, host, batch);
        }
        self.population.pods[id].addresses = new;
        if self.local_pods.contains_key(&id) {
            batch.stale_pods.insert(id);
        }
    }

    fn claim(&mut self, pod: PodId, address: AddressId, host: bool, batch: &mut Batch) {
        self.addresses.touch(address);
        let entry = self.addresses.get_mut(address);
        if host {
            entry.hosts += 1;
            return;
        }
        let other = entry.claims.last().copied();
        entry.claims.push(pod);
        let ip = entry.address.into();
        if let Some(other) = other {
            let holder = self.addresses.holder(address).unwrap_or(pod);
            batch.reports.push(Report::AddressConflict {
                address: ip,
                holder: self.population.pod_name(holder),
                other: self.population.pod_name(if holder == pod { other } else { pod }),
            });
        }
    }

    fn unclaim(&mut self, pod: PodId, address: AddressId, host: bool) {
        self.addresses.touch(address);
        let entry = self.addresses.get_mut(address);
        if host {
            entry.hosts -= 1;
        } else {
            entry.claims.retain(|other| *other != pod);
        }
    }

    /// A namespace's flags have changed.
    fn note_flags(&mut self, namespace: Option<NamespaceId>, batch: &mut Batch) {
        let Some(namespace) = namespace else { return };
        let here = |id: &&PodId| self.population.pods[**id].namespace == namespace;
        batch.stale_pods.extend(self.local_pods.keys().filter(here));
    }

    fn put_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) == Some(&node) {
            return;
        }
        for address in &node.addresses {
            let id = self.addresses.touch_address(*address);
            self.addresses.get_mut(id).nodes += 1;
        }
        let old = self.nodes.insert(node.name.clone(), node);
        self.forget_node(old);
    }

    fn delete_node(&mut self, name: &Arc<str>) {
        let old = self.nodes.remove(name);
        self.forget_node(old);
    }

    fn forget_node(&mut self, node: Option<Node>) {
        for address in node.iter().flat_map(|node| &node.addresses) {
            let id = self.addresses.touch_address(*address);
            self.addresses.get_mut(id).nodes -= 1;
        }
    }

    fn put_policy(&mut self, policy: Policy, batch: &mut Batch) {
        if self.policies.is_same(&policy) {
            return;
        }
        self.delete_policy(&policy.name.clone(), batch);
        let id = self.policies.insert(policy, &mut self.population);
        let is_about = |kind: &&u32| {
            !self.population.kind(**kind).pods.is_empty() && self.policies.is_about(id, **kind, &self.population)
        };
        batch.stale_kinds.extend(self.local_kinds.keys().filter(is_about));
    }

    fn delete_policy(&mut self, name: &ObjectName, batch: &mut Batch) {
        if let Some(removed) = self.policies.remove(name, &mut self.population) {
            batch.stale_kinds.extend(removed.kinds);
            batch.released.extend(removed.held);
        }
    }
}
