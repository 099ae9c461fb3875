//! Calls from node to node, for what the worker has no part in: gRPC over connections of the peer port.
//!
//! Such a connection begins with the same hello as those for messages, under another magic, and so with the same checks; what follows is HTTP/2. It is dialled when the first call is
//! made, and again when a call is made after it broke. HTTP/2 gives each call its own flow control: a call whose answers are not taken holds
//! one window of them and keeps no other from going on.

use super::hello::{DialError, Identity, Stream, Use, connect};
use super::transport::Peers;
use crate::tls::{Current, PeerConfig};
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use quorate_types::NodeId;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

/// Calls at a time on one connection; more wait.
const CALLS_MAX: u32 = 16_384;
/// Bytes of one call that are on their way or not taken yet.
const CALL_WINDOW: u32 = 128 << 10;
/// Of all calls of a connection together: as many as all may have, so that those that are not taken keep no other waiting.
const CONNECTION_WINDOW: u32 = i32::MAX as u32;
/// Between two signs of life while there are calls,
const PING_EVERY: Duration = Duration::from_secs(1);
/// and how long one may take.
const PING_MAX: Duration = Duration::from_secs(2);
/// A peer that says nothing for so long is asked for a sign of life by the one who answers.
const PING_AFTER: Duration = Duration::from_secs(10);
/// Calls that a peer takes back before they were looked at; after more it is cut off.
const TAKEN_BACK_MAX: usize = 1_024;

/// The way to call other members.
pub struct Calls {
    identity: Identity,
    tls: Option<Arc<Current<PeerConfig>>>,
    peers: watch::Receiver<Arc<Peers>>,
    /// To whom there was a call, with the address.
    channels: Mutex<HashMap<NodeId, (String, Channel)>>,
}

impl Calls {
    /// Calls those that `peers` names.
    pub fn new(
        identity: Identity,
        tls: Option<Arc<Current<PeerConfig>>>,
        peers: watch::Receiver<Arc<Peers>>,
    ) -> Self {
        Self { identity, tls, peers, channels: Mutex::default() }
    }

    /// The way to one of them; `None` when it is no member.
    pub fn channel(&self, peer: NodeId) -> Option<Channel> {
        let peers = self.peers.borrow().clone();
        let mut channels = self.channels.lock();
        channels.retain(|node, (address, _)| peers.get(node) == Some(address));
        let address = peers.get(&peer)?;
        let open = || {
            let dialler =
                Dialler { identity: self.identity, tls: self.tls.clone(), peer, address: address.clone() };
            // The address is the dialler's; this one is only what requests are said to be for.
            let channel = Endpoint::from_static("http://peer")
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_MAX)
                .initial_stream_window_size(CALL_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .connect_with_connector_lazy(dialler);
            (address.clone(), channel)
        };
        Some(channels.entry(peer).or_insert_with(open).1.clone())
    }
}

/// Dials one peer for calls.
struct Dialler {
    identity: Identity,
    tls: Option<Arc<Current<PeerConfig>>>,
    peer: NodeId,
    address: String,
}

impl Service<Uri> for Dialler {
    type Response = TokioIo<Stream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (identity, tls, peer, address) =
            (self.identity, self.tls.clone(), self.peer, self.address.clone());
        Box::pin(async move {
            let connected = connect(&identity, tls.as_deref(), peer, &address, Use::Calls).await;
            connected.map(TokioIo::new)
        })
    }
}

/// Answers the calls of one peer until the connection ends.
pub async fn answer(stream: Stream, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_MAX)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_MAX)
        .max_pending_accept_reset_streams(TAKEN_BACK_MAX);
    let service = TowerToHyperService::new(router);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        debug!(error, "a peer's connection for calls ended");
    }
}
