//! How a connection between nodes begins: who dials says who it is, and is welcomed or turned away with a reason.
//!
//! A hello names the protocol's version, the cluster, both nodes and the sender's data directory. With TLS it comes after the handshake, and has to
//! come from a node that the dialler's certificate names. One whose row was removed is told so in words that it knows: it stops
//! ([`super::removal`]). The layout is drawn in `docs/peer.md`.

use super::removal::Gone;
use super::transport::Peers;
use crate::tls::{self, Current, PeerConfig};
use quorate_types::{ClusterId, Incarnation, NodeId};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const MAGIC: [u8; 8] = *b"QUORPEER";
/// Of a connection for calls ([`super::calls`]).
const MAGIC_CALLS: [u8; 8] = *b"QUORCALL";
/// Of the wire protocol; two nodes with different ones do not talk.
pub const PROTOCOL: u32 = 8;
/// Magic, version, cluster, sender, receiver, the sender's data directory.
pub(crate) const HELLO_BYTES: usize = 44;
/// Where in a hello the sender's id is.
pub(crate) const HELLO_SENDER: usize = 20;
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a new node that knows nobody listens for one that knows it: several times as long as peers wait before they dial again.
const MISSED_WITHIN: Duration = Duration::from_millis(400);
/// The verdict about who was a member once; the words are part of the protocol.
const REMOVED: &str = "this node was removed from the cluster";

/// Who we are.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
}

/// Who has said hello, and from which data directory.
pub(crate) type Peer = (NodeId, Incarnation);

/// A connection to or from a peer, with TLS or without.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}
/// Any of them.
pub type Stream = Box<dyn Duplex>;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Messages, one way.
    Messages,
    /// Calls that the dialler makes.
    Calls,
}

impl Use {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Messages => MAGIC,
            Self::Calls => MAGIC_CALLS,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// Nobody is there, or not any more.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody is there, but one of us wants no connection. Mends by a change of settings or certificates only.
    #[error("{0}")]
    Refused(String),
    /// This node was removed, says somebody who has seen it.
    #[error("{REMOVED}")]
    Removed,
}

/// Dials a peer and says hello.
pub(super) async fn connect(
    identity: &Identity,
    tls: Option<&Current<PeerConfig>>,
    peer: NodeId,
    address: &str,
    purpose: Use,
) -> Result<Stream, DialError> {
    let unreachable = |error: io::Error| DialError::Unreachable(error.to_string());
    let no_answer = |to: &str| DialError::Unreachable(format!("no answer to {to}"));
    let stream = tokio::time::timeout(HELLO_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| no_answer("connect"))?
        .map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let mut stream: Stream = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let host = tls::host_of(address).map_err(DialError::Refused)?;
            let connector = TlsConnector::from(tls.get().client.clone());
            let shaken = tokio::time::timeout(HELLO_TIMEOUT, connector.connect(host, stream)).await;
            let shaken = shaken.map_err(|_| no_answer("the TLS handshake"))?;
            Box::new(shaken.map_err(|error| DialError::Refused(tls::explain(&error)))?)
        }
    };
    let mut hello = Vec::with_capacity(HELLO_BYTES);
    hello.extend_from_slice(&purpose.magic());
    hello.extend_from_slice(&PROTOCOL.to_le_bytes());
    hello.extend_from_slice(&identity.cluster.0.to_le_bytes());
    hello.extend_from_slice(&identity.node.0.to_le_bytes());
    hello.extend_from_slice(&peer.0.to_le_bytes());
    hello.extend_from_slice(&identity.incarnation.0.to_le_bytes());
    let verdict = tokio::time::timeout(HELLO_TIMEOUT, async {
        stream.write_all(&hello).await?;
        stream.flush().await?;
        let length = stream.read_u16_le().await? as usize;
        let mut text = vec![0; length];
        stream.read_exact(&mut text).await?;
        io::Result::Ok(text)
    })
    .await
    .map_err(|_| no_answer("hello"))?
    // What the peer thinks of our certificate comes in place of its verdict.
    .map_err(|error| match tls {
        None => unreachable(error),
        Some(_) => DialError::Refused(tls::explain(&error)),
    })?;
    match verdict.as_slice() {
        [] => Ok(stream),
        verdict if verdict == REMOVED.as_bytes() => Err(DialError::Removed),
        verdict => Err(DialError::Refused(format!("turned away: {}", String::from_utf8_lossy(verdict)))),
    }
}

/// Why one who dialled is turned away.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(super) why: String,
    /// A node of this cluster that looks for this one, and that this one does not know.
    pub(super) stranger: Option<NodeId>,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, stranger: None }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        error.to_string().into()
    }
}

/// Listens a little for nodes that take this one for a member, which has just been started with an empty directory and knows nobody. Its
/// peers dial it every tenth of a second; so one that does is among the first to come.
pub async fn missed_by(
    listener: &TcpListener,
    identity: &Identity,
    tls: Option<&Current<PeerConfig>>,
) -> Option<NodeId> {
    let (_sender, peers) = watch::channel(Arc::default());
    let gone = Gone::default();
    let listen = async {
        loop {
            let (stream, _) = listener.accept().await.ok()?;
            if let Err(Refusal { stranger: Some(stranger), .. }) =
                admit(stream, identity, (&peers, &gone), tls).await
            {
                return Some(stranger);
            }
        }
    };
    tokio::time::timeout(MISSED_WITHIN, listen).await.ok().flatten()
}

/// Makes sure of who dials.
pub(super) async fn admit(
    mut stream: TcpStream,
    identity: &Identity,
    (peers, gone): (&watch::Receiver<Arc<Peers>>, &Gone),
    tls: Option<&Current<PeerConfig>>,
) -> Result<(Peer, Use, Stream), Refusal> {
    stream.set_nodelay(true)?;
    let (verdict, why) = match (tls, tls::begins_as_tls(&stream).await?) {
        (None, false) => {
            let (peer, purpose) = welcome(&mut stream, identity, (peers, gone), None).await?;
            return Ok((peer, purpose, Box::new(stream)));
        }
        (Some(tls), true) => {
            let acceptor = TlsAcceptor::from(tls.get().server.clone());
            return match acceptor.accept(stream).into_fallible().await {
                Ok(mut stream) => {
                    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let certificate = chain.first().map(|first| first.clone().into_owned());
                    let certificate = certificate.as_ref();
                    let (peer, purpose) = welcome(&mut stream, identity, (peers, gone), certificate).await?;
                    Ok((peer, purpose, Box::new(stream)))
                }
                Err((error, stream)) => {
                    tls::close_gently(stream).await;
                    Err(tls::explain(&error).into())
                }
            };
        }
        (None, true) => (
            "this node's peer port does not speak TLS",
            "it speaks TLS, which this node does not: set --peer-cert-file, --peer-key-file and \
             --peer-trusted-ca-file here, too",
        ),
        (Some(_), false) => (
            "this node's peer port speaks TLS only: set --peer-cert-file, --peer-key-file and \
             --peer-trusted-ca-file there, too",
            "it does not speak TLS: set --peer-cert-file, --peer-key-file and --peer-trusted-ca-file there, too",
        ),
    };
    // It may be gone already; it is turned away all the same.
    let _ = answer(&mut stream, verdict).await;
    tls::close_gently(stream).await;
    Err(why.to_owned().into())
}

/// Says why not; no reason is a welcome.
async fn answer(stream: &mut (impl AsyncWrite + Unpin), verdict: &str) -> io::Result<()> {
    stream.write_u16_le(verdict.len() as u16).await?;
    stream.write_all(verdict.as_bytes()).await?;
    stream.flush().await
}

/// Hears the dialler's hello and answers it. With TLS its certificate must name the node it says it is.
pub(crate) async fn welcome(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    identity: &Identity,
    (peers, gone): (&watch::Receiver<Arc<Peers>>, &Gone),
    certificate: Option<&CertificateDer<'_>>,
) -> Result<(Peer, Use), Refusal> {
    let mut hello = [0; HELLO_BYTES];
    // A stranger, or another version, may say less than we would wait for.
    let (begin, rest) = hello.split_at_mut(MAGIC.len() + 4);
    stream.read_exact(begin).await?;
    let purpose = [Use::Messages, Use::Calls].into_iter().find(|it| it.magic() == begin[..MAGIC.len()]);
    if purpose.is_some() && begin[MAGIC.len()..] == PROTOCOL.to_le_bytes() {
        stream.read_exact(rest).await?;
    }
    let number = |at: usize| {
        let mut raw = [0; 8];
        raw.copy_from_slice(&hello[at..at + 8]);
        u64::from_le_bytes(raw)
    };
    let version = (number(8) & 0xffff_ffff) as u32;
    let (cluster, from, to) = (ClusterId(number(12)), NodeId(number(HELLO_SENDER)), NodeId(number(28)));
    let mut stranger = None;
    let objection = if purpose.is_none() {
        Some("this port speaks the peer protocol of quorate; clients use the client port".to_owned())
    } else if version != PROTOCOL {
        Some(format!("peer protocol version {version}, here it is {PROTOCOL}"))
    } else if cluster != identity.cluster {
        Some(format!(
            "node {from} is of cluster {cluster}, here is cluster {}: compare --initial-cluster, --cluster-token and --join",
            identity.cluster
        ))
    } else if to != identity.node {
        Some(format!("node {from} looks for node {to} here, but this is node {}", identity.node))
    } else {
        let peers = peers.borrow().clone();
        match (peers.get(&from), certificate) {
            (None, _) if gone.read().contains(&from) => Some(REMOVED.to_owned()),
            // Who has just joined is one as soon as this node has heard of it.
            (None, _) => {
                stranger = Some(from);
                Some(format!(
                    "node {from} is not a member of the cluster, as far as this node knows: it has just joined, or it was removed, \
                     and its process can be stopped"
                ))
            }
            (Some(address), Some(certificate)) if !tls::is_for(certificate, address) => Some(format!(
                "node {from} has the address {address} in the cluster, but its certificate is for other names: it needs that host \
                 as a SAN"
            )),
            (Some(_), _) => None,
        }
    };
    answer(stream, objection.as_deref().unwrap_or_default()).await?;
    match (objection, purpose) {
        (None, Some(purpose)) => Ok(((from, Incarnation(number(36))), purpose)),
        (objection, _) => Err(Refusal { why: objection.unwrap_or_default(), stranger }),
    }
}
