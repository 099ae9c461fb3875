//! Transactions over partitions as their coordinator sees them, and what leaders say to each other about them.
//!
//! The coordinator is the leader of the *home* partition. It locks its own part in memory, has the others prepare theirs,
//! evaluates the request over what all of them hold, draws the revision, and appends the decision to its own log: that
//! entry is the commit point. `docs/partitions.md` has the whole protocol; `host/transacting.rs` carries it out.

use crate::group::Work;
use quorate_types::{
    Effect, Footprint, GroupId, PartitionId, PreState, Revision, Term, Tick, TxnId, wire_enum,
};
use std::collections::BTreeMap;

/// Between the leaders of two partitions of a keyspace. All may be lost or repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnMessage {
    /// Coordinator to participant: lock this, durably if it may change, and tell what you hold. Lost: the coordinator gives the attempt up
    /// after a while and begins another. Repeated or late: its vote is answered with how it ended.
    Prepare {
        /// The attempt.
        id: TxnId,
        /// What it touches in the participant's partition.
        footprint: Footprint,
        /// Wait for locks instead of refusing. Only one participant is asked to wait at a time, in ascending order.
        wait: bool,
        /// How long the transaction has been under way, all its attempts counted; in ticks.
        waited: u64,
        /// The newest revision that the coordinator knows of: up to here the participant can be asked what was.
        at: Revision,
    },
    /// Participant to coordinator. Lost: as a lost prepare. Late: answered with how it ended.
    Vote {
        /// The attempt.
        id: TxnId,
        /// Whose vote.
        from: PartitionId,
        /// The leader's term, and what it holds; `None`: something is locked.
        outcome: Option<(Term, PreState)>,
        /// The sequencer's epoch that the leader was registered in when it looked: what a later one gave out is not to be under an earlier one's revision.
        epoch: Term,
    },
    /// Coordinator to participant: how it ended. A commit is repeated until it is acknowledged; an abort is asked for by who missed it.
    Finish {
        /// The attempt.
        id: TxnId,
        /// What it changes there; `None`: nothing.
        effects: Option<Vec<Effect>>,
    },
    /// Participant to coordinator: the end of it is in my log.
    Finished {
        /// The attempt.
        id: TxnId,
        /// Who says so.
        from: PartitionId,
    },
    /// Participant to coordinator: I hold locks for this; how did it end? Repeated until answered.
    Status {
        /// The attempt.
        id: TxnId,
        /// Who asks.
        from: PartitionId,
    },
    /// Participant to coordinator: somebody needs what this attempt holds here. If that one has waited much longer, the attempt is given up and begun anew. Repeated for
    /// as long as it is so.
    Yield {
        /// The attempt.
        id: TxnId,
        /// How long the other has waited; in ticks.
        waited: u64,
    },
}

wire_enum!(TxnMessage {
    0 => Prepare { id, footprint, wait, waited, at },
    1 => Vote { id, from, outcome, epoch },
    2 => Finish { id, effects },
    3 => Finished { id, from },
    4 => Status { id, from },
    5 => Yield { id, waited },
});

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Votes are awaited.
    Collecting,
    /// All are there, and a sequencer on another node is asked.
    Drawing,
    /// The decision is in the log, at this revision if it changes keys, and not yet applied.
    Deciding(Option<Revision>),
}

/// One partition's share in an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) footprint: Footprint,
    pub(crate) is_asked: bool,
    pub(crate) vote: Option<(Term, PreState)>,
}

/// An attempt at a transaction, at its coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) home: GroupId,
    pub(crate) work: Work,
    pub(crate) shares: BTreeMap<PartitionId, Share>,
    pub(crate) phase: Phase,
    /// Locks are taken one after the other, in ascending order of partitions, waiting for each: the attempt after one that met locks. As
    /// all who wait go the same way, none waits for one that waits for it.
    pub(crate) in_order: bool,
    /// So many partitions there were when the shares were told apart. With more, the request is told apart anew.
    pub(crate) partitions: usize,
    /// Given up then.
    pub(crate) until: Tick,
}

impl Attempt {
    /// Whose vote is to be asked for next.
    pub(crate) fn to_ask(&self) -> Vec<PartitionId> {
        let unasked =
            || self.shares.iter().filter(|(_, share)| !share.is_asked).map(|(partition, _)| *partition);
        if !self.in_order {
            return unasked().collect();
        }
        let is_waiting = self.shares.values().any(|share| share.is_asked && share.vote.is_none());
        if is_waiting { Vec::new() } else { unasked().take(1).collect() }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.shares.values().all(|share| share.vote.is_some())
    }

    /// The terms in which all of them voted.
    pub(crate) fn terms(&self) -> Vec<(PartitionId, Term)> {
        let voted = self.shares.iter();
        voted.filter_map(|(partition, share)| Some((*partition, share.vote.as_ref()?.0))).collect()
    }
}
