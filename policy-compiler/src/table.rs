//! A table: what one direction of a pod is judged by. [`TableRules`] is its content, in a form that depends on meaning
//! alone; [`Table`] is that content as port classes and bits. Precedence is settled here: tiers, priorities and actions
//! go in, one bit for each peer class and port class comes out.

use std::collections::BTreeMap;

use enforcer_abi::{
    CHUNK_BITS, ClassId, Direction, Openness, PortKey, PortRangeKey, PortValue, RowKey, RowValue, TableId,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::{
    change::TableUse,
    class::PeerId,
    content_id::ContentHasher,
    model::{Action, Protocol, Tier},
    port::{self, Interval, PortSpace},
};

/// Bit `n` is port class `n`; whole chunks.
pub(crate) type Bits = SmallVec<[u64; 2]>;

/// The content of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRules {
    pub(crate) direction: Direction,
    /// Some policy of [`Tier::NetworkPolicy`] is about the pod, so what none of that tier allows is refused.
    pub(crate) isolated: bool,
    /// In the order in which they are weighed; those next to each other differ in tier or action.
    layers: Vec<Layer>,
}

/// Rules whose order among themselves does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    tier: Tier,
    action: Action,
    everybody: PortSpace,
    peers: BTreeMap<PeerId, PortSpace>,
}

impl TableRules {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, isolated: false, layers: Vec::new() }
    }

    /// Adds rules; to be called in the order in which rules are weighed. A [`Tier::NetworkPolicy`] only allows: what
    /// does anything else there opens nothing.
    pub(crate) fn add(&mut self, tier: Tier, action: Action, who: Option<PeerId>, ports: &PortSpace) {
        if ports.is_empty() || (tier == Tier::NetworkPolicy && action != Action::Allow) {
            return;
        }
        if self.layers.last().is_none_or(|layer| (layer.tier, layer.action) != (tier, action)) {
            self.layers.push(Layer { tier, action, everybody: PortSpace::default(), peers: BTreeMap::new() });
        }
        let layer = self.layers.last_mut().expect("one was pushed if there was none");
        match who {
            None => layer.everybody.add_space(ports),
            Some(peer) => layer.peers.entry(peer).or_default().add_space(ports),
        }
    }

    /// Gives equal meanings equal form, as far as that is cheap.
    pub(crate) fn normalise(&mut self) {
        for layer in &mut self.layers {
            layer.everybody.normalise();
            layer.peers.retain(|_, ports| {
                ports.normalise();
                !layer.everybody.covers(ports)
            });
        }
    }

    /// All peers that it asks about.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.layers.iter().flat_map(|layer| layer.peers.keys().copied())
    }

    fn describe(&self) -> ContentHasher {
        let mut hasher = ContentHasher::new("table");
        hasher.bytes(&[self.direction as u8, u8::from(self.isolated)]);
        hasher.number(self.layers.len() as u64);
        for layer in &self.layers {
            hasher.bytes(&[layer.tier as u8, layer.action as u8]);
            layer.everybody.describe(&mut hasher);
            hasher.number(layer.peers.len() as u64);
            for (peer, ports) in &layer.peers {
                hasher.number(*peer);
                ports.describe(&mut hasher);
            }
        }
        hasher
    }

    /// The id of this content.
    pub(crate) fn id(&self, other_content_has: impl Fn(TableId) -> bool) -> TableId {
        self.describe().first_id(other_content_has)
    }
}

/// What one peer class may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) bits: Bits,
    pub(crate) open: Openness,
}

impl Row {
    /// Whether everything that `other` opens is open here, too; both are of one table.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.bits.iter().zip(&other.bits).all(|(own, other)| own & other == *other)
    }

    /// As values of the map.
    pub(crate) fn values(&self, table: TableId, class: ClassId) -> impl Iterator<Item = RowValue> {
        self.bits.chunks(2).zip(0..).map(move |(words, chunk)| RowValue {
            key: RowKey { table, class, chunk, reserved: 0 },
            bits: [words[0], words[1]],
            open: self.open.0,
            reserved: [0; 7],
        })
    }
}

/// A table as bits.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) rules: TableRules,
    /// Sorted, without duplicates.
    pub(crate) peers: Vec<PeerId>,
    layers: Vec<LayerBits>,
    /// What peers without a row may reach.
    pub(crate) everybody: Row,
    singles: Vec<Interval>,
    ranges: Vec<Interval>,
    /// By [`Protocol`]: the classes of its ports.
    classes_of_protocol: [Bits; 3],
    words: usize,
}

#[derive(Debug)]
struct LayerBits {
    tier: Tier,
    action: Action,
    everybody: Bits,
    peers: FxHashMap<PeerId, Bits>,
}

impl Table {
    /// Compiles normalised rules.
    pub(crate) fn new(id: TableId, rules: TableRules) -> Self {
        let spaces: Vec<&PortSpace> = rules
            .layers
            .iter()
            .flat_map(|layer| std::iter::once(&layer.everybody).chain(layer.peers.values()))
            .collect();
        let atoms = port::atoms(&spaces);
        let words = atoms.classes.div_ceil(CHUNK_BITS) as usize * 2;
        let mut bits = spaces
            .iter()
            .zip(&atoms.classes_of)
            .map(|(space, classes)| if space.is_all() { ones(words, atoms.classes) } else { bits_of(words, classes) });
        let mut next_bits = || bits.next().expect("as many as there are spaces");
        let layers = rules
            .layers
            .iter()
            .map(|layer| LayerBits {
                tier: layer.tier,
                action: layer.action,
                everybody: next_bits(),
                peers: layer.peers.keys().map(|peer| (*peer, next_bits())).collect(),
            })
            .collect();
        let mut peers: Vec<PeerId> = rules.peers().collect();
        peers.sort_unstable();
        peers.dedup();
        let (singles, ranges) = port::singles_and_ranges(&atoms.intervals);
        let classes_of_protocol = Protocol::ALL.map(|protocol| classes_of_protocol(words, protocol, &atoms.intervals));
        let nothing = Row { bits: Bits::new(), open: Openness::default() };
        let mut table =
            Self { id, rules, peers, layers, everybody: nothing, singles, ranges, classes_of_protocol, words };
        table.everybody = table.weigh(&[]);
        table
    }

    pub(crate) fn table_use(&self) -> TableUse {
        TableUse { id: self.id, everybody: self.everybody.open, ranges: !self.ranges.is_empty() }
    }

    /// The row of the class of these peers (sorted); `None` if the table asks about none of them.
    pub(crate) fn row(&self, class: &[PeerId]) -> Option<Row> {
        let known = |own: &[PeerId], other: &[PeerId]| -> SmallVec<[PeerId; 8]> {
            own.iter().copied().filter(|peer| other.binary_search(peer).is_ok()).collect()
        };
        let peers = if class.len() < self.peers.len() { known(class, &self.peers) } else { known(&self.peers, class) };
        (!peers.is_empty()).then(|| self.weigh(&peers))
    }

    /// The ordered evaluation: a port class is decided by the first layer that matches it, a pass leaves it to the next
    /// tier, and what no tier decides is open unless a NetworkPolicy isolates.
    fn weigh(&self, peers: &[PeerId]) -> Row {
        let words = self.words;
        let mut open: Bits = SmallVec::from_elem(0, words);
        let mut undecided: Bits = SmallVec::from_elem(!0, words);
        let mut passed: Bits = SmallVec::from_elem(0, words);
        let mut layers = self.layers.iter().peekable();
        for tier in [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline] {
            while let Some(layer) = layers.next_if(|layer| layer.tier == tier) {
                let hits = peers.iter().filter_map(|peer| layer.peers.get(peer));
                for word in 0..words {
                    let hit = hits.clone().fold(layer.everybody[word], |hit, bits| hit | bits[word]) & undecided[word];
                    match layer.action {
                        Action::Allow => open[word] |= hit,
                        Action::Deny => {}
                        Action::Pass => passed[word] |= hit,
                    }
                    undecided[word] &= !hit;
                }
            }
            for word in 0..words {
                undecided[word] |= std::mem::take(&mut passed[word]);
                if tier == Tier::NetworkPolicy && self.rules.isolated {
                    undecided[word] = 0;
                }
            }
        }
        let classes = &self.classes_of_protocol;
        for word in 0..words {
            let existing = classes.iter().fold(u64::from(word == 0), |existing, bits| existing | bits[word]);
            open[word] = (open[word] | undecided[word]) & existing;
        }
        let openness = self.openness(&open);
        Row { bits: open, open: openness }
    }

    fn openness(&self, open: &Bits) -> Openness {
        let mut bits = if open[0] & 1 == 1 { Openness::UNNAMED } else { 0 };
        for (protocol, classes) in Protocol::ALL.iter().zip(&self.classes_of_protocol) {
            if classes.iter().zip(open).all(|(classes, open)| classes & open == *classes) {
                bits |= Openness::all_ports_bit(protocol.number());
            }
        }
        Openness(bits)
    }

    /// `PORTS`.
    pub(crate) fn ports(&self) -> impl Iterator<Item = PortValue> {
        self.singles.iter().map(|single| self.port_value(single.range.protocol, single.range.first, single.class))
    }

    /// `PORT_RANGES`.
    pub(crate) fn port_ranges(&self) -> impl Iterator<Item = (PortRangeKey, PortValue)> {
        self.ranges.iter().flat_map(move |range| {
            port::prefixes(range.range).into_iter().map(move |prefix| {
                let key = PortRangeKey::new(self.id, prefix.protocol.number(), prefix.first, prefix.bits);
                (key, self.port_value(prefix.protocol, prefix.first, range.class))
            })
        })
    }

    fn port_value(&self, protocol: Protocol, port: u16, class: u32) -> PortValue {
        PortValue {
            key: PortKey { table: self.id, port, protocol: protocol.number(), reserved: [0; 5] },
            class,
            everybody: u32::from(is_set(&self.everybody.bits, class)),
        }
    }

    /// The longest prefix of `PORT_RANGES` that has a port.
    pub(crate) fn port_range(&self, protocol: Protocol, port: u16) -> Option<PortValue> {
        let after = self.ranges.partition_point(|i| (i.range.protocol, i.range.first) <= (protocol, port));
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (range.range.protocol == protocol && port <= range.range.last)
            .then(|| self.port_value(protocol, port, range.class))
    }

    /// The class of a port.
    pub(crate) fn port_class(&self, protocol: Protocol, port: u16) -> u32 {
        let single = self.singles.binary_search_by_key(&(protocol, port), |i| (i.range.protocol, i.range.first));
        match single {
            Ok(place) => self.singles[place].class,
            Err(_) => self.port_range(protocol, port).map_or(0, |value| value.class),
        }
    }

    /// The number of words of a row.
    pub(crate) fn row_words(&self) -> usize {
        self.words
    }
}

/// Whether port class `class` is open.
pub(crate) fn is_set(bits: &Bits, class: u32) -> bool {
    bits[class as usize / 64] >> (class % 64) & 1 == 1
}

fn bits_of(words: usize, classes: &[u32]) -> Bits {
    let mut bits: Bits = SmallVec::from_elem(0, words);
    for class in classes {
        bits[*class as usize / 64] |= 1 << (class % 64);
    }
    bits
}

fn ones(words: usize, classes: u32) -> Bits {
    bits_of(words, &(0..classes).collect::<Vec<_>>())
}

/// The classes of the ports of a protocol, class 0 among them unless all ports have others.
fn classes_of_protocol(words: usize, protocol: Protocol, intervals: &[Interval]) -> Bits {
    let of_protocol = intervals.iter().filter(|interval| interval.range.protocol == protocol);
    let mut classes: Vec<u32> = of_protocol.clone().map(|interval| interval.class).collect();
    let named: u32 = of_protocol.map(|interval| u32::from(interval.range.last - interval.range.first) + 1).sum();
    if named < 1 << 16 {
        classes.push(0);
    }
    bits_of(words, &classes)
}

#[cfg(test)]
mod tests;
