//! What is in memory, to answer from.

use super::{Inner, PAIRS_MAX};
use crate::view::{PairIter, View};
use quorate_types::{Fault, Key, KeyRange, KeyValue, Revision, Slot};
use std::cell::Cell;

/// What is known, as of a revision.
pub(super) struct Known<'a> {
    inner: &'a Inner,
    at: Revision,
    /// Nothing was met that is newer, or not known.
    is_known: Cell<bool>,
}

impl<'a> Known<'a> {
    pub(super) fn new(inner: &'a Inner, at: Revision) -> Self {
        Self { inner, at, is_known: Cell::new(true) }
    }

    /// Whether all that was looked for so far is known.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.get()
    }

    fn is_of(&self, pair: &KeyValue) -> bool {
        let is_of = pair.modified <= self.at;
        if !is_of {
            self.is_known.set(false);
        }
        is_of
    }
}

impl View for Known<'_> {
    fn slot(&self, _: &[u8]) -> Slot {
        panic!("nothing is written over what is known: a leader evaluates")
    }

    fn revision(&self) -> Revision {
        self.at
    }

    fn compacted(&self) -> Option<Revision> {
        None
    }

    fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault> {
        let known = self.inner.get(key, at);
        if known.is_none() {
            self.is_known.set(false);
        }
        Ok(known.flatten())
    }

    fn pairs<'v>(&'v self, range: &KeyRange, _: Revision) -> PairIter<'v> {
        let pairs = self.inner.pairs.range::<[u8], _>(range.bounds()).map(|(_, pair)| pair);
        // One more than is answered, which tells that there are too many.
        let pairs = pairs.take(PAIRS_MAX as usize + 1).take_while(|pair| self.is_of(pair));
        Box::new(pairs.map(|pair| Ok(pair.clone())))
    }
}
