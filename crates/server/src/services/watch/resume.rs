//! How far a client is with the watches of its stream, so that they go on at another hub.
//!
//! A stream of watches has one hub at a time: this node's, or that of a node that has all of the keyspace. When it is lost, another is asked for
//! the same watches from where the client is. All that the client asks and all that a hub tells goes through [`Resume`], in order:
//!
//! ```text
//! client ── ask ──▶ hub ── told ──▶ client            reopen: another hub is asked anew
//! ```
//!
//! Invariants, whatever hubs are lost and when:
//! * A watch is told every event once, in order: it goes on with the revision after the last that was told whole. Of a revision that was told in
//!   part (only fragments do that) the events that were told are left out: they come in the same order from every hub.
//! * Every request that has an answer is answered once. A creation without one is asked again; what was to be cancelled is cancelled.
//! * A watch keeps its id, and an id that the server chose is not chosen again.
//!
//! Caveat: a watch that is resumed at a revision to come is told its progress only when that has come, as a client's that has reconnected.

use quorate_api::pb;
use quorate_api::pb::watch_request::RequestUnion;
use quorate_partition::watch::NO_WATCH;
use std::collections::{BTreeMap, VecDeque};

/// Creations that no hub has answered; while there are as many the client's requests wait.
const UNANSWERED_MAX: usize = 1_024;

/// One stream's watches.
#[derive(Debug, Default)]
pub(super) struct Resume {
    watches: BTreeMap<i64, Followed>,
    /// Creations that this hub has not answered, in the order it was asked.
    unanswered: VecDeque<Unanswered>,
    /// The client wants to know how far it is.
    is_progress_asked: bool,
    /// Ids below it that a hub chose are not chosen again.
    id_next: i64,
    /// The newest revision that any header named.
    revision: i64,
    /// This is not the stream's first hub: it does not know which ids were chosen before.
    is_resumed: bool,
}

/// A watch that the client knows of.
#[derive(Debug)]
struct Followed {
    request: pb::WatchCreateRequest,
    /// The first revision that was not told, or not whole.
    next: i64,
    /// So many events of it were told.
    told: usize,
    /// So many of those come again from this hub.
    repeated: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    /// The client wants no more of it, and is to be told that there is no more.
    Cancelled,
    /// Compaction overtook it and the client was told; by this hub, or by an earlier one.
    Compacted {
        by_this: bool,
    },
}

#[derive(Debug)]
enum Unanswered {
    /// The client's own creation, and whether the client has cancelled it already.
    First(pb::WatchCreateRequest, bool),
    /// One that the client was told of.
    Again(i64),
}

impl Resume {
    /// Whether another request may be asked.
    pub(super) fn accepts(&self) -> bool {
        self.unanswered.len() < UNANSWERED_MAX
    }

    /// Whether hubs are to be asked how far the watches are, so that quiet ones go on from there and not from revisions long forgotten.
    pub(super) fn wants_progress(&self) -> bool {
        !self.watches.is_empty() && !self.is_progress_asked
    }

    /// The client asks something: what the hub is asked, or what the client is told at once.
    pub(super) fn ask(
        &mut self,
        request: pb::WatchRequest,
    ) -> (Option<pb::WatchRequest>, Option<pb::WatchResponse>) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let create = self.named(create);
                self.unanswered.push_back(Unanswered::First(create.clone(), false));
                (Some(creation(create)), None)
            }
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.is_progress_asked = true;
                (Some(progress()), None)
            }
            // A later client's request that we do not know is passed over, as etcd does.
            None => (None, None),
        }
    }

    fn cancel(&mut self, id: i64) -> (Option<pb::WatchRequest>, Option<pb::WatchResponse>) {
        match self.watches.get_mut(&id) {
            Some(Followed { state: State::Compacted { by_this: false }, .. }) => {
                self.watches.remove(&id);
                return (None, Some(self.cancelled(id)));
            }
            Some(watch) => watch.state = State::Cancelled,
            None => {
                let named = self.unanswered.iter_mut().find_map(|unanswered| match unanswered {
                    // An id of 0 was left to the hub.
                    Unanswered::First(create, is_cancelled) if id != 0 && create.watch_id == id => {
                        Some(is_cancelled)
                    }
                    _ => None,
                });
                if let Some(is_cancelled) = named {
                    *is_cancelled = true;
                }
            }
        }
        (Some(cancellation(id)), None)
    }

    /// A later hub would choose ids anew.
    fn named(&mut self, mut create: pb::WatchCreateRequest) -> pb::WatchCreateRequest {
        if self.is_resumed && create.watch_id == 0 {
            while self.is_taken(self.id_next) {
                self.id_next += 1;
            }
            // 0 means that the hub chooses, which then is 0.
            create.watch_id = self.id_next;
            self.id_next += 1;
        }
        create
    }

    fn is_taken(&self, id: i64) -> bool {
        let is_named = |unanswered: &Unanswered| matches!(unanswered, Unanswered::First(create, _) if id != 0 && create.watch_id == id);
        self.watches.contains_key(&id) || self.unanswered.iter().any(is_named)
    }

    /// The hub tells something: what the client is told of it.
    pub(super) fn told(&mut self, mut response: pb::WatchResponse) -> Option<pb::WatchResponse> {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        self.revision = self.revision.max(revision);
        if response.created {
            return self.created(response, revision);
        }
        if response.canceled {
            let watch = self.watches.get_mut(&response.watch_id)?;
            if response.compact_revision != 0 && watch.state == State::Live {
                watch.state = State::Compacted { by_this: true };
            } else if response.compact_revision == 0 {
                self.watches.remove(&response.watch_id);
            }
            return Some(response);
        }
        if response.watch_id == NO_WATCH {
            return self.progressed(response, revision);
        }
        let watch = self.watches.get_mut(&response.watch_id)?;
        if !response.events.is_empty() {
            return watch.events(&mut response).then_some(response);
        }
        watch.reached(revision);
        Some(response)
    }

    /// Whether the client is told all events of a response for a watch, under that revision, that has all of the revisions from `first` to `last`. Then
    /// that is noted, as [`Resume::told`] would.
    pub(super) fn is_all_new(&mut self, id: i64, revision: i64, (first, last): (i64, i64)) -> bool {
        let Some(watch) = self.watches.get_mut(&id) else { return false };
        let is_all_new = first >= watch.next && watch.repeated == 0;
        if is_all_new {
            (watch.next, watch.told) = (last + 1, 0);
            self.revision = self.revision.max(revision);
        }
        is_all_new
    }

    fn created(&mut self, response: pb::WatchResponse, revision: i64) -> Option<pb::WatchResponse> {
        match self.unanswered.pop_front()? {
            Unanswered::First(create, is_cancelled) => {
                if !response.canceled {
                    let id = response.watch_id;
                    if create.watch_id == 0 {
                        self.id_next = self.id_next.max(id + 1);
                    }
                    let next = if create.start_revision > 0 { create.start_revision } else { revision + 1 };
                    let state = if is_cancelled { State::Cancelled } else { State::Live };
                    let watch = Followed { request: create, next, told: 0, repeated: 0, state };
                    self.watches.insert(id, watch);
                }
                Some(response)
            }
            Unanswered::Again(id) if response.canceled => {
                self.watches.remove(&id);
                let reason = response.cancel_reason.clone();
                Some(pb::WatchResponse { created: false, watch_id: id, cancel_reason: reason, ..response })
            }
            // The client knows.
            Unanswered::Again(_) => None,
        }
    }

    /// All watches have everything up to `revision`.
    fn progressed(&mut self, response: pb::WatchResponse, revision: i64) -> Option<pb::WatchResponse> {
        // All that the hub knows of, that is.
        if self.unanswered.iter().any(|unanswered| matches!(unanswered, Unanswered::Again(_))) {
            return None;
        }
        self.watches.values_mut().for_each(|watch| watch.reached(revision));
        std::mem::take(&mut self.is_progress_asked).then_some(response)
    }

    /// The hub is lost: what the next one is asked before anything else, and what the client is told at once.
    pub(super) fn reopen(&mut self) -> (Vec<pb::WatchRequest>, Vec<pb::WatchResponse>) {
        let unanswered = std::mem::take(&mut self.unanswered);
        let was_asked = !unanswered.is_empty() || !self.watches.is_empty();
        self.is_resumed |= was_asked;
        let mut requests = Vec::new();
        let mut ended = Vec::new();
        // Rising: of those that the server chose 0 is the first, and cannot be named.
        for (id, watch) in &mut self.watches {
            match &mut watch.state {
                State::Live => {
                    watch.repeated = watch.told;
                    let create = pb::WatchCreateRequest {
                        watch_id: *id,
                        start_revision: watch.next,
                        ..watch.request.clone()
                    };
                    requests.push(creation(create));
                    self.unanswered.push_back(Unanswered::Again(*id));
                }
                State::Cancelled => ended.push(*id),
                State::Compacted { by_this } => *by_this = false,
            }
        }
        for id in &ended {
            self.watches.remove(id);
        }
        let answers = ended.into_iter().map(|id| self.cancelled(id)).collect();
        for first in unanswered {
            // Watches that the client knows of are asked for again as such.
            let Unanswered::First(create, is_cancelled) = first else { continue };
            let create = self.named(create);
            requests.push(creation(create.clone()));
            if is_cancelled {
                requests.push(cancellation(create.watch_id));
            }
            self.unanswered.push_back(Unanswered::First(create, is_cancelled));
        }
        if self.is_progress_asked {
            requests.push(progress());
        }
        (requests, answers)
    }

    /// What a hub would say to a cancellation.
    fn cancelled(&self, id: i64) -> pb::WatchResponse {
        let header = pb::ResponseHeader { revision: self.revision, ..Default::default() };
        pb::WatchResponse { header: Some(header), watch_id: id, canceled: true, ..Default::default() }
    }
}

impl Followed {
    /// Everything up to `revision` was told.
    fn reached(&mut self, revision: i64) {
        if self.told == 0 {
            self.next = self.next.max(revision + 1);
        }
    }

    /// Leaves out what was told before and notes the rest; returns whether there is anything to say.
    fn events(&mut self, response: &mut pb::WatchResponse) -> bool {
        let Some(last) = response.events.last().map(revision_of) else { return false };
        let (next, mut repeated) = (self.next, self.repeated);
        response.events.retain(|event| {
            let revision = revision_of(event);
            let is_repeated = revision == next && repeated > 0;
            repeated -= usize::from(is_repeated);
            revision >= next && !is_repeated
        });
        self.repeated = repeated;
        let of_last = response.events.iter().filter(|event| revision_of(event) == last).count();
        // The client has been told that more follows, so it has to be told when there is no more.
        let is_series = self.told > 0;
        if last >= self.next {
            if !response.fragment {
                (self.next, self.told, self.repeated) = (last + 1, 0, 0);
            } else if last > self.next {
                (self.next, self.told, self.repeated) = (last, of_last, 0);
            } else {
                self.told += of_last;
            }
        }
        if !response.events.is_empty() {
            return true;
        }
        if let Some(header) = &mut response.header {
            // Without events it reads as progress, of which no more is sure.
            header.revision = last;
        }
        is_series && !response.fragment && last >= next
    }
}

fn revision_of(event: &quorate_api::mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |pair| pair.mod_revision)
}

fn creation(create: pb::WatchCreateRequest) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn cancellation(id: i64) -> pb::WatchRequest {
    let cancel = pb::WatchCancelRequest { watch_id: id };
    pb::WatchRequest { request_union: Some(RequestUnion::CancelRequest(cancel)) }
}

/// How far are all?
pub(super) fn progress() -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})) }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
