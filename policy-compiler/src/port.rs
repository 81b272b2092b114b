//! Sets of ports, and their atoms: [`PortSpace`] is what a rule opens, [`atoms`] cuts the space of protocols and ports so
//! that no set divides a piece.

use rustc_hash::FxHashMap;

use crate::{content_id::ContentHasher, model::Protocol};

/// Consecutive ports of a protocol, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortRange {
    pub(crate) protocol: Protocol,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct PortSpace {
    /// Everything, portless protocols included; `ranges` is empty then.
    all: bool,
    /// Sorted, disjoint and not adjacent once [`Self::normalise`] has run.
    ranges: Vec<PortRange>,
}

impl PortSpace {
    pub(crate) fn add_all(&mut self) {
        self.all = true;
        self.ranges.clear();
    }

    pub(crate) fn add(&mut self, range: PortRange) {
        if !self.all {
            self.ranges.push(range);
        }
    }

    pub(crate) fn add_space(&mut self, other: &Self) {
        if other.all {
            self.add_all();
        } else if !self.all {
            self.ranges.extend_from_slice(&other.ranges);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.all && self.ranges.is_empty()
    }

    pub(crate) fn is_all(&self) -> bool {
        self.all
    }

    /// Gives equal sets equal form.
    pub(crate) fn normalise(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, range| {
            let joins = next.protocol == range.protocol && u32::from(next.first) <= u32::from(range.last) + 1;
            if joins {
                range.last = range.last.max(next.last);
            }
            joins
        });
    }

    /// Whether `other` is a subset; both are normalised.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let covered = |range: &PortRange| {
            let after = self.ranges.partition_point(|own| (own.protocol, own.first) <= (range.protocol, range.first));
            after > 0 && self.ranges[after - 1].protocol == range.protocol && self.ranges[after - 1].last >= range.last
        };
        self.all || (!other.all && other.ranges.iter().all(covered))
    }

    pub(crate) fn describe(&self, hasher: &mut ContentHasher) {
        hasher.number(u64::from(self.all));
        hasher.number(self.ranges.len() as u64);
        for range in &self.ranges {
            hasher.bytes(&[range.protocol.number()]);
            hasher.number(u64::from(range.first) << 16 | u64::from(range.last));
        }
    }
}

/// Ports that the same sets contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) range: PortRange,
    /// From 1.
    pub(crate) class: u32,
}

/// What [`atoms`] answers.
#[derive(Debug, Default)]
pub(crate) struct Atoms {
    /// The number of port classes, class 0 ('no set names it') included.
    pub(crate) classes: u32,
    /// Sorted; ports between them are of class 0.
    pub(crate) intervals: Vec<Interval>,
    /// Per set, the classes it contains; sets that contain everything are left empty.
    pub(crate) classes_of: Vec<Vec<u32>>,
}

/// Cuts the space along the borders of normalised sets. Classes are numbered in the order of their first port.
pub(crate) fn atoms(spaces: &[&PortSpace]) -> Atoms {
    let mut borders: Vec<(Protocol, u32, usize)> = Vec::new();
    for (set, space) in spaces.iter().enumerate() {
        for range in &space.ranges {
            borders.push((range.protocol, u32::from(range.first), set));
            borders.push((range.protocol, u32::from(range.last) + 1, set));
        }
    }
    borders.sort_unstable();

    let mut atoms = Atoms { classes: 1, intervals: Vec::new(), classes_of: vec![Vec::new(); spaces.len()] };
    let mut numbers: FxHashMap<Vec<usize>, u32> = FxHashMap::default();
    let mut inside: Vec<usize> = Vec::new();
    for (at, &(protocol, port, set)) in borders.iter().enumerate() {
        match inside.binary_search(&set) {
            Ok(place) => drop(inside.remove(place)),
            Err(place) => inside.insert(place, set),
        }
        let Some(&(next_protocol, next_port, _)) = borders.get(at + 1) else { break };
        if inside.is_empty() || (next_protocol, next_port) == (protocol, port) {
            continue;
        }
        let class = *numbers.entry(inside.clone()).or_insert_with(|| {
            for &set in &inside {
                atoms.classes_of[set].push(atoms.classes);
            }
            atoms.classes += 1;
            atoms.classes - 1
        });
        let number = |port: u32| u16::try_from(port).expect("a set is open until its last port, which is a u16");
        let range = PortRange { protocol, first: number(port), last: number(next_port - 1) };
        atoms.intervals.push(Interval { range, class });
    }
    atoms
}

/// An aligned block of ports: `bits` leading bits of `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortPrefix {
    pub(crate) protocol: Protocol,
    pub(crate) first: u16,
    pub(crate) bits: u32,
}

/// The fewest aligned blocks that make up a range.
pub(crate) fn prefixes(range: PortRange) -> Vec<PortPrefix> {
    let mut prefixes = Vec::new();
    let (mut first, last) = (u32::from(range.first), u32::from(range.last));
    while first <= last {
        let mut size_bits = first.trailing_zeros().min(16);
        while first + (1 << size_bits) - 1 > last {
            size_bits -= 1;
        }
        prefixes.push(PortPrefix {
            protocol: range.protocol,
            first: u16::try_from(first).expect("not past the range's last port, which is a u16"),
            bits: 16 - size_bits,
        });
        first += 1 << size_bits;
    }
    prefixes
}

/// Intervals as two kinds of entries: single ports, and ranges, which may run across single ports because those are
/// looked up first.
pub(crate) fn singles_and_ranges(intervals: &[Interval]) -> (Vec<Interval>, Vec<Interval>) {
    let (mut singles, mut ranges) = (Vec::new(), Vec::<Interval>::new());
    // up to where the last range goes on without a gap
    let mut reach: Option<(Protocol, u32)> = None;
    for interval in intervals {
        let PortRange { protocol, first, last } = interval.range;
        let adjacent = reach == Some((protocol, u32::from(first)));
        if first == last {
            singles.push(*interval);
            if !adjacent {
                continue;
            }
        } else {
            match ranges.last_mut() {
                Some(open) if adjacent && open.class == interval.class => open.range.last = last,
                _ => ranges.push(*interval),
            }
        }
        reach = Some((protocol, u32::from(last) + 1));
    }
    (singles, ranges)
}

#[cfg(test)]
mod tests;
