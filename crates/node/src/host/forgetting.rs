//! The removal of forgotten history from the store, beside the host.
//!
//! A step reads and writes hundreds of rows, of which some may have to come from the disk, and a store that lags behind makes whoever writes wait: everybody would, if the host did it. So a step is an
//! errand ([`crate::errands`]), one of a keyspace at a time and one a tick at most. The compactor goes with it and comes back with the outcome.
//!
//! Before rows of a partition are given up or replaced, by older ones perhaps, the compactor is taken back ([`Host::stop_compaction`]), which waits for the step under way: so none is written after
//! that. What is reached is in the store with each step, so nothing else is lost with it.

use super::Host;
use crate::errands::{Errand, Lent};
use quorate_mvcc::Compactor;
use quorate_mvcc::engine::Engine;
use quorate_types::{Fault, KeyspaceId, Revision};

/// Where the compactor of a keyspace is.
#[derive(Debug)]
pub(super) enum Compaction {
    Here(Compactor),
    /// With a step.
    Away {
        compactor: Lent<Compactor>,
        /// What was finished when it left.
        finished: Option<Revision>,
    },
}

impl Compaction {
    /// Everything before this revision is gone from the store.
    pub(super) fn finished(&self) -> Option<Revision> {
        match self {
            Self::Here(compactor) => compactor.finished(),
            Self::Away { finished, .. } => *finished,
        }
    }
}

impl<E: Engine> Host<E> {
    /// Has a little of the forgotten history of each keyspace removed, as far as all of its partitions here have compacted.
    pub(super) fn tick_compaction(&mut self) {
        let due = self.keyspaces.iter().filter(|(_, keyspace)| keyspace.is_compaction_due);
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(compacted) = self.compacted_by_all(id) else { continue };
            let rows_max = self.options.compaction_rows_per_tick;
            let Some(keyspace) = self.keyspaces.get_mut(&id) else { continue };
            let Compaction::Here(compactor) = &keyspace.compaction else { continue };
            keyspace.is_compaction_due = compactor.is_pending(compacted);
            if !keyspace.is_compaction_due {
                continue;
            }
            let (lent, finished) = (Lent::new(compactor.clone()), compactor.finished());
            self.errands.push(Errand::forget(id, self.engine.clone(), lent.clone(), compacted, rows_max));
            keyspace.compaction = Compaction::Away { compactor: lent, finished };
        }
        self.tick_physical();
    }

    /// A step was done, unless the compactor was taken back before.
    pub(super) fn has_forgotten(
        &mut self,
        id: KeyspaceId,
        lent: &Lent<Compactor>,
        outcome: Option<Result<bool, Fault>>,
    ) -> Result<(), Fault> {
        outcome.transpose()?;
        let Some(keyspace) = self.keyspaces.get_mut(&id) else { return Ok(()) };
        if matches!(&keyspace.compaction, Compaction::Away { compactor, .. } if compactor.is(lent)) {
            keyspace.compaction = Compaction::Here(lent.take());
        }
        Ok(())
    }

    /// From here on nothing is removed from the keyspace's rows until the next tick at which all of its partitions are whole.
    pub(super) fn stop_compaction(&mut self, id: KeyspaceId) {
        let Some(keyspace) = self.keyspaces.get_mut(&id) else { return };
        if let Compaction::Away { compactor, .. } = &keyspace.compaction {
            let compactor = compactor.take();
            keyspace.compaction = Compaction::Here(compactor);
        }
    }

    /// A partition's rows are being replaced by those of a snapshot, which may be older than what is removed here.
    pub(super) fn compact_anew(&mut self, id: KeyspaceId) -> Result<(), Fault> {
        let compactor = self.compactor(id)?;
        let keyspace = self.keyspace(id)?;
        let is_stopped = matches!(keyspace.compaction, Compaction::Here(_));
        assert!(is_stopped, "history of {id} is removed while rows are given up");
        (keyspace.compaction, keyspace.is_compaction_due) = (Compaction::Here(compactor), true);
        Ok(())
    }

    /// As the store says how far it is.
    pub(super) fn compactor(&self, id: KeyspaceId) -> Result<Compactor, Fault> {
        Ok(Compactor::open(&self.engine, id)?.with_sweep_part(self.options.compaction_sweep_part))
    }

    /// How far history is removed from the store.
    pub(super) fn physically_compacted(&self, id: KeyspaceId) -> Option<Revision> {
        self.keyspaces.get(&id).and_then(|keyspace| keyspace.compaction.finished())
    }
}
