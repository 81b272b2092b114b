//! `policyctl status`: how agents and their pods are, how full the maps, and what was reported lately.

use std::{collections::BTreeMap, io::BufRead as _, net::IpAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::flows::Record;
use crate::{
    Outcome, Status,
    agent::{Agent, asked},
    format::{self, Answer, Output, Table},
    source::plural,
};

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: asked::Args,
    #[command(flatten)]
    format: format::Args,
}

/// How many of the last drops are told.
const TOLD: usize = 5;

/// What `/state` says, as far as it is printed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    version: String,
    pub(crate) node: String,
    health: Health,
    epoch: u64,
    pub(crate) pods: Vec<PodView>,
    interfaces: Vec<Interface>,
    maps: Vec<Map>,
    problems: Vec<Problem>,
    reports: Vec<String>,
    other_engines: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Health {
    synced: bool,
    #[serde(default)]
    fault: Option<String>,
    #[serde(default)]
    source: Vec<String>,
}

/// A pod of the node.
#[derive(Debug, Deserialize)]
pub(crate) struct PodView {
    namespace: String,
    name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) ifindex: Option<u32>,
    pub(crate) ingress: Side,
    pub(crate) egress: Side,
    audit: bool,
    /// Packets on the slow path, by direction and reason.
    #[serde(default)]
    pub(crate) packets: BTreeMap<String, BTreeMap<String, u64>>,
}

/// One direction of a pod.
#[derive(Debug, Deserialize)]
pub(crate) struct Side {
    isolated: bool,
    pub(crate) policies: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Interface {
    name: String,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Map {
    name: String,
    used: u32,
    max: u32,
}

#[derive(Debug, Deserialize, Serialize)]
struct Problem {
    severity: Value,
    text: String,
}

impl PodView {
    /// `namespace/name`
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Side {
    fn written(&self) -> String {
        if self.isolated { self.policies.join(",") } else { "open".into() }
    }
}

/// Prints it; 3 if an agent is out of reach.
pub(crate) fn run(args: &Args) -> Outcome {
    let agents = args.agents.agents()?;
    let wide = args.format.output == Output::Wide;
    let head = vec!["NODE", "POD", "STATE", "INGRESS", "EGRESS", "WHY", "INTERFACE", "ADDRESSES"];
    let mut table = Table { head, narrow: 6, rows: Vec::new() };
    let mut answer = Answer { kind: "Status", list: "nodes", ..Answer::default() };
    let (mut nodes, mut status) = (Vec::new(), Status::Answered);
    for (agent, said) in asked::each(&agents, |agent| Ok((agent.state::<View>()?, drops(agent)?))) {
        match said {
            Ok((view, drops)) => {
                answer.text.push_str(&view.text(&drops, wide));
                answer.names.extend(view.pods.iter().map(PodView::name));
                table.rows.extend(view.pods.iter().map(|pod| pod.row(&view.node)));
                nodes.push(view.json(&drops));
            }
            Err(error) => {
                format::tell(&format!("error: {error:#}"));
                status = Status::NoAnswer;
                nodes.push(json!({"agent": agent.name, "error": format!("{error:#}")}));
            }
        }
    }
    if table.rows.is_empty() && matches!(args.format.output, Output::Text | Output::Wide) {
        table.narrow = 0;
    } else {
        answer.text.push('\n');
    }
    answer.set("nodes", nodes);
    answer.table = Some(table);
    answer.print(&args.format)?;
    Ok(status)
}

/// The last drops that the agent remembers, oldest first, and how many it remembers.
fn drops(agent: &Agent) -> anyhow::Result<(Vec<Record>, usize)> {
    let answer = agent.ask("/events?follow=false&verdict=denied", false)?;
    let mut drops: Vec<Record> = Vec::new();
    let mut count = 0;
    for line in answer.lines() {
        if let Ok(record) = serde_json::from_str::<Record>(&line?) {
            count += 1;
            drops.push(record);
            if drops.len() > TOLD {
                drops.remove(0);
            }
        }
    }
    Ok((drops, count))
}

impl View {
    fn conditions(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        self.pods.iter().for_each(|pod| *counts.entry(&*pod.state).or_default() += 1);
        counts
    }

    fn ready(&self) -> &'static str {
        let bad = |pod: &PodView| matches!(&*pod.state, "unenforceable" | "closed");
        let is_ready = self.health.synced
            && self.health.fault.is_none()
            && self.health.source.is_empty()
            && !self.pods.iter().any(bad);
        if is_ready { "ready" } else { "not ready" }
    }

    fn text(&self, (drops, count): &(Vec<Record>, usize), wide: bool) -> String {
        let counts: Vec<_> = self.conditions().into_iter().map(|(state, count)| format!("{count} {state}")).collect();
        let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
        let pods = plural(self.pods.len(), "pod", "pods");
        let mut text = format!(
            "{}  {}, {pods}{counts}, sluice-agent {}, epoch {}\n",
            self.node,
            self.ready(),
            self.version,
            self.epoch
        );
        let mut line = |head: &str, what: &str| text.push_str(&format!("  {head:<9} {what}\n"));
        if !self.health.synced {
            line("waits", "the source's initial list is not in force yet");
        }
        self.health.fault.iter().for_each(|fault| line("fault", fault));
        self.health.source.iter().for_each(|trouble| line("source", trouble));
        let share = |map: &Map| u64::from(map.used) * 100 / u64::from(map.max.max(1));
        let fullest = self.maps.iter().max_by_key(|map| share(map));
        for map in self.maps.iter().filter(|map| wide || fullest.is_some_and(|full| full.name == map.name)) {
            let word = if wide { "" } else { " is the fullest" };
            line("map", &format!("{}{word}: {} of {} entries, {} %", map.name, map.used, map.max, share(map)));
        }
        for interface in self.interfaces.iter().filter(|interface| wide || interface.state == "held") {
            let why = interface.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            line("interface", &format!("{} is {}{why}", interface.name, interface.state));
        }
        self.problems.iter().for_each(|problem| line("object", &problem.text));
        self.reports.iter().for_each(|report| line("report", report));
        self.other_engines.iter().for_each(|engine| line("engine", engine));
        if *count > 0 {
            line("denied", &format!("{count} that are remembered, the last:"));
            drops.iter().for_each(|record| line("", &record.text()));
        }
        text
    }

    fn json(&self, (drops, count): &(Vec<Record>, usize)) -> Value {
        let pods: Vec<_> = self.pods.iter().map(PodView::json).collect();
        json!({
            "node": self.node, "version": self.version, "ready": self.ready() == "ready", "synced": self.health.synced,
            "epoch": self.epoch, "fault": self.health.fault, "source": self.health.source,
            "conditions": self.conditions(), "pods": pods, "interfaces": self.interfaces, "maps": self.maps,
            "problems": self.problems, "reports": self.reports, "otherEngines": self.other_engines,
            "denied": {"remembered": count, "last": drops},
        })
    }
}

impl PodView {
    fn row(&self, node: &str) -> Vec<String> {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        let state = if self.audit { format!("{} (audit)", self.state) } else { self.state.clone() };
        vec![
            node.to_owned(),
            self.name(),
            state,
            self.ingress.written(),
            self.egress.written(),
            self.reason.clone().unwrap_or_default(),
            self.interface.clone().unwrap_or_default(),
            addresses.join(","),
        ]
    }

    fn json(&self) -> Value {
        let side = |side: &Side| json!({"isolated": side.isolated, "policies": side.policies});
        json!({
            "pod": self.name(), "state": self.state, "reason": self.reason, "interface": self.interface,
            "addresses": self.addresses, "ingress": side(&self.ingress), "egress": side(&self.egress),
            "audit": self.audit, "packets": self.packets,
        })
    }
}
