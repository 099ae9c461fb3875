//! What replicas of a group say to each other.

use crate::{ReadId, SnapshotMeta};
use quorate_types::{Entry, Index, Position, Term, wire_enum};

/// A message between two replicas of one group. All may be lost, late, repeated or reordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Candidate to voter: would you, or do you, vote for me? Lost: the candidate asks again after
    /// its timeout.
    VoteRequest {
        /// The term asked for; of a pre-vote, the term the candidate would campaign in.
        term: Term,
        /// End of the candidate's log.
        last: Position,
        /// Only asks whether it would win (thesis, 9.6); binds nobody.
        pre: bool,
        /// The leader itself asked for this election, so its lease does not stand against it.
        transfer: bool,
    },
    /// Voter to candidate.
    VoteResponse {
        /// The term granted, or the voter's own when it refuses.
        term: Term,
        /// Yes or no.
        granted: bool,
        /// The answer to a pre-vote.
        pre: bool,
    },
    /// Leader to follower: entries after `previous`. Lost: found by the next heartbeat's answer.
    Append {
        /// The leader's.
        term: Term,
        /// What must stand right before the entries.
        previous: Position,
        /// Contiguous; may be empty (a probe).
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// Follower to leader: everything up to here is durable and equal to yours.
    Appended {
        /// The follower's.
        term: Term,
        /// The last index of the request that it now holds.
        matched: Index,
    },
    /// Follower to leader: what must stand before the entries does not.
    AppendRejected {
        /// The follower's.
        term: Term,
        /// The `previous` that was refused, which tells a late answer from a current one.
        refused: Index,
        /// The newest position of the follower's log at which the two may agree.
        hint: Position,
    },
    /// Leader to follower, regularly and for each round of read barriers.
    Heartbeat {
        /// The leader's.
        term: Term,
        /// Never beyond what the follower is known to hold.
        commit: Index,
        /// Ascending within a term; the answer repeats it. A read waits for a round begun after it.
        round: u64,
    },
    /// Follower to leader.
    HeartbeatResponse {
        /// The follower's.
        term: Term,
        /// Of the heartbeat.
        round: u64,
        /// End of the follower's log, so that lost appends are noticed.
        last: Index,
        /// It follows, and votes for nobody yet: it has forgotten what it promised, or may have.
        withholds: bool,
    },
    /// Leader to follower: campaign at once.
    TimeoutNow {
        /// The leader's.
        term: Term,
    },
    /// Follower to leader: begin a read barrier for me; and I was in this term when I asked. Lost: fails by timeout at the follower.
    ReadRequest {
        /// The follower's.
        term: Term,
        /// The follower's name for it, never one that an earlier life of the follower used.
        read: ReadId,
    },
    /// Leader to follower: the barrier stands at this index, or failed.
    ReadResponse {
        /// The leader's.
        term: Term,
        /// The follower's name for it.
        read: ReadId,
        /// `None`: failed.
        index: Option<Index>,
    },
    /// Leader to follower: your next entries are gone; fetch this snapshot. Repeated until taken.
    SnapshotOffer {
        /// The leader's.
        term: Term,
        /// What it stands for.
        meta: SnapshotMeta,
    },
    /// Leader to follower, in place of further heartbeats: nothing happens here, sleep until something does. Lost: the follower
    /// asks for votes after its timeout, which wakes the leader. Late or repeated: the follower sleeps, if its log still ends there, until the
    /// leader's next heartbeat.
    Hibernate {
        /// The leader's.
        term: Term,
        /// The end of its log, all of it committed.
        last: Position,
    },
    /// Whoever led this term to everybody: I do not any more, because I have not heard a quorum. Lost: who followed finds out after its timeout. Late or repeated: it
    /// is about this term only.
    Resigned {
        /// The term that it led.
        term: Term,
    },
}

wire_enum!(Message {
    0 => VoteRequest { term, last, pre, transfer },
    1 => VoteResponse { term, granted, pre },
    2 => Append { term, previous, entries, commit },
    3 => Appended { term, matched },
    4 => AppendRejected { term, refused, hint },
    5 => Heartbeat { term, commit, round },
    6 => HeartbeatResponse { term, round, last, withholds },
    7 => TimeoutNow { term },
    8 => ReadRequest { term, read },
    9 => ReadResponse { term, read, index },
    10 => SnapshotOffer { term, meta },
    11 => Hibernate { term, last },
    12 => Resigned { term },
});

impl Message {
    /// Whether only candidates and leaders say this. Those need not be known: what made them members may be in a part of the log that
    /// has not come yet (thesis, 4.2.2).
    pub fn is_of_candidate_or_leader(&self) -> bool {
        match self {
            Self::VoteRequest { .. }
            | Self::Append { .. }
            | Self::Heartbeat { .. }
            | Self::TimeoutNow { .. }
            | Self::ReadResponse { .. }
            | Self::SnapshotOffer { .. }
            | Self::Hibernate { .. }
            | Self::Resigned { .. } => true,
            Self::VoteResponse { .. }
            | Self::Appended { .. }
            | Self::AppendRejected { .. }
            | Self::HeartbeatResponse { .. }
            | Self::ReadRequest { .. } => false,
        }
    }

    /// The term it names: the sender's, or of a pre-vote the one that would be campaigned in.
    pub fn term(&self) -> Term {
        match self {
            Self::VoteRequest { term, .. }
            | Self::VoteResponse { term, .. }
            | Self::Append { term, .. }
            | Self::Appended { term, .. }
            | Self::AppendRejected { term, .. }
            | Self::Heartbeat { term, .. }
            | Self::HeartbeatResponse { term, .. }
            | Self::TimeoutNow { term }
            | Self::Resigned { term }
            | Self::ReadRequest { term, .. }
            | Self::ReadResponse { term, .. }
            | Self::SnapshotOffer { term, .. }
            | Self::Hibernate { term, .. } => *term,
        }
    }
}
