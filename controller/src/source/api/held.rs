//! What has been told of one kind of object, so that only differences are handed on: [`Held`]. Pure.
//!
//! Of each object its name and a hash of what counts in it is held, no more: a status that changes every minute, or a
//! list that repeats what was known, costs nothing further on. The hash is keyed at random and 64 bits wide; that two
//! contents of one object share it is as likely as a memory error in it.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use k8s_openapi::jiff::Timestamp;
use policy_compiler::{
    Event,
    diagnostic::Kind,
    model::{ObjectName, Pod},
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::wire::Object;

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Held {
    kind: Kind,
    hasher: RandomState,
    objects: FxHashMap<ObjectName, Known>,
    /// The number of the list that is being received, or of the last one.
    list: u32,
    /// While a list is being received: what it has changed so far.
    changed: Option<Changed>,
}

/// What a list has changed.
#[derive(Debug, Default)]
struct Changed {
    events: Vec<(Option<Timestamp>, Event)>,
    /// Each text of them once: pods have their labels, namespaces and nodes in common, and there may be very many.
    texts: FxHashSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    content: u64,
    /// The last list that named it.
    list: u32,
}

/// What `Known::content` is where a list that was broken off has changed it: whatever comes next is a change.
const UNKNOWN: u64 = 0;

impl Held {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, hasher: RandomState::new(), objects: FxHashMap::default(), list: 0, changed: None }
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn contains(&self, name: &ObjectName) -> bool {
        self.objects.contains_key(name)
    }

    /// A list begins; one that has not ended is forgotten.
    pub(super) fn begin(&mut self) {
        for (_, event) in self.changed.replace(Changed::default()).into_iter().flat_map(|changed| changed.events) {
            if let Some(known) = self.objects.get_mut(&name_of(&event)) {
                known.content = UNKNOWN;
            }
        }
        self.list = self.list.wrapping_add(1);
    }

    /// An object is there. Appends what follows from it to `events`.
    pub(super) fn put(&mut self, object: Object, events: &mut Vec<Event>) {
        let Some(mut put) = object.put else { return self.remove(&object.name, events) };
        let content = self.hasher.hash_one(&put).max(UNKNOWN + 1);
        if let (Event::PutPod(pod), Some(changed)) = (&mut put, &mut self.changed) {
            changed.share(pod);
        }
        let known = Known { content, list: self.list };
        let name = name_of(&put);
        if self.objects.insert(name, known).is_some_and(|before| before.content == content) {
            return;
        }
        match &mut self.changed {
            Some(changed) => changed.events.push((object.since, put)),
            None => events.push(put),
        }
    }

    /// An object is there, but can't be read: it stays as it is.
    pub(super) fn keep(&mut self, name: &ObjectName) {
        let list = self.list;
        if let Some(known) = self.objects.get_mut(name) {
            known.list = list;
        }
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, name: &ObjectName, events: &mut Vec<Event>) {
        // in a list it is absent by not being named; its deletion follows at the end
        if self.changed.is_none() && self.objects.remove(name).is_some() {
            events.push(delete(self.kind, name.clone()));
        }
    }

    /// The list is complete. Appends the difference it makes, and returns the names of those that are gone.
    pub(super) fn end(&mut self, events: &mut Vec<Event>) -> Vec<ObjectName> {
        let mut changed = self.changed.take().unwrap_or_default().events;
        // of two pods that claim an address the one that comes last has it
        changed.sort_by_key(|(since, _)| *since);
        events.extend(changed.into_iter().map(|(_, event)| event));
        let list = self.list;
        let gone: Vec<ObjectName> =
            self.objects.extract_if(|_, known| known.list != list).map(|(name, _)| name).collect();
        events.extend(gone.iter().map(|name| delete(self.kind, name.clone())));
        gone
    }
}

impl Changed {
    /// Replaces the pod's texts by those that are there already.
    fn share(&mut self, pod: &mut Pod) {
        let mut share = |text: &mut Arc<str>| match self.texts.get(text) {
            Some(known) => text.clone_from(known),
            None => drop(self.texts.insert(Arc::clone(text))),
        };
        share(&mut pod.name.namespace);
        pod.node.iter_mut().for_each(&mut share);
        pod.ports.iter_mut().for_each(|port| share(&mut port.name));
        let shared = |(mut key, mut value)| {
            share(&mut key);
            share(&mut value);
            (key, value)
        };
        pod.labels = std::mem::take(&mut pod.labels).into_iter().map(shared).collect();
    }
}

fn name_of(event: &Event) -> ObjectName {
    match event {
        Event::PutPod(pod) => pod.name.clone(),
        Event::PutNamespace(namespace) => ObjectName::new("", namespace.name.clone()),
        Event::PutNode(node) => ObjectName::new("", node.name.clone()),
        Event::PutPolicy(policy) => policy.name.clone(),
        Event::PutService(service) => service.name.clone(),
        Event::PutEndpointSlice(slice) => slice.name.clone(),
        Event::DeletePod(name)
        | Event::DeletePolicy(name)
        | Event::DeleteService(name)
        | Event::DeleteEndpointSlice(name) => name.clone(),
        Event::DeleteNamespace(name) | Event::DeleteNode(name) => ObjectName::new("", name.clone()),
    }
}

fn delete(kind: Kind, name: ObjectName) -> Event {
    match kind {
        Kind::Namespace => Event::DeleteNamespace(name.name),
        Kind::Node => Event::DeleteNode(name.name),
        Kind::Pod => Event::DeletePod(name),
        Kind::Service => Event::DeleteService(name),
        Kind::EndpointSlice => Event::DeleteEndpointSlice(name),
        Kind::NetworkPolicy => Event::DeletePolicy(name),
    }
}
