//! What the CNI plugin asks: `PUT /v1/cni` when an interface was made for a pod, `DELETE` when it goes, `GET`
//! whether it may ask at all.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;

use super::{PATIENCE, Shared, ask};
use crate::{
    cni::{Call, HangUp},
    state::Request,
};

/// How long a plugin may let the agent wait for a pod's tables.
const LONGEST: Duration = Duration::from_mins(10);

/// What goes with [`call`].
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CallQuery {
    /// Milliseconds after which the answer comes whatever it is.
    patience: u64,
}

impl Default for CallQuery {
    fn default() -> Self {
        Self { patience: 5000 }
    }
}

/// Answers when the pod's tables are in force, or with what is still missing when the patience is over.
pub(super) async fn call(
    State(shared): State<Shared>,
    Query(query): Query<CallQuery>,
    Json(call): Json<Call>,
) -> Response {
    let patience = Duration::from_millis(query.patience).min(LONGEST);
    match ask(&shared, |answer| Request::Call(call, patience, answer), patience + PATIENCE).await {
        Some(standing) => Json(standing).into_response(),
        None => dead(),
    }
}

/// An interface goes, or a whole sandbox.
pub(super) async fn hang_up(State(shared): State<Shared>, Query(query): Query<HangUp>) -> Response {
    match ask(&shared, |answer| Request::HangUp(query, answer), PATIENCE).await {
        Some(()) => StatusCode::NO_CONTENT.into_response(),
        None => dead(),
    }
}

/// Whether pods can be made: 503 before the initial list is in force. One that can't be enforced keeps no other from
/// being made, so this is less than `/readyz`; that tables can't be written is told as `limited`.
pub(super) async fn ready(State(shared): State<Shared>) -> Response {
    if ask(&shared, Request::Ping, PATIENCE).await.is_none() {
        return dead();
    }
    let health = shared.health.borrow().clone();
    if health.synced {
        return Json(serde_json::json!({"limited": health.closed})).into_response();
    }
    let mut reasons = vec!["the source's initial list is not in force yet".to_owned()];
    reasons.extend(health.source);
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("; "))).into_response()
}

fn dead() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the agent's state does not answer\n").into_response()
}
