//! Connections between nodes.
//!
//! Every node dials every other member and sends on that connection only; so a pair has two, one each way. Members come and go
//! while the node runs ([`Transport::set_members`]): whoever is new is dialled, whoever has another address is dialled there, and with whoever is gone
//! there is no connection in either direction any more. What
//! is sent are frames ([`super::frames`]): whatever was waiting when the socket was ready. Messages may be lost (a queue that is full, a connection that
//! breaks); the state machines repair that. How a connection begins is in [`super::hello`]. With TLS all of this
//! goes through it, and both sides present certificates; a node with TLS talks to no node without it.

use super::frames::{frame, next_frame};
use super::hello::{DialError, HELLO_TIMEOUT, Identity, Peer, Refusal, Stream, Use, admit, connect};
use super::inbox::Sender;
use super::removal::{Gone, Removal};
use super::worker::Input;
use crate::tls::{Current, PeerConfig};
use bytes::BytesMut;
use quorate_node::PeerMessage;
use quorate_types::{Decode, Member, NodeId};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

/// Batches of messages waiting for one peer's socket; more are dropped, as a network would.
const QUEUE_BATCHES_MAX: usize = 4_096;
/// Frames that the worker has not taken yet; more are dropped.
const WORKER_QUEUE_MAX: usize = 65_536;
/// Bytes written at once.
const WRITE_BYTES_TARGET: usize = 1 << 20;
const RECONNECT: Duration = Duration::from_millis(100);
/// A peer that turns us away, or whom we do not trust, will hardly think better of it soon: each attempt waits
/// twice as long as the one before, up to this.
const RECONNECT_REFUSED_MAX: Duration = Duration::from_secs(5);
/// Connections for calls from one peer; it needs one, and another while the end of the first has not been noticed here.
const CALLS_MAX: usize = 4;
/// Connections that have not said hello; with more, the oldest is closed. A member says it within milliseconds, so those that
/// only keep connections open do not keep it out.
const STRANGERS_MAX: usize = 64;
/// The same line about the same stranger is written once in this time,
const REPEAT_INTERVAL: Duration = Duration::from_secs(30);
/// and so many strangers are remembered.
const REPEATS_MAX: usize = 256;

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
    runtime: Handle,
    dialled: HashMap<NodeId, Dialled>,
    /// For those who accept.
    peers: watch::Sender<Arc<Peers>>,
    /// For those who accept, too.
    gone: Gone,
    /// Told when a peer says that this node is.
    removal: Arc<Removal>,
}

impl Transport {
    /// Knows nobody yet. To be called within the runtime.
    pub fn new(identity: Identity, tls: Option<Arc<Current<PeerConfig>>>, removal: Arc<Removal>) -> Self {
        let (peers, _) = watch::channel(Arc::default());
        let (runtime, dialled, gone) = (Handle::current(), HashMap::new(), Gone::default());
        Self { identity, tls, runtime, dialled, peers, gone, removal }
    }

    /// Whose rows were removed: as it is set, now and later.
    pub fn gone(&self) -> Gone {
        self.gone.clone()
    }

    /// These members' rows were removed, and their ids do not come again.
    pub fn set_gone(&self, gone: &BTreeSet<NodeId>) {
        if *self.gone.read() != *gone {
            self.gone.write().clone_from(gone);
        }
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
            let (tls, removal) = (self.tls.clone(), self.removal.clone());
            self.runtime.spawn(dial(self.identity, tls, (*peer, address.clone()), receiver, removal));
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

/// Answers the calls that come over a connection, until it ends.
pub type Answerer = Arc<dyn Fn(Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

async fn dial(
    identity: Identity,
    tls: Option<Arc<Current<PeerConfig>>>,
    (peer, address): (NodeId, String),
    mut queue: mpsc::Receiver<Vec<PeerMessage>>,
    removal: Arc<Removal>,
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
            Err(DialError::Removed) => return removal.tell(),
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
    (peers, gone): (watch::Receiver<Arc<Peers>>, Gone),
    tls: Option<Arc<Current<PeerConfig>>>,
    worker: Sender,
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
        let (calls, answerer, gone) = (calls.clone(), answerer.clone(), gone.clone());
        tokio::spawn(async move {
            let hello = tokio::time::timeout(
                HELLO_TIMEOUT,
                admit(stream, &identity, (&peers, &gone), tls.as_deref()),
            );
            let admitted = tokio::select! {
                admitted = hello => admitted.unwrap_or_else(|_| Err("it said no hello".to_owned().into())),
                Ok(()) = told_to_go => Err(format!("it said no hello, and {STRANGERS_MAX} others came after it").into()),
            };
            let (peer, purpose, mut stream) = match admitted {
                Ok(admitted) => admitted,
                Err(Refusal { why, .. }) => {
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

enum Never {}

async fn receive(stream: &mut Stream, (from, incarnation): Peer, worker: &Sender) -> io::Result<Never> {
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
