//! Watches: the shell between a gRPC stream and the watch hub.

use super::{Context, KEYSPACE, leader_missed, rejected, requires_leader, stopping};
use crate::runtime::watch_thread::WatchStream;
use quorate_api::{pb, request, response};
use quorate_partition::watch::{NO_WATCH, Refusal, WatchResponse, WatchResponseKind};
use quorate_types::{Rejection, Revision};
use std::pin::pin;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Responses that the client has not taken; what is not sent stays in the hub, whose queues are bounded.
const RESPONSES_MAX: usize = 16;

/// The service.
pub(super) struct Watch(pub(super) Context);

#[tonic::async_trait]
impl pb::watch_server::Watch for Watch {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        message: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let hub = self.0.gateway.hub(KEYSPACE).map_err(rejected)?;
        let stream = hub.open().map_err(refused)?;
        let (sender, receiver) = mpsc::channel(RESPONSES_MAX);
        let is_required = requires_leader(message.metadata());
        tokio::spawn(run(self.0.clone(), stream, is_required, message.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn refused(refusal: Refusal) -> Status {
    Status::resource_exhausted(format!("etcdserver: {refusal}"))
}

/// Serves one stream until the client is gone or the node stops. That the client sends nothing more does not end it.
async fn run(
    context: Context,
    stream: WatchStream,
    is_leader_required: bool,
    mut requests: Streaming<pb::WatchRequest>,
    sender: mpsc::Sender<Result<pb::WatchResponse, Status>>,
) {
    let mut stop = context.stop.clone();
    let mut leader_missed = pin!(leader_missed(&context, is_leader_required));
    let mut is_open = true;
    loop {
        let responses = match stream.poll() {
            Ok(responses) => responses,
            Err(fault) => {
                tracing::error!(%fault, "reading history for a watch failed");
                let _ = sender.send(Err(Status::data_loss("etcdserver: corrupt cluster"))).await;
                return;
            }
        };
        for response in responses {
            if sender.send(Ok(convert(&context, response))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = stream.ready() => {}
            () = sender.closed() => return,
            () = stopping(&mut stop) => {
                let _ = sender.send(Err(Status::unavailable("etcdserver: server stopped"))).await;
                return;
            }
            () = &mut leader_missed => {
                let _ = sender.send(Err(rejected(Rejection::NoLeader))).await;
                return;
            }
            message = requests.message(), if is_open && stream.accepts() => match message {
                Ok(Some(message)) => {
                    if let Err(refusal) = handle(&stream, message) {
                        let _ = sender.send(Err(refused(refusal))).await;
                        return;
                    }
                }
                Ok(None) => is_open = false,
                // The client went away.
                Err(_) => return,
            },
        }
    }
}

fn handle(stream: &WatchStream, message: pb::WatchRequest) -> Result<(), Refusal> {
    use pb::watch_request::RequestUnion;
    match message.request_union {
        Some(RequestUnion::CreateRequest(create)) => stream.create(request::watch(create)),
        Some(RequestUnion::CancelRequest(cancel)) => stream.cancel(cancel.watch_id),
        Some(RequestUnion::ProgressRequest(_)) => {
            stream.progress();
            Ok(())
        }
        // A later client's request that we do not know is passed over, as etcd does.
        None => Ok(()),
    }
}

fn convert(context: &Context, told: WatchResponse) -> pb::WatchResponse {
    let term = context.gateway.newest_term(KEYSPACE);
    let mut message = pb::WatchResponse {
        header: context.header(told.header_revision.unwrap_or(Revision(0)), term),
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
    message.events =
        told.events.into_iter().map(|(event, previous)| response::event(event, previous)).collect();
    message
}
