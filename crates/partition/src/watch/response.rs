//! What a stream of watches is told.

use super::{Events, Told};
use quorate_types::Revision;

/// The id in responses that are about no watch: a refused creation, an answer to a progress request.
pub const NO_WATCH: i64 = -1;

/// What a response takes besides its events; an estimate, so that queues of empty ones are bounded too.
const RESPONSE_BYTES: usize = 64;

/// One message to the client. What a kind means for etcd's fields stands at the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchResponse {
    /// The watch's id on its stream, or [`NO_WATCH`].
    pub id: i64,
    /// What it says.
    pub kind: WatchResponseKind,
    /// etcd's `header.revision`; `None` is its 0.
    pub header_revision: Option<Revision>,
    /// In order of (revision, sub). Never empty in [`WatchResponseKind::Events`], always in the others.
    pub events: Events,
    /// More events of the same revisions follow in the next response of this watch.
    pub fragment: bool,
}

/// What a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchResponseKind {
    /// The watch exists (`created`). Comes before anything else of it.
    Created,
    /// The watch was refused (`created` and `canceled`, id -1); the stream lives on.
    CreateFailed {
        /// In etcd's words where etcd has them.
        reason: String,
    },
    /// Something changed. Live, this is one revision, and it is the header's. Of a watch that catches up
    /// it is many, and the header's revision is the newest there is.
    Events,
    /// The watch is no more (`canceled`); nothing else comes under its id.
    Canceled {
        /// It needed history that was compacted; this is the last compaction (`compact_revision`).
        compacted: Option<Revision>,
        /// Empty in both cases we have, as in etcd: at the client's wish, and by compaction.
        reason: String,
    },
    /// Everything up to the header's revision has been sent: to the watch named, or with [`NO_WATCH`] to
    /// all watches of the stream.
    Progress,
}

impl WatchResponse {
    pub(super) fn new(id: i64, kind: WatchResponseKind, header_revision: Option<Revision>) -> Self {
        Self { id, kind, header_revision, events: Events::default(), fragment: false }
    }

    /// About how many bytes it takes on the wire.
    pub fn size(&self) -> usize {
        RESPONSE_BYTES + self.events.iter().map(Told::size).sum::<usize>()
    }

    /// The response in parts below `bytes_max` each, as far as single events allow; all but the last say
    /// that more follows. One that is smaller, or has one event, stays whole.
    pub(super) fn fragments(self, bytes_max: usize) -> Vec<Self> {
        if self.size() < bytes_max || self.events.len() < 2 {
            return vec![self];
        }
        let mut parts: Vec<Vec<Told>> = Vec::new();
        let mut size = RESPONSE_BYTES;
        for told in self.events.iter() {
            size += told.size();
            match parts.last_mut().filter(|_| size < bytes_max) {
                Some(part) => part.push(told.clone()),
                None => {
                    size = RESPONSE_BYTES + told.size();
                    parts.push(vec![told.clone()]);
                }
            }
        }
        let last = parts.len() - 1;
        let part = |(at, events)| Self { events: Events::from(events), fragment: at < last, ..self.clone() };
        parts.into_iter().enumerate().map(part).collect()
    }
}
