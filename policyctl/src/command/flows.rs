//! `policyctl flows`: what was judged, by which policy and rule, as it happens. Agents tell what, and filter it; which rule
//! it was is the compiler's explanation over the objects that the agent enforces.

mod named;

use std::{
    io::{self, BufRead as _},
    net::IpAddr,
    sync::mpsc,
    thread,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use self::named::Rules;
use crate::{
    Failure, Outcome, Status,
    agent::{Agent, asked},
    format::{self, Answer, Output, Table},
};

/// What follows the flags in the help text.
pub(crate) const HELP: &str = "\
Ends of --from, --to and --pod:
  shop/web-0   a pod      shop/web*   pods whose names begin so      10.0.0.1, 10.0.0.0/8   addresses
Exit status:
  0 told   2 wrong use   3 an agent is out of reach, or went away";

/// Flags of `flows`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: asked::Args,
    /// Go on with what is to come
    #[arg(short, long)]
    follow: bool,
    /// How many of those that are remembered, the last ones; with -f none unless it is given
    #[arg(long, value_name = "NUMBER")]
    last: Option<usize>,
    /// Who opened the connection
    #[arg(long, value_name = "END", value_parser = end)]
    from: Option<String>,
    /// Where to
    #[arg(long, value_name = "END", value_parser = end)]
    to: Option<String>,
    /// Either end
    #[arg(long, value_name = "END", value_parser = end)]
    pod: Option<String>,
    /// The namespace of either end
    #[arg(short, long)]
    namespace: Option<String>,
    /// What became of it
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// The destination port
    #[arg(long)]
    port: Option<u16>,
    /// The protocol, in any case
    #[arg(long)]
    protocol: Option<String>,
    #[command(flatten)]
    format: format::Args,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Verdict {
    /// It passed
    Allowed,
    /// It was dropped, or an established connection was cut
    Denied,
    /// It would have been dropped, but audit mode is on
    Audit,
}

/// A line of `/events`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Item {
    Seen(Box<Record>),
    Lost(Lost),
    /// Whoever reads too slowly misses some.
    Missed {
        missed: u64,
    },
}

/// What became of a connection, or of a packet.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    sequence: u64,
    time: String,
    /// `drop`, `flow`, `audit` or `cut`
    kind: String,
    /// `ingress` or `egress`, seen from the pod
    direction: String,
    reason: String,
    message: String,
    interface: String,
    pod: End,
    remote: End,
    protocol: String,
    length: u32,
    /// The policies that isolate the pod in this direction.
    policies: Vec<String>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub(crate) struct End {
    address: IpAddr,
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
}

/// What the packet program could not send.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lost {
    sequence: u64,
    time: String,
    kind: String,
    rate_limit: u64,
    ring_full: u64,
}

/// What is printed: an item with the agent's name and the rules that decided.
#[derive(Clone, Debug, Serialize)]
struct Told {
    node: String,
    #[serde(flatten)]
    item: Item,
    /// The rules that allow it, as `namespace/policy spec.ingress[0]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
}

/// Prints them.
pub(crate) fn run(args: &Args) -> Outcome {
    let agents = args.agents.agents()?;
    if args.follow && !matches!(args.format.output, Output::Text | Output::Wide | Output::Jsonl) {
        return Err(Failure::wrong_use(anyhow::anyhow!("-f goes on for ever; with it, -o may be text, wide or jsonl")));
    }
    let path = args.path();
    if args.follow {
        return follow(&agents, &path, args);
    }
    let mut status = Status::Answered;
    let mut all = Vec::new();
    for (_, told) in asked::each(&agents, |agent| remembered(agent, &path)) {
        match told {
            Ok(told) => all.extend(told),
            Err(error) => {
                format::tell(&format!("error: {error:#}"));
                status = Status::NoAnswer;
            }
        }
    }
    all.sort_by(|a, b| a.time().cmp(b.time()));
    let mut answer = Answer { kind: "FlowList", list: "flows", ..Answer::default() };
    let head = vec!["TIME", "NODE", "VERDICT", "FROM", "TO", "PORT", "BY", "DIRECTION", "REASON", "INTERFACE"];
    answer.table = Some(Table { head, narrow: 0, rows: all.iter().filter_map(Told::row).collect() });
    answer.text = all.iter().map(|told| told.text(agents.len() > 1) + "\n").collect();
    answer.set("flows", &all);
    answer.names = all.iter().filter_map(|told| told.item.record()?.pod.pod.clone()).collect();
    answer.print(&args.format)?;
    Ok(status)
}

impl Args {
    /// The question for an agent.
    fn path(&self) -> String {
        let mut path = format!("/events?follow={}", self.follow);
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", escaped(&value)));
            }
        };
        let verdict = self.verdict.map(|verdict| match verdict {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
            Verdict::Audit => "audit",
        });
        add("last", self.last.or(self.follow.then_some(0)).map(|last| last.to_string()));
        add("from", self.from.clone());
        add("to", self.to.clone());
        add("pod", self.pod.clone());
        add("namespace", self.namespace.clone());
        add("verdict", verdict.map(str::to_owned));
        add("port", self.port.map(|port| port.to_string()));
        add("protocol", self.protocol.clone());
        path
    }
}

/// As agents read it.
fn end(text: &str) -> Result<String, String> {
    let is_address = text.parse::<IpAddr>().is_ok() || text.parse::<ipnet::IpNet>().is_ok();
    if is_address || text.matches('/').count() == 1 {
        return Ok(text.to_owned());
    }
    Err("write NAMESPACE/POD, NAMESPACE/START*, an address or a network".into())
}

/// As a value in a query (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:*".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What an agent remembers.
fn remembered(agent: &Agent, path: &str) -> anyhow::Result<Vec<Told>> {
    let mut rules = Rules::of(agent)?;
    let answer = agent.ask(path, false)?;
    answer.lines().map(|line| rules.told(&line?)).collect()
}

/// What agents tell until all of them have gone away.
fn follow(agents: &[Agent], path: &str, args: &Args) -> Outcome {
    let (sender, told) = mpsc::sync_channel(1024);
    for agent in agents.iter().cloned() {
        let (sender, path) = (sender.clone(), path.to_owned());
        thread::spawn(move || {
            let result = followed(&agent, &path, |told| sender.send(Ok(told)).is_ok());
            let gone = result.err().unwrap_or_else(|| anyhow::anyhow!("the agent at {} has ended", agent.name));
            // nobody prints any more
            let _ = sender.send(Err(gone));
        });
    }
    drop(sender);
    for told in told {
        match told {
            Ok(told) if args.format.quiet => drop(told),
            Ok(told) if args.format.output == Output::Jsonl => {
                let line = serde_json::to_string(&told).context("a flow is always JSON").map_err(Failure::no_answer)?;
                format::write(&format!("{line}\n"));
            }
            Ok(told) => {
                let text = format!("{}\n", told.text(agents.len() > 1));
                format::write(&format::shown(&text, format::width(io::stdout()), false));
            }
            Err(error) => format::tell(&format!("error: {error:#}")),
        }
    }
    Ok(Status::NoAnswer)
}

/// Hands on what an agent tells for as long as it is wanted.
fn followed(agent: &Agent, path: &str, mut each: impl FnMut(Told) -> bool) -> anyhow::Result<()> {
    let mut rules = Rules::of(agent)?;
    let answer = agent.ask(path, true)?;
    for line in answer.lines() {
        let line = line.with_context(|| format!("the agent at {} can't be read any more", agent.name))?;
        if !each(rules.told(&line)?) {
            break;
        }
    }
    Ok(())
}

impl Item {
    fn record(&self) -> Option<&Record> {
        match self {
            Self::Seen(record) => Some(record),
            Self::Lost(_) | Self::Missed { .. } => None,
        }
    }
}

impl Record {
    /// Who opened the connection, and where to.
    fn ends(&self) -> (&End, &End) {
        if self.direction == "ingress" { (&self.remote, &self.pod) } else { (&self.pod, &self.remote) }
    }

    fn verdict(&self) -> &str {
        match &*self.kind {
            "drop" => "DENIED",
            "cut" => "CUT",
            "audit" => "AUDIT",
            _ => "ALLOWED",
        }
    }

    fn port(&self) -> String {
        match self.ends().1.port {
            0 => self.protocol.clone(),
            port => format!("{}/{port}", self.protocol),
        }
    }

    /// In one line, without its rules.
    pub(crate) fn text(&self) -> String {
        let (from, to) = self.ends();
        let (verdict, time, port) = (self.verdict(), clock(&self.time), self.port());
        let isolated = if self.policies.is_empty() || self.kind == "flow" {
            String::new()
        } else {
            format!(" (isolated by {})", self.policies.join(", "))
        };
        format!(
            "{time}  {verdict:<7}  {} -> {}  {port}  {}: {}{isolated}",
            from.text(),
            to.text(),
            self.direction,
            self.message
        )
    }
}

/// The time of day to the millisecond, in UTC as it comes.
fn clock(time: &str) -> &str {
    let day = time.split_once('T').map_or(time, |(_, clock)| clock);
    day.get(..12).unwrap_or_else(|| day.trim_end_matches('Z'))
}

impl End {
    fn text(&self) -> String {
        self.pod.as_ref().map_or_else(|| self.address.to_string(), |pod| format!("{pod} ({})", self.address))
    }
}

impl Told {
    fn time(&self) -> &str {
        match &self.item {
            Item::Seen(record) => &record.time,
            Item::Lost(lost) => &lost.time,
            Item::Missed { .. } => "",
        }
    }

    fn text(&self, with_node: bool) -> String {
        let node = if with_node { format!("{}  ", self.node) } else { String::new() };
        match &self.item {
            Item::Seen(record) if self.rules.is_empty() => format!("{node}{}", record.text()),
            Item::Seen(record) => format!("{node}{}: {}", record.text(), self.rules.join(", ")),
            Item::Lost(lost) => {
                let (limit, full) = (lost.rate_limit, lost.ring_full);
                let time = clock(&lost.time);
                format!("{node}{time}  LOST     {limit} events for the rate limit, {full} because the buffer was full")
            }
            Item::Missed { missed } => {
                format!("{node}LOST     {missed} events, because they were read too slowly here")
            }
        }
    }

    fn row(&self) -> Option<Vec<String>> {
        let record = self.item.record()?;
        let (from, to) = record.ends();
        let by = if self.rules.is_empty() { record.policies.join(", ") } else { self.rules.join(", ") };
        Some(vec![
            record.time.clone(),
            self.node.clone(),
            record.verdict().to_owned(),
            from.text(),
            to.text(),
            record.port(),
            by,
            record.direction.clone(),
            record.reason.clone(),
            record.interface.clone(),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_a_query() {
        assert_eq!(escaped("shop/web*"), "shop/web*");
        assert_eq!(escaped("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }

    #[test]
    fn what_was_lost_is_told() {
        let line = r#"{"sequence":3,"time":"2026-01-02T03:04:05.123456Z","kind":"lost","rateLimit":5,"ringFull":1}"#;
        let item = serde_json::from_str(line).unwrap();
        let told = Told { node: "n1".into(), item, rules: Vec::new() };
        assert_eq!(
            told.text(true),
            "n1  03:04:05.123  LOST     5 events for the rate limit, 1 because the buffer was full"
        );
        assert_eq!(
            serde_json::to_value(&told).unwrap(),
            json!({
                "node": "n1", "sequence": 3, "time": "2026-01-02T03:04:05.123456Z", "kind": "lost", "rateLimit": 5, "ringFull": 1,
            })
        );
        let item = serde_json::from_str(r#"{"missed":7}"#).unwrap();
        let told = Told { node: "n1".into(), item, rules: Vec::new() };
        assert_eq!(told.text(false), "LOST     7 events, because they were read too slowly here");
    }
}
