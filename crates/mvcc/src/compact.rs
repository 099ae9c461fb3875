//! Giving back the space of history that may be forgotten.
//!
//! Compacting at C is decided through the log and takes effect at once for readers; this module removes
//! the rows, later and in small steps, at each replica's own pace. What stays:
//!
//! * every version and change row at C or later;
//! * of each key the newest version before C, if it is a value and no version at C replaced it. A tombstone at exactly C
//!   stays (by the first rule), so that a watch from C still sees the delete.
//!
//! So whatever can be asked of revisions from C on has the same answer before, during and after.
//!
//! A pass walks the change feed upward to C. A change at r ≤ C makes the older versions of its key
//! needless, so they go, and it goes itself if it is a delete before C. Each key's survivor of an earlier pass has
//! no change row any more; the next change of the key finds it as the older version. A step removes
//! rows and records how far it came in one batch: after a crash the pass goes on from there, and
//! a step done twice removes nothing twice.

use crate::engine::{Batch, Engine, Table};
use crate::layout::{self, ChangeKind};
use quorate_types::{Fault, GroupId, Key, Revision, Stamp, wire_struct};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Name of the state row that records how far compaction came.
pub const STATE_NAME: &[u8] = b"compaction";

/// How far physical compaction came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The newest revision a pass was finished for: history before it is gone from the store.
    pub finished: Option<Revision>,
    /// The pass under way.
    pub pass: Option<Pass>,
}

/// A pass under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// What it compacts to.
    pub target: Revision,
    /// The last change it looked at.
    pub after: Option<Stamp>,
}

wire_struct!(Progress { finished, pass });
wire_struct!(Pass { target, after });

impl Progress {
    /// As recorded in the store.
    pub fn load<E: Engine>(engine: &E, group: GroupId) -> Result<Self, Fault> {
        let row = layout::state_row(group, STATE_NAME);
        match engine.get(Table::State, &row)? {
            Some(sealed) => layout::decode(Table::State, &row, sealed),
            None => Ok(Self::default()),
        }
    }

    /// Whether there is anything to do to have everything before `compacted` removed.
    pub fn is_pending(&self, compacted: Option<Revision>) -> bool {
        self.pass.is_some() || self.finished < compacted
    }

    /// Looks at up to `rows_max` rows (at least one change) on the way to `compacted`, removes what may go,
    /// and records it. A pass that was begun for an older revision is finished first. True when nothing is
    /// left to do.
    pub fn step<E: Engine>(
        &mut self,
        engine: &E,
        group: GroupId,
        compacted: Option<Revision>,
        rows_max: usize,
    ) -> Result<bool, Fault> {
        if !self.is_pending(compacted) {
            return Ok(true);
        }
        let pass = match self.pass {
            Some(pass) => pass,
            None => Pass { target: compacted.unwrap_or_default(), after: None },
        };
        let from = match pass.after {
            Some(stamp) => Bound::Excluded(layout::change_row(group, stamp)),
            // Changes before the last finished pass are gone; starting behind them spares walking over
            // the holes they left.
            None => Bound::Included(layout::change_row(
                group,
                Stamp { revision: self.finished.unwrap_or_default(), sub: 0 },
            )),
        };
        let (_, end) = layout::group_rows(group);
        let mut batch = Batch::default();
        let mut looked_at = 0;
        let mut reached = None;
        // The newest change of each key seen in this step: what is older than it is already in the batch,
        // which the scans below do not see yet.
        let mut newest: BTreeMap<Key, Stamp> = BTreeMap::new();
        for row in engine.scan(Table::Change, (from, end)) {
            let (row, sealed) = row?;
            let damaged = |cause| layout::damaged(Table::Change, &row, cause);
            let stamp = layout::split_change(&row).map_err(damaged)?;
            if stamp.revision > pass.target {
                break;
            }
            if looked_at >= rows_max && reached.is_some() {
                self.pass = Some(Pass { target: pass.target, after: reached });
                self.record(engine, group, batch)?;
                return Ok(false);
            }
            let value = layout::open(Table::Change, &row, sealed)?;
            let (kind, key) = layout::split_change_value(&value).map_err(damaged)?;
            let seen = newest.insert(key.clone(), stamp);
            for version in engine.scan(Table::Version, layout::version_rows_before(group, &key, stamp)) {
                let (version_row, _) = version?;
                let (_, older) = layout::split_version(&version_row)
                    .map_err(|cause| layout::damaged(Table::Version, &version_row, cause))?;
                looked_at += 1;
                // Two changes of one key in revision C itself both stay for watchers.
                if older.revision < pass.target {
                    batch.delete(Table::Version, version_row);
                }
                if seen.is_some_and(|seen| older <= seen) {
                    break;
                }
            }
            if stamp.revision < pass.target {
                if kind == ChangeKind::Delete {
                    batch.delete(Table::Version, layout::version_row(group, &key, stamp));
                }
                batch.delete(Table::Change, row);
            }
            looked_at += 1;
            reached = Some(stamp);
        }
        self.finished = Some(pass.target);
        self.pass = None;
        self.record(engine, group, batch)?;
        Ok(!self.is_pending(compacted))
    }

    fn record<E: Engine>(&self, engine: &E, group: GroupId, mut batch: Batch) -> Result<(), Fault> {
        let row = layout::state_row(group, STATE_NAME);
        let value = layout::encode(Table::State, &row, self);
        batch.put(Table::State, row, value);
        engine.write(batch)
    }
}
