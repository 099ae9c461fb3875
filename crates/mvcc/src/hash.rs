//! One number for the whole history, to compare replicas by.
//!
//! The CRC32C of every version that a physically compacted replica would still hold, up to a revision:
//! for each the length of the key, the key, revision, sub and the encoded record. A replica that
//! has not yet removed what another has leaves the same versions out of its sum, so both agree.
//!
//! etcd's HashKV sums the same set in the order of revisions, because that is how it stores them. Ours goes by key, then
//! newest first: the order of our rows, so that it streams. The numbers of the two programs
//! could not agree in any case, their records being encoded differently.

use crate::engine::{Read, Table};
use crate::layout;
use quorate_types::{Bytes, Fault, KeyRange, KeyspaceId, Record, Revision, SlotSet};

/// The hash of a keyspace's history up to `through`, as if compacted at `compacted`; of what is in `slots`, if they are given.
/// `read` must be one moment (a snapshot), or nothing may be removed meanwhile.
pub fn history<R: Read>(
    read: &R,
    keyspace: KeyspaceId,
    slots: Option<&SlotSet>,
    through: Revision,
    compacted: Option<Revision>,
) -> Result<u32, Fault> {
    let compacted = compacted.unwrap_or_default();
    let mut hash = crc32c::crc32c(b"key");
    let mut current = Bytes::new();
    // Whether a version of the current key at or before the compacted revision was met: older ones are forgotten.
    let mut is_settled = false;
    for row in read.scan(Table::Version, layout::version_rows(keyspace, &KeyRange::all())) {
        let (row, sealed) = row?;
        let damaged = |cause| layout::damaged(Table::Version, &row, cause);
        let (name, stamp) = layout::split_version(&row).map_err(damaged)?;
        if name != current {
            current = name;
            is_settled = false;
        }
        if stamp.revision > through {
            continue;
        }
        // Checked for every row, kept or not: this is also how a scrub finds rot.
        let value = layout::open(Table::Version, &row, sealed)?;
        if let Some(slots) = slots
            && !slots.contains(layout::slot(Table::Version, &value).map_err(damaged)?)
        {
            continue;
        }
        if stamp.revision < compacted {
            let is_newest = !is_settled;
            is_settled = true;
            let record: Record = quorate_types::Decode::from_bytes(value.clone()).map_err(damaged)?;
            if !is_newest || record.value().is_none() {
                continue;
            }
        } else if stamp.revision == compacted {
            is_settled = true;
        }
        let key = layout::unescape(&current).map_err(damaged)?;
        hash = crc32c::crc32c_append(hash, &(key.len() as u64).to_be_bytes());
        hash = crc32c::crc32c_append(hash, &key);
        hash = crc32c::crc32c_append(hash, &stamp.revision.0.to_be_bytes());
        hash = crc32c::crc32c_append(hash, &stamp.sub.to_be_bytes());
        hash = crc32c::crc32c_append(hash, &value);
    }
    Ok(hash)
}
