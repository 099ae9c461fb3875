//! Proposals and reads, and what reads are answered.

use super::World;
use super::node::Node;
use quorate_consensus::{Consensus, ReadId, ReadOutcome};
use quorate_types::{Bytes, EntryKind};

impl World {
    pub(super) fn propose(&mut self, at: usize) -> bool {
        self.proposals += 1;
        let data = Bytes::from(self.proposals.to_le_bytes().to_vec());
        let Some(running) = &mut self.nodes[at].running else { return false };
        let Ok(position) = running.raft.propose(EntryKind::Write, data) else { return false };
        self.note(|world| format!("n{} proposes {position}", world.nodes[at].id));
        // Several proposals may leave in one write.
        if self.is_healed || self.chance(700) {
            self.drain(at);
        }
        true
    }

    pub(super) fn read(&mut self, at: usize) {
        let floor = self.invariants.committed();
        let Some(running) = &mut self.nodes[at].running else { return };
        running.reads_named += 1;
        let read = ReadId(running.reads_named);
        running.reads.insert(read, floor);
        running.raft.read(read);
        self.note(|world| format!("n{} reads as {}, committed {floor}", world.nodes[at].id, read.0));
        self.drain(at);
    }

    /// Linearizable reads (thesis, 6.4): the answer contains whatever anyone took for committed when the
    /// read was asked for.
    pub(super) fn answered(&mut self, at: usize, read: ReadId, outcome: ReadOutcome) {
        let committed = self.invariants.committed();
        let Node { id, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let id = *id;
        let floor = running.reads.remove(&read);
        let floor = floor.unwrap_or_else(|| panic!("n{id} answers {read:?} twice, or unasked"));
        match outcome {
            ReadOutcome::Ready(index) => {
                assert!(index >= floor, "n{id} answers {read:?} with {index}, {floor} was committed before");
                assert!(index <= committed, "n{id} answers {read:?} with {index}, of {committed}");
                self.counts.reads += 1;
            }
            ReadOutcome::Failed => self.counts.failed_reads += 1,
        }
        self.note(|_| format!("n{id} answers {}: {outcome:?}", read.0));
    }
}
