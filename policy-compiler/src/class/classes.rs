//! The classes that something is mapped to, and the peers that tables ask about, each knowing the other.

use enforcer_abi::{ClassId, EVERYBODY, TableId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{PeerDef, PeerId, class_id};

/// All classes. A class stays until [`Classes::collect`] after its last holder has let go, so that the end of a batch
/// can still speak of what was before.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    classes: FxHashMap<ClassId, Class>,
    /// Whose counts have changed in this batch.
    changed: Vec<ClassId>,
}

#[derive(Debug)]
pub(crate) struct Class {
    /// Sorted.
    pub(crate) members: Box<[PeerId]>,
    holders: u32,
    /// Entries of `PEERS` and `BLOCKS` that have it.
    sent: u32,
    /// `sent` when the batch began, if it has changed since.
    sent_before: Option<u32>,
    changed: bool,
}

impl Classes {
    /// Holds the class of these peers, which are sorted.
    pub(crate) fn hold(&mut self, members: &[PeerId], peers: &mut Peers) -> ClassId {
        let id = class_id(members, |id| self.classes.get(&id).is_some_and(|class| *class.members != *members));
        if id == EVERYBODY {
            return id;
        }
        let class = self.classes.entry(id).or_insert_with(|| {
            for member in members {
                peers.entries.entry(*member).or_default().classes.insert(id);
            }
            Class { members: members.into(), holders: 0, sent: 0, sent_before: None, changed: false }
        });
        class.holders += 1;
        id
    }

    pub(crate) fn hold_again(&mut self, id: ClassId) {
        if let Some(class) = self.classes.get_mut(&id) {
            class.holders += 1;
        }
    }

    pub(crate) fn release(&mut self, id: ClassId) {
        if let Some(class) = self.classes.get_mut(&id) {
            class.holders -= 1;
            if class.holders == 0 && !class.changed {
                class.changed = true;
                self.changed.push(id);
            }
        }
    }

    /// An entry of `PEERS` or `BLOCKS` changes.
    pub(crate) fn resend(&mut self, old: Option<ClassId>, new: Option<ClassId>) {
        let mut count = |id: ClassId, more: bool| {
            let Some(class) = self.classes.get_mut(&id) else { return };
            class.sent_before.get_or_insert(class.sent);
            if more {
                class.sent += 1;
            } else {
                class.sent -= 1;
            }
            if !class.changed {
                class.changed = true;
                self.changed.push(id);
            }
        };
        if let Some(new) = new {
            count(new, true);
        }
        if let Some(old) = old {
            count(old, false);
        }
    }

    /// The peers of a class that is held; none for [`EVERYBODY`].
    pub(crate) fn members(&self, id: ClassId) -> &[PeerId] {
        self.classes.get(&id).map_or(&[], |class| &class.members)
    }

    /// Whether an entry has it.
    pub(crate) fn is_sent(&self, id: ClassId) -> bool {
        id == EVERYBODY || self.classes.get(&id).is_some_and(|class| class.sent > 0)
    }

    /// Whether an entry had it when the batch began.
    pub(crate) fn was_sent(&self, id: ClassId) -> bool {
        id == EVERYBODY || self.classes.get(&id).is_some_and(|class| class.sent_before.unwrap_or(class.sent) > 0)
    }

    /// The classes that entries have now and had not when the batch began, and the other way round.
    pub(crate) fn appeared_and_vanished(&self) -> (Vec<ClassId>, Vec<ClassId>) {
        let (mut appeared, mut vanished) = (Vec::new(), Vec::new());
        for &id in &self.changed {
            match (self.was_sent(id), self.is_sent(id)) {
                (false, true) => appeared.push(id),
                (true, false) => vanished.push(id),
                _ => {}
            }
        }
        (appeared, vanished)
    }

    /// All classes that entries have.
    pub(crate) fn sent(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        self.classes.iter().filter(|(_, class)| class.sent > 0).map(|(id, class)| (*id, class))
    }

    /// Ends the batch: forgets what was before, and what nobody holds.
    pub(crate) fn collect(&mut self, peers: &mut Peers) {
        for id in self.changed.drain(..) {
            let Some(class) = self.classes.get_mut(&id) else { continue };
            class.sent_before = None;
            class.changed = false;
            if class.holders == 0
                && let Some(class) = self.classes.remove(&id)
            {
                for member in &class.members {
                    if let Some(peer) = peers.entries.get_mut(member) {
                        peer.classes.remove(&id);
                        peers.changed.push(*member);
                    }
                }
            }
        }
    }
}

/// All peers that are asked about.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    entries: FxHashMap<PeerId, PeerEntry>,
    /// Whose users have changed in this batch.
    changed: Vec<PeerId>,
}

#[derive(Debug, Default)]
struct PeerEntry {
    def: Option<PeerDef>,
    holders: u32,
    /// The tables that ask about it.
    tables: Vec<TableId>,
    /// The classes that have it.
    classes: FxHashSet<ClassId>,
    /// Whether addresses are matched against it.
    active: bool,
}

/// A peer that starts or ceases to matter.
pub(crate) enum Turn {
    On(PeerId, PeerDef),
    Off(PeerId, PeerDef),
}

impl Peers {
    /// Holds a peer.
    pub(crate) fn hold(&mut self, def: &PeerDef) -> PeerId {
        let other = |entry: &PeerEntry| entry.def.as_ref().is_some_and(|other| other != def);
        let id = def.describe().first_id(|id| self.entries.get(&id).is_some_and(other));
        let entry = self.entries.entry(id).or_default();
        entry.def.get_or_insert_with(|| def.clone());
        entry.holders += 1;
        id
    }

    pub(crate) fn release(&mut self, id: PeerId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.holders -= 1;
            self.changed.push(id);
        }
    }

    /// A table that asks about a held peer comes.
    pub(crate) fn add_table(&mut self, id: PeerId, table: TableId) {
        let entry = self.entries.entry(id).or_default();
        entry.holders += 1;
        entry.tables.push(table);
        self.changed.push(id);
    }

    /// A table goes.
    pub(crate) fn remove_table(&mut self, id: PeerId, table: TableId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.tables.retain(|other| *other != table);
        }
        self.release(id);
    }

    /// The peers that tables have begun or ceased to ask about since the last call.
    pub(crate) fn turns(&mut self) -> Vec<Turn> {
        let mut turns = Vec::new();
        for id in &self.changed {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let Some(def) = &entry.def else { continue };
            if entry.tables.is_empty() == entry.active {
                entry.active = !entry.active;
                turns.push(if entry.active { Turn::On(*id, def.clone()) } else { Turn::Off(*id, def.clone()) });
            }
        }
        turns
    }

    /// The tables that ask about any of these.
    pub(crate) fn tables<'a>(&self, members: impl IntoIterator<Item = &'a PeerId>) -> Vec<TableId> {
        let mut tables: Vec<TableId> = members
            .into_iter()
            .filter_map(|id| self.entries.get(id))
            .flat_map(|entry| entry.tables.iter().copied())
            .collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// The classes that have any of these.
    pub(crate) fn classes(&self, members: &[PeerId]) -> Vec<ClassId> {
        let mut classes: Vec<ClassId> = members
            .iter()
            .filter_map(|id| self.entries.get(id))
            .flat_map(|entry| entry.classes.iter().copied())
            .collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// Ends the batch: forgets what nobody holds.
    pub(crate) fn collect(&mut self) {
        for id in self.changed.drain(..) {
            if self.entries.get(&id).is_some_and(|entry| entry.holders == 0 && entry.classes.is_empty()) {
                self.entries.remove(&id);
            }
        }
    }
}
