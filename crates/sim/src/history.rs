//! What happened to the keys, revision by revision, as the first replica that applied it said.

use crate::world::modified;
use quorate_types::{Changes, Event, Key, KeyValue, Revision};
use std::collections::BTreeMap;

/// Everything that ever changed.
#[derive(Debug, Default)]
pub struct History {
    /// What each revision changed, and when that was first applied.
    pub revisions: BTreeMap<Revision, (Vec<Event>, u64)>,
    versions: BTreeMap<Key, BTreeMap<Revision, Option<KeyValue>>>,
}

impl History {
    /// A replica applied this. All must say the same.
    pub(crate) fn add(&mut self, changes: &Changes, tick: u64) -> Result<(), String> {
        let revision = changes.revision;
        if let Some((known, _)) = self.revisions.get(&revision) {
            return if known[..] == changes.events[..] {
                Ok(())
            } else {
                Err(format!("revision {revision} is {known:?} and {:?}", changes.events))
            };
        }
        if revision != self.newest().next() {
            return Err(format!("revision {revision} came after {}", self.newest()));
        }
        for event in changes.events.iter() {
            let pair = match event {
                Event::Put(pair) => Some(pair.clone()),
                Event::Delete { .. } => None,
            };
            if modified(event) != revision {
                return Err(format!("revision {revision} holds {event:?}"));
            }
            self.versions.entry(event.key().clone()).or_default().insert(revision, pair);
        }
        self.revisions.insert(revision, (changes.events.to_vec(), tick));
        Ok(())
    }

    /// The newest revision.
    pub fn newest(&self) -> Revision {
        self.revisions.last_key_value().map_or(Revision::FIRST, |(revision, _)| *revision)
    }

    /// The pair right before `revision`.
    pub fn before(&self, key: &Key, revision: Revision) -> Option<&KeyValue> {
        self.versions.get(key)?.range(..revision).next_back()?.1.as_ref()
    }
}
