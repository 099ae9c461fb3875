//! How much of a keyspace's history is in which slots.
//!
//! Bytes are those of the rows of Version as they are written, before the store packs them. Nothing is counted while keys are written: who wants
//! to know pays by a scan.

use crate::engine::{Read, Table};
use crate::layout;
use quorate_types::{Fault, KeyRange, KeyspaceId, Slot};
use std::collections::BTreeMap;

/// What the store holds of some keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Versions of keys, those that say that a key was deleted among them.
    pub versions: u64,
    /// Their rows.
    pub bytes: u64,
}

impl Size {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { versions: self.versions + other.versions, bytes: self.bytes + other.bytes }
    }
}

/// The slots of a keyspace that have versions, from a scan of all of them.
pub fn by_slot<R: Read>(read: &R, keyspace: KeyspaceId) -> Result<BTreeMap<Slot, Size>, Fault> {
    let mut sizes: BTreeMap<Slot, Size> = BTreeMap::new();
    for row in read.scan(Table::Version, layout::version_rows(keyspace, &KeyRange::all())) {
        let (row, sealed) = row?;
        let bytes = (row.len() + sealed.len()) as u64;
        let value = layout::open(Table::Version, &row, sealed)?;
        let damaged = |cause| layout::damaged(Table::Version, &row, cause);
        let slot = layout::slot(Table::Version, &value).map_err(damaged)?;
        let size = sizes.entry(slot).or_default();
        *size = size.plus(Size { versions: 1, bytes });
    }
    Ok(sizes)
}
