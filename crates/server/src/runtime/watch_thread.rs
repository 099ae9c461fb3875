//! The watch hub of a keyspace, shared by the thread that feeds it and the streams that empty it.

use super::keyspaces::Keyspaces;
use crate::engine::DiskEngine;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use quorate_node::effects::Applied;
use quorate_partition::watch::{Counts, History, Limits, Part, Refusal, StreamId, WatchResponse, Watches};
use quorate_partition::{PartReader, Reader};
use quorate_types::{Fault, KeyspaceId, Revision, WatchRequest};
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How often the hub is told that time goes on, for progress notifications.
const TICK: Duration = Duration::from_millis(100);
/// With more streams the worker leaves finding their watches to the watch thread. Not with fewer: the two would wait for each other's locks.
const STREAMS_AT_ONCE_MAX: usize = 2_048;
/// Bytes of events handed to a stream in one go.
const POLL_BYTES_MAX: usize = 2 << 20;

/// All watches of one keyspace on this node.
pub struct WatchHub {
    inner: Mutex<Inner>,
    /// Open streams. While there are none nothing is published, so that writes do not wake a thread for nobody.
    open: AtomicUsize,
    /// What the watch thread has been given and not published yet.
    queued: AtomicUsize,
    reader: Reader<DiskEngine>,
}

struct Inner {
    /// Of everything: nothing is published to them while not all of the keyspace is here.
    watches: Watches,
    /// Of some slots each.
    parts: Watches,
    bells: HashMap<StreamId, Arc<Bell>>,
    next: u64,
}

/// Says that a stream has something, to the one task that waits for it.
#[derive(Default)]
struct Bell {
    is_rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    fn ring(&self) {
        self.is_rung.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if !self.is_rung.load(Ordering::Relaxed) {
            self.waker.register(context.waker());
        }
        // It may have been rung before the waker was there.
        if self.is_rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Inner {
    fn of(&mut self, is_part: bool) -> &mut Watches {
        if is_part { &mut self.parts } else { &mut self.watches }
    }

    fn draw(&mut self) -> StreamId {
        self.next += 1;
        StreamId(self.next)
    }

    fn wake(&mut self) {
        for stream in self.watches.take_ready().into_iter().chain(self.parts.take_ready()) {
            if let Some(bell) = self.bells.get(&stream) {
                bell.ring();
            }
        }
    }
}

impl WatchHub {
    /// A hub over the keyspace that `reader` reads.
    pub fn new(reader: Reader<DiskEngine>, progress_interval: Duration) -> Arc<Self> {
        let ticks = (progress_interval.as_millis() / TICK.as_millis()).max(1) as u64;
        let limits = Limits { progress_ticks: ticks, ..Limits::default() };
        let watches = Watches::new(limits, reader.revision());
        let parts = Watches::new(limits, reader.revision());
        let inner = Inner { watches, parts, bells: HashMap::new(), next: 0 };
        Arc::new(Self {
            inner: Mutex::new(inner),
            open: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            reader,
        })
    }

    /// Opens a stream; it closes when what is returned is dropped.
    pub fn open(self: &Arc<Self>) -> Result<WatchStream, Refusal> {
        let mut inner = self.inner.lock();
        let id = inner.draw();
        inner.watches.open(id)?;
        Ok(self.opened(inner, id, false))
    }

    /// Opens a stream of some slots; `None` unless they are all held here. When they are not any more it is lost.
    pub fn open_part(self: &Arc<Self>, part: Part) -> Result<Option<WatchStream>, Refusal> {
        let mut inner = self.inner.lock();
        let id = inner.draw();
        let slots = Arc::clone(&part.slots);
        inner.parts.open_part(id, part)?;
        let mut stream = self.opened(inner, id, true);
        // After it was opened: of what is lost from now on the hub is told.
        stream.part = self.reader.part(slots);
        Ok(stream.part.is_some().then_some(stream))
    }

    fn opened(
        self: &Arc<Self>,
        mut inner: MutexGuard<'_, Inner>,
        id: StreamId,
        is_part: bool,
    ) -> WatchStream {
        if self.open.fetch_add(1, Ordering::SeqCst) == 0 {
            // Either the worker sees from now on that somebody watches, or what it did not publish is in the store already.
            fence(Ordering::SeqCst);
            let revision = self.reader.revision();
            let Inner { watches, parts, .. } = &mut *inner;
            for watches in [watches, parts] {
                watches.restored(revision.max(watches.revision()));
            }
        }
        let bell = Arc::new(Bell::default());
        inner.bells.insert(id, bell.clone());
        WatchStream { hub: self.clone(), id, bell, is_part, part: None }
    }

    /// Open streams and watches.
    pub fn counts(&self) -> Counts {
        let inner = self.inner.lock();
        let (whole, parts) = (inner.watches.counts(), inner.parts.counts());
        Counts {
            streams: whole.streams + parts.streams,
            watches: whole.watches + parts.watches,
            lagging: whole.lagging + parts.lagging,
            queue_bytes: whole.queue_bytes + parts.queue_bytes,
        }
    }

    /// Everything up to here was published to streams of some slots.
    pub fn passed(&self) -> Revision {
        self.inner.lock().parts.revision()
    }

    /// Whether somebody would see what is published. To be asked after it was applied to the store.
    pub fn is_watched(&self) -> bool {
        fence(Ordering::SeqCst);
        self.open.load(Ordering::SeqCst) > 0
    }

    /// Publishes at once, on the worker's thread, where that is quick: nothing is queued before it, few streams are open, and none of them is
    /// reading history just now. Otherwise returns false, and the watch thread has to; that is said to the hub right here.
    pub fn publish_now(&self, applied: &Applied) -> bool {
        if self.queued.load(Ordering::Acquire) == 0
            && self.open.load(Ordering::Relaxed) <= STREAMS_AT_ONCE_MAX
            && let Some(inner) = self.inner.try_lock()
        {
            Self::publish(inner, applied);
            return true;
        }
        self.queued.fetch_add(1, Ordering::AcqRel);
        false
    }

    fn publish_queued(&self, applied: &Applied) {
        Self::publish(self.inner.lock(), applied);
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }

    fn publish(mut inner: MutexGuard<'_, Inner>, applied: &Applied) {
        if !applied.is_in_part {
            tell(&mut inner.watches, applied);
        }
        if let Some(held) = &applied.held {
            inner.parts.hold(held);
        }
        tell(&mut inner.parts, applied);
        inner.wake();
    }

    fn tick(&self) {
        let mut inner = self.inner.lock();
        inner.watches.tick();
        inner.parts.tick();
        inner.wake();
    }
}

fn tell(watches: &mut Watches, applied: &Applied) {
    // The first stream to open finds the newest revision in the store, and is told of it once.
    let known = watches.revision();
    if let Some(revision) = applied.replaced.filter(|revision| *revision >= known) {
        watches.restored(revision);
    }
    let known = watches.revision();
    let first = applied.changes.partition_point(|changes| changes.revision <= known);
    if let Some(news) = applied.changes.get(first..).filter(|news| !news.is_empty()) {
        watches.publish(news);
    }
    if let Some(through) = applied.through {
        watches.advance(through);
    }
    if let Some(compacted) = applied.compacted {
        watches.compacted(compacted);
    }
}

/// One stream of watches, of everything or of some slots.
pub struct WatchStream {
    hub: Arc<WatchHub>,
    id: StreamId,
    bell: Arc<Bell>,
    is_part: bool,
    /// What a part reads.
    part: Option<PartReader<DiskEngine>>,
}

impl WatchStream {
    /// Asks for a watch; the answer comes through [`WatchStream::poll`].
    pub fn create(&self, request: WatchRequest) -> Result<(), Refusal> {
        let mut inner = self.hub.inner.lock();
        inner.of(self.is_part).create(self.id, request, self.history())?;
        inner.wake();
        Ok(())
    }

    /// Ends a watch.
    pub fn cancel(&self, id: i64) -> Result<(), Refusal> {
        let mut inner = self.hub.inner.lock();
        inner.of(self.is_part).cancel(self.id, id)?;
        inner.wake();
        Ok(())
    }

    /// Asks how far the stream is.
    pub fn progress(&self) {
        let mut inner = self.hub.inner.lock();
        inner.of(self.is_part).progress(self.id);
        inner.wake();
    }

    /// Asks to be told when everything up to a revision was told.
    pub fn await_passed(&self, revision: Revision) {
        let mut inner = self.hub.inner.lock();
        inner.of(self.is_part).await_passed(self.id, revision);
        inner.wake();
    }

    /// Whether its slots are not all held here any more: it will be told nothing.
    pub fn is_lost(&self) -> bool {
        self.part.as_ref().is_some_and(|part| !part.is_held())
    }

    fn history(&self) -> &dyn History {
        match &self.part {
            Some(part) => part,
            None => &self.hub.reader,
        }
    }

    /// Whether another request would be taken now.
    pub fn accepts(&self) -> bool {
        self.hub.inner.lock().of(self.is_part).accepts(self.id)
    }

    /// Waits until there may be something to poll. One task at a time may.
    pub async fn ready(&self) {
        poll_fn(|context| self.poll_ready(context)).await;
    }

    /// The same, without waiting.
    pub fn poll_ready(&self, context: &Context<'_>) -> Poll<()> {
        self.bell.poll(context)
    }

    /// What there is to send now.
    pub fn poll(&self) -> Result<Vec<WatchResponse>, Fault> {
        let mut inner = self.hub.inner.lock();
        let responses = inner.of(self.is_part).poll(self.id, self.history(), POLL_BYTES_MAX);
        inner.wake();
        responses
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.lock();
        inner.of(self.is_part).close(self.id);
        inner.bells.remove(&self.id);
        self.hub.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Feeds the hubs until the worker is gone.
pub fn run(keyspaces: &Keyspaces, applied: &Receiver<(KeyspaceId, Applied)>) {
    let mut next_tick = Instant::now() + TICK;
    loop {
        match applied.recv_deadline(next_tick) {
            Ok((keyspace, applied)) => {
                if let Some(keyspace) = keyspaces.get(keyspace) {
                    keyspace.hub.publish_queued(&applied);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= next_tick {
            next_tick = Instant::now() + TICK;
            for keyspace in keyspaces.all() {
                keyspace.hub.tick();
            }
        }
    }
}
