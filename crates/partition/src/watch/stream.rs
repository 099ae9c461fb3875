//! The watches of one client stream, and what waits for the client to take it.

use super::news::News;
use super::response::{NO_WATCH, WatchResponse, WatchResponseKind};
use super::watcher::{State, WatchRef, Watcher};
use super::{Events, History, HistoryError, Limits, Part, Piece};
use quorate_types::{Changes, Event, Fault, KeyRange, Revision, WatchRequest, reached};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// What an item of the queue takes besides events; an estimate.
const ITEM_BYTES: usize = 96;
/// What one match of an item takes.
const MATCH_BYTES: usize = std::mem::size_of::<Match>();

/// An event for a watch: the watch's number, and the event's place in its changes.
pub(super) type Match = (u64, u32);

/// One stream. Its queue is in order of revisions and holds, for every synced watch, all that was
/// published and not yet given to the client; its bytes are bounded (see [`Stream::enqueue`]).
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// By number.
    watches: BTreeMap<u64, Watcher>,
    /// Number of the watch that has an id.
    ids: BTreeMap<i64, u64>,
    /// Where the search for the next free id begins; ids below it that the server picked are not
    /// picked again.
    id_next: i64,
    /// Answers to requests. They go before everything else, so that "created" comes before events and
    /// nothing comes after "canceled".
    answers: VecDeque<WatchResponse>,
    queue: VecDeque<Item>,
    queue_bytes: usize,
    /// Watches in [`State::Lagging`].
    lagging: BTreeSet<u64>,
    /// The lagging watch that was served last; the one after it is next.
    served: u64,
    /// A manual progress request is in the queue.
    is_asked: bool,
    /// When the progress of quiet watches is due; set while a watch asks for it.
    pub(super) progress_due: Option<u64>,
    /// The shell was told that there is something to poll, and has not polled since.
    pub(super) is_notified: bool,
    /// It is told of these slots only.
    pub(super) part: Option<Part>,
    /// They are not all here any more: it is told of nothing.
    pub(super) is_lost: bool,
    /// It wants to know when everything up to here was told,
    pub(super) awaited: Option<Revision>,
    /// and so much is published.
    is_awaited_published: bool,
}

/// Something in the queue.
#[derive(Debug)]
enum Item {
    /// Events of one revision.
    Changes {
        news: Arc<News>,
        /// Sorted, never empty.
        matches: Vec<Match>,
        /// So many matches were given to the client.
        done: usize,
        bytes: usize,
    },
    /// What stands before it is everything up to `revision`: tell one watch, or if all have reached it the stream.
    Progress { watch: Option<u64>, revision: Revision },
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Changes { bytes, .. } => *bytes,
            Self::Progress { .. } => ITEM_BYTES,
        }
    }
}

/// What a poll collects.
struct Outbox {
    responses: Vec<WatchResponse>,
    /// Read and written so far.
    bytes: usize,
    /// Watches that compaction ended.
    ended: Vec<Ended>,
}

impl Outbox {
    fn push(&mut self, response: WatchResponse) {
        self.bytes += response.size();
        self.responses.push(response);
    }
}

/// What a poll came to.
pub(super) struct Polled {
    pub(super) responses: Result<Vec<WatchResponse>, Fault>,
    /// Watches that compaction ended.
    pub(super) ended: Vec<Ended>,
    /// It stopped because history cannot be read now.
    pub(super) is_unavailable: bool,
}

/// A watch that leaves the index: its number and range.
pub(super) type Ended = (u64, KeyRange);

/// A piece of history that watches at about the same place share during a poll.
struct Batch {
    from: Revision,
    /// Everything up to here is in it.
    through: Revision,
    changes: Vec<Changes>,
}

impl Stream {
    pub(super) fn answers_len(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn watches_len(&self) -> usize {
        self.watches.len()
    }

    pub(super) fn lagging_len(&self) -> usize {
        self.lagging.len()
    }

    pub(super) fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// Whether a poll would find something.
    pub(super) fn has_work(&self) -> bool {
        !self.answers.is_empty()
            || !self.queue.is_empty()
            || !self.lagging.is_empty()
            || self.is_awaited_published
            || self.is_lost
    }

    /// Everything up to `current` is published, and the stream may want to know when it has it.
    pub(super) fn note_published(&mut self, current: Revision) {
        self.is_awaited_published = self.awaited.is_some_and(|awaited| awaited <= current);
    }

    /// What was told is everything up to here, as far as the watches want it.
    fn passed(&self, current: Revision) -> Option<Revision> {
        let next = |item: &Item| match item {
            Item::Changes { news, .. } => Some(news.changes.revision),
            Item::Progress { .. } => None,
        };
        let first = self.queue.iter().find_map(next);
        (self.lagging.is_empty() && self.answers.is_empty())
            .then(|| first.map_or(current, Revision::previous))
    }

    /// Every watch that is in the index, with its range.
    pub(super) fn indexed(&self) -> impl Iterator<Item = (u64, &KeyRange)> {
        let watches = self.watches.iter().filter(|(_, watch)| watch.state != State::Compacted);
        watches.map(|(number, watch)| (*number, &watch.request.range))
    }

    /// Adds a watch, or answers why not. Returns whether it was added.
    pub(super) fn create(
        &mut self,
        number: u64,
        request: WatchRequest,
        current: Revision,
        limits: &Limits,
    ) -> bool {
        let id = match self.admit(&request, limits) {
            Ok(id) => id,
            Err(reason) => {
                let kind = WatchResponseKind::CreateFailed { reason };
                self.answers.push_back(WatchResponse::new(NO_WATCH, kind, Some(current)));
                return false;
            }
        };
        let start =
            request.start_revision.and_then(|start| u64::try_from(start).ok()).filter(|start| *start > 0);
        let start = start.map(Revision);
        let state = if start.is_some_and(|start| start <= current) { State::Lagging } else { State::Synced };
        if state == State::Lagging {
            reached!("watch-from-the-past");
            self.lagging.insert(number);
        }
        let next = start.unwrap_or(current.next());
        let watch = Watcher {
            id,
            request,
            start,
            next,
            reached: next.previous(),
            queued: 0,
            state,
            is_quiet: true,
            is_marked: false,
        };
        self.watches.insert(number, watch);
        self.ids.insert(id, number);
        self.answers.push_back(WatchResponse::new(id, WatchResponseKind::Created, Some(current)));
        true
    }

    /// Finds the id for a new watch, or the reason to refuse it, in etcd's words and order.
    fn admit(&mut self, request: &WatchRequest, limits: &Limits) -> Result<i64, String> {
        if request.range.is_empty() {
            return Err("mvcc: watcher range is empty".into());
        }
        if request.start_revision.is_some_and(|start| start < 0) {
            return Err("etcdserver: mvcc: required revision has been compacted".into());
        }
        if self.watches.len() >= limits.stream_watches_max {
            return Err(format!(
                "too many watches on this stream, {} are allowed",
                limits.stream_watches_max
            ));
        }
        match request.id {
            None | Some(0) => {
                while self.ids.contains_key(&self.id_next) {
                    self.id_next += 1;
                }
                self.id_next += 1;
                Ok(self.id_next - 1)
            }
            // Its events could not be told from what is said to all watches of the stream.
            Some(NO_WATCH) => Err("watch ID -1 cannot be chosen".into()),
            Some(id) if self.ids.contains_key(&id) => {
                Err("mvcc: duplicate watch ID provided on the WatchStream".into())
            }
            Some(id) => Ok(id),
        }
    }

    /// Ends a watch at the client's wish. An unknown id is passed over in silence. Returns the watch if
    /// it is in the index.
    pub(super) fn cancel(&mut self, id: i64, current: Revision) -> Option<Ended> {
        let number = self.ids.remove(&id)?;
        let watch = self.watches.remove(&number).expect("an id names a watch");
        self.lagging.remove(&number);
        let kind = WatchResponseKind::Canceled { compacted: None, reason: String::new() };
        self.answers.push_back(WatchResponse::new(id, kind, Some(current)));
        // What is queued for it stays where it is, within the bound, and is passed over when met.
        (watch.state != State::Compacted).then_some((number, watch.request.range))
    }

    /// Remembers to say that everything up to `current` was sent, if that can be said of all watches
    /// once the queue is taken. etcd answers such a request at once or never; so one that meets a watch
    /// that is behind, or waits for a later revision, is forgotten, and the client asks again.
    pub(super) fn ask_progress(&mut self, current: Revision) {
        reached!("progress-asked-while-behind", !self.is_asked && !self.all_reached(current));
        if !self.is_asked && self.all_reached(current) {
            self.is_asked = true;
            self.push(Item::Progress { watch: None, revision: current });
        }
    }

    /// The regular progress of watches that want it and had no events since the last time. Returns whether
    /// any watch wants it at all.
    pub(super) fn mark_progress(&mut self, current: Revision) -> bool {
        let mut marks = Vec::new();
        let mut is_wanted = false;
        for (number, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.request.progress) {
            is_wanted = true;
            let is_due =
                watch.is_quiet && watch.queued == 0 && !watch.is_marked && watch.has_reached(current);
            if is_due {
                watch.is_marked = true;
                marks.push(Item::Progress { watch: Some(*number), revision: current });
            }
            watch.is_quiet = true;
        }
        marks.into_iter().for_each(|mark| self.push(mark));
        is_wanted
    }

    fn all_reached(&self, revision: Revision) -> bool {
        !self.watches.is_empty() && self.watches.values().all(|watch| watch.has_reached(revision))
    }

    fn push(&mut self, item: Item) {
        self.queue_bytes += item.bytes();
        self.queue.push_back(item);
    }

    /// Queues what was just published for the watches it matches. A queue that grows beyond its bound is
    /// dropped, and its watches turn to history. `bytes` is the size of all of the changes: a single event
    /// that is queued keeps the memory of all.
    pub(super) fn enqueue(
        &mut self,
        news: &Arc<News>,
        bytes: usize,
        found: &[(WatchRef, u32)],
        limits: &Limits,
    ) {
        let changes = &news.changes;
        let mut matches: Vec<Match> = Vec::with_capacity(found.len());
        let part = self.part.as_ref();
        let is_here = |event: &Event| part.is_none_or(|part| part.has(event.key()));
        for of_watch in found.chunk_by(|a, b| a.0 == b.0) {
            let number = of_watch[0].0.number;
            let watch = self.watches.get_mut(&number).expect("the index holds only watches that exist");
            if watch.state != State::Synced || watch.next > changes.revision {
                continue;
            }
            let before = matches.len();
            let places = of_watch.iter().map(|(_, place)| *place);
            matches.extend(
                places
                    .filter(|place| {
                        let event = &changes.events[*place as usize];
                        watch.admits(event) && is_here(event)
                    })
                    .map(|place| (number, place)),
            );
            if matches.len() > before {
                if watch.queued == 0 {
                    watch.next = changes.revision;
                }
                watch.queued += 1;
                watch.is_quiet = false;
            }
        }
        if matches.is_empty() {
            return;
        }
        let bytes = ITEM_BYTES + bytes + matches.len() * MATCH_BYTES;
        self.push(Item::Changes { news: news.clone(), matches, done: 0, bytes });
        if self.queue_bytes > limits.stream_queue_bytes_max {
            reached!("watch-fell-behind");
            self.drop_queue();
        }
    }

    /// Frees the queue; every watch that loses something goes on from history at exactly that place.
    fn drop_queue(&mut self) {
        for item in self.queue.drain(..) {
            match item {
                Item::Changes { news, matches, done, .. } => {
                    for (number, _) in &matches[done..] {
                        if let Some(watch) = self.watches.get_mut(number) {
                            if watch.state == State::Synced {
                                // There was nothing for it before the first that is queued; that may be compacted by now.
                                watch.next = watch.next.max(news.changes.revision);
                            }
                            watch.queued = 0;
                            watch.state = State::Lagging;
                            self.lagging.insert(*number);
                        }
                    }
                }
                Item::Progress { watch: Some(number), .. } => {
                    if let Some(watch) = self.watches.get_mut(&number) {
                        watch.is_marked = false;
                    }
                }
                Item::Progress { watch: None, .. } => self.is_asked = false,
            }
        }
        self.queue_bytes = 0;
    }

    /// The state moved from revision `from` to `to` without telling what changed (a snapshot was
    /// installed): synced watches turn to history.
    pub(super) fn skip(&mut self, from: Revision, to: Revision) {
        reached!("watch-skipped-by-snapshot", from < to && !self.watches.is_empty());
        self.drop_queue();
        for (number, watch) in &mut self.watches {
            if watch.state == State::Synced {
                watch.next = watch.next.max(from.next());
                if watch.next <= to {
                    watch.state = State::Lagging;
                    self.lagging.insert(*number);
                }
            }
        }
    }

    /// Whether a watch waits for history older than `compacted`.
    pub(super) fn is_overtaken(&self, compacted: Revision) -> bool {
        self.lagging.iter().any(|number| self.watches[number].next < compacted)
    }

    /// The next responses, of about `bytes_max` bytes read and written, and the watches that ended.
    /// First answers, then in turn a piece of the queue and a piece of history for one lagging watch.
    ///
    /// After a fault everything that was not returned is still to come; likewise while history is unavailable, and then it is
    /// of no use to poll again before [`Stream::skip`].
    pub(super) fn poll(
        &mut self,
        current: Revision,
        history: &dyn History,
        bytes_max: usize,
        limits: &Limits,
    ) -> Polled {
        let mut is_unavailable = false;
        let mut out = Outbox { responses: Vec::new(), bytes: 0, ended: Vec::new() };
        let mut batch = None;
        let mut fault = None;
        while out.bytes < bytes_max.max(1) {
            if let Some(answer) = self.answers.pop_front() {
                out.push(answer);
                continue;
            }
            let step = self.take_queued(current, history, limits, &mut out).and_then(|moved| {
                Ok(self.catch_up(current, history, bytes_max, limits, &mut batch, &mut out)? || moved)
            });
            match step {
                Ok(true) => {}
                Ok(false) => break,
                Err(HistoryError::Fault(met)) => {
                    fault = Some(met);
                    break;
                }
                // Compaction was answered where it was met.
                Err(HistoryError::Unavailable | HistoryError::Compacted(_)) => {
                    is_unavailable = true;
                    break;
                }
            }
        }
        if let Some(awaited) = self.awaited
            && let Some(passed) = self.passed(current).filter(|passed| *passed >= awaited)
        {
            (self.awaited, self.is_awaited_published) = (None, false);
            out.push(WatchResponse::new(NO_WATCH, WatchResponseKind::Progress, Some(passed)));
        }
        let responses = match fault {
            // What was taken must reach the client; the fault will be met again.
            Some(fault) if out.responses.is_empty() => Err(fault),
            _ => Ok(out.responses),
        };
        Polled { responses, ended: out.ended, is_unavailable }
    }

    /// Gives the client what the queue's first item has for one watch. Returns whether there was anything.
    fn take_queued(
        &mut self,
        current: Revision,
        history: &dyn History,
        limits: &Limits,
        out: &mut Outbox,
    ) -> Result<bool, HistoryError> {
        match self.queue.front_mut() {
            None => return Ok(false),
            Some(Item::Changes { news, matches, done, bytes }) => {
                let revision = news.changes.revision;
                let number = matches[*done].0;
                let end = *done + matches[*done..].partition_point(|(other, _)| *other == number);
                if let Some(watch) = self.watches.get_mut(&number) {
                    let events = news.told(watch, &matches[*done..end], history)?;
                    assert!(watch.queued > 0 && watch.next <= revision, "{watch:?} at {news:?}");
                    watch.queued -= 1;
                    watch.next = revision.next();
                    watch.reached = revision;
                    respond(watch, revision, events, limits, out);
                }
                *done = end;
                if end == matches.len() {
                    self.queue_bytes -= *bytes;
                    self.queue.pop_front();
                }
            }
            Some(Item::Progress { watch, revision }) => {
                let (watch, revision) = (*watch, *revision);
                self.queue_bytes -= ITEM_BYTES;
                self.queue.pop_front();
                // With nothing behind it, what was published meanwhile had nothing for this stream.
                let revision = if self.queue.is_empty() { current } else { revision };
                let id = match watch {
                    None => {
                        self.is_asked = false;
                        self.all_reached(revision).then_some(NO_WATCH)
                    }
                    Some(number) => self.watches.get_mut(&number).and_then(|watch| {
                        watch.is_marked = false;
                        watch.has_reached(revision).then_some(watch.id)
                    }),
                };
                if let Some(id) = id {
                    out.push(WatchResponse::new(id, WatchResponseKind::Progress, Some(revision)));
                }
            }
        }
        Ok(true)
    }

    /// Brings the lagging watch whose turn it is a piece further. Returns whether anything moved.
    fn catch_up(
        &mut self,
        current: Revision,
        history: &dyn History,
        bytes_max: usize,
        limits: &Limits,
        batch: &mut Option<Batch>,
        out: &mut Outbox,
    ) -> Result<bool, HistoryError> {
        let after = self.lagging.range((Bound::Excluded(self.served), Bound::Unbounded)).next();
        let Some(&number) = after.or(self.lagging.first()) else { return Ok(false) };
        let watch = self.watches.get_mut(&number).expect("a lagging watch exists");
        let from = watch.next;
        if !batch.as_ref().is_some_and(|batch| batch.from <= from && from <= batch.through) {
            let bytes_max = bytes_max.saturating_sub(out.bytes).min(limits.catch_up_bytes_max).max(1);
            let read = match history.compacted() {
                Some(compacted) if from < compacted => Err(HistoryError::Compacted(compacted)),
                _ => history.changes(from, bytes_max),
            };
            match read {
                Ok(Piece { changes, through }) => {
                    // What is read is paid for even if the watch wants none of it, so that a poll ends.
                    let events = changes.iter().flat_map(|changes| changes.events.iter());
                    out.bytes += ITEM_BYTES + events.map(|event| event.size()).sum::<usize>();
                    *batch = Some(Batch { from, through, changes });
                }
                Err(HistoryError::Compacted(compacted)) => {
                    reached!("watch-compacted");
                    watch.state = State::Compacted;
                    self.lagging.remove(&number);
                    out.ended.push((number, watch.request.range.clone()));
                    let kind =
                        WatchResponseKind::Canceled { compacted: Some(compacted), reason: String::new() };
                    out.push(WatchResponse::new(watch.id, kind, None));
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        let batch = batch.as_ref().expect("it was just read");
        if batch.through < from {
            // History is behind what was published, against its contract; wait for a better one.
            return Ok(false);
        }
        let missed = batch.changes.iter().filter(|changes| changes.revision >= from);
        let events = missed.flat_map(|changes| (0..changes.events.len()).map(move |place| (changes, place)));
        let is_wanted = |event: &Event| watch.request.range.contains(event.key()) && watch.admits(event);
        let events = events.filter(|(changes, place)| is_wanted(&changes.events[*place]));
        let events = Events::from(watch.told(events, history)?);
        watch.next = batch.through.next();
        watch.reached = batch.through;
        self.served = number;
        if watch.next > current {
            reached!("watch-caught-up");
            watch.state = State::Synced;
            self.lagging.remove(&number);
        }
        respond(watch, current.max(history.revision()), events, limits, out);
        Ok(true)
    }
}

/// Says what changed, if anything did.
fn respond(watch: &mut Watcher, header: Revision, events: Events, limits: &Limits, out: &mut Outbox) {
    if events.is_empty() {
        return;
    }
    watch.is_quiet = false;
    let mut response = WatchResponse::new(watch.id, WatchResponseKind::Events, Some(header));
    response.events = events;
    if watch.request.fragment {
        response.fragments(limits.fragment_bytes).into_iter().for_each(|part| out.push(part));
    } else {
        out.push(response);
    }
}
