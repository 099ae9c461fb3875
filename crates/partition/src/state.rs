//! The small facts a partition keeps beside its keys.
//!
//! ```text
//! "head"                             Head: applied position, revision, compacted, digest
//! "slots"                            SlotSet: what of the keyspace is the partition's
//! "members"                          what the newest applied entry about the group's members says; whoever reads the log knows its form
//! "installing"                       nothing; stands while a snapshot is being installed
//! "lease/" id                        LeaseRow: granted and checkpointed time to live
//! "leased/" id key                   nothing; the key belongs to the lease
//! "holder/" id partition             nothing; that partition holds keys of the lease, whose home this is
//! "prepared/" txn                    Prepared: a transaction over partitions that is prepared here and not ended
//! "decided/" txn                     the parts that a transaction decided here owes to other partitions
//! ```
//!
//! A transaction's name is home, term and number, big endian (4, 8 and 8 bytes), a partition 4 bytes. A lease's id is its two's complement in 8 bytes, big endian. All values are sealed.

use crate::lease::{LeaseRow, Leases};
use quorate_mvcc::engine::{Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_types::{
    Bytes, Fault, GroupId, LeaseId, Malformed, Part, PartitionId, Position, Prepared, Revision, SlotSet,
    Term, TxnId, wire_struct,
};
use std::collections::BTreeMap;

const HEAD: &[u8] = b"head";
const SLOTS: &[u8] = b"slots";
const MEMBERS: &[u8] = b"members";
pub(crate) const INSTALLING: &[u8] = b"installing";
const LEASE: &[u8] = b"lease/";
const LEASED: &[u8] = b"leased/";
const HOLDER: &[u8] = b"holder/";
const PREPARED: &[u8] = b"prepared/";
const DECIDED: &[u8] = b"decided/";

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

pub(crate) fn slots_row(group: GroupId) -> Bytes {
    layout::state_row(group, SLOTS)
}

pub(crate) fn members_row(group: GroupId) -> Bytes {
    layout::state_row(group, MEMBERS)
}

/// What the newest applied entry about the group's members says.
pub(crate) fn load_members<R: Read>(read: &R, group: GroupId) -> Result<Option<Bytes>, Fault> {
    let row = members_row(group);
    read.get(Table::State, &row)?.map(|sealed| layout::open(Table::State, &row, sealed)).transpose()
}

/// The slots of the group, if it has any state.
pub(crate) fn load_slots<R: Read>(read: &R, group: GroupId) -> Result<Option<SlotSet>, Fault> {
    let row = slots_row(group);
    read.get(Table::State, &row)?.map(|sealed| layout::decode(Table::State, &row, sealed)).transpose()
}

pub(crate) fn lease_row(group: GroupId, lease: LeaseId) -> Bytes {
    layout::state_row(group, &[LEASE, &(lease.get() as u64).to_be_bytes()].concat())
}

pub(crate) fn leased_row(group: GroupId, lease: LeaseId, key: &[u8]) -> Bytes {
    layout::state_row(group, &[LEASED, &(lease.get() as u64).to_be_bytes(), key].concat())
}

pub(crate) fn holder_row(group: GroupId, lease: LeaseId, holder: PartitionId) -> Bytes {
    let id = (lease.get() as u64).to_be_bytes();
    layout::state_row(group, &[HOLDER, &id, &holder.0.to_be_bytes()].concat())
}

fn txn_row(group: GroupId, name: &[u8], id: TxnId) -> Bytes {
    let (home, term, number) = (id.home.0.to_be_bytes(), id.term.0.to_be_bytes(), id.number.to_be_bytes());
    layout::state_row(group, &[name, &home, &term, &number].concat())
}

pub(crate) fn prepared_row(group: GroupId, id: TxnId) -> Bytes {
    txn_row(group, PREPARED, id)
}

pub(crate) fn decided_row(group: GroupId, id: TxnId) -> Bytes {
    txn_row(group, DECIDED, id)
}

/// The transactions that are prepared and not ended.
pub(crate) fn load_prepared<E: Engine>(
    engine: &E,
    group: GroupId,
) -> Result<BTreeMap<TxnId, Prepared>, Fault> {
    let mut found = BTreeMap::new();
    for row in engine.scan(Table::State, layout::state_rows(group, PREPARED)) {
        let (row, sealed) = row?;
        let prepared: Prepared = layout::decode(Table::State, &row, sealed)?;
        found.insert(prepared.id, prepared);
    }
    Ok(found)
}

/// The transactions that were decided and are owed to other partitions.
pub(crate) fn load_decided<E: Engine>(
    engine: &E,
    group: GroupId,
) -> Result<BTreeMap<TxnId, Vec<Part>>, Fault> {
    let mut found = BTreeMap::new();
    for row in engine.scan(Table::State, layout::state_rows(group, DECIDED)) {
        let (row, sealed) = row?;
        let at = layout::prefix_bytes(Table::State) + DECIDED.len();
        let number = |from: usize, len: usize| {
            let bytes = row.get(at + from..at + from + len)?;
            Some(bytes.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte)))
        };
        let (Some(home), Some(term), Some(number)) = (number(0, 4), number(4, 8), number(12, 8)) else {
            return Err(damaged(&row, "a decision's row key"));
        };
        let id = TxnId { home: PartitionId(home as u32), term: Term(term), number };
        found.insert(id, layout::decode(Table::State, &row, sealed)?);
    }
    Ok(found)
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
    for row in engine.scan(Table::State, layout::state_rows(group, HOLDER)) {
        let (row, sealed) = row?;
        let (lease, holder) = split(&row, HOLDER)?;
        layout::open(Table::State, &row, sealed)?;
        let Ok(holder) = <[u8; 4]>::try_from(&holder[..]) else {
            return Err(damaged(&row, "a lease's holder"));
        };
        if !leases.add_holder(lease, PartitionId(u32::from_be_bytes(holder))) {
            return Err(damaged(&row, "a holder's lease, which does not exist"));
        }
    }
    Ok(leases)
}

fn split(row: &Bytes, name: &[u8]) -> Result<(LeaseId, Bytes), Fault> {
    let at = layout::GROUP_BYTES + name.len();
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
