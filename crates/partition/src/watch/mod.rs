//! All watches of one node over one partition.
//!
//! A watch is a replay of history from a cursor, never a subscription that can lose something. What is
//! applied is published once; an index finds the watches it concerns; each stream that has one gets an
//! item in its queue that shares the events. The client's task polls its stream whenever the
//! client can take more. So a slow client costs its queue and nothing else: when the queue is over its
//! bound it is dropped, its watches *lag*, and polls read from [`History`] what they missed, from the
//! exact revision, until they have reached the newest revision and are *synced* again. A watch that
//! starts in the past is simply born lagging.
//!
//! ```text
//!            start in the past                    start now or later
//!                   │                                    │
//!                   ▼        reached the newest          ▼
//!               Lagging ───────────────────────────▶  Synced
//!                 │  ▲                                   │
//!       compacted │  └───────────────────────────────────┘
//!                 ▼      queue over its bound, or a snapshot was installed
//!             Compacted: told so, keeps its id until the client cancels it
//! ```
//!
//! Invariants:
//! * A watch is given every event of its range and kinds from its start on, once, in order, the events of
//!   a revision together (split only into fragments, if the client allows), until it is cancelled.
//! * A progress response comes after every event up to its revision: it travels through the queue as a
//!   mark between events. It is not sent over a watch that lags or that waits for a later start.
//! * Every queue has a bound ([`Limits`]), and memory does not depend on how slow a client is.
//!
//! Where etcd's behaviour is a matter of choice we do as etcd 3.5 does, to the words of the reasons.
//! Differences that a client may see: id -1 cannot be chosen for a watch; a progress request that
//! comes while events wait to be sent is answered after them, where etcd may stay silent.
//!
//! Caveats: watches that lag in one poll share what is read of history only where their cursors meet, so a
//! thousand that start at as many places read a thousand times. Sizes are estimates (keys, values and
//! some bytes for the rest), and those of shared events count for each stream that queues them.

mod events;
mod history;
mod index;
mod limits;
mod news;
mod part;
#[cfg(test)]
mod random;
mod response;
mod stream;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod watcher;

pub use events::{Events, Told};
pub use history::{History, HistoryError, Piece};
pub use limits::{Counts, Limits, Refusal};
pub use part::Part;
pub use response::{NO_WATCH, WatchResponse, WatchResponseKind};

use index::RangeIndex;
use news::News;
use quorate_types::{Changes, Event, Fault, Revision, SlotSet, WatchRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use stream::Stream;
use watcher::WatchRef;

/// Names one client stream; drawn by the shell, never used twice while the process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(
    /// The bare number.
    pub u64,
);

/// The watches; see the module.
#[derive(Debug)]
pub struct Watches {
    limits: Limits,
    /// Everything up to here was published.
    revision: Revision,
    streams: BTreeMap<StreamId, Stream>,
    index: RangeIndex,
    /// The number of the next watch.
    number_next: u64,
    ready: BTreeSet<StreamId>,
    ticks: u64,
    /// When progress is due on which stream.
    due: BTreeSet<(u64, StreamId)>,
    /// Streams that are told of some slots only.
    parts: BTreeSet<StreamId>,
    /// Those that want to know when they have everything up to some revision.
    awaiting: BTreeSet<StreamId>,
}

impl Watches {
    /// No watches, over a state that is at `revision`: what is published has to follow on it.
    pub fn new(limits: Limits, revision: Revision) -> Self {
        Self {
            limits,
            revision,
            streams: BTreeMap::new(),
            index: RangeIndex::default(),
            number_next: 1,
            ready: BTreeSet::new(),
            ticks: 0,
            due: BTreeSet::new(),
            parts: BTreeSet::new(),
            awaiting: BTreeSet::new(),
        }
    }

    /// The revision that was published last.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Begins a stream.
    pub fn open(&mut self, stream: StreamId) -> Result<(), Refusal> {
        assert!(!self.streams.contains_key(&stream), "{stream:?} is open");
        if self.streams.len() >= self.limits.streams_max {
            return Err(Refusal::TooManyStreams);
        }
        self.streams.insert(stream, Stream::default());
        Ok(())
    }

    /// Begins a stream that is told of some slots only, of which everything is here. What history it reads must be of those.
    pub fn open_part(&mut self, stream: StreamId, part: Part) -> Result<(), Refusal> {
        self.open(stream)?;
        let opened = self.streams.get_mut(&stream).expect("it was just opened");
        opened.part = Some(part);
        self.parts.insert(stream);
        Ok(())
    }

    /// Of these slots everything is here, of others not, or no more. A stream of others is lost: told of nothing more.
    pub fn hold(&mut self, held: &SlotSet) {
        for id in &self.parts {
            let stream = self.streams.get_mut(id).expect("parts are open streams");
            let is_held = |part: &Part| part.slots.subtract(held).is_empty();
            stream.is_lost |= !stream.part.as_ref().is_some_and(is_held);
            notify(&mut self.ready, *id, stream);
        }
    }

    /// Whether what a stream is to be told of is not all here any more.
    pub fn is_lost(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_none_or(|stream| stream.is_lost)
    }

    /// The stream wants to know when everything up to `revision` was told, as far as its watches want it: at once, or later. It is a
    /// progress response under [`NO_WATCH`]; asked again before that, the lower revision counts.
    pub fn await_passed(&mut self, stream: StreamId, revision: Revision) {
        let Some(opened) = self.streams.get_mut(&stream) else { return };
        opened.awaited = Some(opened.awaited.map_or(revision, |awaited| awaited.min(revision)));
        self.awaiting.insert(stream);
        self.wake_awaiting();
    }

    fn wake_awaiting(&mut self) {
        let current = self.revision;
        for id in &self.awaiting {
            let stream = self.streams.get_mut(id).expect("who awaits is open");
            stream.note_published(current);
            notify(&mut self.ready, *id, stream);
        }
    }

    /// Ends a stream and its watches without a word. Closing one that is not open does nothing.
    pub fn close(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(&stream) else { return };
        for (number, range) in closed.indexed() {
            self.index.remove(range, WatchRef { stream, number });
        }
        if let Some(due) = closed.progress_due {
            self.due.remove(&(due, stream));
        }
        self.ready.remove(&stream);
        self.parts.remove(&stream);
        self.awaiting.remove(&stream);
    }

    /// Whether the stream takes another request. While it does not, the shell leaves the client's
    /// requests unread.
    pub fn accepts(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.answers_len() < self.limits.stream_answers_max)
    }

    /// Begins a watch. The answer, created or refused, comes with the next poll.
    pub fn create(
        &mut self,
        stream: StreamId,
        request: WatchRequest,
        history: &dyn History,
    ) -> Result<(), Refusal> {
        let current = self.revision.max(history.revision());
        let limits = self.limits;
        let number = self.number_next;
        let due = self.ticks + limits.progress_ticks.max(1);
        let (range, wants_progress) = (request.range.clone(), request.progress);
        let opened = self.for_request(stream)?;
        if opened.create(number, request, current, &limits) {
            if wants_progress && opened.progress_due.is_none() {
                opened.progress_due = Some(due);
                self.due.insert((due, stream));
            }
            self.number_next += 1;
            self.index.insert(&range, WatchRef { stream, number });
        }
        self.wake(stream);
        Ok(())
    }

    /// Ends a watch. The answer comes with the next poll, before which nothing of the watch comes any
    /// more; an id that is not in use gets none.
    pub fn cancel(&mut self, stream: StreamId, id: i64) -> Result<(), Refusal> {
        let current = self.revision;
        if let Some((number, range)) = self.for_request(stream)?.cancel(id, current) {
            self.index.remove(&range, WatchRef { stream, number });
        }
        self.wake(stream);
        Ok(())
    }

    /// The client asks how far its watches are. Answered only if all of them are synced and none waits
    /// for a later start, after what is queued.
    pub fn progress(&mut self, stream: StreamId) {
        if let Some(opened) = self.streams.get_mut(&stream) {
            opened.ask_progress(self.revision);
        }
        self.wake(stream);
    }

    /// What was just applied, in order.
    pub fn publish(&mut self, changes: &[Changes]) {
        let mut found: Vec<(WatchRef, u32)> = Vec::new();
        for changes in changes {
            let last = self.revision;
            assert!(changes.revision > last, "revision {} published after {last}", changes.revision);
            self.revision = changes.revision;
            found.clear();
            for (place, event) in (0u32..).zip(changes.events.iter()) {
                self.index.covering(event.key(), |watch| found.push((watch, place)));
            }
            if found.is_empty() {
                continue;
            }
            found.sort_unstable();
            let bytes = changes.events.iter().map(Event::size).sum();
            let news = Arc::new(News::new(changes.clone()));
            for of_stream in found.chunk_by(|a, b| a.0.stream == b.0.stream) {
                let stream = of_stream[0].0.stream;
                let opened =
                    self.streams.get_mut(&stream).expect("the index holds only watches of open streams");
                opened.enqueue(&news, bytes, of_stream, &self.limits);
                notify(&mut self.ready, stream, opened);
            }
        }
        self.wake_awaiting();
    }

    /// Nothing but what was published has changed up to here: revisions may be missing, which nobody got.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
        self.wake_awaiting();
    }

    /// A snapshot was installed: the state is at `revision` now, and what changed on the way was not published.
    pub fn restored(&mut self, revision: Revision) {
        let last = self.revision;
        assert!(revision >= last, "restored revision {revision} after {last} was published");
        self.revision = revision;
        for (id, stream) in &mut self.streams {
            stream.skip(last, revision);
            notify(&mut self.ready, *id, stream);
        }
        self.wake_awaiting();
    }

    /// History before `revision` may be gone. Watches that still need it learn so with the next poll.
    pub fn compacted(&mut self, revision: Revision) {
        for (id, stream) in &mut self.streams {
            if stream.is_overtaken(revision) {
                notify(&mut self.ready, *id, stream);
            }
        }
    }

    /// Time goes on by one tick. Costs nothing for streams whose progress is not due.
    pub fn tick(&mut self) {
        self.ticks += 1;
        while let Some((due, stream)) = self.due.first().copied()
            && due <= self.ticks
        {
            self.due.pop_first();
            let opened = self.streams.get_mut(&stream).expect("progress is due only on open streams");
            opened.progress_due = None;
            if opened.mark_progress(self.revision) {
                let due = self.ticks + self.limits.progress_ticks.max(1);
                opened.progress_due = Some(due);
                self.due.insert((due, stream));
            }
            notify(&mut self.ready, stream, opened);
        }
    }

    /// The next responses of a stream, of about `bytes_max` bytes read from history and sent; a single
    /// response may be larger. When more is left, the stream is in [`Watches::take_ready`] again. There may be
    /// more although nothing is returned: history was read that had nothing for the stream.
    ///
    /// A fault loses nothing: what was taken before it is returned first.
    pub fn poll(
        &mut self,
        stream: StreamId,
        history: &dyn History,
        bytes_max: usize,
    ) -> Result<Vec<WatchResponse>, Fault> {
        let Some(opened) = self.streams.get_mut(&stream) else { return Ok(Vec::new()) };
        opened.is_notified = false;
        self.ready.remove(&stream);
        if opened.is_lost {
            return Ok(Vec::new());
        }
        let polled = opened.poll(self.revision, history, bytes_max, &self.limits);
        for (number, range) in polled.ended {
            self.index.remove(&range, WatchRef { stream, number });
        }
        if opened.awaited.is_none() {
            self.awaiting.remove(&stream);
        }
        // While a snapshot is installed a poll finds nothing; the stream is woken when it is whole.
        if !polled.is_unavailable {
            notify(&mut self.ready, stream, opened);
        }
        polled.responses
    }

    /// Streams that have something to poll and were not returned since their last poll.
    pub fn take_ready(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.ready).into_iter().collect()
    }

    /// What there is.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { streams: self.streams.len(), ..Counts::default() };
        for stream in self.streams.values() {
            counts.watches += stream.watches_len();
            counts.lagging += stream.lagging_len();
            counts.queue_bytes += stream.queue_bytes();
        }
        counts
    }

    fn for_request(&mut self, stream: StreamId) -> Result<&mut Stream, Refusal> {
        let answers_max = self.limits.stream_answers_max;
        let opened = self.streams.get_mut(&stream).ok_or(Refusal::StreamNotFound)?;
        if opened.answers_len() < answers_max { Ok(opened) } else { Err(Refusal::Backlog) }
    }

    fn wake(&mut self, stream: StreamId) {
        if let Some(opened) = self.streams.get_mut(&stream) {
            notify(&mut self.ready, stream, opened);
        }
    }
}

/// Notes that a stream has something to poll, once until it is polled.
fn notify(ready: &mut BTreeSet<StreamId>, id: StreamId, stream: &mut Stream) {
    if !stream.is_notified && stream.has_work() {
        stream.is_notified = true;
        ready.insert(id);
    }
}
