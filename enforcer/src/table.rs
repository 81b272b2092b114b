//! One map that user space writes, together with the larger one that is being filled to replace it. [`Grow`] is what
//! all of them have in common.

use std::{io, path::Path};

use aya::Pod;

use crate::sys::{Cursor, Map};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The map's name, one of [`enforcer_abi::map`].
    pub map: &'static str,
    /// Entries in use; at most, where the kernel doesn't tell.
    pub used: u32,
    /// Entries that fit in.
    pub max: u32,
}

impl Fill {
    /// Maps grow when three quarters are used.
    pub(crate) fn is_high(self) -> bool {
        u64::from(self.used) * 4 >= u64::from(self.max) * 3
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    name: &'static str,
    map: Map<K, V>,
    next: Option<Successor<K, V>>,
    used: u32,
}

#[derive(Debug)]
struct Successor<K, V> {
    map: Map<K, V>,
    cursor: Cursor<K>,
}

/// A write to a table failed.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// No room in the map.
    Full(Fill),
    /// Written to the map, not to its successor, which therefore must not take over.
    Successor(io::Error),
    /// Anything else, with the map's name.
    Other(&'static str, io::Error),
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Opens a pinned map and counts its entries.
    pub(crate) fn open(name: &'static str, pin: &Path) -> io::Result<Self> {
        let mut table = Self { name, map: Map::open(pin)?, next: None, used: 0 };
        table.recount()?;
        Ok(table)
    }

    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.map.get(key)
    }

    /// Writes an entry, to the successor as well.
    pub(crate) fn put(&mut self, key: &K, value: &V) -> Result<(), WriteError> {
        if self.map.put(key, value).map_err(|error| self.failed(error))? {
            self.used = self.used.saturating_add(1);
        }
        match &self.next {
            Some(next) => next.map.put(key, value).map(drop).map_err(WriteError::Successor),
            None => Ok(()),
        }
    }

    /// Removes an entry, from the successor as well, and says whether it was there.
    pub(crate) fn delete(&mut self, key: &K) -> Result<bool, WriteError> {
        let was_there = self.map.delete(key).map_err(|error| self.failed(error))?;
        if was_there {
            self.used = self.used.saturating_sub(1);
        }
        if let Some(next) = &self.next {
            next.map.delete(key).map_err(WriteError::Successor)?;
        }
        Ok(was_there)
    }

    fn failed(&self, error: io::Error) -> WriteError {
        match error.raw_os_error() {
            // Hashes answer with the one, tries with the other.
            Some(libc::E2BIG | libc::ENOSPC) => WriteError::Full(self.fill()),
            _ => WriteError::Other(self.name, error),
        }
    }

    pub(crate) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        self.map.entries()
    }
}

/// Growth: `begin`, `copy` until it says that it is complete, then `adopt` once every program uses the successor.
pub(crate) trait Grow {
    fn fill(&self) -> Fill;
    /// Counts the entries, because tries don't tell new ones from others everywhere.
    fn recount(&mut self) -> io::Result<()>;
    /// From now on the map pinned at `successor` is written too.
    fn begin(&mut self, successor: &Path) -> io::Result<()>;
    /// Copies about a thousand entries to the successor; true if there is nothing left to copy.
    fn copy(&mut self) -> io::Result<bool>;
    /// The successor takes over.
    fn adopt(&mut self);
    /// The successor is given up.
    fn abandon(&mut self);
}

impl<K: Pod, V: Pod> Grow for Table<K, V> {
    fn fill(&self) -> Fill {
        Fill { map: self.name, used: self.used, max: self.map.max_entries() }
    }

    fn recount(&mut self) -> io::Result<()> {
        self.used = u32::try_from(self.map.entries()?.len()).unwrap_or(u32::MAX);
        Ok(())
    }

    fn begin(&mut self, successor: &Path) -> io::Result<()> {
        self.next = Some(Successor { map: Map::open(successor)?, cursor: Cursor::Start });
        Ok(())
    }

    fn copy(&mut self) -> io::Result<bool> {
        let Some(next) = &mut self.next else { return Ok(true) };
        let mut entries = Vec::new();
        next.cursor = self.map.read(next.cursor, &mut entries)?;
        for (key, value) in &entries {
            next.map.put(key, value)?;
        }
        Ok(matches!(next.cursor, Cursor::End))
    }

    fn adopt(&mut self) {
        if let Some(next) = self.next.take() {
            self.map = next.map;
        }
    }

    fn abandon(&mut self) {
        self.next = None;
    }
}
