//! What this node tells of some slots that it holds: to another node, or to a stream of its own that is put together from several.

use super::source::{ask, convert};
use super::{Context, KEYSPACE_ID_HEADER, ending, keyspace_of, rejected};
use crate::runtime::calls::Calls;
use crate::runtime::keyspaces::Keyspace;
use crate::runtime::watch_thread::WatchStream;
use futures_core::Stream;
use quorate_api::part::part_request::Request as Asked;
use quorate_api::part::{PartRequest, PartResponse, part_client, part_server};
use quorate_partition::watch;
use quorate_types::{Decode, Encode, KeyspaceId, NodeId, Revision, SlotSet};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// In the metadata of a call: which slots, as [`SlotSet`] is encoded.
const SLOTS_HEADER: &str = "quorate-slots-bin";

/// What is told of a part.
pub(super) type Responses = Pin<Box<dyn Stream<Item = Result<PartResponse, Status>> + Send>>;

/// A part at a node, this one or another.
pub(super) struct Part {
    pub(super) node: NodeId,
    /// What waits there is bounded by who asks: a creation and a cancellation for each watch.
    pub(super) requests: mpsc::UnboundedSender<PartRequest>,
    pub(super) responses: Responses,
}

impl Part {
    /// Of this node; `None` unless it holds all of the slots.
    pub(super) fn here(
        context: &Context,
        here: &Arc<Keyspace>,
        slots: Arc<SlotSet>,
    ) -> Result<Option<Self>, Status> {
        let (requests, queued) = mpsc::unbounded_channel();
        let asked = UnboundedReceiverStream::new(queued).map(Ok);
        let served = serve(context, here, slots, Box::pin(asked))?;
        let node = context.gateway.identity().node;
        Ok(served.map(|responses| Self { node, requests, responses }))
    }

    /// Of another node; fails when that does not hold all of the slots, or does not answer.
    pub(super) async fn afar(
        calls: &Calls,
        node: NodeId,
        keyspace: KeyspaceId,
        slots: &SlotSet,
    ) -> Result<Self, Status> {
        let channel = calls.channel(node).ok_or_else(|| Status::unavailable("it is no member"))?;
        let (requests, queued) = mpsc::unbounded_channel();
        let mut call = Request::new(UnboundedReceiverStream::new(queued));
        let metadata = call.metadata_mut();
        metadata.insert(KEYSPACE_ID_HEADER, keyspace.0.into());
        metadata.insert_bin(SLOTS_HEADER, tonic::metadata::BinaryMetadataValue::from_bytes(&slots.encoded()));
        let mut client = part_client::PartClient::new(channel)
            .max_decoding_message_size(i32::MAX as usize)
            .max_encoding_message_size(i32::MAX as usize);
        let responses = client.follow(call).await?.into_inner();
        Ok(Self { node, requests, responses: Box::pin(responses) })
    }
}

/// The service for other nodes.
pub(in crate::services) struct PartService(pub(in crate::services) Context);

#[tonic::async_trait]
impl part_server::Part for PartService {
    type FollowStream = Responses;

    async fn follow(
        &self,
        message: Request<Streaming<PartRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let keyspace = keyspace_of(message.metadata())?;
        let slots = message.metadata().get_bin(SLOTS_HEADER).and_then(|value| value.to_bytes().ok());
        let slots = slots.and_then(|value| SlotSet::from_bytes(value).ok());
        let slots = slots.ok_or_else(|| Status::invalid_argument("no slots are named"))?;
        let here = self.0.gateway.keyspace(keyspace).map_err(rejected)?;
        let served = serve(&self.0, &here, Arc::new(slots), Box::pin(message.into_inner()))?;
        served.map(Response::new).ok_or_else(not_held)
    }
}

fn not_held() -> Status {
    Status::unavailable("this node does not hold all of these slots")
}

type Requests = Pin<Box<dyn Stream<Item = Result<PartRequest, Status>> + Send>>;

/// One stream, from its opening to its end.
struct Serving {
    context: Context,
    here: Arc<Keyspace>,
    stream: WatchStream,
    requests: Requests,
    /// For the hub, before anything else is read.
    asked: VecDeque<PartRequest>,
    told: VecDeque<PartResponse>,
    ending: Pin<Box<dyn Future<Output = Status> + Send>>,
    is_over: bool,
}

fn serve(
    context: &Context,
    here: &Arc<Keyspace>,
    slots: Arc<SlotSet>,
    requests: Requests,
) -> Result<Option<Responses>, Status> {
    let Some(rules) = here.rules() else { return Ok(None) };
    let opened = here.hub.open_part(watch::Part { rules, slots });
    let opened = opened.map_err(|refusal| Status::resource_exhausted(format!("etcdserver: {refusal}")))?;
    let Some(stream) = opened else { return Ok(None) };
    let ending = {
        let (context, here) = (context.clone(), here.clone());
        // Whoever asks can turn to others, and does when this node has long lost sight of the keyspace's leaders.
        Box::pin(async move { ending(&context, &here, true).await })
    };
    let (context, here) = (context.clone(), here.clone());
    let (asked, told) = (VecDeque::new(), VecDeque::new());
    let serving = Serving { context, here, stream, requests, asked, told, ending, is_over: false };
    let responses = futures_util::stream::unfold(serving, |mut serving| async move {
        let next = serving.next().await?;
        Some((next, serving))
    });
    Ok(Some(Box::pin(responses)))
}

impl Serving {
    async fn next(&mut self) -> Option<Result<PartResponse, Status>> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(told) = self.told.pop_front() {
                return Some(Ok(told));
            }
            if self.stream.is_lost() {
                return self.end(not_held());
            }
            if let Err(status) = self.push() {
                return self.end(status);
            }
            if !self.told.is_empty() {
                continue;
            }
            tokio::select! {
                () = self.stream.ready() => {}
                status = &mut self.ending => return self.end(status),
                asked = self.requests.next(), if self.asked.is_empty() && self.stream.accepts() => match asked {
                    Some(Ok(asked)) => self.asked.push_back(asked),
                    // Whoever asked is gone.
                    Some(Err(_)) | None => return None,
                },
            }
        }
    }

    /// Hands the hub what it is asked and takes what it tells.
    fn push(&mut self) -> Result<(), Status> {
        while self.stream.accepts()
            && let Some(PartRequest { request }) = self.asked.pop_front()
        {
            match request {
                Some(Asked::Watch(request)) => {
                    let refused = |refusal| Status::resource_exhausted(format!("etcdserver: {refusal}"));
                    ask(&self.stream, request).map_err(refused)?;
                }
                Some(Asked::AwaitPassed(revision)) => {
                    self.stream.await_passed(Revision(revision));
                    if self.here.hub.passed() < Revision(revision) {
                        // Where nothing happens nobody looks how far the others are.
                        self.context.gateway.await_settled(self.here.reader.keyspace(), Revision(revision));
                    }
                }
                None => {}
            }
        }
        let told = self.stream.poll().map_err(|fault| {
            tracing::error!(%fault, "reading history for a watch failed");
            self.context.gateway.suspect(&fault);
            crate::services::unreadable(&fault)
        })?;
        self.told.extend(told.into_iter().map(|told| {
            let subs = told.events.iter().map(|told| told.sub).collect();
            PartResponse { told: Some(convert(told).whole()), subs }
        }));
        Ok(())
    }

    fn end(&mut self, status: Status) -> Option<Result<PartResponse, Status>> {
        self.is_over = true;
        Some(Err(status))
    }
}
