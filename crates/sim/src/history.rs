//! What happened to the keys, revision by revision, as the entries say that were applied anywhere.

use quorate_types::{Changes, Event, Key, KeyValue, Revision};
use std::collections::BTreeMap;

/// Everything that ever changed.
#[derive(Debug, Default)]
pub struct History {
    /// What each revision changed, and when that was first applied.
    pub revisions: BTreeMap<Revision, (Vec<Event>, u64)>,
    /// A revision that something was answered at. Nothing may change at it, or have changed before it, that is found out later.
    pub(crate) reached: Option<Revision>,
    /// When a node first published a newer revision than any had, for watches and for readers that ask nobody.
    pub(crate) published: Vec<(u64, Revision)>,
    /// Whether revisions may be missing: those that a leader or a sequencer that died had drawn.
    pub(crate) may_have_holes: bool,
    /// The events of each revision by their subs.
    pub(crate) parts: BTreeMap<Revision, BTreeMap<u32, Event>>,
    pub(crate) versions: BTreeMap<Key, BTreeMap<Revision, Option<KeyValue>>>,
}

impl History {
    /// An entry was applied somewhere for the first time: its changes at one revision, all of it or the part of one partition.
    pub(crate) fn add(
        &mut self,
        revision: Revision,
        part: Vec<(u32, Event)>,
        tick: u64,
    ) -> Result<(), String> {
        let last = self.last();
        if !self.may_have_holes && revision != last.next() {
            return Err(format!("revision {revision} came after {last}"));
        }
        let parts = self.parts.entry(revision).or_default();
        for (sub, event) in part {
            let pair = match &event {
                Event::Put(pair) => Some(pair.clone()),
                Event::Delete { .. } => None,
            };
            if modified(&event) != revision {
                return Err(format!("revision {revision} holds {event:?}"));
            }
            self.versions.entry(event.key().clone()).or_default().insert(revision, pair);
            if let Some(other) = parts.insert(sub, event) {
                return Err(format!("revision {revision} was used twice: {other:?}"));
            }
        }
        let events = parts.values().cloned().collect();
        self.revisions.insert(revision, (events, tick));
        Ok(())
    }

    /// A node tells its watchers this; it has to be what was applied.
    pub(crate) fn check(&self, changes: &Changes) -> Result<(), String> {
        match self.revisions.get(&changes.revision) {
            Some((known, _)) if known[..] == changes.events[..] => Ok(()),
            known => Err(format!("revision {} is {known:?} and {:?}", changes.revision, changes.events)),
        }
    }

    /// The last revision that changed something.
    fn last(&self) -> Revision {
        self.revisions.last_key_value().map_or(Revision::FIRST, |(revision, _)| *revision)
    }

    /// Something was answered, or is published, as of this revision.
    pub(crate) fn reach(&mut self, revision: Revision) {
        self.reached = self.reached.max(Some(revision));
    }

    /// A node has published everything up to this revision by now, in steps of the run.
    pub(crate) fn publish(&mut self, revision: Revision, step: u64) {
        self.reach(revision);
        if self.published.last().is_none_or(|(_, last)| *last < revision) {
            self.published.push((step, revision));
        }
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

/// The revision of an event.
fn modified(event: &Event) -> Revision {
    match event {
        Event::Put(pair) => pair.modified,
        Event::Delete { modified, .. } => *modified,
    }
}
