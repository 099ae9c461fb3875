//! Reading all versions in the order of their keys, and removing those that may go.
//!
//! To look for the older versions of a key costs some twenty times what reading one more row in order does. Where much has changed since the last pass, everything
//! is read instead.

use crate::engine::{Batch, Engine, Table};
use crate::layout;
use quorate_types::{Bytes, Fault, KeyRange, KeyspaceId, Record, Revision};
use std::ops::Bound;

/// How far it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep {
    /// The last row that was read.
    after: Option<Bytes>,
    /// Its key, as it stands in rows, if the newest of its versions up to the target was read: what comes of it now is older.
    found: Option<Bytes>,
    /// That says that the key is gone, which has to be there as long as older versions are.
    tombstone: Option<Bytes>,
    pub(super) is_over: bool,
}

impl Sweep {
    /// Reads so many rows, and has those removed, by `batch`, that nobody at `target` or later sees.
    pub(super) fn step<E: Engine>(
        &mut self,
        engine: &E,
        keyspace: KeyspaceId,
        target: Revision,
        rows_max: usize,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        let (all, end) = layout::version_rows(keyspace, &KeyRange::all());
        let from = self.after.take().map_or(all, Bound::Excluded);
        let mut rows_left = rows_max.max(1);
        for row in engine.scan(Table::Version, (from, end)) {
            let (row, sealed) = row?;
            let damaged = |cause| layout::damaged(Table::Version, &row, cause);
            let (key, stamp) = layout::split_version(&row).map_err(damaged)?;
            let is_found = self.found.as_ref() == Some(&key);
            if !is_found {
                self.remove_tombstone(batch);
            }
            // Two changes of one key in the target itself both stay for watchers.
            let may_go = stamp.revision < target;
            if is_found && may_go {
                batch.delete(Table::Version, row.clone());
            } else if !is_found && stamp.revision <= target {
                self.found = Some(key);
                if may_go {
                    let record: Record = layout::decode(Table::Version, &row, sealed)?;
                    self.tombstone = matches!(record, Record::Tombstone { .. }).then(|| row.clone());
                }
            }
            rows_left -= 1;
            if rows_left == 0 {
                self.after = Some(row);
                return Ok(());
            }
        }
        self.remove_tombstone(batch);
        self.is_over = true;
        Ok(())
    }

    fn remove_tombstone(&mut self, batch: &mut Batch) {
        if let Some(row) = self.tombstone.take() {
            batch.delete(Table::Version, row);
        }
    }
}
