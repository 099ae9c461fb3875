//! Snapshots as the groups see them: offered to followers, fetched, put in place of the state.

use super::Host;
use crate::digests::Digests;
use crate::effects::Notice;
use crate::errands::{Done, Errand, Outcome};
use crate::group::State;
use crate::snapshots::Fetching;
use quorate_consensus::{Consensus, SnapshotFetch, SnapshotMeta};
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::InstallError;
use quorate_types::{Fault, GroupId, NodeId, Rejection, crash_point, reached};

impl<E: Engine> Host<E> {
    pub(super) fn offer_snapshot(&mut self, id: GroupId, to: NodeId) -> Result<(), Fault> {
        let Some(group) = self.groups.get(&id) else { return Ok(()) };
        let Some(partition) = group.partition() else { return Ok(()) };
        // One that is read already serves, if the log goes on from there: not if it was cut since, or replaced.
        let mut shared = None;
        for view in self.sources.views(id, to) {
            let older = partition.snapshot_in(&view)?;
            shared = shared.or(older.filter(|older| group.raft.may_offer(to, older.position())));
        }
        reached!("snapshot-shared", shared.is_some());
        let source = shared.unwrap_or_else(|| partition.snapshot());
        let position = source.position();
        self.sources.keep(to, source, self.now);
        crash_point("snapshot.offered");
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let configuration = group.raft.configuration_at(position.index).clone();
        group.raft.offer_snapshot(to, SnapshotMeta { position, configuration });
        self.dirty.insert(id);
        self.out.notices.push(Notice::SnapshotOffered { group: id, to, position });
        Ok(())
    }

    pub(super) fn begin_fetch(&mut self, id: GroupId, fetch: SnapshotFetch) -> Result<(), Fault> {
        let (from, position) = (fetch.from, fetch.meta.position);
        let known = self.groups.get(&id).map(|group| &group.state);
        // Nothing has to be looked for where nothing has come since the last time.
        let has_rows = !matches!(known, Some(State::Installing(Some(installer))) if !installer.has_rows());
        let clear = self.slots_to_clear(id, has_rows);
        // Before the first row goes.
        self.forget_told(id)?;
        self.stop_compaction(id.keyspace);
        self.leave_to_leaders(id)?;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        // From here on there is no state to apply to, until the snapshot is whole.
        group.raft.state_lost();
        let unfinished = self.fetching.remove(&id).map(Fetching::into_installer);
        reached!("snapshot-begun-anew", unfinished.is_some());
        let installer = match (std::mem::replace(&mut group.state, State::Installing(None)), unfinished) {
            (State::Ready(partition), _) => partition.into_installer(&clear)?,
            (State::Installing(Some(installer)), _) | (State::Installing(None), Some(installer)) => {
                installer.restart(&clear)?
            }
            (State::Installing(None), None) => panic!("group {id} has lost its installer"),
        };
        self.compact_anew(id.keyspace)?;
        self.fetching.insert(id, Fetching::new(fetch, installer, self.now));
        self.fetch_on(id);
        self.out.notices.push(Notice::SnapshotFetching { group: id, from, position });
        Ok(())
    }

    /// Writes what has come and asks for what has not.
    pub(super) fn fetch_on(&mut self, id: GroupId) {
        let Some(fetching) = self.fetching.get_mut(&id) else { return };
        self.errands.extend(fetching.write(id, self.options.clear_rows));
        if fetching.is_cleared() {
            self.out.send.extend(fetching.pull(id, self.now));
        }
    }

    /// Answers pulls, or has what they ask for read.
    pub(super) fn serve_snapshots(&mut self) {
        let (reads, answers) = self.sources.serve(self.now);
        self.out.send.extend(answers);
        self.errands.extend(reads);
    }

    /// What is to be done beside the host, since the last call. Asked for after [`Host::take`].
    pub fn errands(&mut self) -> Vec<Errand<E>> {
        std::mem::take(&mut self.errands)
    }

    /// An errand was run.
    pub fn errand_done(&mut self, done: Done<E>) -> Result<(), Fault> {
        match done.0 {
            Outcome::Read { pass, work, read } => {
                if let Err(fault) = &read
                    && fault.is_damage()
                {
                    self.out.suspect = Some(fault.clone());
                }
                crash_point("snapshot.section_read");
                let failed = self.sources.has_read(pass, &work, read);
                self.out.send.extend(failed);
                self.serve_snapshots();
                Ok(())
            }
            Outcome::Written { group, installer, outcome } => {
                if let Some(Err(InstallError::Fault(fault))) = outcome {
                    return Err(fault);
                }
                let fetching = self.fetching.get_mut(&group);
                if !fetching.is_some_and(|fetching| fetching.has_written(&installer)) {
                    return Ok(());
                }
                match outcome {
                    Some(Ok(true)) => return self.finish_fetch(group),
                    Some(Ok(false)) | None => self.fetch_on(group),
                    Some(Err(error)) => self.fail_fetch(group, error.to_string()),
                }
                Ok(())
            }
            Outcome::Forgotten { keyspace, compactor, outcome } => {
                self.has_forgotten(keyspace, &compactor, outcome)
            }
            Outcome::Cleared { group, installer, outcome } => {
                let is_cleared = outcome.transpose()?.unwrap_or(false);
                let fetching = self.fetching.get_mut(&group);
                if !fetching.is_some_and(|fetching| fetching.has_cleared(&installer, is_cleared)) {
                    return self.discard_on(group, &installer, is_cleared);
                }
                self.fetch_on(group);
                Ok(())
            }
        }
    }

    pub(super) fn repeat_pulls(&mut self) {
        let (now, idle_ticks) = (self.now, self.options.snapshot_idle_ticks);
        let mut failed = Vec::new();
        for (id, fetching) in &mut self.fetching {
            match fetching.is_overdue(now, idle_ticks) {
                Ok(false) => {}
                Ok(true) => self.out.send.extend(fetching.pull(*id, now)),
                Err(reason) => failed.push((*id, reason)),
            }
        }
        for (id, reason) in failed {
            self.fail_fetch(id, reason);
        }
    }

    pub(super) fn fail_fetch(&mut self, id: GroupId, reason: String) {
        reached!("snapshot-failed");
        let installer = self.fetching.remove(&id).map(Fetching::into_installer);
        if let Some(group) = self.groups.get_mut(&id) {
            if let State::Installing(kept @ None) = &mut group.state {
                *kept = installer;
            }
            group.raft.fetch_failed();
            self.dirty.insert(id);
        }
        self.out.notices.push(Notice::SnapshotFailed { group: id, reason });
    }

    pub(super) fn finish_fetch(&mut self, id: GroupId) -> Result<(), Fault> {
        let Some(fetching) = self.fetching.remove(&id) else { return Ok(()) };
        let (meta, bytes) = (fetching.fetch.meta.clone(), fetching.bytes);
        let installer = fetching.into_installer();
        // Its source may have been split since the state here was given up.
        self.set_whole(id.keyspace, false)?;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.state = State::Ready(installer.finish()?);
        reached!("returning-replica-filled", group.is_returning);
        if std::mem::take(&mut group.is_returning) && self.admission.is_admitted() && !group.awaits_rows {
            group.raft.give_votes();
        }
        let position = meta.position;
        group.flushed = position.index;
        group.flushing = None;
        group.raft.restored(meta);
        crash_point("snapshot.in_place");
        self.dirty.insert(id);
        group.digests = Digests::default();
        self.on_replaced(id)?;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        self.out.notices.push(Notice::SnapshotInstalled { group: id, position, bytes });
        let still_waiting = group.waits.split_off(&position.index.next());
        let done = std::mem::replace(&mut group.waits, still_waiting);
        for wait in done.into_values().flatten() {
            reached!("write-hidden-by-snapshot", wait.term.is_some());
            match wait.term {
                // Whether that entry is among what the snapshot holds cannot be told any more.
                Some(_) => self.reject(wait.then, Rejection::Unknown),
                None => self.finish(id, wait.then, wait.deadline)?,
            }
        }
        Ok(())
    }
}
