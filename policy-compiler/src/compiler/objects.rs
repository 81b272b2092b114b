//! The objects again, as far as they are known: what the tables follow from, for whoever asks what is enforced. Entry
//! point: [`Compiler::objects`].
//!
//! Known is what verdicts on this node depend on. Left out are the UIDs of other nodes' pods, the labels and ports of
//! those that no selector sees (`hostNetwork`, or ended), addresses that another pod holds, and back ends' addresses
//! but the first.

use std::sync::Arc;

use super::Compiler;
use crate::{
    index::population::{self, PodId},
    model::{Event, Pod},
};

/// How far [`Compiler::objects`] has come. The default is the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cursor {
    section: u8,
    id: u32,
}

impl Compiler {
    /// About as many objects as `limit` says from `from` on, each as the event that puts it, and where to go on; `None`
    /// at the end. What others refer to comes first. Between two calls, objects may come and go; who wants them as they
    /// are at one moment has to see that they don't.
    #[must_use]
    pub fn objects(&self, from: Cursor, limit: usize) -> (Vec<Event>, Option<Cursor>) {
        let Cursor { section, id } = from;
        let mut events = Vec::new();
        let next = match section {
            0 => {
                events.extend(self.nodes.values().cloned().map(Event::PutNode));
                None
            }
            1 => take(self.population.known_namespaces(id), limit, |namespace| {
                events.push(Event::PutNamespace(namespace));
            }),
            2 => take(self.population.pods.from(id).map(|(id, pod)| (id, (id, pod))), limit, |(id, pod)| {
                events.push(Event::PutPod(self.pod(id, pod)));
            }),
            3 => take(self.services.known_slices(id, |address| self.seat_of(address)), limit, |slice| {
                events.push(Event::PutEndpointSlice(slice));
            }),
            4 => take(self.services.known_services(id), limit, |service| {
                events.push(Event::PutService(service.clone()));
            }),
            _ => {
                let next = take(self.policies.known(id), limit, |policy| events.push(Event::PutPolicy(policy.clone())));
                return (events, next.map(|id| Cursor { section, id }));
            }
        };
        let next = next.map_or(Cursor { section: section + 1, id: 0 }, |id| Cursor { section, id });
        (events, Some(next))
    }

    fn pod(&self, id: PodId, pod: &population::Pod) -> Pod {
        let name = self.population.pod_name(id);
        let (labels, ports) = match pod.kind {
            Some((kind, _)) => (self.population.kind_labels(kind), self.population.kind_ports(kind).to_vec()),
            None => Default::default(),
        };
        let held = |address: &&u32| pod.host || self.addresses.holder(**address) == Some(id);
        let local = self.local_pods.get(&id);
        Pod {
            uid: local.map_or_else(|| name.to_string().into(), |local| local.uid.clone()),
            labels,
            addresses: pod.addresses.iter().filter(held).map(|id| self.addresses.get(*id).address.into()).collect(),
            ports,
            node: pod.node.clone(),
            host_network: pod.host,
            ended: pod.kind.is_none() && !pod.host,
            name,
        }
    }

    /// An address, and the node of the pod that has it.
    fn seat_of(&self, address: u32) -> (std::net::IpAddr, Option<Arc<str>>, &Arc<str>) {
        let node = self.addresses.holder(address).and_then(|pod| self.population.pods[pod].node.clone());
        (self.addresses.get(address).address.into(), node, &self.options.node)
    }
}

/// Takes as many as `limit`; answers with the id of the next one.
fn take<T>(all: impl Iterator<Item = (u32, T)>, limit: usize, mut each: impl FnMut(T)) -> Option<u32> {
    for (count, (id, value)) in all.enumerate() {
        if count >= limit {
            return Some(id);
        }
        each(value);
    }
    None
}
