//! The API server as a source: six watches, merged into one order of events. Entry point: [`Api`].
//!
//! An outage of any length leaves what is enforced as it is: nothing is handed on until there is news, and what comes
//! after it is a difference against what was told before. Whatever goes wrong is tried again for ever, told once in a
//! sentence, and shown in readiness for as long as it stands.

mod backoff;
mod client;
mod failure;
mod held;
mod merge;
mod resource;
#[cfg(test)]
pub(crate) mod tests;
mod watch;
mod wire;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use kube::Client;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{sleep, sleep_until},
};

pub(crate) use self::backoff::jittered;
pub use self::resource::{RESOURCES, Resource, VERBS};
use self::{backoff::Backoff, client::Connection, merge::Merge, watch::Watch};
use super::{Error, Source, Update};
use crate::metrics::Metrics;

/// How many messages of the watches may wait for the one who merges them.
const QUEUE: usize = 1024;
/// How many of them are merged before something is handed on.
const BATCH: usize = 4096;

/// What is told of standing troubles: all of them, one sentence each, whenever they change.
pub type Troubles = Box<dyn Fn(Vec<String>) + Send + Sync>;

/// The API server of a cluster.
pub struct Api {
    /// The node whose agent this is; nothing is told before the cluster has it.
    pub node: String,
    /// Where the cluster is; without it the one that the process runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Where the watches are counted.
    pub metrics: Metrics,
    /// Who wants to know what doesn't work.
    pub troubles: Troubles,
    /// How patient it is.
    pub pace: Pace,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("node", &self.node).field("kubeconfig", &self.kubeconfig).finish_non_exhaustive()
    }
}

/// How patient the source is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After a failure it waits about this long.
    pub first: Duration,
    /// After many, this long.
    pub most: Duration,
    /// An answer has to begin within this time; a page of a list to end.
    pub answer: Duration,
    /// A watch is given up and taken up again after so long a silence. The server sends a bookmark about every minute.
    pub stall: Duration,
    /// What one watch tells waits so long for others that don't work.
    pub hold: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            first: Duration::from_millis(250),
            most: seconds(30),
            answer: seconds(60),
            stall: seconds(100),
            hold: seconds(5),
        }
    }
}

/// Whether the API server can be the source without being told where it is.
#[must_use]
pub fn in_cluster() -> bool {
    client::in_cluster()
}

/// A client for the cluster that `kubeconfig` names, or the one that this process runs in; else why there is none.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, String> {
    client::connect(kubeconfig).await.map_err(|failure| failure.to_string())
}

impl Source for Api {
    async fn run(self, updates: mpsc::Sender<Update>) -> Result<(), Error> {
        let mut told = Standing { troubles: BTreeSet::new(), tell: self.troubles };
        let mut backoff = Backoff::new(self.pace.first, self.pace.most);
        let connection = loop {
            match Connection::open(self.kubeconfig.as_deref()).await {
                Ok(connection) => break Arc::new(connection),
                Err(failure) => told.set(BTreeSet::from([failure.to_string()])),
            }
            tokio::select! {
                () = sleep(backoff.wait()) => {}
                () = updates.closed() => return Ok(()),
            }
        };
        told.set(BTreeSet::new());
        follow(&connection, &self.node, self.pace, &self.metrics, &mut told, &updates).await;
        Ok(())
    }
}

/// Merges the watches until nobody receives the updates.
async fn follow(
    connection: &Arc<Connection>,
    node: &str,
    pace: Pace,
    metrics: &Metrics,
    standing: &mut Standing,
    updates: &mpsc::Sender<Update>,
) {
    let (told, mut telling) = mpsc::channel(QUEUE);
    let retry = Arc::new(Notify::new());
    let mut watches = JoinSet::new();
    for resource in &RESOURCES {
        let (told, metrics) = (told.clone(), metrics.clone());
        let (connection, retry) = (Arc::clone(connection), Arc::clone(&retry));
        let watch = Watch { connection, resource, pace, retry, told, metrics, version: None, streams: true };
        watches.spawn(watch.run());
    }
    drop(told);
    let mut merge = Merge::new(node, pace.hold);
    loop {
        let due = merge.due();
        let first = tokio::select! {
            told = telling.recv() => told,
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => None,
            () = updates.closed() => return,
            // they only end together with this, or by a panic, which is a bug and ends the process like any other
            Some(Err(error)) = watches.join_next() => std::panic::resume_unwind(error.into_panic()),
        };
        let mut recovered = false;
        let mut next = first;
        for _ in 0..BATCH {
            let Some(told) = next else { break };
            recovered |= merge.take(told, Instant::now());
            next = telling.try_recv().ok();
        }
        if let Some(told) = next {
            recovered |= merge.take(told, Instant::now());
        }
        if recovered {
            retry.notify_waiters();
        }
        standing.set(merge.troubles());
        for resource in &RESOURCES {
            let count = i64::try_from(merge.count(resource.kind)).unwrap_or(i64::MAX);
            metrics.watch_objects.with_label_values(&[resource.plural]).set(count);
        }
        if let Some(update) = merge.update(Instant::now())
            && updates.send(update).await.is_err()
        {
            return;
        }
    }
}

/// The troubles that stand.
struct Standing {
    troubles: BTreeSet<String>,
    tell: Troubles,
}

impl Standing {
    /// These stand now. Logs what is new and what is over.
    fn set(&mut self, now: BTreeSet<String>) {
        if self.troubles == now {
            return;
        }
        for trouble in now.difference(&self.troubles) {
            tracing::error!("{trouble}");
        }
        for trouble in self.troubles.difference(&now) {
            tracing::info!("no longer: {trouble}");
        }
        (self.tell)(now.iter().cloned().collect());
        self.troubles = now;
    }
}
