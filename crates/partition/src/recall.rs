//! The store, with what is in memory of it before it.
//!
//! A key that is read by itself, or by a transaction, is answered from memory ([`crate::lately`]) if it is there, and is there from then on. Ranges are not looked for here: their
//! reader does that for a whole answer.

use crate::publication::Published;
use crate::view::{Applied, PairIter, View};
use quorate_mvcc::KeySpace;
use quorate_mvcc::engine::Read;
use quorate_types::reply::RangeAnswer;
use quorate_types::request::RangeRequest;
use quorate_types::{Fault, Key, KeyRange, KeyValue, Revision, Slot, reached};

/// Rows, old versions and removed keys among them, that a range is read over before it counts as large,
const ROWS_IF_SMALL: u64 = 4_000;
/// bytes of its pairs,
const BYTES_IF_SMALL: usize = 256 << 10;
/// and how many they are, for a leader that evaluates.
const PAIRS_IF_SMALL: usize = 1_000;

/// All pairs of a range as of `at`, read no further than while it counts as small; `None` where it does not.
pub(crate) fn small_range<R: Read>(
    space: KeySpace<'_, R>,
    range: &KeyRange,
    at: Revision,
    pairs_max: usize,
) -> Result<Option<Vec<KeyValue>>, Fault> {
    let mut rows = space.range(range, at).at_most(ROWS_IF_SMALL);
    let (mut pairs, mut bytes) = (Vec::new(), 0);
    for pair in rows.by_ref() {
        let pair = pair?;
        bytes += pair.bytes();
        pairs.push(pair);
        if pairs.len() > pairs_max || bytes > BYTES_IF_SMALL {
            return Ok(None);
        }
    }
    Ok((!rows.is_cut_off()).then_some(pairs))
}

/// Of no change.
const NEWEST: Revision = Revision(i64::MAX as u64);

/// All pairs of a small range as they are applied here, published or not, from memory if they are there, and there from then on. Only for the thread that
/// applies: nothing changes meanwhile. `None` where the range is not small, and where that cannot be said.
pub(crate) fn applied_pairs<R: Read>(
    space: KeySpace<'_, R>,
    published: &Published,
    range: &KeyRange,
) -> Option<Vec<KeyValue>> {
    if let Some(pairs) = published.lately.noted(range) {
        reached!("range-evaluated-from-memory");
        return Some(pairs);
    }
    let (generation, mark) = (published.generation().ok()?, published.lately.mark());
    // Whoever reads the store itself meets the same fault, and tells it.
    let pairs = small_range(space, range, NEWEST, PAIRS_IF_SMALL).ok().flatten()?;
    let all = RangeAnswer { count: pairs.len() as u64, pairs, more: false };
    let is_readable = || published.generation().is_ok_and(|now| now == generation);
    published.lately.learn(&RangeRequest::new(range.clone()), &all, (NEWEST, mark), is_readable);
    Some(all.pairs)
}

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
