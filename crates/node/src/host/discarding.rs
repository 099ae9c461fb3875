//! Replicas that this node has no part in any more are thrown away.
//!
//! 1. The group is closed at once, and its state marked: a crash from here on leaves a replica without a state.
//! 2. The rows are removed, in steps beside the host ([`crate::errands`]): to find them is a pass over the rows of all partitions of the keyspace.
//!    Meanwhile none of its partitions is opened here that was not open, since its rows might be among them, nor is anything compacted, which would
//!    miss what is gone.
//! 3. The mark goes, the store is flushed, and then the group's log is removed. Not earlier: a log that is gone while the store could still fall back
//!    to where this node has a part would be opened without the votes and entries that it had.

use super::Host;
use crate::effects::Notice;
use crate::errands::{Errand, Shared};
use crate::group::State;
use quorate_mvcc::engine::Engine;
use quorate_partition::Partition;
use quorate_partition::snapshot::Installer;
use quorate_types::{Fault, GroupId, KeyspaceId, LogWrite, Rejection, SlotSet, crash_point, reached};
use std::collections::BTreeMap;

/// Replicas that are being thrown away.
pub(super) struct Discards<E: Engine> {
    pending: BTreeMap<GroupId, Discard<E>>,
}

struct Discard<E: Engine> {
    step: Step<E>,
    had_log: bool,
}

enum Step<E: Engine> {
    /// There may be rows.
    Rows(Shared<E>),
    /// There are none, but a crash may bring some back.
    Unflushed,
    /// A flush that began since will see to that.
    Flushing,
    /// It has.
    Flushed,
}

impl<E: Engine> Default for Discards<E> {
    fn default() -> Self {
        Self { pending: BTreeMap::new() }
    }
}

impl<E: Engine> Discards<E> {
    /// Whether rows of the keyspace are being removed, or may still come back by a crash.
    pub(super) fn is_clearing(&self, keyspace: KeyspaceId) -> bool {
        self.pending.keys().any(|id| id.keyspace == keyspace)
    }

    pub(super) fn wants_flush(&self) -> bool {
        self.pending.values().any(|discard| matches!(discard.step, Step::Unflushed))
    }

    pub(super) fn flush_begins(&mut self) {
        for discard in self.pending.values_mut().filter(|discard| matches!(discard.step, Step::Unflushed)) {
            discard.step = Step::Flushing;
        }
    }

    pub(super) fn flushed(&mut self) {
        for discard in self.pending.values_mut().filter(|discard| matches!(discard.step, Step::Flushing)) {
            discard.step = Step::Flushed;
        }
    }

    /// The keyspace is deleted, with all of its rows: the groups whose logs are left.
    pub(super) fn remove(&mut self, keyspace: KeyspaceId) -> Vec<GroupId> {
        let pending = self.pending.extract_if(.., |id, _| id.keyspace == keyspace);
        pending.filter(|(_, discard)| discard.had_log).map(|(id, _)| id).collect()
    }
}

impl<E: Engine> Host<E> {
    /// Throws away what this node has of a group in which it has no part any more.
    pub(super) fn discard(&mut self, id: GroupId) -> Result<(), Fault> {
        let slots = self.claimed_slots(id);
        self.discard_of(id, slots)
    }

    /// The same, where it is known which slots it had.
    pub(super) fn discard_of(&mut self, id: GroupId, slots: SlotSet) -> Result<(), Fault> {
        if self.discards.pending.contains_key(&id) {
            return Ok(());
        }
        let clear = self.unclaimed(id, slots);
        // Before the first row goes.
        self.forget_told(id)?;
        reached!("replica-discarded");
        if self.groups.get(&id).is_some_and(|group| group.is_serving) {
            self.resign(id)?;
        }
        let had_log = self.groups.contains_key(&id) || self.unopened.contains_key(&id);
        let step = match self.give_up_state(id, &clear)? {
            Some(installer) => {
                let installer = Shared::new(installer);
                self.errands.push(Errand::clear(id, installer.clone(), self.options.clear_rows));
                self.compact_anew(id.keyspace)?;
                Step::Rows(installer)
            }
            None if had_log => Step::Unflushed,
            None => return Ok(()),
        };
        self.discards.pending.insert(id, Discard { step, had_log });
        crash_point("discard.begun");
        Ok(())
    }

    /// Some rows of a replica are removed, unless it is none of these any more.
    pub(super) fn discard_on(
        &mut self,
        id: GroupId,
        installer: &Shared<E>,
        is_cleared: bool,
    ) -> Result<(), Fault> {
        let Some(discard) = self.discards.pending.get_mut(&id) else { return Ok(()) };
        if !matches!(&discard.step, Step::Rows(own) if own.is(installer)) {
            return Ok(());
        }
        if is_cleared {
            discard.step = Step::Unflushed;
            installer.take().abandon()?;
            self.count_anew(id.keyspace);
        } else {
            self.errands.push(Errand::clear(id, installer.clone(), self.options.clear_rows));
        }
        Ok(())
    }

    /// Where the store was flushed the logs go, and what waited for the rows to be gone is opened.
    pub(super) fn end_discards(&mut self) -> Result<(), Fault> {
        let flushed = |_: &GroupId, discard: &mut Discard<E>| matches!(discard.step, Step::Flushed);
        let done: Vec<_> = self.discards.pending.extract_if(.., flushed).collect();
        for (id, discard) in &done {
            if discard.had_log {
                self.extra_writes.push((*id, LogWrite::removal()));
                crash_point("discard.log_needless");
                self.out.notices.push(Notice::Discarded { group: *id });
            }
        }
        for (id, _) in done {
            self.open_partitions(id.keyspace)?;
            self.note_slots(id.keyspace);
            self.note_whole(id.keyspace)?;
        }
        Ok(())
    }

    /// Closes a group, if it is open, and marks what the store holds of it, if there is anything, as worth nothing: when it is cleared it can be
    /// abandoned, or wait for a snapshot.
    pub(super) fn give_up_state(
        &mut self,
        id: GroupId,
        clear: &SlotSet,
    ) -> Result<Option<Installer<E>>, Fault> {
        self.stop_compaction(id.keyspace);
        let fetching = self.fetching.remove(&id).map(crate::snapshots::Fetching::into_installer);
        let closed = self.close_group(id, Rejection::Unavailable);
        self.unopened.remove(&id);
        match closed {
            Some(State::Ready(partition)) => Ok(Some(partition.into_installer(clear)?)),
            Some(State::Installing(installer)) => match installer.or(fetching) {
                // Where nothing has come there is nothing to look for.
                Some(installer) if !installer.has_rows() => Ok(Some(installer.restart(&SlotSet::none())?)),
                Some(installer) => Ok(Some(installer.restart(clear)?)),
                None => Ok(None),
            },
            None if Partition::has_state(&self.engine, id)?
                || Partition::is_incomplete(&self.engine, id)? =>
            {
                reached!("unopened-replica-discarded");
                let publication = self.keyspace(id.keyspace)?.publication.clone();
                let (engine, limits) = (self.engine.clone(), self.options.partition.clone());
                Ok(Some(Installer::begin_among(&publication, engine, id, clear, limits)?))
            }
            None => Ok(None),
        }
    }
}
