//! Reading and writing the rows of snapshots, and removing those of replicas that are given up and of forgotten history: so much work that everybody would feel it if
//! the host did it itself.
//!
//! The host says what is to be done ([`crate::Host::errands`]); the shell does it on whatever thread it likes, in any order, and tells the host
//! how it went ([`crate::Host::errand_done`]). Reads have a view of one moment; of each installer one write is under way
//! at most, and the host leaves it alone meanwhile. If it needs the installer back, because the fetch is given up or the group goes, it waits for that
//! write: so nothing is written after others may use the rows.

use crate::pass::{Wanted, Work};
use crate::sources::PassId;
use quorate_mvcc::Compactor;
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::{Chunk, InstallError, Installer, Section, SnapshotSource};
use quorate_types::{Fault, GroupId, KeyspaceId, Position, Revision};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows of forgotten history that one batch removes: nobody writes to the store meanwhile.
const ROWS_PER_BATCH: usize = 128;

/// Something to do beside the host.
pub struct Errand<E: Engine>(Kind<E>);

enum Kind<E: Engine> {
    /// Chunks for followers, one of which asked.
    Read { pass: PassId, work: Work<E> },
    /// A chunk that came of the snapshot at this position; after the last all is made durable.
    Write { group: GroupId, installer: Shared<E>, chunk: Chunk, position: Position },
    /// Old rows to remove; so many are looked at.
    Clear { group: GroupId, installer: Shared<E>, rows_max: usize },
    /// Forgotten history to remove, on the way to this revision; so many rows are looked at.
    Forget {
        keyspace: KeyspaceId,
        engine: E,
        compactor: Lent<Compactor>,
        compacted: Option<Revision>,
        rows_max: usize,
    },
}

/// How an [`Errand`] went.
pub struct Done<E: Engine>(pub(crate) Outcome<E>);

pub(crate) enum Outcome<E: Engine> {
    Read {
        pass: PassId,
        work: Work<E>,
        read: Result<Section, Fault>,
    },
    Written {
        group: GroupId,
        installer: Shared<E>,
        /// Whether that was all, and it is durable; nothing if the installer was taken back before.
        outcome: Option<Result<bool, InstallError>>,
    },
    Cleared {
        group: GroupId,
        installer: Shared<E>,
        /// Whether none is left; nothing if the installer was taken back before.
        outcome: Option<Result<bool, Fault>>,
    },
    Forgotten {
        keyspace: KeyspaceId,
        compactor: Lent<Compactor>,
        /// Whether none is left; nothing if the compactor was taken back before.
        outcome: Option<Result<bool, Fault>>,
    },
}

impl<E: Engine> Errand<E> {
    pub(crate) fn read(pass: PassId, work: Work<E>) -> Self {
        Self(Kind::Read { pass, work })
    }

    pub(crate) fn write(group: GroupId, installer: Shared<E>, chunk: Chunk, position: Position) -> Self {
        Self(Kind::Write { group, installer, chunk, position })
    }

    pub(crate) fn clear(group: GroupId, installer: Shared<E>, rows_max: usize) -> Self {
        Self(Kind::Clear { group, installer, rows_max })
    }

    pub(crate) fn forget(
        keyspace: KeyspaceId,
        engine: E,
        compactor: Lent<Compactor>,
        compacted: Option<Revision>,
        rows_max: usize,
    ) -> Self {
        Self(Kind::Forget { keyspace, engine, compactor, compacted, rows_max })
    }

    /// Whether it writes to the store; the others read.
    pub fn is_write(&self) -> bool {
        matches!(self.0, Kind::Write { .. } | Kind::Clear { .. } | Kind::Forget { .. })
    }

    /// Whether it writes so much that the store had better be synced now and then.
    pub fn is_large_write(&self) -> bool {
        matches!(self.0, Kind::Write { .. } | Kind::Clear { .. })
    }

    /// Does it.
    pub fn run(self) -> Done<E> {
        Done(match self.0 {
            Kind::Read { pass, work } => {
                let read = SnapshotSource::section(
                    &work.wanted.iter().map(Wanted::reading).collect::<Vec<_>>(),
                    work.until.as_ref(),
                    work.bounds,
                );
                Outcome::Read { pass, work, read }
            }
            Kind::Write { group, installer, chunk, position } => {
                let outcome = installer.add(chunk, position);
                Outcome::Written { group, installer, outcome }
            }
            Kind::Clear { group, installer, rows_max } => {
                let outcome = installer.clear_some(rows_max);
                Outcome::Cleared { group, installer, outcome }
            }
            Kind::Forget { keyspace, engine, compactor, compacted, rows_max } => {
                let mut rows_left = rows_max;
                let outcome = loop {
                    let rows = rows_left.min(ROWS_PER_BATCH);
                    let outcome = compactor.with(|compactor| compactor.step(&engine, compacted, rows));
                    rows_left -= rows;
                    if rows_left == 0 || !matches!(outcome, Some(Ok(false))) {
                        break outcome;
                    }
                };
                Outcome::Forgotten { keyspace, compactor, outcome }
            }
        })
    }
}

/// Something that is with the host and with an errand. It is somebody's until the host takes it back.
#[derive(Debug)]
pub(crate) struct Lent<T>(Arc<Mutex<Option<T>>>);

/// What takes in a snapshot, or clears what was before it.
pub(crate) type Shared<E> = Lent<Installer<E>>;

impl<T> Clone for Lent<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Lent<T> {
    pub(crate) fn new(lent: T) -> Self {
        Self(Arc::new(Mutex::new(Some(lent))))
    }

    /// Whether both are the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Does something with it, if the host has not taken it back.
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
    }

    /// Takes it back, when the work under way has ended.
    pub(crate) fn take(&self) -> T {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.take().expect("whoever has it takes it back once, and ends with that")
    }
}

impl<E: Engine> Shared<E> {
    /// Writes a chunk, if the host has not taken the installer back; returns whether it was the last; then all that came is durable.
    fn add(&self, chunk: Chunk, position: Position) -> Option<Result<bool, InstallError>> {
        self.with(|installer| {
            installer.add(chunk)?;
            let is_complete = installer.is_complete();
            if is_complete {
                installer.make_durable(position)?;
            }
            Ok(is_complete)
        })
    }

    /// Removes some old rows, if the host has not taken the installer back; returns whether none is left.
    fn clear_some(&self, rows_max: usize) -> Option<Result<bool, Fault>> {
        self.with(|installer| installer.clear_some(rows_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_mvcc::engine::Table;
    use quorate_partition::Limits;
    use quorate_partition::snapshot::Cursor;
    use quorate_storage::memory::MemoryEngine;
    use quorate_types::{Bytes, SlotSet};

    /// Leads on, and has nothing.
    fn chunk(key: &'static str) -> Chunk {
        let cursor = Cursor { table: Table::Version, key: Bytes::from(key), checksum: 0 };
        Chunk { rows: Vec::new(), cursor, last: false }
    }

    #[test]
    fn a_write_that_comes_when_its_fetch_was_given_up_does_nothing() {
        let (engine, group) = (MemoryEngine::default(), GroupId::FIRST);
        let installer = Installer::begin(engine, group, &SlotSet::none(), Limits::default()).unwrap();
        let shared = Shared::new(installer);
        let Done(Outcome::Cleared { outcome, .. }) = Errand::clear(group, shared.clone(), 10).run() else {
            panic!("rows were cleared")
        };
        assert!(outcome.unwrap().unwrap());
        let written = |key| {
            let Done(outcome) = Errand::write(group, shared.clone(), chunk(key), Position::default()).run();
            let Outcome::Written { installer, outcome, .. } = outcome else { panic!("a write was run") };
            assert!(installer.is(&shared));
            outcome.map(Result::unwrap)
        };
        assert_eq!(written("a"), Some(false));
        let installer = shared.take();
        assert_eq!(written("b"), None);
        assert_eq!(installer.cursor(), Some(&chunk("a").cursor));
    }
}
