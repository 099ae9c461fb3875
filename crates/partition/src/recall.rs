//! The store, with what is in memory of it before it.
//!
//! A key that is read by itself, or by a transaction, is answered from memory ([`crate::lately`]) if it is there, and is there from then on. Ranges are not looked for here: their
//! reader does that for a whole answer.

use crate::publication::Published;
use crate::view::{Applied, PairIter, View};
use quorate_mvcc::engine::Read;
use quorate_types::{Fault, Key, KeyRange, KeyValue, Revision, Slot};

/// What is published, up to a revision.
pub(crate) struct Recall<'a, R> {
    pub(crate) applied: Applied<'a, R>,
    pub(crate) published: &'a Published,
    /// Of what is published, from before anything was read.
    pub(crate) generation: u64,
}

impl<R: Read> View for Recall<'_, R> {
    fn slot(&self, key: &[u8]) -> Slot {
        self.applied.slot(key)
    }

    fn revision(&self) -> Revision {
        self.applied.revision
    }

    fn compacted(&self) -> Option<Revision> {
        self.applied.compacted
    }

    fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault> {
        let lately = &self.published.lately;
        let mark = match lately.get(key, at) {
            Ok(known) => return Ok(known),
            Err(mark) => mark,
        };
        let pair = self.applied.get(key, at)?;
        // A compaction may have taken the version between the two looks.
        let is_kept = self.published.compacted().is_none_or(|compacted| compacted <= at);
        if at == self.applied.revision && is_kept {
            let is_readable = || self.published.generation().is_ok_and(|now| now == self.generation);
            lately.learn_key(key, pair.as_ref(), (at, mark), is_readable);
        }
        Ok(pair)
    }

    fn pairs<'v>(&'v self, range: &KeyRange, at: Revision) -> PairIter<'v> {
        self.applied.pairs(range, at)
    }
}
