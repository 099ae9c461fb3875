//! HTTP/2 on the client port, straight over the h2 library.
//!
//! One task has a connection and all calls on it that [`Direct`] answers: what came in one read is answered in one write, and no call is handed from
//! task to task. Whatever else comes goes to the router, in a task of its own.
//!
//! What a client can make us hold is bounded: calls at a time, headers, windows, calls taken back; and of each call one piece of the answer, if the client does not take it.

use super::connections::stopping;
use crate::services::direct::{Direct, Method, Unary};
use axum::Router;
use axum::body::{Body, HttpBody};
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http_body::Frame;
use quorate_api::framing::PREFIX_BYTES;
use quorate_api::gathered::Gathered;
use quorate_types::Bytes;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::Status;
use tonic::codegen::Service;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tracing::debug;

/// Calls at a time on one connection; a client that wants more waits. etcd has no limit to speak of, and a
/// Kubernetes API server puts all its watches on one connection.
pub(super) const STREAMS_MAX: u32 = 16_384;
/// How long a client may take to begin.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// So often the client is asked for a sign of life, as grpc-go's servers do,
pub(super) const PING_EVERY: Duration = Duration::from_secs(2 * 60 * 60);
/// and has so long to give it.
pub(super) const PING_MAX: Duration = Duration::from_secs(20);
/// Bytes of one call that may be on their way: a request of the default largest size fits.
pub(super) const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes of one connection that may be on their way.
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes of the headers of one call.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// A call whose answers wait for the connection to take so many bytes is not asked for more.
const UNSENT_BYTES_MAX: usize = 400 << 10;
/// Calls that a client takes back before we have looked at them; a client that does it to more is cut off (CVE-2023-44487).
/// The usual 20 would hit one that gives up a thousand waiting calls at once.
pub(super) const TAKEN_BACK_MAX: usize = 1_024;

/// Answers sent in one go. With more the client has nothing to do until all it has asked is answered, and this node has nothing to do then.
const ANSWERS_MAX: usize = 16;
/// So often, before others that have this thread are given their turn.
const ROUNDS_MAX: usize = 16;

/// The head of an answer, and what stands behind it.
static HEAD: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))])
});
static OK: LazyLock<HeaderMap> = LazyLock::new(|| {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
});

/// Answers what comes over a connection until it ends. From `stop` on the client is asked to begin nothing new (GOAWAY).
pub(super) async fn serve<S>(
    stream: S,
    router: Router,
    direct: Direct,
    mut stop: watch::Receiver<bool>,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_send_buffer_size(UNSENT_BYTES_MAX)
        .max_pending_accept_reset_streams(TAKEN_BACK_MAX);
    let handshake = builder.handshake(Gathered::new(stream));
    let mut connection: Connection<Gathered<S>, Bytes> = tokio::select! {
        shaken = tokio::time::timeout(HANDSHAKE_MAX, handshake) => match shaken {
            Ok(shaken) => shaken.map_err(|error| error.to_string())?,
            Err(_) => return Err("it did not begin HTTP/2 in time".into()),
        },
        () = stopping(&mut stop) => return Ok(()),
    };
    let mut silent = pin!(silent(connection.ping_pong()));
    let begin = |request, respond| call(&router, &direct, request, respond);
    let mut calls = FuturesUnordered::new();
    let mut is_stopping = false;
    loop {
        let mut drive = poll_fn(|context| drive(&mut connection, &mut calls, begin, context));
        tokio::select! {
            biased;
            // Those of which there is much to do come last: they would leave the others no turn.
            () = stopping(&mut stop), if !is_stopping => is_stopping = true,
            () = &mut silent => return Err("it gave no sign of life".into()),
            ended = &mut drive => return ended.map_err(|error| error.to_string()),
        }
        if is_stopping {
            connection.graceful_shutdown();
        }
    }
}

/// Goes on with all calls, and with the connection; ready when it has ended.
fn drive<S, F: Future<Output = ()>>(
    connection: &mut Connection<S, Bytes>,
    calls: &mut FuturesUnordered<F>,
    begin: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Option<F>,
    context: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for _ in 0..ROUNDS_MAX {
        // What is answered now the connection, which comes after, sends in one go.
        let mut answered = 0;
        while answered < ANSWERS_MAX && calls.poll_next_unpin(context) == Poll::Ready(Some(())) {
            answered += 1;
        }
        let mut is_more = answered == ANSWERS_MAX;
        while let Poll::Ready(accepted) = connection.poll_accept(context) {
            let Some(accepted) = accepted else { return Poll::Ready(Ok(())) };
            let (request, respond) = accepted?;
            if let Some(call) = begin(request, respond) {
                calls.push(call);
                is_more = true;
            }
        }
        if !is_more {
            return Poll::Pending;
        }
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

/// Returns when the other side has not answered a ping in time.
async fn silent(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_EVERY).await;
        // An error is one of the connection, which then ends by itself.
        match tokio::time::timeout(PING_MAX, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Begins a call: what has to be done is returned, unless the router does it.
fn call(
    router: &Router,
    direct: &Direct,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Option<impl Future<Output = ()> + use<>> {
    let (head, body) = request.into_parts();
    let Some(method) = Direct::method(&head) else {
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = routed(router, head, body, respond).await {
                debug!(%error, "a call was cut off");
            }
        });
        return None;
    };
    let direct = direct.clone();
    Some(async move {
        let done = match method {
            // What lasts may be large, what most calls are is not.
            Method::Watch => Box::pin(watched(direct, head.headers, body, respond)).await,
            Method::Unary(call) => answered(direct, call, head.headers, body, respond).await,
        };
        if let Err(error) = done {
            debug!(%error, "a call was cut off");
        }
    })
}

/// What `work` comes to; `None` when the client has taken the call back before.
async fn unless_reset<T>(
    mut poll_reset: impl FnMut(&mut Context<'_>) -> Poll<Result<Reason, h2::Error>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        poll_reset(context).map(|_| None)
    })
    .await
}

async fn answered(
    direct: Direct,
    call: Unary,
    headers: HeaderMap,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let work = async {
        match message(&direct, &mut body).await? {
            Ok(message) => Ok::<_, h2::Error>(direct.answer(call, headers, message).await),
            Err(status) => Ok(Err(status)),
        }
    };
    let Some(answer) = unless_reset(|context| respond.poll_reset(context), work).await else { return Ok(()) };
    match answer? {
        Ok(frame) => {
            let mut response = Response::new(());
            *response.headers_mut() = HEAD.clone();
            let mut stream = respond.send_response(response, false)?;
            send(&mut stream, frame).await?;
            stream.send_trailers(OK.clone())
        }
        Err(status) => refuse(&mut respond, &status),
    }
}

/// An answer that is all head.
fn refuse(respond: &mut SendResponse<Bytes>, status: &Status) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.headers_mut() = said(status, &HEAD);
    respond.send_response(response, true).map(drop)
}

/// `headers`, and how a call ended.
fn said(status: &Status, headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    if status.add_header(&mut headers).is_err() {
        debug!("a refusal could not be put into words");
    }
    headers
}

async fn watched(
    direct: Direct,
    headers: HeaderMap,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let begin = direct.watch(headers, Body::new(Received { stream: body, is_read: false }));
    let mut watching = match unless_reset(|context| respond.poll_reset(context), begin).await {
        None => return Ok(()),
        Some(Err(status)) => return refuse(&mut respond, &status),
        Some(Ok(watching)) => watching,
    };
    let mut response = Response::new(());
    *response.headers_mut() = HEAD.clone();
    let mut stream = respond.send_response(response, false)?;
    loop {
        match unless_reset(|context| stream.poll_reset(context), watching.next()).await {
            None => return Ok(()),
            Some(None) => return stream.send_trailers(OK.clone()),
            Some(Some(Ok(told))) => send(&mut stream, told).await?,
            Some(Some(Err(status))) => return stream.send_trailers(said(&status, &HeaderMap::new())),
        }
    }
}

/// The one message of a call, without its prefix. Of the connection's buffers nothing is kept.
async fn message(direct: &Direct, body: &mut RecvStream) -> Result<Result<Bytes, Status>, h2::Error> {
    let mut bytes = Vec::new();
    let mut length = None;
    loop {
        let data = tokio::select! {
            biased;
            data = body.data() => data,
            // Most messages are there when their call begins: for them this costs nothing.
            status = async { Box::pin(direct.ending()).await } => return Ok(Err(status)),
        };
        let Some(data) = data.transpose()? else { break };
        body.flow_control().release_capacity(data.len())?;
        // What comes behind the message has no meaning.
        if length.is_none_or(|length| bytes.len() < PREFIX_BYTES + length) {
            bytes.extend_from_slice(&data);
        }
        if let (None, Some(prefix)) = (length, bytes.first_chunk()) {
            match direct.message_bytes(*prefix) {
                Ok(said) => length = Some(said),
                Err(status) => return Ok(Err(status)),
            }
        }
    }
    Ok(match length.map(|length| PREFIX_BYTES + length) {
        Some(end) if bytes.len() >= end => Ok(Bytes::from(bytes).slice(PREFIX_BYTES..end)),
        None if bytes.is_empty() => Err(Status::internal("a message is missing")),
        _ => Err(Status::internal("the call ended before its message did")),
    })
}

/// Sends bytes once the client takes any. More than it takes h2 keeps, so that a call has no more than these.
async fn send(stream: &mut SendStream<Bytes>, bytes: Bytes) -> Result<(), h2::Error> {
    if !bytes.is_empty() {
        // What is granted at once would wake who waits for a reset: this very call, which then was polled once more for everything it sends, and kept
        // others from sending in the same write.
        if stream.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
            return Err(Reason::CANCEL.into());
        }
        stream.reserve_capacity(1);
        while stream.capacity() == 0 {
            match poll_fn(|context| stream.poll_capacity(context)).await {
                Some(room) => room?,
                None => return Err(Reason::CANCEL.into()),
            };
        }
    }
    stream.send_data(bytes, false)
}

/// Has the router answer.
async fn routed(
    mut router: Router,
    head: Parts,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let request = Request::from_parts(head, Body::new(Received { stream: body, is_read: false }));
    let answered = unless_reset(|context| respond.poll_reset(context), router.call(request)).await;
    let Some(Ok(response)) = answered else { return Ok(()) };
    let (head, mut body) = response.into_parts();
    let is_over = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_over)?;
    if is_over {
        return Ok(());
    }
    loop {
        let next = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        match unless_reset(|context| stream.poll_reset(context), next).await {
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => send(&mut stream, data).await?,
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => return stream.send_trailers(trailers),
                    Err(_) => debug!("an answer has a part that HTTP/2 does not know"),
                },
            },
            Some(Some(Err(error))) => {
                debug!(%error, "an answer broke off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Some(None) => return stream.send_data(Bytes::new(), true),
            None => return Ok(()),
        }
    }
}

/// The body of a request, for the router.
struct Received {
    stream: RecvStream,
    /// All data was read.
    is_read: bool,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_read {
            match ready!(self.stream.poll_data(context)) {
                Some(data) => {
                    let data = data?;
                    self.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                None => self.is_read = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(context))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

#[cfg(test)]
#[path = "http2_tests.rs"]
mod tests;
