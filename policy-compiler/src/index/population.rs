//! Who is there, and what selectors see of them. Pods that no selector can tell apart (of one namespace, with equal
//! labels and equal named ports) are one *kind*; everything about selectors is about kinds, of which a cluster has far
//! fewer than pods, and which a new replica shares.

mod namespaces;
mod selectors;

use std::sync::Arc;

use roaring::RoaringBitmap;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::{
    candidates::Candidates,
    interner::Interner,
    labels::{LabelId, LabelIndex},
    slab::Slab,
};
use crate::model::{Labels, NamedPort, ObjectName, PodMatch, Selector};

pub(crate) use namespaces::{Namespace, NamespaceSelector};
pub(crate) use selectors::PodSelector;

pub(crate) type NamespaceId = u32;
pub(crate) type PodId = u32;
pub(crate) type KindId = u32;
/// A selector of pods that peers use.
pub(crate) type SelectorId = u32;

#[derive(Debug, Default)]
pub(crate) struct Population {
    pub(crate) namespaces: Slab<Namespace>,
    namespace_ids: FxHashMap<Arc<str>, NamespaceId>,
    namespace_labels: LabelIndex,
    namespace_selector_ids: Interner<Selector>,
    namespace_selectors: FxHashMap<u32, NamespaceSelector>,
    pub(crate) pod_labels: LabelIndex,
    port_lists: Interner<Arc<[NamedPort]>>,
    kind_ids: Interner<KindKey>,
    kinds: Vec<Kind>,
    pub(crate) pods: Slab<Pod>,
    selector_ids: Interner<Arc<PodMatch>>,
    selectors: FxHashMap<SelectorId, PodSelector>,
    candidates: Candidates,
    /// What has changed since it was last taken.
    pub(crate) news: News,
}

/// What others have to follow up.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Kinds that other peers match than before.
    pub(crate) kinds: FxHashSet<KindId>,
    /// Users of named ports whose numbers are other ones than before.
    pub(crate) named_users: FxHashSet<u32>,
    /// Namespaces that other selectors match than before.
    pub(crate) namespaces: FxHashSet<NamespaceId>,
}

/// What makes a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KindKey {
    pub(crate) namespace: NamespaceId,
    /// Sorted.
    pub(crate) labels: Box<[LabelId]>,
    ports: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Kind {
    pub(crate) pods: Vec<PodId>,
    /// The peers' selectors that match it, sorted.
    pub(crate) selectors: Vec<SelectorId>,
}

#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: NamespaceId,
    pub(crate) name: Arc<str>,
    /// Another UID is another pod.
    pub(crate) uid_hash: u64,
    /// Its kind and its place there; none if no selector matches it (`hostNetwork`, or ended).
    pub(crate) kind: Option<(KindId, u32)>,
    /// Numbers of addresses that it claims, or those of its node if `host`.
    pub(crate) addresses: SmallVec<[u32; 2]>,
    pub(crate) host: bool,
    /// `spec.nodeName`
    pub(crate) node: Option<Arc<str>>,
}

impl Population {
    pub(crate) fn find_pod(&self, name: &ObjectName) -> Option<PodId> {
        let namespace = *self.namespace_ids.get(&name.namespace)?;
        self.namespaces[namespace].pods.get(&name.name).copied()
    }

    /// A pod that isn't there yet, of no kind and without addresses.
    pub(crate) fn insert_pod(&mut self, name: &ObjectName, uid_hash: u64) -> PodId {
        let namespace = self.hold_namespace(&name.namespace);
        let pod = Pod {
            namespace,
            name: name.name.clone(),
            uid_hash,
            kind: None,
            addresses: SmallVec::new(),
            host: false,
            node: None,
        };
        let id = self.pods.insert(pod);
        self.namespaces[namespace].pods.insert(name.name.clone(), id);
        id
    }

    /// Removes a pod of no kind.
    pub(crate) fn remove_pod(&mut self, id: PodId) {
        if let Some(pod) = self.pods.remove(id) {
            self.namespaces[pod.namespace].pods.remove(&pod.name);
            self.release_namespace(pod.namespace);
        }
    }

    pub(crate) fn pod_name(&self, id: PodId) -> ObjectName {
        let pod = &self.pods[id];
        ObjectName { namespace: self.namespaces[pod.namespace].name.clone(), name: pod.name.clone() }
    }

    /// Gives a pod the kind that these labels and ports (sorted) make, or none. True if it was of another one.
    pub(crate) fn set_kind(&mut self, pod: PodId, content: Option<(&Labels, &[NamedPort])>) -> bool {
        let namespace = self.pods[pod].namespace;
        let known = content.and_then(|(labels, ports)| {
            let labels = self.pod_labels.find(labels)?;
            let ports = self.port_lists.find(ports)?;
            self.kind_ids.find(&KindKey { namespace, labels: labels.as_slice().into(), ports })
        });
        let old = self.pods[pod].kind;
        match (old, content) {
            (None, None) => return false,
            (Some((old, _)), Some(_)) if known == Some(old) => return false,
            _ => {}
        }
        let new = match (known, content) {
            (Some(kind), _) => {
                self.kind_ids.hold_again(kind);
                Some(kind)
            }
            (None, Some((labels, ports))) => Some(self.new_kind(namespace, labels, ports)),
            (None, None) => None,
        };
        if let Some((kind, place)) = old {
            self.leave_kind(kind, place);
        }
        self.pods[pod].kind = new.map(|kind| {
            let pods = &mut self.kinds[kind as usize].pods;
            pods.push(pod);
            (kind, u32::try_from(pods.len() - 1).expect("there are fewer than 2^32 pods"))
        });
        true
    }

    fn new_kind(&mut self, namespace: NamespaceId, labels: &Labels, ports: &[NamedPort]) -> KindId {
        let labels: Box<[LabelId]> = self.pod_labels.hold_all(labels).as_slice().into();
        let (ports, _) = self.port_lists.hold(ports.into());
        let (kind, _) = self.kind_ids.hold(KindKey { namespace, labels: labels.clone(), ports });
        if self.kinds.len() <= kind as usize {
            self.kinds.resize_with(kind as usize + 1, Kind::default);
        }
        self.pod_labels.add_member(&labels, kind);
        self.namespaces[namespace].kinds.insert(kind);
        for selector in self.matching_selectors(kind) {
            self.join_selector(kind, selector);
        }
        kind
    }

    fn leave_kind(&mut self, kind: KindId, place: u32) {
        let pods = &mut self.kinds[kind as usize].pods;
        pods.swap_remove(place as usize);
        if let Some(&moved) = pods.get(place as usize) {
            self.pods[moved].kind = Some((kind, place));
        }
        if pods.is_empty() {
            for selector in std::mem::take(&mut self.kinds[kind as usize].selectors) {
                self.leave_selector(kind, selector);
            }
        }
        if let Some(key) = self.kind_ids.release(kind) {
            self.namespaces[key.namespace].kinds.remove(kind);
            self.pod_labels.remove_member(&key.labels, kind);
            key.labels.iter().for_each(|label| self.pod_labels.release(*label));
            self.port_lists.release(key.ports);
        }
    }

    pub(crate) fn kind(&self, id: KindId) -> &Kind {
        &self.kinds[id as usize]
    }

    pub(crate) fn kind_key(&self, id: KindId) -> &KindKey {
        self.kind_ids.get(id)
    }

    /// The labels of a kind.
    pub(crate) fn kind_labels(&self, id: KindId) -> Labels {
        self.pod_labels.texts(&self.kind_ids.get(id).labels)
    }

    /// The named ports of a kind, sorted.
    pub(crate) fn kind_ports(&self, id: KindId) -> &[NamedPort] {
        self.port_lists.get(self.kind_ids.get(id).ports)
    }

    /// All kinds that have named ports.
    pub(crate) fn kinds_with_ports(&self) -> RoaringBitmap {
        let mut kinds = self.namespaces.iter().fold(RoaringBitmap::new(), |all, (_, namespace)| all | &namespace.kinds);
        kinds.retain(|kind| !self.kind_ports(kind).is_empty());
        kinds
    }
}
