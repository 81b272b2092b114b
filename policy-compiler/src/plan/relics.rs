//! What a change that was cut short has left in the maps, and what of it has to go before the next one: [`clear`].
//! Nothing here changes a verdict.

use std::{borrow::Cow, collections::BTreeSet};

use enforcer_abi::{ClassId, FrontEndKey, Op, PeerFlags, PeerValue, RowKey, RowValue};

use super::{delta::Side, each_difference, side::ContentsSide};
use crate::{content_id::ContentHasher, contents::Contents};

/// Old contents in which what shows is what ids stand for in `new`, and what doesn't show isn't there or is rewritten
/// anyway; with the writes that lead there.
pub(super) fn clear<'a>(old: &'a Contents, new: &Contents) -> (Cow<'a, Contents>, Vec<Op>) {
    let mut cleared = Cleared { contents: Cow::Borrowed(old), ops: Vec::new() };
    for class in classes_of_two_minds(old, new) {
        cleared.rename(class, new);
    }
    for key in unseen_front_ends(old) {
        cleared.write(Op::DeleteFrontEnd(key));
    }
    let leftovers = leftovers(&ContentsSide::new(&cleared.contents), new);
    cleared.ops.extend(leftovers);
    (cleared.contents, cleared.ops)
}

struct Cleared<'a> {
    contents: Cow<'a, Contents>,
    ops: Vec<Op>,
}

impl Cleared<'_> {
    fn write(&mut self, op: Op) {
        self.contents.to_mut().apply(&op);
        self.ops.push(op);
    }

    /// Gives everything of a class another one, in which all tables see the same.
    fn rename(&mut self, class: ClassId, new: &Contents) {
        let (before, after) = (ContentsSide::new(&self.contents), ContentsSide::new(new));
        let mut hasher = ContentHasher::new("relic");
        hasher.number(class);
        let other = hasher.first_id(|id| before.has_class(id) || after.has_class(id));
        let rows = &self.contents.rows;
        let stale = rows.keys().filter(|key| key.class == other).map(|key| Op::DeleteRow(*key));
        let rows = rows.values().filter(|row| before.shows(&row.key) && row.key.class == class);
        let rows = rows.map(|row| Op::PutRow(RowValue { key: RowKey { class: other, ..row.key }, ..*row }));
        let peers = self.contents.peers.values().filter(|peer| peer.class == class);
        let peers = peers.map(|peer| Op::PutPeer(PeerValue { class: other, ..*peer }));
        let blocks = self.contents.blocks.iter().filter(|(_, of_block)| **of_block == class);
        let blocks = blocks.map(|(key, _)| Op::PutBlock(*key, other));
        let ops: Vec<Op> = stale.chain(rows).chain(peers).chain(blocks).collect();
        ops.into_iter().for_each(|op| self.write(op));
    }
}

/// Classes that a table sees otherwise than it will. A row is what its table and class stand for, unless it was lent to
/// a class on its way to or from a table that was about to go or had just come.
fn classes_of_two_minds(old: &Contents, new: &Contents) -> BTreeSet<ClassId> {
    let (before, after) = (ContentsSide::new(old), ContentsSide::new(new));
    let mut classes = BTreeSet::new();
    each_difference(&old.rows, &new.rows, |key, _, _| {
        if before.shows(key) && after.shows(key) {
            classes.insert(key.class);
        }
    });
    classes
}

/// Front ends of addresses whose entries don't say that they have any: written for entries that never came, they would
/// show as soon as another change gave those addresses front ends.
fn unseen_front_ends(contents: &Contents) -> Vec<FrontEndKey> {
    let is_seen = |key: &FrontEndKey| {
        key.address == key.address.node_port()
            || contents.peers.get(&key.address).is_some_and(|peer| peer.flags & PeerFlags::FRONT_END != 0)
    };
    contents.front_ends.keys().filter(|key| !is_seen(key)).copied().collect()
}

/// What no pod sees now and nothing needs later.
fn leftovers(old: &ContentsSide<'_>, new: &Contents) -> Vec<Op> {
    let mut ops = Vec::new();
    let contents = old.contents();
    let rows = contents.rows.keys().filter(|key| !old.shows(key) && !new.rows.contains_key(key));
    ops.extend(rows.map(|key| Op::DeleteRow(*key)));
    let front_ends = contents.front_ends.keys();
    let front_ends = front_ends.filter(|key| !old.has_table(key.table) && !new.front_ends.contains_key(key));
    ops.extend(front_ends.map(|key| Op::DeleteFrontEnd(*key)));
    ops
}
