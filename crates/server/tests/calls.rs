//! Calls frame by frame: whatever way a message comes in, and whether or not its answer is taken.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod support;

use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use prost::Message;
use quorate_api::pb;
use quorate_types::Bytes;
use support::{Cluster, PATIENCE};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::Request;
use tonic::{Code, Status};

/// A connection with the only node; `window` bytes of each answer may be on their way.
async fn connected(cluster: &Cluster, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(&cluster.nodes[0].client).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(16 << 20);
    let shaken = builder.handshake(stream).await;
    let (calls, connection) = shaken.unwrap();
    tokio::spawn(async move {
        // Ends with the test.
        let _ = connection.await;
    });
    calls
}

/// A call that is begun.
struct Begun {
    response: h2::client::ResponseFuture,
    body: SendStream<Bytes>,
}

async fn begun(calls: &SendRequest<Bytes>, method: &str) -> Begun {
    let request = Request::post(format!("http://node/etcdserverpb.KV/{method}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let (response, body) =
        calls.clone().ready().await.unwrap().send_request(request.body(()).unwrap(), false).unwrap();
    Begun { response, body }
}

fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

impl Begun {
    fn say(&mut self, bytes: &[u8], is_last: bool) {
        self.body.send_data(Bytes::copy_from_slice(bytes), is_last).unwrap();
    }

    /// What is answered, after its prefix.
    async fn answered(self) -> Result<Vec<u8>, Status> {
        timeout(PATIENCE, self.taken()).await.expect("it is answered")
    }

    async fn taken(self) -> Result<Vec<u8>, Status> {
        let (head, body) = self.response.await.unwrap().into_parts();
        // A refusal is all head.
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Err(status);
        }
        rest(body).await
    }
}

async fn rest(mut body: RecvStream) -> Result<Vec<u8>, Status> {
    let mut taken = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        taken.extend_from_slice(&data);
    }
    let status = Status::from_header_map(&body.trailers().await.unwrap().unwrap()).unwrap();
    if status.code() != Code::Ok {
        return Err(status);
    }
    assert_eq!(taken[0], 0, "it is not compressed");
    assert_eq!(u32::from_be_bytes(taken[1..5].try_into().unwrap()) as usize, taken.len() - 5);
    Ok(taken.split_off(5))
}

fn put(value: &[u8]) -> Vec<u8> {
    framed(&pb::PutRequest { key: "k".into(), value: value.to_vec().into(), ..Default::default() })
}

fn get() -> Vec<u8> {
    framed(&pb::RangeRequest { key: "k".into(), ..Default::default() })
}

async fn value(calls: &SendRequest<Bytes>) -> Vec<u8> {
    let mut call = begun(calls, "Range").await;
    call.say(&get(), true);
    let answer = pb::RangeResponse::decode(&call.answered().await.unwrap()[..]).unwrap();
    answer.kvs[0].value.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_come_in_any_pieces() {
    let cluster = Cluster::started(1).await;
    let calls = connected(&cluster, 1 << 20).await;
    for pieces in [1, 2, 3, 7, 100] {
        let value_put = vec![pieces as u8; 300];
        let message = put(&value_put);
        let mut call = begun(&calls, "Put").await;
        let mut left = message.chunks(message.len().div_ceil(pieces)).peekable();
        while let Some(piece) = left.next() {
            call.say(piece, left.peek().is_none());
            // The node may look at it before the next one comes.
            tokio::task::yield_now().await;
        }
        call.answered().await.unwrap();
        assert_eq!(value(&calls).await, value_put, "in {pieces} pieces");
    }
    // The end may come by itself, and what is said behind the message means nothing.
    let mut call = begun(&calls, "Put").await;
    call.say(&put(b"v"), false);
    call.say(b"and more", false);
    call.say(b"", true);
    call.answered().await.unwrap();
    assert_eq!(value(&calls).await, b"v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_none_is_refused_and_the_connection_goes_on() {
    let cluster = Cluster::started(1).await;
    let calls = connected(&cluster, 1 << 20).await;
    let good = put(b"v");
    let flagged = |flag: u8| [&[flag], &good[1..]].concat();
    let cases: [(&[u8], Code, &str); 6] = [
        (b"", Code::Internal, "missing"),
        (&good[..3], Code::Internal, "ended before"),
        (&good[..good.len() - 1], Code::Internal, "ended before"),
        (&flagged(1), Code::Internal, "compressed"),
        (&flagged(7), Code::Internal, "7"),
        (&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff], Code::Internal, "decode"),
    ];
    for (method, (said, code, word)) in
        ["Put", "Range", "DeleteRange", "Txn"].iter().flat_map(|method| cases.map(|case| (method, case)))
    {
        let mut call = begun(&calls, method).await;
        call.say(said, true);
        let refusal = call.answered().await.unwrap_err();
        assert_eq!(refusal.code(), code, "{method} {said:?}: {refusal}");
        assert!(refusal.message().contains(word), "{method} {said:?}: {refusal}");
    }
    // One that is too long is refused before it has come.
    let mut call = begun(&calls, "Put").await;
    call.say(&[0, 0x7f, 0, 0, 0], false);
    let refusal = call.answered().await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().contains("larger than max (2130706432"), "{refusal}");

    let mut call = begun(&calls, "Put").await;
    call.say(&good, true);
    call.answered().await.unwrap();
    assert_eq!(value(&calls).await, b"v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_taken_back_or_not_taken_keep_no_other_waiting() {
    const BYTES: usize = 1_000_000;
    let cluster = Cluster::started(1).await;
    // A window that an answer with the large value does not fit in.
    let calls = connected(&cluster, 64 << 10).await;
    let mut call = begun(&calls, "Put").await;
    let large = put(&vec![b'x'; BYTES]);
    call.say(&large, true);
    call.answered().await.unwrap();

    // The heads of these answers are taken, and of the rest as much as the window holds.
    let mut untaken = Vec::new();
    for _ in 0..4 {
        let mut call = begun(&calls, "Range").await;
        call.say(&get(), true);
        untaken.push(timeout(PATIENCE, call.response).await.unwrap().unwrap().into_body());
    }
    for _ in 0..500 {
        let mut call = begun(&calls, "Put").await;
        call.say(&put(b"never said to its end")[..9], false);
        call.body.send_reset(Reason::CANCEL);
    }
    let mut call = begun(&calls, "Put").await;
    call.say(&put(b"v"), true);
    call.answered().await.unwrap();
    assert_eq!(value(&calls).await, b"v");

    // Half of them the client never wants, the others come whole, as they were when they were read.
    drop(untaken.split_off(2));
    for body in untaken {
        let answer = timeout(PATIENCE, rest(body)).await.expect("it comes").unwrap();
        let answer = pb::RangeResponse::decode(&answer[..]).unwrap();
        assert_eq!(answer.kvs[0].value.len(), BYTES);
    }
}
