//! Lines with a server that answers by what it is asked for: well, badly, or not at all.

use super::*;
use crate::framing::{Unframer, framed};
use crate::method;
use bytes::BytesMut;
use h2::server::SendResponse;
use http::{Request, Response};
use prost::Message;
use quorate_api::pb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader,
};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Code;

/// Calls that the server takes at once on a connection.
const CALLS_MAX: u32 = 1_000;
/// Three times what a client may begin before it was told how many those are.
const CALLS: usize = 300;
/// What does not come true in this time never will.
const DEADLINE: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Counts how often connections were to be closed.
    close: watch::Sender<usize>,
    tasks: JoinSet<()>,
}

impl Server {
    async fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, close) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(0));
        let (count, closed) = (connections.clone(), close.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut closed = closed.clone();
                closed.mark_unchanged();
                open.spawn(serve(stream, closed));
            }
        });
        Self { address, connections, close, tasks }
    }

    async fn line(&self) -> Line {
        Line::connect(Endpoint::new(&self.address.to_string(), None).unwrap()).await.unwrap()
    }

    async fn end(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }
}

/// One connection, until it is to be closed.
async fn serve(stream: TcpStream, mut closed: watch::Receiver<usize>) {
    let mut builder = h2::server::Builder::new();
    let Ok(mut connection) = builder.max_concurrent_streams(CALLS_MAX).handshake::<_, Bytes>(stream).await
    else {
        return;
    };
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            call = connection.accept() => match call {
                Some(Ok((request, respond))) => drop(calls.spawn(answer(request, respond))),
                _ => return,
            },
            _ = closed.changed() => connection.graceful_shutdown(),
        }
    }
}

/// The next message of a call, if there is one more.
async fn received<M: Message + Default>(body: &mut h2::RecvStream, unframer: &mut Unframer) -> Option<M> {
    loop {
        if let Some(message) = unframer.pop().unwrap() {
            return Some(M::decode(message).unwrap());
        }
        let bytes = body.data().await?.ok()?;
        body.flow_control().release_capacity(bytes.len()).unwrap();
        unframer.push(bytes);
    }
}

fn head(headers: &[(&str, &str)]) -> Response<()> {
    let head = Response::builder().header("content-type", "application/grpc");
    headers.iter().fold(head, |head, (name, value)| head.header(*name, *value)).body(()).unwrap()
}

fn trailers(status: &'static str) -> HeaderMap {
    [(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))].into_iter().collect()
}

/// Sends the bytes in pieces, and then the status.
fn finish(respond: &mut SendResponse<Bytes>, bytes: &[u8], piece: usize, status: &'static str) {
    let mut stream = respond.send_response(head(&[]), false).unwrap();
    for piece in bytes.chunks(piece) {
        stream.send_data(Bytes::copy_from_slice(piece), false).unwrap();
    }
    stream.send_trailers(trailers(status)).unwrap();
}

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    let mut unframer = Unframer::default();
    match parts.uri.path() {
        "/etcdserverpb.KV/Put" => {
            let put: PutRequest = received(&mut body, &mut unframer).await.unwrap();
            let header = ResponseHeader { revision: put.value.len() as i64, ..Default::default() };
            let answer = PutResponse { header: Some(header), ..Default::default() };
            finish(&mut respond, &framed(&answer).unwrap(), 1_000, "0");
        }
        "/etcdserverpb.KV/Range" => {
            let range: RangeRequest = received(&mut body, &mut unframer).await.unwrap();
            let named = parts.headers.get("name").map_or(0, |name| name.len() as i64);
            let message = framed(&RangeResponse { count: 300 + named, ..Default::default() }).unwrap();
            match range.key.as_ref() {
                b"found" => finish(&mut respond, &message, 2, "0"),
                b"nothing" => finish(&mut respond, b"", 1, "0"),
                b"twice" => finish(&mut respond, &[&message[..], &message[..]].concat(), 1_000, "0"),
                b"half" => finish(&mut respond, &message[..6], 1_000, "0"),
                b"late" => finish(&mut respond, &message, 1_000, "10"),
                b"huge" => finish(&mut respond, &[0, 0xff, 0xff, 0xff, 0xff], 1_000, "0"),
                b"odd" => finish(&mut respond, &[0, 0, 0, 0, 1, 0xff], 1_000, "0"),
                b"refused" => {
                    let refused = [("grpc-status", "9"), ("grpc-message", "no %C2%ABroom%C2%BB")];
                    respond.send_response(head(&refused), true).unwrap();
                }
                b"proxy" => {
                    let head = Response::builder().status(502).body(()).unwrap();
                    respond.send_response(head, true).unwrap();
                }
                _ => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            }
        }
        _ => {
            let mut stream = respond.send_response(head(&[]), false).unwrap();
            let mut left = 3;
            while left > 0
                && let Some(asked) = received::<LeaseKeepAliveRequest>(&mut body, &mut unframer).await
            {
                let answer = LeaseKeepAliveResponse { id: asked.id, ttl: left, ..Default::default() };
                stream.send_data(framed(&answer).unwrap(), false).unwrap();
                left -= 1;
            }
            // Who ends the stream too soon may not be there any more.
            let _ = stream.send_trailers(trailers("0"));
        }
    }
}

async fn ask(line: &Line, key: &'static str) -> Result<i64, (Code, String)> {
    let range = RangeRequest { key: key.into(), ..Default::default() };
    let answer = line.call(method::RANGE, &range).await;
    answer.map(|answer| answer.count).map_err(|status| (status.code(), status.message().to_owned()))
}

/// Asks until the line has noticed that its connection ended.
async fn until_ended(line: &Line) {
    let noticed = async {
        while line.is_open() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, noticed).await.unwrap();
}

#[tokio::test]
async fn answers_come_back_and_errors_say_what_is_wrong() {
    let server = Server::start("127.0.0.1:0").await;
    let line = server.line().await;
    assert_eq!(ask(&line, "found").await, Ok(300));
    assert_eq!(ask(&line.clone().with_header("name", "four").unwrap(), "found").await, Ok(304));
    assert!(line.clone().with_header("name", "a\nb").is_none());
    for (key, code, words) in [
        ("refused", Code::FailedPrecondition, "no «room»"),
        ("late", Code::Aborted, ""),
        ("nothing", Code::Internal, "no answer"),
        ("twice", Code::Internal, "two answers"),
        ("half", Code::Internal, "within a message"),
        ("huge", Code::OutOfRange, "4294967295 bytes"),
        ("odd", Code::Internal, "cannot be read"),
        ("proxy", Code::Unavailable, "502"),
        ("reset", Code::Unavailable, "the connection broke"),
    ] {
        let (found, said) = ask(&line, key).await.unwrap_err();
        assert!(found == code && said.contains(words), "{key}: {found:?} {said}");
    }
    // None of them has cost the connection.
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn many_calls_share_a_connection_and_large_ones_go_in_pieces() {
    let server = Server::start("127.0.0.1:0").await;
    let line = server.line().await;
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let line = line.clone();
        calls.spawn(async move {
            // More than the windows of stream and connection, some of them.
            let length = if number % 50 == 0 { 300_000 } else { number };
            let value = BytesMut::zeroed(length).freeze();
            let put = PutRequest { key: "k".into(), value, ..Default::default() };
            let answer = line.call(method::PUT, &put).await.unwrap();
            assert_eq!(answer.header.unwrap().revision, length as i64);
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_stream_goes_both_ways_until_the_server_ends_it() {
    let server = Server::start("127.0.0.1:0").await;
    let line = server.line().await;
    let first = LeaseKeepAliveRequest { id: 10 };
    let mut stream = line.exchange(method::LEASE_KEEP_ALIVE, &first).await.unwrap();
    for (id, ttl) in [(10, 3), (11, 2), (12, 1)] {
        let answer = stream.next().await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (id, ttl));
        if ttl > 1 {
            stream.send(&LeaseKeepAliveRequest { id: id + 1 }).unwrap();
        }
    }
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(stream.next().await.unwrap(), None);
    assert_eq!(stream.send(&first).unwrap_err().code(), Code::Unavailable);
    // One that is dropped in between does no harm.
    let mut stream = line.exchange(method::LEASE_KEEP_ALIVE, &first).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().id, 10);
    drop(stream);
    assert_eq!(ask(&line, "found").await, Ok(300));
}

#[tokio::test]
async fn a_connection_that_has_ended_is_opened_again_once_for_all() {
    let server = Server::start("127.0.0.1:0").await;
    let line = server.line().await;
    assert_eq!(ask(&line, "found").await, Ok(300));
    server.close.send_modify(|times| *times += 1);
    until_ended(&line).await;
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let line = line.clone();
        calls.spawn(async move { ask(&line, "found").await });
    }
    while let Some(call) = calls.join_next().await {
        assert_eq!(call.unwrap(), Ok(300));
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn calls_fail_while_nobody_answers_and_go_on_when_somebody_does() {
    let server = Server::start("127.0.0.1:0").await;
    let line = server.line().await;
    assert_eq!(ask(&line, "found").await, Ok(300));
    let mut stream = line.exchange(method::LEASE_KEEP_ALIVE, &LeaseKeepAliveRequest { id: 1 }).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let address = server.end().await;
    // Whatever was under way, and whatever begins.
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    until_ended(&line).await;
    for _ in 0..3 {
        let (code, said) = ask(&line, "found").await.unwrap_err();
        assert!(code == Code::Unavailable && said.contains("no connection"), "{code:?} {said}");
    }
    let server = Server::start(&address.to_string()).await;
    let answered = async {
        // Shortly after an attempt that failed there is none.
        while ask(&line, "found").await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(DEADLINE, answered).await.unwrap();
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_no_address_and_what_does_not_answer_are_told_apart() {
    for address in ["", "/path", "http://", "a b"] {
        assert!(matches!(Endpoint::new(address, None), Err(ConnectError::Address(_))), "{address}");
    }
    let address = Server::start("127.0.0.1:0").await.end().await;
    let endpoint = Endpoint::new(&format!("http://{address}/"), None).unwrap();
    assert!(matches!(Line::connect(endpoint).await, Err(ConnectError::Tcp(_))));
}
