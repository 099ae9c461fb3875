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
}
