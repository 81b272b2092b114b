//! What the agent enforces, in lines of JSON: `GET /v1/objects` what its policies and pods are, `GET /v1/tables` what is
//! compiled of them or loaded in the kernel.
//!
//! The first line says whose state it is (`{"agent": …}`), the last one that it is whole (`{"end": …}`), both with the
//! moment of it: where they differ, something has changed in between. What lies between them comes in pieces, between
//! which the agent does its work.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use enforcer_abi::Op;
use futures_util::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use policy_compiler::{Event, manifest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use super::{PATIENCE, Shared, ask, line, lines};
use crate::state::{Moment, Page, Request};

/// How many bytes are sent at once of what is there as a whole.
const PIECE: usize = 64 << 10;

/// Whose tables they are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The node's name.
    pub node: String,
    /// Source checks need the addresses of all pods and nodes.
    pub endpoints: bool,
}

/// Reads what is loaded in the kernel; an error as a sentence.
#[derive(Clone)]
pub struct Loaded(pub Arc<dyn Fn() -> Result<enforcer::Contents, String> + Send + Sync>);

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loaded")
    }
}

/// The state's objects, each as the API has it.
pub(super) async fn objects(State(shared): State<Shared>) -> Response {
    let Some(moment) = ask(&shared, Request::Moment, PATIENCE).await else { return not_yet() };
    let first = head(&shared, moment);
    let tell = |text: &mut Vec<u8>, event: &Event| manifest::of(event).iter().for_each(|object| line(text, object));
    pages(first, shared, Request::Objects, tell)
}

/// What the state tells piece by piece, behind `first`. If it stops answering, the last line is missing.
fn pages<T: Send + 'static, C: Default + Send + 'static>(
    first: Bytes,
    shared: Shared,
    request: fn(C, oneshot::Sender<Page<T, C>>) -> Request,
    tell: fn(&mut Vec<u8>, &T),
) -> Response {
    let more = stream::unfold((Some(C::default()), shared), move |(from, shared)| async move {
        let from = from?;
        let page = ask(&shared, |answer| request(from, answer), PATIENCE).await?;
        let mut text = Vec::new();
        page.items.iter().for_each(|item| tell(&mut text, item));
        if page.next.is_none() {
            end(&mut text, page.moment);
        }
        Some((Bytes::from(text), (page.next, shared)))
    });
    answer(stream::iter([first]).chain(more))
}

/// What `/v1/tables` may be asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TablesQuery {
    of: Of,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Of {
    /// What the compiler has.
    Compiled,
    /// What the kernel has.
    Loaded,
}

/// The tables: pods as `{"pod": …}` (compiled) or `{"entry": …}` (loaded), all else as `{"put": …}`.
pub(super) async fn tables(State(shared): State<Shared>, Query(query): Query<TablesQuery>) -> Response {
    match query.of {
        Of::Compiled => compiled(shared).await,
        Of::Loaded => loaded(shared).await,
    }
}

async fn compiled(shared: Shared) -> Response {
    let Some((moment, pods)) = ask(&shared, Request::Pods, PATIENCE).await else { return not_yet() };
    let mut first = head(&shared, moment).to_vec();
    pods.iter().for_each(|pod| line(&mut first, &json!({"pod": pod})));
    pages(first.into(), shared, Request::Tables, put)
}

async fn loaded(shared: Shared) -> Response {
    let Some(before) = ask(&shared, Request::Moment, PATIENCE).await else { return not_yet() };
    let first = head(&shared, before);
    let read = Arc::clone(&shared.loaded.0);
    let text = tokio::task::spawn_blocking(move || read().map(|contents| told(&first, &contents))).await;
    let text = match text {
        Ok(Ok(text)) => text,
        Ok(Err(sentence)) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{sentence}\n")).into_response(),
        Err(_) => return (StatusCode::INTERNAL_SERVER_ERROR, "reading the maps has panicked\n").into_response(),
    };
    let Some(after) = ask(&shared, Request::Moment, PATIENCE).await else { return not_yet() };
    let mut text = text;
    end(&mut text, after);
    let text = Bytes::from(text);
    let pieces = (0..text.len()).step_by(PIECE).map(move |at| text.slice(at..text.len().min(at + PIECE)));
    answer(stream::iter(pieces))
}

/// What the kernel holds, behind the first line.
fn told(first: &Bytes, contents: &enforcer::Contents) -> Vec<u8> {
    let mut text = first.to_vec();
    contents.pods.iter().for_each(|entry| line(&mut text, &json!({"entry": entry})));
    contents.peers.iter().for_each(|value| put(&mut text, &Op::PutPeer(*value)));
    contents.endpoints.iter().for_each(|address| put(&mut text, &Op::PutEndpoint(*address)));
    contents.blocks.iter().for_each(|(key, class)| put(&mut text, &Op::PutBlock(*key, *class)));
    contents.ports.iter().for_each(|value| put(&mut text, &Op::PutPort(*value)));
    contents.port_ranges.iter().for_each(|(key, value)| put(&mut text, &Op::PutPortRange(*key, *value)));
    contents.rows.iter().for_each(|value| put(&mut text, &Op::PutRow(*value)));
    contents.front_ends.iter().for_each(|value| put(&mut text, &Op::PutFrontEnd(*value)));
    text
}

fn head(shared: &Shared, moment: Moment) -> Bytes {
    let Identity { node, endpoints } = &shared.identity;
    let mut text = Vec::new();
    let (version, time) = (env!("CARGO_PKG_VERSION"), Timestamp::now());
    let agent = json!({"version": version, "node": node, "endpoints": endpoints, "time": time, "moment": moment});
    line(&mut text, &json!({ "agent": agent }));
    text.into()
}

fn end(text: &mut Vec<u8>, moment: Moment) {
    line(text, &json!({"end": {"moment": moment}}));
}

fn put(text: &mut Vec<u8>, op: &Op) {
    #[derive(Serialize)]
    struct Put<'a> {
        put: &'a Op,
    }
    line(text, &Put { put: op });
}

fn answer(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    lines(Body::from_stream(pieces.map(Ok::<Bytes, Infallible>)))
}

fn not_yet() -> Response {
    let sentence = "the agent's state does not answer: its source's initial list is not in force yet, or it hangs\n";
    (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
}
