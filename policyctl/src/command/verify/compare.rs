//! Where what is loaded, what is compiled and what was intended part: [`compare`] names the first difference of each pod,
//! down to table, class and port.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::IpAddr,
};

use enforcer_abi::{
    Address, ClassId, FrontEndKey, FrontEndState, FrontEndValue, Openness, PodEntry, PodFlags, PortKey, PortRangeKey,
    PortValue, RowKey, RowValue, TableId,
};
use policy_compiler::{Cluster, Contents, PodTables, TableUse};
use serde::Serialize;

use crate::agent::{CompiledPod, Ports, Tables, of_table};

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Difference {
    /// The pod, as `namespace/name`; without one it is about every pod of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    /// What differs from what was intended: `compiled` or `loaded`.
    pub(crate) of: &'static str,
    /// Where, and how.
    pub(crate) difference: String,
}

/// What is intended, beside what is there.
pub(crate) struct Compared<'a> {
    pub(crate) intended: &'a Contents,
    pub(crate) cluster: &'a Cluster,
    pub(crate) compiled: &'a Tables,
    pub(crate) loaded: &'a Tables,
}

/// The first difference of each pod, in the compiler and in the kernel, and the first that concerns every pod.
pub(crate) fn compare(all: &Compared<'_>) -> BTreeSet<Difference> {
    let names = Names::new(all);
    let mut found = BTreeSet::new();
    let mut add = |pod: Option<&PodTables>, of, difference: Option<String>| {
        let pod = pod.map(|pod| pod.name.to_string());
        found.extend(difference.map(|difference| Difference { pod, of, difference }));
    };
    let compiled: BTreeMap<_, _> = all.compiled.pods.iter().map(|pod| (&pod.tables.uid, pod)).collect();
    for (uid, pod) in &all.intended.pods {
        let Some(there) = compiled.get(uid) else {
            add(Some(pod), "compiled", Some("the agent doesn't know the pod".into()));
            continue;
        };
        add(Some(pod), "compiled", names.pod(pod, &there.tables, &all.compiled.contents, "compiled"));
        add(Some(pod), "loaded", names.entry(pod, there, all.loaded));
    }
    for pod in all.compiled.pods.iter().filter(|pod| !all.intended.pods.contains_key(&pod.tables.uid)) {
        add(Some(&pod.tables), "compiled", Some("the pod is not meant to be there".into()));
    }
    for (of, there) in [("compiled", &all.compiled.contents), ("loaded", &all.loaded.contents)] {
        add(None, of, names.addresses(there, of));
    }
    found
}

/// Names for what differs.
struct Names<'a> {
    intended: &'a Contents,
    classes: BTreeMap<ClassId, Vec<Address>>,
    pods: BTreeMap<Address, String>,
}

impl<'a> Names<'a> {
    fn new(all: &Compared<'a>) -> Self {
        let mut classes = BTreeMap::<ClassId, Vec<Address>>::new();
        for peer in all.intended.peers.values() {
            classes.entry(peer.class).or_default().push(peer.address);
        }
        let live = all.cluster.pods.values().filter(|pod| !pod.host_network && !pod.ended);
        let pods =
            live.flat_map(|pod| pod.addresses.iter().map(|address| (Address::from(*address), pod.name.to_string())));
        Self { intended: all.intended, classes, pods: pods.collect() }
    }

    fn address(&self, address: Address) -> String {
        let ip = IpAddr::from(address);
        self.pods.get(&address).map_or_else(|| ip.to_string(), |pod| format!("{pod} {ip}"))
    }

    fn class(&self, class: ClassId) -> String {
        let members = self.classes.get(&class).map(Vec::as_slice).unwrap_or_default();
        let who = match members {
            [] if class == enforcer_abi::EVERYBODY => "everybody else".to_owned(),
            [] => "a prefix, or nobody".to_owned(),
            [one] => self.address(*one),
            [one, rest @ ..] => format!("{} and {} more", self.address(*one), rest.len()),
        };
        format!("peer class {class:016x} ({who})")
    }

    /// Whether two say the same of a pod, and of its tables.
    fn pod(&self, wanted: &PodTables, there: &PodTables, contents: &Contents, word: &str) -> Option<String> {
        let fields = different("addresses", &wanted.addresses, &there.addresses, word, |all| {
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        })
        .or_else(|| different("forwarding", &wanted.forwards, &there.forwards, word, yes))
        .or_else(|| different("audit", &wanted.audit, &there.audit, word, yes));
        let tables = || {
            [("ingress", wanted.ingress, there.ingress), ("egress", wanted.egress, there.egress)]
                .into_iter()
                .find_map(|(direction, wanted, there)| self.table(direction, wanted, there, contents, word))
        };
        fields.or_else(tables)
    }

    /// Whether two tables open the same.
    fn table(
        &self,
        direction: &str,
        wanted: Option<TableUse>,
        there: Option<TableUse>,
        contents: &Contents,
        word: &str,
    ) -> Option<String> {
        let name = |table: &Option<TableUse>| {
            table.map_or_else(|| "not isolated".into(), |table| format!("table {:016x}", table.id))
        };
        let (Some(first), Some(second)) = (wanted, there) else {
            return different(direction, &wanted, &there, word, name);
        };
        let inside = self.inside(direction, first.id, second.id, contents, word);
        inside.or_else(|| {
            let everybody = |table: &Option<TableUse>| {
                let bits = table.map_or(0, |table| table.everybody.0);
                format!("{} (open to everybody: {bits:04b})", name(table))
            };
            different(direction, &wanted, &there, word, everybody)
        })
    }

    /// The first difference inside a table: ports, then rows, then front ends.
    fn inside(
        &self,
        direction: &str,
        wanted: TableId,
        there: TableId,
        contents: &Contents,
        word: &str,
    ) -> Option<String> {
        let (a, b) = (Inside::of(self.intended, wanted), Inside::of(contents, there));
        let at = |place: String| format!("{direction} table {there:016x}, {place}");
        let class = |value: &PortValue| {
            let open = if value.everybody == 1 { ", open to everybody" } else { "" };
            format!("port class {}{open}", value.class)
        };
        if let Some((key, first, second)) = first(&a.ports, &b.ports) {
            let place = at(format!("{}/{}", protocol_name(key.0), key.1));
            return Some(said(&place, first.map(class), second.map(class), word));
        }
        if let Some((key, first, second)) = first(&a.ranges, &b.ranges) {
            let port = u16::from_be_bytes(key.port);
            let bits = key.prefix_len.saturating_sub(PortRangeKey::FIXED_BITS).min(16);
            let place = at(format!("ports {}/{port} (prefix of {bits} bits)", protocol_name(key.protocol)));
            return Some(said(&place, first.map(class), second.map(class), word));
        }
        let is_in_use = |class: &ClassId| {
            self.classes.contains_key(class) || self.intended.blocks.values().any(|block| block == class)
        };
        let ports = Ports::of(self.intended, wanted);
        for (key, first, second) in differences(&a.rows, &b.rows) {
            // a class that nobody is in any more is freed by and by
            if first.is_none() && !is_in_use(&key.0) {
                continue;
            }
            let place = at(self.class(key.0));
            return Some(row_difference(&place, key.1, first, second, &ports, word));
        }
        let state = |value: &FrontEndValue| front_end_state(value.state).to_owned();
        let (key, first, second) = first(&a.front_ends, &b.front_ends)?;
        let ip = IpAddr::from(key.0);
        let place = at(format!("front end {ip} {}/{}", protocol_name(key.2), key.1));
        Some(said(&place, first.map(state), second.map(state), word))
    }

    /// Whether the kernel's entry says what is intended.
    fn entry(&self, wanted: &PodTables, pod: &CompiledPod, loaded: &Tables) -> Option<String> {
        // what is held or can't be enforced is told by status; there is nothing to compare
        let index = pod.ifindex.filter(|_| matches!(&*pod.state, "enforced" | "closed"))?;
        let Some(entry) = loaded.entries.get(&index) else {
            return Some(format!("interface {index} has no entry, so the pod is held"));
        };
        if entry.flags & PodFlags::HELD != 0 {
            return Some(format!("the entry of interface {index} says that the pod is held"));
        }
        for (flag, direction) in [(PodFlags::INGRESS_CLOSED, "ingress"), (PodFlags::EGRESS_CLOSED, "egress")] {
            if entry.flags & flag != 0 {
                return Some(format!("{direction} is closed, because its tables could not be programmed"));
            }
        }
        self.pod(&wanted.clone(), &told(entry, wanted), &loaded.contents, "loaded")
    }

    /// Which class addresses are in, which concerns every table.
    fn addresses(&self, there: &Contents, word: &str) -> Option<String> {
        let class = |class: &ClassId| self.class(*class);
        if let Some((address, a, b)) = first(&self.intended.peers, &there.peers) {
            let value = |value: &enforcer_abi::PeerValue| format!("{}, flags {:b}", class(&value.class), value.flags);
            return Some(said(&format!("address {}", self.address(*address)), a.map(value), b.map(value), word));
        }
        if let Some((key, a, b)) = first(&self.intended.blocks, &there.blocks) {
            let ip = IpAddr::from(key.address);
            let bits = if ip.is_ipv4() { key.prefix_len.saturating_sub(96) } else { key.prefix_len };
            return Some(said(&format!("prefix {ip}/{bits}"), a.map(class), b.map(class), word));
        }
        let mut endpoints = self.intended.endpoints.symmetric_difference(&there.endpoints);
        let address = endpoints.next()?;
        let (a, b) = (self.intended.endpoints.contains(address), there.endpoints.contains(address));
        Some(format!("source check of {}: intended {}, {word} {}", self.address(*address), yes(&a), yes(&b)))
    }
}

/// A table without its own id.
struct Inside {
    ports: BTreeMap<(u8, u16), PortValue>,
    ranges: BTreeMap<PortRangeKey, PortValue>,
    rows: BTreeMap<(ClassId, u32), RowValue>,
    front_ends: BTreeMap<(Address, u16, u8), FrontEndValue>,
}

impl Inside {
    fn of(contents: &Contents, table: TableId) -> Self {
        let port = |value: &PortValue| PortValue { key: PortKey { table: 0, ..value.key }, ..*value };
        let row = |value: &RowValue| RowValue { key: RowKey { table: 0, ..value.key }, ..*value };
        let front_end = |value: &FrontEndValue| FrontEndValue { key: FrontEndKey { table: 0, ..value.key }, ..*value };
        let rows = RowKey { table, class: 0, chunk: 0, reserved: 0 }..=RowKey {
            table,
            class: ClassId::MAX,
            chunk: u32::MAX,
            reserved: u32::MAX,
        };
        let (lowest, highest) = (Address([0; 16]), Address([0xff; 16]));
        let front_ends = FrontEndKey { table, address: lowest, port: 0, protocol: 0, reserved: [0; 5] }..=FrontEndKey {
            table,
            address: highest,
            port: u16::MAX,
            protocol: u8::MAX,
            reserved: [0xff; 5],
        };
        let ranges = contents.port_ranges.iter().filter(|(key, _)| key.table == table_words(table));
        Self {
            ports: contents
                .ports
                .range(of_table(table))
                .map(|(key, value)| ((key.protocol, key.port), port(value)))
                .collect(),
            ranges: ranges.map(|(key, value)| (PortRangeKey { table: [0; 2], ..*key }, port(value))).collect(),
            rows: contents.rows.range(rows).map(|(key, value)| ((key.class, key.chunk), row(value))).collect(),
            front_ends: contents
                .front_ends
                .range(front_ends)
                .map(|(key, value)| ((key.address, key.port, key.protocol), front_end(value)))
                .collect(),
        }
    }
}

fn table_words(table: TableId) -> [u32; 2] {
    PortRangeKey::new(table, 0, 0, 0).table
}

/// What an entry says of a pod; its addresses in the order in which they are intended.
fn told(entry: &PodEntry, wanted: &PodTables) -> PodTables {
    let has = |bit: u32| entry.flags & bit != 0;
    let table = |isolated, id, everybody, ranges| {
        has(isolated).then(|| TableUse { id, everybody: Openness(everybody), ranges: has(ranges) })
    };
    let mut addresses: Vec<IpAddr> =
        [entry.v4, entry.v6].into_iter().filter(|address| *address != Address::NONE).map(Into::into).collect();
    addresses.sort_by_key(|address| wanted.addresses.iter().position(|other| other == address));
    PodTables {
        uid: wanted.uid.clone(),
        name: wanted.name.clone(),
        addresses,
        ingress: table(
            PodFlags::INGRESS_ISOLATED,
            entry.ingress_table,
            entry.ingress_everybody,
            PodFlags::INGRESS_RANGES,
        ),
        egress: table(PodFlags::EGRESS_ISOLATED, entry.egress_table, entry.egress_everybody, PodFlags::EGRESS_RANGES),
        forwards: has(PodFlags::FORWARDS),
        audit: has(PodFlags::AUDIT),
    }
}

/// The first port class that one row opens and the other doesn't.
fn row_difference(
    place: &str,
    chunk: u32,
    wanted: Option<&RowValue>,
    there: Option<&RowValue>,
    ports: &Ports,
    word: &str,
) -> String {
    let bits = |row: Option<&RowValue>| row.map_or([0; 2], |row| row.bits);
    let (a, b) = (bits(wanted), bits(there));
    let differs = (0..enforcer_abi::CHUNK_BITS).find(|bit| {
        let (word, bit) = (*bit as usize / 64, *bit % 64);
        (a[word] ^ b[word]) >> bit & 1 == 1
    });
    let row = |row: Option<&RowValue>| if row.is_some() { "" } else { " (no row)" };
    let Some(bit) = differs else {
        let open = |row: &RowValue| format!("open on all ports: {:04b}", row.open);
        return said(place, wanted.map(open), there.map(open), word);
    };
    let open = |bits: [u64; 2]| if bits[bit as usize / 64] >> (bit % 64) & 1 == 1 { "open" } else { "closed" };
    let port = ports.first(chunk * enforcer_abi::CHUNK_BITS + bit);
    format!("{place}, {port}: intended {}{}, {word} {}{}", open(a), row(wanted), open(b), row(there))
}

/// The keys at which two maps differ.
fn differences<'a, K: Ord, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let changed = a.iter().map(|(key, value)| (key, Some(value), b.get(key))).filter(|(_, a, b)| a != b);
    changed.chain(b.iter().filter(|(key, _)| !a.contains_key(*key)).map(|(key, value)| (key, None, Some(value))))
}

/// The first of them.
fn first<'a, K: Ord, V: PartialEq>(
    a: &'a BTreeMap<K, V>,
    b: &'a BTreeMap<K, V>,
) -> Option<(&'a K, Option<&'a V>, Option<&'a V>)> {
    differences(a, b).next()
}

fn said(place: &str, wanted: Option<String>, there: Option<String>, word: &str) -> String {
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "no entry".into());
    format!("{place}: intended {}, {word} {}", or_nothing(wanted), or_nothing(there))
}

fn different<T: PartialEq>(
    place: &str,
    wanted: &T,
    there: &T,
    word: &str,
    written: impl Fn(&T) -> String,
) -> Option<String> {
    (wanted != there).then(|| said(place, Some(written(wanted)), Some(written(there)), word))
}

fn yes(is: &bool) -> String {
    if *is { "yes" } else { "no" }.to_owned()
}

fn protocol_name(number: u8) -> impl Display {
    let known = crate::agent::PROTOCOLS.iter().find(|(of, _)| *of == number);
    known.map_or_else(|| format!("protocol {number}"), |(_, name)| (*name).to_owned())
}

const fn front_end_state(state: u32) -> &'static str {
    const MIXED: u32 = FrontEndState::Mixed as u32;
    const OPEN: u32 = FrontEndState::Open as u32;
    match state {
        OPEN => "open",
        MIXED => "mixed",
        _ => "closed",
    }
}
