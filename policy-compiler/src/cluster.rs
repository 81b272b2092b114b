//! A whole cluster in the compiler's terms, with the places its objects were read from: [`Cluster`].
//!
//! It is what a directory of files amounts to, what explanations are asked of, and what turns into [`Event`]s: all of
//! them for a fresh start, or the difference to an earlier state.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::Serialize;

use crate::{
    convert::implied_namespace,
    diagnostic::{Kind, Place},
    model::{EndpointSlice, Event, Namespace, Node, ObjectName, Pod, Policy, Service},
};

/// Where an object was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Where the object begins.
    pub place: Place,
    /// Where its fields begin, by path (`spec.ingress[0].from[1]`): of a NetworkPolicy everything under `spec`, of
    /// every object `metadata.labels` and the labels.
    #[serde(skip)]
    pub fields: BTreeMap<Box<str>, Position>,
    /// The policy as it would be if its `policyTypes` named both directions, where it has rules for one that they leave
    /// out.
    #[serde(skip)]
    pub unlisted: Option<Box<Policy>>,
}

/// A position in an [`Origin`]'s file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl Origin {
    /// The place of a field, or of the innermost one around it that is known, at last the object's own.
    #[must_use]
    pub fn place_of(&self, field: &str) -> Place {
        let mut field = field;
        loop {
            if let Some(position) = self.fields.get(field) {
                return Place { line: position.line as usize, column: position.column as usize, ..self.place.clone() };
            }
            match field.rfind(['.', '[']) {
                Some(end) => field = &field[..end],
                None => return self.place.clone(),
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.place.file, self.place.line)
    }
}

/// All objects that verdicts depend on, each by its name.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Cluster {
    /// Namespaces that nothing defines but something names included (see [`Self::imply_namespaces`]).
    pub namespaces: BTreeMap<Arc<str>, Namespace>,
    /// Nodes.
    pub nodes: BTreeMap<Arc<str>, Node>,
    /// Pods.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// Policies.
    pub policies: BTreeMap<ObjectName, Policy>,
    /// Services.
    pub services: BTreeMap<ObjectName, Service>,
    /// EndpointSlices of Services.
    pub endpoint_slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Where objects were read from; cluster-scoped ones under an empty namespace.
    pub origins: BTreeMap<(Kind, ObjectName), Arc<Origin>>,
}

impl Cluster {
    /// Applies what a source tells. Namespaces are not implied.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::PutPod(pod) => drop(self.pods.insert(pod.name.clone(), pod)),
            Event::DeletePod(name) => drop(self.pods.remove(&name)),
            Event::PutNamespace(namespace) => drop(self.namespaces.insert(namespace.name.clone(), namespace)),
            Event::DeleteNamespace(name) => drop(self.namespaces.remove(&name)),
            Event::PutNode(node) => drop(self.nodes.insert(node.name.clone(), node)),
            Event::DeleteNode(name) => drop(self.nodes.remove(&name)),
            Event::PutPolicy(policy) => drop(self.policies.insert(policy.name.clone(), policy)),
            Event::DeletePolicy(name) => drop(self.policies.remove(&name)),
            Event::PutService(service) => drop(self.services.insert(service.name.clone(), service)),
            Event::DeleteService(name) => drop(self.services.remove(&name)),
            Event::PutEndpointSlice(slice) => drop(self.endpoint_slices.insert(slice.name.clone(), slice)),
            Event::DeleteEndpointSlice(name) => drop(self.endpoint_slices.remove(&name)),
        }
    }

    /// Adds a namespace, with the label of its name alone, wherever a pod, policy or Service is in one that isn't there.
    pub fn imply_namespaces(&mut self) {
        let named = self.pods.keys().chain(self.policies.keys()).chain(self.services.keys());
        let missing: Vec<_> =
            named.map(|name| &name.namespace).filter(|name| !self.namespaces.contains_key(*name)).cloned().collect();
        for name in missing {
            self.namespaces.entry(name).or_insert_with_key(implied_namespace);
        }
    }

    /// The events that lead from `before` to this. What others refer to comes first: namespaces, nodes, pods and back
    /// ends, Services, policies; deletions come last, in the opposite order.
    #[must_use]
    pub fn events_since(&self, before: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut deletions = Vec::new();
        changes(
            &before.namespaces,
            &self.namespaces,
            Event::PutNamespace,
            Event::DeleteNamespace,
            &mut events,
            &mut deletions,
        );
        changes(&before.nodes, &self.nodes, Event::PutNode, Event::DeleteNode, &mut events, &mut deletions);
        changes(&before.pods, &self.pods, Event::PutPod, Event::DeletePod, &mut events, &mut deletions);
        changes(
            &before.endpoint_slices,
            &self.endpoint_slices,
            Event::PutEndpointSlice,
            Event::DeleteEndpointSlice,
            &mut events,
            &mut deletions,
        );
        changes(&before.services, &self.services, Event::PutService, Event::DeleteService, &mut events, &mut deletions);
        changes(&before.policies, &self.policies, Event::PutPolicy, Event::DeletePolicy, &mut events, &mut deletions);
        events.extend(deletions.into_iter().rev());
        events
    }

    /// The live pod that has `address`; the first by name if several claim it.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.pods.values().find(|pod| !pod.host_network && !pod.ended && pod.addresses.contains(&address))
    }

    /// The nodes that have `address`.
    pub fn nodes_at(&self, address: IpAddr) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| node.addresses.contains(&address))
    }

    /// Where an object was read from, if it was read from a file.
    #[must_use]
    pub fn origin(&self, kind: Kind, name: &ObjectName) -> Option<&Origin> {
        self.origins.get(&(kind, name.clone())).map(|origin| &**origin)
    }
}

fn changes<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    put: fn(V) -> Event,
    delete: fn(K) -> Event,
    events: &mut Vec<Event>,
    deletions: &mut Vec<Event>,
) {
    events.extend(
        after.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(_, value)| put(value.clone())),
    );
    deletions.extend(before.keys().filter(|key| !after.contains_key(key)).cloned().map(delete));
}
