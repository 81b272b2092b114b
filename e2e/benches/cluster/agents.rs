//! What the agents use, and how long they say that pods were held. Entry point: [`Agents::find`].

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use e2e::{
    figures::Histogram,
    lab::{Daemon, Lab, Machine, Usage},
    report::Row,
};

const HELD: &str = "sluice_pod_held_seconds";
/// How long an agent that has nothing to do is watched.
const REST: Duration = Duration::from_secs(30);
const MEGABYTE: f64 = 1e6;

/// The agents of a lab.
pub(crate) struct Agents<'a> {
    agents: Vec<Agent<'a>>,
}

struct Agent<'a> {
    machine: &'a Machine,
    daemon: Daemon,
    /// The most that was noted.
    most: u64,
}

/// What all agents used until a moment.
pub(crate) struct Account {
    at: Instant,
    usages: Vec<Usage>,
}

impl<'a> Agents<'a> {
    pub(crate) fn find(lab: &'a Lab) -> Result<Self> {
        let agent = |machine: &'a Machine| {
            let daemon = machine.find("sluice-agent")?;
            let daemon = daemon.with_context(|| format!("no agent runs on {}", machine.name()))?;
            Ok(Agent { machine, daemon, most: 0 })
        };
        Ok(Self { agents: lab.nodes().iter().map(|node| agent(node.machine())).collect::<Result<_>>()? })
    }

    /// What they use while nothing happens.
    pub(crate) fn at_rest(&self) -> Result<Vec<Row>> {
        let before = self.account()?;
        // Nothing is waited for: this is what is measured.
        thread::sleep(REST);
        let after = self.account()?;
        let most = |of: fn(&Usage) -> u64| after.usages.iter().map(of).max().unwrap_or(0);
        Ok(vec![
            Row::below("agent at rest/resident".to_owned(), megabytes(most(|usage| usage.resident)), "MB", 40.0),
            Row::plain("agent at rest/kernel maps".to_owned(), megabytes(most(|usage| usage.maps)), "MB"),
            Row::plain("agent at rest/processor".to_owned(), after.share_since(&before), "% of one"),
        ])
    }

    /// What they have used since `before`, in which others were busy with pods' starts.
    pub(crate) fn under_churn(&self, before: &Account) -> Result<Vec<Row>> {
        let after = self.account()?;
        let most = self.agents.iter().map(|agent| agent.most).max().unwrap_or(0);
        let maps = after.usages.iter().map(|usage| usage.maps).max().unwrap_or(0);
        Ok(vec![
            Row::plain("agent under churn/resident".to_owned(), megabytes(most), "MB"),
            Row::plain("agent under churn/kernel maps".to_owned(), megabytes(maps), "MB"),
            Row::plain("agent under churn/processor".to_owned(), after.share_since(before), "% of one"),
        ])
    }

    /// Notes how much memory they have now.
    pub(crate) fn note(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.most = agent.most.max(agent.usage()?.resident);
        }
        Ok(())
    }

    pub(crate) fn account(&self) -> Result<Account> {
        let usages = self.agents.iter().map(Agent::usage).collect::<Result<_>>()?;
        Ok(Account { at: Instant::now(), usages })
    }

    /// How long pods were held until now; `None`, if the agents don't say.
    pub(crate) fn held(&self) -> Result<Option<Histogram>> {
        let mut all: Option<Histogram> = None;
        for agent in &self.agents {
            let Some(held) = Histogram::parse(&agent.machine.agent_metrics()?, HELD)? else { return Ok(None) };
            all = Some(all.map_or(Ok(held.clone()), |all| all.plus(&held))?);
        }
        Ok(all)
    }
}

/// How long pods were held from `before` to `after`. A histogram knows bounds only: each value is at most the one shown.
pub(crate) fn held_rows(before: Option<&Histogram>, after: Option<&Histogram>) -> Result<Vec<Row>> {
    let (Some(before), Some(after)) = (before, after) else {
        eprintln!("left out: how long pods are held, since the agents have no metric {HELD}");
        return Ok(Vec::new());
    };
    let held = after.since(before)?;
    let bound = |hundredths| held.bound(hundredths).context("no pod was held").map(|bound| bound * 1000.0);
    let name = |rank| format!("pod held, {} starts/{rank}, at most", held.count());
    Ok(vec![Row::plain(name("p50"), bound(50)?, "ms"), Row::at_most(name("p99"), bound(99)?, "ms", 50.0)])
}

impl Agent<'_> {
    fn usage(&self) -> Result<Usage> {
        self.machine.usage(&self.daemon)
    }
}

impl Account {
    /// Hundredths of one processor that the busiest agent took.
    fn share_since(&self, before: &Self) -> f64 {
        let times =
            self.usages.iter().zip(&before.usages).map(|(now, then)| now.processor.saturating_sub(then.processor));
        let most = times.max().unwrap_or_default();
        most.as_secs_f64() / (self.at - before.at).as_secs_f64() * 100.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "no memory has 2^53 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}
