//! `verify --probe`: connections that are really attempted, from the pods themselves, each held against the verdict that
//! `explain` has of it. [`Plan::new`] says which, [`Plan::carry_out`] attempts them.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::Context as _;
use futures_util::future::join_all;
use policy_compiler::{
    explain::{End, Explanation, Query, Verdict, explain},
    model::{ObjectName, Protocol},
};
use serde_json::{Value, json};

use super::container::{self, Container};
use crate::{
    Failure,
    agent::asked,
    command::probe::Found,
    end::{self, Ends, Member},
    port::Wanted,
    source::{self, Live, State, plural},
};

/// A connection, with its verdict.
pub(super) struct Probe {
    pub(super) source: ObjectName,
    /// Where the source is.
    pub(super) node: String,
    destination: Member,
    protocol: Protocol,
    port: u16,
    explained: Explained,
    /// What came of it; else why there was no attempt.
    found: Result<Found, String>,
}

/// What `explain` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Explained {
    /// Where it leads.
    address: std::net::IpAddr,
    family: String,
    is_allowed: bool,
    /// `refused by ingress`
    why: String,
}

/// What an attempt shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// It is as it was explained.
    Same,
    Differs,
    /// Neither; why.
    Nothing(String),
}

/// Everything that is to be attempted.
pub(super) struct Plan {
    args: source::Args,
    pub(super) probes: Vec<Probe>,
}

impl Plan {
    /// Finds the ends in the cluster, and explains each connection. At most `limit` pods may be given a container.
    pub(super) fn new(
        asked: &[String],
        agents: &asked::Args,
        namespace: Option<&str>,
        limit: usize,
    ) -> Result<Self, Failure> {
        let live = Live {
            snapshot: None,
            agent: None,
            cluster: true,
            of: agents.cluster.clone(),
            without: Vec::new(),
            namespace: namespace.map(str::to_owned),
            as_of: false,
            verbose: false,
        };
        let args = source::Args { files: Vec::new(), with: Vec::new(), live };
        let namespace = args.namespace()?;
        let mut ends = Vec::new();
        for pair in asked.chunks_exact(2) {
            let from = end::source(&pair[0], &namespace).map_err(Failure::wrong_use)?;
            let (to, port) = end::destination(&pair[1], &namespace).map_err(Failure::wrong_use)?;
            ends.push((from, to, port, &pair[1]));
        }
        let mut state = source::read(&args)?;
        let mut probes: Vec<Probe> = Vec::new();
        for (from, to, port, text) in ends {
            let from = Ends::find(&from, &mut state, false).map_err(Failure::no_answer)?;
            let to = Ends::find(&to, &mut state, true).map_err(Failure::no_answer)?;
            for probe in pairs(&from, &to, port.as_ref(), text, &state)? {
                if !probes.iter().any(|other| other.target() == probe.target() && other.source == probe.source) {
                    probes.push(probe);
                }
            }
        }
        let mut pods: Vec<_> = probes.iter().filter(|probe| probe.is_tried()).map(|probe| &probe.source).collect();
        pods.sort_unstable();
        pods.dedup();
        if pods.len() > limit {
            return Err(Failure::wrong_use(anyhow::anyhow!(
                "{} pods would be given a container to probe from, which stays in their specs; --probe-limit {} allows it",
                pods.len(),
                pods.len()
            )));
        }
        if probes.len() > MOST {
            return Err(Failure::wrong_use(anyhow::anyhow!(
                "these are {} connections; at most {MOST} are probed at a time",
                probes.len()
            )));
        }
        Ok(Self { args, probes })
    }

    /// Attempts all of them. What differs is explained again, in case the cluster has changed meanwhile.
    pub(super) fn carry_out(&mut self, agent_namespace: &str, image: Option<&str>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("sockets can't be waited for").map_err(Failure::no_answer)?;
        runtime.block_on(self.attempt(agent_namespace, image))?;
        if self.probes.iter().any(|probe| probe.shows() == Shows::Differs) {
            let state = source::gather(&self.args)?;
            for probe in self.probes.iter_mut().filter(|probe| probe.shows() == Shows::Differs) {
                if probe.explained_in(&state).as_ref() != Some(&probe.explained) {
                    probe.found = Err("its verdict has changed meanwhile; ask again".to_owned());
                }
            }
        }
        Ok(())
    }

    async fn attempt<'a>(&'a mut self, agent_namespace: &str, image: Option<&str>) -> Result<(), Failure> {
        let mut by_pod: BTreeMap<ObjectName, Vec<&mut Probe>> = BTreeMap::new();
        for probe in self.probes.iter_mut().filter(|probe| probe.is_tried()) {
            by_pod.entry(probe.source.clone()).or_default().push(probe);
        }
        if by_pod.is_empty() {
            return Ok(());
        }
        let connection = source::connect(&self.args.live.of).await?;
        let image = match image {
            Some(image) => image.to_owned(),
            None => crate::agent::image(&connection, agent_namespace).await.map_err(Failure::no_answer)?,
        };
        // a container's name is never free again
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("policyctl-probe-{:x}", since.as_millis());
        let (connection, name, image) = (&connection, &name, &image);
        let start = |(pod, probes): (ObjectName, Vec<&'a mut Probe>)| async move {
            let targets: Vec<_> = probes.iter().map(|probe| probe.target()).collect();
            let started = container::start(connection, &pod, &Container { name, image, targets: &targets }).await;
            (pod, probes, targets, started)
        };
        let (begun, not_begun): (Vec<_>, Vec<_>) =
            join_all(by_pod.into_iter().map(start)).await.into_iter().partition(|(.., started)| started.is_ok());
        let fail = |pod: &ObjectName, probes: Vec<&mut Probe>, error: &anyhow::Error| {
            let why = format!("{pod} can't be probed from: {error:#}");
            probes.into_iter().for_each(|probe| probe.found = Err(why.clone()));
        };
        for (pod, probes, _, started) in not_begun {
            if let Err(error) = started {
                fail(&pod, probes, &error);
            }
        }
        if !begun.is_empty() {
            let pods: Vec<String> = begun.iter().map(|(pod, ..)| pod.to_string()).collect();
            crate::format::tell(&format!(
                "note: to probe from, {} given the container {name}, which stays in the spec until the pod goes: {}",
                plural(pods.len(), "pod is", "pods are"),
                pods.join(", ")
            ));
        }
        let listen = |(pod, probes, targets, _): (ObjectName, Vec<&'a mut Probe>, Vec<String>, _)| async move {
            match container::found(connection, &pod, &Container { name, image, targets: &targets }).await {
                Ok(all) => probes.into_iter().zip(all).for_each(|(probe, found)| probe.found = Ok(found)),
                Err(error) => fail(&pod, probes, &error),
            }
        };
        join_all(begun.into_iter().map(listen)).await;
        Ok(())
    }
}

/// So many connections are probed at most.
const MOST: usize = 1000;

/// Every connection between two ends.
fn pairs(from: &Ends, to: &Ends, port: Option<&Wanted>, text: &str, state: &State) -> Result<Vec<Probe>, Failure> {
    let mut probes = Vec::new();
    for source in &from.members {
        let Some(pod) = source.pod_of(state.cluster()) else {
            let name = &source.name;
            return Err(Failure::wrong_use(anyhow::anyhow!("{name} can't be probed from: only pods can")));
        };
        for destination in &to.members {
            for (protocol, port) in ports(to, destination, port, text, state)? {
                probes.extend(between(&pod.name, destination, (protocol, port), state)?);
            }
        }
    }
    Ok(probes)
}

/// The ports that are meant: one, or those of a Service.
fn ports(
    ends: &Ends,
    member: &Member,
    port: Option<&Wanted>,
    text: &str,
    state: &State,
) -> Result<Vec<(Protocol, u16)>, Failure> {
    let wrong = |what: &str| Failure::wrong_use(anyhow::anyhow!("{text}: {what}"));
    match (port, &ends.ports) {
        (None, Some(ports)) => Ok(ports.iter().map(|range| (range.protocol, range.first)).collect()),
        (Some(Wanted::Range(range)), _) if range.first == range.last => Ok(vec![(range.protocol, range.first)]),
        (Some(wanted @ Wanted::Named(name, _)), _) => {
            let found = wanted.probes(&[], member.pod_of(state.cluster()));
            let found: Vec<_> = found.into_iter().flatten().map(|range| (range.protocol, range.first)).collect();
            if found.is_empty() { Err(wrong(&format!("{} has no port {name}", member.name))) } else { Ok(found) }
        }
        (None, _) => Err(wrong("there is no port; add one, such as :80 or :53/udp")),
        _ => Err(wrong("only single ports are probed, of TCP and UDP")),
    }
}

fn between(
    source: &ObjectName,
    destination: &Member,
    (protocol, port): (Protocol, u16),
    state: &State,
) -> Result<Vec<Probe>, Failure> {
    let addresses = |name: &ObjectName| state.cluster().pods.get(name).map_or(&[][..], |pod| &pod.addresses);
    // that of a workload stands for pods that are still to come
    let is_to_come =
        |name: &&ObjectName| addresses(name).iter().any(|address| state.gathered.assumed.contains(address));
    let to = match &destination.end {
        End::Pod(name) => Some(name),
        _ => None,
    };
    if let Some(name) = [Some(source), to].into_iter().flatten().find(is_to_come) {
        return Err(Failure::no_answer(anyhow::anyhow!("{name} has no address yet, so nothing can be probed there")));
    }
    let explained = explanations(source, destination, (protocol, port), state).map_err(Failure::no_answer)?;
    let node = state.cluster().pods.get(source).and_then(|pod| pod.node.as_deref()).unwrap_or_default().to_owned();
    let probe = |explained: Explained| Probe {
        source: source.clone(),
        node: node.clone(),
        destination: destination.clone(),
        protocol,
        port,
        explained,
        found: Err(match protocol {
            Protocol::Sctp => "SCTP is not probed: there is nothing to attempt it with".to_owned(),
            _ => String::new(),
        }),
    };
    Ok(explained.into_iter().map(probe).collect())
}

fn explanations(
    source: &ObjectName,
    destination: &Member,
    port: (Protocol, u16),
    state: &State,
) -> anyhow::Result<Vec<Explained>> {
    let (source, destination) = (End::Pod(source.clone()), destination.end.clone());
    let query = Query { source, destination, port: Some(port), family: None };
    Ok(explain(state.cluster(), &query)?.iter().map(Explained::new).collect())
}

impl Explained {
    fn new(explanation: &Explanation) -> Self {
        let sides: Vec<_> = explanation.decided_by.iter().map(|direction| direction.word()).collect();
        let is_allowed = explanation.verdict == Verdict::Allowed;
        Self {
            address: explanation.connection.destination.ip,
            family: format!("{:?}", explanation.connection.family),
            is_allowed,
            why: if is_allowed { "allowed".to_owned() } else { format!("refused by {}", sides.join(" and ")) },
        }
    }
}

impl Probe {
    /// As `policyctl probe` takes it.
    fn target(&self) -> String {
        format!("{}/{}", self.protocol, std::net::SocketAddr::new(self.explained.address, self.port))
    }

    fn is_tried(&self) -> bool {
        self.protocol != Protocol::Sctp
    }

    fn explained_in(&self, state: &State) -> Option<Explained> {
        let again = explanations(&self.source, &self.destination, (self.protocol, self.port), state).ok()?;
        again.into_iter().find(|one| one.address == self.explained.address)
    }

    /// Whether something at the destination answers for itself: only pods do, with certainty.
    const fn is_pod(&self) -> bool {
        matches!(self.destination.end, End::Pod(_))
    }

    /// What the attempt shows.
    pub(super) fn shows(&self) -> Shows {
        let nothing = |why: &str| Shows::Nothing(why.to_owned());
        let is = |passed: bool| if passed == self.explained.is_allowed { Shows::Same } else { Shows::Differs };
        let is_service = matches!(self.destination.end, End::Service(_));
        match &self.found {
            Err(why) => Shows::Nothing(why.clone()),
            Ok(Found::Unreachable { why }) => Shows::Nothing(format!("there is no way: {why}")),
            Ok(Found::Answered) => is(true),
            Ok(Found::Refused) if is_service => {
                nothing("refused, by a back end or by what stands for the Service where it has none")
            }
            Ok(Found::Refused) => is(true),
            Ok(Found::Silent) if self.protocol == Protocol::Udp => nothing("silence, which over UDP says nothing"),
            Ok(Found::Silent) if self.is_pod() || (is_service && !self.explained.is_allowed) => is(false),
            Ok(Found::Silent) => nothing("silence, which may be another's on the way"),
        }
    }

    /// `shop/web-0 -> shop/db-0  TCP/5432 over IPv4`
    fn connection(&self) -> String {
        let Self { source, destination, protocol, port, explained, .. } = self;
        format!("{source} -> {}  {protocol}/{port} over {}", destination.name, explained.family)
    }

    const fn came(&self) -> &'static str {
        match &self.found {
            Ok(Found::Answered) => "let through, answered",
            Ok(Found::Refused) => "let through, the port is closed",
            Ok(Found::Silent) => "dropped",
            Ok(Found::Unreachable { .. }) | Err(_) => "not known",
        }
    }

    /// A line of text.
    pub(super) fn text(&self) -> String {
        let (word, found) = match self.shows() {
            Shows::Same => ("ok", self.came().to_owned()),
            Shows::Differs => ("FAILED", self.came().to_owned()),
            Shows::Nothing(why) => ("?", format!("not known: {why}")),
        };
        format!("  {word:<6}  {}: {}; {found}", self.connection(), self.explained.why)
    }

    /// What differs.
    pub(super) fn difference(&self) -> String {
        format!("{}: explained as {}, probed: {}", self.connection(), self.explained.why, self.came())
    }

    pub(super) fn json(&self) -> Value {
        let (result, why) = match self.shows() {
            Shows::Same => ("same", None),
            Shows::Differs => ("differs", None),
            Shows::Nothing(why) => ("unknown", Some(why)),
        };
        let found = match &self.found {
            Ok(Found::Answered) => "answered",
            Ok(Found::Refused) => "refused",
            Ok(Found::Silent) => "silent",
            Ok(Found::Unreachable { .. }) => "unreachable",
            Err(_) => "notProbed",
        };
        json!({
            "source": self.source.to_string(), "node": self.node, "destination": self.destination.name,
            "address": self.explained.address, "family": self.explained.family, "protocol": self.protocol,
            "port": self.port, "verdict": if self.explained.is_allowed { "Allowed" } else { "Denied" },
            "found": found, "result": result, "why": why,
        })
    }
}

/// One line for all of them.
pub(super) fn summary(probes: &[Probe]) -> String {
    let count = |wanted: &dyn Fn(&Shows) -> bool| probes.iter().filter(|probe| wanted(&probe.shows())).count();
    let (same, differs) = (count(&|shows| *shows == Shows::Same), count(&|shows| *shows == Shows::Differs));
    let mut text = format!("{} probed: {same} as explained", plural(probes.len(), "connection", "connections"));
    if differs > 0 {
        text.push_str(&format!(", {differs} otherwise"));
    }
    if same + differs < probes.len() {
        text.push_str(&format!(", {} not known", probes.len() - same - differs));
    }
    text
}
