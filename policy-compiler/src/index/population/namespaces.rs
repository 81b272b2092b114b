//! Namespaces, and the selectors of them.

use std::sync::Arc;

use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;

use super::{NamespaceId, PodId, Population};
use crate::{
    index::{candidates::Scope, labels::LabelIds, selector::IndexedSelector},
    model::{self, Labels, NamespaceMatch, Selector},
};

/// The label that every namespace has.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace, as long as it or something in it is there.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: Arc<str>,
    /// The object is there; until then its name is all that is known.
    exists: bool,
    holders: u32,
    labels: LabelIds,
    pub(crate) forwards: bool,
    pub(crate) audit: bool,
    pub(crate) pods: FxHashMap<Arc<str>, PodId>,
    pub(crate) kinds: RoaringBitmap,
    /// The selectors that match it, sorted.
    selectors: Vec<u32>,
}

/// A selector of namespaces.
#[derive(Debug)]
pub(crate) struct NamespaceSelector {
    matcher: IndexedSelector,
    pub(crate) members: RoaringBitmap,
}

impl Population {
    /// The namespace of this name, known or not.
    pub(crate) fn hold_namespace(&mut self, name: &Arc<str>) -> NamespaceId {
        if let Some(&id) = self.namespace_ids.get(name) {
            self.namespaces[id].holders += 1;
            return id;
        }
        let id = self.namespaces.insert(Namespace {
            name: name.clone(),
            exists: false,
            holders: 1,
            labels: LabelIds::new(),
            forwards: false,
            audit: false,
            pods: FxHashMap::default(),
            kinds: RoaringBitmap::new(),
            selectors: Vec::new(),
        });
        self.namespace_ids.insert(name.clone(), id);
        self.relabel_namespace(id, &name_label(name));
        id
    }

    pub(crate) fn release_namespace(&mut self, id: NamespaceId) {
        self.namespaces[id].holders -= 1;
        if self.namespaces[id].holders == 0
            && let Some(namespace) = self.namespaces.remove(id)
        {
            self.namespace_ids.remove(&namespace.name);
            self.namespace_labels.remove_member(&namespace.labels, id);
            namespace.labels.iter().for_each(|label| self.namespace_labels.release(*label));
            for selector in namespace.selectors {
                if let Some(selector) = self.namespace_selectors.get_mut(&selector) {
                    selector.members.remove(id);
                }
            }
        }
    }

    /// The object is there, or is another one than before. Answers with the namespace if its flags are other ones.
    pub(crate) fn put_namespace(&mut self, object: &model::Namespace) -> Option<NamespaceId> {
        let id = self.hold_namespace(&object.name);
        if self.namespaces[id].exists {
            self.release_namespace(id);
        }
        let namespace = &mut self.namespaces[id];
        namespace.exists = true;
        let flags = (object.forwards, object.audit);
        let same_flags = (namespace.forwards, namespace.audit) == flags;
        (namespace.forwards, namespace.audit) = flags;
        self.relabel_namespace(id, &object.labels);
        (!same_flags).then_some(id)
    }

    /// The object is gone; its pods may not be. Answers as [`Self::put_namespace`] does.
    pub(crate) fn delete_namespace(&mut self, name: &Arc<str>) -> Option<NamespaceId> {
        let id = *self.namespace_ids.get(name)?;
        let namespace = &mut self.namespaces[id];
        if !namespace.exists {
            return None;
        }
        namespace.exists = false;
        let had_flags = namespace.forwards || namespace.audit;
        (namespace.forwards, namespace.audit) = (false, false);
        self.relabel_namespace(id, &name_label(name));
        self.release_namespace(id);
        had_flags.then_some(id)
    }

    /// The namespaces that are there as objects, from an id on.
    pub(crate) fn known_namespaces(&self, from: NamespaceId) -> impl Iterator<Item = (u32, model::Namespace)> {
        let known = self.namespaces.from(from).filter(|(_, namespace)| namespace.exists);
        known.map(|(id, namespace)| {
            let labels = self.namespace_labels.texts(&namespace.labels);
            let Namespace { name, forwards, audit, .. } = namespace;
            (id, model::Namespace { name: name.clone(), labels, forwards: *forwards, audit: *audit })
        })
    }

    fn relabel_namespace(&mut self, id: NamespaceId, labels: &Labels) {
        let new = self.namespace_labels.hold_all(labels);
        let old = std::mem::replace(&mut self.namespaces[id].labels, new.clone());
        let same = old == new;
        if !same {
            self.namespace_labels.remove_member(&old, id);
            self.namespace_labels.add_member(&new, id);
        }
        old.iter().for_each(|label| self.namespace_labels.release(*label));
        if same {
            return;
        }
        let mut selectors = Vec::new();
        for (&number, selector) in &mut self.namespace_selectors {
            if selector.matcher.matches(&new, &self.namespace_labels) {
                selector.members.insert(id);
                selectors.push(number);
            } else {
                selector.members.remove(id);
            }
        }
        selectors.sort_unstable();
        if selectors != self.namespaces[id].selectors {
            self.namespaces[id].selectors = selectors;
            self.news.namespaces.insert(id);
            for kind in self.namespaces[id].kinds.clone() {
                self.match_kind_again(kind);
            }
        }
    }

    /// The scope that a match means, held.
    pub(crate) fn hold_scope(&mut self, namespaces: &NamespaceMatch) -> Scope {
        match namespaces {
            NamespaceMatch::Name(name) => Scope::Namespace(self.hold_namespace(name)),
            NamespaceMatch::Labels(selector) => Scope::Selected(self.hold_namespace_selector(selector)),
        }
    }

    pub(crate) fn release_scope(&mut self, scope: Scope) {
        match scope {
            Scope::Namespace(id) => self.release_namespace(id),
            Scope::Selected(id) => {
                if self.namespace_selector_ids.release(id).is_some()
                    && let Some(selector) = self.namespace_selectors.remove(&id)
                {
                    for member in selector.members {
                        self.namespaces[member].selectors.retain(|other| *other != id);
                    }
                    selector.matcher.release(&mut self.namespace_labels);
                }
            }
        }
    }

    fn hold_namespace_selector(&mut self, selector: &Selector) -> u32 {
        let (id, new) = self.namespace_selector_ids.hold(selector.clone());
        if new {
            let matcher = IndexedSelector::new(selector, &mut self.namespace_labels);
            let everything = || self.namespaces.iter().map(|(id, _)| id).collect();
            let members = matcher.find(&self.namespace_labels, everything);
            for member in &members {
                let selectors = &mut self.namespaces[member].selectors;
                if let Err(place) = selectors.binary_search(&id) {
                    selectors.insert(place, id);
                }
            }
            self.namespace_selectors.insert(id, NamespaceSelector { matcher, members });
        }
        id
    }

    /// The namespaces of a scope.
    pub(crate) fn namespaces_of(&self, scope: Scope) -> RoaringBitmap {
        match scope {
            Scope::Namespace(id) => RoaringBitmap::from_iter([id]),
            Scope::Selected(id) => {
                self.namespace_selectors.get(&id).map(|selector| selector.members.clone()).unwrap_or_default()
            }
        }
    }

    /// Whether a scope has a namespace.
    pub(crate) fn is_in_scope(&self, scope: Scope, namespace: NamespaceId) -> bool {
        match scope {
            Scope::Namespace(id) => id == namespace,
            Scope::Selected(id) => {
                self.namespace_selectors.get(&id).is_some_and(|selector| selector.members.contains(namespace))
            }
        }
    }

    /// The scopes that have a namespace.
    pub(crate) fn scopes_of(&self, namespace: NamespaceId) -> impl Iterator<Item = Scope> {
        let selected = self.namespaces[namespace].selectors.iter().map(|id| Scope::Selected(*id));
        std::iter::once(Scope::Namespace(namespace)).chain(selected)
    }
}

fn name_label(name: &Arc<str>) -> Labels {
    Labels::from([(Arc::from(NAME_LABEL), name.clone())])
}
