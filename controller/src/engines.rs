//! Other policy engines on the node. A packet then passes only where both let it, and an administrator who looks for a
//! drop looks in the wrong place, so each is told: in the log when it is found, in `GET /state`, in a metric. Found are
//! their pods, of which the source tells; programs on the hooks of pods' veths; chains and tables of nftables. Entry
//! points: [`Engines`], and [`search`] for what has to be looked for.

mod known;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use enforcer::{OtherProgram, Survey};
use policy_compiler::{Event, model::ObjectName};
use tokio::{sync::watch, task, time::sleep};

use self::known::Label;
use crate::{metrics::Metrics, state::Health};

/// How often programs and chains are looked for.
const ROUND: Duration = Duration::from_secs(300);
/// How many unknown programs are named.
const NAMED: usize = 5;

/// By what an engine was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trace {
    /// A pod of its DaemonSet.
    Pod,
    /// A TC program on a pod's veth.
    Program,
    /// A chain or table of nftables.
    Nftables,
}

impl Trace {
    const ALL: [Self; 3] = [Self::Pod, Self::Program, Self::Nftables];

    /// The label.
    const fn name(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Program => "tc_program",
            Self::Nftables => "nftables",
        }
    }
}

/// One sign of one engine. Displays as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    trace: Trace,
    /// The engine, and what gives it away, as a clause. Nothing in it changes with every pod that comes and goes, or it
    /// would be told again each time.
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_else = match self.trace {
            Trace::Pod | Trace::Program => "",
            Trace::Nftables => ", or remove them if they were left behind",
        };
        write!(
            f,
            "{}: a packet passes only where Sluice and they both let it, so switch policies off in one of the \
             two{or_else}",
            self.what
        )
    }
}

/// What has been found, shared by those who find and those who show.
#[derive(Debug)]
pub struct Engines {
    node: String,
    metrics: Metrics,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// This node's pods that are engines'.
    pods: BTreeMap<ObjectName, &'static Label>,
    /// What was last looked for.
    looked: BTreeMap<Trace, BTreeSet<Finding>>,
    /// What has been told and still holds.
    told: BTreeSet<Finding>,
}

impl Engines {
    /// None yet, on the node of this name.
    #[must_use]
    pub fn new(node: &str, metrics: Metrics) -> Self {
        for trace in Trace::ALL {
            metrics.other_engines.with_label_values(&[trace.name()]).set(0);
        }
        Self { node: node.to_owned(), metrics, inner: Mutex::default() }
    }

    /// Pods that came, changed and went, on any node.
    pub fn follow(&self, events: &[Event]) {
        let mut inner = self.lock();
        let mut changed = false;
        for event in events {
            let (name, label) = match event {
                // Engines run in the host's network; whoever merely wears a label of theirs seldom may.
                Event::PutPod(pod) if pod.host_network && !pod.ended && pod.node.as_deref() == Some(&*self.node) => {
                    (&pod.name, known::by_labels(&pod.labels))
                }
                Event::PutPod(pod) => (&pod.name, None),
                Event::DeletePod(name) => (name, None),
                _ => continue,
            };
            changed |= match label {
                Some(label) => inner.pods.insert(name.clone(), label) != Some(label),
                None => inner.pods.remove(name).is_some(),
            };
        }
        if changed {
            self.tell(&mut inner);
        }
    }

    /// All there is, one sentence each.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        self.lock().told.iter().map(ToString::to_string).collect()
    }

    /// All signs of a kind that there are now.
    fn set(&self, trace: Trace, findings: BTreeSet<Finding>) {
        let mut inner = self.lock();
        inner.looked.insert(trace, findings);
        self.tell(&mut inner);
    }

    /// Logs what is new and what is over.
    fn tell(&self, inner: &mut Inner) {
        let pods = inner.pods.iter().map(|(name, label)| Finding {
            trace: Trace::Pod,
            what: format!(
                "pods of {} (label {}={} in namespace {}) run on this node and may enforce NetworkPolicies, too",
                label.engine, label.key, label.value, name.namespace
            ),
        });
        let now: BTreeSet<Finding> = pods.chain(inner.looked.values().flatten().cloned()).collect();
        for finding in now.difference(&inner.told) {
            tracing::warn!("{finding}");
        }
        for finding in inner.told.difference(&now) {
            tracing::info!("no longer: {finding}");
        }
        for trace in Trace::ALL {
            let count = now.iter().filter(|finding| finding.trace == trace).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.other_engines.with_label_values(&[trace.name()]).set(count);
        }
        inner.told = now;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // what is found is put whole or not at all, and the next round puts it again
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for programs and chains once the pods' veths run ours, and every few minutes after that. What can't be asked is
/// no failure: it is not what the agent is there for.
pub async fn search(engines: Arc<Engines>, survey: Survey, mut health: watch::Receiver<Health>) -> anyhow::Result<()> {
    health.wait_for(|health| health.synced).await.context("the state has ended")?;
    let survey = Arc::new(survey);
    loop {
        let (engines, survey) = (Arc::clone(&engines), Arc::clone(&survey));
        task::spawn_blocking(move || look(&engines, &survey)).await.context("the search for other engines panicked")?;
        sleep(ROUND).await;
    }
}

fn look(engines: &Engines, survey: &Survey) {
    match survey.programs() {
        Ok(programs) => engines.set(Trace::Program, of_programs(&programs)),
        Err(error) => tracing::debug!("programs of others can't be looked for: {:#}", anyhow::Error::from(error)),
    }
    let mut findings = BTreeSet::new();
    match enforcer::nft_names(|table, chain| findings.extend(of_nft(table, chain))) {
        Ok(()) => engines.set(Trace::Nftables, findings),
        Err(error) => tracing::debug!("nftables can't be asked: {:#}", anyhow::Error::from(error)),
    }
}

/// One sign for each known engine, and one for all other programs.
fn of_programs(programs: &[OtherProgram]) -> BTreeSet<Finding> {
    let finding = |what| Finding { trace: Trace::Program, what };
    let mut findings = BTreeSet::new();
    let (mut unknown, mut nameless) = (BTreeSet::new(), false);
    for program in programs {
        match program.name.as_deref().map(plain_name) {
            Some(name) => {
                let known = known::by_program(name).map(|known| {
                    let (engine, prefix) = (known.engine, known.prefix);
                    finding(format!("TC programs of {engine} ({prefix}*) are on pods' interfaces"))
                });
                if known.is_none() {
                    unknown.insert(name);
                }
                findings.extend(known);
            }
            None => nameless = true,
        }
    }
    if !unknown.is_empty() || nameless {
        let more = unknown.len().saturating_sub(NAMED);
        let names = unknown.into_iter().take(NAMED).map(str::to_owned);
        let names = names
            .chain((more > 0).then(|| format!("{more} more")))
            .chain(nameless.then(|| "some whose names the kernel doesn't tell".to_owned()));
        let names: Vec<String> = names.collect();
        findings.insert(finding(format!(
            "TC programs that are not Sluice's are on pods' interfaces ({}) and may be another policy engine's",
            names.join(", ")
        )));
    }
    findings
}

/// Filters are often given names with an interface (`cil_from_container-lxc1`) or a section (`x.o:[tc]`) in them, which
/// would make one engine many.
fn plain_name(name: &str) -> &str {
    name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(name, |end| &name[..end])
}

fn of_nft(table: &str, chain: Option<&str>) -> Option<Finding> {
    let known = known::by_nft(table, chain)?;
    Some(Finding { trace: Trace::Nftables, what: format!("nftables has {} of {}", known.what(), known.engine) })
}

#[cfg(test)]
mod tests;
