//! What a node does beside its host, and what takes its time: log writes, flushes, errands.

use super::World;
use crate::checker::Violation;
use quorate_mvcc::engine::Engine;
use quorate_node::WriteId;
use quorate_types::{GroupId, LogWrite};

/// A host hears within less than so many ticks of what was done beside it.
const TOLD_TICKS: u64 = 4;

impl World {
    /// Begins what a node wants on its disks, and its errands. Returns what went to the log, of each group, and whether the disk took it.
    pub(super) fn write(
        &mut self,
        at: usize,
        persist: Option<(WriteId, Vec<(GroupId, LogWrite)>)>,
        flush: bool,
    ) -> Result<(Vec<(GroupId, LogWrite)>, bool), Violation> {
        let sync_due = self.now + self.random.below(self.rates.sync_ticks_max + 1);
        let Some(running) = &mut self.nodes[at].running else { return Ok((Vec::new(), true)) };
        for errand in running.host.errands() {
            let due = self.now + self.random.below(self.rates.sync_ticks_max + 1);
            running.errands.push((due, errand));
        }
        let mut written = Vec::new();
        if let Some((write, parts)) = persist {
            if let Err(fault) = running.wal.append(&parts) {
                self.log_failed(at, fault)?;
                return Ok((parts, false));
            }
            let due = running.syncing.map_or(sync_due, |(_, due)| due);
            running.syncing = Some((write, due));
            written = parts;
        }
        if flush {
            // What is written while a flush goes on is in it, or not.
            let is_taken = self.random.chance(500);
            running.flush_due = Some((sync_due + 1, is_taken));
            if is_taken && let Err(fault) = self.nodes[at].engine.flush() {
                return Err(self.violation(format!("a healthy store failed: {fault}")));
            }
        }
        Ok((written, true))
    }

    /// Tells nodes of the writes, flushes and errands that are done.
    pub(super) fn finish_writes(&mut self) -> Result<(), Violation> {
        let now = self.now;
        for at in 0..self.nodes.len() {
            self.spill(at)?;
            let is_hung = self.nodes[at].hung_until > now;
            let Some(running) = self.awake(at).filter(|_| !is_hung) else { continue };
            if let Some((write, _)) = running.syncing.take_if(|(_, due)| *due <= now) {
                if let Err(fault) = running.wal.sync() {
                    self.log_failed(at, fault)?;
                    self.end_for_disk(at);
                    continue;
                }
                running.host.persisted(write);
                let pinned = running.wal.pinned(128 << 10);
                running.host.release_log(pinned);
                self.settle(at, Ok(()))?;
            }
            let Some(running) = self.awake(at) else { continue };
            if let Some((_, is_taken)) = running.flush_due.take_if(|(due, _)| *due <= now) {
                if !is_taken && let Err(fault) = self.nodes[at].engine.flush() {
                    return Err(self.violation(format!("a healthy store failed: {fault}")));
                }
                let Some(running) = &mut self.nodes[at].running else { continue };
                running.host.flushed();
                self.settle(at, Ok(()))?;
            }
            self.run_errands(at)?;
        }
        Ok(())
    }

    /// The store writes what it has in memory whenever it likes.
    fn spill(&mut self, at: usize) -> Result<(), Violation> {
        if self.awake(at).is_none() || !self.spilling.chance(100) {
            return Ok(());
        }
        if self.spilling.chance(300) {
            self.nodes[at].engine.seal();
        }
        match self.nodes[at].engine.spill() {
            Ok(_) => Ok(()),
            Err(fault) => Err(self.violation(format!("a healthy store failed: {fault}"))),
        }
    }

    /// What is done beside a host is done late, and in any order, and told later.
    fn run_errands(&mut self, at: usize) -> Result<(), Violation> {
        let now = self.now;
        loop {
            let told_after = self.spilling.below(TOLD_TICKS);
            let Some(running) = self.awake(at) else { return Ok(()) };
            if let Some(next) = running.done.iter().position(|(due, _)| *due <= now) {
                let (_, done) = running.done.swap_remove(next);
                let told = running.host.errand_done(done);
                self.settle(at, told)?;
                continue;
            }
            let Some(next) = running.errands.iter().position(|(due, _)| *due <= now) else { return Ok(()) };
            let (_, errand) = running.errands.swap_remove(next);
            // What it did is there before the host hears of it.
            let done = errand.run();
            running.done.push((now + told_after, done));
        }
    }
}
