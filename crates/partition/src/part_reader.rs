//! Reading the history of some slots of a keyspace, on a node that has these and perhaps no others.
//!
//! What a node *holds* are the slots of which it has everything up to the revision that is published here
//! ([`Publication::hold`](crate::Publication::hold)). A part is read while all of it is held, whatever becomes of other slots
//! meanwhile; whether it is, is looked at after each read, because slots are not held any more before their first row goes.

use crate::error::ReadError;
use crate::reader::Reader;
use crate::watch::{History, HistoryError, Piece};
use quorate_mvcc::Page;
use quorate_mvcc::engine::Engine;
use quorate_types::{Key, KeyValue, Rejection, Revision, SlotSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A reader of some slots.
#[derive(Debug)]
pub struct PartReader<E> {
    reader: Reader<E>,
    slots: Arc<SlotSet>,
    /// How often slots had been lost when all of these were held.
    losses: AtomicU64,
}

impl<E: Engine> PartReader<E> {
    pub(crate) fn new(reader: Reader<E>, slots: Arc<SlotSet>) -> Option<Self> {
        let part = Self { reader, slots, losses: AtomicU64::new(u64::MAX) };
        part.is_held().then_some(part)
    }

    /// Whether all of it is held.
    pub fn is_held(&self) -> bool {
        let published = &self.reader.published;
        let losses = published.losses();
        if self.losses.load(Ordering::Relaxed) == losses {
            return true;
        }
        let is_held = self.slots.subtract(&published.held()).is_empty();
        if is_held {
            self.losses.store(losses, Ordering::Relaxed);
        }
        is_held
    }

    fn check(&self) -> Result<(), Rejection> {
        if self.is_held() { Ok(()) } else { Err(Rejection::Unavailable) }
    }
}

impl<E: Engine> History for PartReader<E> {
    fn revision(&self) -> Revision {
        self.reader.revision()
    }

    fn compacted(&self) -> Option<Revision> {
        self.reader.compacted()
    }

    fn changes(&self, from: Revision, bytes_max: usize) -> Result<Piece, HistoryError> {
        let through = self.reader.revision();
        piece(self.reader.changes_in(&self.slots, from, bytes_max, || self.check()), through)
    }

    fn previous(&self, key: &Key, before: Revision) -> Result<Option<KeyValue>, HistoryError> {
        let pair = Reader::previous(&self.reader, key, before);
        if self.check().is_err() {
            return Err(HistoryError::Unavailable);
        }
        Ok(pair?)
    }
}

/// A page as watches read it; `through` is how far it was to go.
pub(crate) fn piece(page: Result<Page, ReadError>, through: Revision) -> Result<Piece, HistoryError> {
    match page {
        Ok(Page { changes, next }) => {
            Ok(Piece { changes, through: next.map_or(through, Revision::previous) })
        }
        Err(ReadError::Fault(fault)) => Err(HistoryError::Fault(fault)),
        Err(ReadError::Rejection(Rejection::Compacted { oldest, .. })) => {
            Err(HistoryError::Compacted(oldest))
        }
        // A snapshot holds the history that its source holds: whoever is behind reads on when it is whole.
        Err(ReadError::Rejection(_)) => Err(HistoryError::Unavailable),
    }
}
