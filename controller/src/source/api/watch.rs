//! One resource, listed and watched for as long as the agent lives: [`Watch::run`]. It tells what it hears in order and
//! holds nothing but the version to go on from.
//!
//! kube's own `runtime::watcher` is not used: it asks for streamed lists at `resourceVersion=0`, which a server may
//! answer from a cache older than what is enforced already, and it can't fall back to pages where a server has no
//! streamed lists (docs/adr/0003-own-watch-loop.md).

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{AsyncBufRead, AsyncBufReadExt as _};
use kube::{
    Client,
    api::{ListParams, WatchParams},
    core::{Request, Status},
};
use policy_compiler::{diagnostic::Kind, model::ObjectName};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, timeout},
};

use super::{
    Pace,
    backoff::{Backoff, jittered},
    client::Connection,
    failure::Failure,
    resource::Resource,
    wire::{self, Identity, Object},
};
use crate::metrics::Metrics;

/// How many objects a page of a list holds.
const PAGE: u32 = 500;
/// After how many seconds, at most, the server ends a watch, so that connections spread over its replicas.
const WATCH_SECONDS: Duration = Duration::from_secs(580);
/// A line's buffer that has grown over this is given back.
const LINE: usize = 1 << 20;
/// The annotation of the bookmark that ends a streamed list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a watch tells.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) kind: Kind,
    pub(super) news: News,
}

#[derive(Debug)]
pub(super) enum News {
    /// A list begins. What was told of an earlier one that has not ended doesn't count.
    Listing,
    /// An object is there, or is there with another content.
    Object(Box<Object>),
    /// An object is there that can't be read, for this reason.
    Unreadable(ObjectName, String),
    /// An object is gone.
    Gone(ObjectName),
    /// The list is complete: what it did not name is gone.
    Listed,
    /// From now on changes come as they happen.
    Following,
    /// It doesn't work, and is tried again.
    Failing(Failure),
}

/// See the module's text.
pub(super) struct Watch {
    pub(super) connection: Arc<Connection>,
    pub(super) resource: &'static Resource,
    pub(super) pace: Pace,
    /// Another watch works again, so this one may, too.
    pub(super) retry: Arc<Notify>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) metrics: Metrics,
    /// Where to go on; `None` where only a list helps.
    pub(super) version: Option<String>,
    /// The server may be able to stream lists.
    pub(super) streams: bool,
}

/// Why a try ended without having failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// By the server, as it does every few minutes.
    Closed,
    /// In the middle.
    Cut,
    /// Nothing was heard for too long.
    Stalled,
    /// The server no longer knows the version.
    TooOld,
    /// The server doesn't stream lists.
    NotStreamed,
}

impl Ended {
    const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Cut => "cut",
            Self::Stalled => "stalled",
            Self::TooOld => "too_old",
            Self::NotStreamed => "not_streamed",
        }
    }
}

/// Why a try can't go on.
enum Stop {
    Failed(Failure),
    /// Nobody listens any more.
    Unheard,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Watch {
    /// Tells of the resource until nobody listens.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(self.pace.first, self.pace.most);
        loop {
            let (began, mut heard) = (Instant::now(), false);
            let used = self.connection.client().await;
            let ended = self.attempt(&used.client, &mut heard).await;
            self.up(false);
            let reason = match ended {
                Err(Stop::Unheard) => return,
                Ok(ended) => {
                    tracing::debug!(resource = self.resource.plural, reason = ended.label(), "the watch ended");
                    ended.label()
                }
                Err(Stop::Failed(failure)) => {
                    if matches!(failure, Failure::Credentials(_)) {
                        self.connection.renew(&used, self.pace.answer).await;
                    }
                    if self.tell(News::Failing(failure)).await.is_err() {
                        return;
                    }
                    "failed"
                }
            };
            self.metrics.watch_restarts.with_label_values(&[self.resource.plural, reason]).inc();
            if heard || began.elapsed() > self.pace.most {
                backoff.reset();
                if reason != "failed" {
                    continue;
                }
            }
            tokio::select! {
                () = sleep(backoff.wait()) => {}
                () = self.retry.notified() => {}
                () = self.told.closed() => return,
            }
        }
    }

    /// Lists if it must, then follows. `heard` becomes true when something new has come.
    async fn attempt(&mut self, client: &Client, heard: &mut bool) -> Result<Ended, Stop> {
        if self.version.is_none() {
            self.tell(News::Listing).await?;
            if self.streams {
                return self.follow(client, String::new(), heard).await;
            }
            if let Some(ended) = self.list(client).await? {
                return Ok(ended);
            }
        }
        let version = self.version.clone().unwrap_or_default();
        self.follow(client, version, heard).await
    }

    /// All pages, consistent among themselves; `Some` if they can't be.
    async fn list(&mut self, client: &Client) -> Result<Option<Ended>, Stop> {
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        params.field_selector = self.resource.field_selector.map(str::to_owned);
        loop {
            let request = Request::new(self.resource.path).list(&params);
            let request = request.map_err(|error| self.failed(&kube::Error::BuildRequest(error), "list"))?;
            let answer = timeout(self.pace.answer, client.request_text(request)).await;
            let text = match answer.map_err(|_| Failure::Silent(self.pace.answer))? {
                Ok(text) => text,
                Err(kube::Error::Api(status)) if is_too_old(&status) => return Ok(Some(Ended::TooOld)),
                Err(error) => return Err(self.failed(&error, "list").into()),
            };
            let page: Page<'_> = serde_json::from_str(&text).map_err(|error| self.unreadable(&error))?;
            self.heard_now();
            for item in page.items.iter().flatten() {
                self.object(item).await?;
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                let version = version.ok_or_else(|| self.no_version())?;
                self.version = Some(version);
                self.tell(News::Listed).await?;
                return Ok(None);
            }
        }
    }

    /// Watches from `version`; from the empty one, where a list is due, the server sends what there is first.
    async fn follow(&mut self, client: &Client, version: String, heard: &mut bool) -> Result<Ended, Stop> {
        let mut listing = version.is_empty();
        let mut lines = match self.open(client, &version).await? {
            Ok(lines) => pin!(lines),
            Err(ended) => return Ok(ended),
        };
        if !listing {
            self.following().await?;
        }
        let mut line = Vec::new();
        loop {
            if let Some(ended) = next_line(&mut lines, &mut line, self.pace.stall).await {
                if listing && ended == Ended::Stalled {
                    // perhaps a server that doesn't know what it was asked
                    self.streams = false;
                }
                return Ok(ended);
            }
            self.heard_now();
            let entry: Entry<'_> = serde_json::from_slice(&line).map_err(|error| self.unreadable(&error))?;
            match entry.kind {
                Type::Added | Type::Modified => {
                    let version = self.object(entry.object).await?;
                    if !listing {
                        self.version = version.or_else(|| self.version.take());
                    }
                }
                Type::Deleted => self.gone(entry.object).await?,
                Type::Bookmark => {
                    let Mark { metadata } = self.parse(entry.object)?;
                    if metadata.resource_version.is_empty() {
                        return Err(self.no_version().into());
                    }
                    let ends = metadata.annotations.is_some_and(|all| all.contains_key(INITIAL_EVENTS_END));
                    if !listing || ends {
                        self.version = Some(metadata.resource_version);
                    }
                    if listing && ends {
                        listing = false;
                        self.tell(News::Listed).await?;
                        self.following().await?;
                    }
                }
                Type::Error => {
                    let status: Status = self.parse(entry.object)?;
                    if is_too_old(&status) {
                        return Ok(self.too_old());
                    }
                    return Err(self.failed(&kube::Error::Api(status.boxed()), "watch").into());
                }
            }
            *heard |= !listing;
        }
    }

    /// Opens a watch from `version`, or says why there is none.
    async fn open(&mut self, client: &Client, version: &str) -> Result<Result<impl AsyncBufRead + use<>, Ended>, Stop> {
        let listing = version.is_empty();
        let params = WatchParams {
            field_selector: self.resource.field_selector.map(str::to_owned),
            timeout: Some(u32::try_from(jittered(WATCH_SECONDS).as_secs()).unwrap_or(290)),
            bookmarks: true,
            send_initial_events: listing,
            ..WatchParams::default()
        };
        let request = Request::new(self.resource.path).watch(&params, version);
        let request = request.map_err(|error| self.failed(&kube::Error::BuildRequest(error), "watch"))?;
        let answer = timeout(self.pace.answer, client.request_stream(request)).await;
        match answer.map_err(|_| Failure::Silent(self.pace.answer))? {
            Ok(lines) => Ok(Ok(lines)),
            Err(kube::Error::Api(status)) if is_too_old(&status) => Ok(Err(self.too_old())),
            Err(kube::Error::Api(status)) if listing && matches!(status.code, 400 | 422) => {
                self.streams = false;
                Ok(Err(Ended::NotStreamed))
            }
            Err(error) => Err(self.failed(&error, "watch").into()),
        }
    }

    /// Tells of an object, and returns its version.
    async fn object(&self, text: &RawValue) -> Result<Option<String>, Stop> {
        match wire::read(self.resource.kind, text.get()) {
            Ok(object) => {
                let version = Some(object.version.clone()).filter(|version| !version.is_empty());
                self.tell(News::Object(Box::new(object))).await?;
                Ok(version)
            }
            Err(error) => {
                let name = self.identify(text)?;
                self.tell(News::Unreadable(name, error.to_string())).await?;
                Ok(None)
            }
        }
    }

    async fn gone(&mut self, text: &RawValue) -> Result<(), Stop> {
        let name = self.identify(text)?;
        self.tell(News::Gone(name)).await
    }

    fn identify(&self, text: &RawValue) -> Result<ObjectName, Failure> {
        let identity: Identity = self.parse(text)?;
        Ok(identity.metadata.object_name())
    }

    fn parse<'a, T: Deserialize<'a>>(&self, text: &'a RawValue) -> Result<T, Failure> {
        serde_json::from_str(text.get()).map_err(|error| self.unreadable(&error))
    }

    async fn following(&self) -> Result<(), Stop> {
        self.up(true);
        self.tell(News::Following).await
    }

    async fn tell(&self, news: News) -> Result<(), Stop> {
        let told = Told { kind: self.resource.kind, news };
        self.told.send(told).await.map_err(|_| Stop::Unheard)
    }

    /// Only a list helps now.
    fn too_old(&mut self) -> Ended {
        self.version = None;
        Ended::TooOld
    }

    fn up(&self, up: bool) {
        self.metrics.watch_up.with_label_values(&[self.resource.plural]).set(up.into());
    }

    fn heard_now(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.watch_heard.with_label_values(&[self.resource.plural]).set(now.as_secs_f64());
    }

    fn failed(&self, error: &kube::Error, verb: &'static str) -> Failure {
        Failure::of(error, verb, self.resource)
    }

    fn unreadable(&self, error: &serde_json::Error) -> Failure {
        Failure::Unreadable { resource: self.resource.qualified(), message: error.to_string() }
    }

    fn no_version(&self) -> Failure {
        Failure::Unreadable { resource: self.resource.qualified(), message: "no resourceVersion".to_owned() }
    }
}

/// Reads the next line into `line`; `Some` if there is none.
async fn next_line(lines: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>, stall: Duration) -> Option<Ended> {
    line.clear();
    line.shrink_to(LINE);
    match timeout(stall, lines.read_until(b'\n', line)).await {
        Err(_) => Some(Ended::Stalled),
        Ok(Ok(0)) => Some(Ended::Closed),
        Ok(Ok(_)) if line.ends_with(b"\n") => None,
        // half a line is no news
        Ok(_) => Some(Ended::Cut),
    }
}

fn is_too_old(status: &Status) -> bool {
    status.code == 410 || matches!(&*status.reason, "Expired" | "Gone")
}

/// A page of a list.
#[derive(Deserialize)]
struct Page<'a> {
    metadata: PageMetadata,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_: Option<String>,
}

/// A line of a watch.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: Type,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Type {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// A bookmark.
#[derive(Deserialize)]
struct Mark {
    metadata: MarkMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkMetadata {
    #[serde(default)]
    resource_version: String,
    annotations: Option<std::collections::BTreeMap<String, String>>,
}
