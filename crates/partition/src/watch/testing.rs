//! What the tests of this module share: random numbers, and a history kept in the plainest way.

use super::{History, HistoryError, Piece};
use quorate_types::{Changes, Event, Fault, Key, KeyRange, KeyValue, Revision};
use std::collections::BTreeMap;

/// Splitmix64: the same numbers for the same seed, everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn key(&mut self) -> Key {
        let len = 1 + self.below(3);
        Key::from((0..len).map(|_| b"abc\xff"[self.below(4)]).collect::<Vec<_>>())
    }

    pub(super) fn range(&mut self) -> KeyRange {
        match self.below(6) {
            0 | 1 => KeyRange::Single(self.key()),
            2 => KeyRange::From(self.key()),
            3 | 4 => KeyRange::prefix(self.key()),
            _ => {
                let (one, other) = (self.key(), self.key());
                if one == other {
                    KeyRange::all()
                } else {
                    KeyRange::Between(one.clone().min(other.clone()), one.max(other))
                }
            }
        }
    }
}

/// A key space's history, whole in memory. Compaction only forbids what it would have thrown away.
#[derive(Default)]
pub(super) struct Store {
    pub(super) all: Vec<Changes>,
    pub(super) compacted: Option<Revision>,
    latest: BTreeMap<Key, KeyValue>,
    /// Reads fail while it is set.
    pub(super) is_broken: bool,
    /// A snapshot is taking its place while it is set.
    pub(super) is_unavailable: bool,
    /// Calls of [`History::changes`].
    pub(super) reads: std::cell::Cell<usize>,
}

impl Store {
    /// One transaction: puts with values, deletes without. Returns what changed, for publishing.
    pub(super) fn write(&mut self, operations: &[(&[u8], Option<&[u8]>)]) -> Vec<Changes> {
        let modified = self.revision().next();
        let mut events = Vec::new();
        for (key, value) in operations {
            let key = Key::copy_from_slice(key);
            match value {
                Some(value) => {
                    let before = self.latest.get(&key);
                    let pair = KeyValue {
                        key: key.clone(),
                        value: Key::copy_from_slice(value),
                        create: before.map_or(modified, |before| before.create),
                        modified,
                        version: before.map_or(1, |before| before.version + 1),
                        lease: None,
                    };
                    self.latest.insert(key, pair.clone());
                    events.push(Event::Put(pair));
                }
                None if self.latest.remove(&key).is_some() => events.push(Event::Delete { key, modified }),
                None => {}
            }
        }
        if events.is_empty() {
            return Vec::new();
        }
        let changes = Changes::whole(modified, events);
        self.all.push(changes.clone());
        vec![changes]
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> Vec<Changes> {
        self.write(&[(key.as_bytes(), Some(value.as_bytes()))])
    }

    pub(super) fn delete(&mut self, key: &str) -> Vec<Changes> {
        self.write(&[(key.as_bytes(), None)])
    }

    fn check(&self) -> Result<(), HistoryError> {
        if self.is_unavailable {
            return Err(HistoryError::Unavailable);
        }
        if self.is_broken {
            return Err(Fault::new("reading the test's history", "it is broken").into());
        }
        Ok(())
    }
}

impl History for Store {
    fn revision(&self) -> Revision {
        self.all.last().map_or(Revision::FIRST, |last| last.revision)
    }

    fn compacted(&self) -> Option<Revision> {
        self.compacted
    }

    fn changes(&self, from: Revision, bytes_max: usize) -> Result<Piece, HistoryError> {
        self.check()?;
        self.reads.set(self.reads.get() + 1);
        if let Some(compacted) = self.compacted.filter(|compacted| from < *compacted) {
            return Err(HistoryError::Compacted(compacted));
        }
        let mut bytes = 0;
        let wanted = self.all.iter().skip_while(|changes| changes.revision < from);
        let fitting = wanted.take_while(|changes| {
            let is_first = bytes == 0;
            bytes += changes.events.iter().map(Event::size).sum::<usize>();
            is_first || bytes <= bytes_max
        });
        let changes: Vec<Changes> = fitting.cloned().collect();
        let through = changes.last().map_or(self.revision(), |last| last.revision);
        Ok(Piece { changes, through })
    }

    fn previous(&self, key: &Key, before: Revision) -> Result<Option<KeyValue>, HistoryError> {
        self.check()?;
        if self.compacted.is_some_and(|compacted| before <= compacted) {
            return Ok(None);
        }
        let events = self.all.iter().rev().skip_while(|changes| changes.revision >= before);
        let last = events.flat_map(|changes| changes.events.iter().rev()).find(|event| event.key() == key);
        Ok(match last {
            Some(Event::Put(pair)) => Some(pair.clone()),
            _ => None,
        })
    }
}
