//! The whole state of a partition, sent to a replica that fell behind the log.
//!
//! A [`SnapshotSource`] is a view of one moment; it hands out its rows in chunks, each asked for by the
//! [`Cursor`] that the one before ended with, so that a transfer can be slowed, interrupted and resumed while the group
//! works on. It holds the state rows of the group, and of the keyspace's versions and changes those in the partition's slots. The
//! others stand between them and are stepped over, so many in a chunk: a chunk may be empty and only move the cursor. Rows travel as they are stored, with their seals: the source verifies them before
//! sending, the receiver again before writing, so that a bad row neither leaves a node nor enters one. A
//! checksum chained over all rows sent is part of the cursor; the receiver computes its own, so that no row can be
//! missing, doubled or out of place.
//!
//! An [`Installer`] first marks the group, durably, then removes the old rows (in the slots that it is told: others may have come
//! to belong to other partitions of this node since), writes the new ones, and
//! takes the mark away when everything is there and flushed ([`Installer::make_durable`]). A crash in between leaves the mark, and the group is opened
//! as [`crate::Opened::Incomplete`]. To remove rows is a pass over those of all partitions, so it is done in steps
//! ([`Installer::clear_some`]), which need not be taken where the installer was made; nor need rows be written and made durable there.

mod source;

pub use source::{Bounds, Reading, Section, SnapshotSource, View};

use crate::limits::Limits;
use crate::partition::Partition;
use crate::publication::Publication;
use crate::reader::Reader;
use crate::state::{self, Head};
use quorate_mvcc::engine::{Batch, Engine, Table};
use quorate_mvcc::{Compactor, layout};
use quorate_types::{Bytes, Fault, GroupId, Malformed, Position, SlotSet, crash_point, wire_struct};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Rows that are looked at in one step where nobody waits.
const CLEAR_ROWS: usize = 1_000;

/// How far a transfer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the last row looked at.
    pub table: Table,
    /// Its key, without the prefix of the keyspace or group.
    pub key: Bytes,
    /// Over all rows sent up to and including it.
    pub checksum: u64,
}

wire_struct!(Cursor { table, key, checksum });

/// One row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Where it belongs.
    pub table: Table,
    /// Its key, without the prefix of the keyspace or group.
    pub key: Bytes,
    /// Its value, with the seal.
    pub value: Bytes,
}

wire_struct!(ChunkRow { table, key, value });

impl ChunkRow {
    /// About how many it takes.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + 16
    }
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// In order. There may be none, because none of those looked at belongs to the partition.
    pub rows: Vec<ChunkRow>,
    /// Where the next chunk goes on; behind the last row, and behind where this one began unless it is the last.
    pub cursor: Cursor,
    /// There is no next.
    pub last: bool,
}

wire_struct!(Chunk { rows, cursor, last });

impl Chunk {
    /// About how many its rows take.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(ChunkRow::bytes).sum()
    }
}

/// Whether a row of Version or Change is in these slots.
fn is_within(slots: &SlotSet, table: Table, row: &Bytes, opened: &Bytes) -> Result<bool, Fault> {
    if slots.is_all() {
        return Ok(true);
    }
    let slot = layout::slot(table, opened).map_err(|cause| layout::damaged(table, row, cause))?;
    Ok(slots.contains(slot))
}

fn chained(before: u64, row: &ChunkRow) -> u64 {
    let mut lengths = [0; 9];
    lengths[0] = row.table as u8;
    lengths[1..].copy_from_slice(&(row.key.len() as u64).to_be_bytes());
    let hash = XxHash3_64::oneshot_with_seed(before, &lengths);
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot_with_seed(hash, &row.key), &row.value)
}

/// Why a snapshot could not be installed.
#[derive(Clone, Debug)]
pub enum InstallError {
    /// What came is not what the source has; nothing of the offending chunk was written. Another snapshot
    /// must be fetched.
    Mismatch(&'static str),
    /// Our store failed.
    Fault(Fault),
}

impl From<Fault> for InstallError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch(what) => write!(f, "the snapshot does not match its source: {what}"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for InstallError {}

/// A snapshot being installed.
#[derive(Debug)]
pub struct Installer<E> {
    engine: E,
    group: GroupId,
    limits: Limits,
    publication: Publication,
    /// What is left to remove before anything can come.
    clearing: Option<Clearing>,
    /// How far the snapshot came, with our own checksum; what the next chunk is asked for with.
    cursor: Option<Cursor>,
    is_last_seen: bool,
    /// What came is durable as the group's state.
    is_durable: bool,
}

/// How far old rows are removed.
#[derive(Debug)]
struct Clearing {
    /// Whose versions and changes go.
    slots: SlotSet,
    /// Whether the mark is durable.
    is_marked: bool,
    /// The last row looked at.
    after: Option<(Table, Bytes)>,
}

impl<E: Engine> Partition<E> {
    /// Gives up this state for one that comes as a snapshot. Readers of the keyspace answer "unavailable" until it is there, and then
    /// read it. For `slots_to_clear` see [`Installer::begin`].
    pub fn into_installer(self, slots_to_clear: &SlotSet) -> Result<Installer<E>, Fault> {
        self.publication.published.begin_replacing();
        Installer::start(self.engine, self.group, slots_to_clear, self.limits, self.publication)
    }
}

impl<E: Engine> Installer<E> {
    /// Begins on a group that has no state worth keeping: [`crate::Opened::Incomplete`]. Marks it; what rows it has are to be removed
    /// by [`Installer::clear_some`]: its state, and the versions and changes in `slots_to_clear`. Those
    /// must not contain any slot whose keys another partition of this node holds, or comes to hold before they are removed.
    pub fn begin(engine: E, group: GroupId, slots_to_clear: &SlotSet, limits: Limits) -> Result<Self, Fault> {
        Self::begin_among(&Publication::by_apply(), engine, group, slots_to_clear, limits)
    }

    /// The same, for one of several partitions of a keyspace, which all publish to the same readers.
    pub fn begin_among(
        publication: &Publication,
        engine: E,
        group: GroupId,
        slots_to_clear: &SlotSet,
        limits: Limits,
    ) -> Result<Self, Fault> {
        publication.published.begin_replacing();
        Self::start(engine, group, slots_to_clear, limits, publication.clone())
    }

    /// Throws away what came so far and begins anew, for another snapshot.
    pub fn restart(self, slots_to_clear: &SlotSet) -> Result<Self, Fault> {
        Self::start(self.engine, self.group, slots_to_clear, self.limits, self.publication)
    }

    fn start(
        engine: E,
        group: GroupId,
        slots_to_clear: &SlotSet,
        limits: Limits,
        publication: Publication,
    ) -> Result<Self, Fault> {
        let mark = layout::state_row(group, state::INSTALLING);
        let mut batch = Batch::default();
        batch.put(Table::State, mark.clone(), layout::seal(Table::State, &mark, Vec::new()));
        // What comes may hold history that is already removed here.
        Compactor::forget(group.keyspace, &mut batch);
        engine.write(batch)?;
        crash_point("snapshot.state_marked");
        let clearing = Clearing { slots: slots_to_clear.clone(), is_marked: false, after: None };
        let (clearing, cursor) = (Some(clearing), None);
        let (is_last_seen, is_durable) = (false, false);
        Ok(Self { engine, group, limits, publication, clearing, cursor, is_last_seen, is_durable })
    }

    /// Removes the old ones of the next `rows_max` rows, whosever they are; returns whether none is left.
    pub fn clear_some(&mut self, rows_max: usize) -> Result<bool, Fault> {
        let Some(clearing) = &mut self.clearing else { return Ok(true) };
        if !clearing.is_marked {
            // Durable before the first row goes, or comes: half of a state must never be opened as one.
            self.engine.flush()?;
            crash_point("snapshot.mark_durable");
            clearing.is_marked = true;
        }
        let (mark, members) =
            (layout::state_row(self.group, state::INSTALLING), state::members_row(self.group));
        let mut batch = Batch::default();
        let mut looked_at = 0;
        for table in Table::ALL {
            // A pass over the rows of all partitions.
            if table != Table::State && clearing.slots.is_empty() {
                continue;
            }
            let (_, end) = layout::rows(table, self.group);
            let range = match &clearing.after {
                Some((last, _)) if table < *last => continue,
                Some((last, row)) if table == *last => (Bound::Excluded(row.clone()), end),
                _ => layout::rows(table, self.group),
            };
            for row in self.engine.scan(table, range) {
                let (row, value) = row?;
                let goes = match table {
                    // Who the members are is known until something newer comes.
                    Table::State => row != mark && row != members,
                    // Nobody else has any: what rotted goes, too.
                    _ if clearing.slots.is_all() => true,
                    _ => {
                        let opened = layout::open(table, &row, value)?;
                        is_within(&clearing.slots, table, &row, &opened)?
                    }
                };
                if goes {
                    batch.delete(table, row.clone());
                }
                looked_at += 1;
                if looked_at >= rows_max {
                    clearing.after = Some((table, row));
                    self.engine.write(batch)?;
                    crash_point("snapshot.rows_removed");
                    return Ok(false);
                }
            }
        }
        if !batch.is_empty() {
            self.engine.write(batch)?;
        }
        crash_point("snapshot.rows_gone");
        self.clearing = None;
        Ok(true)
    }

    /// Removes all of the old rows.
    pub fn clear(&mut self) -> Result<(), Fault> {
        while !self.clear_some(CLEAR_ROWS)? {}
        Ok(())
    }

    /// Whether none of the old rows is left, so that chunks can be added.
    pub fn is_cleared(&self) -> bool {
        self.clearing.is_none()
    }

    /// Whether there may be versions and changes of it: old ones that are left, or new ones.
    pub fn has_rows(&self) -> bool {
        self.cursor.is_some() || self.clearing.as_ref().is_some_and(|clearing| !clearing.slots.is_empty())
    }

    /// Reads the keyspace, once the state is installed.
    pub fn reader(&self) -> Reader<E> {
        self.publication.reader(self.engine.clone(), self.group.keyspace)
    }

    /// There will be no snapshot: the group is not this node's any more, and nothing is left of it here. It must be cleared, and nothing have been
    /// added.
    pub fn abandon(self) -> Result<(), Fault> {
        assert!(
            self.is_cleared() && self.cursor.is_none(),
            "group {} still has rows: {:?}",
            self.group,
            self.cursor
        );
        let mut batch = Batch::default();
        batch.delete(Table::State, state::members_row(self.group));
        // Last: whatever a crash leaves behind is marked.
        batch.delete(Table::State, layout::state_row(self.group, state::INSTALLING));
        crash_point("discard.rows_gone");
        self.engine.write(batch)?;
        crash_point("discard.unmarked");
        self.publication.published.end_replacing();
        Ok(())
    }

    /// What the next chunk is to be asked for with.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Whether the last chunk came.
    pub fn is_complete(&self) -> bool {
        self.is_last_seen
    }

    /// Writes a chunk that was asked for with [`Installer::cursor`].
    pub fn add(&mut self, chunk: Chunk) -> Result<(), InstallError> {
        assert!(self.is_cleared(), "group {} still has old rows: {:?}", self.group, self.clearing);
        if self.is_last_seen {
            return Err(InstallError::Mismatch("a chunk after the last"));
        }
        let before = self.cursor.as_ref().map(|cursor| (cursor.table, &cursor.key));
        let mut place = before;
        let mut checksum = self.cursor.as_ref().map_or(0, |cursor| cursor.checksum);
        let mut batch = Batch::default();
        for row in &chunk.rows {
            if place >= Some((row.table, &row.key)) {
                return Err(InstallError::Mismatch("rows out of order"));
            }
            if row.table == Table::State && row.key == state::INSTALLING {
                return Err(InstallError::Mismatch("a row that no whole state has"));
            }
            // The seal covers the whole row key, so this is a row of this very keyspace, or group.
            let key = layout::with_suffix(row.table, self.group, &row.key);
            layout::unseal(row.table, &key, row.value.clone())
                .and_then(|opened| check_row(row.table, &key, &opened))
                .map_err(|_| InstallError::Mismatch("a row whose checksum does not match"))?;
            checksum = chained(checksum, row);
            place = Some((row.table, &row.key));
            batch.put(row.table, key, row.value.clone());
        }
        let end = Some((chunk.cursor.table, &chunk.cursor.key));
        if end < place || chunk.cursor.checksum != checksum {
            return Err(InstallError::Mismatch("rows that do not give the checksum of the source"));
        }
        if end <= before && !chunk.last {
            return Err(InstallError::Mismatch("a chunk that leads nowhere"));
        }
        self.engine.write(batch)?;
        crash_point("snapshot.chunk_written");
        self.cursor = Some(chunk.cursor);
        self.is_last_seen = chunk.last;
        Ok(())
    }

    /// Whether what came is a whole state, at `position`: the last entry that the snapshot was said to contain.
    fn check(&self, position: Position) -> Result<(), InstallError> {
        if !self.is_last_seen {
            return Err(InstallError::Mismatch("the end, which has not come"));
        }
        if Head::load(&self.engine, self.group)?.position != position {
            return Err(InstallError::Mismatch("a state at another entry than was offered"));
        }
        if state::load_slots(&self.engine, self.group)?.is_none() {
            return Err(InstallError::Mismatch("a state that owns no slots"));
        }
        Ok(())
    }

    /// Makes what came the state of the group, durably, if it is a whole one: from here on a start finds it whole. It waits for the disk,
    /// and for what others of the node have written to the store.
    pub fn make_durable(&mut self, position: Position) -> Result<(), InstallError> {
        self.check(position)?;
        self.engine.flush()?;
        crash_point("snapshot.rows_durable");
        let mut batch = Batch::default();
        batch.delete(Table::State, layout::state_row(self.group, state::INSTALLING));
        self.engine.write(batch)?;
        crash_point("snapshot.unmarked");
        // The log will be cut at the snapshot's position as soon as this is known; then the state must be there.
        self.engine.flush()?;
        crash_point("snapshot.durable");
        self.is_durable = true;
        Ok(())
    }

    /// Opens what was made durable.
    pub fn finish(self) -> Result<Partition<E>, Fault> {
        assert!(self.is_durable, "group {} is not durable: {:?}", self.group, self.cursor);
        let head = Head::load(&self.engine, self.group)?;
        let Self { engine, group, limits, publication, .. } = self;
        let published = Arc::clone(&publication.published);
        let partition = Partition::restore(engine, group, SlotSet::none(), limits, head, publication)?;
        if !partition.slots.is_all() {
            // It may have been the only one when its state was given up.
            partition.publication.together();
        }
        partition.publication.publish(&head);
        published.end_replacing();
        Ok(partition)
    }
}

/// Whether a row is one that a partition could have written.
fn check_row(table: Table, row: &Bytes, opened: &Bytes) -> Result<(), Malformed> {
    match table {
        Table::Version => layout::check_version(row)?,
        Table::Change => layout::split_change(row).map(|_| ())?,
        Table::State => return Ok(()),
    }
    layout::slot(table, opened).map(|_| ())
}
