//! Events as watches are told of them.

use quorate_types::{Event, KeyValue, Revision};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// An event as a watch is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What happened.
    pub event: Event,
    /// The pair as it was before, if the watch asked for it and it is still known.
    pub previous: Option<KeyValue>,
    /// The event's place in its revision, of which other events may be told elsewhere.
    pub sub: u32,
}

impl Told {
    /// When it happened.
    pub fn revision(&self) -> Revision {
        match &self.event {
            Event::Put(pair) => pair.modified,
            Event::Delete { modified, .. } => *modified,
        }
    }

    pub(super) fn size(&self) -> usize {
        self.event.size() + self.previous.as_ref().map_or(0, |pair| pair.key.len() + pair.value.len() + 32)
    }
}

/// What a watch is told at once, in order of (revision, sub). Clones share it, and what it is encoded to.
#[derive(Clone, Default)]
pub struct Events(Option<Arc<Shared>>);

struct Shared {
    told: Vec<Told>,
    encoded: OnceLock<Vec<u8>>,
}

impl Events {
    /// What `encode` makes of the events: asked for once for all clones, and so always to be the same. No events are no bytes.
    pub fn encoded(&self, encode: impl FnOnce(&[Told]) -> Vec<u8>) -> &[u8] {
        self.0.as_ref().map_or(&[], |shared| shared.encoded.get_or_init(|| encode(&shared.told)))
    }
}

impl From<Vec<Told>> for Events {
    fn from(told: Vec<Told>) -> Self {
        Self((!told.is_empty()).then(|| Arc::new(Shared { told, encoded: OnceLock::new() })))
    }
}

impl Deref for Events {
    type Target = [Told];

    fn deref(&self) -> &[Told] {
        self.0.as_ref().map_or(&[], |shared| &shared.told)
    }
}

impl PartialEq for Events {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Events {}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
