//! The client port: accepting connections and speaking HTTP on them.
//!
//! gRPC is HTTP/2 ([`super::http2`]), health and metrics are mostly asked for over HTTP/1.1; which of the two it is, the first bytes tell (or TLS,
//! when it is on). Everything a stranger can make us hold has a bound: connections, streams on one, the time
//! until the first byte, the TLS handshake and the headers of an HTTP/1 request. What is not bounded: how long a
//! connection may stay without calls, as clients keep theirs open; a dead one is found by HTTP/2 pings.

use super::complaint::Complaint;
use super::http2;
use crate::services::direct::Direct;
use crate::tls::{self, Current};
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tracing::{debug, info, warn};

/// Connections at a time, if the system lets us have so many files; more are refused.
const CONNECTIONS_MAX: usize = 16_384;
/// A client that says nothing for so long after it has connected is let go.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(30);
/// How long the headers of an HTTP/1 request may take.
const HEADERS_MAX: Duration = Duration::from_secs(30);
/// What HTTP/2 begins with (RFC 9113, 3.4), and no request of HTTP/1.
const HTTP2_BEGINS: [u8; 3] = *b"PRI";
/// What it is called within TLS.
const HTTP2_PROTOCOL: &[u8] = b"h2";
/// Between attempts to accept when the system has no files left, and between lines about refusals.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Room for connections, of all ports together; clones are the same.
#[derive(Clone)]
pub struct Slots {
    slots: Arc<Semaphore>,
    connections_max: usize,
}

impl Slots {
    /// As many as this process can afford.
    pub fn affordable() -> Self {
        let connections_max = connections_max();
        Self { slots: Arc::new(Semaphore::new(connections_max)), connections_max }
    }
}

/// Serves clients until told to stop; then accepts no more, tells those connected (GOAWAY) and returns when the
/// last call is answered. Whoever waits for that sets the limit.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Current<ServerConfig>>>,
    (router, direct): (Router, Direct),
    Slots { slots, connections_max }: Slots,
    mut stop: watch::Receiver<bool>,
) {
    let server = Arc::new(Server { tls, router: router.with_state(()), direct, builder: builder() });
    let mut refusals = Complaint::every(COMPLAINT_INTERVAL);
    let mut failures = Complaint::every(COMPLAINT_INTERVAL);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping(&mut stop) => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                if let Some(times) = failures.due() {
                    warn!(%error, times, "cannot accept a client's connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            if let Some(refused) = refusals.due() {
                warn!(
                    %address, refused, connections_max,
                    "clients' connections are refused: as many are open as this node takes; \
                     do clients close theirs, and is the limit of open files (ulimit -n) high enough?"
                );
            }
            continue;
        };
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = server.connection(stream, stop).await {
                debug!(%address, error, "a client's connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    // All slots are free when all connections, also those of other ports, have ended. The semaphore is never closed.
    let _ = slots.acquire_many(connections_max as u32).await;
}

struct Server {
    tls: Option<Arc<Current<ServerConfig>>>,
    router: Router,
    direct: Direct,
    builder: Builder<TokioExecutor>,
}

impl Server {
    async fn connection(&self, stream: TcpStream, mut stop: watch::Receiver<bool>) -> Result<(), String> {
        // Without it small answers wait for the acknowledgement of earlier ones.
        stream.set_nodelay(true).map_err(|error| format!("setting TCP_NODELAY: {error}"))?;
        let begins_as_tls = tokio::select! {
            begun = tokio::time::timeout(FIRST_BYTE_MAX, tls::begins_as_tls(&stream)) => match begun {
                Ok(begun) => begun.map_err(|error| error.to_string())?,
                Err(_) => return Err("it said nothing".into()),
            },
            () = stopping(&mut stop) => return Ok(()),
        };
        let refusal = match (&self.tls, begins_as_tls) {
            (None, false) => {
                let mut first = [0; HTTP2_BEGINS.len()];
                let begun = stream.peek(&mut first).await.map_err(|error| error.to_string())?;
                return self.http(stream, first[..begun] == HTTP2_BEGINS, stop).await;
            }
            (None, true) => "it speaks TLS, which this node does not: --cert-file is not set",
            (Some(_), false) => "it does not speak TLS: clients of this node need https:// and a CA",
            (Some(tls), true) => {
                let acceptor = TlsAcceptor::from(tls.get());
                let handshake = acceptor.accept(stream).into_fallible();
                let shaken = tokio::select! {
                    shaken = tokio::time::timeout(tls::HANDSHAKE_MAX, handshake) => shaken,
                    () = stopping(&mut stop) => return Ok(()),
                };
                return match shaken {
                    Ok(Ok(stream)) => {
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2_PROTOCOL);
                        self.http(stream, is_http2, stop).await
                    }
                    Ok(Err((error, stream))) => {
                        tls::close_gently(stream).await;
                        Err(format!("the TLS handshake failed: {error}"))
                    }
                    Err(_) => Err("it did not finish the TLS handshake in time".into()),
                };
            }
        };
        tls::close_gently(stream).await;
        Err(refusal.into())
    }

    /// What is not known to be HTTP/2 may still turn out to be.
    async fn http<S>(&self, stream: S, is_http2: bool, mut stop: watch::Receiver<bool>) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if is_http2 {
            return http2::serve(stream, self.router.clone(), self.direct.clone(), stop).await;
        }
        let service = TowerToHyperService::new(self.router.clone());
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = stopping(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        served.map_err(|error| error.to_string())
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(http2::STREAMS_MAX)
        .initial_stream_window_size(http2::STREAM_WINDOW)
        .initial_connection_window_size(http2::CONNECTION_WINDOW)
        .keep_alive_interval(http2::PING_EVERY)
        .keep_alive_timeout(http2::PING_MAX)
        .max_pending_accept_reset_streams(http2::TAKEN_BACK_MAX);
    builder
}

/// Half of the files this process may have open: the log and the store must never be short of them.
fn connections_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| {
        // "Max open files   SOFT   HARD   files" (proc(5)); not a number is no limit.
        line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<usize>().ok()
    });
    let connections_max = files.map_or(CONNECTIONS_MAX, |files| CONNECTIONS_MAX.min(files / 2)).max(1);
    if connections_max < CONNECTIONS_MAX {
        info!(connections_max, "clients' connections are bounded by the limit of open files (ulimit -n)");
    }
    connections_max
}

/// Whether accepting failed because of the one who connected, not for lack of something here.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Waits until the node is about to stop.
pub async fn stopping(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}
