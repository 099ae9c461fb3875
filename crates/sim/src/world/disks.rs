//! Disks that hang, fail, or spoil a log.
//!
//! * One that *hangs* takes what is written and reports nothing for a while, and the process lives. A leader has to hand over, and nothing that it
//!   was going to say may be taken for said.
//! * One that *fails* does so at its next call or some calls later, append, sync, removal or making of a segment, and from then on at each. The process ends, as the server does
//!   after the first error, and what was not synced is there or not, as after a crash.
//! * A bit of a *log* flips while its node is down after it was killed, so that everything it wrote has reached the disk. Whatever was durable is not taken for an unfinished write: the
//!   node has forgotten what it has promised, and goes the way of one that lost its disk, as the server does (`server/src/repair/forgetting.rs`).

use super::World;
use super::network::Flying;
use super::node::{Node, store};
use crate::checker::Violation;
use crate::random::Random;
use quorate_node::{PeerMessage, Standing};
use quorate_storage::disk::{Disk, MemoryDisk};
use quorate_storage::memory::MemoryEngine;
use quorate_types::{Incarnation, reached};

/// What may happen to disks, each in thousandths of a tick.
#[derive(Debug)]
pub(super) struct Disks {
    /// Of its own: other runs are what they are without it.
    random: Random,
    hang: u64,
    hang_ticks_max: u64,
    failure: u64,
    spoilt_log: u64,
}

impl Disks {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6469_736b);
        let mut rate = |max: u64| if random.chance(300) { 1 + random.below(max) } else { 0 };
        let (hang, failure, spoilt_log) = (rate(8), rate(4), rate(3));
        // A few election timeouts at the most, or for longer than requests wait.
        let hang_ticks_max = [100, 100, 1_000][random.below(3) as usize];
        Self { random, hang, hang_ticks_max, failure, spoilt_log }
    }

    pub(super) fn none() -> Self {
        Self { random: Random::new(0), hang: 0, hang_ticks_max: 0, failure: 0, spoilt_log: 0 }
    }
}

impl World {
    /// Now and then.
    pub(super) fn fail_disks(&mut self) {
        if self.disks.random.chance(self.disks.hang) {
            let at = self.any_disk();
            let until = self.now + 20 + self.disks.random.below(self.disks.hang_ticks_max);
            self.nodes[at].hung_until = until;
            self.counts.hangs += 1;
        }
        if self.disks.random.chance(self.disks.failure) {
            let at = self.any_disk();
            if self.nodes[at].running.is_some() {
                self.nodes[at].is_failing = true;
                self.nodes[at].disk.fail_after(self.disks.random.below(5));
            }
        }
        if self.disks.random.chance(self.disks.spoilt_log) {
            let at = self.any_disk();
            self.spoil_log(at);
        }
    }

    /// Half of the time one of a node that leads.
    fn any_disk(&mut self) -> usize {
        let at = self.disks.random.below(self.nodes.len() as u64) as usize;
        if !self.disks.random.chance(500) {
            return at;
        }
        let groups = self.all_groups();
        let group = groups[self.disks.random.below(groups.len() as u64) as usize];
        self.leader_of(group).unwrap_or(at)
    }

    /// A log's disk refused: the process has to end, if that was to happen.
    pub(super) fn log_failed(&mut self, at: usize, what: impl std::fmt::Display) -> Result<(), Violation> {
        if !self.nodes[at].is_failing && !self.nodes[at].is_full() {
            return Err(self.violation(format!("a healthy disk failed: {what}")));
        }
        reached!("log-found-no-space", !self.nodes[at].is_failing);
        self.counts.disks_failed += 1;
        Ok(())
    }

    /// The process whose log's disk refused ends, half of the time with its machine; otherwise the system still has what it was given.
    pub(super) fn end_for_disk(&mut self, at: usize) {
        if self.disks.random.chance(500) {
            self.kill(at);
        } else {
            self.crash(at);
        }
    }

    /// A process is killed, and a bit of what it has written flips.
    fn spoil_log(&mut self, at: usize) {
        // Then there is time for everything that it wrote to reach the disk.
        let is_writing = self.nodes[at].is_failing || self.nodes[at].is_spoilt;
        // While a cluster begins, who has forgotten and those who have not begun would wait for each other. There is nothing yet that could be lost.
        let has_begun = self.nodes.iter().all(|node| node.standing != Standing::New);
        if is_writing || !has_begun || self.nodes[at].running.is_none() || !self.may_forget(at) {
            return;
        }
        self.kill(at);
        let random = &mut self.disks.random;
        let node = &mut self.nodes[at];
        let names: Vec<String> = node.disk.list().unwrap_or_default();
        let Some(name) = names.get(random.below(names.len() as u64) as usize) else { return };
        let bytes = node.disk.read(name).unwrap_or_default();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        node.disk.flip(name, random.below(used as u64) as usize, random.below(8) as u8);
        node.is_spoilt = true;
        self.counts.logs_spoilt += 1;
    }

    /// The next life has an empty disk. Questions of the last one that are on their way are lost with its connections: who has not heard of it at all would take a question that comes after the
    /// next life's for a newer one, and never hear that again.
    pub(super) fn forget(&mut self, at: usize) {
        let id = self.nodes[at].id;
        let is_asked = |flying: &Flying| matches!(flying.message, PeerMessage::AdmissionAsk { .. });
        let is_lost = |flying: &Flying| flying.from == id && is_asked(flying);
        self.flying.retain(|flying| !is_lost(flying));
        for running in self.nodes.iter_mut().filter_map(|node| node.running.as_mut()) {
            running.mail.retain(|flying| !is_lost(flying));
        }
        self.nodes[at].forget();
    }

    /// What was durable in the log is damaged: the node begins a new life without it. Whether that is what happened here.
    pub(super) fn forgets(&mut self, at: usize) -> bool {
        let is_spoilt = std::mem::take(&mut self.nodes[at].is_spoilt);
        if is_spoilt {
            reached!("log-forgotten");
            self.forget(at);
            self.nodes[at].has_forgotten = true;
            self.counts.logs_forgotten += 1;
        }
        is_spoilt
    }
}

impl Node {
    /// It lacks, or is about to lack, what it had.
    pub(super) fn is_poor(&self) -> bool {
        self.is_forgetful || self.is_spoilt || self.rot.is_some() || self.has_rotted
    }

    /// It has an empty disk, and is known to the others as one that had another.
    fn forget(&mut self) {
        let is_full = self.is_full();
        self.disk = MemoryDisk::default();
        self.disk.fill(is_full);
        self.engine = store(self.id, MemoryEngine::default());
        (self.has_rotted, self.rot) = (false, None);
        self.incarnation = Incarnation(self.incarnation.0 + 10);
        self.standing = Standing::New;
        self.is_forgetful = true;
    }
}
