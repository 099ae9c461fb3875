//! Transactions over several partitions: what they are called, what they lock, what is written down of them.
//!
//! One partition coordinates (its *home*, that of the first key it writes), the others take part. The protocol is in
//! `docs/partitions.md`; here are the words that stand in logs and messages.

use crate::reply::LeaseTime;
use crate::{Effect, Key, KeyRange, KeyValue, LeaseId, PartitionId, Revision, Term, wire_enum, wire_struct};

/// Names one attempt at a transaction over partitions. Never used twice: a leader numbers its attempts within its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId {
    /// The partition whose leader coordinates it, and whose log holds the decision.
    pub home: PartitionId,
    /// The term of that leader.
    pub term: Term,
    /// Its number among that leader's.
    pub number: u64,
}

wire_struct!(TxnId { home, term, number });

impl std::fmt::Display for TxnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.home, self.term, self.number)
    }
}

/// What of one partition a request touches: what it locks there, and what it wants to know.
///
/// A whole range may be locked although it holds no key: that keeps others from putting one there (phantoms).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Keys that may change: nobody else reads or changes them meanwhile.
    pub exclusive: Vec<KeyRange>,
    /// Keys that are read as they are before the transaction: nobody changes them meanwhile.
    pub shared: Vec<KeyRange>,
    /// Ranges that are read as of an older revision.
    pub past: Vec<PastRange>,
    /// Leases that end or get a new holder: nobody else attaches to them meanwhile.
    pub leases_exclusive: Vec<LeaseId>,
    /// Leases that keys are attached to: they must not end meanwhile.
    pub leases_shared: Vec<LeaseId>,
    /// The revision to compact to.
    pub compact: Option<i64>,
    /// All leases whose home this is, to be listed.
    pub all_leases: bool,
    /// Nothing of it changes, so the locks, also exclusive ones, need not outlive a leader.
    pub reads_only: bool,
}

wire_struct!(Footprint {
    exclusive,
    shared,
    past,
    leases_exclusive,
    leases_shared,
    compact,
    all_leases,
    reads_only
});

impl Footprint {
    /// Whether nothing is touched.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something may change here, so that a crash must not lose the locks.
    pub fn may_change(&self) -> bool {
        !self.reads_only
            && (!self.exclusive.is_empty() || !self.leases_exclusive.is_empty() || self.compact.is_some())
    }
}

/// A range as of an older revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastRange {
    /// Which keys.
    pub range: KeyRange,
    /// As of when.
    pub revision: Revision,
}

wire_struct!(PastRange { range, revision });

/// What a partition holds of what a transaction touches, before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreState {
    /// The newest revision of the keyspace when this was collected, as far as the partition knew.
    pub at: Revision,
    /// The pairs of the exclusive and shared ranges, in key order, each once.
    pub pairs: Vec<KeyValue>,
    /// Those of the past ranges, in the order asked.
    pub past: Vec<Vec<KeyValue>>,
    /// Of the leases asked about, those that exist here.
    pub leases: Vec<KnownLease>,
    /// The oldest revision that can be read.
    pub compacted: Option<Revision>,
}

wire_struct!(PreState { at, pairs, past, leases, compacted });

/// What a partition knows of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLease {
    /// Which.
    pub lease: LeaseId,
    /// Whether this is the lease's home, which keeps its time.
    pub is_home: bool,
    /// At the home: the other partitions that hold keys of it.
    pub holders: Vec<PartitionId>,
    /// Its keys here; not when leases are listed.
    pub keys: Vec<Key>,
    /// At the home: how long it has left.
    pub time: Option<LeaseTime>,
}

wire_struct!(KnownLease { lease, is_home, holders, keys, time });

/// The bytes of an entry of kind [`crate::EntryKind::Prepare`]: from here to the commit or abort of the same name the locks
/// are held, whoever leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Which transaction.
    pub id: TxnId,
    /// What it locks in this partition.
    pub footprint: Footprint,
    /// If it commits, then at a later revision than this.
    pub floor: Revision,
}

wire_struct!(Prepared { id, footprint, floor });

/// The bytes of an entry of kind [`crate::EntryKind::Commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Which transaction.
    pub id: TxnId,
    /// What it changes in this partition; the subs are those of the whole transaction.
    pub effects: Vec<Effect>,
}

wire_struct!(Committed { id, effects });

/// What a transaction changes in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which partition.
    pub partition: PartitionId,
    /// What.
    pub effects: Vec<Effect>,
}

wire_struct!(Part { partition, effects });

/// The bytes of an entry of kind [`crate::EntryKind::Decide`], in the log of the home partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decide {
    /// The transaction commits: this entry is its commit point. Aborts are not written down; what is not decided and not being
    /// decided is aborted.
    Commit {
        /// Which.
        id: TxnId,
        /// What it changes in the home partition.
        own: Vec<Effect>,
        /// What it changes in the others, which have to be told.
        others: Vec<Part>,
    },
    /// All others have it in their logs; nobody will ask about these any more.
    Forget(Vec<TxnId>),
}

wire_enum!(Decide { 0 => Commit { id, own, others }, 1 => Forget(ids) });
