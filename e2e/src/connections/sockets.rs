//! Evaluator 4: real sockets between network namespaces, and the real agents. An [`Arena`] holds one case after another;
//! see [`Arena::run`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, Result, ensure};
use policy_compiler::model::{ObjectName, Protocol};

use super::{
    case::Case,
    connection::{Connection, End, Expected, Transport},
    expand,
    stage::Stage,
    tables::Tables,
};
use crate::bed::{Agent, Answer, Fabric, Node, Outcome, Probe, Scratch, Wiring, probe_all, services::Ruleset};

/// Three nodes, with an agent wherever a case has had pods; all agents follow one directory.
#[derive(Debug)]
pub struct Arena {
    /// By the node's name, each with its pins.
    agents: BTreeMap<Arc<str>, (Agent, Scratch)>,
    nodes: Vec<Node>,
    fabric: Fabric,
    objects: Scratch,
    /// Addresses outside the cluster that cases have asked for.
    outside: BTreeSet<IpAddr>,
}

impl Arena {
    /// Makes the nodes that [`super::load`]'s cases have, without pods.
    ///
    /// # Errors
    /// Not root, or the kernel refuses.
    pub fn create() -> Result<Self> {
        let fabric = Fabric::create()?;
        let mut nodes = Vec::new();
        for (number, name) in (1..).zip(expand::NODES) {
            nodes.push(fabric.node(name, number, Wiring::PointToPoint)?);
        }
        let objects = Scratch::create("objects")?;
        let arena = Self { agents: BTreeMap::new(), nodes, fabric, objects, outside: BTreeSet::new() };
        fs::create_dir(arena.directory()).context("cannot make the directory of objects")?;
        Ok(arena)
    }

    fn directory(&self) -> PathBuf {
        self.objects.files().join("directory")
    }

    /// Sets the case's pods up, with a server at every port that a connection arrives at; sees that without policies
    /// every connection comes about, so that a refusal later is the policies'; then applies the policies and asks again.
    /// Returns what isn't as the case says. Protocols that plain sockets don't speak are left out.
    ///
    /// # Errors
    /// Something could not be set up or asked; the arena is not to be used again.
    pub fn run(&mut self, case: &Case) -> Result<Vec<String>> {
        let connections: Vec<&Connection> = case.connections.iter().filter(|it| transport(it).is_some()).collect();
        ensure!(!connections.is_empty(), "no connection can be asked with sockets");
        for end in connections.iter().flat_map(|it| [Some(&it.source), it.destination.as_ref().map(|(end, _)| end)]) {
            if let Some(End { address, pod: None, node: None }) = end {
                self.reach(*address)?;
            }
        }
        self.start_agents(case)?;
        let stage = Stage::set(case, &self.nodes, self.fabric.outside())?;
        for node in &self.nodes {
            let services: Vec<_> = case.cluster.services.values().cloned().collect();
            let slices: Vec<_> = case.cluster.endpoint_slices.values().cloned().collect();
            node.set_services(&Ruleset::new(node.name(), &services, &slices))?;
        }

        let open = case.without_policies()?;
        self.apply(&open, &stage)?;
        let arriving: Vec<&Connection> = connections.iter().copied().filter(|it| it.destination.is_some()).collect();
        let mut wrong = Vec::new();
        for (connection, answer) in arriving.iter().zip(self.ask(&stage, &arriving, |_| Expected::Allowed)?) {
            if let Some(problem) = compare(connection, Expected::Allowed, &answer) {
                wrong.push(format!("without policies: {problem}"));
            }
        }
        self.apply(case, &stage)?;
        for (connection, answer) in
            connections.iter().zip(self.ask(&stage, &connections, |connection| connection.expected)?)
        {
            wrong.extend(compare(connection, connection.expected, &answer));
        }
        self.clear()?;
        Ok(wrong)
    }

    /// Starts an agent on every node that is to have pods and has none yet.
    fn start_agents(&mut self, case: &Case) -> Result<()> {
        let with_pods = case.cluster.pods.values().filter(|pod| !pod.host_network).filter_map(|pod| pod.node.clone());
        let missing: BTreeSet<Arc<str>> = with_pods.filter(|node| !self.agents.contains_key(node)).collect();
        for name in &missing {
            let scratch = Scratch::create(name)?;
            let agent = Agent::start(self.node(name)?, &self.directory(), &scratch, &["--listen", "127.0.0.1:0"])?;
            self.agents.insert(name.clone(), (agent, scratch));
        }
        for name in &missing {
            let (agent, _) = self.agents.get_mut(name).context("it has just been started")?;
            agent.wait_until_ready()?;
        }
        Ok(())
    }

    /// Gives the outside an address.
    fn reach(&mut self, address: IpAddr) -> Result<()> {
        if !self.fabric.outside_addresses().contains(&address) && self.outside.insert(address) {
            let suffix = if address.is_ipv4() { "/32 dev lo" } else { "/128 dev lo nodad" };
            self.fabric.outside().ip(&[format!("addr add {address}{suffix}")])?;
        }
        Ok(())
    }

    /// Replaces the objects, and waits until every agent enforces what they amount to.
    fn apply(&mut self, case: &Case, stage: &Stage<'_>) -> Result<()> {
        self.write(&case.manifest)?;
        let tables = Tables::of(case);
        for (node, (agent, _)) in &mut self.agents {
            let contents = tables.contents(node).context("every case has every node")?;
            let expected: Vec<serde_json::Value> =
                contents.pods.values().map(|pod| stage.enforced(pod)).collect::<Result<_>>()?;
            agent.wait_for_state("enforce the case", |state| {
                let pods = state["pods"].as_array().map(Vec::as_slice).unwrap_or_default();
                pods.len() == expected.len()
                    && expected.iter().all(|expected| pods.iter().any(|pod| has(pod, expected)))
            })?;
        }
        Ok(())
    }

    /// Takes the objects away, and waits until the agents have forgotten them.
    fn clear(&mut self) -> Result<()> {
        self.write("")?;
        for (agent, _) in self.agents.values_mut() {
            agent.wait_for_state("forget the case", |state| state["pods"].as_array().is_some_and(Vec::is_empty))?;
        }
        Ok(())
    }

    /// In one piece: the agents never see half a file.
    fn write(&self, manifest: &str) -> Result<()> {
        let (new, file) = (self.directory().join(".new"), self.directory().join("case.yaml"));
        fs::write(&new, manifest).context("cannot write the objects")?;
        fs::rename(&new, &file).context("cannot put the objects in place")
    }

    fn ask(
        &self,
        stage: &Stage<'_>,
        connections: &[&Connection],
        expected: impl Fn(&Connection) -> Expected,
    ) -> Result<Vec<Answer>> {
        let probes = connections.iter().map(|connection| {
            let Connection { source, dialled, .. } = connection;
            let (transport, port) = transport(connection).context("the others were left out")?;
            let (from, bind) = match (&source.pod, &source.node) {
                (Some(pod), _) => (stage.pod(pod)?.namespace(), None),
                (None, Some(node)) => (self.node(node)?.namespace(), None),
                (None, None) => (self.fabric.outside(), Some(source.address)),
            };
            let is_allowed = expected(connection) == Expected::Allowed;
            let expected = if is_allowed { Outcome::Open } else { Outcome::Dropped };
            Ok(Probe { from, source: bind, transport, to: SocketAddr::new(*dialled, port), expected })
        });
        probe_all(&probes.collect::<Result<Vec<_>>>()?)
    }

    fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("there is no node {name}"))
    }
}

/// What a connection is asked with; `None` for what plain sockets don't speak.
pub(super) fn transport(connection: &Connection) -> Option<(crate::bed::Transport, u16)> {
    match connection.transport {
        Transport::Port(Protocol::Tcp, port) => Some((crate::bed::Transport::Tcp, port)),
        Transport::Port(Protocol::Udp, port) => Some((crate::bed::Transport::Udp, port)),
        Transport::Icmp => Some((crate::bed::Transport::Icmp, 0)),
        Transport::Port(Protocol::Sctp, _) | Transport::Gre => None,
    }
}

/// How a server calls itself.
pub(super) fn server_name(end: &End) -> String {
    match (&end.pod, &end.node) {
        (Some(ObjectName { namespace, name }), _) => format!("{namespace}/{name}"),
        (None, Some(node)) => node.to_string(),
        (None, None) => "outside".to_owned(),
    }
}

/// Every field of `expected` is there.
fn has(value: &serde_json::Value, expected: &serde_json::Value) -> bool {
    match expected {
        serde_json::Value::Object(fields) => fields.iter().all(|(name, expected)| has(&value[name], expected)),
        _ => value == expected,
    }
}

/// What is wrong with an answer.
fn compare(connection: &Connection, expected: Expected, answer: &Answer) -> Option<String> {
    let Answer { outcome, greeting } = answer;
    if (expected == Expected::Allowed) != (*outcome == Outcome::Open) {
        return Some(format!("{connection}: expected {expected}, got {outcome}"));
    }
    let (greeting, (end, _)) = (greeting.as_ref()?, connection.destination.as_ref()?);
    if connection.dialled != end.address {
        // Whichever back end it got, and maybe masqueraded.
        return None;
    }
    if greeting.server != server_name(end) {
        return Some(format!("{connection}: answered by {} instead of {}", greeting.server, server_name(end)));
    }
    let is_pod = connection.source.pod.is_some();
    (is_pod && greeting.client != connection.source.address)
        .then(|| format!("{connection}: the server saw {} as its client", greeting.client))
}
