//! Which selectors may match an object: found by the object's namespace and labels, so that the number of all selectors
//! doesn't count.

use rustc_hash::FxHashMap;

use super::{
    labels::{KeyId, LabelId, LabelIndex},
    selector::{Anchor, IndexedSelector},
};

/// Of which namespaces a selector wants objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Of this one.
    Namespace(u32),
    /// Of those that this selector of namespaces matches.
    Selected(u32),
}

/// Selectors (known by a number) under what they ask for first.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    scopes: FxHashMap<Scope, Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    by_label: FxHashMap<LabelId, Vec<u32>>,
    by_key: FxHashMap<KeyId, Vec<u32>>,
    always: Vec<u32>,
}

impl Candidates {
    pub(crate) fn insert(&mut self, scope: Scope, selector: &IndexedSelector, id: u32) {
        let buckets = self.scopes.entry(scope).or_default();
        match selector.anchor() {
            Anchor::OneOf(labels) => {
                labels.iter().for_each(|label| buckets.by_label.entry(*label).or_default().push(id));
            }
            Anchor::Has(key) => buckets.by_key.entry(key).or_default().push(id),
            Anchor::Nothing => buckets.always.push(id),
        }
    }

    pub(crate) fn remove(&mut self, scope: Scope, selector: &IndexedSelector, id: u32) {
        let Some(buckets) = self.scopes.get_mut(&scope) else { return };
        let take = |bucket: &mut Vec<u32>| {
            if let Some(place) = bucket.iter().position(|other| *other == id) {
                bucket.swap_remove(place);
            }
            bucket.is_empty()
        };
        match selector.anchor() {
            Anchor::OneOf(labels) => {
                for label in labels {
                    if buckets.by_label.get_mut(label).is_some_and(take) {
                        buckets.by_label.remove(label);
                    }
                }
            }
            Anchor::Has(key) => {
                if buckets.by_key.get_mut(&key).is_some_and(take) {
                    buckets.by_key.remove(&key);
                }
            }
            Anchor::Nothing => drop(take(&mut buckets.always)),
        }
        if buckets.by_label.is_empty() && buckets.by_key.is_empty() && buckets.always.is_empty() {
            self.scopes.remove(&scope);
        }
    }

    /// Calls `candidate` with every selector of the scope that may match an object with these labels, at most once.
    pub(crate) fn each(&self, scope: Scope, labels: &[LabelId], index: &LabelIndex, mut candidate: impl FnMut(u32)) {
        let Some(buckets) = self.scopes.get(&scope) else { return };
        buckets.always.iter().for_each(|id| candidate(*id));
        for label in labels {
            // an object has at most one label of a key, so it meets each bucket and each selector once
            if !buckets.by_label.is_empty() {
                buckets.by_label.get(label).into_iter().flatten().for_each(|id| candidate(*id));
            }
            if !buckets.by_key.is_empty() {
                buckets.by_key.get(&index.key_of(*label)).into_iter().flatten().for_each(|id| candidate(*id));
            }
        }
    }
}
