//! The seam to the ordered store: what the key space needs of it, and nothing more.

use quorate_types::{Bytes, Fault};
use std::ops::Bound;

/// The three ordered tables a node's store keeps. Rows of all keyspaces share them, told apart by the
/// prefix of their keys (see [`crate::layout`]): hundreds of groups do not need hundreds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// (keyspace, key, newest stamp first) → record.
    Version,
    /// (keyspace, stamp) → which key changed: the change feed that watches catch up from.
    Change,
    /// (group, name) → small facts: applied index, revision, compaction, leases.
    State,
}

quorate_types::wire_enum!(Table { 0 => Version, 1 => Change, 2 => State });

impl Table {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Version, Self::Change, Self::State];
}

/// The longest key of a row that may be written: an engine need not take longer ones. Reading one that is longer
/// finds nothing, and it may bound a range. Two bytes can say how long it is, also with the number of its table before it.
pub const ROW_KEY_BYTES_MAX: usize = u16::MAX as usize - 1;

/// One row.
pub type Row = (Bytes, Bytes);

/// Rows in order. Ends after the first error.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<Row, Fault>> + 'a>;

/// A range of row keys.
pub type RowRange = (Bound<Bytes>, Bound<Bytes>);

/// Reading rows. Every row's checksum is verified by the store; one that does not match is a fault.
pub trait Read {
    /// The row of exactly this key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// The rows of a range, ascending. They are those of one moment, that of the call.
    fn scan(&self, table: Table, range: RowRange) -> Rows<'_>;

    /// The same, descending.
    fn scan_back(&self, table: Table, range: RowRange) -> Rows<'_>;

    /// The first row of a range.
    fn first(&self, table: Table, range: RowRange) -> Result<Option<Row>, Fault> {
        self.scan(table, range).next().transpose()
    }
}

/// A row, and what it is set to; `None` removes it.
pub type Change = (Table, Bytes, Option<Bytes>);

/// Changes that become visible, and survive a crash, all or none.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In order; a later change of a row wins.
    pub changes: Vec<Change>,
}

impl Batch {
    /// Sets a row.
    pub fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.changes.push((table, key.into(), Some(value.into())));
    }

    /// Removes a row, if it is there.
    pub fn delete(&mut self, table: Table, key: impl Into<Bytes>) {
        self.changes.push((table, key.into(), None));
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// The ordered store of a node. A handle: clones are the same store, usable from any thread.
pub trait Engine: Read + Clone + Send + Sync + 'static {
    /// A view of one moment, kept for as long as it lives.
    type Snapshot: Read + Send + Sync + 'static;

    /// The rows as they are now.
    fn snapshot(&self) -> Self::Snapshot;

    /// Makes the changes visible. A crash may lose them until [`Engine::flush`] returns, but only whole
    /// batches, and only the latest ones. After a fault nothing more may be written.
    fn write(&self, batch: Batch) -> Result<(), Fault>;

    /// Makes durable all that was written before.
    fn flush(&self) -> Result<(), Fault>;

    /// About how many bytes the store takes on disk.
    fn disk_bytes(&self) -> u64;

    /// About how many rows it has, of all tables; what was removed may still count for a while.
    fn row_count(&self) -> u64;
}
