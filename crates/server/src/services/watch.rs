//! Watches: the shell between a gRPC stream and the watch hub.

use super::{Context, leader_missed, rejected, requires_leader};
use crate::runtime::connections::stopping;
use crate::runtime::keyspaces::Keyspace;
use crate::runtime::watch_thread::WatchStream;
use futures_core::Stream;
use quorate_api::{pb, request, response};
use quorate_partition::watch::{NO_WATCH, Refusal, WatchResponse, WatchResponseKind};
use quorate_types::{KeyspaceId, Rejection, Revision};
use std::collections::VecDeque;
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming};

/// The service.
pub(super) struct Watch(pub(super) Context);

type Responses = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::watch_server::Watch for Watch {
    type WatchStream = Responses;

    async fn watch(
        &self,
        message: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let keyspace = self.0.keyspace(message.metadata()).await?;
        let here = self.0.gateway.keyspace(keyspace).map_err(rejected)?;
        let stream = here.hub.open().map_err(refused)?;
        let is_leader_required = requires_leader(message.metadata());
        let context = self.0.clone();
        let session = Session {
            stream,
            requests: message.into_inner(),
            has_requests: true,
            polled: VecDeque::new(),
            is_over: false,
            ending: Box::pin(async move { ending(&context, &here, is_leader_required).await }),
            context: self.0.clone(),
            keyspace,
        };
        let responses = futures_util::stream::unfold(session, |mut session| async move {
            let next = session.next().await?;
            Some((next, session))
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

fn refused(refusal: Refusal) -> Status {
    Status::resource_exhausted(format!("etcdserver: {refusal}"))
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

/// One client's stream. It is driven by the connection that carries its responses, whenever that takes another: there is no queue in
/// between, and what the client does not take stays in the hub, whose queues are bounded. It ends when it is dropped.
struct Session {
    context: Context,
    keyspace: KeyspaceId,
    stream: WatchStream,
    requests: Streaming<pb::WatchRequest>,
    /// The client may send more. That it does not ends nothing.
    has_requests: bool,
    /// Taken from the hub, not from us.
    polled: VecDeque<WatchResponse>,
    is_over: bool,
    ending: Pin<Box<dyn Future<Output = Status> + Send>>,
}

impl Session {
    /// What the client gets next.
    async fn next(&mut self) -> Option<Result<pb::WatchResponse, Status>> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(response) = self.polled.pop_front() {
                return Some(Ok(convert(&self.context, self.keyspace, response)));
            }
            match self.stream.poll() {
                Ok(responses) if responses.is_empty() => {}
                Ok(responses) => {
                    self.polled = responses.into();
                    continue;
                }
                Err(fault) => {
                    tracing::error!(%fault, "reading history for a watch failed");
                    return self.end(Status::data_loss("etcdserver: corrupt cluster"));
                }
            }
            tokio::select! {
                () = self.stream.ready() => {}
                status = &mut self.ending => return self.end(status),
                message = self.requests.message(), if self.has_requests && self.stream.accepts() => match message {
                    Ok(Some(message)) => {
                        if let Err(refusal) = handle(&self.stream, message) {
                            return self.end(refused(refusal));
                        }
                    }
                    Ok(None) => self.has_requests = false,
                    // The client went away.
                    Err(_) => return None,
                },
            }
        }
    }

    fn end(&mut self, status: Status) -> Option<Result<pb::WatchResponse, Status>> {
        self.is_over = true;
        Some(Err(status))
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

fn convert(context: &Context, keyspace: KeyspaceId, told: WatchResponse) -> pb::WatchResponse {
    let term = context.gateway.newest_term(keyspace);
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
