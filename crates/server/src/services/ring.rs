//! Who the members are and who holds what, as this node knows it: what `quorate ring` is drawn from.
//!
//! Members and places are rows of the system keyspace; leaders are what this node's own replicas know, so who wants all of them asks all
//! nodes. A cluster that has no such rows yet is one in which every member holds everything.

use super::Context;
use super::http::{json_of, ranges_json};
use crate::membership;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use quorate_partition::ReadError;
use quorate_types::member::{Member, Standing};
use quorate_types::request::RangeRequest;
use quorate_types::{Decode, GroupId, KeyRange, KeyspaceId, NodeId, Place};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// What a node says of members and places.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct RingTold {
    /// Who says it.
    pub(crate) node: String,
    /// Up to which revision of the system keyspace; of two nodes' answers the one with the higher revision is newer.
    pub(crate) revision: u64,
    pub(crate) members: Vec<MemberTold>,
    pub(crate) keyspaces: Vec<KeyspaceTold>,
}

/// A member. Ids are in hex, as everywhere.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct MemberTold {
    pub(crate) id: String,
    /// Empty as long as it is not known.
    pub(crate) name: String,
    pub(crate) peer: String,
    /// Empty: a zone of its own.
    pub(crate) zone: String,
    pub(crate) weight: u32,
    pub(crate) standing: StandingTold,
}

/// A [`Standing`] in words.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StandingTold {
    Active,
    Draining,
    Leaving,
    Lost,
}

impl StandingTold {
    /// The word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Lost => "lost",
        }
    }
}

impl From<Standing> for StandingTold {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Active => Self::Active,
            Standing::Draining => Self::Draining,
            Standing::Leaving => Self::Leaving,
            Standing::Lost => Self::Lost,
        }
    }
}

/// A keyspace.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct KeyspaceTold {
    pub(crate) keyspace: u32,
    pub(crate) name: String,
    pub(crate) partitions: Vec<PlaceTold>,
}

/// Who holds a partition.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PlaceTold {
    pub(crate) partition: u32,
    /// Runs of slots, first and last.
    pub(crate) ranges: Vec<[u16; 2]>,
    pub(crate) voters: Vec<String>,
    /// Who shall hold it, while it is being moved.
    pub(crate) target: Option<Vec<String>>,
    /// As far as this node knows.
    pub(crate) leader: Option<String>,
    /// That leader's; of two nodes' answers the one of the higher term is newer.
    pub(crate) term: u64,
}

/// Members, places and leaders.
pub(super) async fn ring(State(context): State<Context>) -> Response {
    match told(&context).await {
        Ok(told) => json_of(StatusCode::OK, &json!(told)),
        Err(reason) => json_of(StatusCode::SERVICE_UNAVAILABLE, &json!({"reason": reason})),
    }
}

async fn told(context: &Context) -> Result<RingTold, String> {
    let standing = context.gateway.standing().await.map_err(|_| "the node is stopping".to_owned())?;
    let unreadable = |error: ReadError| error.to_string();
    let members =
        membership::members(&context.gateway, &context.belonging, false).await.map_err(unreadable)?;
    let members: Vec<Member> = members.into_iter().map(|listed| listed.member).collect();
    let (places, revision) = places(context).await.map_err(unreadable)?;
    let everybody: Vec<NodeId> = members.iter().map(|member| member.id).collect();
    let keyspaces = standing.maps.iter().map(|map| {
        let partitions = map.partitions.iter().map(|partition| {
            let group = GroupId { keyspace: map.id, partition: partition.id };
            let place = places.get(&group).cloned().unwrap_or_else(|| Place::new(everybody.clone()));
            let consensus = standing.group(group).map(|status| &status.consensus);
            PlaceTold {
                partition: partition.id.0,
                ranges: ranges_json(&partition.slots),
                voters: place.voters.into_iter().map(hex).collect(),
                target: place.target.map(|target| target.into_iter().map(hex).collect()),
                leader: consensus.and_then(|consensus| consensus.leader).map(hex),
                term: consensus.map_or(0, |consensus| consensus.term.0),
            }
        });
        KeyspaceTold { keyspace: map.id.0, name: map.name.clone(), partitions: partitions.collect() }
    });
    let keyspaces = keyspaces.collect();
    let members = members.into_iter().map(|member| MemberTold {
        id: hex(member.id),
        name: member.name,
        peer: member.peer,
        zone: member.zone,
        weight: member.weight,
        standing: member.standing.into(),
    });
    let node = hex(context.gateway.identity().node);
    Ok(RingTold { node, revision, members: members.collect(), keyspaces })
}

fn hex(node: NodeId) -> String {
    format!("{:x}", node.0)
}

/// The places, and the revision that they were read at. A row that cannot be read (of a newer version) is left out.
async fn places(context: &Context) -> Result<(BTreeMap<GroupId, Place>, u64), ReadError> {
    let mut range = RangeRequest::new(KeyRange::prefix(Place::rows()));
    range.serializable = true;
    let (revision, _, answer) = context.gateway.range(KeyspaceId::SYSTEM, range).await?;
    let rows = answer.pairs.into_iter().filter_map(|pair| {
        let place = Place::from_bytes(pair.value).ok()?;
        Some((Place::parse_row_key(&pair.key)?, place))
    });
    Ok((rows.collect(), revision.0))
}
