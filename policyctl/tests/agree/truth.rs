//! What the reference says of workloads, nodes and the outside of a cluster: [`Truth`], and how answers are read to be
//! held against it: [`Connections`].

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use policy_compiler::{
    model::ObjectName,
    reference::{Connection, End, Verdict},
};
use serde_json::Value;

use crate::{
    ports::{PROTOCOLS, Ports, ports},
    world::World,
};

/// Where something of a generated cluster may begin or end, and some numbers beside.
pub(crate) const TOLD: [u16; 14] = [1, 2, 53, 79, 80, 81, 443, 8000, 8080, 9000, 30080, 30081, 30091, 65535];

/// Ports open between all pods of two ends, and those open between some of them only.
pub(crate) type Open = (Ports, Ports);

/// What is open, by the names of both ends; those with nothing open are left out.
pub(crate) type Connections = BTreeMap<(String, String), Open>;

/// Ends by their names, in the words of answers.
pub(crate) struct Truth<'a> {
    world: &'a World,
    /// Pods, folded to their workloads.
    pub(crate) pods: BTreeMap<String, Vec<End>>,
    /// The outside as far as policies tell it apart, with every address that was thought of.
    pub(crate) outside: BTreeMap<String, Vec<End>>,
}

impl<'a> Truth<'a> {
    /// The outside is told apart by the policies of both, as it is where they are compared.
    pub(crate) fn new(world: &'a World, other: Option<&World>) -> Self {
        let worlds: Vec<&World> = std::iter::once(world).chain(other).collect();
        Self { world, pods: pods(world), outside: outside(&worlds) }
    }

    /// Everything that a list names.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Vec<End>)> {
        self.pods.iter().chain(&self.outside)
    }

    /// What becomes of one connection, in each family that both ends have.
    pub(crate) fn judge(&self, from: &End, to: &End, protocol: u8, port: u16) -> Vec<Verdict> {
        let is_of = |end: &End, ipv6: bool| !matches!(end, End::Address(address) if address.is_ipv6() != ipv6);
        let families = [false, true].into_iter().filter(|ipv6| is_of(from, *ipv6) && is_of(to, *ipv6));
        let judged = families.filter_map(|ipv6| {
            let (source, destination) = (from.clone(), to.clone());
            self.world.objects.judge(&Connection { source, destination, protocol, port, ipv6 })
        });
        judged.collect()
    }

    /// The ports open between all of these, and between some of them; nobody connects to itself here. `None` if there
    /// is no connection to speak of.
    pub(crate) fn open(&self, from: &[End], to: &[End]) -> Option<Open> {
        let (mut all, mut some) = (Ports::new(), Ports::new());
        for (name, number, port) in asked() {
            let mut verdicts = Vec::new();
            for source in from {
                for destination in to.iter().filter(|other| *other != source) {
                    verdicts.extend(self.judge(source, destination, number, port));
                }
            }
            if verdicts.is_empty() {
                return None;
            }
            let open = verdicts.iter().filter(|verdict| **verdict == Verdict::Allowed).count();
            if open == verdicts.len() {
                all.insert((name, port));
            } else if open > 0 {
                some.insert((name, port));
            }
        }
        Some((all, some))
    }

    /// All that is open between pods, and between pods and the outside.
    pub(crate) fn connections(&self) -> Connections {
        let mut connections = Connections::new();
        for (from, sources) in self.all() {
            for (to, destinations) in self.all() {
                if self.outside.contains_key(from) && self.outside.contains_key(to) {
                    continue;
                }
                let open = self.open(sources, destinations).unwrap_or_default();
                insert(&mut connections, from, to, open);
            }
        }
        connections
    }
}

/// Puts down what is open, if anything is.
pub(crate) fn insert(connections: &mut Connections, from: &str, to: &str, open: Open) {
    if open != Open::default() {
        connections.insert((from.to_owned(), to.to_owned()), open);
    }
}

/// Everything that is asked about: the name and the number of a protocol, and a port.
pub(crate) fn asked() -> impl Iterator<Item = (&'static str, u8, u16)> {
    let numbers = PROTOCOLS.into_iter().zip([6, 17, 132]);
    let with_ports = numbers.flat_map(|(name, number)| TOLD.into_iter().map(move |port| (name, number, port)));
    with_ports.chain([("ICMP", 1, 0)])
}

/// The fields `ports` and `portsOfSome`.
pub(crate) fn told(answer: &Value) -> Open {
    let of = |field: &str| ports(answer[field].as_str().unwrap(), &TOLD);
    (of("ports"), of("portsOfSome"))
}

/// Live pods that have an address, by the names of their workloads, else their own.
fn pods(world: &World) -> BTreeMap<String, Vec<End>> {
    let mut units: BTreeMap<String, Vec<End>> = BTreeMap::new();
    for pod in world.all("Pod") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        let is_live = !matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        let has_address = pod["status"]["podIPs"] != serde_json::json!([]) || pod["spec"]["hostNetwork"] == true;
        if is_live && has_address {
            let owner = pod["metadata"]["ownerReferences"][0]["name"].as_str();
            let unit = owner.map_or_else(|| format!("{namespace}/{name}"), |set| format!("{namespace}/sts/{set}"));
            units.entry(unit).or_default().push(End::Pod(ObjectName::new(namespace.as_str(), name.as_str())));
        }
    }
    units
}

/// Those ends of the outside that answers name, with the addresses in each that are in no smaller one of them: the ends
/// of all blocks that are written down and what is beside them, unless a pod, a node or a Service has them. A block that
/// answers left out though it matters would make its addresses differ from those around them.
fn outside(worlds: &[&World]) -> BTreeMap<String, Vec<End>> {
    let mut named: BTreeMap<String, (IpNet, Vec<End>)> = BTreeMap::new();
    let (mut blocks, mut taken) = (Vec::new(), Vec::new());
    for world in worlds {
        let (graph, _) = world.ask(&["graph"]);
        let names = graph["nodes"].as_array().unwrap().iter().filter(|node| node["group"] == "world");
        for name in names.map(|node| node["name"].as_str().unwrap()) {
            let block = match name {
                "world" => "0.0.0.0/0",
                "world over IPv6" => "::/0",
                name => name.strip_prefix("world ").unwrap(),
            };
            named.insert(name.to_owned(), (block.parse().unwrap(), Vec::new()));
        }
        world.all("NetworkPolicy").for_each(|policy| blocks_of(policy, &mut blocks));
        for kind in ["Pod", "Node", "Service"] {
            world.all(kind).for_each(|object| addresses_of(object, &mut taken));
        }
    }
    let mut candidates: Vec<IpAddr> = vec!["8.8.8.8".parse().unwrap(), "2001:db8:ffff::1".parse().unwrap()];
    for block in &blocks {
        let ends = [block.network(), block.broadcast()].map(number);
        let beside = ends.into_iter().flat_map(|end| [end.checked_sub(1), Some(end), end.checked_add(1)]);
        candidates.extend(beside.flatten().filter_map(|number| address(block, number)));
    }
    candidates.sort();
    candidates.dedup();
    for candidate in candidates.into_iter().filter(|candidate| !taken.contains(candidate) && is_host(candidate)) {
        let around = |block: &&IpNet| block.contains(&candidate);
        let is_private = blocks.iter().filter(around).any(|block| {
            let text = block.to_string();
            ["10.", "192.168.", "fd"].iter().any(|private| text.starts_with(private))
        });
        let smallest = named
            .values_mut()
            .filter(|(block, _)| block.contains(&candidate))
            .max_by_key(|(block, _)| block.prefix_len());
        if let Some((_, ends)) = smallest.filter(|_| !is_private) {
            ends.push(End::Address(candidate));
        }
    }
    named.into_iter().map(|(name, (_, ends))| (name, ends)).collect()
}

fn blocks_of(value: &Value, blocks: &mut Vec<IpNet>) {
    match value {
        Value::String(text) => blocks.extend(text.parse::<IpNet>().map(|block| block.trunc())),
        Value::Array(values) => values.iter().for_each(|value| blocks_of(value, blocks)),
        Value::Object(values) => values.values().for_each(|value| blocks_of(value, blocks)),
        _ => {}
    }
}

fn addresses_of(value: &Value, addresses: &mut Vec<IpAddr>) {
    match value {
        Value::String(text) => addresses.extend(text.parse::<IpAddr>()),
        Value::Array(values) => values.iter().for_each(|value| addresses_of(value, addresses)),
        Value::Object(values) => values.values().for_each(|value| addresses_of(value, addresses)),
        _ => {}
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(block: &IpNet, number: u128) -> Option<IpAddr> {
    match block {
        IpNet::V4(_) => u32::try_from(number).ok().map(|number| IpAddr::V4(number.into())),
        IpNet::V6(_) => Some(IpAddr::V6(number.into())),
    }
}

/// Whether somebody could have it.
fn is_host(address: &IpAddr) -> bool {
    let is_broadcast = *address == IpAddr::from([255; 4]);
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast)
}
