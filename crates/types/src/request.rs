//! What a client asks of a keyspace, free of any wire API.
//!
//! `api` turns etcd's messages into these after checking what etcd checks before proposing (empty
//! keys, operation counts, duplicate keys of a transaction); what depends on the state is checked by
//! the leader's evaluation and ends in a [`crate::Rejection`].

use crate::{Key, KeyRange, LeaseId, Revision, wire_enum, wire_struct};
use bytes::Bytes;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read keys.
    Range(RangeRequest),
    /// Write one key.
    Put(PutRequest),
    /// Remove keys.
    DeleteRange(DeleteRequest),
    /// Compare, then one of two lists of operations, atomically.
    Txn(TxnRequest),
    /// Forget history before a revision.
    Compact {
        /// The oldest revision that stays readable. Negative numbers and 0 are as in etcd: `i64`
        /// because the answer to them depends on the state.
        revision: i64,
        /// Answer only when the space has been given back.
        physical: bool,
    },
    /// Begin a lease. The gateway has already drawn an id when the client gave none.
    LeaseGrant {
        /// Its id.
        lease: LeaseId,
        /// Asked time to live, raised to the minimum by the evaluation.
        ttl_seconds: i64,
    },
    /// End a lease and delete its keys.
    LeaseRevoke {
        /// Its id.
        lease: LeaseId,
    },
    /// Start a lease's time to live anew.
    LeaseKeepAlive {
        /// Its id.
        lease: LeaseId,
    },
    /// How long a lease has left.
    LeaseTimeToLive {
        /// Its id.
        lease: LeaseId,
        /// Whether to list its keys.
        with_keys: bool,
    },
    /// All leases.
    Leases,
}

wire_enum!(Request {
    0 => Range(range), 1 => Put(put), 2 => DeleteRange(delete), 3 => Txn(txn),
    4 => Compact { revision, physical },
    5 => LeaseGrant { lease, ttl_seconds }, 6 => LeaseRevoke { lease }, 7 => LeaseKeepAlive { lease },
    8 => LeaseTimeToLive { lease, with_keys }, 9 => Leases,
});

impl Request {
    /// Whether answering it can change nothing, so that it may run on a replica behind a read barrier.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Range(_) => true,
            Self::Txn(txn) => txn.is_read_only(),
            _ => false,
        }
    }
}

/// etcd's RangeRequest. Zeros that mean "not set" are `None` here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Read as of this revision; `None` is now. A negative number is "now" for a plain range and
    /// compacted within a transaction once anything was compacted, which is why it is kept.
    pub revision: Option<i64>,
    /// At most so many pairs.
    pub limit: Option<u64>,
    /// In which order. `None` sorts after the limit was applied when the target is not the key; see
    /// `etcd` trap "limit before sort".
    pub sort_order: Option<SortOrder>,
    /// By what.
    pub sort_target: SortTarget,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Inclusive bounds; outside of them pairs are left out, but still counted.
    pub filter: RevisionFilter,
    /// May be answered from this node's state without asking the leader.
    pub serializable: bool,
}

wire_struct!(RangeRequest {
    range,
    revision,
    limit,
    sort_order,
    sort_target,
    keys_only,
    count_only,
    filter,
    serializable
});

impl RangeRequest {
    /// All of `range`, now, in key order.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            revision: None,
            limit: None,
            sort_order: None,
            sort_target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            filter: RevisionFilter::default(),
            serializable: false,
        }
    }
}

/// The four revision filters of a range, inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevisionFilter {
    /// Lower bound of the modification revision.
    pub modified_min: Option<Revision>,
    /// Upper bound of the modification revision.
    pub modified_max: Option<Revision>,
    /// Lower bound of the creation revision.
    pub create_min: Option<Revision>,
    /// Upper bound of the creation revision.
    pub create_max: Option<Revision>,
}

wire_struct!(RevisionFilter { modified_min, modified_max, create_min, create_max });

impl RevisionFilter {
    /// Whether any bound is set.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Whether a pair with these revisions stays.
    pub fn admits(&self, create: Revision, modified: Revision) -> bool {
        self.modified_min.is_none_or(|bound| bound <= modified)
            && self.modified_max.is_none_or(|bound| modified <= bound)
            && self.create_min.is_none_or(|bound| bound <= create)
            && self.create_max.is_none_or(|bound| create <= bound)
    }
}

/// Which way to sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// What to sort by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key's bytes.
    #[default]
    Key,
    /// The version.
    Version,
    /// The creation revision.
    Create,
    /// The modification revision.
    Modified,
    /// The value's bytes.
    Value,
}

wire_enum!(SortOrder { 0 => Ascending, 1 => Descending });
wire_enum!(SortTarget { 0 => Key, 1 => Version, 2 => Create, 3 => Modified, 4 => Value });

/// etcd's PutRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutRequest {
    /// The key.
    pub key: Key,
    /// Its new value; `None` keeps the stored one (ignore_value), and the key must exist.
    pub value: Option<Bytes>,
    /// What happens to its lease.
    pub lease: PutLease,
    /// Answer with the previous pair.
    pub previous: bool,
}

wire_struct!(PutRequest { key, value, lease, previous });

/// What a put does to the key's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutLease {
    /// Belongs to none from now on.
    Detach,
    /// Belongs to this one from now on.
    Attach(LeaseId),
    /// Stays as it is (ignore_lease), and the key must exist.
    Keep,
}

wire_enum!(PutLease { 0 => Detach, 1 => Attach(lease), 2 => Keep });

/// etcd's DeleteRangeRequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the previous pairs.
    pub previous: bool,
}

wire_struct!(DeleteRequest { range, previous });

/// etcd's TxnRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// All must hold, on the state before the transaction.
    pub compares: Vec<Compare>,
    /// What to do when they hold.
    pub success: Vec<Operation>,
    /// What to do when they do not.
    pub failure: Vec<Operation>,
}

wire_struct!(TxnRequest { compares, success, failure });

impl TxnRequest {
    /// Whether both branches hold nothing but plain ranges. A nested transaction makes it a write even
    /// if it only reads, as in etcd.
    pub fn is_read_only(&self) -> bool {
        let reads = |operations: &[Operation]| operations.iter().all(|op| matches!(op, Operation::Range(_)));
        reads(&self.success) && reads(&self.failure)
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read, seeing what came before in the same transaction.
    Range(RangeRequest),
    /// Write.
    Put(PutRequest),
    /// Remove.
    DeleteRange(DeleteRequest),
    /// A transaction within; its compares too are evaluated on the state before the outermost one.
    Txn(TxnRequest),
}

wire_enum!(Operation { 0 => Range(range), 1 => Put(put), 2 => DeleteRange(delete), 3 => Txn(txn) });

/// One condition over a key, or over every key of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys. A range with no keys counts as one missing key.
    pub range: KeyRange,
    /// How stored and given are compared: stored `result` given.
    pub result: CompareResult,
    /// What is compared, and with what.
    pub target: CompareTarget,
}

wire_struct!(Compare { range, result, target });

/// How stored and given must stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    /// stored = given
    Equal,
    /// stored > given
    Greater,
    /// stored < given
    Less,
    /// stored ≠ given
    NotEqual,
}

wire_enum!(CompareResult { 0 => Equal, 1 => Greater, 2 => Less, 3 => NotEqual });

/// What of a key is compared, and with what. A missing key counts as all zeros, except that a value
/// compare of a missing key is false for every result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The creation revision.
    Create(i64),
    /// The modification revision.
    Modified(i64),
    /// The value's bytes.
    Value(Bytes),
    /// The lease's number, 0 for none.
    Lease(i64),
}

wire_enum!(CompareTarget { 0 => Version(given), 1 => Create(given), 2 => Modified(given), 3 => Value(given), 4 => Lease(given) });
