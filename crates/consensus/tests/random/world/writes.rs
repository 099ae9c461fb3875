//! The disks: writes take their time, overlap, and finish in order.

use super::node::Node;
use super::{Event, World};
use quorate_consensus::{Consensus, Role, WriteId};
use quorate_types::{EntryKind, LogWrite};
use std::collections::VecDeque;

impl World {
    pub(super) fn begin_write(&mut self, at: usize, write: WriteId, content: LogWrite) {
        let time = if self.is_healed { 2 } else { self.random.between(0, self.weather.write_time_max) };
        let now = self.now;
        let Node { id, lives, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let (id, life) = (*id, *lives);
        let status = running.raft.status();
        if content.entries.first().is_some_and(|first| first.index <= running.log.last().index) {
            self.counts.replaced += 1;
        }
        // Checked before what it compacts is gone.
        running.log.write(&LogWrite { compact: None, ..content.clone() });
        self.invariants.appends(id, &running.log, &content);
        for entry in &content.entries {
            // One change at a time: a leader has committed the one before.
            let before = running.log.configurations.iter().rfind(|(at, _)| *at < entry.index);
            let is_ours = matches!(status.role, Role::Leader { .. }) && entry.term == status.term;
            if let (EntryKind::Config, true, Some((before, _))) = (entry.kind, is_ours, before) {
                assert!(*before <= status.commit, "n{id} changes members at {} and {before}", entry.index);
            }
        }
        running.log.write(&LogWrite { compact: content.compact, ..LogWrite::default() });
        running.writing.push_back((write, content));
        running.busy_until = running.busy_until.max(now + time);
        let after = running.busy_until - now;
        self.schedule(after, Event::Written { at, life, write });
    }

    pub(super) fn written(&mut self, at: usize, life: u64, write: WriteId) {
        if self.nodes[at].lives != life {
            return;
        }
        let Node { id, disk, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let id = *id;
        if write <= running.written {
            return; // Reported with a later one.
        }
        while let Some((number, content)) = running.writing.front()
            && *number <= write
        {
            disk.write(content);
            running.writing.pop_front();
        }
        running.written = write;
        running.raft.persisted(write);
        let done: VecDeque<_>;
        (done, running.held) =
            std::mem::take(&mut running.held).into_iter().partition(|(waits_for, ..)| *waits_for <= write);
        self.note(|_| format!("n{id} has written {}", write.0));
        for (_, to, message) in done {
            self.send(id, to, message);
        }
        self.drain(at);
        self.check_kept();
    }
}
