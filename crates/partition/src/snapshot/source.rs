//! Reading snapshots: the rows of groups as of one moment, in chunks.
//!
//! The rows of a keyspace's partitions stand in one order, and whose a row is its value tells: so whoever reads the rows of one group
//! looks at those of all. A [`View`] is the store of one moment, and the [`SnapshotSource`] of each group in it has its own head and slots. Groups that
//! have come to the same row of one view are read for together ([`SnapshotSource::section`]): each is given just the rows that it would have been given alone.
//!
//! The rows of State are one group's, and are read for it alone.

use super::{Chunk, ChunkRow, Cursor, chained};
use crate::partition::Partition;
use crate::state::{self, Head};
use quorate_mvcc::engine::{Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_types::{Bytes, Fault, GroupId, KeyspaceId, Position, Revision, SlotSet};
use std::sync::Arc;

/// Rows that a section looks at, whosever they are, so that nobody waits long for one.
const SECTION_ROWS_MAX: usize = 20_000;

/// The store of one moment, for as long as this lives.
pub struct View<E: Engine> {
    snapshot: E::Snapshot,
    keyspace: KeyspaceId,
}

/// The state of a group as of one moment, for as long as this lives.
pub struct SnapshotSource<E: Engine> {
    view: Arc<View<E>>,
    group: GroupId,
    slots: Arc<SlotSet>,
    head: Head,
}

impl<E: Engine> Partition<E> {
    /// A snapshot of the applied state. It holds the rows of its moment in the store while it lives.
    pub fn snapshot(&self) -> SnapshotSource<E> {
        let view = View { snapshot: self.engine.snapshot(), keyspace: self.group.keyspace };
        let (group, slots) = (self.group, Arc::clone(&self.slots));
        SnapshotSource { view: Arc::new(view), group, slots, head: self.head }
    }

    /// The snapshot that a view has of the state, which may be older than what is applied. Nothing if it has none, or one from before the group was split: that
    /// must not be given to anybody, who would split it once more.
    pub fn snapshot_in(&self, view: &Arc<View<E>>) -> Result<Option<SnapshotSource<E>>, Fault> {
        let (group, read) = (self.group, &view.snapshot);
        assert_eq!(group.keyspace, view.keyspace, "the view is another keyspace's");
        let is_whole = read.get(Table::State, &layout::state_row(group, state::INSTALLING))?.is_none();
        if !is_whole || state::load_slots(read, group)?.as_ref() != Some(&*self.slots) {
            return Ok(None);
        }
        let (slots, head) = (Arc::clone(&self.slots), Head::load(read, group)?);
        Ok(Some(SnapshotSource { view: Arc::clone(view), group, slots, head }))
    }
}

/// One that a section is read for.
pub struct Reading<'a, E: Engine> {
    /// Its snapshot.
    pub source: &'a SnapshotSource<E>,
    /// How far it has come.
    pub after: Option<Cursor>,
    /// What it has already of the chunk that the first one read now is to be appended to.
    pub bytes: usize,
}

/// Where a section ends: not before one row was looked at, and then when any of these is reached.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A chunk is full when it has so many bytes. The first of those that are read for gets no more than one.
    pub chunk_bytes: usize,
    /// What all others are given.
    pub others_bytes: usize,
    /// Rows looked at.
    pub rows: usize,
}

impl Bounds {
    /// Full chunks of so many bytes, and otherwise what is usual.
    pub fn new(chunk_bytes: usize, others_bytes: usize) -> Self {
        Self { chunk_bytes, others_bytes, rows: SECTION_ROWS_MAX }
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct Section {
    /// For each of those that it was read for, in their order: contiguous, all but its last full, or none where what was left is the first one's alone.
    pub chunks: Vec<Vec<Chunk>>,
    /// What was looked at.
    pub bytes: usize,
}

impl<E: Engine> SnapshotSource<E> {
    /// Whose it is.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// What it was taken from.
    pub fn view(&self) -> &Arc<View<E>> {
        &self.view
    }

    /// The last entry in it.
    pub fn position(&self) -> Position {
        self.head.position
    }

    /// Its newest revision.
    pub fn revision(&self) -> Revision {
        self.head.revision
    }

    /// The digest of everything applied to it.
    pub fn digest(&self) -> u64 {
        self.head.digest
    }

    /// The rows after `after`, no more once they take `bytes_max` or once enough were looked at.
    ///
    /// # Errors
    /// As of [`Self::section`].
    pub fn chunk(&self, after: Option<Cursor>, bytes_max: usize) -> Result<Chunk, Fault> {
        self.chunk_of(after, bytes_max, SECTION_ROWS_MAX)
    }

    /// The same with another bound on the rows looked at.
    pub fn chunk_of(&self, after: Option<Cursor>, bytes_max: usize, rows_max: usize) -> Result<Chunk, Fault> {
        let bounds = Bounds { chunk_bytes: bytes_max, others_bytes: 0, rows: rows_max };
        let section = Self::section(&[Reading { source: self, after, bytes: 0 }], None, bounds)?;
        let only = section.chunks.into_iter().flatten().next();
        Ok(only.expect("the one that is read for is given one"))
    }

    /// Reads on for those that have come to the same row of the same view, up to the row of `until` if that is given. Where they
    /// are comes from a peer and may be anything; what does not belong to a snapshot ends in a checksum that does not match.
    ///
    /// # Errors
    /// A row whose seal does not match is a fault: this replica has nothing to send.
    pub fn section(
        readings: &[Reading<'_, E>],
        until: Option<&Cursor>,
        bounds: Bounds,
    ) -> Result<Section, Fault> {
        let Some(first) = readings.first() else { return Ok(Section::default()) };
        let (view, group) = (&first.source.view, first.source.group);
        for reading in readings {
            let is_here = Arc::ptr_eq(view, &reading.source.view)
                && place(reading.after.as_ref()) == place(first.after.as_ref());
            assert!(is_here, "{} is elsewhere than {group}", reading.source.group);
        }
        let mut takers: Vec<Taker> = readings.iter().map(Taker::new).collect();
        let mut at = first.after.as_ref().map(|cursor| (cursor.table, cursor.key.clone()));
        let is_there = |at: Option<&(Table, Bytes)>| until.is_some() && place(until) <= place_of(at);
        let (mut bytes, mut looked_at, mut is_last) = (0, 0, true);
        'tables: for table in Table::ALL {
            let range = match &at {
                Some((before, _)) if table < *before => continue,
                Some((before, key)) if table == *before => layout::rows_after(table, group, key),
                _ => layout::rows(table, group),
            };
            if table == Table::State && takers.len() > 1 {
                if looked_at > 0 {
                    is_last = false;
                    break 'tables;
                }
                // What follows is the first one's alone.
                takers.truncate(1);
            }
            for row in view.snapshot.scan(table, range) {
                let (row, value) = row?;
                let others: usize = takers.iter().skip(1).map(|taker| taker.taken).sum();
                let is_over = takers[0].is_full(bounds.chunk_bytes)
                    || (takers.len() > 1 && others >= bounds.others_bytes)
                    || looked_at >= bounds.rows
                    || is_there(at.as_ref());
                if is_over && looked_at > 0 {
                    is_last = false;
                    break 'tables;
                }
                for taker in takers.iter_mut().skip(1) {
                    if taker.is_full(bounds.chunk_bytes) {
                        taker.end_chunk(at.clone());
                    }
                }
                looked_at += 1;
                bytes += row.len() + value.len();
                let opened = layout::open(table, &row, value.clone())?;
                let whose = whose(readings, table, &row, &opened)?;
                let key = row.slice(layout::prefix_bytes(table)..);
                if let Some(whose) = whose {
                    takers[whose].take(ChunkRow { table, key: key.clone(), value });
                }
                at = Some((table, key));
            }
        }
        let mut chunks: Vec<Vec<Chunk>> = takers.into_iter().map(|taker| taker.end(at.clone())).collect();
        chunks.resize_with(readings.len(), Vec::new);
        if let Some(last) = chunks[0].last_mut() {
            last.last = is_last;
        }
        Ok(Section { chunks, bytes })
    }
}

/// Which of them a row belongs to.
fn whose<E: Engine>(
    readings: &[Reading<'_, E>],
    table: Table,
    row: &Bytes,
    opened: &Bytes,
) -> Result<Option<usize>, Fault> {
    let is_of_all = readings.len() == 1 && readings[0].source.slots.is_all();
    if table == Table::State || is_of_all {
        return Ok(Some(0));
    }
    let slot = layout::slot(table, opened).map_err(|cause| layout::damaged(table, row, cause))?;
    Ok(readings.iter().position(|reading| reading.source.slots.contains(slot)))
}

fn place(cursor: Option<&Cursor>) -> Option<(Table, &Bytes)> {
    cursor.map(|cursor| (cursor.table, &cursor.key))
}

fn place_of(at: Option<&(Table, Bytes)>) -> Option<(Table, &Bytes)> {
    at.map(|(table, key)| (*table, key))
}

/// What one of them is given.
struct Taker {
    checksum: u64,
    chunks: Vec<Chunk>,
    rows: Vec<ChunkRow>,
    /// Of the chunk that is being filled, with what there was of it.
    bytes: usize,
    /// Of all.
    taken: usize,
}

impl Taker {
    fn new<E: Engine>(reading: &Reading<'_, E>) -> Self {
        let checksum = reading.after.as_ref().map_or(0, |cursor| cursor.checksum);
        Self { checksum, chunks: Vec::new(), rows: Vec::new(), bytes: reading.bytes, taken: 0 }
    }

    fn is_full(&self, chunk_bytes: usize) -> bool {
        self.bytes >= chunk_bytes && !self.rows.is_empty()
    }

    fn take(&mut self, row: ChunkRow) {
        self.checksum = chained(self.checksum, &row);
        self.bytes += row.bytes();
        self.taken += row.bytes();
        self.rows.push(row);
    }

    fn end_chunk(&mut self, at: Option<(Table, Bytes)>) {
        // A group that nothing was applied to has no rows, but then no follower can lack anything of it.
        let (table, key) = at.unwrap_or((Table::State, Bytes::new()));
        let cursor = Cursor { table, key, checksum: self.checksum };
        self.chunks.push(Chunk { rows: std::mem::take(&mut self.rows), cursor, last: false });
        self.bytes = 0;
    }

    fn end(mut self, at: Option<(Table, Bytes)>) -> Vec<Chunk> {
        self.end_chunk(at);
        self.chunks
    }
}
