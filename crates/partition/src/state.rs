//! The small facts a partition keeps beside its keys.
//!
//! ```text
//! "head"                             Head: applied position, revision, compacted, digest
//! "compaction"                       how far physical compaction came (quorate_mvcc::compact)
//! "installing"                       nothing; stands while a snapshot is being installed
//! "lease/" id                        LeaseRow: granted and checkpointed time to live
//! "leased/" id key                   nothing; the key belongs to the lease
//! ```
//!
//! A lease's id is its two's complement in 8 bytes, big endian. All values are sealed.

use crate::lease::{LeaseRow, Leases};
use quorate_mvcc::engine::{Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_types::{Bytes, Fault, GroupId, LeaseId, Malformed, Position, Revision, wire_struct};

const HEAD: &[u8] = b"head";
pub(crate) const INSTALLING: &[u8] = b"installing";
const LEASE: &[u8] = b"lease/";
const LEASED: &[u8] = b"leased/";

/// Where the applied state stands. Written in the same batch as what it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The last entry applied.
    pub(crate) position: Position,
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The last compaction.
    pub(crate) compacted: Option<Revision>,
    /// Chained over every entry applied: equal at two replicas at equal positions, or one is wrong.
    pub(crate) digest: u64,
}

wire_struct!(Head { position, revision, compacted, digest });

impl Head {
    /// Of a group that nothing was applied to.
    pub(crate) const FIRST: Self = Self {
        position: Position { term: quorate_types::Term(0), index: quorate_types::Index::START },
        revision: Revision::FIRST,
        compacted: None,
        digest: 0,
    };

    pub(crate) fn row(group: GroupId) -> Bytes {
        layout::state_row(group, HEAD)
    }

    pub(crate) fn load<R: Read>(read: &R, group: GroupId) -> Result<Self, Fault> {
        let row = Self::row(group);
        match read.get(Table::State, &row)? {
            Some(sealed) => layout::decode(Table::State, &row, sealed),
            None => Ok(Self::FIRST),
        }
    }
}

pub(crate) fn lease_row(group: GroupId, lease: LeaseId) -> Bytes {
    layout::state_row(group, &[LEASE, &(lease.get() as u64).to_be_bytes()].concat())
}

pub(crate) fn leased_row(group: GroupId, lease: LeaseId, key: &[u8]) -> Bytes {
    layout::state_row(group, &[LEASED, &(lease.get() as u64).to_be_bytes(), key].concat())
}

/// The leases and their keys, from their rows.
pub(crate) fn load_leases<E: Engine>(engine: &E, group: GroupId) -> Result<Leases, Fault> {
    let mut leases = Leases::default();
    for row in engine.scan(Table::State, layout::state_rows(group, LEASE)) {
        let (row, sealed) = row?;
        let (lease, _) = split(&row, LEASE)?;
        let stored: LeaseRow = layout::decode(Table::State, &row, sealed)?;
        leases.insert(lease, stored);
    }
    for row in engine.scan(Table::State, layout::state_rows(group, LEASED)) {
        let (row, sealed) = row?;
        let (lease, key) = split(&row, LEASED)?;
        layout::open(Table::State, &row, sealed)?;
        if !leases.attach(lease, key) {
            return Err(damaged(&row, "a key's lease, which does not exist"));
        }
    }
    Ok(leases)
}

fn split(row: &Bytes, name: &[u8]) -> Result<(LeaseId, Bytes), Fault> {
    let at = layout::PREFIX_BYTES + name.len();
    let id = row.get(at..at + 8).and_then(|id| <[u8; 8]>::try_from(id).ok());
    let lease = id.and_then(|id| LeaseId::new(u64::from_be_bytes(id) as i64));
    match lease {
        Some(lease) => Ok((lease, row.slice(at + 8..))),
        None => Err(damaged(row, "a lease's row key")),
    }
}

fn damaged(row: &[u8], what: &'static str) -> Fault {
    layout::damaged(Table::State, row, Malformed(what))
}
