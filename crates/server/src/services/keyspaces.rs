//! Creating, listing and deleting keyspaces and splitting their partitions: JSON over HTTP on the client port, for `quorate keyspace`, `quorate partitions
//! split` and programs.
//!
//! `GET /keyspaces`, `POST /keyspaces` with a [`Wanted`], `DELETE /keyspaces/NAME`, `POST /partitions/split` with a [`WantedSplit`]. Not over etcd's API, which has no words for it: so the
//! keyspace that holds the maps need not be open to clients. Whoever may connect to a client port may do it, as with all else.

use super::Context;
use super::http::{json_of, ranges_json, rules_json};
use crate::config::rules;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get, post};
use quorate_node::administration::Step;
use quorate_node::{Administration, NewKeyspace, Order, Refused};
use quorate_types::map::PARTITIONS_MAX;
use quorate_types::{KeyspaceId, KeyspaceMap, PartitionId, Rejection, SplitError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{Duration, Instant};

/// How long the answer to a creation waits until this node has a leader for all of it.
const READY_MAX: Duration = Duration::from_secs(3);
/// How long the answer to a split waits until it is finished; most take some tens of milliseconds.
const SPLIT_MAX: Duration = Duration::from_millis(500);
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

/// A partition that is to be split.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WantedSplit {
    /// The keyspace; that of the port when none is named.
    pub(crate) keyspace: Option<String>,
    /// The partition; the one with the most slots when none is named.
    pub(crate) partition: Option<u32>,
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
        .route("/partitions/split", post(split))
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
                Refused::Split(error) => split_status(error),
                Refused::NotFound { .. } => StatusCode::NOT_FOUND,
                Refused::Permanent { .. } | Refused::Map(_) | Refused::QuotaZero => StatusCode::BAD_REQUEST,
                Refused::Malformed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, refused.to_string())
        }
        Problem::Rejected(Rejection::Unknown) => {
            let words = "the leader changed meanwhile, so it may have been carried out or not; quorate keyspace list, or quorate partitions, shows which";
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
            context.gateway.await_leader(map.id, READY_MAX).await;
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

/// Orders a split. 200: it is finished; 202: it goes on, and `GET /partitions` lists the child when it is finished.
async fn split(State(context): State<Context>, body: Bytes) -> Response {
    let wanted = if body.is_empty() { Ok(WantedSplit::default()) } else { serde_json::from_slice(&body) };
    let wanted: WantedSplit = match wanted {
        Ok(wanted) => wanted,
        Err(error) => {
            return refusal(Problem::Senseless(format!("what is wanted is not understood: {error}")));
        }
    };
    let name = wanted.keyspace.or_else(|| context.keyspace.as_deref().map(str::to_owned));
    let name = name.unwrap_or_else(|| "default".to_owned());
    if name == "system" {
        let words = "keyspace system is the cluster's own and has one partition for ever";
        return refusal(Problem::Senseless(words.to_owned()));
    }
    let partition = wanted.partition.map(PartitionId);
    let maps = match carry_out(&context, Order::Split { name: name.clone(), partition }).await {
        Ok(maps) => maps,
        Err(Problem::Refused(Refused::Split(error))) => {
            return json_of(split_status(&error), &json!({"error": split_words(&name, &error)}));
        }
        Err(problem) => return refusal(problem),
    };
    let ordered = maps.iter().find_map(|map| {
        // Of all children that are named the newest is ours.
        let (parent, (child, slots)) = map
            .partitions
            .iter()
            .filter_map(|parent| Some((parent, parent.child()?)))
            .max_by_key(|(_, (child, _))| *child)?;
        let told = json!({
            "keyspace": map.id.0,
            "name": map.name,
            "parent": parent.id.0,
            "child": child.0,
            "parent_slots": parent.slots.len() - slots.len(),
            "child_slots": slots.len(),
            "ranges": ranges_json(slots),
        });
        Some((map.id, child, told))
    });
    let Some((keyspace, child, mut told)) = ordered else {
        return json_of(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "the split is not in the map"}));
    };
    let begun = Instant::now();
    let is_finished = loop {
        // With its leaders known here, so that whoever goes on at once need not wait for them.
        if is_split_off(&context, keyspace, child).await && context.gateway.has_leader(keyspace) {
            break true;
        }
        if begun.elapsed() >= SPLIT_MAX {
            break false;
        }
        tokio::time::sleep(LOOK).await;
    };
    told["finished"] = json!(is_finished);
    json_of(if is_finished { StatusCode::OK } else { StatusCode::ACCEPTED }, &told)
}

/// Whether this node routes keys to a child.
async fn is_split_off(context: &Context, keyspace: KeyspaceId, child: PartitionId) -> bool {
    let standing = context.gateway.standing().await;
    let map = standing.as_ref().ok().and_then(|standing| standing.maps.iter().find(|map| map.id == keyspace));
    map.is_some_and(|map| map.partition(child).is_some())
}

fn split_status(error: &SplitError) -> StatusCode {
    match error {
        SplitError::UnderWay(_) | SplitError::TooMany => StatusCode::CONFLICT,
        SplitError::NoPartition(_) => StatusCode::NOT_FOUND,
        SplitError::Fixed | SplitError::TooFewSlots(_) | SplitError::NotUnderWay(_) => {
            StatusCode::BAD_REQUEST
        }
    }
}

fn split_words(name: &str, error: &SplitError) -> String {
    match error {
        SplitError::NoPartition(id) => {
            format!("keyspace {name} has no partition {id}; quorate partitions lists those that it has")
        }
        SplitError::UnderWay(id) => format!(
            "partition {id} of keyspace {name} is being split already; quorate partitions shows when that is finished"
        ),
        SplitError::TooFewSlots(id) => format!(
            "partition {id} of keyspace {name} has fewer than two slots: all its keys are in one, and stay together"
        ),
        SplitError::TooMany => format!(
            "keyspace {name} has {PARTITIONS_MAX} partitions, those being split off counted in: there are no more in one"
        ),
        SplitError::Fixed | SplitError::NotUnderWay(_) => format!("keyspace {name}: {error}"),
    }
}
