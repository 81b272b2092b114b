//! `policyctl dump`: the tables of a pod as the kernel has them, in a form that can be read, and what was counted.

use std::{collections::BTreeMap, net::IpAddr};

use enforcer_abi::{
    Address, CHUNK_BITS, ClassId, Direction, FrontEndState, Openness, PodEntry, PodFlags, RowValue, TableId,
};
use policy_compiler::{Contents, files::Gather, model::ObjectName};
use serde_json::{Value, json};

use super::status::{PodView, View};
use crate::{
    Failure, Outcome, Status,
    agent::{Agent, Objects, Of, Ports, Tables, asked, opens},
    format::{self, Answer},
};

/// Flags of `dump`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod
    #[arg(value_name = "[NAMESPACE/]POD")]
    pod: String,
    #[command(flatten)]
    agents: asked::Args,
    /// The namespace of a pod that names none
    #[arg(short, long, default_value = "default", env = "POLICYCTL_NAMESPACE")]
    namespace: String,
    #[command(flatten)]
    format: format::Args,
}

/// How many members of a class are told without `-v`.
const TOLD: usize = 4;

/// Prints them; 3 if no agent that was asked has the pod.
pub(crate) fn run(args: &Args) -> Outcome {
    let name = match args.pod.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::new(&*args.namespace, &*args.pod),
    };
    let agents = args.agents.agents()?;
    let wanted = name.to_string();
    let found = asked::first(agents, move |agent| {
        let mut view = agent.state::<View>()?;
        let place = view.pods.iter().position(|pod| pod.name() == wanted);
        Ok(place.map(|place| (view.pods.swap_remove(place), view.node)))
    });
    match found {
        Ok((agent, (pod, node))) => {
            let dump = Dump::read(&agent, &pod, &node).map_err(Failure::no_answer)?;
            dump.answer(args.agents.verbose).print(&args.format)?;
            Ok(Status::Answered)
        }
        Err(errors) => {
            errors.iter().for_each(|error| format::tell(&format!("error: {error:#}")));
            let among = if errors.is_empty() { "the agents that were asked" } else { "the agents that answer" };
            Err(Failure::no_answer(anyhow::anyhow!(
                "no pod {name} is on a node of {among}; policyctl status lists theirs"
            )))
        }
    }
}

/// What is known of a pod.
struct Dump<'a> {
    node: &'a str,
    pod: &'a PodView,
    entry: Option<PodEntry>,
    contents: Contents,
    /// The pods' names by address.
    names: BTreeMap<Address, String>,
}

impl<'a> Dump<'a> {
    fn read(agent: &Agent, pod: &'a PodView, node: &'a str) -> anyhow::Result<Self> {
        let Tables { contents, mut entries, .. } = agent.tables(Of::Loaded)?;
        let Objects { text, .. } = agent.objects()?;
        let mut gather = Gather::default();
        gather.file("agent.json", &text, false);
        let cluster = gather.finish().cluster;
        let pods = cluster.pods.values().filter(|pod| !pod.host_network && !pod.ended);
        let pods = pods.flat_map(|pod| pod.addresses.iter().map(|ip| (Address::from(*ip), pod.name.to_string())));
        let nodes = cluster.nodes.values();
        let nodes =
            nodes.flat_map(|node| node.addresses.iter().map(|ip| (Address::from(*ip), format!("node/{}", node.name))));
        let services = cluster.services.values();
        let services = services.flat_map(|service| {
            let ips = service.cluster_ips.iter().chain(&service.external_ips);
            ips.map(|ip| (Address::from(*ip), format!("svc/{}", service.name)))
        });
        let names = nodes.chain(services).chain(pods).collect();
        Ok(Self { node, pod, entry: pod.ifindex.and_then(|index| entries.remove(&index)), contents, names })
    }

    fn answer(&self, verbose: bool) -> Answer {
        let PodView { state, reason, interface, addresses, .. } = self.pod;
        let mut answer = Answer { kind: "Dump", ..Answer::default() };
        let at = interface.as_ref().map(|name| format!(", interface {name}")).unwrap_or_default();
        let why = reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let own: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        answer.text =
            format!("{} on {}{at}, {state}{why}\n  addresses  {}\n", self.pod.name(), self.node, own.join(", "));
        answer.set("pod", self.pod.name());
        answer.set("node", self.node);
        answer.set("state", state);
        answer.set("interface", interface);
        answer.set("addresses", addresses);
        for direction in Direction::ALL {
            let (name, text, told) = self.direction(direction, verbose);
            answer.text.push_str(&text);
            answer.set(name, told);
        }
        answer
    }

    fn direction(&self, direction: Direction, verbose: bool) -> (&'static str, String, Value) {
        let (name, view) = match direction {
            Direction::Ingress => ("ingress", &self.pod.ingress),
            Direction::Egress => ("egress", &self.pod.egress),
        };
        let counted = self.pod.packets.get(name).cloned().unwrap_or_default();
        let counts: Vec<_> = counted.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
        let mut told = json!({"policies": view.policies, "packets": counted});
        let mut text = match self.table(direction) {
            Judged::Unknown => format!("\n{name}  nothing is loaded: no packet but the node's own passes\n"),
            Judged::Closed => format!("\n{name}  closed: its tables could not be programmed\n"),
            Judged::Open => format!("\n{name}  not isolated: everything passes\n"),
            Judged::By(table, everybody) => {
                let rows = self.rows(table, everybody, direction, verbose);
                told["table"] = json!(format!("{table:016x}"));
                told["rows"] = rows.iter().map(|(peers, _, ports)| json!({"peers": peers, "ports": ports})).collect();
                let front_ends = self.front_ends(table);
                told["frontEnds"] =
                    front_ends.iter().map(|(name, state)| json!({"frontEnd": name, "state": state})).collect();
                let by = view.policies.join(", ");
                let mut text = format!("\n{name}  isolated by {by}  (table {table:016x})\n");
                let word = if direction == Direction::Ingress { "from" } else { "to" };
                for (_, peers, ports) in &rows {
                    text.push_str(&format!("  {word:<4}  {peers}\n        {ports}\n"));
                }
                for (name, state) in &front_ends {
                    text.push_str(&format!("  front end  {name}  {state}\n"));
                }
                text
            }
        };
        text.push_str(&format!("  counted  {counts}\n"));
        (name, text, told)
    }

    fn table(&self, direction: Direction) -> Judged {
        let Some(entry) = self.entry.filter(|entry| entry.flags & PodFlags::HELD == 0) else { return Judged::Unknown };
        let (isolated, closed, table, everybody) = match direction {
            Direction::Ingress => {
                (PodFlags::INGRESS_ISOLATED, PodFlags::INGRESS_CLOSED, entry.ingress_table, entry.ingress_everybody)
            }
            Direction::Egress => {
                (PodFlags::EGRESS_ISOLATED, PodFlags::EGRESS_CLOSED, entry.egress_table, entry.egress_everybody)
            }
        };
        match (entry.flags & closed != 0, entry.flags & isolated != 0) {
            (true, _) => Judged::Closed,
            (_, false) => Judged::Open,
            _ => Judged::By(table, Openness(everybody)),
        }
    }

    /// Who, all of them and as told, and what is open to them: first of everybody else.
    fn rows(
        &self,
        table: TableId,
        everybody: Openness,
        direction: Direction,
        verbose: bool,
    ) -> Vec<(Vec<String>, String, String)> {
        let ports = Ports::of(&self.contents, table);
        let open_to_all = |class: u32| match class {
            0 => everybody.has(Openness::UNNAMED),
            class => self.everybody_has(table, class),
        };
        let mut rows =
            vec![(vec!["everybody else".to_owned()], "everybody else".to_owned(), ports.written(open_to_all))];
        let mut by_class = BTreeMap::<ClassId, Vec<&RowValue>>::new();
        for row in self.contents.rows.values().filter(|row| row.key.table == table) {
            by_class.entry(row.key.class).or_default().push(row);
        }
        for (class, chunks) in by_class {
            let members = self.members(class, direction);
            if members.is_empty() {
                continue;
            }
            let open = |port: u32| chunks.iter().find_map(|row| opens(row, port)).unwrap_or(false);
            debug_assert!(chunks.len() <= (u32::MAX / CHUNK_BITS) as usize, "chunks have numbers of their own");
            let told = if verbose || members.len() <= TOLD {
                members.join(", ")
            } else {
                format!("{} and {} more", members[..TOLD].join(", "), members.len() - TOLD)
            };
            rows.push((members, told, ports.written(open)));
        }
        rows
    }

    fn everybody_has(&self, table: TableId, class: u32) -> bool {
        let mut values = self.contents.ports.range(crate::agent::of_table(table)).map(|(_, value)| value);
        let ranges = || self.contents.port_ranges.values().filter(|value| value.key.table == table);
        values
            .find(|value| value.class == class)
            .or_else(|| ranges().find(|value| value.class == class))
            .is_some_and(|value| value.everybody == 1)
    }

    /// The addresses of a class; a Service's only where front ends count.
    fn members(&self, class: ClassId, direction: Direction) -> Vec<String> {
        let front_ends = enforcer_abi::PeerFlags::FRONT_END;
        let peers = self.contents.peers.values().filter(|peer| peer.class == class);
        let peers = peers.filter(|peer| direction == Direction::Egress || peer.flags & front_ends == 0);
        let blocks = self.contents.blocks.iter().filter(|(_, of)| **of == class).map(|(key, _)| {
            let ip = IpAddr::from(key.address);
            let bits = if ip.is_ipv4() { key.prefix_len.saturating_sub(96) } else { key.prefix_len };
            format!("{ip}/{bits}")
        });
        peers.map(|peer| self.name(peer.address)).chain(blocks).collect()
    }

    fn name(&self, address: Address) -> String {
        let ip = IpAddr::from(address);
        self.names.get(&address).map_or_else(|| ip.to_string(), |name| format!("{name} ({ip})"))
    }

    fn front_ends(&self, table: TableId) -> Vec<(String, &'static str)> {
        let own = self.contents.front_ends.values().filter(|value| value.key.table == table);
        own.map(|value| {
            let protocol = crate::agent::PROTOCOLS.iter().find(|(number, _)| *number == value.key.protocol);
            let protocol = protocol.map_or("protocol", |(_, name)| name);
            let who = if value.key.address == value.key.address.node_port() {
                "every node".to_owned()
            } else {
                self.name(value.key.address)
            };
            let state = match value.state {
                state if state == FrontEndState::Open as u32 => "open",
                state if state == FrontEndState::Mixed as u32 => "mixed: closed to new connections",
                _ => "closed",
            };
            (format!("{who} {protocol}/{}", value.key.port), state)
        })
        .collect()
    }
}

/// How one direction is judged.
enum Judged {
    Unknown,
    Closed,
    Open,
    By(TableId, Openness),
}
