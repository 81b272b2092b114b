//! Labels as numbers, and who has them as bitmaps. One index holds the labels of one kind of object (namespaces, or
//! pods), whose members are numbers, too.

use std::sync::Arc;

use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::slab::Slab;
use crate::model::Labels;

/// A key with a value.
pub(crate) type LabelId = u32;
/// A key.
pub(crate) type KeyId = u32;
/// Labels of one object, sorted.
pub(crate) type LabelIds = SmallVec<[LabelId; 16]>;

#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    keys: Slab<Key>,
    key_ids: FxHashMap<Arc<str>, KeyId>,
    labels: Slab<Label>,
}

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    /// Its labels, and selectors that ask for the key alone.
    holders: u32,
    values: FxHashMap<Arc<str>, LabelId>,
    members: RoaringBitmap,
}

#[derive(Debug)]
struct Label {
    key: KeyId,
    value: Arc<str>,
    holders: u32,
    members: RoaringBitmap,
}

impl LabelIndex {
    /// The numbers of labels all of which somebody holds.
    pub(crate) fn find(&self, labels: &Labels) -> Option<LabelIds> {
        let mut ids: LabelIds = labels
            .iter()
            .map(|(key, value)| self.keys[*self.key_ids.get(key)?].values.get(value).copied())
            .collect::<Option<_>>()?;
        ids.sort_unstable();
        Some(ids)
    }

    /// Holds all of an object's labels.
    pub(crate) fn hold_all(&mut self, labels: &Labels) -> LabelIds {
        let mut ids: LabelIds = labels.iter().map(|(key, value)| self.hold(key, value)).collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn hold(&mut self, key: &Arc<str>, value: &Arc<str>) -> LabelId {
        let key_id = self.hold_key(key);
        if let Some(&id) = self.keys[key_id].values.get(value) {
            self.labels[id].holders += 1;
            // the label itself holds its key already
            self.release_key(key_id);
            return id;
        }
        let label = Label { key: key_id, value: value.clone(), holders: 1, members: RoaringBitmap::new() };
        let id = self.labels.insert(label);
        self.keys[key_id].values.insert(value.clone(), id);
        id
    }

    pub(crate) fn hold_key(&mut self, key: &Arc<str>) -> KeyId {
        if let Some(&id) = self.key_ids.get(key) {
            self.keys[id].holders += 1;
            return id;
        }
        let (values, members) = (FxHashMap::default(), RoaringBitmap::new());
        let id = self.keys.insert(Key { name: key.clone(), holders: 1, values, members });
        self.key_ids.insert(key.clone(), id);
        id
    }

    pub(crate) fn release(&mut self, id: LabelId) {
        self.labels[id].holders -= 1;
        if self.labels[id].holders == 0
            && let Some(label) = self.labels.remove(id)
        {
            self.keys[label.key].values.remove(&label.value);
            self.release_key(label.key);
        }
    }

    pub(crate) fn release_key(&mut self, id: KeyId) {
        self.keys[id].holders -= 1;
        if self.keys[id].holders == 0
            && let Some(key) = self.keys.remove(id)
        {
            self.key_ids.remove(&key.name);
        }
    }

    /// `member` has these labels.
    pub(crate) fn add_member(&mut self, labels: &[LabelId], member: u32) {
        for &label in labels {
            let label = &mut self.labels[label];
            label.members.insert(member);
            self.keys[label.key].members.insert(member);
        }
    }

    /// `member` has these labels no more.
    pub(crate) fn remove_member(&mut self, labels: &[LabelId], member: u32) {
        for &label in labels {
            let label = &mut self.labels[label];
            label.members.remove(member);
            self.keys[label.key].members.remove(member);
        }
    }

    /// The labels of these numbers.
    pub(crate) fn texts(&self, labels: &[LabelId]) -> Labels {
        let text = |label: &LabelId| {
            let label = &self.labels[*label];
            (self.keys[label.key].name.clone(), label.value.clone())
        };
        labels.iter().map(text).collect()
    }

    pub(crate) fn key_of(&self, label: LabelId) -> KeyId {
        self.labels[label].key
    }

    pub(crate) fn members(&self, label: LabelId) -> &RoaringBitmap {
        &self.labels[label].members
    }

    pub(crate) fn members_of_key(&self, key: KeyId) -> &RoaringBitmap {
        &self.keys[key].members
    }
}
