//! Calls: one message and its answer, or a stream of each.

use crate::framing::{Unframer, framed, outcome};
use crate::line::{Line, broken};
use crate::method::Method;
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{Response, StatusCode, header};
use prost::Message;
use std::marker::PhantomData;
use tonic::Status;

/// A stream of messages `Q` to a node, and of answers `A`. It ends when it is dropped.
pub(crate) struct Exchange<Q, A> {
    messages: SendStream<Bytes>,
    answers: Answers<A>,
    _messages: PhantomData<fn(Q)>,
}

/// What comes back.
struct Answers<A> {
    state: State,
    unframer: Unframer,
    _answers: PhantomData<fn() -> A>,
}

enum State {
    /// The head has not come.
    Asked(ResponseFuture),
    /// It has.
    Told(RecvStream),
    /// Everything has.
    Ended,
}

impl Line {
    /// A call with one message and one answer.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: Method<Q, A>,
        message: &Q,
    ) -> Result<A, Status> {
        let message = framed(message)?;
        let (answer, mut messages) = self.begin(method.path).await?;
        messages.send_data(message, true).map_err(broken)?;
        let mut answers = Answers::new(answer);
        let answer = answers.next().await?;
        // What became of the call is told after it.
        match (answer, answers.next().await?) {
            (Some(answer), None) => Ok(answer),
            (None, _) => Err(Status::internal("there is no answer, and no error")),
            (Some(_), Some(_)) => Err(Status::internal("there are two answers to one call")),
        }
    }

    /// A call with many of both. The first message goes with it: a server may answer nothing before it has one.
    pub(crate) async fn exchange<Q: Message, A: Message + Default>(
        &self,
        method: Method<Q, A>,
        first: &Q,
    ) -> Result<Exchange<Q, A>, Status> {
        let first = framed(first)?;
        let (answer, mut messages) = self.begin(method.path).await?;
        messages.send_data(first, false).map_err(broken)?;
        Ok(Exchange { messages, answers: Answers::new(answer), _messages: PhantomData })
    }
}

impl<Q: Message, A: Message + Default> Exchange<Q, A> {
    /// Sends another message. Those who send many without waiting for answers fill the memory.
    pub(crate) fn send(&mut self, message: &Q) -> Result<(), Status> {
        self.messages.send_data(framed(message)?, false).map_err(broken)
    }

    /// The next answer; `None` if the server has ended the stream as it should.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, Status> {
        self.answers.next().await
    }
}

impl<A: Message + Default> Answers<A> {
    fn new(answer: ResponseFuture) -> Self {
        Self { state: State::Asked(answer), unframer: Unframer::default(), _answers: PhantomData }
    }

    async fn next(&mut self) -> Result<Option<A>, Status> {
        loop {
            if let Some(message) = self.unframer.pop()? {
                let unreadable = |error| Status::internal(format!("an answer cannot be read: {error}"));
                return A::decode(message).map(Some).map_err(unreadable);
            }
            match &mut self.state {
                State::Asked(response) => {
                    let response = response.await.map_err(broken)?;
                    self.state = State::Ended;
                    // There may be nothing but a head.
                    if let Some(outcome) = outcome(response.headers()) {
                        return outcome.map(|()| None);
                    }
                    must_be_grpc(&response)?;
                    self.state = State::Told(response.into_body());
                }
                State::Told(body) => match body.data().await {
                    Some(bytes) => {
                        let bytes = bytes.map_err(broken)?;
                        body.flow_control().release_capacity(bytes.len()).map_err(broken)?;
                        self.unframer.push(bytes);
                    }
                    None => {
                        let trailers = body.trailers().await.map_err(broken)?;
                        self.state = State::Ended;
                        let outcome = trailers.as_ref().and_then(outcome);
                        outcome.ok_or_else(|| Status::unknown("the call ended without a status"))??;
                        if !self.unframer.is_empty() {
                            return Err(Status::internal("the answer ended within a message"));
                        }
                    }
                },
                State::Ended => return Ok(None),
            }
        }
    }
}

/// What is no answer of gRPC: of a proxy perhaps.
fn must_be_grpc(head: &Response<RecvStream>) -> Result<(), Status> {
    let kind = head.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    match head.status() {
        StatusCode::OK if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) => Ok(()),
        StatusCode::OK => Err(Status::unknown("the answer is not gRPC's")),
        status => Err(Status::unavailable(format!("the answer is not gRPC's but HTTP status {status}"))),
    }
}
