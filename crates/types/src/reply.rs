//! What a client gets, free of any wire API.

use crate::{KeyValue, LeaseId, Revision, Term, wire_enum, wire_struct};

/// The answer to a [`crate::Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of the snapshot that answered: the transaction's own for one that changed something.
    pub revision: Revision,
    /// Of the keyspace; never goes back.
    pub term: Term,
    /// What was asked for.
    pub answer: Answer,
}

wire_struct!(Reply { revision, term, answer });

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a range.
    Range(RangeAnswer),
    /// To a put.
    Put(PutAnswer),
    /// To a delete.
    DeleteRange(DeleteAnswer),
    /// To a transaction.
    Txn(TxnAnswer),
    /// To a compaction.
    Compact,
    /// To a lease grant: the lease and the time to live it really got.
    LeaseGrant {
        /// Its id.
        lease: LeaseId,
        /// Granted time to live.
        ttl_seconds: u64,
    },
    /// To a revocation.
    LeaseRevoke,
    /// To a keep-alive.
    LeaseKeepAlive {
        /// The granted time to live; `None` when the lease is unknown or already ending.
        ttl_seconds: Option<u64>,
    },
    /// To a time-to-live; `None` when the lease is unknown.
    LeaseTimeToLive(Option<LeaseTime>),
    /// To a list of leases: soonest to expire first.
    Leases(Vec<LeaseId>),
}

wire_enum!(Answer {
    0 => Range(range), 1 => Put(put), 2 => DeleteRange(delete), 3 => Txn(txn), 4 => Compact,
    5 => LeaseGrant { lease, ttl_seconds }, 6 => LeaseRevoke, 7 => LeaseKeepAlive { ttl_seconds },
    8 => LeaseTimeToLive(time), 9 => Leases(leases),
});

impl Answer {
    /// About how many bytes of keys and values it carries.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Range(range) => range.bytes(),
            Self::Txn(txn) => txn.responses.iter().map(OperationAnswer::bytes).sum(),
            Self::Put(put) => put.previous.iter().map(KeyValue::bytes).sum(),
            Self::DeleteRange(delete) => delete.previous.iter().map(KeyValue::bytes).sum(),
            _ => 0,
        }
    }
}

impl RangeAnswer {
    fn bytes(&self) -> usize {
        self.pairs.iter().map(KeyValue::bytes).sum()
    }
}

impl OperationAnswer {
    fn bytes(&self) -> usize {
        match self {
            Self::Range(_, range) => range.bytes(),
            Self::Put(_, put) => put.previous.iter().map(KeyValue::bytes).sum(),
            Self::DeleteRange(_, delete) => delete.previous.iter().map(KeyValue::bytes).sum(),
            Self::Txn(txn) => txn.responses.iter().map(Self::bytes).sum(),
        }
    }
}

/// To a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The pairs.
    pub pairs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// All keys of the range, whatever limit and filters say.
    pub count: u64,
}

/// To a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutAnswer {
    /// The pair before, if asked for and there was one.
    pub previous: Option<KeyValue>,
}

/// To a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteAnswer {
    /// How many keys went away.
    pub deleted: u64,
    /// The pairs before, in key order, if asked for.
    pub previous: Vec<KeyValue>,
}

/// To a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Whether the compares held.
    pub succeeded: bool,
    /// One for each operation of the branch taken.
    pub responses: Vec<OperationAnswer>,
}

/// To one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationAnswer {
    /// To a range, with the revision the operation saw: the transaction's own once it has changed
    /// something, the one before until then.
    Range(Revision, RangeAnswer),
    /// To a put, likewise.
    Put(Revision, PutAnswer),
    /// To a delete, likewise.
    DeleteRange(Revision, DeleteAnswer),
    /// To a nested transaction; etcd leaves its header empty.
    Txn(TxnAnswer),
}

/// How long a lease has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// What it was granted.
    pub granted_seconds: u64,
    /// Whole seconds left, rounded down.
    pub remaining_seconds: u64,
    /// The same in ticks of the leader, to sort by.
    pub remaining_ticks: u64,
    /// Its keys, in order, if asked for.
    pub keys: Vec<crate::Key>,
}

wire_struct!(RangeAnswer { pairs, more, count });
wire_struct!(PutAnswer { previous });
wire_struct!(DeleteAnswer { deleted, previous });
wire_struct!(TxnAnswer { succeeded, responses });
wire_enum!(OperationAnswer {
    0 => Range(revision, range), 1 => Put(revision, put), 2 => DeleteRange(revision, delete), 3 => Txn(txn),
});
wire_struct!(LeaseTime { granted_seconds, remaining_seconds, remaining_ticks, keys });
