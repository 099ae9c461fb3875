//! The state that a request is evaluated on, whatever it is made of.
//!
//! [`Applied`] is what the store holds. The leader puts its pending entries over that
//! ([`crate::overlay::Ahead`]), and a transaction its own changes so far over either
//! ([`crate::writer::Writer`]). Ranges, compares and transactions are written once, over [`View`].

use quorate_mvcc::KeySpace;
use quorate_mvcc::engine::Read;
use quorate_types::{Fault, Key, KeyRange, KeyValue, Revision, Slot};
use std::iter::Peekable;

/// Pairs in key order. Ends after the first error.
pub(crate) type PairIter<'v> = Box<dyn Iterator<Item = Result<KeyValue, Fault>> + 'v>;

/// A history of keys up to a revision.
pub(crate) trait View {
    /// Where a key that is written belongs.
    fn slot(&self, key: &[u8]) -> Slot;

    /// The newest revision there is.
    fn revision(&self) -> Revision;

    /// The oldest that can be read, once anything was compacted.
    fn compacted(&self) -> Option<Revision>;

    /// `key` as of `at`, which is not above [`View::revision`].
    fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault>;

    /// The pairs of `range` as of `at`, ascending.
    fn pairs<'v>(&'v self, range: &KeyRange, at: Revision) -> PairIter<'v>;
}

/// What the store holds, up to a revision.
pub(crate) struct Applied<'a, R> {
    pub(crate) space: KeySpace<'a, R>,
    pub(crate) revision: Revision,
    pub(crate) compacted: Option<Revision>,
}

impl<R: Read> View for Applied<'_, R> {
    fn slot(&self, _: &[u8]) -> Slot {
        panic!("nothing is written over applied state: a leader evaluates")
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn compacted(&self) -> Option<Revision> {
        self.compacted
    }

    fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault> {
        self.space.get(key, at)
    }

    fn pairs<'v>(&'v self, range: &KeyRange, at: Revision) -> PairIter<'v> {
        Box::new(self.space.range(range, at))
    }
}

/// All pairs of a range as of a revision, of which nothing else is asked.
pub(crate) struct Pairs<'a>(pub(crate) &'a [KeyValue], pub(crate) Revision);

impl View for Pairs<'_> {
    fn slot(&self, _: &[u8]) -> Slot {
        panic!("nothing is written over pairs that were read: a leader evaluates")
    }

    fn revision(&self) -> Revision {
        self.1
    }

    fn compacted(&self) -> Option<Revision> {
        None
    }

    fn get(&self, key: &Key, _: Revision) -> Result<Option<KeyValue>, Fault> {
        Ok(self.0.iter().find(|pair| pair.key == *key).cloned())
    }

    fn pairs<'v>(&'v self, _: &KeyRange, _: Revision) -> PairIter<'v> {
        Box::new(self.0.iter().cloned().map(Ok))
    }
}

/// Pairs with newer ones laid over them; `None` over a key hides it. Both ascend by key.
pub(crate) fn laid_over<'v>(
    base: PairIter<'v>,
    over: impl Iterator<Item = (&'v Key, Option<&'v KeyValue>)> + 'v,
) -> PairIter<'v> {
    let mut over = over.peekable();
    // Nothing pending in the range is the common case, and costs nothing then.
    if over.peek().is_none() { base } else { Box::new(LaidOver { base: base.peekable(), over }) }
}

struct LaidOver<'v, O: Iterator<Item = (&'v Key, Option<&'v KeyValue>)>> {
    base: Peekable<PairIter<'v>>,
    over: Peekable<O>,
}

impl<'v, O: Iterator<Item = (&'v Key, Option<&'v KeyValue>)>> Iterator for LaidOver<'v, O> {
    type Item = Result<KeyValue, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((key, _)) = self.over.peek() else { return self.base.next() };
            match self.base.peek() {
                Some(Ok(pair)) if pair.key < **key => return self.base.next(),
                Some(Ok(pair)) if pair.key == **key => {
                    self.base.next();
                }
                Some(Ok(_)) | None => {}
                Some(Err(_)) => return self.base.next(),
            }
            if let Some((_, Some(pair))) = self.over.next() {
                return Some(Ok(pair.clone()));
            }
        }
    }
}
