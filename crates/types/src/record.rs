//! What is stored of a key.

use crate::{Key, LeaseId, Revision, Slot, Stamp, wire_enum, wire_struct};
use bytes::Bytes;

/// One version of a key as the store keeps it, under the key and the [`Stamp`] that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The key has a value from here on.
    Value(Stored),
    /// The key is gone from here on.
    Tombstone {
        /// The key's slot, so that a partition can be split by slot without hashing again.
        slot: Slot,
    },
}

/// The value of a key in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The key's slot.
    pub slot: Slot,
    /// When the key was last created.
    pub create: Revision,
    /// Writes since the key was created, this one included: 1 for the first.
    pub version: u64,
    /// The lease that the key goes away with.
    pub lease: Option<LeaseId>,
    /// The client's bytes.
    pub value: Bytes,
}

wire_struct!(Stored { slot, create, version, lease, value });
wire_enum!(Record { 0 => Value(stored), 1 => Tombstone { slot } });

impl Record {
    /// The value, unless the key is gone.
    pub fn value(&self) -> Option<&Stored> {
        match self {
            Self::Value(stored) => Some(stored),
            Self::Tombstone { .. } => None,
        }
    }

    /// The key's slot.
    pub fn slot(&self) -> Slot {
        match self {
            Self::Value(stored) => stored.slot,
            Self::Tombstone { slot } => *slot,
        }
    }
}

/// A key and its value as a client sees them; etcd's `mvccpb.KeyValue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The client's key.
    pub key: Key,
    /// The client's value.
    pub value: Bytes,
    /// When the key was last created.
    pub create: Revision,
    /// When this version was written.
    pub modified: Revision,
    /// Writes since the key was created, 1 for the first.
    pub version: u64,
    /// The lease that the key goes away with.
    pub lease: Option<LeaseId>,
}

wire_struct!(KeyValue { key, value, create, modified, version, lease });

impl KeyValue {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + 32
    }

    /// What a client sees of `stored`, written under `key` at `stamp`.
    pub fn new(key: Key, stamp: Stamp, stored: Stored) -> Self {
        Self {
            key,
            value: stored.value,
            create: stored.create,
            modified: stamp.revision,
            version: stored.version,
            lease: stored.lease,
        }
    }
}
