//! The state of a cluster, asked of its API server: `--cluster`. [`fetch`] brings it as a list of objects cut down to
//! what verdicts depend on, which is what a snapshot holds too.

mod connect;
mod failure;
mod keep;
mod list;
mod resource;

use std::{cell::Cell, time::Duration};

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

pub(crate) use self::connect::{Args, Connection, duration};
use self::{
    connect::Chosen,
    failure::Failure,
    list::{Listed, list},
    resource::RESOURCES,
};
use crate::progress::Progress;

/// A cluster's state, and when it was that.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) about: About,
    listed: Vec<Listed>,
}

/// Where and when a state was taken from a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct About {
    /// The context of the kubeconfig; absent in a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<String>,
    /// The API server's address.
    pub(crate) server: String,
    /// The oldest of the lists' versions: every change up to it is in the state.
    pub(crate) resource_version: String,
    pub(crate) taken_at: Timestamp,
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.context {
            Some(context) => write!(f, "cluster {context}"),
            None => write!(f, "cluster {}", self.server),
        }
    }
}

/// How many objects have come.
#[derive(Debug, Default)]
struct Tally(Cell<usize>);

impl Tally {
    fn add(&self, count: usize) {
        self.0.set(self.0.get() + count);
    }

    fn forget(&self, count: usize) {
        self.0.set(self.0.get() - count);
    }
}

/// The namespace of what names none, as the context says it.
pub(crate) fn namespace(args: &Args) -> Result<String, crate::Failure> {
    Ok(Chosen::find(args).map_err(told)?.namespace)
}

/// A client for the cluster that is meant.
pub(crate) async fn connect(args: &Args) -> Result<Connection, crate::Failure> {
    Chosen::find(args).map_err(told)?.connect().await.map_err(told)
}

/// Asks for everything at once.
pub(crate) fn fetch(args: &Args, progress: &mut Progress) -> Result<Fetched, crate::Failure> {
    let chosen = Chosen::find(args).map_err(told)?;
    runtime()?.block_on(fetch_from(&chosen, progress)).map_err(told)
}

/// The API server's address and version.
pub(crate) fn server_version(args: &Args) -> Result<(String, String), crate::Failure> {
    let chosen = Chosen::find(args).map_err(told)?;
    let version = async {
        let connection = chosen.connect().await?;
        let version = connection.version().await?;
        Ok((connection.server, version))
    };
    runtime()?.block_on(version).map_err(told)
}

fn runtime() -> Result<tokio::runtime::Runtime, crate::Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| crate::Failure::no_answer(anyhow::Error::new(error).context("sockets can't be waited for")))
}

async fn fetch_from(chosen: &Chosen, progress: &mut Progress) -> Result<Fetched, Failure> {
    let connection = chosen.connect().await?;
    let taken_at = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let tally = Tally::default();
    let lists = join_all(RESOURCES.iter().map(|resource| list(&connection, resource, &tally)));
    let mut lists = std::pin::pin!(lists);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lists = loop {
        tokio::select! {
            lists = &mut lists => break lists,
            _ = ticks.tick() => {
                progress.tell(|| format!("reading {}: {} objects", connection.server, tally.0.get()));
            }
        }
    };
    let listed = sorted_out(lists)?;
    let versions = listed.iter().map(|list| &list.version);
    let oldest = versions.min_by_key(|version| (version.parse().unwrap_or(u64::MAX), version.len()));
    let about = About {
        context: chosen.context.clone(),
        server: connection.server.clone(),
        resource_version: oldest.cloned().unwrap_or_default(),
        taken_at,
    };
    Ok(Fetched { about, listed })
}

/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);

/// Those that came; a failure if something is missing that verdicts depend on. What is refused is named at once, so that
/// it can be asked for at once.
fn sorted_out(lists: Vec<Result<Listed, Failure>>) -> Result<Vec<Listed>, Failure> {
    let mut listed = Vec::new();
    let mut forbidden = Vec::new();
    let mut optional = Vec::new();
    for (list, resource) in lists.into_iter().zip(&RESOURCES) {
        match list {
            Ok(list) => listed.push(list),
            Err(Failure::Forbidden { resource: named }) if resource.is_needed => forbidden.push(named),
            Err(Failure::Forbidden { .. } | Failure::NotServed { .. }) if !resource.is_needed => {
                optional.push(resource.qualified());
            }
            Err(failure) => return Err(failure),
        }
    }
    if !forbidden.is_empty() {
        return Err(Failure::Forbidden { resource: forbidden.join(", ") });
    }
    if !optional.is_empty() {
        crate::format::tell(&format!(
            "warning: you may not list {}: workloads that have no pods yet are not known; the verb \"list\" for them \
             in a ClusterRole helps",
            optional.join(", ")
        ));
    }
    Ok(listed)
}

fn told(failure: Failure) -> crate::Failure {
    if failure.is_wrong_use() { crate::Failure::wrong_use(failure) } else { crate::Failure::no_answer(failure) }
}

impl Fetched {
    /// All objects, each in JSON, in an order that depends on nothing but their kinds and names.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &str> {
        self.listed.iter().flat_map(|list| &list.items).map(|item| &*item.json)
    }

    /// As one list in JSON.
    pub(crate) fn list(&self) -> String {
        let objects: Vec<_> = self.objects().collect();
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{}]}}", objects.join(",\n"))
    }

    /// How many objects there are of each resource, and the version of its list.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, usize, &str)> {
        self.listed.iter().map(|list| (list.resource.plural, list.items.len(), &*list.version))
    }
}
