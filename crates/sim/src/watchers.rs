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

mod client;

use crate::clients;
use crate::history::History;
use crate::random::Random;
use client::Client;
use quorate_partition::watch::{self, Part, StreamId, Watches};
use quorate_types::{Fault, KeyRange, Revision, WatchRequest};
use std::collections::BTreeMap;
use std::fmt;

const STREAMS_MAX: usize = 3;
const WATCHES_MAX: usize = 4;
/// How often quiet watches are told their progress, in ticks.
const PROGRESS_TICKS: u64 = 40;
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
        self.streams.insert(id, Client::new(random));
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
        self.streams.values().try_for_each(|client| client.finish(known))
    }
}
