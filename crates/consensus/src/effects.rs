//! All that a replica can ask of the world.

use crate::{Message, Persist, ReadId, SnapshotMeta, WriteId};
use quorate_types::{Entry, Index, NodeId, Position, Term};

/// What to do, in the order of the fields. That messages which promise something leave only after the
/// write is a shape of this type: they are in `send_after` with the write they wait for.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages that may leave at once, before the write (a leader's entries to followers, heartbeats).
    pub send_now: Vec<(NodeId, Message)>,
    /// Must become durable; report with [`crate::Consensus::persisted`].
    pub persist: Option<Persist>,
    /// Messages that may leave only when the named write is durable (votes, acknowledgements). The
    /// write is this one or an earlier one; one that was already reported may be sent at once.
    pub send_after: Vec<(WriteId, NodeId, Message)>,
    /// Committed entries, in order, each exactly once per run; report with [`crate::Consensus::applied`].
    pub apply: Vec<Entry>,
    /// Answers to [`crate::Consensus::read`].
    pub reads: Vec<(ReadId, ReadOutcome)>,
    /// Followers whose next entries are gone from the log: take a snapshot and call
    /// [`crate::Consensus::offer_snapshot`] for each.
    pub snapshots_wanted: Vec<NodeId>,
    /// A leader offers a snapshot that this replica needs: get it from that node, install it, call
    /// [`crate::Consensus::restored`]. Nothing is applied in between. A newer fetch replaces an unfinished older one.
    pub fetch: Option<SnapshotFetch>,
    /// Set when role, term or known leader changed since the last take.
    pub role_changed: Option<Role>,
}

/// How a read barrier ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Answer when the state machine has applied up to here.
    Ready(Index),
    /// No leader, or it changed; ask again if there is time.
    Failed,
}

/// A snapshot to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFetch {
    /// The leader that offers it.
    pub from: NodeId,
    /// What it stands for.
    pub meta: SnapshotMeta,
}

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Leads this term. May evaluate requests once the entry at `fence` is applied: then it has
    /// everything that earlier leaders committed.
    Leader {
        /// Where its term's first entry stands.
        fence: Position,
    },
    /// Follows, or waits for an election.
    Follower {
        /// Whom, if known.
        leader: Option<NodeId>,
    },
    /// Asks for votes, or asks whether it would get them.
    Candidate,
}

/// How a replica stands; for status calls, metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The newest term seen.
    pub term: Term,
    /// What it is.
    pub role: Role,
    /// The leader it knows of, itself included.
    pub leader: Option<NodeId>,
    /// End of its log.
    pub last: Position,
    /// Place before its first entry.
    pub start: Position,
    /// Committed up to here.
    pub commit: Index,
    /// Applied up to here.
    pub applied: Index,
    /// Bytes of entries held in memory.
    pub log_bytes: usize,
    /// Time does not pass for it until something happens.
    pub is_hibernating: bool,
}
