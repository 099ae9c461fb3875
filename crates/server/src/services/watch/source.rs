//! The hub that serves a stream: this node's, or another's, which is called over the peer port.

use super::KEYSPACE_ID_HEADER;
use super::telling::{Telling, messages};
use crate::runtime::calls::Calls;
use crate::runtime::watch_thread::WatchStream;
use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::{pb, request};
use quorate_partition::watch::{NO_WATCH, Refusal, WatchResponse, WatchResponseKind};
use quorate_types::{KeyspaceId, NodeId, Revision};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

/// Requests on their way to another node's hub; the client's wait behind them.
const REQUESTS_MAX: usize = 16;

/// Another node's hub.
pub(super) struct Afar {
    pub(super) node: NodeId,
    pub(super) requests: mpsc::Sender<pb::WatchRequest>,
    pub(super) responses: Streaming<pb::WatchResponse>,
}

impl Afar {
    /// Opens a stream at a node; fails when that has not all of the keyspace, or does not answer.
    pub(super) async fn open(calls: &Calls, node: NodeId, keyspace: KeyspaceId) -> Result<Self, Status> {
        let channel = calls.channel(node).ok_or_else(|| Status::unavailable("it is no member"))?;
        let (requests, queued) = mpsc::channel(REQUESTS_MAX);
        let mut call = Request::new(ReceiverStream::new(queued));
        call.metadata_mut().insert(KEYSPACE_ID_HEADER, keyspace.0.into());
        let mut client = pb::watch_client::WatchClient::new(channel)
            .max_decoding_message_size(i32::MAX as usize)
            .max_encoding_message_size(i32::MAX as usize);
        let responses = client.watch(call).await?.into_inner();
        Ok(Self { node, requests, responses })
    }
}

/// Asks this node's hub.
pub(super) fn ask(stream: &WatchStream, message: pb::WatchRequest) -> Result<(), Refusal> {
    match message.request_union {
        Some(RequestUnion::CreateRequest(create)) => stream.create(request::watch(create)),
        Some(RequestUnion::CancelRequest(cancel)) => stream.cancel(cancel.watch_id),
        Some(RequestUnion::ProgressRequest(_)) => {
            stream.progress();
            Ok(())
        }
        None => Ok(()),
    }
}

/// What this node's hub says, as it is said on the wire.
pub(super) fn convert(told: WatchResponse) -> Telling {
    let revision = told.header_revision.unwrap_or(Revision(0)).0;
    let revision = i64::try_from(revision).unwrap_or(i64::MAX);
    let header = pb::ResponseHeader { revision, ..Default::default() };
    if told.kind == WatchResponseKind::Events && !told.fragment {
        return Telling::Events { id: told.id, header, events: told.events };
    }
    let mut message = pb::WatchResponse {
        header: Some(header),
        watch_id: told.id,
        fragment: told.fragment,
        ..Default::default()
    };
    match told.kind {
        WatchResponseKind::Created => message.created = true,
        WatchResponseKind::CreateFailed { reason } => {
            message.created = true;
            message.canceled = true;
            message.watch_id = NO_WATCH;
            message.cancel_reason = reason;
        }
        WatchResponseKind::Canceled { compacted, reason } => {
            message.canceled = true;
            message.compact_revision =
                compacted.map_or(0, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
            message.cancel_reason = reason;
        }
        WatchResponseKind::Events | WatchResponseKind::Progress => {}
    }
    message.events = messages(&told.events).collect();
    message.into()
}
