//! The store in memory behind a front, in tests and simulation: what is loaded is flushed.

use super::{Base, Loaded, View};
use crate::memory::{MemoryEngine, MemorySnapshot};
use quorate_mvcc::engine::{Batch, Engine, Read, RowRange, Rows, Table};
use quorate_types::{Bytes, Fault};

impl Base for MemoryEngine {
    type View = MemorySnapshot;

    fn view(&self) -> MemorySnapshot {
        self.snapshot()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Read::get(self, table, key)
    }

    fn load(&self, changes: &mut dyn Iterator<Item = Loaded<'_>>) -> Result<(), Fault> {
        let changes = changes.map(|(table, key, value)| (table, Bytes::copy_from_slice(key), value.cloned()));
        self.write(Batch { changes: changes.collect() })?;
        self.flush()
    }

    fn disk_bytes(&self) -> u64 {
        Engine::disk_bytes(self)
    }

    fn row_count(&self) -> u64 {
        Engine::row_count(self)
    }
}

impl View for MemorySnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Read::get(self, table, key)
    }

    fn rows(&self, table: Table, range: RowRange, is_back: bool) -> Rows<'static> {
        self.owned(table, range, is_back)
    }
}
