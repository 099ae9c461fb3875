//! Clients that watch, and what each promise of a watch means for what they are told.
//!
//! The promises are those of `quorate_partition::watch` and of etcd's API guarantees (ordered, unique, atomic, reliable,
//! resumable, bookmarkable). A client keeps the next revision that each of its watches may be told of; everything it
//! is told is compared with the history from there on:
//!
//! * events are exactly those of the wanted keys and kinds, whole revisions, in order, none left out;
//! * a previous pair is the one right before, and missing only if there was none or it was compacted;
//! * a progress response never claims a revision with an event that has not been told, nor one before what was told;
//! * a watch is cancelled for compaction only if it still needed what was compacted, here;
//! * nothing comes before "created" or after "canceled".

use crate::clients;
use crate::history::History;
use crate::random::Random;
use quorate_partition::watch::{
    self, NO_WATCH, Part, StreamId, Told, WatchResponse, WatchResponseKind, Watches,
};
use quorate_types::{Event, Fault, KeyRange, Revision, WatchRequest};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

const STREAMS_MAX: usize = 3;
const WATCHES_MAX: usize = 4;
/// How often quiet watches are told their progress, in ticks.
pub(crate) const PROGRESS_TICKS: u64 = 40;
/// Responses larger than this are split where that is allowed.
const FRAGMENT_BYTES: usize = 250;

/// The bounds of a node's watches.
pub(crate) fn limits(random: &mut Random) -> watch::Limits {
    watch::Limits {
        stream_queue_bytes_max: [400, 1_500, 4 << 20][random.below(3) as usize],
        catch_up_bytes_max: [100, 1_000, 1 << 20][random.below(3) as usize],
        fragment_bytes: FRAGMENT_BYTES,
        progress_ticks: PROGRESS_TICKS,
        ..watch::Limits::default()
    }
}

/// All watching clients of one node's process.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    streams: BTreeMap<StreamId, Client>,
    opened: u64,
    /// They are told of these slots only, as far as anything is said of them.
    part: Option<Part>,
}

/// One client's stream.
#[derive(Debug)]
struct Client {
    /// Creations not yet answered, in order.
    creating: VecDeque<WatchRequest>,
    watches: BTreeMap<i64, Watched>,
    /// How often it takes what there is for it, in thousandths of ticks, and how much at once.
    eagerness: u64,
    bytes_max: usize,
    /// It was told that there is something to take.
    is_ready: bool,
    /// The newest answer to a progress request.
    progress: Option<Revision>,
}

/// One watch as its client knows it.
#[derive(Debug)]
struct Watched {
    request: WatchRequest,
    part: Option<Part>,
    /// It was told of everything before this, and of nothing from here on.
    next: Revision,
    /// The newest revision it was told events of.
    told: Option<Revision>,
    /// Parts of a response that is not complete.
    parts: Vec<Told>,
    /// Cancelled for compaction; its id stays.
    is_over: bool,
    is_cancelling: bool,
    /// When it was last told its progress, and what.
    progress: Option<(u64, Revision)>,
}

/// What a client needs to know to judge what it is told.
pub(crate) struct Known<'a> {
    pub(crate) history: &'a History,
    /// What the node that told it has forgotten.
    pub(crate) compacted: Option<Revision>,
    /// What the node can show at least: nothing while a snapshot is being installed.
    pub(crate) published: Option<Revision>,
    pub(crate) now: u64,
}

/// What is wrong with what a client is told.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The store was read for it in vain, as happens where it rots.
    Store(Fault),
    /// A promise was broken.
    Broken(String),
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self::Broken(what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(fault) => write!(f, "the store failed: {fault}"),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

impl Watched {
    fn wants(&self, event: &Event) -> bool {
        self.request.range.contains(event.key())
            && self.part.as_ref().is_none_or(|part| part.has(event.key()))
            && match event {
                Event::Put(_) => self.request.puts,
                Event::Delete { .. } => self.request.deletes,
            }
    }

    /// The first revision from `next` on with something for it, and what.
    fn following<'h>(&self, history: &'h History) -> Option<(Revision, Vec<&'h Event>)> {
        history.revisions.range(self.next..).find_map(|(revision, (events, _))| {
            let wanted: Vec<&Event> = events.iter().filter(|event| self.wants(event)).collect();
            (!wanted.is_empty()).then_some((*revision, wanted))
        })
    }

    fn on_events(
        &mut self,
        events: Vec<Told>,
        header: Option<Revision>,
        known: &Known<'_>,
    ) -> Result<u64, String> {
        let mut told = 0;
        let mut events = events.into_iter();
        while events.len() > 0 {
            let Some((revision, wanted)) = self.following(known.history) else {
                return Err(format!("told {:?} after everything", events.as_slice()));
            };
            for wanted in wanted {
                let Some(Told { event, previous, .. }) = events.next() else {
                    return Err(format!("revision {revision} was told without {wanted:?}"));
                };
                if event != *wanted {
                    return Err(format!("told {event:?} instead of {wanted:?}"));
                }
                let expected = known.history.before(event.key(), revision);
                let is_right = if self.request.previous {
                    let is_forgotten = known.compacted.is_some_and(|compacted| revision <= compacted);
                    previous.as_ref() == expected || (previous.is_none() && is_forgotten)
                } else {
                    previous.is_none()
                };
                if !is_right {
                    return Err(format!("{event:?} came with {previous:?}, before it was {expected:?}"));
                }
                told += 1;
            }
            self.next = revision.next();
            self.told = Some(revision);
        }
        if header < self.told || header > Some(known.history.newest()) {
            return Err(format!("told up to {:?} under a header of {header:?}", self.told));
        }
        Ok(told)
    }

    fn on_progress(&mut self, at: Revision, known: &Known<'_>) -> Result<(), String> {
        if at > known.history.newest() {
            return Err(format!("progress {at} has not happened"));
        }
        if let Some((missing, _)) = self.following(known.history).filter(|(missing, _)| *missing <= at) {
            return Err(format!("progress {at} and not told of {missing}"));
        }
        // Who puts parts together is told what all of them have passed, also when some are further.
        let is_behind = at.next() < self.next && self.part.is_none();
        if is_behind || !self.parts.is_empty() || (self.is_over && self.part.is_none()) {
            return Err(format!("progress {at} of {self:?}"));
        }
        self.next = self.next.max(at.next());
        Ok(())
    }
}

impl Client {
    /// What it has not been told, if anything, of what the node could tell.
    fn missing(&self, known: &Known<'_>) -> Option<Revision> {
        let published = known.published?;
        let living = self.watches.values().filter(|watched| !watched.is_over && !watched.is_cancelling);
        let first = living.filter_map(|watched| watched.following(known.history)).map(|(first, _)| first);
        first.min().filter(|first| *first <= published)
    }

    fn on_response(
        &mut self,
        response: WatchResponse,
        known: &Known<'_>,
        part: Option<&Part>,
    ) -> Result<u64, String> {
        let size = response.size();
        let WatchResponse { id, kind, header_revision, events, fragment } = response;
        let has_events = !events.is_empty();
        if has_events != (kind == WatchResponseKind::Events) || (fragment && !has_events) {
            return Err(format!("{kind:?} with {events:?}, {fragment}"));
        }
        match kind {
            WatchResponseKind::Created => {
                let request = self.creating.pop_front().ok_or("created, but not asked for")?;
                let header = header_revision.ok_or("created without a revision")?;
                if header > known.history.newest() || self.watches.contains_key(&id) {
                    return Err(format!("created {id} at {header}"));
                }
                let start = request.start_revision.filter(|start| *start > 0);
                let next = start.map_or(header.next(), |start| Revision(start as u64));
                let watched = Watched {
                    request,
                    part: part.cloned(),
                    next,
                    told: None,
                    parts: Vec::new(),
                    is_over: false,
                    is_cancelling: false,
                    progress: None,
                };
                self.watches.insert(id, watched);
            }
            WatchResponseKind::CreateFailed { .. } => {
                let request = self.creating.pop_front().ok_or("refused, but not asked for")?;
                let is_bad = request.start_revision.is_some_and(|start| start < 0)
                    || request.range.is_empty()
                    || request.id.is_some();
                if !is_bad || id != NO_WATCH {
                    return Err(format!("{request:?} was refused"));
                }
            }
            WatchResponseKind::Events => {
                let watched = self.watches.get_mut(&id).ok_or(format!("events of no watch {id}"))?;
                if watched.is_over {
                    return Err(format!("events of {id}, which is over"));
                }
                let is_large = size >= FRAGMENT_BYTES && events.len() > 1;
                if (fragment && !watched.request.fragment) || (is_large && watched.request.fragment) {
                    return Err(format!("{size} bytes of {id} with fragment {fragment}"));
                }
                watched.parts.extend(events);
                if !fragment {
                    let events = std::mem::take(&mut watched.parts);
                    return watched.on_events(events, header_revision, known).map_err(|problem| {
                        format!("watch {id} of {:?} next {}: {problem}", watched.request, watched.next)
                    });
                }
            }
            WatchResponseKind::Canceled { compacted: None, .. } => {
                if !self.watches.remove(&id).is_some_and(|watched| watched.is_cancelling) {
                    return Err(format!("{id} was cancelled, and nobody wanted that"));
                }
            }
            WatchResponseKind::Canceled { compacted: Some(compacted), .. } => {
                let watched = self.watches.get_mut(&id).ok_or(format!("no watch {id} to cancel"))?;
                if known.compacted.is_none_or(|truth| truth < compacted) || watched.next >= compacted {
                    return Err(format!(
                        "{watched:?} was cancelled for {compacted}, compacted is {:?}",
                        known.compacted
                    ));
                }
                watched.is_over = true;
                watched.parts.clear();
            }
            WatchResponseKind::Progress => {
                let at = header_revision.ok_or("progress without a revision")?;
                if id == NO_WATCH {
                    self.progress = self.progress.max(Some(at));
                    let living =
                        self.watches.values_mut().filter(|watched| part.is_none() || !watched.is_over);
                    for watched in living {
                        watched.on_progress(at, known)?;
                    }
                } else {
                    let watched = self.watches.get_mut(&id).ok_or(format!("progress of no watch {id}"))?;
                    if !watched.request.progress {
                        return Err(format!("progress of {id}, which did not ask for it"));
                    }
                    watched.on_progress(at, known)?;
                    watched.progress = Some((known.now, at));
                }
            }
        }
        Ok(0)
    }
}

/// A random watch around `newest`.
fn draw(random: &mut Random, newest: Revision) -> WatchRequest {
    let range = match random.below(4) {
        0 => KeyRange::all(),
        1 => KeyRange::prefix("dir/"),
        2 => KeyRange::Between(clients::key(1), clients::key(4)),
        _ => KeyRange::Single(clients::key(random.below(8))),
    };
    let mut request = WatchRequest::new(range);
    request.start_revision = match random.below(8) {
        0..3 => None,
        3..6 => Some(newest.0.saturating_sub(random.below(40)) as i64),
        6 => Some((newest.0 + random.below(20)) as i64),
        _ => Some(if random.chance(200) { -1 } else { 1 }),
    };
    let filter = random.below(5);
    request.puts = filter != 0;
    request.deletes = filter != 1;
    request.previous = random.chance(500);
    request.fragment = random.chance(400);
    request.progress = random.chance(400);
    if random.chance(100) {
        request.id = Some(1 + random.below(3) as i64);
    }
    request
}

impl Clients {
    /// Of some slots.
    pub(crate) fn of(part: Part) -> Self {
        Self { part: Some(part), ..Self::default() }
    }

    /// Watches go on elsewhere, or later, from where each was.
    pub(crate) fn resume(&self) -> Vec<WatchRequest> {
        let watched = self.streams.values().flat_map(|client| client.watches.values());
        let living = watched.filter(|watched| !watched.is_over && !watched.is_cancelling);
        living
            .map(|watched| WatchRequest {
                start_revision: Some(watched.next.0 as i64),
                id: None,
                ..watched.request.clone()
            })
            .collect()
    }

    /// A client connects.
    pub(crate) fn open(&mut self, random: &mut Random, watches: &mut Watches) -> Result<StreamId, String> {
        self.opened += 1;
        let id = StreamId(self.opened);
        let opened = match &self.part {
            None => watches.open(id),
            Some(part) => watches.open_part(id, part.clone()),
        };
        opened.map_err(|refusal| refusal.to_string())?;
        let client = Client {
            creating: VecDeque::new(),
            watches: BTreeMap::new(),
            eagerness: [1000, 300, 50, 10][random.below(4) as usize],
            bytes_max: [1, 300, 1_000, 100_000][random.below(4) as usize],
            is_ready: false,
            progress: None,
        };
        self.streams.insert(id, client);
        Ok(id)
    }

    /// A client asks for a watch.
    pub(crate) fn create(
        &mut self,
        id: StreamId,
        request: WatchRequest,
        watches: &mut Watches,
        history: &dyn watch::History,
    ) -> Result<(), String> {
        let client = self.streams.get_mut(&id).ok_or("a stream that nobody opened")?;
        client.creating.push_back(request.clone());
        watches.create(id, request, history).map_err(|refusal| refusal.to_string())
    }

    /// Clients do something.
    pub(crate) fn act(
        &mut self,
        random: &mut Random,
        watches: &mut Watches,
        history: &dyn watch::History,
        newest: Revision,
    ) -> Result<(), String> {
        if self.streams.len() < STREAMS_MAX && random.chance(500) {
            let id = self.open(random, watches)?;
            return self.create(id, draw(random, newest), watches, history);
        }
        let Some(id) = self.streams.keys().nth(random.below(self.streams.len() as u64) as usize).copied()
        else {
            return Ok(());
        };
        let Some(client) = self.streams.get_mut(&id) else { return Ok(()) };
        match random.below(20) {
            0 => {
                watches.close(id);
                self.streams.remove(&id);
            }
            1..5 => {
                let at = random.below(client.watches.len() as u64) as usize;
                if let Some((number, watched)) = client.watches.iter_mut().nth(at)
                    && !watched.is_cancelling
                {
                    watched.is_cancelling = true;
                    watches.cancel(id, *number).map_err(|refusal| refusal.to_string())?;
                }
            }
            5..8 if self.part.is_some() => {
                watches.await_passed(id, Revision((newest.0 + 3).saturating_sub(random.below(10))));
            }
            5..10 => watches.progress(id),
            _ if client.watches.len() + client.creating.len() < WATCHES_MAX => {
                return self.create(id, draw(random, newest), watches, history);
            }
            _ => {}
        }
        Ok(())
    }

    /// Clients take what there is for them; how many events they were told.
    pub(crate) fn take(
        &mut self,
        random: &mut Random,
        watches: &mut Watches,
        history: &dyn watch::History,
        known: &Known<'_>,
        is_hurried: bool,
    ) -> Result<u64, Problem> {
        let mut told = 0;
        let mut over = Vec::new();
        // Whoever polls only what is ready must still be told everything.
        for id in watches.take_ready() {
            if let Some(client) = self.streams.get_mut(&id) {
                client.is_ready = true;
            }
        }
        for (id, client) in &mut self.streams {
            if !client.is_ready {
                // Looking is slow, so only now and then.
                if random.chance(20)
                    && let Some(missing) = client.missing(known)
                {
                    let what = format!("{id:?} has something to take and is not told so: {missing}");
                    return Err(Problem::Broken(what));
                }
                continue;
            }
            if !is_hurried && !random.chance(client.eagerness) {
                continue;
            }
            client.is_ready = false;
            let bytes_max = if is_hurried { 100_000 } else { client.bytes_max };
            let responses = watches.poll(*id, history, bytes_max).map_err(Problem::Store)?;
            for response in responses {
                told += client
                    .on_response(response, known, self.part.as_ref())
                    .map_err(|problem| format!("{id:?}: {problem}"))?;
            }
            // Whom compaction overtook begins again; its id is free only when it is cancelled.
            for (number, watched) in &mut client.watches {
                if watched.is_over && !watched.is_cancelling {
                    watched.is_cancelling = true;
                    over.push((*id, *number, watched.request.clone()));
                }
            }
        }
        for (id, number, request) in over {
            watches.cancel(id, number).map_err(|refusal| refusal.to_string())?;
            let start_revision = known.compacted.map(|compacted| compacted.0 as i64);
            self.create(id, WatchRequest { start_revision, id: None, ..request }, watches, history)?;
        }
        Ok(told)
    }

    /// In the end, when nothing changes any more: everybody asks how far they are.
    pub(crate) fn ask_progress(&mut self, watches: &mut Watches) {
        for (id, client) in &mut self.streams {
            client.progress = None;
            watches.progress(*id);
        }
    }

    /// In the end everybody must have been told everything, and have an answer.
    pub(crate) fn finish(&self, known: &Known<'_>) -> Result<(), String> {
        for client in self.streams.values() {
            if !client.creating.is_empty() {
                return Err(format!("never created {:?}", client.creating));
            }
            let newest = known.history.newest();
            let is_future = |watched: &Watched| {
                watched.request.start_revision.is_some_and(|start| start > newest.0 as i64)
            };
            for watched in client.watches.values() {
                if watched.is_over {
                    continue;
                }
                if let Some((missing, _)) = watched.following(known.history) {
                    return Err(format!("never told of {missing}: {watched:?}"));
                }
                let is_told = watched
                    .progress
                    .is_some_and(|(tick, at)| at == newest && tick + 5 * PROGRESS_TICKS > known.now);
                if watched.request.progress && !is_future(watched) && !is_told {
                    return Err(format!("never told its progress: {watched:?}"));
                }
            }
            let is_due = !client.watches.is_empty()
                && client.watches.values().all(|watched| !watched.is_over && !is_future(watched));
            if is_due && client.progress != Some(newest) {
                return Err(format!("asked for progress, and was told {:?}", client.progress));
            }
        }
        Ok(())
    }
}
