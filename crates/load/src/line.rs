//! A connection, opened again when it has ended, and what every call over it says.
//!
//! Calls go to HTTP/2 by themselves (`exchange.rs`), not through a client library: on the machine that is measured, what the generator takes nobody else has.
//!
//! * A call on a connection that has ended opens a new one; calls that were under way have failed. While nobody answers, calls fail with why.
//! * One call at a time tries to connect. Those that wait for it, or come shortly after it, share what came of it.

use crate::endpoint::{ConnectError, Endpoint};
use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::uri::PathAndQuery;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// After an attempt to connect that failed.
const PAUSE: Duration = Duration::from_millis(20);

/// A connection with a node. Several clients share one; clones are the same.
#[derive(Clone, Debug)]
pub struct Line {
    endpoint: Arc<Endpoint>,
    headers: HeaderMap,
    connection: Arc<Connection>,
}

#[derive(Debug)]
struct Connection {
    open: Mutex<SendRequest<Bytes>>,
    /// When the last attempt to open it again failed, and why.
    failed: tokio::sync::Mutex<Option<(Instant, Status)>>,
}

/// A call that was begun: where its answer will come, and where its messages go.
pub(crate) type Begun = (ResponseFuture, SendStream<Bytes>);

impl Line {
    /// Connects.
    ///
    /// # Errors
    /// The node does not answer, or not as it should.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, ConnectError> {
        let open = Mutex::new(endpoint.connect().await?);
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
            (TE, HeaderValue::from_static("trailers")),
        ];
        let connection = Connection { open, failed: tokio::sync::Mutex::new(None) };
        Ok(Self {
            endpoint: Arc::new(endpoint),
            headers: headers.into_iter().collect(),
            connection: Arc::new(connection),
        })
    }

    /// The same, with a header that every call carries. `None` if it cannot be one.
    pub fn with_header(mut self, name: &'static str, value: &str) -> Option<Self> {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value).ok()?);
        Some(self)
    }

    /// Begins a call.
    pub(crate) async fn begin(&self, path: PathAndQuery) -> Result<Begun, Status> {
        if let Some(begun) = self.begin_if_open(&path) {
            return begun.map_err(broken);
        }
        self.open_again().await?;
        let begun = self.begin_if_open(&path).map(|begun| begun.map_err(broken));
        begun.unwrap_or_else(|| Err(Status::unavailable("the connection ended as soon as it was opened")))
    }

    /// The same, unless the connection has ended.
    fn begin_if_open(&self, path: &PathAndQuery) -> Option<Result<Begun, h2::Error>> {
        let mut sender = self.connection.lock();
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return None,
            // Its last call waits until the server takes one more. A clone knows nothing of that, and lets calls queue; they are as many as there are clients.
            Poll::Pending => *sender = sender.clone(),
        }
        Some(sender.send_request(self.endpoint.head(path.clone(), self.headers.clone()), false))
    }

    async fn open_again(&self) -> Result<(), Status> {
        let mut failed = self.connection.failed.lock().await;
        // Somebody may have done it meanwhile.
        if self.is_open() {
            return Ok(());
        }
        if let Some((when, why)) = failed.as_ref()
            && when.elapsed() < PAUSE
        {
            return Err(why.clone());
        }
        match self.endpoint.connect().await {
            Ok(sender) => {
                *failed = None;
                *self.connection.lock() = sender;
                Ok(())
            }
            Err(error) => {
                let why = Status::unavailable(error.to_string());
                *failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn is_open(&self) -> bool {
        let ready = self.connection.lock().poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_)))
    }
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, SendRequest<Bytes>> {
        // Whoever panicked with it has left a connection behind that is still one.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, or a stream of it, that ended.
pub(crate) fn broken(error: h2::Error) -> Status {
    let mut status = Status::unavailable(format!("the connection broke: {error}"));
    status.set_source(Arc::new(error));
    status
}

#[cfg(test)]
mod tests;
