//! Health, version and metrics over plain HTTP.

use super::{Context, KEYSPACE};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use quorate_api::version;
use quorate_mvcc::engine::Engine;
use quorate_types::Rejection;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// A probe that waits longer has its answer.
const PROBE_MAX: Duration = Duration::from_secs(3);

/// The paths that are not gRPC.
pub(super) fn router(context: Context) -> axum::Router {
    axum::Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version_of))
        .route("/metrics", get(metrics))
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
    let reader = match context.gateway.reader(KEYSPACE) {
        Ok(reader) => reader,
        Err(rejection) => return Some(rejection.to_string()),
    };
    if !reader.is_available() {
        return Some("this replica is being filled by a snapshot".into());
    }
    if is_serializable {
        return None;
    }
    match tokio::time::timeout(PROBE_MAX, context.gateway.barrier(KEYSPACE)).await {
        Ok(Ok(_)) => None,
        Ok(Err(Rejection::NoLeader)) => Some("RAFT NO LEADER".into()),
        Ok(Err(rejection)) => Some(format!("RANGE ERROR:{rejection}")),
        Err(_) => Some("RAFT NO LEADER".into()),
    }
}

fn json_of(status: StatusCode, body: &serde_json::Value) -> Response {
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

async fn metrics(State(context): State<Context>) -> Response {
    let metrics = &context.metrics;
    if let Ok(groups) = context.gateway.status().await {
        for status in groups.iter().filter(|status| status.group.keyspace == KEYSPACE) {
            let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let consensus = &status.consensus;
            metrics.has_leader.set(consensus.leader.is_some().into());
            metrics.is_leader.set(status.is_serving.into());
            metrics.committed.set(signed(consensus.commit.0));
            metrics.applied.set(signed(consensus.applied.0));
            metrics.pending.set(signed(consensus.commit.0.saturating_sub(consensus.applied.0)));
            metrics.revision.set(signed(status.revision.0));
            metrics.leases.set(status.leases as i64);
        }
    }
    metrics.store_bytes.set(i64::try_from(context.engine.disk_bytes()).unwrap_or(i64::MAX));
    if let Ok(hub) = context.gateway.hub(KEYSPACE) {
        let counts = hub.counts();
        metrics.watches.set(counts.watches as i64);
        metrics.watch_streams.set(counts.streams as i64);
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text()).into_response()
}
