//! Entries of the replicated log, and what a replica keeps durable beside them.

use crate::{Index, NodeId, Term, wire_enum, wire_struct};
use bytes::Bytes;
use std::fmt;

/// What kind of thing an entry's bytes are. All kinds are reserved from the first day, so that a log
/// never has to be rewritten; those that nothing writes yet say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// Empty; a leader appends it when its term starts, because only entries of its own term
    /// commit what came before (Raft paper, 5.4.2 and 8).
    Fence,
    /// The group's members from here on, as `quorate-consensus` writes them; it appends these entries itself.
    Config,
    /// A [`crate::Command`]: puts, deletes, compaction.
    Write,
    /// A [`crate::Command`] about leases: grants, revocations with the deletes they cause, checkpoints.
    Lease,
    /// [`crate::Prepared`]: a transaction's part is prepared here.
    Prepare,
    /// [`crate::Committed`]: the commit of a prepared part.
    Commit,
    /// A [`crate::TxnId`]: the abort of a prepared part.
    Abort,
    /// [`crate::Decide`]: the decision over a transaction, in its home partition.
    Decide,
    /// The split of a partition. Reserved.
    Split,
}

wire_enum!(EntryKind {
    0 => Fence, 1 => Config, 2 => Write, 3 => Lease, 4 => Prepare, 5 => Commit, 6 => Abort, 7 => Decide, 8 => Split,
});

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that appended it.
    pub term: Term,
    /// Its place in the log.
    pub index: Index,
    /// What its bytes are.
    pub kind: EntryKind,
    /// The encoded command; opaque to consensus and to the log.
    pub data: Bytes,
}

wire_struct!(Entry { term, index, kind, data });

impl Entry {
    /// Where it stands.
    pub fn position(&self) -> Position {
        Position { term: self.term, index: self.index }
    }

    /// About how many bytes it takes in memory and on the wire.
    pub fn size(&self) -> usize {
        self.data.len() + 32
    }
}

/// A place in a log and the term of the entry there. Ordered by term, then index: the order in which
/// Raft compares logs (paper, 5.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Of the entry.
    pub term: Term,
    /// Of the entry.
    pub index: Index,
}

wire_struct!(Position { term, index });

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What a replica must remember across a crash beside its entries (Raft paper, figure 2). The commit
/// index is a hint that spares work after a restart; losing it is harmless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// What it knew to be committed.
    pub commit: Index,
}

wire_struct!(HardState { term, vote, commit });

/// One group's share of a write to the node's log. The parts take effect in the order of the fields,
/// all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogWrite {
    /// Forget every entry and begin after this position instead: a snapshot has taken their place.
    pub restart: Option<Position>,
    /// The new hard state, when it changed.
    pub hard_state: Option<HardState>,
    /// Contiguous entries. The first may stand before the end of the log: then it and all after it
    /// that were there before are replaced.
    pub entries: Vec<Entry>,
    /// Entries up to and including this position are no longer needed: the store holds what they did, durably.
    pub compact: Option<Position>,
}

impl LogWrite {
    /// Removes a group from the log, as if it had never been: its keyspace is deleted. Nothing of the group may follow.
    pub fn removal() -> Self {
        Self { restart: Some(Position::default()), hard_state: Some(HardState::default()), ..Self::default() }
    }

    /// Whether it is a [`LogWrite::removal`].
    pub fn is_removal(&self) -> bool {
        self.restart == Some(Position::default())
            && self.hard_state == Some(HardState::default())
            && self.entries.is_empty()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.restart.is_none()
            && self.hard_state.is_none()
            && self.entries.is_empty()
            && self.compact.is_none()
    }
}

wire_struct!(LogWrite { restart, hard_state, entries, compact });
