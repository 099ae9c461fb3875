//! Where watches that are behind read what they missed.

use quorate_types::{Changes, Fault, Key, KeyValue, Revision};

/// The stored history of the partition's key space. It holds at least everything that was published
/// to the [`super::Watches`] it is given to; it may be further, when what was applied is not published yet.
pub trait History {
    /// The newest revision there is.
    fn revision(&self) -> Revision;

    /// The last compaction: what happened before it can be forgotten, what happened at it is kept.
    fn compacted(&self) -> Option<Revision>;

    /// What changed from revision `from` on, inclusive: a piece of about `bytes_max`.
    fn changes(&self, from: Revision, bytes_max: usize) -> Result<Piece, HistoryError>;

    /// The pair as it was right before revision `before`; `None` when there was none or when the version
    /// has been compacted away.
    fn previous(&self, key: &Key, before: Revision) -> Result<Option<KeyValue>, HistoryError>;
}

/// A piece of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whole revisions, ascending.
    pub changes: Vec<Changes>,
    /// Everything up to here is in it: further than before the piece, unless that was [`History::revision`].
    pub through: Revision,
}

/// Why history could not be read.
#[derive(Clone, Debug)]
pub enum HistoryError {
    /// `from` lies before the last compaction, which is named.
    Compacted(Revision),
    /// A snapshot is taking the state's place. It will be there again when that is said to the watches
    /// ([`super::Watches::restored`]).
    Unavailable,
    /// The store failed.
    Fault(Fault),
}

impl From<Fault> for HistoryError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
