//! What a log entry says: effects, never requests.
//!
//! The leader evaluates a request and the entry carries what changes, with explicit revisions.
//! Followers apply without evaluating, so two versions of the program cannot diverge over a rule.

use crate::{GroupId, Key, LeaseId, PartitionId, Revision, Slot, SlotSet, Stamp, wire_enum, wire_struct};
use bytes::Bytes;

/// The bytes of an entry of kind [`crate::EntryKind::Write`] or [`crate::EntryKind::Lease`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Keyspace and partition it belongs to; applying checks it.
    pub group: GroupId,
    /// What changes, in order. All changes of keys share one revision, subs ascending from 0.
    pub effects: Vec<Effect>,
}

wire_struct!(Command { group, effects });

/// What a split entry says: from here on these slots are another partition's.
///
/// Every replica that applies it has the child's whole state, because the rows of the keys are the keyspace's and only change hands. The
/// leader appends it when no transaction holds locks here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The new partition.
    pub child: PartitionId,
    /// What it takes over: a part of the parent's, not all.
    pub slots: SlotSet,
}

wire_struct!(Split { child, slots });

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The key gets this value.
    Put {
        /// Of the key.
        slot: Slot,
        /// When.
        stamp: Stamp,
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// When the key was last created; the stamp's own revision for a new key.
        create: Revision,
        /// 1 for a new key.
        version: u64,
        /// The lease it belongs to from now on.
        lease: Option<LeaseId>,
        /// The lease it belonged to, so that applying detaches it without reading.
        previous_lease: Option<LeaseId>,
    },
    /// The key goes away.
    Delete {
        /// Of the key.
        slot: Slot,
        /// When.
        stamp: Stamp,
        /// The key.
        key: Key,
        /// The lease it belonged to.
        previous_lease: Option<LeaseId>,
    },
    /// A lease begins.
    LeaseGrant {
        /// Its id, not in use.
        lease: LeaseId,
        /// Granted time to live.
        ttl_seconds: u64,
    },
    /// A lease ends, revoked or expired; the deletes of its keys stand before it in the same command.
    LeaseRemove {
        /// Its id.
        lease: LeaseId,
    },
    /// How much time a lease had left when the leader wrote this, for the next leader to start from.
    LeaseCheckpoint {
        /// Its id.
        lease: LeaseId,
        /// Time left.
        remaining_seconds: u64,
    },
    /// History up to this revision may be forgotten.
    Compact {
        /// The oldest revision that stays readable.
        revision: Revision,
    },
    /// At a lease's home: another partition holds keys of it from now on.
    LeaseHolder {
        /// The lease.
        lease: LeaseId,
        /// The partition.
        holder: PartitionId,
    },
    /// At such a partition: keys may be attached to the lease, whose home is elsewhere, until it is removed here.
    LeaseCopy {
        /// Its id.
        lease: LeaseId,
    },
}

wire_enum!(Effect {
    0 => Put { slot, stamp, key, value, create, version, lease, previous_lease },
    1 => Delete { slot, stamp, key, previous_lease },
    2 => LeaseGrant { lease, ttl_seconds },
    3 => LeaseRemove { lease },
    4 => LeaseCheckpoint { lease, remaining_seconds },
    5 => Compact { revision },
    6 => LeaseHolder { lease, holder },
    7 => LeaseCopy { lease },
});

impl Effect {
    /// When it happens, if it changes a key.
    pub fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Put { stamp, .. } | Self::Delete { stamp, .. } => Some(*stamp),
            _ => None,
        }
    }
}
