//! Where watches that are behind read what they missed.

use quorate_types::{Changes, Fault, Key, KeyValue, Revision};

/// The stored history of the partition's key space. It holds at least everything that was published
/// to the [`super::Watches`] it is given to; it may be further, when what was applied is not published yet.
pub trait History {
    /// The newest revision there is.
    fn revision(&self) -> Revision;

    /// The last compaction: what happened before it can be forgotten, what happened at it is kept.
    fn compacted(&self) -> Option<Revision>;

    /// What changed from revision `from` on, inclusive: whole revisions, ascending, none left out between
    /// the first and the last, up to about `bytes_max`, but at least one if there is any. Nothing only
    /// when nothing changed from `from` up to [`History::revision`].
    fn changes(&self, from: Revision, bytes_max: usize) -> Result<Vec<Changes>, HistoryError>;

    /// The pair as it was right before revision `before`; `None` when there was none or when the version
    /// has been compacted away.
    fn previous(&self, key: &Key, before: Revision) -> Result<Option<KeyValue>, HistoryError>;
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
