//! Maps whose use is counted where a program is built for that: [`Counted`]. Of the real programs it leaves nothing.
//!
//! Arrays are not counted: a look-up in one is an addition.

use aya_ebpf::maps::{HashMap, LpmTrie, LruHashMap, RingBuf, lpm_trie::Key, ring_buf::RingBufEntry};

use crate::note;

/// What is counted; `e2e` knows the order.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Operation {
    /// In a hash, LRU or not.
    LookUp,
    /// Into an LRU hash.
    Insertion,
    /// From an LRU hash.
    Removal,
    /// In an LPM trie.
    TrieLookUp,
    /// A reservation in the ring buffer.
    Event,
}

/// A map.
#[repr(transparent)]
pub(crate) struct Counted<M>(pub(crate) M);

impl<K, V> Counted<HashMap<K, V>> {
    #[inline(always)]
    pub(crate) fn get_ptr(&self, key: &K) -> Option<*const V> {
        note(Operation::LookUp);
        self.0.get_ptr(key)
    }
}

impl<K, V> Counted<LruHashMap<K, V>> {
    #[inline(always)]
    pub(crate) fn get_ptr(&self, key: &K) -> Option<*const V> {
        note(Operation::LookUp);
        self.0.get_ptr(key)
    }

    #[inline(always)]
    pub(crate) fn get_ptr_mut(&self, key: &K) -> Option<*mut V> {
        note(Operation::LookUp);
        self.0.get_ptr_mut(key)
    }

    /// False if there was no room.
    #[inline(always)]
    pub(crate) fn insert(&self, key: &K, value: &V) -> bool {
        note(Operation::Insertion);
        self.0.insert(key, value, 0).is_ok()
    }

    /// False if there was none.
    #[inline(always)]
    pub(crate) fn remove(&self, key: &K) -> bool {
        note(Operation::Removal);
        self.0.remove(key).is_ok()
    }
}

impl<K, V> Counted<LpmTrie<K, V>> {
    #[inline(always)]
    pub(crate) fn get(&self, key: &Key<K>) -> Option<&V> {
        note(Operation::TrieLookUp);
        self.0.get(key)
    }
}

impl Counted<RingBuf> {
    #[inline(always)]
    pub(crate) fn reserve<T: 'static>(&self) -> Option<RingBufEntry<T>> {
        note(Operation::Event);
        self.0.reserve(0)
    }
}
