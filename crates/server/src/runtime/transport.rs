//! Connections between nodes.
//!
//! Every node dials every other member and sends on that connection only; so a pair has two, one each way. Members come and go
//! while the node runs ([`Transport::set_members`]): whoever is new is dialled, whoever has another address is dialled there, and with whoever is gone
//! there is no connection in either direction any more. What
//! is sent are frames ([`super::frames`]): whatever was waiting when the socket was ready. Messages may be lost (a queue that is full, a connection that
//! breaks); the state machines repair that. A connection begins with a hello that names the protocol's
//! version, the cluster, both nodes and the sender's data directory, so that a stranger is turned away with a reason. With TLS all of this
//! goes through it, both sides present certificates, and the hello must come from a node that the dialler's
//! certificate names. A node with TLS talks to no node without it.
//! The layout is drawn in `docs/peer.md`.

use super::frames::{frame, next_frame};
use super::worker::Input;
use crate::tls::{self, Current, PeerConfig};
use bytes::BytesMut;
use crossbeam_channel::Sender;
use quorate_node::PeerMessage;
use quorate_types::{ClusterId, Decode, Incarnation, Member, NodeId};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{debug, info, warn};

const MAGIC: [u8; 8] = *b"QUORPEER";
/// Of a connection for calls ([`super::calls`]).
const MAGIC_CALLS: [u8; 8] = *b"QUORCALL";
/// Of the wire protocol; two nodes with different ones do not talk.
pub const PROTOCOL: u32 = 4;
/// Batches of messages waiting for one peer's socket; more are dropped, as a network would.
const QUEUE_BATCHES_MAX: usize = 4_096;
/// Frames that the worker has not taken yet; more are dropped.
const WORKER_QUEUE_MAX: usize = 65_536;
/// Bytes written at once.
const WRITE_BYTES_TARGET: usize = 1 << 20;
/// Magic, version, cluster, sender, receiver, the sender's data directory.
pub(crate) const HELLO_BYTES: usize = 44;
/// Where in a hello the sender's id is.
pub(crate) const HELLO_SENDER: usize = 20;
const RECONNECT: Duration = Duration::from_millis(100);
/// A peer that turns us away, or whom we do not trust, will hardly think better of it soon: each attempt waits
/// twice as long as the one before, up to this.
const RECONNECT_REFUSED_MAX: Duration = Duration::from_secs(5);
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections for calls from one peer; it needs one, and another while the end of the first has not been noticed here.
const CALLS_MAX: usize = 4;
/// Connections that have not said hello; with more, the oldest is closed. A member says it within milliseconds, so those that
/// only keep connections open do not keep it out.
const STRANGERS_MAX: usize = 64;
/// The same line about the same stranger is written once in this time,
const REPEAT_INTERVAL: Duration = Duration::from_secs(30);
/// and so many strangers are remembered.
const REPEATS_MAX: usize = 256;

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

/// The other members, and where they listen.
pub type Peers = BTreeMap<NodeId, String>;

/// A peer that is dialled.
struct Dialled {
    address: String,
    queue: mpsc::Sender<Vec<PeerMessage>>,
}

/// Queues to the peers.
pub struct Transport {
    identity: Identity,
    tls: Option<Arc<Current<PeerConfig>>>,
    /// Who owns this need not be a thread of the runtime.
    runtime: Handle,
    dialled: HashMap<NodeId, Dialled>,
    /// For those who accept.
    peers: watch::Sender<Arc<Peers>>,
}

impl Transport {
    /// Knows nobody yet. To be called within the runtime.
    pub fn new(identity: Identity, tls: Option<Arc<Current<PeerConfig>>>) -> Self {
        let (peers, _) = watch::channel(Arc::default());
        Self { identity, tls, runtime: Handle::current(), dialled: HashMap::new(), peers }
    }

    /// Whom to accept connections from: as the members are set, now and later.
    pub fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        self.peers.subscribe()
    }

    /// These are the members now. Connections to those that stay as they are go on.
    pub fn set_members(&mut self, members: &[Member]) {
        let others = members.iter().filter(|member| member.id != self.identity.node);
        let peers: Peers = others.map(|member| (member.id, member.peer.clone())).collect();
        // Its task ends with its queue.
        self.dialled.retain(|peer, dialled| peers.get(peer) == Some(&dialled.address));
        for (peer, address) in &peers {
            // One without an address is on its way out, and nobody is there.
            if self.dialled.contains_key(peer) || address.is_empty() {
                continue;
            }
            let (queue, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
            self.dialled.insert(*peer, Dialled { address: address.clone(), queue });
            self.runtime.spawn(dial(self.identity, self.tls.clone(), *peer, address.clone(), receiver));
        }
        self.peers.send_replace(Arc::new(peers));
    }

    /// Queues messages; those for a peer whose queue is full are lost, and those for who is no member.
    pub fn send(&self, messages: Vec<(NodeId, PeerMessage)>) {
        if messages.is_empty() {
            return;
        }
        let mut batches: BTreeMap<NodeId, Vec<PeerMessage>> = BTreeMap::new();
        for (to, message) in messages {
            batches.entry(to).or_default().push(message);
        }
        for (to, batch) in batches {
            if let Some(peer) = self.dialled.get(&to)
                && peer.queue.try_send(batch).is_err()
            {
                debug!(%to, "messages to a peer are dropped: its queue is full");
            }
        }
    }
}

/// Who has said hello, and from which data directory.
type Peer = (NodeId, Incarnation);

/// A connection to or from a peer, with TLS or without.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}
/// Any of them.
pub type Stream = Box<dyn Duplex>;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
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

/// Answers the calls that come over a connection, until it ends.
pub type Answerer = Arc<dyn Fn(Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// Nobody is there, or not any more.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody is there, but one of us wants no connection. Mends by a change of settings or certificates only.
    #[error("{0}")]
    Refused(String),
}

async fn dial(
    identity: Identity,
    tls: Option<Arc<Current<PeerConfig>>>,
    peer: NodeId,
    address: String,
    mut queue: mpsc::Receiver<Vec<PeerMessage>>,
) {
    // What the log already says.
    let mut told = None;
    let mut pause = RECONNECT;
    loop {
        let connected = connect(&identity, tls.as_deref(), peer, &address, Use::Messages).await;
        if queue.is_closed() {
            return;
        }
        match connected {
            Ok(stream) => {
                info!(%peer, address, tls = tls.is_some(), "connected to peer");
                (told, pause) = (None, RECONNECT);
                // What queued up while nobody listened is old; the state machines will say it again.
                while queue.try_recv().is_ok() {}
                if let Err(error) = pump(stream, &mut queue).await {
                    warn!(%peer, address, %error, "connection to peer broke");
                } else {
                    return;
                }
            }
            Err(DialError::Unreachable(error)) => {
                pause = RECONNECT;
                if told.as_ref() != Some(&error) {
                    warn!(%peer, address, error, "cannot reach peer; will keep trying");
                    told = Some(error);
                }
            }
            Err(DialError::Refused(error)) => {
                pause = (2 * pause).min(RECONNECT_REFUSED_MAX);
                if told.as_ref() != Some(&error) {
                    warn!(%peer, address, error, "no connection to peer; will keep trying");
                    told = Some(error);
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
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
    if verdict.is_empty() {
        Ok(stream)
    } else {
        Err(DialError::Refused(format!("turned away: {}", String::from_utf8_lossy(&verdict))))
    }
}

/// Writes what is queued until the connection breaks (an error), or the node stops or wants this peer no more (none).
async fn pump(mut stream: Stream, queue: &mut mpsc::Receiver<Vec<PeerMessage>>) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut nothing = [0u8; 1];
    loop {
        let batch = tokio::select! {
            batch = queue.recv() => batch,
            // The other side never writes after its verdict; a read that ends means that it is gone.
            read = stream.read(&mut nothing) => {
                return Err(match read {
                    Ok(_) => io::ErrorKind::ConnectionAborted.into(),
                    Err(error) => error,
                });
            }
        };
        let Some(batch) = batch else { return Ok(()) };
        buffer.clear();
        frame(&batch, &mut buffer);
        while buffer.len() < WRITE_BYTES_TARGET
            && let Ok(batch) = queue.try_recv()
        {
            frame(&batch, &mut buffer);
        }
        stream.write_all(&buffer).await?;
        // TLS may keep the last record to itself.
        stream.flush().await?;
        if buffer.capacity() > 4 * WRITE_BYTES_TARGET {
            buffer = Vec::new();
        }
    }
}

/// Accepts peers for as long as the node runs.
pub async fn listen(
    listener: TcpListener,
    identity: Identity,
    peers: watch::Receiver<Arc<Peers>>,
    tls: Option<Arc<Current<PeerConfig>>>,
    worker: Sender<Input>,
    answerer: Answerer,
) {
    // A peer's connections for calls.
    let calls: Arc<parking_lot::Mutex<HashMap<NodeId, usize>>> = Arc::default();
    let newest: Arc<parking_lot::Mutex<HashMap<NodeId, u64>>> = Arc::default();
    let turned_away: Arc<parking_lot::Mutex<TurnedAway>> = Arc::default();
    // To tell each to go; closed when it has said hello, or has gone.
    let mut strangers: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    let mut number = 0;
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a peer's connection");
                tokio::time::sleep(RECONNECT).await;
                continue;
            }
        };
        strangers.retain(|stranger| !stranger.is_closed());
        if strangers.len() >= STRANGERS_MAX
            && let Some(oldest) = strangers.pop_front()
        {
            // It may have said hello just now.
            let _ = oldest.send(());
        }
        let (go, told_to_go) = oneshot::channel();
        strangers.push_back(go);
        number += 1;
        let (mut peers, tls, worker, number) = (peers.clone(), tls.clone(), worker.clone(), number);
        let (newest, turned_away) = (newest.clone(), turned_away.clone());
        let (calls, answerer) = (calls.clone(), answerer.clone());
        tokio::spawn(async move {
            let hello = tokio::time::timeout(HELLO_TIMEOUT, admit(stream, &identity, &peers, tls.as_deref()));
            let admitted = tokio::select! {
                admitted = hello => admitted.unwrap_or_else(|_| Err("it said no hello".into())),
                Ok(()) = told_to_go => Err(format!("it said no hello, and {STRANGERS_MAX} others came after it")),
            };
            let (peer, purpose, mut stream) = match admitted {
                Ok(admitted) => admitted,
                Err(why) => {
                    if turned_away.lock().is_news(address.ip(), &why) {
                        warn!(%address, why, "turned a peer away");
                    }
                    return;
                }
            };
            let (from, _) = peer;
            if purpose == Use::Calls {
                if !is_one_more(&calls, from) {
                    warn!(peer = %from, "a peer's connection for calls is closed: it has {CALLS_MAX}");
                    return;
                }
                tokio::select! {
                    () = answerer(stream) => {}
                    // An error means that the node stops.
                    _ = peers.wait_for(|peers| !peers.contains_key(&from)) => {}
                }
                if let Some(open) = calls.lock().get_mut(&from) {
                    *open -= 1;
                }
                return;
            }
            newest.lock().insert(from, number);
            let error = tokio::select! {
                received = receive(&mut stream, peer, &worker) => match received {
                    Ok(never) => match never {},
                    Err(error) => error,
                },
                // An error means that the node stops.
                _ = peers.wait_for(|peers| !peers.contains_key(&from)) => {
                    io::Error::other("the peer is no member of the cluster any more")
                }
            };
            // A newer connection of the same peer has replaced this one: it is not lost.
            if newest.lock().get(&from) == Some(&number) {
                info!(peer = %from, %error, "connection from peer ended");
                let _ = worker.send(Input::PeerLost(from));
            }
        });
    }
}

/// Counts a connection for calls, unless there are as many as one peer may have.
fn is_one_more(calls: &parking_lot::Mutex<HashMap<NodeId, usize>>, from: NodeId) -> bool {
    let mut calls = calls.lock();
    let open = calls.entry(from).or_default();
    let has_room = *open < CALLS_MAX;
    *open += usize::from(has_room);
    has_room
}

/// Who was turned away lately and why: one who tries again and again is worth a line now and then.
#[derive(Default)]
struct TurnedAway(HashMap<IpAddr, (String, Instant)>);

impl TurnedAway {
    fn is_news(&mut self, from: IpAddr, why: &str) -> bool {
        if self.0.get(&from).is_some_and(|(last, at)| last == why && at.elapsed() < REPEAT_INTERVAL) {
            return false;
        }
        if self.0.len() >= REPEATS_MAX {
            self.0.clear();
        }
        self.0.insert(from, (why.to_owned(), Instant::now()));
        true
    }
}

/// Makes sure of who dials.
async fn admit(
    mut stream: TcpStream,
    identity: &Identity,
    peers: &watch::Receiver<Arc<Peers>>,
    tls: Option<&Current<PeerConfig>>,
) -> Result<(Peer, Use, Stream), String> {
    let said = |error: io::Error| error.to_string();
    stream.set_nodelay(true).map_err(said)?;
    let (verdict, why) = match (tls, tls::begins_as_tls(&stream).await.map_err(said)?) {
        (None, false) => {
            let (peer, purpose) = welcome(&mut stream, identity, peers, None).await.map_err(said)?;
            return Ok((peer, purpose, Box::new(stream)));
        }
        (Some(tls), true) => {
            let acceptor = TlsAcceptor::from(tls.get().server.clone());
            return match acceptor.accept(stream).into_fallible().await {
                Ok(mut stream) => {
                    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    let certificate = chain.first().map(|first| first.clone().into_owned());
                    let certificate = certificate.as_ref();
                    let welcomed = welcome(&mut stream, identity, peers, certificate).await;
                    let (peer, purpose) = welcomed.map_err(said)?;
                    Ok((peer, purpose, Box::new(stream)))
                }
                Err((error, stream)) => {
                    tls::close_gently(stream).await;
                    Err(tls::explain(&error))
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
    Err(why.into())
}

/// Says why not; no reason is a welcome.
async fn answer(stream: &mut (impl AsyncWrite + Unpin), verdict: &str) -> io::Result<()> {
    stream.write_u16_le(verdict.len() as u16).await?;
    stream.write_all(verdict.as_bytes()).await?;
    stream.flush().await
}

/// Hears the dialler's hello and answers it. With TLS its certificate must name the node it says it is.
async fn welcome(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    identity: &Identity,
    peers: &watch::Receiver<Arc<Peers>>,
    certificate: Option<&CertificateDer<'_>>,
) -> io::Result<(Peer, Use)> {
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
            // Who has just joined is one as soon as this node has heard of it.
            (None, _) => Some(format!(
                "node {from} is not a member of the cluster, as far as this node knows: it has just joined, or it was removed, and \
                     its process can be stopped"
            )),
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
        (objection, _) => Err(io::Error::other(objection.unwrap_or_default())),
    }
}

enum Never {}

async fn receive(
    stream: &mut Stream,
    (from, incarnation): Peer,
    worker: &Sender<Input>,
) -> io::Result<Never> {
    let mut buffer = BytesMut::with_capacity(64 << 10);
    loop {
        while let Some(payload) = next_frame(&mut buffer)? {
            let messages = Vec::<PeerMessage>::from_bytes(payload)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if worker.len() > WORKER_QUEUE_MAX {
                debug!(%from, "messages of a peer are dropped: the worker is behind");
            } else if worker.send(Input::Receive(from, incarnation, messages)).is_err() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
