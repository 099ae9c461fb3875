//! etcd's API over gRPC, health, version and metrics over HTTP: all on the client port.

mod http;
mod kv;
mod lease;
mod maintenance;
mod watch;

use crate::config::Config;
use crate::engine::FjallEngine;
use crate::metrics::Metrics;
use crate::runtime::gateway::Gateway;
use quorate_api::{pb, response};
use quorate_partition::ReadError;
use quorate_types::{KeyspaceId, Rejection, Revision, Term};
use std::sync::Arc;
use tonic::Status;

/// What every service has at hand.
#[derive(Clone)]
pub struct Context {
    /// The way to the node.
    pub gateway: Gateway,
    /// The ordered store, for its size.
    pub engine: FjallEngine,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The settings in force.
    pub config: Arc<Config>,
    /// Turns true when the node is about to stop.
    pub stop: tokio::sync::watch::Receiver<bool>,
}

/// The keyspace that stock clients talk to.
const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

/// Room for what surrounds a request of the largest size: beyond it gRPC itself refuses the frame, as etcd's does.
const FRAME_OVERHEAD: usize = 512 << 10;

impl Context {
    fn header(&self, revision: Revision, term: Term) -> Option<pb::ResponseHeader> {
        let member = self.gateway.identity();
        Some(response::header(member.cluster, member.node, revision, term))
    }

    /// The header of a call that is about no revision in particular: the newest this node has.
    fn header_now(&self) -> Option<pb::ResponseHeader> {
        let reader = self.gateway.reader(KEYSPACE).ok()?;
        self.header(reader.revision(), self.gateway.newest_term(KEYSPACE))
    }
}

/// Waits until the node is about to stop.
async fn stopping(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn rejected(rejection: Rejection) -> Status {
    quorate_api::status::status(&rejection)
}

fn unread(error: ReadError) -> Status {
    match error {
        ReadError::Rejection(rejection) => rejected(rejection),
        ReadError::Fault(fault) => {
            tracing::error!(%fault, "a read failed");
            Status::data_loss("etcdserver: corrupt cluster")
        }
    }
}

/// Everything that is served on the client port.
pub fn router(context: Context) -> axum::Router {
    let message_bytes_max = context.config.request_bytes_max + FRAME_OVERHEAD;
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
    routes.add_service(pb::cluster_server::ClusterServer::new(maintenance::Cluster(context.clone())));
    routes.add_service(pb::maintenance_server::MaintenanceServer::new(maintenance::Maintenance(
        context.clone(),
    )));
    let (_, health) = tonic_health::server::health_reporter();
    routes.add_service(health);
    routes.routes().prepare().into_axum_router().merge(http::router(context))
}
