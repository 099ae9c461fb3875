//! Watches of a whole keyspace, put together from what nodes tell that hold parts of it.
//!
//! The slots of the keyspace are cut into *parts*, each at one node that holds them. A watch has a *share* at every part that its range
//! touches: one part, for a single key or a range within one slot. What the shares tell waits until all of them have *passed* a revision, which is when its
//! events go out together, in the order in which they were made:
//!
//! ```text
//!              ┌── share ── part at n1    told 7, passed 9
//! client ── watch ── share ── part at n2    told 8, passed 8       7 and 8 go out
//!              └── share ── part at n4    passed 9, nothing to tell
//! ```
//!
//! A share passes a revision by telling of it, or by being told to have passed it. A part that has nothing to tell is asked for that
//! ([`PartRequest`]'s `await_passed`) when others have told something beyond, and only then: it answers when it is so far.
//!
//! When a part is lost its slots are placed at other nodes, perhaps several, and its shares go on there, each with the revision after the last that
//! it had passed: so nothing is lost, told twice or out of order. To who asks, all of it behaves like one hub.
//!
//! Invariants: a watch is told every revision once, whole, in order; a creation is answered once, in the order of the requests; what is told of a part is at
//! or below what that has passed.
//!
//! Caveats: a part that is silent holds back all watches that touch it. Parts that are ahead are not read beyond [`WAITING_BYTES_MAX`] each, unless another
//! watch waits for them: many watches that are behind at different places can wait for each other's parts, and what waits is then more.

use super::outgoing::{Outgoing, response, revision_of, size};
pub(super) use super::share::PartId;
use super::share::{Part, Share, State, passed};
use quorate_api::mvccpb::Event;
use quorate_api::part::part_request::Request;
use quorate_api::part::{PartRequest, PartResponse};
use quorate_api::pb::watch_request::RequestUnion;
use quorate_api::{pb, request};
use quorate_partition::watch::NO_WATCH;
use quorate_types::{Rules, Slot, SlotSet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Bytes of one part's events that wait for other parts; then it is read no further.
const WAITING_BYTES_MAX: usize = if cfg!(test) { 300 } else { 4 << 20 };
/// Creations that are not answered; while there are as many the client's requests wait.
const UNANSWERED_MAX: usize = 1_024;
/// Watches on one stream.
const WATCHES_MAX: usize = 65_536;

/// The watches of one stream.
pub(super) struct Assembly {
    rules: Arc<Rules>,
    parts: BTreeMap<PartId, Part>,
    part_next: PartId,
    /// By number: parts know them by that. Never used twice.
    watches: BTreeMap<i64, Watch>,
    number_next: i64,
    /// The number of the watch that has an id.
    ids: BTreeMap<i64, i64>,
    /// Where the search for the next free id begins.
    id_next: i64,
    creating: VecDeque<Creation>,
    /// Watches with events that wait, or with progress to be told.
    pending: BTreeSet<i64>,
    told: VecDeque<pb::WatchResponse>,
    /// The newest revision that anybody named.
    revision: i64,
    /// It is asked how far all watches are.
    is_progress_asked: bool,
}

/// A creation to be answered.
enum Creation {
    /// That of the watch with this number.
    Of(i64),
    Refused(&'static str),
}

struct Watch {
    id: i64,
    request: pb::WatchCreateRequest,
    /// The slot that all of its keys have, if there is one.
    slot: Option<Slot>,
    shares: BTreeMap<PartId, Share>,
    /// What shares have told and not all have passed; by revision, and place in it.
    waiting: BTreeMap<i64, BTreeMap<(u32, PartId), Event>>,
    /// The newest revision at which a share was created.
    created: i64,
    is_answered: bool,
    /// By the client, before it was answered.
    is_cancelled: bool,
    /// Compaction overtook it.
    compacted: Option<i64>,
    /// The client is to be told that it has everything up to here.
    owed: Option<i64>,
    /// The newest revision that the client was told of.
    told: i64,
}

/// A part says what makes no sense: it is lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Senseless;

impl Assembly {
    /// No watches, and all slots at no node.
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            parts: BTreeMap::from([(1, Part::of(SlotSet::all(), State::Unplaced))]),
            part_next: 2,
            watches: BTreeMap::new(),
            number_next: 1,
            ids: BTreeMap::new(),
            id_next: 0,
            creating: VecDeque::new(),
            pending: BTreeSet::new(),
            told: VecDeque::new(),
            revision: 0,
            is_progress_asked: false,
        }
    }

    /// Whether another request may be asked.
    pub(super) fn accepts(&self) -> bool {
        self.creating.len() < UNANSWERED_MAX
    }

    /// What is to be told next.
    pub(super) fn next(&mut self) -> Option<pb::WatchResponse> {
        self.told.pop_front()
    }

    /// What a part is to be asked next.
    pub(super) fn next_ask(&mut self, part: PartId) -> Option<PartRequest> {
        self.parts.get_mut(&part)?.asks.pop_front()
    }

    /// The parts that are at no node.
    pub(super) fn unplaced(&self) -> impl Iterator<Item = (PartId, &SlotSet)> {
        let unplaced = self.parts.iter().filter(|(_, part)| part.state == State::Unplaced);
        unplaced.map(|(id, part)| (*id, &part.slots))
    }

    /// Whether a part is to be read: not when what it has told already waits for others, and nobody waits for more of it.
    pub(super) fn is_read(&self, id: PartId) -> bool {
        let is_full = self.parts.get(&id).is_none_or(|part| part.waiting_bytes >= WAITING_BYTES_MAX);
        !is_full || self.is_awaited(id)
    }

    fn is_awaited(&self, id: PartId) -> bool {
        let is_behind = |number: &i64| {
            let watch = self.watches.get(number)?;
            let share = watch.shares.get(&id)?;
            let first = watch.waiting.first_key_value().map(|(first, _)| *first);
            Some(
                share.through.is_none()
                    || first.or(watch.owed).is_some_and(|first| passed(&self.parts, id, share) < first),
            )
        };
        let creating = self.creating.iter().filter_map(|creation| match creation {
            Creation::Of(number) => Some(number),
            Creation::Refused(_) => None,
        });
        self.pending.iter().chain(creating).any(|number| is_behind(number) == Some(true))
    }

    /// Cuts a part into pieces, each of which a node is asked for; what is left of it stays at no node. Returns the pieces' names.
    pub(super) fn place(&mut self, id: PartId, pieces: Vec<SlotSet>) -> Vec<PartId> {
        let Some(mut old) = self.parts.remove(&id) else { return Vec::new() };
        let mut placed = Vec::new();
        for slots in pieces {
            old.slots = old.slots.subtract(&slots);
            placed.push(self.part_next);
            self.parts.insert(self.part_next, Part::of(slots, State::Opening));
            self.part_next += 1;
        }
        let mut ids = placed.clone();
        if !old.slots.is_empty() {
            self.parts.insert(id, old);
            ids.push(id);
        }
        for watch in self.watches.values_mut() {
            let Some(share) = watch.shares.remove(&id) else { continue };
            for id in &ids {
                if watch.slot.is_none_or(|slot| self.parts[id].slots.contains(slot)) {
                    watch.shares.insert(*id, share.clone());
                }
            }
        }
        placed
    }

    /// A node tells of the part from now on: it is asked for all shares.
    pub(super) fn opened(&mut self, id: PartId) {
        let Some(part) = self.parts.get_mut(&id) else { return };
        part.state = State::Open;
        for (number, watch) in &self.watches {
            if watch.compacted.is_none()
                && let Some(share) = watch.shares.get(&id)
            {
                part.create(*number, &watch.request, share);
            }
        }
        if self.is_progress_asked {
            part.await_passed(1);
        }
    }

    /// The node of a part is lost, or will not have it: another is to be found.
    pub(super) fn lost(&mut self, id: PartId) {
        for watch in self.watches.values_mut() {
            let Some(share) = watch.shares.get_mut(&id) else { continue };
            let passed = passed(&self.parts, id, share);
            share.through = share.through.map(|_| passed);
            share.begun = None;
            share.fragments.clear();
        }
        if let Some(part) = self.parts.get_mut(&id) {
            *part =
                Part { waiting_bytes: part.waiting_bytes, ..Part::of(part.slots.clone(), State::Unplaced) };
        }
    }

    /// The client asks something.
    pub(super) fn ask(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.is_progress_asked = true;
                for part in self.parts.values_mut() {
                    part.is_marked = false;
                    part.await_passed(1);
                }
            }
            None => {}
        }
    }

    fn create(&mut self, create: pb::WatchCreateRequest) {
        let wanted = request::watch(create.clone());
        let id = match self.admit(&wanted) {
            Ok(id) => id,
            Err(reason) => {
                self.creating.push_back(Creation::Refused(reason));
                return self.answer();
            }
        };
        let slot = self.rules.slot_of_range(&wanted.range);
        let through = (create.start_revision > 0).then(|| create.start_revision - 1);
        let number = self.number_next;
        self.number_next += 1;
        let mut watch = Watch {
            id,
            request: create,
            slot,
            shares: BTreeMap::new(),
            waiting: BTreeMap::new(),
            created: 0,
            is_answered: false,
            is_cancelled: false,
            compacted: None,
            owed: None,
            told: 0,
        };
        for (part_id, part) in &mut self.parts {
            if slot.is_none_or(|slot| part.slots.contains(slot)) {
                let share = Share { through, ..Share::default() };
                part.create(number, &watch.request, &share);
                watch.shares.insert(*part_id, share);
            }
        }
        self.ids.insert(id, number);
        self.watches.insert(number, watch);
        self.creating.push_back(Creation::Of(number));
    }

    /// Finds the id for a new watch, or the reason to refuse it, as a hub does.
    fn admit(&mut self, wanted: &quorate_types::WatchRequest) -> Result<i64, &'static str> {
        if wanted.range.is_empty() {
            return Err("mvcc: watcher range is empty");
        }
        if wanted.start_revision.is_some_and(|start| start < 0) {
            return Err("etcdserver: mvcc: required revision has been compacted");
        }
        if self.watches.len() >= WATCHES_MAX {
            return Err("too many watches on this stream");
        }
        match wanted.id {
            None => {
                while self.ids.contains_key(&self.id_next) {
                    self.id_next += 1;
                }
                self.id_next += 1;
                Ok(self.id_next - 1)
            }
            Some(NO_WATCH) => Err("watch ID -1 cannot be chosen"),
            Some(id) if self.ids.contains_key(&id) => {
                Err("mvcc: duplicate watch ID provided on the WatchStream")
            }
            Some(id) => Ok(id),
        }
    }

    fn cancel(&mut self, id: i64) {
        let Some(number) = self.ids.get(&id).copied() else { return };
        match self.watches.get_mut(&number) {
            Some(watch) if !watch.is_answered => watch.is_cancelled = true,
            _ => self.end(number),
        }
    }

    /// A watch that the client has cancelled, and is told so.
    fn end(&mut self, number: i64) {
        let Some(watch) = self.watches.get(&number) else { return };
        let id = watch.id;
        self.leave(number);
        self.watches.remove(&number);
        self.ids.remove(&id);
        self.told.push_back(pb::WatchResponse { canceled: true, ..response(id, self.revision) });
    }

    /// Nothing more of a watch is wanted of anybody.
    fn leave(&mut self, number: i64) {
        self.pending.remove(&number);
        let Some(watch) = self.watches.get_mut(&number) else { return };
        for ((_, part), event) in std::mem::take(&mut watch.waiting).into_values().flatten() {
            if let Some(part) = self.parts.get_mut(&part) {
                part.waiting_bytes = part.waiting_bytes.saturating_sub(size(&event));
            }
        }
        for id in std::mem::take(&mut watch.shares).into_keys() {
            if let Some(part) = self.parts.get_mut(&id) {
                let cancel = pb::WatchCancelRequest { watch_id: number };
                part.ask(Request::Watch(pb::WatchRequest {
                    request_union: Some(RequestUnion::CancelRequest(cancel)),
                }));
            }
        }
    }

    /// A part tells something.
    pub(super) fn told(&mut self, id: PartId, response: PartResponse) -> Result<(), Senseless> {
        let PartResponse { told: Some(response), subs } = response else { return Ok(()) };
        let Some(part) = self.parts.get_mut(&id) else { return Ok(()) };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        self.revision = self.revision.max(revision);
        if response.created {
            let number = part.unanswered.pop_front().ok_or(Senseless)?;
            let marks = part.marks;
            if response.canceled {
                return Err(Senseless);
            }
            // It may have been cancelled meanwhile.
            if let Some(watch) = self.watches.get_mut(&number)
                && let Some(share) = watch.shares.get_mut(&id)
            {
                share.begun = Some(marks);
                share.through.get_or_insert(revision);
                watch.created = watch.created.max(revision);
                self.answer();
                self.release(number);
            }
            return Ok(());
        }
        if response.watch_id == NO_WATCH {
            (part.is_marked, part.awaited) = (true, None);
            // One below an earlier one says nothing of the shares that were there then, and little of others.
            if revision >= part.passed {
                (part.passed, part.marks) = (revision, part.marks + 1);
            }
            for number in self.pending.clone() {
                self.release(number);
            }
            self.answer_progress();
            return Ok(());
        }
        let number = response.watch_id;
        let Some(watch) = self.watches.get_mut(&number).filter(|watch| watch.compacted.is_none()) else {
            return Ok(());
        };
        if response.canceled {
            if response.compact_revision != 0 {
                watch.compacted = Some(response.compact_revision);
                let is_answered = watch.is_answered;
                self.leave(number);
                if is_answered {
                    self.tell_compacted(number);
                } else {
                    self.answer();
                }
            }
            return Ok(());
        }
        let is_first = watch.shares.first_key_value().is_some_and(|(first, _)| *first == id);
        let Some(share) = watch.shares.get_mut(&id) else { return Ok(()) };
        let Some(through) = share.through else { return Err(Senseless) };
        if response.events.is_empty() {
            share.through = Some(through.max(revision));
            if is_first && watch.owed.is_none() {
                watch.owed = Some(revision);
            }
        } else {
            if response.events.len() != subs.len() {
                return Err(Senseless);
            }
            share.fragments.extend(subs.into_iter().zip(response.events));
            if response.fragment {
                return Ok(());
            }
            for (sub, event) in std::mem::take(&mut share.fragments) {
                let at = revision_of(&event);
                if at <= through {
                    continue;
                }
                share.through = share.through.max(Some(at));
                part.waiting_bytes += size(&event);
                watch.waiting.entry(at).or_default().insert((sub, id), event);
            }
        }
        self.pending.insert(number);
        self.release(number);
        Ok(())
    }

    /// Answers creations, in the order in which they were asked.
    fn answer(&mut self) {
        while let Some(creation) = self.creating.front() {
            let number = match creation {
                Creation::Refused(reason) => {
                    let refused = response(NO_WATCH, self.revision);
                    let cancel_reason = (*reason).to_owned();
                    self.told.push_back(pb::WatchResponse {
                        created: true,
                        canceled: true,
                        cancel_reason,
                        ..refused
                    });
                    self.creating.pop_front();
                    continue;
                }
                Creation::Of(number) => *number,
            };
            let Some(watch) = self.watches.get_mut(&number) else { return };
            let is_ready = watch.shares.values().all(|share| share.through.is_some());
            let is_seen =
                watch.compacted.is_some() || watch.shares.values().any(|share| share.begun.is_some());
            if !is_ready || !(is_seen || watch.created > 0) {
                return;
            }
            self.creating.pop_front();
            watch.is_answered = true;
            if watch.request.start_revision <= 0 {
                // Every share begins at a revision of its own: the watch with the newest.
                for share in watch.shares.values_mut() {
                    share.through = share.through.max(Some(watch.created));
                }
                let later = watch.waiting.split_off(&(watch.created + 1));
                for ((_, part), event) in std::mem::replace(&mut watch.waiting, later).into_values().flatten()
                {
                    if let Some(part) = self.parts.get_mut(&part) {
                        part.waiting_bytes = part.waiting_bytes.saturating_sub(size(&event));
                    }
                }
            }
            let (id, created, is_cancelled) = (watch.id, watch.created, watch.is_cancelled);
            self.told.push_back(pb::WatchResponse { created: true, ..response(id, created) });
            self.tell_compacted(number);
            if is_cancelled {
                self.end(number);
            } else {
                self.release(number);
            }
        }
    }

    /// Says that compaction overtook a watch, once the client knows of the watch.
    fn tell_compacted(&mut self, number: i64) {
        let Some(watch) = self.watches.get(&number).filter(|watch| watch.is_answered) else { return };
        if let Some(compact_revision) = watch.compacted {
            let ended = response(watch.id, 0);
            self.told.push_back(pb::WatchResponse { canceled: true, compact_revision, ..ended });
        }
    }

    /// Tells what all shares of a watch have passed, and asks those that are behind.
    fn release(&mut self, number: i64) {
        let Some(watch) = self.watches.get(&number).filter(|watch| watch.is_answered) else { return };
        let shares = watch.shares.iter().map(|(id, share)| passed(&self.parts, *id, share));
        let Some(whole) = shares.min() else { return };
        let Some(watch) = self.watches.get_mut(&number) else { return };
        let later = watch.waiting.split_off(&(whole + 1));
        let ready = std::mem::replace(&mut watch.waiting, later);
        let (id, may_split) = (watch.id, watch.request.fragment);
        let mut out = Outgoing::new(id, may_split);
        for (at, events) in ready {
            watch.told = at;
            for ((_, part), event) in events {
                let bytes = size(&event);
                if let Some(part) = self.parts.get_mut(&part) {
                    part.waiting_bytes = part.waiting_bytes.saturating_sub(bytes);
                }
                out.push(event, bytes);
            }
            out.end_revision(at);
        }
        self.told.extend(out.finish());
        let progress = watch.owed.take_if(|owed| *owed <= whole);
        if progress.is_some() {
            watch.told = watch.told.max(whole);
        }
        let first = watch.waiting.first_key_value().map(|(first, _)| *first).or(watch.owed);
        if progress.is_some() {
            self.told.push_back(response(id, whole));
        }
        let Some(first) = first else {
            self.pending.remove(&number);
            return;
        };
        let Some(watch) = self.watches.get(&number) else { return };
        let is_behind = |(id, share): &(&PartId, &Share)| passed(&self.parts, **id, share) < first;
        let behind: Vec<PartId> = watch.shares.iter().filter(is_behind).map(|(id, _)| *id).collect();
        for id in behind {
            if let Some(part) = self.parts.get_mut(&id) {
                part.await_passed(first);
            }
        }
    }

    /// Says how far all watches are, when all parts have said it and nobody was told of more. Who waits for a later start is never told.
    fn answer_progress(&mut self) {
        if !self.is_progress_asked {
            return;
        }
        let (mut whole, mut told) = (i64::MAX, 0);
        for watch in self.watches.values() {
            if !watch.is_answered || watch.compacted.is_some() {
                self.is_progress_asked = false;
                return;
            }
            for (id, share) in &watch.shares {
                if !self.parts.get(id).is_some_and(|part| part.is_marked) {
                    return;
                }
                whole = whole.min(passed(&self.parts, *id, share));
            }
            told = told.max(watch.told);
        }
        let is_later = |watch: &Watch| watch.request.start_revision > whole;
        if self.watches.is_empty() || self.watches.values().any(is_later) {
            self.is_progress_asked = false;
            return;
        }
        if whole < told {
            for part in self.parts.values_mut().filter(|part| part.passed < told) {
                part.await_passed(told);
            }
            return;
        }
        self.is_progress_asked = false;
        self.told.push_back(response(NO_WATCH, whole));
    }
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
