//! Which rule it was: the explanation of a connection over the objects that the agent enforces. Entry point:
//! [`Rules::told`].

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use policy_compiler::{
    Cluster,
    explain::{End, Judgement, Query, Verdict, explain},
    files::Gather,
    model::Protocol,
};

use super::{Item, Record, Told};
use crate::agent::Agent;

/// How often objects are read again at most, because a flow is not explained by them.
const PAUSE: Duration = Duration::from_secs(2);

/// How many answers are remembered.
const REMEMBERED: usize = 10_000;

/// All but the client's port, which no rule is about.
type Key = (String, IpAddr, IpAddr, String, u16);

/// The objects that explain an agent's verdicts, as they were last read.
pub(super) struct Rules {
    agent: Agent,
    node: String,
    cluster: Cluster,
    read: Instant,
    known: HashMap<Key, Option<Vec<String>>>,
}

impl Rules {
    pub(super) fn of(agent: &Agent) -> anyhow::Result<Self> {
        let (node, cluster) = read(agent)?;
        Ok(Self { agent: agent.clone(), node, cluster, read: Instant::now(), known: HashMap::new() })
    }

    /// A line of `/events` with the rules that allow what it tells.
    pub(super) fn told(&mut self, line: &str) -> anyhow::Result<Told> {
        let item: Item = serde_json::from_str(line)
            .with_context(|| format!("what the agent at {} tells can't be read: {line}", self.agent.name))?;
        let rules = match &item {
            Item::Seen(record) if record.reason == "rule" => self.rules(record)?,
            Item::Seen(_) | Item::Lost(_) | Item::Missed { .. } => Vec::new(),
        };
        Ok(Told { node: self.node.clone(), item, rules })
    }

    /// Empty if the objects don't explain it: they are others than when it was judged.
    fn rules(&mut self, record: &Record) -> anyhow::Result<Vec<String>> {
        let (from, to) = record.ends();
        let key = (record.direction.clone(), from.address, to.address, record.protocol.clone(), to.port);
        if let Some(Some(rules)) = self.known.get(&key) {
            return Ok(rules.clone());
        }
        let mut rules = allowing(&self.cluster, record);
        if rules.is_none() && self.read.elapsed() > PAUSE {
            (self.node, self.cluster) = read(&self.agent)?;
            self.read = Instant::now();
            self.known.clear();
            rules = allowing(&self.cluster, record);
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, rules.clone());
        Ok(rules.unwrap_or_default())
    }
}

fn read(agent: &Agent) -> anyhow::Result<(String, Cluster)> {
    let objects = agent.objects()?;
    let mut gather = Gather::default();
    gather.file("agent.json", &objects.text, false);
    Ok((objects.head.node, gather.finish().cluster))
}

/// The rules that allow a connection in the direction of its record; `None` if they are not those that were in force.
fn allowing(cluster: &Cluster, record: &Record) -> Option<Vec<String>> {
    let (from, to) = record.ends();
    let port = match &*record.protocol {
        "TCP" => Some((Protocol::Tcp, to.port)),
        "UDP" => Some((Protocol::Udp, to.port)),
        "SCTP" => Some((Protocol::Sctp, to.port)),
        _ => None,
    };
    let query = Query { source: End::Address(from.address), destination: End::Address(to.address), port, family: None };
    let explanation = explain(cluster, &query).ok()?.into_iter().next()?;
    let judgement = match (&*record.direction, &explanation.service) {
        ("ingress", _) => &explanation.ingress,
        (_, Some(service)) => &service.back_ends.first()?.egress,
        (_, None) => &explanation.egress,
    };
    let isolating: BTreeSet<String> =
        judgement.policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect();
    let is_as_it_was = isolating.iter().eq(record.policies.iter().collect::<BTreeSet<_>>());
    (judgement.verdict == Verdict::Allowed && is_as_it_was).then(|| matched(judgement))
}

fn matched(judgement: &Judgement) -> Vec<String> {
    let mut rules = Vec::new();
    for policy in judgement.policies.iter().filter(|policy| policy.matched) {
        for rule in policy.rules.iter().filter(|rule| rule.matched) {
            let by = rule.peers.by.iter().chain(&rule.ports.by).map(|by| format!(" {by}")).collect::<String>();
            rules.push(format!("{}/{} {}{by}", policy.namespace, policy.name, rule.path));
        }
    }
    rules
}
