//! The whole state of a partition, sent to a replica that fell behind the log.
//!
//! A [`SnapshotSource`] is a view of one moment; it hands out its rows in chunks, each asked for by the
//! [`Cursor`] that the one before ended with, so that a transfer can be slowed, interrupted and resumed while the group
//! works on. Rows travel as they are stored, with their seals: the source verifies them before
//! sending, the receiver again before writing, so that a bad row neither leaves a node nor enters one. A
//! checksum chained over all rows is part of the cursor; the receiver computes its own, so that no row can be
//! missing, doubled or out of place.
//!
//! An [`Installer`] first marks the group, durably, then removes the old rows, writes the new ones, and
//! takes the mark away when everything is there and flushed. A crash in between leaves the mark, and the group is opened
//! as [`crate::Opened::Incomplete`].

use crate::limits::Limits;
use crate::partition::Partition;
use crate::reader::{Published, Reader};
use crate::state::{self, Head};
use quorate_mvcc::engine::{Batch, Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_types::{Bytes, Fault, GroupId, Position, Revision, wire_struct};
use std::fmt;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Old rows removed in one batch.
const CLEAR_ROWS_MAX: usize = 1_000;

/// How far a transfer came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the last row.
    pub table: Table,
    /// Its key, without the group's prefix.
    pub key: Bytes,
    /// Over all rows up to and including it.
    pub checksum: u64,
}

wire_struct!(Cursor { table, key, checksum });

/// One row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Where it belongs.
    pub table: Table,
    /// Its key, without the group's prefix.
    pub key: Bytes,
    /// Its value, with the seal.
    pub value: Bytes,
}

wire_struct!(ChunkRow { table, key, value });

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// In order; at least one.
    pub rows: Vec<ChunkRow>,
    /// Where the next chunk goes on.
    pub cursor: Cursor,
    /// There is no next.
    pub last: bool,
}

wire_struct!(Chunk { rows, cursor, last });

/// The state of one moment, for as long as this lives.
#[derive(Debug)]
pub struct SnapshotSource<E: Engine> {
    snapshot: E::Snapshot,
    group: GroupId,
    head: Head,
}

impl<E: Engine> Partition<E> {
    /// A snapshot of the applied state. It holds the rows of its moment in the store while it lives.
    pub fn snapshot(&self) -> SnapshotSource<E> {
        SnapshotSource { snapshot: self.engine.snapshot(), group: self.group, head: self.head }
    }
}

impl<E: Engine> SnapshotSource<E> {
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

    /// The rows after `after`, at least one and no more once they take `bytes_max`. `after` comes from a peer and
    /// may be anything; what does not belong to this snapshot ends in a checksum that does not match.
    ///
    /// # Errors
    /// A row whose seal does not match is a fault: this replica has nothing to send.
    pub fn chunk(&self, after: Option<Cursor>, bytes_max: usize) -> Result<Chunk, Fault> {
        let mut rows = Vec::new();
        let mut cursor = after;
        let mut bytes = 0;
        for table in Table::ALL {
            let range = match &cursor {
                Some(cursor) if table < cursor.table => continue,
                Some(cursor) if table == cursor.table => layout::group_rows_after(self.group, &cursor.key),
                _ => layout::group_rows(self.group),
            };
            for row in self.snapshot.scan(table, range) {
                let (row, value) = row?;
                if bytes >= bytes_max && !rows.is_empty() {
                    let cursor = cursor.expect("a chunk with rows has the cursor of the last");
                    return Ok(Chunk { rows, cursor, last: false });
                }
                layout::open(table, &row, value.clone())?;
                let row = ChunkRow { table, key: row.slice(layout::PREFIX_BYTES..), value };
                bytes += row.key.len() + row.value.len() + 16;
                let checksum = chained(cursor.as_ref().map_or(0, |cursor| cursor.checksum), &row);
                cursor = Some(Cursor { table, key: row.key.clone(), checksum });
                rows.push(row);
            }
        }
        // A group that nothing was applied to has no rows, but then no follower can lack anything of it.
        let cursor = cursor.unwrap_or(Cursor { table: Table::State, key: Bytes::new(), checksum: 0 });
        Ok(Chunk { rows, cursor, last: true })
    }
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
    published: Arc<Published>,
    /// The last row written, with our own checksum; what the next chunk is asked for with.
    cursor: Option<Cursor>,
    is_last_seen: bool,
}

impl<E: Engine> Partition<E> {
    /// Gives up this state for one that comes as a snapshot. Readers of this partition answer "unavailable" until it is there, and then
    /// read it.
    pub fn into_installer(self) -> Result<Installer<E>, Fault> {
        Installer::start(self.engine, self.group, self.limits, self.published)
    }
}

impl<E: Engine> Installer<E> {
    /// Begins on a group that has no state worth keeping: [`crate::Opened::Incomplete`]. Marks it durably and removes
    /// what rows it has, in bounded batches.
    pub fn begin(engine: E, group: GroupId, limits: Limits) -> Result<Self, Fault> {
        Self::start(engine, group, limits, Arc::new(Published::unavailable()))
    }

    /// Throws away what came so far and begins anew, for another snapshot.
    pub fn restart(self) -> Result<Self, Fault> {
        Self::start(self.engine, self.group, self.limits, self.published)
    }

    fn start(engine: E, group: GroupId, limits: Limits, published: Arc<Published>) -> Result<Self, Fault> {
        published.set_unavailable();
        let mark = layout::state_row(group, state::INSTALLING);
        let mut batch = Batch::default();
        batch.put(Table::State, mark.clone(), layout::seal(Table::State, &mark, Vec::new()));
        engine.write(batch)?;
        // Durable before the first row goes: half of a state must never be opened as one.
        engine.flush()?;
        for table in Table::ALL {
            loop {
                let mut batch = Batch::default();
                for row in engine.scan(table, layout::group_rows(group)).take(CLEAR_ROWS_MAX) {
                    let (row, _) = row?;
                    if row != mark {
                        batch.delete(table, row);
                    }
                }
                if batch.is_empty() {
                    break;
                }
                engine.write(batch)?;
            }
        }
        Ok(Self { engine, group, limits, published, cursor: None, is_last_seen: false })
    }

    /// Reads the state, once it is installed.
    pub fn reader(&self) -> Reader<E> {
        Reader { engine: self.engine.clone(), group: self.group, published: Arc::clone(&self.published) }
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
        if self.is_last_seen {
            return Err(InstallError::Mismatch("a chunk after the last"));
        }
        let mut cursor = self.cursor.clone();
        let mut batch = Batch::default();
        for row in &chunk.rows {
            let place = (row.table, &row.key);
            if cursor.as_ref().is_some_and(|cursor| place <= (cursor.table, &cursor.key)) {
                return Err(InstallError::Mismatch("rows out of order"));
            }
            if row.table == Table::State && row.key == state::INSTALLING {
                return Err(InstallError::Mismatch("a row that no whole state has"));
            }
            let key = layout::with_suffix(self.group, &row.key);
            layout::unseal(row.table, &key, row.value.clone())
                .map_err(|_| InstallError::Mismatch("a row whose checksum does not match"))?;
            let checksum = chained(cursor.as_ref().map_or(0, |cursor| cursor.checksum), row);
            cursor = Some(Cursor { table: row.table, key: row.key.clone(), checksum });
            batch.put(row.table, key, row.value.clone());
        }
        if cursor.as_ref() != Some(&chunk.cursor) {
            return Err(InstallError::Mismatch("rows that do not give the checksum of the source"));
        }
        self.engine.write(batch)?;
        self.cursor = cursor;
        self.is_last_seen = chunk.last;
        Ok(())
    }

    /// Makes what came the state of the group, durably. `position` is the last entry that the snapshot was
    /// said to contain.
    pub fn finish(self, position: Position) -> Result<Partition<E>, InstallError> {
        if !self.is_last_seen {
            return Err(InstallError::Mismatch("the end, which has not come"));
        }
        let head = Head::load(&self.engine, self.group)?;
        if head.position != position {
            return Err(InstallError::Mismatch("a state at another entry than was offered"));
        }
        self.engine.flush()?;
        let mut batch = Batch::default();
        batch.delete(Table::State, layout::state_row(self.group, state::INSTALLING));
        self.engine.write(batch)?;
        // The log will be cut at `position` as soon as this returns; then the state must be there.
        self.engine.flush()?;
        let partition =
            Partition::restore(self.engine, self.group, self.limits, head, Arc::clone(&self.published))?;
        self.published.publish(&head);
        self.published.set_available();
        Ok(partition)
    }
}
