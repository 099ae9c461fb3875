//! Creating, listing and deleting keyspaces: JSON over HTTP on the client port, for `quorate keyspace` and for programs.
//!
//! `GET /keyspaces`, `POST /keyspaces` with a [`Wanted`], `DELETE /keyspaces/NAME`. Not over etcd's API, which has no words for it: so the
//! keyspace that holds the maps need not be open to clients. Whoever may connect to a client port may do it, as with all else.

use super::Context;
use super::http::{json_of, rules_json};
use crate::config::rules;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get};
use quorate_node::administration::Step;
use quorate_node::{Administration, NewKeyspace, Order, Refused};
use quorate_types::{KeyspaceId, KeyspaceMap, Rejection, SplitError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, Instant};

/// How long the answer to a creation waits until this node has a leader for all of it.
const READY_MAX: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A keyspace that is to be created.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) name: String,
    /// How many partitions it begins with.
    #[serde(default = "one")]
    pub(crate) partitions: u32,
    /// Placement rules, as `--pin` says them.
    #[serde(default)]
    pub(crate) pin: Vec<String>,
    /// Placement rules, as `--spread` says them.
    #[serde(default)]
    pub(crate) spread: Vec<String>,
    /// The space it may take.
    #[serde(default)]
    pub(crate) quota_bytes: Option<u64>,
}

fn one() -> u32 {
    1
}

/// Why an order came to nothing.
enum Problem {
    Senseless(String),
    Refused(Refused),
    Rejected(Rejection),
}

pub(super) fn router(context: Context) -> Router {
    Router::new()
        .route("/keyspaces", get(list).post(create))
        .route("/keyspaces/{name}", delete(remove))
        .with_state(context)
}

async fn carry_out(context: &Context, order: Order) -> Result<Vec<KeyspaceMap>, Problem> {
    let (mut order, mut request) = Administration::begin(order).map_err(Problem::Refused)?;
    loop {
        let reply = context.gateway.request(KeyspaceId::SYSTEM, request).await.map_err(Problem::Rejected)?;
        match order.answered(reply).map_err(Problem::Refused)? {
            Step::Ask(next) => request = next,
            Step::Done(maps) => return Ok(maps),
        }
    }
}

fn refusal(problem: Problem) -> Response {
    let (status, words) = match problem {
        Problem::Senseless(words) => (StatusCode::BAD_REQUEST, words),
        Problem::Refused(refused) => {
            let status = match &refused {
                Refused::Exists { .. } | Refused::TooMany | Refused::Contended => StatusCode::CONFLICT,
                Refused::Split(SplitError::UnderWay(_) | SplitError::TooMany) => StatusCode::CONFLICT,
                Refused::Split(SplitError::NoPartition(_)) | Refused::NotFound { .. } => {
                    StatusCode::NOT_FOUND
                }
                Refused::Split(_) => StatusCode::BAD_REQUEST,
                Refused::Permanent { .. } | Refused::Map(_) | Refused::QuotaZero => StatusCode::BAD_REQUEST,
                Refused::Malformed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, refused.to_string())
        }
        Problem::Rejected(Rejection::Unknown) => {
            let words = "the leader changed meanwhile, so it may have been carried out or not; quorate keyspace list shows which";
            (StatusCode::SERVICE_UNAVAILABLE, words.to_owned())
        }
        Problem::Rejected(rejection) => (StatusCode::SERVICE_UNAVAILABLE, rejection.to_string()),
    };
    json_of(status, &json!({"error": words}))
}

fn told(map: &KeyspaceMap) -> serde_json::Value {
    json!({
        "keyspace": map.id.0,
        "name": map.name,
        "partitions": map.partitions.len(),
        "rules": rules_json(&map.rules),
        "quota_bytes": map.quota_bytes,
    })
}

async fn list(State(context): State<Context>) -> Response {
    let maps = match carry_out(&context, Order::List).await {
        Ok(maps) => maps,
        Err(problem) => return refusal(problem),
    };
    let standing = match context.gateway.standing().await {
        Ok(standing) => standing,
        Err(rejection) => return refusal(Problem::Rejected(rejection)),
    };
    let keyspaces = maps.iter().map(|map| {
        let mut told = told(map);
        told["revision"] = json!(context.gateway.reader(map.id).ok().map(|reader| reader.revision().0));
        told["used_bytes"] = json!(standing.used_bytes.get(&map.id));
        told
    });
    json_of(StatusCode::OK, &json!({"keyspaces": keyspaces.collect::<Vec<_>>()}))
}

async fn create(State(context): State<Context>, body: Bytes) -> Response {
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => {
            return refusal(Problem::Senseless(format!("what is wanted is not understood: {error}")));
        }
    };
    let rules = match rules(Some(&wanted.pin), Some(&wanted.spread)) {
        Ok(rules) => rules.unwrap_or_default(),
        Err(error) => return refusal(Problem::Senseless(error.to_string())),
    };
    let Wanted { name, partitions, quota_bytes, .. } = wanted;
    match carry_out(&context, Order::Create(NewKeyspace { name, partitions, rules, quota_bytes })).await {
        Ok(maps) => {
            let Some(map) = maps.first() else { return json_of(StatusCode::OK, &json!({})) };
            // So that whoever goes on at once need not wait for an election.
            let begun = Instant::now();
            while !context.gateway.has_leader(map.id) && begun.elapsed() < READY_MAX {
                tokio::time::sleep(LOOK).await;
            }
            json_of(StatusCode::CREATED, &told(map))
        }
        Err(problem) => refusal(problem),
    }
}

async fn remove(State(context): State<Context>, Path(name): Path<String>) -> Response {
    match carry_out(&context, Order::Delete { name }).await {
        Ok(maps) => json_of(StatusCode::OK, &json!({"deleted": maps.iter().map(told).collect::<Vec<_>>()})),
        Err(problem) => refusal(problem),
    }
}
