//! The network between nodes: every node is reached by the others through a proxy of ours, which can be told to let nothing through from one node to
//! another, in one direction or both, or to take its time.
//!
//! Who dials is known by the hello that a connection begins with ([`crate::runtime::transport`]), so one proxy for each node is enough. A link that
//! is cut is silent, as one whose packets are lost: connections stay, what is sent waits, and so does the news that a connection has ended. When
//! it is whole again what waited arrives, or, as after a long time without an answer, the connections that waited are gone. What goes over a slow link is late
//! by so much, and not less of it gets through.
//!
//! Caveats: with TLS between nodes the hello cannot be read. What waits is bounded by the buffers of sockets, as it is with TCP, and by 16 MiB in each direction
//! of a connection.

use crate::runtime::hello::{HELLO_BYTES, HELLO_SENDER};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

const BUFFER_BYTES: usize = 64 << 10;
/// Of them, what may be on its way in one direction of a connection: some seconds' worth.
const ON_ITS_WAY_MAX: usize = 256;
const HELLO_MAX: Duration = Duration::from_secs(5);

/// From one node to another, by their names.
pub(super) type Link = (String, String);

/// What is wrong with the network now.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    pub(super) cut: BTreeSet<Link>,
    /// Whatever goes through waits so long.
    pub(super) slow: BTreeMap<Link, Duration>,
    /// Connections that waited for a link before this many cuts were mended are gone.
    mended_by_reset: u64,
}

/// All links.
pub(super) struct Links {
    weather: watch::Sender<Weather>,
    /// Ids, as hellos say them, and names.
    names: RwLock<BTreeMap<u64, String>>,
}

impl Links {
    pub(super) fn new() -> Arc<Self> {
        let (weather, _) = watch::channel(Weather::default());
        Arc::new(Self { weather, names: RwLock::default() })
    }

    /// A node's id.
    pub(super) fn name(&self, id: u64, name: &str) {
        self.names.write().insert(id, name.to_owned());
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// All is well again; connections that have waited are reset, or go on.
    pub(super) fn mend(&self, by_reset: bool) {
        self.weather.send_modify(|weather| {
            weather.cut.clear();
            weather.slow.clear();
            weather.mended_by_reset += u64::from(by_reset);
        });
    }

    fn link(&self, from: End<'_>, to: End<'_>) -> Option<Link> {
        Some((self.named(from)?, self.named(to)?))
    }

    fn named(&self, end: End<'_>) -> Option<String> {
        match end {
            End::Id(id) => self.names.read().get(&id).cloned(),
            End::Name(name) => Some(name.to_owned()),
        }
    }

    /// Passes on what comes for the node of this name, which listens at `address`, for as long as we run.
    pub(super) async fn proxy(self: Arc<Self>, listener: TcpListener, name: String, address: String) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (links, name, address) = (self.clone(), name.clone(), address.clone());
            tokio::spawn(async move {
                // A connection that breaks is one that breaks: nodes dial again.
                let _ = links.connection(stream, &name, &address).await;
            });
        }
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, name: &str, address: &str) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut hello = [0; HELLO_BYTES];
        let read = tokio::time::timeout(HELLO_MAX, stream.read_exact(&mut hello)).await;
        read.map_err(|_| io::ErrorKind::TimedOut)??;
        let mut raw = [0; 8];
        raw.copy_from_slice(&hello[HELLO_SENDER..HELLO_SENDER + 8]);
        let sender = u64::from_le_bytes(raw);
        let there = Passage { links: &self, from: End::Id(sender), to: End::Name(name) };
        there.open(&mut self.weather.subscribe()).await?;
        let mut onward = TcpStream::connect(address).await?;
        onward.set_nodelay(true)?;
        onward.write_all(&hello).await?;
        let back = Passage { links: &self, from: End::Name(name), to: End::Id(sender) };
        let (near_read, near_write) = stream.into_split();
        let (far_read, far_write) = onward.into_split();
        // The end of one direction is passed on; what is left of the other goes on until it ends, too, or is reset.
        tokio::try_join!(there.pump(near_read, far_write), back.pump(far_read, near_write))?;
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum End<'a> {
    Id(u64),
    Name(&'a str),
}

/// One direction of a connection.
struct Passage<'a> {
    links: &'a Links,
    from: End<'a>,
    to: End<'a>,
}

impl Passage<'_> {
    /// By how much what is sent now is late.
    fn lateness(&self) -> Duration {
        let link = self.links.link(self.from, self.to);
        let slow = link.and_then(|link| self.links.weather.borrow().slow.get(&link).copied());
        slow.unwrap_or_default()
    }

    /// Waits until the link is whole; an error when that is too late for this connection.
    async fn open(&self, weather: &mut watch::Receiver<Weather>) -> io::Result<()> {
        let is_cut = |weather: &Weather| {
            self.links.link(self.from, self.to).is_some_and(|link| weather.cut.contains(&link))
        };
        let resets = {
            let now = weather.borrow_and_update();
            if !is_cut(&now) {
                return Ok(());
            }
            now.mended_by_reset
        };
        let opened = weather.wait_for(|weather| !is_cut(weather)).await;
        let opened = opened.map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?;
        if opened.mended_by_reset != resets {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    async fn pump(&self, from: OwnedReadHalf, to: OwnedWriteHalf) -> io::Result<()> {
        let (way_in, way_out) = mpsc::channel(ON_ITS_WAY_MAX);
        tokio::try_join!(self.take(from, way_in), self.give(way_out, to))?;
        Ok(())
    }

    /// Whatever is sent sets out at once.
    async fn take(&self, mut from: OwnedReadHalf, way: mpsc::Sender<(Instant, Vec<u8>)>) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            // That a connection has ended is told over the same link.
            let read = from.read(&mut buffer).await.unwrap_or_default();
            let part = (Instant::now() + self.lateness(), buffer[..read].to_vec());
            if way.send(part).await.is_err() || read == 0 {
                return Ok(());
            }
        }
    }

    /// And arrives when it is time and the link is whole.
    async fn give(
        &self,
        mut way: mpsc::Receiver<(Instant, Vec<u8>)>,
        mut to: OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut weather = self.links.weather.subscribe();
        while let Some((due, part)) = way.recv().await {
            tokio::time::sleep_until(due).await;
            self.open(&mut weather).await?;
            if part.is_empty() {
                break;
            }
            to.write_all(&part).await?;
        }
        to.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::hello::PROTOCOL;

    fn hello(sender: u64) -> [u8; HELLO_BYTES] {
        let mut hello = [0; HELLO_BYTES];
        hello[8..12].copy_from_slice(&PROTOCOL.to_le_bytes());
        hello[HELLO_SENDER..HELLO_SENDER + 8].copy_from_slice(&sender.to_le_bytes());
        hello
    }

    fn between(a: &str, b: &str) -> Link {
        (a.to_owned(), b.to_owned())
    }

    /// A connection from node a, number 7, to node b by way of a proxy, and its other end.
    async fn connected() -> (Arc<Links>, TcpStream, TcpStream) {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (proxy, address) = (near.local_addr().unwrap(), far.local_addr().unwrap().to_string());
        let links = Links::new();
        links.name(7, "a");
        tokio::spawn(links.clone().proxy(near, "b".into(), address));
        let mut a = TcpStream::connect(proxy).await.unwrap();
        a.write_all(&hello(7)).await.unwrap();
        let (mut b, _) = far.accept().await.unwrap();
        let mut heard = [0; HELLO_BYTES];
        b.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, hello(7));
        (links, a, b)
    }

    /// Not one after the other, each as late as the link is slow: that would be a narrow link.
    #[tokio::test]
    async fn a_slow_link_is_late_and_not_narrow() {
        let (links, mut a, mut b) = connected().await;
        // Nothing arrives in this test's time.
        links.change(|weather| {
            weather.slow.insert(between("a", "b"), Duration::from_secs(3_600));
        });
        // More than sockets hold: it has set out, though nothing of it has arrived.
        let sent = vec![7; 200 * BUFFER_BYTES];
        tokio::time::timeout(Duration::from_secs(60), a.write_all(&sent)).await.unwrap().unwrap();
        assert_eq!(b.try_read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // The other direction is as it was.
        b.write_all(b"y").await.unwrap();
        let mut one = [0; 1];
        a.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"y");
    }

    /// One direction is cut, and mended: what was sent meanwhile arrives, while the other direction was never disturbed.
    #[tokio::test]
    async fn a_cut_direction_is_silent_until_it_is_mended() {
        let (links, mut a, mut b) = connected().await;
        links.change(|weather| weather.cut.extend([between("a", "b")]));
        a.write_all(b"x").await.unwrap();
        b.write_all(b"y").await.unwrap();
        let mut one = [0; 1];
        a.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"y");
        // What came after it has arrived, and it has not: nothing is there yet.
        assert_eq!(b.try_read(&mut one).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        links.mend(false);
        b.read_exact(&mut one).await.unwrap();
        assert_eq!(&one, b"x");
        links.change(|weather| weather.cut.extend([between("b", "a")]));
        b.write_all(b"z").await.unwrap();
        links.mend(true);
        // It may have waited for the link, or may only reach it now.
        let ended = a.read(&mut one).await;
        assert!(ended.is_err() || matches!(ended, Ok(0 | 1)), "{ended:?}");
    }
}
