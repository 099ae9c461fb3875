//! A group gets or loses its leader, and applies what is committed.

use super::Host;
use crate::effects::{Notice, Ticket};
use crate::group::{State, may_change};
use quorate_consensus::{Consensus, ReadId, Role};
use quorate_mvcc::engine::Engine;
use quorate_types::{Entry, EntryKind, Fault, GroupId, Index, Rejection, Tick, reached};

impl<E: Engine> Host<E> {
    pub(super) fn on_role(&mut self, id: GroupId, role: Role) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let status = group.raft.status();
        let old_leader = group.leader;
        group.role = role;
        group.leader = status.leader;
        group.term = status.term;
        self.out.notices.push(Notice::Role { group: id, term: status.term, role });
        let was_serving = group.is_serving;
        if group.is_serving || matches!(role, Role::Leader { .. }) {
            if let Some(partition) = group.partition_mut() {
                partition.follow();
            }
            group.is_serving = false;
            group.is_split_proposed = false;
            self.note_slots_of(id);
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if let Role::Leader { fence } = role {
            group.proposed = fence;
        }
        // What was forwarded to a leader that no longer is will not be answered by it for sure.
        if old_leader != group.leader {
            let leader = group.leader;
            let lost: Vec<Ticket> = group
                .forwarded
                .iter()
                .filter(|(_, (to, work))| Some(*to) != leader && !may_change(&work.request))
                .map(|(ticket, _)| *ticket)
                .collect();
            // What may have changed something waits for the old leader's word, which comes at once if it only lost its
            // office. One that is paused or cut off must not keep the client for the whole of its time.
            let deadline = self.now.after(self.options.election_ticks_max);
            for (to, work) in group.forwarded.values_mut() {
                if Some(*to) != leader {
                    work.deadline = work.deadline.min(deadline);
                }
            }
            for ticket in lost {
                reached!("forwarded-to-lost-leader");
                self.forward_failed(id, ticket);
            }
        }
        if was_serving {
            self.resign(id)?;
        }
        if id == GroupId::META {
            self.leave_sequencer();
            self.register_anew()?;
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        // Changing the role has failed every barrier; those that can be asked for again are.
        let reads: Vec<ReadId> = group.reads.keys().copied().collect();
        let waiting = std::mem::take(&mut group.waiting);
        for read in reads {
            self.retry_read(id, read);
        }
        for work in waiting {
            self.dispatch_again(id, work)?;
        }
        if id == GroupId::META {
            self.repeat_readings()?;
        }
        self.dirty.insert(id);
        Ok(())
    }

    /// The group was led here until now.
    pub(super) fn resign(&mut self, id: GroupId) -> Result<(), Fault> {
        if id == GroupId::META {
            self.end_sequencer();
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.registered = None;
        group.registering = None;
        group.wait_again(self.now);
        // They are in the log for good, but whether in time will not be known.
        let mut unknown: Vec<_> = std::mem::take(&mut group.unconfirmed).into_iter().map(|it| it.2).collect();
        // What comes of them will be seen here when the disk answers, which may be never.
        if self.stalled.is_some() {
            for waits in group.waits.values_mut() {
                unknown.extend(waits.extract_if(.., |wait| wait.term.is_some()));
            }
            group.waits.retain(|_, waits| !waits.is_empty());
        }
        for wait in unknown {
            self.reject(wait.then, Rejection::Unknown);
            reached!("unconfirmed-at-resignation");
        }
        self.end_coordination(id)
    }

    pub(super) fn apply(&mut self, id: GroupId, entries: &[Entry], now: Tick) -> Result<(), Fault> {
        // What comes after a split is told in another way than what came before it.
        let every = self.options.checkpoint_entries;
        let ends = |entry: &Entry| entry.kind == EntryKind::Split || entry.index.0.is_multiple_of(every);
        for entries in entries.split_inclusive(ends) {
            let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
            let State::Ready(partition) = &mut group.state else {
                panic!("group {id} was given entries to apply while its state is being installed");
            };
            let mut applied = partition.apply(entries, now)?;
            let split = applied.split.take();
            self.note_digest(id);
            self.on_applied(id, applied)?;
            if let Some(split) = split {
                self.on_split(id, &split)?;
            }
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let last = entries.last().map_or(Index::START, |entry| entry.index);
        group.raft.applied(last);
        let begins = match group.role {
            Role::Leader { fence } => !group.is_serving && last >= fence.index,
            _ => false,
        };
        if begins {
            self.begin_serving(id)?;
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let still_waiting = group.waits.split_off(&last.next());
        let done = std::mem::replace(&mut group.waits, still_waiting);
        let first = entries.first().map_or(Index::START, |entry| entry.index);
        for (index, waits) in done {
            let term =
                index.0.checked_sub(first.0).and_then(|at| entries.get(at as usize)).map(|entry| entry.term);
            for wait in waits {
                if wait.term.is_none() || wait.term == term {
                    if let Some(epoch) = wait.confirm
                        && !self.is_confirmed(id, index, epoch)
                    {
                        reached!("write-waits-for-office");
                        self.wait_for_confirmation(id, index, epoch, wait);
                        continue;
                    }
                    self.finish(id, wait.then, wait.deadline)?;
                } else {
                    reached!("write-lost-its-place");
                    self.reject(wait.then, Rejection::LeaderChanged);
                }
            }
        }
        Ok(())
    }

    /// The group is led here, and what earlier leaders committed is applied.
    pub(super) fn begin_serving(&mut self, id: GroupId) -> Result<(), Fault> {
        let (now, is_refusing) = (self.now, self.is_refusing(id.keyspace));
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let State::Ready(partition) = &mut group.state else { return Ok(()) };
        group.is_serving = true;
        partition.lead(now);
        partition.set_no_space(is_refusing);
        self.out.notices.push(Notice::Serving { group: id, term: group.term });
        let waiting = std::mem::take(&mut group.waiting);
        if id == GroupId::META {
            self.begin_sequencer()?;
        } else {
            self.note_inherited(id);
            self.arrange(id)?;
            self.owe_all(id);
            self.inherit(id);
            self.tick_splits()?;
        }
        for work in waiting {
            self.dispatch_again(id, work)?;
        }
        Ok(())
    }
}
