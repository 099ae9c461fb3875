//! What happened on this node, oldest first: `GET /events?after=N&since=MILLIS&limit=L`, for `quorate events` and programs.
//!
//! `after` is the number of the last event that is known, `since` a time in milliseconds since 1970. Who wants everything asks until `more` is false, each time
//! after the last number. Events are forgotten when there is no room for them (`events/journal.rs`).

use super::Context;
use super::http::json_of;
use crate::events::Record;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Events in an answer, if nothing is said.
const LIMIT: usize = 1_000;
/// Events in an answer, whatever is asked: about a megabyte, if they are as usual.
const LIMIT_MAX: usize = 5_000;

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    since: u64,
    limit: Option<usize>,
}

/// What a node says of what happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct EventsTold {
    /// Who says it.
    pub(crate) node: String,
    /// The number of its newest event.
    pub(crate) last: u64,
    /// There are more behind these.
    pub(crate) more: bool,
    pub(crate) events: Vec<Record>,
}

/// Events of this node.
pub(super) async fn events(State(context): State<Context>, Query(asked): Query<Asked>) -> Response {
    let unavailable = |reason: &str| json_of(StatusCode::SERVICE_UNAVAILABLE, &json!({"reason": reason}));
    let recorder = context.recorder.clone();
    let limit = asked.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let read = tokio::task::spawn_blocking(move || recorder.read(asked.after, asked.since, limit));
    match read.await {
        Ok(Some(Ok(page))) => {
            let node = context.config.name.clone();
            let told = EventsTold { node, last: page.last, more: page.has_more, events: page.records };
            json_of(StatusCode::OK, &json!(told))
        }
        Ok(Some(Err(error))) => unavailable(&format!("its events cannot be read: {error}")),
        Ok(None) => unavailable("it keeps no events: its journal could not be opened, see its log"),
        Err(_) => unavailable("the node is stopping"),
    }
}
