//! Watches: the shell between a gRPC stream and a watch hub, this node's or that of a node that has what is watched.

mod aside;
mod assembled;
mod assembly;
mod cover;
mod outgoing;
pub(super) mod part;
mod resume;
mod session;
mod share;
mod source;
mod telling;
#[cfg(test)]
mod testing;

use super::{Context, leader_missed, rejected, requires_leader};
use crate::runtime::connections::stopping;
use crate::runtime::keyspaces::Keyspace;
use futures_core::Stream;
use quorate_api::pb;
use quorate_types::{KeyspaceId, Rejection};
pub(in crate::services) use session::Session;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use telling::Telling;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// The service for clients.
pub(super) struct Watch(pub(super) Context);

/// The service for nodes that have not all of a keyspace: it serves from this node or not at all.
pub(super) struct PeerWatch(pub(super) Context);

/// Between two looks for a hub.
const PAUSE: Duration = Duration::from_millis(50);
/// Without a hub for so many election timeouts a stream ends.
const LOST_TIMEOUTS_MAX: u32 = 4;

type Responses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

/// In the metadata of a call from a node: which keyspace, by its number.
const KEYSPACE_ID_HEADER: &str = "quorate-keyspace-id";

#[tonic::async_trait]
impl pb::watch_server::Watch for Watch {
    type WatchStream = Responses;

    async fn watch(
        &self,
        message: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, requests) = message.into_parts();
        Ok(responses(self.session(&metadata, requests).await?))
    }
}

#[tonic::async_trait]
impl pb::watch_server::Watch for PeerWatch {
    type WatchStream = Responses;

    async fn watch(
        &self,
        message: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let keyspace = keyspace_of(message.metadata())?;
        let here = self.0.gateway.keyspace(keyspace).map_err(rejected)?;
        // Whoever asks can turn to others, and does when this node has long lost sight of the keyspace's leaders.
        Ok(responses(session(&self.0, here, message.into_inner(), true, true)))
    }
}

fn keyspace_of(metadata: &MetadataMap) -> Result<KeyspaceId, Status> {
    let named = metadata.get(KEYSPACE_ID_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    let keyspace = named.map(KeyspaceId).filter(|keyspace| *keyspace != KeyspaceId::SYSTEM);
    keyspace.ok_or_else(|| Status::invalid_argument("no keyspace is named"))
}

impl Watch {
    /// A client's stream.
    pub(super) async fn session(
        &self,
        metadata: &MetadataMap,
        requests: Streaming<pb::WatchRequest>,
    ) -> Result<Session, Status> {
        let keyspace = self.0.keyspace(metadata).await?;
        let here = self.0.gateway.keyspace(keyspace).map_err(rejected)?;
        Ok(session(&self.0, here, requests, requires_leader(metadata), false))
    }
}

fn session(
    context: &Context,
    here: Arc<Keyspace>,
    requests: Streaming<pb::WatchRequest>,
    is_leader_required: bool,
    is_for_peer: bool,
) -> Session {
    let ending = {
        let (context, here) = (context.clone(), here.clone());
        async move { ending(&context, &here, is_leader_required).await }
    };
    Session::new(context.clone(), here, requests, ending, is_for_peer)
}

fn responses(session: Session) -> Response<Responses> {
    let responses = futures_util::stream::unfold(session, |mut session| async move {
        let next = session.next().await?;
        Some((next.map(Telling::whole), session))
    });
    Response::new(Box::pin(responses))
}

/// Why a stream has to end though its client is there.
async fn ending(context: &Context, here: &Keyspace, is_leader_required: bool) -> Status {
    let mut stop = context.stop.clone();
    tokio::select! {
        () = stopping(&mut stop) => Status::unavailable("etcdserver: server stopped"),
        () = here.gone() => rejected(Rejection::KeyspaceNotFound),
        () = leader_missed(context, here.reader.keyspace(), is_leader_required) => rejected(Rejection::NoLeader),
    }
}
