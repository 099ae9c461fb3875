//! Health, version and metrics over plain HTTP.

use super::Context;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use quorate_api::version;
use quorate_mvcc::Size;
use quorate_mvcc::engine::Engine;
use quorate_node::Reach;
use quorate_partition::ReadError;
use quorate_types::request::RangeRequest;
use quorate_types::{GroupId, KeyRange, KeyspaceId, Rejection, Request, Rule, Rules, Slot, SlotSet};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A probe that waits longer has its answer.
const PROBE_MAX: Duration = Duration::from_secs(3);

/// Read by a probe of a node that has nothing itself; it need not exist.
const PROBED: &str = "health";

/// Sizes are counted for one at a time: each reads everything.
static COUNTING: Semaphore = Semaphore::const_new(1);

/// The paths that are not gRPC.
pub(super) fn router(context: Context) -> axum::Router {
    axum::Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version_of))
        .route("/metrics", get(metrics))
        .route("/partitions", get(partitions))
        .route("/ring", get(super::ring::ring))
        .route("/events", get(super::events::events))
        .with_state(context)
}

#[derive(Deserialize)]
struct HealthQuery {
    #[serde(default)]
    serializable: bool,
    exclude: Option<String>,
}

/// Why this node cannot serve, if it cannot.
async fn problem(context: &Context, is_serializable: bool) -> Option<String> {
    let keyspace = match context.own_keyspace().await {
        Ok(keyspace) => keyspace,
        Err(status) => return Some(status.message().to_owned()),
    };
    let here = match context.gateway.keyspace(keyspace) {
        Ok(here) => here,
        Err(rejection) => return Some(rejection.to_string()),
    };
    let is_served_elsewhere =
        here.holding().borrow().as_ref().is_some_and(|it| !it.is_here && !it.others.is_empty());
    if !is_served_elsewhere && !here.reader.is_available() {
        return Some("this replica is being filled by a snapshot".into());
    }
    if is_serializable {
        return None;
    }
    // Those who have it are asked what etcd's own probe asks: a key.
    let ranges = if is_served_elsewhere { vec![KeyRange::Single(PROBED.into())] } else { Vec::new() };
    let probe = async {
        let grant = context.gateway.barrier(keyspace, ranges.clone()).await?;
        match (grant.reach, ranges.into_iter().next()) {
            (Reach::Leader, Some(range)) => {
                let request = Request::Range(RangeRequest::new(range));
                context.gateway.request(keyspace, request).await.map(drop)
            }
            _ => Ok(()),
        }
    };
    match tokio::time::timeout(PROBE_MAX, probe).await {
        Ok(Ok(())) => None,
        Ok(Err(Rejection::NoLeader)) => Some("RAFT NO LEADER".into()),
        Ok(Err(rejection)) => Some(format!("RANGE ERROR:{rejection}")),
        Err(_) => Some("RAFT NO LEADER".into()),
    }
}

pub(super) fn json_of(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn health(State(context): State<Context>, Query(query): Query<HealthQuery>) -> Response {
    // A node short of space still answers reads; who asks may leave that out, as with etcd.
    if context.space.is_short() && query.exclude.as_deref() != Some("NOSPACE") {
        let body = json!({"health": "false", "reason": "ALARM NOSPACE"});
        return json_of(StatusCode::SERVICE_UNAVAILABLE, &body);
    }
    match problem(&context, query.serializable).await {
        None => json_of(StatusCode::OK, &json!({"health": "true", "reason": ""})),
        Some(reason) => {
            json_of(StatusCode::SERVICE_UNAVAILABLE, &json!({"health": "false", "reason": reason}))
        }
    }
}

async fn livez(State(context): State<Context>) -> Response {
    checked("serializable_read", problem(&context, true).await)
}

async fn readyz(State(context): State<Context>) -> Response {
    checked("linearizable_read", problem(&context, false).await)
}

fn checked(name: &str, problem: Option<String>) -> Response {
    match problem {
        None => "ok\n".into_response(),
        Some(problem) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("[-]{name} failed: {problem}\n")).into_response()
        }
    }
}

async fn version_of() -> Response {
    let body = json!({
        "etcdserver": version::ETCD,
        "etcdcluster": version::ETCD_CLUSTER,
        "quorate": version::OWN,
    });
    json_of(StatusCode::OK, &body)
}

/// Placement rules, for people and programs.
pub(super) fn rules_json(rules: &Rules) -> Vec<serde_json::Value> {
    let rules = rules.list().iter().map(|rule| match rule {
        Rule::Pin { prefix } => json!({"pin": String::from_utf8_lossy(prefix)}),
        Rule::Spread { directory, bits } => {
            json!({"spread": String::from_utf8_lossy(directory), "bits": bits})
        }
    });
    rules.collect()
}

/// Slots as runs, first and last.
pub(super) fn ranges_json(slots: &SlotSet) -> Vec<[u16; 2]> {
    slots.ranges().map(|range| [range.start, range.end - 1]).collect()
}

#[derive(Deserialize)]
struct PartitionsQuery {
    /// Count what each partition holds, which reads all of it.
    #[serde(default)]
    sizes: bool,
    /// Of this keyspace only.
    keyspace: Option<String>,
}

/// Every partition as this node knows it; `quorate partitions` puts the nodes' answers together.
async fn partitions(State(context): State<Context>, Query(query): Query<PartitionsQuery>) -> Response {
    let unavailable = |reason: &str| json_of(StatusCode::SERVICE_UNAVAILABLE, &json!({"reason": reason}));
    let Ok(standing) = context.gateway.standing().await else {
        return unavailable("the node is stopping");
    };
    let mut sizes: BTreeMap<_, BTreeMap<Slot, Size>> = BTreeMap::new();
    if query.sizes {
        let Ok(permit) = COUNTING.try_acquire() else {
            return unavailable("sizes are being counted for somebody else; ask again");
        };
        let is_asked = |name: &str| query.keyspace.as_ref().is_none_or(|asked| asked == name);
        let asked = standing.maps.iter().filter(|map| is_asked(&map.name));
        let readers: Vec<_> = asked.filter_map(|map| context.gateway.reader(map.id).ok()).collect();
        // Who asked may go away; the count goes on, and is the only one until it is done.
        let counted = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            readers.iter().map(|reader| Ok((reader.keyspace(), reader.sizes()?))).collect()
        });
        sizes = match counted.await {
            Ok(Ok(counted)) => counted,
            Ok(Err(ReadError::Rejection(_))) => {
                return unavailable("a snapshot is replacing a part of this node's state; ask another node");
            }
            Ok(Err(ReadError::Fault(fault))) => return unavailable(&fault.to_string()),
            Err(_) => return unavailable("the node is stopping"),
        };
    }
    let keyspaces = standing.maps.iter().map(|map| {
        let partitions = map.partitions.iter().map(|partition| {
            let group = GroupId { keyspace: map.id, partition: partition.id };
            let mut told = json!({
                "partition": partition.id.0,
                "slots": partition.slots.len(),
                "ranges": ranges_json(&partition.slots),
            });
            if let Some(sizes) = sizes.get(&map.id) {
                let own = sizes.iter().filter(|(slot, _)| partition.slots.contains(**slot));
                let size = own.fold(Size::default(), |sum, (_, size)| sum.plus(*size));
                told["versions"] = json!(size.versions);
                told["bytes"] = json!(size.bytes);
            }
            if let Some((child, slots)) = partition.child() {
                let opened = standing.group(GroupId { keyspace: map.id, partition: child });
                told["splitting"] =
                    json!({"child": child.0, "slots": slots.len(), "is_opened": opened.is_some()});
            }
            if let Some(status) = standing.group(group) {
                let consensus = &status.consensus;
                told["leader"] = json!(consensus.leader.map(|leader| format!("{:x}", leader.0)));
                told["term"] = json!(consensus.term.0);
                told["serves"] = json!(status.is_serving);
                told["committed"] = json!(consensus.commit.0);
                told["applied"] = json!(consensus.applied.0);
                told["log_bytes"] = json!(consensus.log_bytes);
                told["sleeps"] = json!(consensus.is_hibernating);
            }
            told
        });
        let held_back = standing.held_back.get(&map.id).map(
            |held| json!({"partition": held.partition.0, "settled": held.settled.0, "newest": held.newest.0}),
        );
        json!({
            "keyspace": map.id.0,
            "name": map.name,
            "held_back": held_back,
            "revision": context.gateway.reader(map.id).map_or(0, |reader| reader.revision().0),
            "rules": rules_json(&map.rules),
            "partitions": partitions.collect::<Vec<_>>(),
        })
    });
    let node = format!("{:x}", context.gateway.identity().node.0);
    let body = json!({"node": node, "keyspaces": keyspaces.collect::<Vec<_>>()});
    json_of(StatusCode::OK, &body)
}

/// Of the default keyspace, and of the node.
async fn metrics(State(context): State<Context>) -> Response {
    let metrics = &context.metrics;
    if let Ok(standing) = context.gateway.standing().await {
        metrics.tell(&standing, KeyspaceId::DEFAULT);
    }
    if let Ok(reader) = context.gateway.reader(KeyspaceId::DEFAULT) {
        metrics.revision.set(i64::try_from(reader.revision().0).unwrap_or(i64::MAX));
    }
    metrics.store_bytes.set(i64::try_from(context.engine.disk_bytes()).unwrap_or(i64::MAX));
    if let Ok(hub) = context.gateway.hub(KeyspaceId::DEFAULT) {
        let counts = hub.counts();
        metrics.watches.set(counts.watches as i64);
        metrics.watch_streams.set(counts.streams as i64);
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text()).into_response()
}
