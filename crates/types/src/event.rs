//! What watchers are told.

use crate::{Key, KeyValue, Revision};
use std::sync::Arc;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key got this value.
    Put(KeyValue),
    /// The key went away.
    Delete {
        /// Which.
        key: Key,
        /// When.
        modified: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(pair) => &pair.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// About how many bytes it takes in a response.
    pub fn size(&self) -> usize {
        match self {
            Self::Put(pair) => pair.key.len() + pair.value.len() + 32,
            Self::Delete { key, .. } => key.len() + 16,
        }
    }
}

/// Everything that one revision changed, in order of subs. Shared by all who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// When.
    pub revision: Revision,
    /// At least one.
    pub events: Arc<[Event]>,
    /// The subs of the events, where they are not 0, 1, 2 and so on: when some of the revision are elsewhere.
    pub subs: Option<Arc<[u32]>>,
}

impl Changes {
    /// All that the revision changed.
    pub fn whole(revision: Revision, events: Vec<Event>) -> Self {
        Self { revision, events: events.into(), subs: None }
    }

    /// What the revision changed here, each event with its sub.
    pub fn part(revision: Revision, events: Vec<Event>, subs: Vec<u32>) -> Self {
        assert_eq!(events.len(), subs.len(), "each event has its sub");
        let is_whole = (0..).zip(&subs).all(|(place, sub)| place == *sub);
        Self { revision, events: events.into(), subs: (!is_whole).then(|| subs.into()) }
    }

    /// The sub of the event at a place.
    pub fn sub(&self, place: usize) -> u32 {
        let named = self.subs.as_ref().and_then(|subs| subs.get(place)).copied();
        named.unwrap_or_else(|| u32::try_from(place).unwrap_or(u32::MAX))
    }
}
