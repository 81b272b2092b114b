//! What the agent serves: [`public`] for the network (metrics and health, nothing that tells policies or addresses) and
//! [`private`] for the unix socket (state and events, and what the CNI plugin asks).

mod cni;
mod events;
mod export;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

pub use self::export::{Identity, Loaded};
use crate::{
    metrics::Metrics,
    report::Journal,
    state::{Health, Request, View},
};

/// How long the state's task may take for an answer before it counts as dead. A full compilation of a large cluster
/// takes seconds on a small machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a scrape waits for fresh counters before it takes the last ones.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(2);

/// What the routes answer from.
#[derive(Clone, Debug)]
pub struct Shared {
    /// All metrics.
    pub metrics: Metrics,
    /// The last events and those to come.
    pub journal: Arc<Journal>,
    /// How the agent is.
    pub health: watch::Receiver<Health>,
    /// To the task that owns the state.
    pub requests: mpsc::Sender<Request>,
    /// Whose state it is.
    pub identity: Identity,
    /// What is loaded in the kernel.
    pub loaded: Loaded,
    /// Becomes true when the agent drains.
    pub stopping: watch::Receiver<bool>,
}

/// `/metrics`, `/healthz`, `/readyz`.
pub fn public(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(shared)
}

/// `/state`, `/events`, `/v1/objects`, `/v1/tables`, `/v1/cni`, and what [`public`] has.
pub fn private(shared: Shared) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/events", get(events::events))
        .route("/v1/objects", get(export::objects))
        .route("/v1/tables", get(export::tables))
        .route("/v1/cni", get(cni::ready).put(cni::call).delete(cni::hang_up))
        .with_state(shared.clone())
        .merge(public(shared))
}

async fn metrics(State(shared): State<Shared>) -> Response {
    // counters that are a little old are better than none
    ask(&shared, Request::Counters, SCRAPE_PATIENCE).await;
    match shared.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn healthz(State(shared): State<Shared>) -> Response {
    match ask(&shared, Request::Ping, PATIENCE).await {
        Some(()) => "ok\n".into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the agent's state does not answer\n").into_response(),
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let reasons = shared.health.borrow().not_ready();
    if reasons.is_empty() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready:\n{}\n", reasons.join("\n"))).into_response()
    }
}

async fn state(State(shared): State<Shared>) -> Response {
    let view: Option<Box<View>> = ask(&shared, Request::View, PATIENCE).await;
    match view {
        Some(view) => Json(view).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the agent's state does not answer\n").into_response(),
    }
}

/// An answer of a JSON document a line.
fn lines(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}

/// Adds one.
fn line(text: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *text, value)
        .expect("what is told has text keys and no other maps, which is all that JSON asks for");
    text.push(b'\n');
}

/// Asks the state's task; `None` if it is gone or takes longer than `patience`.
async fn ask<T>(shared: &Shared, request: impl FnOnce(oneshot::Sender<T>) -> Request, patience: Duration) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        shared.requests.send(request(answer)).await.ok()?;
        answered.await.ok()
    };
    timeout(patience, asked).await.ok()?
}

#[cfg(test)]
mod tests;
