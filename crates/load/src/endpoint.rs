//! Where a node is, and how a connection with it begins.

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use quorate_api::gathered::Gathered;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// A connection that takes longer, to come about or to agree on TLS, is none.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// So much a server may send before it is told that it was read: enough that it never waits, and is seldom told.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// A node's address for clients.
#[derive(Clone)]
pub struct Endpoint {
    authority: Authority,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// That is no address.
    Address(String),
    /// The node could not be reached.
    Tcp(io::Error),
    /// There was no agreement on TLS.
    Tls(io::Error),
    /// It speaks TLS, but something else than HTTP/2 over it.
    NotHttp2,
    /// HTTP/2 did not begin.
    Http2(h2::Error),
    /// It took too long.
    TimedOut,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConnectError::Address(why) => write!(out, "not an address: {why}"),
            ConnectError::Tcp(error) => write!(out, "no connection: {error}"),
            ConnectError::Tls(error) => write!(out, "no agreement on TLS: {error}"),
            ConnectError::NotHttp2 => write!(out, "it does not speak HTTP/2 over TLS"),
            ConnectError::Http2(error) => write!(out, "HTTP/2 did not begin: {error}"),
            ConnectError::TimedOut => write!(out, "no connection within {} s", CONNECT_MAX.as_secs()),
        }
    }
}

impl std::error::Error for ConnectError {}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(out, "{scheme}://{}", self.authority)
    }
}

impl Endpoint {
    /// The one at this URI, or HOST:PORT. Whether it speaks TLS is said by what to trust then.
    ///
    /// # Errors
    /// There is no host in it, or none that a certificate can name.
    pub fn new(uri: &str, tls: Option<ClientConfig>) -> Result<Self, ConnectError> {
        let parsed: Uri = uri.parse().map_err(|error| ConnectError::Address(format!("{error}")))?;
        let missing = || ConnectError::Address("it has no host".into());
        let authority = parsed.authority().cloned().ok_or_else(missing)?;
        let tls = tls.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
            let name = ServerName::try_from(bare(authority.host()).to_owned());
            let name = name.map_err(|error| ConnectError::Address(error.to_string()))?;
            Ok((TlsConnector::from(Arc::new(config)), name))
        });
        Ok(Self { authority, tls: tls.transpose()? })
    }

    /// The head of a call.
    pub(crate) fn head(&self, path: PathAndQuery, headers: HeaderMap) -> Request<()> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        let mut head = Request::new(());
        *head.method_mut() = Method::POST;
        *head.version_mut() = Version::HTTP_2;
        *head.uri_mut() = Uri::from_parts(parts).expect("all three parts of it are there");
        *head.headers_mut() = headers;
        head
    }

    /// A new connection. It lives as long as somebody may send over it, or waits for an answer.
    pub(crate) async fn connect(&self) -> Result<SendRequest<Bytes>, ConnectError> {
        let port = self.authority.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((bare(self.authority.host()), port));
        let tcp = in_time(tcp).await?.map_err(ConnectError::Tcp)?;
        tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let Some((connector, name)) = &self.tls else { return begin(tcp).await };
        let tls = in_time(connector.connect(name.clone(), tcp)).await?.map_err(ConnectError::Tls)?;
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::NotHttp2);
        }
        begin(tls).await
    }
}

/// A host without the brackets that an IPv6 address has in a URI.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

async fn in_time<T>(done: impl Future<Output = T>) -> Result<T, ConnectError> {
    tokio::time::timeout(CONNECT_MAX, done).await.map_err(|_| ConnectError::TimedOut)
}

async fn begin<S>(stream: S) -> Result<SendRequest<Bytes>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false);
    builder.initial_window_size(STREAM_WINDOW_BYTES);
    builder.initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let begun = in_time(builder.handshake(Gathered::new(stream))).await?;
    let (sender, connection) = begun.map_err(ConnectError::Http2)?;
    tokio::spawn(async move {
        // Why it ended is told to whoever has a call on it, or begins one.
        let _ = connection.await;
    });
    Ok(sender)
}
