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
//! no change row any more; the next change of the key finds it as the older version. When they turn out to be many beside what is stored, all versions are read through in order
//! ([`sweep`]), and the rest of the walk removes changes alone. A step removes
//! rows and records how far it came in one batch: after a crash the pass goes on from there, and
//! a step done twice removes nothing twice. How far reading through came is not recorded: it begins anew.
//!
//! All partitions that a node has of a keyspace share one feed, so they share one pass over it, as far as all of them have
//! compacted. What is finished is true of the rows that were there: whoever adds older ones (a snapshot that takes a
//! partition's place) has to begin again from the start ([`Compactor::forget`]).

mod sweep;

use crate::engine::{Batch, Engine, Table};
use crate::layout::{self, ChangeKind};
use quorate_types::{
    Bytes, Fault, GroupId, Key, KeyspaceId, Revision, Stamp, crash_point, reached, wire_struct,
};
use std::collections::BTreeMap;
use std::ops::Bound;
use sweep::Sweep;

/// Rows that are read in order in the time that the older versions of a changed key take, some thirty, and as many that are changes. When so much was spent on keys one by one as
/// reading everything takes, everything is read: together that is twice the least, however many more there are.
pub const SWEEP_PART: u64 = 64;

/// Name of the state row that records how far compaction came.
const STATE_NAME: &[u8] = b"compaction";

/// Removes the forgotten history of a keyspace from a node's store, step by step. It has one owner.
#[derive(Clone, Debug)]
pub struct Compactor {
    keyspace: KeyspaceId,
    progress: Progress,
    /// What the pass under way reads through, if it does.
    sweep: Option<Sweep>,
    sweep_part: u64,
    /// How many changes it has looked for the older versions of.
    walked: u64,
}

/// How far physical compaction came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// The newest revision a pass was finished for: history before it is gone from the store.
    finished: Option<Revision>,
    /// The pass under way.
    pass: Option<Pass>,
}

/// A pass under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pass {
    /// What it compacts to.
    target: Revision,
    /// The last change it looked at.
    after: Option<Stamp>,
}

wire_struct!(Progress { finished, pass });
wire_struct!(Pass { target, after });

impl Compactor {
    /// Goes on from where the store says that it is.
    pub fn open<E: Engine>(engine: &E, keyspace: KeyspaceId) -> Result<Self, Fault> {
        let row = Self::row(keyspace);
        let progress = match engine.get(Table::State, &row)? {
            Some(sealed) => layout::decode(Table::State, &row, sealed)?,
            None => Progress::default(),
        };
        Ok(Self { keyspace, progress, sweep: None, sweep_part: SWEEP_PART, walked: 0 })
    }

    /// The same with another bound: all versions are read through when the store has fewer rows than so many times the changes that were met; 0 is never.
    #[must_use]
    pub fn with_sweep_part(self, sweep_part: u64) -> Self {
        Self { sweep_part, ..self }
    }

    /// Has the next one that is opened begin from the start, as part of a batch: there may be rows again that were removed.
    pub fn forget(keyspace: KeyspaceId, batch: &mut Batch) {
        batch.delete(Table::State, Self::row(keyspace));
    }

    /// Everything before this revision is gone from the store.
    pub fn finished(&self) -> Option<Revision> {
        self.progress.finished
    }

    /// Whether there is anything to do to have everything before `compacted` removed.
    pub fn is_pending(&self, compacted: Option<Revision>) -> bool {
        self.progress.pass.is_some() || self.progress.finished != compacted
    }

    /// Looks at up to `rows_max` rows (at least one change) on the way to `compacted`, removes what may go,
    /// and records it. `compacted` is the least that the node's partitions of the keyspace have compacted to. A pass that was
    /// begun for an older revision is finished first. True when nothing is left to do.
    pub fn step<E: Engine>(
        &mut self,
        engine: &E,
        compacted: Option<Revision>,
        rows_max: usize,
    ) -> Result<bool, Fault> {
        if !self.is_pending(compacted) {
            return Ok(true);
        }
        let Self { keyspace, progress, sweep, sweep_part, walked } = self;
        let keyspace = *keyspace;
        if progress.finished > compacted || progress.pass.is_some_and(|pass| Some(pass.target) > compacted) {
            // A partition came to this node that has compacted less than the others had. It may still write rows as old
            // as that, which a pass that begins where the last one ended would never meet.
            *progress = Progress { finished: progress.finished.min(compacted), pass: None };
            (*sweep, *walked) = (None, 0);
            self.record(engine, Batch::default())?;
            return Ok(!self.is_pending(compacted));
        }
        let pass = match progress.pass {
            Some(pass) => pass,
            None => Pass { target: compacted.unwrap_or_default(), after: None },
        };
        let mut batch = Batch::default();
        let spent = walked.saturating_mul(*sweep_part);
        if sweep.is_none() && spent > 0 && spent > engine.row_count() {
            *sweep = Some(Sweep::default());
        }
        if let Some(sweep) = sweep
            && !sweep.is_over
        {
            reached!("history-read-through");
            sweep.step(engine, keyspace, pass.target, rows_max, &mut batch)?;
            progress.pass = Some(pass);
            self.record(engine, batch)?;
            crash_point("compaction.read_through");
            return Ok(false);
        }
        let from = match pass.after {
            Some(stamp) => Bound::Excluded(layout::change_row(keyspace, stamp)),
            // Changes before the last finished pass are gone; starting behind them spares walking over
            // the holes they left.
            None => Bound::Included(layout::change_row(
                keyspace,
                Stamp { revision: progress.finished.unwrap_or_default(), sub: 0 },
            )),
        };
        let (_, end) = layout::change_rows(keyspace, pass.target);
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
                progress.pass = Some(Pass { target: pass.target, after: reached });
                self.record(engine, batch)?;
                crash_point("compaction.step_done");
                return Ok(false);
            }
            let value = layout::open(Table::Change, &row, sealed)?;
            let (kind, _, key) = layout::split_change_value(&value).map_err(damaged)?;
            // Where everything was read through they are gone already.
            if sweep.is_none() {
                reached!("history-by-change");
                *walked += 1;
                let seen = newest.insert(key.clone(), stamp);
                for version in engine.scan(Table::Version, layout::version_rows_before(keyspace, &key, stamp))
                {
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
            }
            if stamp.revision < pass.target {
                if kind == ChangeKind::Delete && sweep.is_none() {
                    batch.delete(Table::Version, layout::version_row(keyspace, &key, stamp));
                }
                batch.delete(Table::Change, row);
            }
            looked_at += 1;
            reached = Some(stamp);
        }
        *progress = Progress { finished: Some(pass.target), pass: None };
        (*sweep, *walked) = (None, 0);
        crash_point("compaction.pass_batched");
        self.record(engine, batch)?;
        crash_point("compaction.pass_done");
        Ok(!self.is_pending(compacted))
    }

    fn record<E: Engine>(&self, engine: &E, mut batch: Batch) -> Result<(), Fault> {
        let row = Self::row(self.keyspace);
        let value = layout::encode(Table::State, &row, &self.progress);
        batch.put(Table::State, row, value);
        engine.write(batch)
    }

    fn row(keyspace: KeyspaceId) -> Bytes {
        layout::state_row(GroupId { keyspace, partition: layout::EVERY_PARTITION }, STATE_NAME)
    }
}
