//! What goes out to a client of several revisions of one watch: responses that are not too large, cut between revisions, and within one only if the
//! watch allows.

use quorate_api::mvccpb::Event;
use quorate_api::pb;

/// Events that go out in one response, if there are many revisions.
const RESPONSE_BYTES: usize = if cfg!(test) { 400 } else { 1 << 20 };
/// A response of this size is split, if its watch allows.
const FRAGMENT_BYTES: usize = if cfg!(test) { 200 } else { 2 << 20 };
/// What an event takes besides key and value; an estimate.
const EVENT_BYTES: usize = 48;

/// Responses with events of one watch, as they are made.
pub(super) struct Outgoing {
    id: i64,
    may_split: bool,
    responses: Vec<pb::WatchResponse>,
    current: pb::WatchResponse,
    bytes: usize,
}

impl Outgoing {
    /// None yet.
    pub(super) fn new(id: i64, may_split: bool) -> Self {
        Self { id, may_split, responses: Vec::new(), current: response(id, 0), bytes: 0 }
    }

    /// The next event, of about so many bytes.
    pub(super) fn push(&mut self, event: Event, bytes: usize) {
        if self.may_split && !self.current.events.is_empty() && self.bytes + bytes >= FRAGMENT_BYTES {
            self.current.fragment = true;
            self.cut();
        }
        if let Some(header) = &mut self.current.header {
            header.revision = revision_of(&event);
        }
        self.bytes += bytes;
        self.current.events.push(event);
    }

    /// That was all of a revision.
    pub(super) fn end_revision(&mut self, at: i64) {
        if let Some(header) = &mut self.current.header {
            header.revision = at;
        }
        if self.bytes >= RESPONSE_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.bytes = 0;
        self.responses.push(std::mem::replace(&mut self.current, response(self.id, 0)));
    }

    /// All of them.
    pub(super) fn finish(mut self) -> Vec<pb::WatchResponse> {
        if !self.current.events.is_empty() {
            self.cut();
        }
        self.responses
    }
}

/// A response without events.
pub(super) fn response(id: i64, revision: i64) -> pb::WatchResponse {
    let header = pb::ResponseHeader { revision, ..Default::default() };
    pb::WatchResponse { header: Some(header), watch_id: id, ..Default::default() }
}

pub(super) fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |pair| pair.mod_revision)
}

/// About how many bytes an event takes.
pub(super) fn size(event: &Event) -> usize {
    let pairs = [&event.kv, &event.prev_kv].into_iter().flatten();
    EVENT_BYTES + pairs.map(|pair| pair.key.len() + pair.value.len()).sum::<usize>()
}
