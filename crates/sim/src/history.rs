//! What happened to the keys, revision by revision, as the first replica that applied it said.

use crate::world::modified;
use quorate_types::{Changes, Event, Key, KeyValue, Revision};
use std::collections::BTreeMap;

/// Everything that ever changed.
#[derive(Debug, Default)]
pub struct History {
    /// What each revision changed, and when that was first applied.
    pub revisions: BTreeMap<Revision, (Vec<Event>, u64)>,
    /// A revision that something was answered at. Nothing may change at it, or have changed before it, that is found out later.
    pub(crate) reached: Option<Revision>,
    /// Whether revisions may be missing: those that a leader or a sequencer that died had drawn.
    pub(crate) may_have_holes: bool,
    pub(crate) versions: BTreeMap<Key, BTreeMap<Revision, Option<KeyValue>>>,
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
        let last = self.last();
        if revision <= last || (revision != last.next() && !self.may_have_holes) {
            return Err(format!("revision {revision} came after {last}"));
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

    /// The last revision that changed something.
    fn last(&self) -> Revision {
        self.revisions.last_key_value().map_or(Revision::FIRST, |(revision, _)| *revision)
    }

    /// Something was answered, or is published, as of this revision.
    pub(crate) fn reach(&mut self, revision: Revision) {
        self.reached = self.reached.max(Some(revision));
    }

    /// The newest revision that anybody was told.
    pub fn newest(&self) -> Revision {
        self.last().max(self.reached.filter(|_| self.may_have_holes).unwrap_or(Revision::FIRST))
    }

    /// The pair right before `revision`.
    pub fn before(&self, key: &Key, revision: Revision) -> Option<&KeyValue> {
        self.versions.get(key)?.range(..revision).next_back()?.1.as_ref()
    }
}
