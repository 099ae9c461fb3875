//! Nodes that join, and orders about nodes: JSON over HTTP on the client port, for `quorate serve --join`, `quorate node` and programs.
//!
//! `GET /nodes`, `POST /nodes` with a [`WantedOrder`], `POST /nodes/join` with a [`Joining`], answered by a [`Welcome`]; `GET /nodes/cluster` says which cluster this is. Whoever may
//! connect to a client port may do it, as with keyspaces ([`super::keyspaces`]). An order is answered when it stands, not when all that follows from it is
//! done: `GET /nodes` shows that.

use super::Context;
use super::http::json_of;
use crate::data_dir::{Owner, draw_node_id};
use crate::membership::{self, ToldMember};
use crate::runtime::gateway::OrderProblem;
use crate::runtime::hello::PROTOCOL;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use quorate_node::{Cluster, ClusterOrder, Nodes, OrderRefused, Which};
use quorate_types::member::Standing;
use quorate_types::{ClusterId, GroupId, Member, NodeId, Rejection};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// What a node says of itself that wants to join.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Joining {
    pub(crate) name: String,
    pub(crate) peer: String,
    #[serde(default)]
    pub(crate) zone: String,
    #[serde(default = "one")]
    pub(crate) weight: u32,
    /// Whether it speaks TLS with peers.
    #[serde(default)]
    pub(crate) is_peer_tls: bool,
    /// Which version of the protocol between nodes it speaks.
    pub(crate) protocol: u32,
}

fn one() -> u32 {
    1
}

/// What it is told then.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Welcome {
    cluster: String,
    /// Its id.
    node: String,
    members: Vec<ToldMember>,
    first_voters: Vec<String>,
}

impl Welcome {
    /// What the node is from now on.
    pub(crate) fn taken(self) -> Result<(Owner, Cluster), &'static str> {
        let hex = |text: &String| u64::from_str_radix(text, 16).ok();
        let cluster = ClusterId(hex(&self.cluster).ok_or("the cluster's id")?);
        let node = NodeId(hex(&self.node).filter(|id| *id != 0).ok_or("the node's id")?);
        let members: Option<Vec<Member>> = self.members.into_iter().map(ToldMember::member).collect();
        let members = members.ok_or("a member")?;
        let first: Option<Vec<NodeId>> = self.first_voters.iter().map(|id| hex(id).map(NodeId)).collect();
        let first_voters = first.filter(|first| !first.is_empty()).ok_or("the first voters")?;
        if !members.iter().any(|member| member.id == node) {
            return Err("the node is not among the members");
        }
        Ok((Owner { cluster, node }, Cluster { members, first_voters }))
    }
}

/// An order about a node, which is named by its name or its id.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum WantedOrder {
    /// Move everything away.
    Drain {
        node: String,
        #[serde(default)]
        force: bool,
    },
    /// Let it have its share again.
    Undrain { node: String },
    /// Move everything away and forget it.
    Remove {
        node: String,
        #[serde(default)]
        force: bool,
    },
    /// The same, as another is there in its place.
    Replace { node: String, by: String },
    /// How much it shall hold.
    Weight { node: String, weight: u32 },
    /// What fails together with it.
    Zone { node: String, zone: String },
    /// Where peers reach it.
    Peer { node: String, peer: String },
}

impl From<WantedOrder> for ClusterOrder {
    fn from(wanted: WantedOrder) -> Self {
        let which = Which::Called;
        match wanted {
            WantedOrder::Drain { node, force } => Self::Drain { member: which(node), is_forced: force },
            WantedOrder::Undrain { node } => Self::Undrain(which(node)),
            WantedOrder::Remove { node, force } => Self::Remove { member: which(node), is_forced: force },
            WantedOrder::Replace { node, by } => Self::Replace { member: which(node), by: which(by) },
            WantedOrder::Weight { node, weight } => Self::SetWeight(which(node), weight),
            WantedOrder::Zone { node, zone } => Self::SetZone(which(node), zone),
            WantedOrder::Peer { node, peer } => Self::SetPeer(which(node), peer),
        }
    }
}

pub(super) fn router(context: Context) -> Router {
    Router::new()
        .route("/nodes", get(list).post(order))
        .route("/nodes/join", post(join))
        .route("/nodes/cluster", get(cluster))
        .with_state(context)
}

fn refusal(problem: &OrderProblem) -> Response {
    let status = match problem {
        OrderProblem::Refused(refused) => match refused {
            OrderRefused::NotFound(_) => StatusCode::NOT_FOUND,
            OrderRefused::Senseless(_) => StatusCode::BAD_REQUEST,
            // A node that joins asks again by itself.
            OrderRefused::NotYet | OrderRefused::Contended => StatusCode::SERVICE_UNAVAILABLE,
            OrderRefused::Malformed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::CONFLICT,
        },
        OrderProblem::Rejected(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let words = match problem {
        OrderProblem::Rejected(Rejection::Unknown) => {
            "the leader changed meanwhile, so it may have been carried out or not; quorate node list shows which".to_owned()
        }
        problem => problem.to_string(),
    };
    json_of(status, &json!({"error": words}))
}

fn senseless(words: &str) -> Response {
    json_of(StatusCode::BAD_REQUEST, &json!({"error": words}))
}

async fn cluster(State(context): State<Context>) -> Response {
    let own = context.gateway.identity();
    json_of(StatusCode::OK, &json!({"cluster": own.cluster.to_string(), "node": own.node.to_string()}))
}

async fn join(State(context): State<Context>, body: Bytes) -> Response {
    let joining: Joining = match serde_json::from_slice(&body) {
        Ok(joining) => joining,
        Err(error) => return senseless(&format!("who wants to join is not understood: {error}")),
    };
    if joining.protocol != PROTOCOL {
        let found = joining.protocol;
        return senseless(&format!(
            "the node speaks version {found} of the protocol between nodes, the cluster version {PROTOCOL}: run the same version of quorate"
        ));
    }
    if joining.name.is_empty() {
        return senseless("a node that joins needs a name");
    }
    match (joining.is_peer_tls, context.config.peer_tls.is_some()) {
        (false, true) => {
            return senseless(
                "the nodes of this cluster speak TLS with each other: set --peer-cert-file, --peer-key-file and --peer-trusted-ca-file, \
                 too",
            );
        }
        (true, false) => {
            return senseless(
                "the nodes of this cluster speak no TLS with each other: leave --peer-cert-file, --peer-key-file and \
                 --peer-trusted-ca-file out",
            );
        }
        _ => {}
    }
    let Joining { name, peer, zone, weight, .. } = joining;
    let member = Member { zone, weight, ..Member::new(draw_node_id(), name, peer) };
    let nodes = match context.gateway.order(ClusterOrder::Join(member)).await {
        Ok(nodes) => nodes,
        Err(problem) => return refusal(&problem),
    };
    let Some(new) = &nodes.concerned else { return senseless("nothing has joined") };
    let first =
        nodes.place(GroupId::META).map_or(&context.belonging.known.first_voters, |place| &place.first);
    let welcome = Welcome {
        cluster: context.gateway.identity().cluster.to_string(),
        node: new.id.to_string(),
        members: nodes.members.iter().map(ToldMember::from).collect(),
        first_voters: first.iter().map(NodeId::to_string).collect(),
    };
    tracing::info!(node = %new.id, name = new.name, peer = new.peer, "a node joins the cluster");
    json_of(StatusCode::CREATED, &json!(welcome))
}

async fn order(State(context): State<Context>, body: Bytes) -> Response {
    let wanted: WantedOrder = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return senseless(&format!("what is wanted is not understood: {error}")),
    };
    match context.gateway.order(wanted.into()).await {
        Ok(nodes) => {
            let concerned = nodes.concerned.as_ref().map(|member| told(member, &nodes));
            json_of(StatusCode::OK, &json!({"node": concerned}))
        }
        Err(problem) => refusal(&problem),
    }
}

/// A standing, for people and programs. One without a name has not come yet.
fn standing_words(member: &Member) -> &'static str {
    match member.standing {
        Standing::Leaving => "leaving",
        _ if member.name.is_empty() => "expected",
        Standing::Active => "active",
        Standing::Draining => "draining",
        Standing::Lost => "lost",
    }
}

fn told(member: &Member, nodes: &Nodes) -> serde_json::Value {
    let meta = nodes.place(GroupId::META);
    json!({
        "id": member.id.to_string(),
        "name": member.name,
        "peer": member.peer,
        "zone": member.zone,
        "weight": member.weight,
        "standing": standing_words(member),
        "replicas": nodes.replicas_of(member.id),
        "meta": if meta.is_none_or(|meta| meta.voters.contains(&member.id)) { "voter" } else { "learner" },
    })
}

async fn list(State(context): State<Context>) -> Response {
    let nodes = match context.gateway.order(ClusterOrder::List).await {
        Ok(nodes) => nodes,
        Err(problem) => return refusal(&problem),
    };
    let standing = match context.gateway.standing().await {
        Ok(standing) => standing,
        Err(rejection) => return refusal(&rejection.into()),
    };
    // What is applied here may be a little older; it is only about where clients go.
    let listed = membership::members(&context.gateway, &context.belonging, false).await.unwrap_or_default();
    let mut clients: BTreeMap<NodeId, String> =
        listed.into_iter().filter_map(|listed| Some((listed.member.id, listed.record?.client))).collect();
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    let of_others = standing.led_afar.values().flatten().copied();
    for leader in standing.groups.iter().filter_map(|status| status.consensus.leader).chain(of_others) {
        *leads.entry(leader).or_default() += 1;
    }
    let mut members: Vec<&Member> = nodes.members.iter().collect();
    members.sort_by_key(|member| (&member.name, member.id));
    let told = members.into_iter().map(|member| {
        let mut told = told(member, &nodes);
        told["client"] = json!(clients.remove(&member.id).unwrap_or_default());
        told["leads"] = json!(leads.get(&member.id).copied().unwrap_or(0));
        told["heard"] = json!(!standing.unheard.contains(&member.id));
        told
    });
    let moves = nodes.places.iter().filter(|(_, place)| place.target.is_some()).count();
    let body = json!({
        "cluster": context.gateway.identity().cluster.to_string(),
        "told_by": context.gateway.identity().node.to_string(),
        "groups": nodes.places.len(),
        "copies": nodes.places.iter().map(|(_, place)| place.voters.len()).max().unwrap_or(0),
        "moves": moves,
        "nodes": told.collect::<Vec<_>>(),
    });
    json_of(StatusCode::OK, &body)
}
