//! Keyspaces that are deleted, and how nothing of them stays on this node.
//!
//! **A keyspace is deleted by one transaction** of the system keyspace that removes its map's row. Nothing has to be confirmed by
//! anybody, because every node can tell by itself what is gone: ids ascend by a counter that is raised in the transaction that creates the
//! keyspace ([`KeyspaceMap::next_id_key`]), so *an id below the counter without a row was deleted, and never comes again*. An id at or above it
//! is one that this node has not heard of yet; its log waits.
//!
//! A node that applies the deletion, by the entry or by a snapshot of the meta group, or that starts and finds rows or logs of
//! such a keyspace, does this:
//!
//! 1. It closes the groups at once. Whoever waits there is told; readers are refused; messages of peers for them are dropped. From the moment that a
//!    majority has done so, nothing can be written there any more, also by a node that has not heard of the deletion.
//! 2. It removes the rows, so many a tick. A crash in between needs no bookkeeping: the rows that are left say what is left to do.
//! 3. It has the store flushed, and then removes the groups from the log. Not earlier: a log that is gone while the store could still
//!    fall back to before the deletion would give up votes and entries of groups that are opened once more.
//!
//! A node that was down meanwhile does the same when it hears of it. It can bring nothing back: the others have no group for it to talk to.
//!
//! Caveats: between the deletion and step 1 a node may answer a client a last time. While a removal is under way the groups' old
//! segments of the log stay.

use super::Host;
use crate::effects::Notice;
use crate::group::{Blocked, Origin, State, Then, Work, may_change};
use crate::snapshots::Fetching;
use crate::transaction::Phase;
use quorate_mvcc::engine::{Batch, Engine, RowRange, Table};
use quorate_types::request::DeleteRequest;
use quorate_types::{Bytes, Fault, GroupId, KeyRange, KeyspaceId, LogWrite, Rejection, Request, crash_point};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Keyspaces that are deleted and of which something is left here.
#[derive(Default)]
pub(super) struct Removals {
    pending: BTreeMap<KeyspaceId, Removal>,
}

struct Removal {
    step: Step,
    /// The groups that may have a log here.
    logs: BTreeSet<GroupId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There may be rows.
    Rows,
    /// There are none, but a crash may bring some back.
    Unflushed,
    /// A flush that began since will see to that.
    Flushing,
}

impl Removals {
    pub(super) fn wants_flush(&self) -> bool {
        self.pending.values().any(|removal| removal.step == Step::Unflushed)
    }

    pub(super) fn flush_begins(&mut self) {
        for removal in self.pending.values_mut().filter(|removal| removal.step == Step::Unflushed) {
            removal.step = Step::Flushing;
        }
    }

    /// The groups whose logs can go.
    fn flushed(&mut self) -> impl Iterator<Item = GroupId> {
        let done = self.pending.extract_if(.., |_, removal| removal.step == Step::Flushing);
        done.flat_map(|(_, removal)| removal.logs).collect::<Vec<_>>().into_iter()
    }
}

/// The rows of a keyspace, which in every table begin with its number.
fn rows_of(keyspace: KeyspaceId) -> RowRange {
    let end = keyspace.0.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded(row(next)));
    (Bound::Included(row(keyspace.0)), end)
}

fn row(keyspace: u32) -> Bytes {
    Bytes::copy_from_slice(&keyspace.to_be_bytes())
}

impl<E: Engine> Host<E> {
    /// Whether the keyspace was there once and is deleted, for all that is applied here.
    fn is_gone(&self, id: KeyspaceId) -> bool {
        id >= KeyspaceId::FIRST_CREATED && id < self.next_keyspace && !self.maps.contains_key(&id)
    }

    /// All maps that there are have just been read: what else is here is removed.
    pub(super) fn remove_the_gone(&mut self) -> Result<(), Fault> {
        let mut found: BTreeSet<KeyspaceId> = self.keyspaces.keys().copied().collect();
        found.extend(self.unopened.keys().map(|group| group.keyspace));
        for table in Table::ALL {
            let mut from = Some(0);
            while let Some(start) = from {
                let first = self.engine.scan(table, (Bound::Included(row(start)), Bound::Unbounded)).next();
                let Some((key, _)) = first.transpose()? else { break };
                let Some(number) = key.first_chunk().map(|number| u32::from_be_bytes(*number)) else { break };
                found.insert(KeyspaceId(number));
                from = number.checked_add(1);
            }
        }
        for id in found {
            if self.is_gone(id) {
                self.remove_keyspace(id);
            }
        }
        Ok(())
    }

    /// The keyspace is deleted.
    pub(super) fn remove_keyspace(&mut self, id: KeyspaceId) {
        self.maps.remove(&id);
        self.splits.retain(|parent, _| parent.keyspace != id);
        self.router.remove(id);
        self.usages.remove(&id);
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.close(id);
        }
        // It would write down how far it came.
        self.stop_compaction(id);
        if let Some(keyspace) = self.keyspaces.remove(&id) {
            keyspace.publication.close();
        }
        self.wants_settled.remove(&id);
        self.settling.remove(&id);
        self.end_readings(id);
        self.end_distant(id);
        self.end_attempts(id);
        let groups: BTreeSet<GroupId> = self.groups_of(id).collect();
        for group in &groups {
            self.close_group(*group, Rejection::KeyspaceNotFound);
        }
        let unopened = self.unopened.extract_if(.., |group, _| group.keyspace == id);
        let discarded = self.discards.remove(id);
        let logs: BTreeSet<GroupId> =
            unopened.map(|(group, _)| group).chain(groups).chain(discarded).collect();
        let removal =
            self.removals.pending.entry(id).or_insert(Removal { step: Step::Rows, logs: BTreeSet::new() });
        removal.logs.extend(logs);
        removal.step = Step::Rows;
        self.out.notices.push(Notice::KeyspaceDeleted { keyspace: id });
    }

    /// Attempts at transactions come to nothing, and what they left behind is nobody's.
    fn end_attempts(&mut self, id: KeyspaceId) {
        let attempts = self.attempts.extract_if(.., |(keyspace, _), _| *keyspace == id);
        for attempt in attempts.map(|(_, attempt)| attempt).collect::<Vec<_>>() {
            // One that is decided has an entry that somebody waits for.
            if !matches!(attempt.phase, Phase::Deciding(_)) {
                self.reply(attempt.work.origin, Err(Rejection::KeyspaceNotFound));
            }
        }
        for (_, work, _) in self.again.extract_if(.., |(home, ..)| home.keyspace == id).collect::<Vec<_>>() {
            self.reply(work.origin, Err(Rejection::KeyspaceNotFound));
        }
        self.undecided.retain(|(keyspace, _)| *keyspace != id);
        self.owed.retain(|(keyspace, _), _| *keyspace != id);
        self.told.retain(|(group, _)| group.keyspace != id);
    }

    /// Lets go of a group, and gives its state back. Whoever waits for what may be in its log is told that nobody knows, everybody else why the
    /// group is not here.
    pub(super) fn close_group(&mut self, id: GroupId, why: Rejection) -> Option<State<E>> {
        let group = self.groups.remove(&id)?;
        let gone = |origin: Origin| (Then::Refuse(origin, why.clone()), why.clone());
        let mut ended: Vec<(Then, Rejection)> = Vec::new();
        ended.extend(group.waiting.into_iter().chain(group.drawing).map(|work| gone(work.origin)));
        ended.extend(group.blocked.into_iter().filter_map(|blocked| match blocked {
            Blocked::Work(work) => Some(gone(work.origin)),
            Blocked::Home(..) | Blocked::Prepare(_) => None,
        }));
        ended.extend(group.forwarded.into_values().map(|(_, Work { origin, request, .. })| {
            let (then, rejection) = gone(origin);
            (then, if may_change(&request) { Rejection::Unknown } else { rejection })
        }));
        ended.extend(group.reads.into_values().map(|wait| (wait.then, why.clone())));
        ended.extend(
            group
                .waits
                .into_values()
                .flatten()
                .map(|wait| (wait.then, if wait.term.is_some() { Rejection::Unknown } else { why.clone() })),
        );
        ended.extend(group.unconfirmed.into_iter().map(|(_, _, wait)| (wait.then, Rejection::Unknown)));
        for (then, rejection) in ended {
            self.reject(then, rejection);
        }
        self.dirty.remove(&id);
        self.agenda.forget(id);
        self.note_leader(id);
        // No write of it may come after the rows have gone.
        drop(self.fetching.remove(&id).map(Fetching::into_installer));
        self.sources.forget(id);
        self.abstaining.remove(&id);
        self.leaving.remove(id);
        self.inheriting.remove(&id);
        self.forgettable.remove(&id);
        self.rouse_blocked.remove(&id);
        self.rouse_waiting.remove(&id);
        self.caught_up.remove(&id);
        self.catch_up_again.retain(|group| *group != id);
        if self.admission.caught_up(id) {
            self.out.standing = Some(self.admission.standing());
        }
        // Should it be opened once more, its writes have the same names.
        for (_, parts) in &mut self.writing {
            parts.retain(|(group, _)| *group != id);
        }
        self.discarded.push(id);
        Some(group.state)
    }

    /// Removes some rows of what is deleted.
    pub(super) fn tick_removals(&mut self) -> Result<(), Fault> {
        let with_rows = self.removals.pending.iter_mut().find(|(_, removal)| removal.step == Step::Rows);
        let Some((keyspace, removal)) = with_rows else { return Ok(()) };
        let mut batch = Batch::default();
        for table in Table::ALL {
            let room = self.options.compaction_rows_per_tick.max(1) - batch.changes.len();
            for found in self.engine.scan(table, rows_of(*keyspace)).take(room) {
                batch.delete(table, found?.0);
            }
        }
        if batch.is_empty() {
            removal.step = Step::Unflushed;
            crash_point("removal.rows_gone");
            return Ok(());
        }
        self.engine.write(batch)?;
        crash_point("removal.rows_removed");
        Ok(())
    }

    /// The store cannot fall back any more to before the deletion: the logs go.
    pub(super) fn remove_logs(&mut self) {
        let logs = self.removals.flushed().map(|group| (group, LogWrite::removal()));
        self.extra_writes.extend(logs);
        crash_point("removal.logs_needless");
    }

    /// At the sequencer: removes the marks of keyspaces that are deleted. The deletion itself cannot, as a mark may be on its way
    /// behind it; what is asked for here comes after all that this sequencer ever asked for.
    pub(super) fn remove_marks(&mut self) -> Result<(), Fault> {
        for keyspace in self.marked_keyspaces()? {
            if self.is_gone(keyspace) {
                let range = KeyRange::Single(super::sequencing::mark_key(keyspace));
                let request = Request::DeleteRange(DeleteRequest { range, previous: false });
                let deadline = self.now.after(self.options.request_ticks_max);
                let work = Work { origin: Origin::Own, request, received: self.now, deadline };
                self.serve(GroupId::META, work)?;
            }
        }
        Ok(())
    }
}
