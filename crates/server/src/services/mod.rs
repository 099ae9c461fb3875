//! etcd's API over gRPC, health, version and metrics over HTTP: all on the client port.

mod cluster;
pub(crate) mod direct;
pub(crate) mod events;
mod http;
pub(crate) mod keyspaces;
mod kv;
mod lease;
mod maintenance;
pub(crate) mod nodes;
pub(crate) mod recovery;
pub(crate) mod ring;
mod watch;

use crate::belonging::Belonging;
use crate::config::Config;
use crate::engine::DiskEngine;
use crate::metrics::Metrics;
use crate::runtime::calls::Calls;
use crate::runtime::gateway::Gateway;
use direct::Direct;
use quorate_api::part::part_server;
use quorate_api::{pb, response};
use quorate_partition::ReadError;
use quorate_types::map::is_name;
use quorate_types::{Fault, KeyspaceId, Rejection, Reply, Request as Ask, Revision, Term};
use std::fmt::Display;
use std::sync::Arc;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// What every service has at hand.
#[derive(Clone)]
pub struct Context {
    /// The way to the node.
    pub gateway: Gateway,
    /// The way to other nodes, for what they have to do themselves.
    pub calls: Arc<Calls>,
    /// The ordered store, for its size.
    pub engine: DiskEngine,
    /// Whether there is space for writes.
    pub space: crate::space::Space,
    /// What happened here.
    pub recorder: crate::events::recorder::Recorder,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The settings in force.
    pub config: Arc<Config>,
    /// What this node knew of the cluster from the start.
    pub belonging: Arc<Belonging>,
    /// The keyspace of calls that name none; the default one where the port has none, either.
    pub keyspace: Option<Arc<str>>,
    /// Turns true when the node is about to stop.
    pub stop: tokio::sync::watch::Receiver<bool>,
}

/// With this in its metadata a call goes to the keyspace of that name.
pub(crate) const KEYSPACE_HEADER: &str = "quorate-keyspace";

/// Room for what surrounds a request of the largest size: beyond it gRPC itself refuses the frame, as etcd's does.
const FRAME_OVERHEAD: usize = 512 << 10;

/// With this in its metadata, "true", a call wants no answer from a node that knows no leader.
const REQUIRE_LEADER: &str = "hasleader";
/// A stream of such a client ends when there has been no leader for so many election timeouts.
const LEADERLESS_TIMEOUTS_MAX: u32 = 3;

impl Context {
    fn header(&self, revision: Revision, term: Term) -> Option<pb::ResponseHeader> {
        Some(self.signature(revision, term))
    }

    fn signature(&self, revision: Revision, term: Term) -> pb::ResponseHeader {
        let member = self.gateway.identity();
        response::header(member.cluster, member.node, revision, term)
    }

    /// The header of a call that is about no revision in particular: the newest this node has.
    fn header_now(&self, keyspace: KeyspaceId) -> Option<pb::ResponseHeader> {
        let reader = self.gateway.reader(keyspace).ok()?;
        self.header(reader.revision(), self.gateway.newest_term(keyspace))
    }

    /// The keyspace that a call is for: that of its metadata, or else that of the port. Refused when it does not exist, when it is the
    /// one that the cluster keeps about itself, and when the client requires a leader that this node does not know.
    async fn keyspace(&self, metadata: &MetadataMap) -> Result<KeyspaceId, Status> {
        let named = metadata.get(KEYSPACE_HEADER).map(|name| String::from_utf8_lossy(name.as_bytes()));
        let keyspace = match named.as_deref().or(self.keyspace.as_deref()) {
            // Always there, also before this node has heard of it.
            None | Some("default") => KeyspaceId::DEFAULT,
            Some(name) => self.by_name(name).await?,
        };
        if requires_leader(metadata) && !self.gateway.has_leader(keyspace) {
            return Err(rejected(Rejection::NoLeader));
        }
        Ok(keyspace)
    }

    /// The keyspace of this name. That there is none is said only when this node has heard of all that were created before.
    async fn by_name(&self, name: &str) -> Result<KeyspaceId, Status> {
        if name == "system" {
            return Err(Status::permission_denied(
                "keyspace system is the cluster's own and not for clients; see quorate keyspace list, quorate members and quorate partitions",
            ));
        }
        if let Some(keyspace) = self.gateway.by_name(name) {
            return Ok(keyspace);
        }
        if is_name(name) {
            self.gateway.barrier(KeyspaceId::SYSTEM, Vec::new()).await.map_err(rejected)?;
        }
        self.gateway.by_name(name).ok_or_else(|| {
            Status::not_found(format!(
                "keyspace {} does not exist; quorate keyspace list shows those that do, quorate keyspace create makes one",
                name.escape_default()
            ))
        })
    }

    /// The keyspace of the port, for what has no metadata.
    async fn own_keyspace(&self) -> Result<KeyspaceId, Status> {
        self.keyspace(&MetadataMap::new()).await
    }

    /// Has a client's request carried out.
    async fn ask(&self, keyspace: KeyspaceId, request: Ask) -> Result<Reply, Status> {
        self.gateway.request(keyspace, request).await.map_err(rejected)
    }
}

/// Whether a call or stream is of a client that would rather go elsewhere than wait here for a leader.
fn requires_leader(metadata: &MetadataMap) -> bool {
    metadata.get(REQUIRE_LEADER).is_some_and(|value| value == "true")
}

/// Waits until a stream whose client requires a leader has to end for want of one; for ever, if it does not.
async fn leader_missed(context: &Context, keyspace: KeyspaceId, is_required: bool) {
    if !is_required {
        return std::future::pending().await;
    }
    let limit = LEADERLESS_TIMEOUTS_MAX * context.config.election_timeout;
    context.gateway.leaderless_for(keyspace, limit).await;
}

fn rejected(rejection: Rejection) -> Status {
    match rejection {
        // It was there when the call came: who names one that is not there is told so before anything is asked.
        Rejection::KeyspaceNotFound => {
            Status::not_found("the keyspace has been deleted; quorate keyspace list shows those that exist")
        }
        rejection => quorate_api::status::status(&rejection),
    }
}

fn unread(error: ReadError) -> Status {
    match error {
        ReadError::Rejection(rejection) => rejected(rejection),
        ReadError::Fault(fault) => {
            tracing::error!(%fault, "a read failed");
            unreadable(&fault)
        }
    }
}

/// What cannot be read here for damage others have, and this node has soon.
fn unreadable(fault: &Fault) -> Status {
    if fault.is_damage() {
        return Status::unavailable(
            "etcdserver: what this node has stored is damaged; others answer, and it is filled anew from them",
        );
    }
    Status::data_loss("etcdserver: corrupt cluster")
}

/// Everything that is served on the client port, and those of it that most calls are.
pub fn served(context: Context) -> (axum::Router, Direct) {
    let message_bytes_max = context.config.request_bytes_max + FRAME_OVERHEAD;
    let direct = Direct::new(context.clone(), message_bytes_max);
    (router(context, message_bytes_max), direct)
}

fn router(context: Context, message_bytes_max: usize) -> axum::Router {
    let mut routes = tonic::service::Routes::builder();
    routes.add_service(
        pb::kv_server::KvServer::new(kv::Kv(context.clone()))
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(i32::MAX as usize),
    );
    routes.add_service(
        pb::watch_server::WatchServer::new(watch::Watch(context.clone()))
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(i32::MAX as usize),
    );
    routes.add_service(pb::lease_server::LeaseServer::new(lease::Lease(context.clone())));
    routes.add_service(pb::cluster_server::ClusterServer::new(cluster::Cluster(context.clone())));
    routes.add_service(pb::maintenance_server::MaintenanceServer::new(maintenance::Maintenance(
        context.clone(),
    )));
    let (_, health) = tonic_health::server::health_reporter();
    routes.add_service(health);
    let grpc = routes.routes().prepare().into_axum_router();
    let grpc = grpc.layer(axum::middleware::map_response(too_large_as_etcd));
    grpc.merge(http::router(context.clone()))
        .merge(keyspaces::router(context.clone()))
        .merge(recovery::router(context.clone()))
        .merge(nodes::router(context))
}

/// What other nodes may call, on the peer port.
pub fn peer_router(context: Context) -> axum::Router {
    let mut routes = tonic::service::Routes::builder();
    routes.add_service(
        pb::watch_server::WatchServer::new(watch::PeerWatch(context.clone()))
            .max_decoding_message_size(context.config.request_bytes_max + FRAME_OVERHEAD)
            .max_encoding_message_size(i32::MAX as usize),
    );
    routes.add_service(
        part_server::PartServer::new(watch::part::PartService(context.clone()))
            .max_decoding_message_size(context.config.request_bytes_max + FRAME_OVERHEAD)
            .max_encoding_message_size(i32::MAX as usize),
    );
    routes.routes().prepare().into_axum_router()
}

/// As etcd says it.
fn too_large(found: impl Display, limit: impl Display) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

/// How the gRPC library tells that a frame is over the limit, up to the two numbers.
const TOO_LARGE: &str = "Error, decoded message length too large: found ";

/// A frame over the limit is refused by the gRPC library itself, with "out of range"; clients of etcd know "resource exhausted".
fn as_etcd(refusal: Status) -> Status {
    let sizes = refusal.message().strip_prefix(TOO_LARGE);
    let Some(sizes) = sizes.filter(|_| refusal.code() == tonic::Code::OutOfRange) else { return refusal };
    let mut numbers = sizes.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    let (found, limit) = (numbers.next().unwrap_or("?"), numbers.next().unwrap_or("?"));
    too_large(found, limit)
}

/// The same for an answer that is all head.
async fn too_large_as_etcd(response: axum::response::Response) -> axum::response::Response {
    // Nearly every answer has its status behind it, in trailers.
    if !response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    let Some(refusal) = Status::from_header_map(response.headers()) else { return response };
    if refusal.code() != tonic::Code::OutOfRange {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The message is plain ASCII, so it can be said in a header.
    if as_etcd(refusal).add_header(&mut parts.headers).is_err() {
        tracing::debug!("a refusal could not be put into words");
    }
    axum::response::Response::from_parts(parts, body)
}
