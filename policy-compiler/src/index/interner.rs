//! Equal values stored once, under a small number, for as long as somebody holds them.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, Hash},
};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::slab::Slab;

#[derive(Debug)]
pub(crate) struct Interner<T> {
    entries: Slab<Entry<T>>,
    ids: HashTable<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    holders: u32,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { entries: Slab::default(), ids: HashTable::new() }
    }
}

impl<T: Hash + Eq> Interner<T> {
    /// The value's id, if somebody holds it.
    pub(crate) fn find<Q: Hash + Eq + ?Sized>(&self, value: &Q) -> Option<u32>
    where
        T: Borrow<Q>,
    {
        self.ids.find(hash(value), |id| self.entries[*id].value.borrow() == value).copied()
    }

    /// Holds a value; true if nobody held it before.
    pub(crate) fn hold(&mut self, value: T) -> (u32, bool) {
        if let Some(id) = self.find(&value) {
            self.hold_again(id);
            return (id, false);
        }
        let code = hash(&value);
        let id = self.entries.insert(Entry { value, holders: 1 });
        self.ids.insert_unique(code, id, |id| hash(&self.entries[*id].value));
        (id, true)
    }

    /// One more holder of a held value.
    pub(crate) fn hold_again(&mut self, id: u32) {
        self.entries[id].holders += 1;
    }

    /// One holder less; the value if that was the last one.
    pub(crate) fn release(&mut self, id: u32) -> Option<T> {
        let entry = &mut self.entries[id];
        entry.holders -= 1;
        if entry.holders > 0 {
            return None;
        }
        if let Ok(place) = self.ids.find_entry(hash(&self.entries[id].value), |other| *other == id) {
            place.remove();
        }
        self.entries.remove(id).map(|entry| entry.value)
    }

    pub(crate) fn get(&self, id: u32) -> &T {
        &self.entries[id].value
    }
}

fn hash<Q: Hash + ?Sized>(value: &Q) -> u64 {
    FxBuildHasher.hash_one(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_a_value_until_the_last_holder_lets_go() {
        let mut interner = Interner::<String>::default();
        let (a, new) = interner.hold("a".into());
        assert!(new);
        assert_eq!(interner.hold("a".into()), (a, false));
        let (b, _) = interner.hold("b".into());
        assert_ne!(a, b);
        assert_eq!(interner.release(a), None);
        assert_eq!(interner.find("a"), Some(a));
        assert_eq!(interner.release(a), Some("a".into()));
        assert_eq!(interner.find("a"), None);
        assert_eq!(interner.get(b), "b");
        // the number is given out again
        assert_eq!(interner.hold("c".into()), (a, true));
    }
}
