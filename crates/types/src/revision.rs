//! The order of changes in a keyspace.

use crate::{wire_newtype, wire_struct};
use std::fmt;

/// A moment of a keyspace's history: grows by one with every transaction that changed something.
/// An empty keyspace is at 1, as in etcd; the first write makes 2. 0 is before all time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(
    /// The bare number; never above `i64::MAX`, because etcd's API carries it signed.
    pub u64,
);

impl Revision {
    /// Of a keyspace that nothing was ever written to.
    pub const FIRST: Self = Self(1);

    /// The following revision.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The revision before; 0 stays 0.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The place of one change: its transaction's revision, and its number within the transaction from
/// 0 in the order of execution. etcd's (main, sub).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Of the transaction.
    pub revision: Revision,
    /// Within the transaction, from 0.
    pub sub: u32,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.revision, self.sub)
    }
}

wire_newtype!(Revision);
wire_struct!(Stamp { revision, sub });

/// Where revisions come from. A draw happens only after evaluation has said that something changes,
/// so that with one partition and no fault revisions are contiguous (`docs/` and etcd's promise).
///
/// The only partition of a keyspace counts by itself ([`LocalRevisions`]); several will ask the
/// sequencer.
pub trait RevisionSource {
    /// The next revision; every later draw is larger.
    fn draw(&mut self) -> Revision;
}

/// The revision source of a keyspace's only partition: a counter. The partition's leader sets it to
/// the last revision of its log when its term starts.
#[derive(Clone, Copy, Debug)]
pub struct LocalRevisions {
    last: Revision,
}

impl LocalRevisions {
    /// Draws start above `last`.
    pub fn after(last: Revision) -> Self {
        Self { last }
    }

    /// The last one drawn.
    pub fn last(&self) -> Revision {
        self.last
    }
}

impl RevisionSource for LocalRevisions {
    fn draw(&mut self) -> Revision {
        self.last = self.last.next();
        self.last
    }
}
