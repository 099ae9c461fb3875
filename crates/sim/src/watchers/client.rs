//! One client's stream, and what each promise means for what it is told.

use super::{FRAGMENT_BYTES, Known, PROGRESS_TICKS};
use crate::history::History;
use crate::random::Random;
use quorate_partition::watch::{NO_WATCH, Part, Told, WatchResponse, WatchResponseKind};
use quorate_types::{Event, Revision, WatchRequest};
use std::collections::{BTreeMap, VecDeque};

/// One client's stream.
#[derive(Debug)]
pub(super) struct Client {
    /// Creations not yet answered, in order.
    pub(super) creating: VecDeque<WatchRequest>,
    pub(super) watches: BTreeMap<i64, Watched>,
    /// How often it takes what there is for it, in thousandths of ticks, and how much at once.
    pub(super) eagerness: u64,
    pub(super) bytes_max: usize,
    /// It was told that there is something to take.
    pub(super) is_ready: bool,
    /// The newest answer to a progress request.
    pub(super) progress: Option<Revision>,
}

/// One watch as its client knows it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) request: WatchRequest,
    part: Option<Part>,
    /// It was told of everything before this, and of nothing from here on.
    pub(super) next: Revision,
    /// The newest revision it was told events of.
    told: Option<Revision>,
    /// Parts of a response that is not complete.
    parts: Vec<Told>,
    /// Cancelled for compaction; its id stays.
    pub(super) is_over: bool,
    pub(super) is_cancelling: bool,
    /// When it was last told its progress, and what.
    progress: Option<(u64, Revision)>,
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
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            creating: VecDeque::new(),
            watches: BTreeMap::new(),
            eagerness: [1000, 300, 50, 10][random.below(4) as usize],
            bytes_max: [1, 300, 1_000, 100_000][random.below(4) as usize],
            is_ready: false,
            progress: None,
        }
    }

    /// What it has not been told, if anything, of what the node could tell.
    pub(super) fn missing(&self, known: &Known<'_>) -> Option<Revision> {
        let published = known.published?;
        let living = self.watches.values().filter(|watched| !watched.is_over && !watched.is_cancelling);
        let first = living.filter_map(|watched| watched.following(known.history)).map(|(first, _)| first);
        first.min().filter(|first| *first <= published)
    }

    pub(super) fn on_response(
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
                watched.parts.extend_from_slice(&events);
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

    /// In the end it must have been told everything, and have an answer.
    pub(super) fn finish(&self, known: &Known<'_>) -> Result<(), String> {
        if !self.creating.is_empty() {
            return Err(format!("never created {:?}", self.creating));
        }
        let newest = known.history.newest();
        let is_future =
            |watched: &Watched| watched.request.start_revision.is_some_and(|start| start > newest.0 as i64);
        for watched in self.watches.values() {
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
        let is_due = !self.watches.is_empty()
            && self.watches.values().all(|watched| !watched.is_over && !is_future(watched));
        if is_due && self.progress != Some(newest) {
            return Err(format!("asked for progress, and was told {:?}", self.progress));
        }
        Ok(())
    }
}
