//! Groups that have lost their quorum: what is left of each on this node, and the order to go on with that. JSON over HTTP on the client port, for `quorate
//! partitions recover` and programs.
//!
//! `GET /partitions/survivors`, `POST /partitions/recover` with a [`WantedRecovery`]. Neither needs a leader of anything, so both work when nothing else does. An
//! order is answered when it is taken; it is carried out when this node leads the group in a newer lineage.

use super::Context;
use super::http::json_of;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use quorate_node::recovery::RecoverRefused;
use quorate_types::{GroupId, Index, NodeId, PartitionId, Position, Term};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// A group that is to go on with what the node that is asked has of it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedRecovery {
    /// The keyspace's name; "system" for the group of the cluster's own rows.
    pub(crate) keyspace: String,
    pub(crate) partition: u32,
    /// Where the replica's log ends, as it was shown to whoever orders this.
    pub(crate) last_term: u64,
    pub(crate) last_index: u64,
}

pub(super) fn router(context: Context) -> Router {
    Router::new()
        .route("/partitions/survivors", get(survivors))
        .route("/partitions/recover", post(recover))
        .with_state(context)
}

async fn survivors(State(context): State<Context>) -> Response {
    let unavailable = |words: String| json_of(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": words}));
    let found = match context.gateway.survivors().await {
        Ok(found) => found,
        Err(rejection) => return unavailable(rejection.to_string()),
    };
    let names: BTreeMap<NodeId, String> =
        found.members.iter().map(|member| (member.id, member.name.clone())).collect();
    let name = |id: &NodeId| {
        names.get(id).filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| id.to_string())
    };
    let groups = found.groups.iter().map(|(keyspace, id, survivor)| {
        json!({
            "keyspace": keyspace,
            "partition": id.partition.0,
            "last_term": survivor.last.term.0,
            "last_index": survivor.last.index.0,
            "committed": survivor.commit.0,
            "lineage": survivor.lineage,
            "whole": survivor.is_whole,
            "admitted": survivor.is_admitted,
            "leader": survivor.leader.as_ref().map(name),
            "voters": survivor.voters.iter().map(name).collect::<Vec<_>>(),
            "heard": survivor.heard.iter().map(name).collect::<Vec<_>>(),
            "quorum": survivor.has_quorum,
        })
    });
    let own = context.gateway.identity().node;
    json_of(StatusCode::OK, &json!({"node": name(&own), "groups": groups.collect::<Vec<_>>()}))
}

async fn recover(State(context): State<Context>, body: Bytes) -> Response {
    let refusal = |status, words: String| json_of(status, &json!({"error": words}));
    let wanted: WantedRecovery = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => {
            return refusal(StatusCode::BAD_REQUEST, format!("what is wanted is not understood: {error}"));
        }
    };
    let WantedRecovery { keyspace: name, partition, last_term, last_index } = wanted;
    let keyspace = if name == "system" {
        GroupId::META.keyspace
    } else {
        match context.gateway.by_name(&name) {
            Some(keyspace) => keyspace,
            None => return refusal(StatusCode::NOT_FOUND, format!("there is no keyspace {name}")),
        }
    };
    let group = GroupId { keyspace, partition: PartitionId(partition) };
    let shown = Position { term: Term(last_term), index: Index(last_index) };
    match context.gateway.recover(group, shown).await {
        Ok(Ok(())) => json_of(StatusCode::ACCEPTED, &json!({"keyspace": name, "partition": partition})),
        Ok(Err(refused)) => {
            let status = match refused {
                RecoverRefused::NotHere => StatusCode::NOT_FOUND,
                RecoverRefused::TooEarly | RecoverRefused::MetaFirst => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::CONFLICT,
            };
            refusal(status, format!("{name}/{partition}: {refused}"))
        }
        Err(rejection) => refusal(StatusCode::SERVICE_UNAVAILABLE, rejection.to_string()),
    }
}
