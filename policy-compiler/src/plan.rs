//! From one content of the maps to another, make before break. [`plan`] compares two whole contents; the compiler, which
//! knows what an event has changed, comes with the difference itself. Both end in `steps`.

mod delta;
mod relics;
mod side;
mod transition;
mod ways;

use std::{cmp::Ordering, collections::BTreeMap};

use crate::{
    change::Step,
    class::blocks::BlockChange,
    contents::Contents,
    walk::{Lookup, longest_block},
};

pub(crate) use delta::{Delta, PeerChange, PeerEntry, PodChange, Side, TableParts};
pub(crate) use transition::steps;

use side::ContentsSide;

/// The steps from `old` to `new`. Old contents are what was read back from the kernel's maps after a restart: they may
/// hold leftovers of a change that was cut short, which go first.
#[must_use]
pub fn plan(old: &Contents, new: &Contents) -> Vec<Step> {
    let (old, relics) = relics::clear(old, new);
    let old = old.as_ref();
    let (before, after) = (ContentsSide::new(old), ContentsSide::new(new));
    let mut delta = Delta::default();
    compare_addresses(old, new, &mut delta);
    compare_tables(&before, new, &mut delta);
    each_difference(&old.pods, &new.pods, |_, old, new| {
        delta.pods.push(PodChange { old: old.cloned(), new: new.cloned() });
    });
    delta.endpoints_in.extend(new.endpoints.difference(&old.endpoints));
    delta.endpoints_out.extend(old.endpoints.difference(&new.endpoints));
    // what may have been revoked is not looked into: a plan is made once in an agent's life
    delta.revoked.extend(new.pods.keys().filter(|uid| old.pods.contains_key(*uid)).cloned());
    let mut steps = steps(&delta, &before, &after);
    if matches!(steps[..], [Step::RaiseEpoch(_)] | [Step::RaiseEpoch(_), Step::Free(_)]) {
        // no verdict has changed
        steps.remove(0);
    }
    if !relics.is_empty() {
        steps.insert(0, Step::Write(relics));
    }
    steps
}

fn compare_addresses(old: &Contents, new: &Contents, delta: &mut Delta) {
    each_difference(&old.peers, &new.peers, |&address, before, after| {
        let entry = |value: &enforcer_abi::PeerValue| PeerEntry { class: value.class, flags: value.flags };
        let class = |contents: &Contents, entry: Option<PeerEntry>| {
            entry.map(|entry| entry.class).or_else(|| contents.block(address)).unwrap_or(enforcer_abi::EVERYBODY)
        };
        let (before, after) = (before.map(entry), after.map(entry));
        delta.peers.push(PeerChange {
            address,
            old: before,
            new: after,
            old_class: class(old, before),
            new_class: class(new, after),
        });
    });
    each_difference(&old.blocks, &new.blocks, |&key, before, after| {
        let class = |contents: &Contents| {
            longest_block(&contents.blocks, key.address, key.prefix_len).unwrap_or(enforcer_abi::EVERYBODY)
        };
        delta.blocks.push(BlockChange {
            key,
            old: before.copied(),
            new: after.copied(),
            old_class: class(old),
            new_class: class(new),
        });
    });
}

fn compare_tables(old: &ContentsSide<'_>, new: &Contents, delta: &mut Delta) {
    let contents = old.contents();
    each_difference(&contents.rows, &new.rows, |key, _, after| match after {
        Some(row) => delta.rows_in.push(*row),
        None if old.shows(key) => delta.rows_out.push(*key),
        None => {}
    });
    each_difference(&contents.ports, &new.ports, |key, _, after| match after {
        Some(port) => delta.ports_in.push(*port),
        None => delta.ports_out.push(*key),
    });
    each_difference(&contents.port_ranges, &new.port_ranges, |key, _, after| match after {
        Some(port) => delta.port_ranges_in.push((*key, *port)),
        None => delta.port_ranges_out.push(*key),
    });
    each_difference(&contents.front_ends, &new.front_ends, |key, _, after| match after {
        Some(front_end) => delta.front_ends_in.push(*front_end),
        None if old.has_table(key.table) => delta.front_ends_out.push(*key),
        None => {}
    });
}

/// Calls `differs` for every key whose values differ, in order.
fn each_difference<K: Ord, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    mut differs: impl FnMut(&K, Option<&V>, Option<&V>),
) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, _)), Some((new, _))) => old.cmp(new),
        };
        let before = if order == Ordering::Greater { None } else { old.next() };
        let after = if order == Ordering::Less { None } else { new.next() };
        let (before_value, after_value) = (before.map(|(_, value)| value), after.map(|(_, value)| value));
        if before_value != after_value
            && let Some((key, _)) = before.or(after)
        {
            differs(key, before_value, after_value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_come_in_order() {
        let old = BTreeMap::from([(1, 'a'), (2, 'b'), (4, 'd'), (5, 'e')]);
        let new = BTreeMap::from([(2, 'x'), (3, 'c'), (4, 'd'), (6, 'f')]);
        let mut found = Vec::new();
        each_difference(&old, &new, |key, old, new| found.push((*key, old.copied(), new.copied())));
        assert_eq!(
            found,
            [
                (1, Some('a'), None),
                (2, Some('b'), Some('x')),
                (3, None, Some('c')),
                (5, Some('e'), None),
                (6, None, Some('f'))
            ]
        );
    }
}
