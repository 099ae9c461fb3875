//! Calls of the client port frame by frame, straight over HTTP/2.

use super::{Cluster, PATIENCE};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use prost::Message;
use quorate_api::pb;
use quorate_types::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::http::{HeaderMap, Request};
use tonic::{Code, Status};

/// A connection with the first node; `window` bytes of each answer may be on their way.
pub async fn connected(cluster: &Cluster, window: u32) -> SendRequest<Bytes> {
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
pub struct Begun {
    pub response: h2::client::ResponseFuture,
    pub body: SendStream<Bytes>,
}

/// Begins a call of the KV service.
pub async fn begun(calls: &SendRequest<Bytes>, method: &str) -> Begun {
    begun_at(calls, &format!("/etcdserverpb.KV/{method}"), &[]).await
}

/// Begins a call; `headers` stand for those it would usually have, or beside them.
pub async fn begun_at(calls: &SendRequest<Bytes>, path: &str, headers: &[(&'static str, &str)]) -> Begun {
    let mut request = Request::post(format!("http://node{path}")).body(()).unwrap();
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(headers) {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (response, body) = calls.clone().ready().await.unwrap().send_request(request, false).unwrap();
    Begun { response, body }
}

/// A message behind its prefix.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame
}

impl Begun {
    /// Says these bytes of the call's body.
    pub fn say(&mut self, bytes: &[u8], is_last: bool) {
        // A call that was answered before takes nothing more; who looks at the answer sees it.
        let _ = self.body.send_data(Bytes::copy_from_slice(bytes), is_last);
    }

    /// What is answered, after its prefix.
    pub async fn answered(self) -> Result<Vec<u8>, Status> {
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

/// The one message of an answer, after its prefix.
pub async fn rest(mut body: RecvStream) -> Result<Vec<u8>, Status> {
    let mut taken = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        taken.extend_from_slice(&data);
    }
    let status = said(&body.trailers().await.unwrap().expect("an answer ends with trailers"));
    if status.code() != Code::Ok {
        return Err(status);
    }
    assert_eq!(taken[0], 0, "it is not compressed");
    assert_eq!(u32::from_be_bytes(taken[1..5].try_into().unwrap()) as usize, taken.len() - 5);
    Ok(taken.split_off(5))
}

/// A message of Put; the key is always the same.
pub fn put(value: &[u8]) -> Vec<u8> {
    framed(&pb::PutRequest { key: "k".into(), value: value.to_vec().into(), ..Default::default() })
}

/// The message of Range for that key.
pub fn get() -> Vec<u8> {
    framed(&pb::RangeRequest { key: "k".into(), ..Default::default() })
}

/// What that key has.
pub async fn value(calls: &SendRequest<Bytes>) -> Vec<u8> {
    let mut call = begun(calls, "Range").await;
    call.say(&get(), true);
    let answer = pb::RangeResponse::decode(&call.answered().await.unwrap()[..]).unwrap();
    answer.kvs[0].value.to_vec()
}

/// An answer of many messages.
pub struct Told {
    body: RecvStream,
    /// Come, and not looked at.
    bytes: Vec<u8>,
}

impl Told {
    /// Of a call that is not refused.
    pub async fn of(call: h2::client::ResponseFuture) -> Self {
        let (head, body) = timeout(PATIENCE, call).await.expect("it is answered").unwrap().into_parts();
        assert_eq!(Status::from_header_map(&head.headers).map(|status| status.code()), None);
        Self { body, bytes: Vec::new() }
    }

    /// The next message; if there is none any more, how the stream ended.
    pub async fn next<M: Message + Default>(&mut self) -> Result<M, Status> {
        loop {
            if let Some(prefix) = self.bytes.first_chunk::<5>() {
                assert_eq!(prefix[0], 0, "it is not compressed");
                let end = 5 + u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                if self.bytes.len() >= end {
                    let message = self.bytes.drain(..end).skip(5).collect::<Vec<u8>>();
                    return Ok(M::decode(&message[..]).unwrap());
                }
            }
            let Some(data) = timeout(PATIENCE, self.body.data()).await.expect("it goes on") else { break };
            let data = data.unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            self.bytes.extend_from_slice(&data);
        }
        assert_eq!(self.bytes, b"", "half a message");
        let trailers = timeout(PATIENCE, self.body.trailers()).await.expect("it ends").unwrap();
        Err(said(&trailers.expect("a stream ends with trailers")))
    }
}

/// The status in these headers.
fn said(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).expect("they say how the call ended")
}
