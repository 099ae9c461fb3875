//! The calls that most of a node's time goes to, answered from the bytes of their message, with nothing in between.
//!
//! They are those of etcd's KV service, and streams of watches. The services themselves are the same as behind the router, which knows the same paths and takes what is out of the ordinary
//! (see [`Direct::method`]).

use super::kv::Kv;
use super::watch::{Session, Watch};
use super::{Context, rejected};
use crate::runtime::connections::stopping;
use axum::body::Body;
use prost::Message;
use quorate_api::framing::{PREFIX_BYTES, push};
use quorate_api::pb;
use quorate_api::pb::kv_server::Kv as _;
use quorate_types::{Bytes, Rejection};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderMap, Method as HttpMethod, header};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};
use tonic_prost::ProstDecoder;

/// How a message of a call may be compressed, says its head. Those of clients hardly ever are.
const ENCODING: &str = "grpc-encoding";
/// A client is told of no more at a time when it is so much.
const TOLD_BYTES: usize = 32 << 10;
/// How long a client may take to say a message to its end when the node stops: less than open calls have to finish.
const UNSAID_MAX: Duration = Duration::from_secs(1);

/// The services behind these calls; clones are the same.
#[derive(Clone)]
pub struct Direct {
    kv: Arc<Kv>,
    watch: Arc<Watch>,
    message_bytes_max: usize,
    stop: watch::Receiver<bool>,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Unary(Unary),
    Watch,
}

/// A call of one message that is answered with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Range,
    Put,
    DeleteRange,
    Txn,
}

impl Direct {
    /// Those of `context`, whose messages may be so long.
    pub(super) fn new(context: Context, message_bytes_max: usize) -> Self {
        let stop = context.stop.clone();
        Self { kv: Arc::new(Kv(context.clone())), watch: Arc::new(Watch(context)), message_bytes_max, stop }
    }

    /// Which call a request's head begins, if it is one of these and an ordinary one.
    pub(crate) fn method(head: &Parts) -> Option<Method> {
        let method = match head.uri.path() {
            "/etcdserverpb.KV/Range" => Method::Unary(Unary::Range),
            "/etcdserverpb.KV/Put" => Method::Unary(Unary::Put),
            "/etcdserverpb.KV/DeleteRange" => Method::Unary(Unary::DeleteRange),
            "/etcdserverpb.KV/Txn" => Method::Unary(Unary::Txn),
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

    /// Returns when a call whose message is not there has to be refused, because the node stops.
    pub(crate) async fn ending(&self) -> Status {
        stopping(&mut self.stop.clone()).await;
        tokio::time::sleep(UNSAID_MAX).await;
        rejected(Rejection::Unavailable)
    }

    /// Answers a call. What comes back has its prefix.
    pub(crate) async fn answer(
        &self,
        call: Unary,
        headers: HeaderMap,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        match call {
            Unary::Range => framed(&self.kv.range(asked(headers, message)?).await?),
            Unary::Put => framed(&self.kv.put(asked(headers, message)?).await?),
            Unary::DeleteRange => framed(&self.kv.delete_range(asked(headers, message)?).await?),
            Unary::Txn => framed(&self.kv.txn(asked(headers, message)?).await?),
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
    let mut frames = Vec::new();
    push(&mut frames, answer.get_ref())?;
    Ok(Bytes::from(frames))
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
        let mut frames = Vec::new();
        let mut pushed = first.push(&mut frames);
        while pushed.is_ok()
            && frames.len() < TOLD_BYTES
            && let Some(next) = self.session.next_now()
        {
            pushed = next.push(&mut frames);
        }
        Some(pushed.map(|()| Bytes::from(frames)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::codegen::http;

    #[test]
    fn ordinary_calls_are_taken_and_no_others() {
        let check = |method: &str, path: &str, headers: &[(&str, &str)], taken: Option<Method>| {
            let mut request = http::Request::builder().method(method).uri(format!("http://node{path}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(Direct::method(&head), taken, "{method} {path} {headers:?}");
        };
        let plain = ("content-type", "application/grpc");
        let paths = [
            ("/etcdserverpb.KV/Range", Method::Unary(Unary::Range)),
            ("/etcdserverpb.KV/Put", Method::Unary(Unary::Put)),
            ("/etcdserverpb.KV/DeleteRange", Method::Unary(Unary::DeleteRange)),
            ("/etcdserverpb.KV/Txn", Method::Unary(Unary::Txn)),
            ("/etcdserverpb.Watch/Watch", Method::Watch),
        ];
        for (path, taken) in paths {
            check("POST", path, &[plain], Some(taken));
            check("POST", path, &[("content-type", "application/grpc+proto")], Some(taken));
            check("POST", path, &[plain, ("grpc-encoding", "identity")], Some(taken));
            check("POST", path, &[plain, ("grpc-encoding", "gzip")], None);
            check("POST", path, &[("content-type", "application/grpc+json")], None);
            check("POST", path, &[("content-type", "application/grpc; charset=utf-8")], None);
            check("POST", path, &[], None);
            check("GET", path, &[plain], None);
            check("POST", &format!("{path}/"), &[plain], None);
        }
        check("POST", "/etcdserverpb.KV/Compact", &[plain], None);
        check("POST", "/health", &[plain], None);
    }
}
