//! One request's changes while they are being worked out.
//!
//! Changes are executed in order, later ones seeing earlier ones; all get the revision after the one the
//! request began at, drawn with the first change, and subs from 0. Nothing leaves the writer until the whole request is
//! evaluated: a request that fails half way has drawn no revision and changed nothing.

use crate::error::ReadError;
use crate::view::{PairIter, View, laid_over};
use quorate_mvcc::engine::ROW_KEY_BYTES_MAX;
use quorate_mvcc::layout;
use quorate_types::reply::{DeleteAnswer, PutAnswer};
use quorate_types::request::{DeleteRequest, PutLease, PutRequest};
use quorate_types::revision::{LocalRevisions, RevisionSource};
use quorate_types::{Effect, Fault, Key, KeyRange, KeyValue, LeaseId, Rejection, Revision, Slot, Stamp};
use std::collections::BTreeMap;

/// A view, and one request's changes over it.
pub(crate) struct Writer<'a, V> {
    before: &'a V,
    /// A copy: the partition takes it over when the request succeeded.
    revisions: LocalRevisions,
    revision: Option<Revision>,
    changed: BTreeMap<Key, Option<KeyValue>>,
    effects: Vec<Effect>,
}

/// What a request came to.
#[derive(Debug)]
pub(crate) struct Written {
    /// Of the changes, if there are any.
    pub(crate) revision: Option<Revision>,
    /// What each changed key is now.
    pub(crate) changed: BTreeMap<Key, Option<KeyValue>>,
    /// What the entry will say.
    pub(crate) effects: Vec<Effect>,
}

impl<'a, V: View> Writer<'a, V> {
    /// Begins on `before`, with revisions drawn from a copy of `revisions`.
    pub(crate) fn new(before: &'a V, revisions: LocalRevisions) -> Self {
        Self { before, revisions, revision: None, changed: BTreeMap::new(), effects: Vec::with_capacity(1) }
    }

    pub(crate) fn finish(self) -> Written {
        Written { revision: self.revision, changed: self.changed, effects: self.effects }
    }

    /// Writes a key; its lease, if it names one, was checked.
    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutAnswer, ReadError> {
        let row_bytes = layout::longest_row_bytes(&request.key);
        if row_bytes > ROW_KEY_BYTES_MAX {
            let (bytes, bytes_max) = (row_bytes as u64, ROW_KEY_BYTES_MAX as u64);
            return Err(Rejection::TooLarge { bytes, bytes_max }.into());
        }
        let previous = self.get(&request.key, self.revision())?;
        let keeps = request.value.is_none() || request.lease == PutLease::Keep;
        if keeps && previous.is_none() {
            return Err(Rejection::KeyNotFound.into());
        }
        let stamp = self.next_stamp();
        let previous_lease = previous.as_ref().and_then(|pair| pair.lease);
        let lease = match request.lease {
            PutLease::Detach => None,
            PutLease::Attach(lease) => Some(lease),
            PutLease::Keep => previous_lease,
        };
        let value = match (&request.value, &previous) {
            (Some(value), _) => value.clone(),
            (None, Some(pair)) => pair.value.clone(),
            (None, None) => return Err(Rejection::KeyNotFound.into()),
        };
        let pair = KeyValue {
            key: request.key.clone(),
            value,
            create: previous.as_ref().map_or(stamp.revision, |pair| pair.create),
            modified: stamp.revision,
            version: previous.as_ref().map_or(1, |pair| pair.version + 1),
            lease,
        };
        self.effects.push(Effect::Put {
            slot: self.before.slot(&pair.key),
            stamp,
            key: pair.key.clone(),
            value: pair.value.clone(),
            create: pair.create,
            version: pair.version,
            lease,
            previous_lease,
        });
        self.changed.insert(pair.key.clone(), Some(pair));
        Ok(PutAnswer { previous: previous.filter(|_| request.previous) })
    }

    /// Removes the keys of a range, in ascending order.
    pub(crate) fn delete_range(&mut self, request: &DeleteRequest) -> Result<DeleteAnswer, ReadError> {
        let at = self.revision();
        let pairs: Vec<KeyValue> = match &request.range {
            KeyRange::Single(key) => self.get(key, at)?.into_iter().collect(),
            range if range.is_empty() => Vec::new(),
            range => self.pairs(range, at).collect::<Result<_, _>>()?,
        };
        for pair in &pairs {
            self.delete(pair.key.clone(), pair.lease);
        }
        let deleted = pairs.len() as u64;
        Ok(DeleteAnswer { deleted, previous: if request.previous { pairs } else { Vec::new() } })
    }

    /// Removes a key that exists and belongs to `previous_lease`.
    pub(crate) fn delete(&mut self, key: Key, previous_lease: Option<LeaseId>) {
        let stamp = self.next_stamp();
        let slot = self.before.slot(&key);
        self.effects.push(Effect::Delete { slot, stamp, key: key.clone(), previous_lease });
        self.changed.insert(key, None);
    }

    /// Adds a change that is not of a key.
    pub(crate) fn push(&mut self, effect: Effect) {
        assert!(effect.stamp().is_none(), "{effect:?} is a change of a key, which needs a stamp of ours");
        self.effects.push(effect);
    }

    fn next_stamp(&mut self) -> Stamp {
        let revision = *self.revision.get_or_insert_with(|| self.revisions.draw());
        assert!(
            revision > self.before.revision(),
            "drew revision {revision} on a state at {}",
            self.before.revision()
        );
        let sub = u32::try_from(self.effects.len()).expect("2^32 effects do not fit in memory");
        Stamp { revision, sub }
    }
}

impl<V: View> View for Writer<'_, V> {
    fn slot(&self, key: &[u8]) -> Slot {
        self.before.slot(key)
    }

    fn revision(&self) -> Revision {
        self.revision.unwrap_or(self.before.revision())
    }

    fn compacted(&self) -> Option<Revision> {
        self.before.compacted()
    }

    fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault> {
        if self.revision.is_some_and(|revision| at >= revision)
            && let Some(pair) = self.changed.get(key)
        {
            return Ok(pair.clone());
        }
        self.before.get(key, at)
    }

    fn pairs<'v>(&'v self, range: &KeyRange, at: Revision) -> PairIter<'v> {
        let before = self.before.pairs(range, at);
        if self.revision.is_none_or(|revision| at < revision) {
            return before;
        }
        let changed = self.changed.range::<[u8], _>(range.bounds()).map(|(key, pair)| (key, pair.as_ref()));
        laid_over(before, changed)
    }
}
