//! What the groups want done, gathered for the shell; and what the shell reports done.

use super::Host;
use crate::effects::{Effects, WriteId};
use crate::peer::PeerMessage;
use crate::retention::ROOM_PART;
use quorate_consensus::{Consensus, Message};
use quorate_mvcc::engine::Engine;
use quorate_types::{Fault, GroupId, LogWrite, crash_point};

/// Messages of a group that wait for the disk. While it stands still each heartbeat adds one; all may be lost.
pub(super) const HELD_MAX: usize = 1_024;

impl<E: Engine> Host<E> {
    /// This write and all before it are durable.
    pub fn persisted(&mut self, write: WriteId) {
        while let Some((id, _)) = self.writing.front()
            && *id <= write
            && let Some((_, parts)) = self.writing.pop_front()
        {
            for (id, part) in parts {
                let Some(group) = self.groups.get_mut(&id) else { continue };
                group.raft.persisted(part);
                group.persisted = part;
                while let Some((waits_for, _, _)) = group.held.front()
                    && *waits_for <= part
                    && let Some((_, to, message)) = group.held.pop_front()
                {
                    self.out.send.push((to, message));
                }
                self.dirty.insert(id);
            }
        }
        while let Some((_, term)) = self.meta_terms_written.pop_front_if(|(id, _)| *id <= write) {
            self.meta_term_durable = self.meta_term_durable.max(term);
        }
        self.end_stall(write);
        self.count_caught_up();
    }

    /// The flush that [`Effects::flush`] asked for is done.
    pub fn flushed(&mut self) {
        self.is_flushing = false;
        let (target, max) = (self.options.log_bytes_target, self.options.log_bytes_max);
        let bytes: usize = self.groups.values().map(|group| group.raft.status().log_bytes).sum();
        let room = bytes < ROOM_PART * max;
        for (id, group) in &mut self.groups {
            if let Some(flushed) = group.flushing.take() {
                group.flushed = group.flushed.max(flushed);
                group.cut_log(target, max, room);
                crash_point("log.cut.decided");
                self.dirty.insert(*id);
            }
        }
        self.remove_logs();
        self.discards.flushed();
    }

    /// What to do now. Everything that was told since the last call is carried out first.
    pub fn take(&mut self) -> Result<Effects, Fault> {
        let mut writes: Vec<(GroupId, LogWrite)> = Vec::new();
        let mut parts = Vec::new();
        let log_bytes_max = self.options.log_bytes_max;
        self.end_discards()?;
        loop {
            self.carry_told()?;
            self.rouse()?;
            if self.raise_marks_next {
                self.raise_marks()?;
            }
            // The messages of leaders to each other cost nothing here; what they lead to shares one write.
            if self.told.is_empty() && self.rouse_blocked.is_empty() && self.rouse_waiting.is_empty() {
                let Some(id) = self.dirty.pop_first() else { break };
                self.collect(id, &mut writes, &mut parts)?;
                self.note_leader(id);
                for gone in std::mem::take(&mut self.discarded) {
                    writes.retain(|(group, _)| *group != gone);
                    parts.retain(|(group, _)| *group != gone);
                }
                if let Some(group) = self.groups.get(&id) {
                    self.agenda.note(group, log_bytes_max);
                }
            }
        }
        self.settle()?;
        self.ask_sequencer()?;
        self.ask_office()?;
        self.tell_leaders();
        // A group that was opened just now, by a split, may have entries already: its log begins before them.
        writes.splice(0..0, std::mem::take(&mut self.extra_writes));
        if !writes.is_empty() {
            self.write = WriteId(self.write.0 + 1);
            let of_meta = writes.iter().filter(|(id, _)| *id == GroupId::META);
            let terms = of_meta.filter_map(|(_, write)| Some((self.write, write.hard_state?.term)));
            self.meta_terms_written.extend(terms);
            self.writing.push_back((self.write, parts));
            self.out.persist = Some((self.write, writes));
        }
        let is_wanted = self.agenda.is_flush_wanted(self.flush_target())
            || self.removals.wants_flush()
            || self.discards.wants_flush();
        if !self.is_flushing && is_wanted {
            self.is_flushing = true;
            self.out.flush = true;
            self.agenda.flush_begins();
            self.removals.flush_begins();
            self.discards.flush_begins();
            for group in self.groups.values_mut() {
                group.flushing = Some(group.applied());
            }
        }
        Ok(std::mem::take(&mut self.out))
    }

    /// Replicas that have the same log are not to flush at the same time, but each after between three quarters of the target and five, by its place among the members.
    fn flush_target(&self) -> usize {
        let target = self.options.log_bytes_target;
        let before = self.members.range(..self.options.id).count();
        target / 4 * 3 + target / 2 * before / self.members.len().max(1)
    }

    pub(super) fn collect(
        &mut self,
        id: GroupId,
        writes: &mut Vec<(GroupId, LogWrite)>,
        parts: &mut Vec<(GroupId, quorate_consensus::WriteId)>,
    ) -> Result<(), Fault> {
        let now = self.now;
        // What it promised in a newer term, which a crash may let it forget, is not promised to anybody yet.
        let meta = self.meta_term_durable;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let effects = group.raft.take();
        let wrap = |message: Message| PeerMessage::Group { group: id, meta, message };
        self.out.send.extend(effects.send_now.into_iter().map(|(to, message)| (to, wrap(message))));
        if let Some((part, write)) = effects.persist {
            writes.push((id, write));
            parts.push((id, part));
        }
        for (waits_for, to, message) in effects.send_after {
            if waits_for <= group.persisted {
                self.out.send.push((to, wrap(message)));
            } else if group.held.len() < HELD_MAX {
                group.held.push_back((waits_for, to, wrap(message)));
            }
        }
        if let Some(role) = effects.role_changed {
            self.on_role(id, role)?;
        }
        if !effects.apply.is_empty() {
            self.apply(id, &effects.apply, now)?;
            // There may be more to apply than came at once.
            self.dirty.insert(id);
        }
        for (read, outcome) in effects.reads {
            self.on_read(id, read, outcome)?;
        }
        for to in effects.snapshots_wanted {
            self.offer_snapshot(id, to)?;
        }
        if let Some(fetch) = effects.fetch {
            self.begin_fetch(id, fetch)?;
        }
        Ok(())
    }
}
