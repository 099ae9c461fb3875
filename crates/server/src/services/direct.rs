//! The calls that most of a node's time goes to, answered from the bytes of their message, with nothing in between.
//!
//! They are those of etcd's KV service, and streams of watches. The services themselves are the same as behind the router, which knows the same paths and takes what is out of the ordinary
//! (see [`Direct::method`]).

use super::Context;
use super::kv::Kv;
use super::watch::{Session, Watch};
use axum::body::Body;
use prost::Message;
use prost::bytes::{BufMut, BytesMut};
use quorate_api::pb;
use quorate_api::pb::kv_server::Kv as _;
use quorate_types::Bytes;
use std::sync::Arc;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderMap, Method as HttpMethod, header};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};
use tonic_prost::ProstDecoder;

/// Bytes in front of a message: whether it is compressed, and how long it is.
pub(crate) const PREFIX_BYTES: usize = 5;
/// How a message of a call may be compressed, says its head. Those of clients hardly ever are.
const ENCODING: &str = "grpc-encoding";
/// A client is told of no more at a time when it is so much.
const TOLD_BYTES: usize = 32 << 10;

/// The services behind these calls; clones are the same.
#[derive(Clone)]
pub struct Direct {
    kv: Arc<Kv>,
    watch: Arc<Watch>,
    message_bytes_max: usize,
}

/// One of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
    Watch,
}

impl Direct {
    /// Those of `context`, whose messages may be so long.
    pub(super) fn new(context: Context, message_bytes_max: usize) -> Self {
        Self { kv: Arc::new(Kv(context.clone())), watch: Arc::new(Watch(context)), message_bytes_max }
    }

    /// Which call a request's head begins, if it is one of these and an ordinary one.
    pub(crate) fn method(head: &Parts) -> Option<Method> {
        let method = match head.uri.path() {
            "/etcdserverpb.KV/Range" => Method::Range,
            "/etcdserverpb.KV/Put" => Method::Put,
            "/etcdserverpb.KV/DeleteRange" => Method::DeleteRange,
            "/etcdserverpb.KV/Txn" => Method::Txn,
            "/etcdserverpb.Watch/Watch" => Method::Watch,
            _ => return None,
        };
        let is_grpc = || {
            let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
            kind == b"application/grpc" || kind == b"application/grpc+proto"
        };
        let is_plain = head.headers.get(ENCODING).is_none_or(|encoding| encoding == "identity");
        (head.method == HttpMethod::POST && is_plain && is_grpc()).then_some(method)
    }

    /// How long the message is that begins with this prefix. Refused if it is compressed, or too long.
    pub(crate) fn message_bytes(&self, prefix: [u8; PREFIX_BYTES]) -> Result<usize, Status> {
        let [compressed, length @ ..] = prefix;
        match compressed {
            0 => {}
            1 => {
                return Err(Status::internal(
                    "the message is said to be compressed, but not how (grpc-encoding)",
                ));
            }
            flag => {
                return Err(Status::internal(format!(
                    "a message begins with {flag}, which is neither 0 nor 1"
                )));
            }
        }
        let (found, limit) = (u32::from_be_bytes(length) as usize, self.message_bytes_max);
        if found > limit { Err(super::too_large(found, limit)) } else { Ok(found) }
    }

    /// Answers a call of one message with another. What comes back has its prefix.
    pub(crate) async fn answer(
        &self,
        method: Method,
        headers: HeaderMap,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        match method {
            Method::Range => framed(&self.kv.range(asked(headers, message)?).await?),
            Method::Put => framed(&self.kv.put(asked(headers, message)?).await?),
            Method::DeleteRange => framed(&self.kv.delete_range(asked(headers, message)?).await?),
            Method::Txn => framed(&self.kv.txn(asked(headers, message)?).await?),
            Method::Watch => Err(Status::internal("a stream has no one message")),
        }
    }

    /// Begins a stream of watches, whose requests are in `body`.
    pub(crate) async fn watch(&self, headers: HeaderMap, body: Body) -> Result<Watching, Status> {
        let decoder = ProstDecoder::<pb::WatchRequest>::default();
        let requests = Streaming::new_request(decoder, body, None, Some(self.message_bytes_max));
        let session = self.watch.session(&MetadataMap::from_headers(headers), requests).await?;
        Ok(Watching { session })
    }
}

fn asked<M: Message + Default>(headers: HeaderMap, message: Bytes) -> Result<Request<M>, Status> {
    let message = M::decode(message).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Request::from_parts(MetadataMap::from_headers(headers), Extensions::new(), message))
}

fn framed<M: Message>(answer: &Response<M>) -> Result<Bytes, Status> {
    let mut frames = BytesMut::new();
    push(&mut frames, answer.get_ref())?;
    Ok(frames.freeze())
}

/// Writes a message behind its prefix.
fn push(frames: &mut BytesMut, message: &impl Message) -> Result<(), Status> {
    let length = message.encoded_len();
    let said = u32::try_from(length).ok().filter(|length| i32::try_from(*length).is_ok());
    let said = said.ok_or_else(|| {
        Status::out_of_range(format!("Error, encoded message length too large: found {length} bytes"))
    })?;
    frames.reserve(PREFIX_BYTES + length);
    frames.put_u8(0);
    frames.put_u32(said);
    message.encode_raw(frames);
    Ok(())
}

/// A stream of watches.
pub(crate) struct Watching {
    session: Session,
}

impl Watching {
    /// What the client is told next: all there is, if that is not much. `None` when nothing comes any more.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        let first = match self.session.next().await? {
            Ok(first) => first,
            Err(status) => return Some(Err(status)),
        };
        let mut frames = BytesMut::new();
        let mut pushed = push(&mut frames, &first);
        while pushed.is_ok()
            && frames.len() < TOLD_BYTES
            && let Some(next) = self.session.next_now()
        {
            pushed = push(&mut frames, &next);
        }
        Some(pushed.map(|()| frames.freeze()))
    }
}
