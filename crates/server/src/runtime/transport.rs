//! Connections between nodes.
//!
//! Every node dials every other and sends on that connection only; so a pair has two, one each way. A
//! frame is `length u32 LE, CRC32C u32 LE, payload`, the payload a list of [`PeerMessage`]s: whatever
//! was waiting when the socket was ready. Messages may be lost (a queue that is full, a connection that
//! breaks); the state machines repair that. A connection begins with a hello that names the protocol's
//! version, the cluster, both nodes and the sender's data directory, so that a stranger is turned away with a reason.
//! The layout is drawn in `docs/peer.md`.

use super::worker::Input;
use bytes::{Bytes, BytesMut};
use crossbeam_channel::Sender;
use quorate_node::PeerMessage;
use quorate_types::{ClusterId, Decode, Encode, Incarnation, NodeId};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

const MAGIC: [u8; 8] = *b"QUORPEER";
/// Of the wire protocol; two nodes with different ones do not talk.
const VERSION: u32 = 2;
/// A longer frame is not believed.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// Batches of messages waiting for one peer's socket; more are dropped, as a network would.
const QUEUE_BATCHES_MAX: usize = 4_096;
/// Frames that the worker has not taken yet; more are dropped.
const WORKER_QUEUE_MAX: usize = 65_536;
/// Bytes written at once.
const WRITE_BYTES_TARGET: usize = 1 << 20;
/// Magic, version, cluster, sender, receiver, the sender's data directory.
const HELLO_BYTES: usize = 44;
const RECONNECT: Duration = Duration::from_millis(100);
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Who we are and whom we know.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// The other nodes and where they listen.
    pub peers: BTreeMap<NodeId, String>,
}

/// Queues to the peers.
pub struct Transport {
    queues: HashMap<NodeId, mpsc::Sender<Vec<PeerMessage>>>,
}

impl Transport {
    /// Begins dialling every peer, and keeps at it.
    pub fn start(identity: &Identity) -> Arc<Self> {
        let mut queues = HashMap::new();
        for (peer, address) in &identity.peers {
            let (sender, receiver) = mpsc::channel(QUEUE_BATCHES_MAX);
            queues.insert(*peer, sender);
            tokio::spawn(dial(identity.clone(), *peer, address.clone(), receiver));
        }
        Arc::new(Self { queues })
    }

    /// Queues messages; those for a peer whose queue is full are lost.
    pub fn send(&self, messages: Vec<(NodeId, PeerMessage)>) {
        if messages.is_empty() {
            return;
        }
        let mut batches: BTreeMap<NodeId, Vec<PeerMessage>> = BTreeMap::new();
        for (to, message) in messages {
            batches.entry(to).or_default().push(message);
        }
        for (to, batch) in batches {
            if let Some(queue) = self.queues.get(&to)
                && queue.try_send(batch).is_err()
            {
                debug!(%to, "messages to a peer are dropped: its queue is full");
            }
        }
    }
}

async fn dial(
    identity: Identity,
    peer: NodeId,
    address: String,
    mut queue: mpsc::Receiver<Vec<PeerMessage>>,
) {
    let mut was_told = false;
    loop {
        match connect(&identity, peer, &address).await {
            Ok(stream) => {
                info!(%peer, address, "connected to peer");
                was_told = false;
                // What queued up while nobody listened is old; the state machines will say it again.
                while queue.try_recv().is_ok() {}
                if let Err(error) = pump(stream, &mut queue).await {
                    warn!(%peer, address, %error, "connection to peer broke");
                } else {
                    return;
                }
            }
            Err(error) => {
                if !was_told {
                    warn!(%peer, address, %error, "cannot reach peer; will keep trying");
                    was_told = true;
                }
            }
        }
        tokio::time::sleep(RECONNECT).await;
        if queue.is_closed() {
            return;
        }
    }
}

async fn connect(identity: &Identity, peer: NodeId, address: &str) -> io::Result<TcpStream> {
    let mut stream = tokio::time::timeout(HELLO_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to connect"))??;
    stream.set_nodelay(true)?;
    let mut hello = Vec::with_capacity(HELLO_BYTES);
    hello.extend_from_slice(&MAGIC);
    hello.extend_from_slice(&VERSION.to_le_bytes());
    hello.extend_from_slice(&identity.cluster.0.to_le_bytes());
    hello.extend_from_slice(&identity.node.0.to_le_bytes());
    hello.extend_from_slice(&peer.0.to_le_bytes());
    hello.extend_from_slice(&identity.incarnation.0.to_le_bytes());
    stream.write_all(&hello).await?;
    let verdict = tokio::time::timeout(HELLO_TIMEOUT, async {
        let length = stream.read_u16_le().await? as usize;
        let mut text = vec![0; length];
        stream.read_exact(&mut text).await?;
        io::Result::Ok(text)
    })
    .await
    .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to hello"))??;
    if verdict.is_empty() {
        Ok(stream)
    } else {
        Err(io::Error::other(format!("turned away: {}", String::from_utf8_lossy(&verdict))))
    }
}

/// Writes what is queued until the connection breaks (an error) or the node stops (none).
async fn pump(mut stream: TcpStream, queue: &mut mpsc::Receiver<Vec<PeerMessage>>) -> io::Result<()> {
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
        if buffer.capacity() > 4 * WRITE_BYTES_TARGET {
            buffer = Vec::new();
        }
    }
}

fn frame(batch: &[PeerMessage], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    batch.encode(out);
    let payload = &out[start + 8..];
    let (length, checksum) = (payload.len() as u32, crc32c::crc32c(payload));
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Accepts peers for as long as the node runs.
pub async fn listen(listener: TcpListener, identity: Identity, worker: Sender<Input>) {
    let newest: Arc<parking_lot::Mutex<HashMap<NodeId, u64>>> = Arc::default();
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
        number += 1;
        let (identity, worker, newest, number) = (identity.clone(), worker.clone(), newest.clone(), number);
        tokio::spawn(async move {
            let mut stream = stream;
            let (from, incarnation) =
                match tokio::time::timeout(HELLO_TIMEOUT, welcome(&mut stream, &identity)).await {
                    Ok(Ok(peer)) => peer,
                    Ok(Err(error)) => return warn!(%address, %error, "turned a peer away"),
                    Err(_) => return warn!(%address, "turned a peer away: it said no hello"),
                };
            newest.lock().insert(from, number);
            let error = match receive(&mut stream, (from, incarnation), &worker).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            // A newer connection of the same peer has replaced this one: it is not lost.
            if newest.lock().get(&from) == Some(&number) {
                info!(peer = %from, %error, "connection from peer ended");
                let _ = worker.send(Input::PeerLost(from));
            }
        });
    }
}

async fn welcome(stream: &mut TcpStream, identity: &Identity) -> io::Result<(NodeId, Incarnation)> {
    stream.set_nodelay(true)?;
    let mut hello = [0; HELLO_BYTES];
    stream.read_exact(&mut hello).await?;
    let number = |at: usize| {
        let mut raw = [0; 8];
        raw.copy_from_slice(&hello[at..at + 8]);
        u64::from_le_bytes(raw)
    };
    let version = (number(8) & 0xffff_ffff) as u32;
    let (cluster, from, to) = (ClusterId(number(12)), NodeId(number(20)), NodeId(number(28)));
    let objection = if hello[..8] != MAGIC {
        Some("this port speaks the peer protocol of quorate; clients use the client port".to_owned())
    } else if version != VERSION {
        Some(format!("peer protocol version {version}, here it is {VERSION}"))
    } else if cluster != identity.cluster {
        Some(format!(
            "node {from} is of cluster {cluster}, here is cluster {}: compare --initial-cluster and --cluster-token",
            identity.cluster
        ))
    } else if to != identity.node {
        Some(format!("node {from} looks for node {to} here, but this is node {}", identity.node))
    } else if !identity.peers.contains_key(&from) {
        Some(format!("node {from} is not a member of the cluster"))
    } else {
        None
    };
    let verdict = objection.clone().unwrap_or_default();
    stream.write_u16_le(verdict.len() as u16).await?;
    stream.write_all(verdict.as_bytes()).await?;
    match objection {
        None => Ok((from, Incarnation(number(36)))),
        Some(objection) => Err(io::Error::other(objection)),
    }
}

enum Never {}

async fn receive(
    stream: &mut TcpStream,
    (from, incarnation): (NodeId, Incarnation),
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

/// Takes one whole frame off the buffer, if there is one.
fn next_frame(buffer: &mut BytesMut) -> io::Result<Option<Bytes>> {
    if buffer.len() < 8 {
        return Ok(None);
    }
    let word = |at: usize| u32::from_le_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
    let (length, checksum) = (word(0) as usize, word(4));
    if length > FRAME_BYTES_MAX {
        let problem = format!("a frame of {length} bytes, at most {FRAME_BYTES_MAX} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    if buffer.len() < 8 + length {
        // Grows as bytes really come, not as the header claims.
        return Ok(None);
    }
    let payload = buffer.split_to(8 + length).freeze().slice(8..);
    if crc32c::crc32c(&payload) != checksum {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame's checksum does not match"));
    }
    Ok(Some(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whole_and_damage_is_noticed() {
        let gone = PeerMessage::SnapshotGone {
            group: quorate_types::GroupId::FIRST,
            position: quorate_types::Position::default(),
        };
        let mut wire = Vec::new();
        frame(std::slice::from_ref(&gone), &mut wire);
        for cut in 0..wire.len() {
            assert!(next_frame(&mut BytesMut::from(&wire[..cut])).unwrap().is_none());
        }
        let payload = next_frame(&mut BytesMut::from(&wire[..])).unwrap().unwrap();
        assert_eq!(Vec::<PeerMessage>::from_bytes(payload).unwrap(), vec![gone]);
        for at in 4..wire.len() {
            let mut damaged = wire.clone();
            damaged[at] ^= 1;
            assert!(next_frame(&mut BytesMut::from(&damaged[..])).is_err(), "byte {at}");
        }
        let mut absurd = wire;
        absurd[3] = 0xff;
        assert!(next_frame(&mut BytesMut::from(&absurd[..])).is_err());
    }
}
