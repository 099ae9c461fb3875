//! A node: what its disk and its state machine hold, and the replica, if it is running.

use super::World;
use crate::disk::Disk;
use crate::invariants::{Durable, Invariants};
use quorate_consensus::{
    Configuration, Consensus, Message, Options, Raft, ReadId, Role, SnapshotFetch, WriteId,
};
use quorate_types::{Index, LogWrite, NodeId, Position};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) struct Node {
    pub(super) id: NodeId,
    /// With the members that the durable state machine knows.
    pub(super) options: Options,
    pub(super) disk: Disk,
    /// What the state machine holds durably; `None` between giving it up for a snapshot and having that.
    pub(super) state: Option<Position>,
    pub(super) lives: u64,
    pub(super) running: Option<Running>,
}

/// Its replica, and what is under way for it.
pub(super) struct Running {
    pub(super) raft: Raft,
    /// The log in memory, as it follows from the writes handed out.
    pub(super) log: Disk,
    pub(super) writing: VecDeque<(WriteId, LogWrite)>,
    /// When the disk is done with what it was given; writes overlap, and finish in order.
    pub(super) busy_until: u64,
    pub(super) written: WriteId,
    pub(super) held: VecDeque<(WriteId, NodeId, Message)>,
    pub(super) applied: Index,
    /// The members as of what is applied.
    pub(super) configuration: Configuration,
    pub(super) commit: Index,
    /// Reads not yet answered, and the lowest index that is a right answer.
    pub(super) reads: BTreeMap<ReadId, Index>,
    /// Names are unique within a life only, as the trait asks.
    pub(super) reads_named: u64,
    pub(super) fetching: Option<SnapshotFetch>,
    pub(super) role: Option<Role>,
    pub(super) ticks: u64,
    /// When each other node was heard last, and which are silent: what the owner watches.
    pub(super) heard: BTreeMap<NodeId, u64>,
    pub(super) down: BTreeSet<NodeId>,
    pub(super) was_hibernating: bool,
}

impl Running {
    /// A node said something, or only that it is there.
    pub(super) fn hear(&mut self, from: NodeId, message: Option<Message>) {
        self.heard.insert(from, self.ticks);
        if self.down.remove(&from) {
            self.raft.node_up(from);
        }
        if let Some(message) = message {
            self.raft.step(from, message);
        }
    }
}

impl Node {
    /// Where its log would begin if it crashed now: a snapshot in place counts even when the log was not
    /// yet restarted after it.
    fn recovered(&self) -> Disk {
        let mut disk = self.disk.clone();
        if let Some(state) = self.state
            && !disk.holds(state)
        {
            disk.restart(state);
        }
        disk
    }

    pub(super) fn durable(&self, committed: Position, invariants: &Invariants) -> Durable {
        let is_restarted = self.state.filter(|state| !self.disk.holds(*state));
        let last = is_restarted.unwrap_or(self.disk.last());
        let holds_committed = match is_restarted {
            Some(state) => committed.index <= state.index,
            None => self.disk.holds(committed),
        };
        let configuration = match is_restarted {
            Some(state) => invariants.configuration_at(state.index),
            None => invariants.configuration_of(&self.disk),
        };
        Durable { id: self.id, last, holds_committed, configuration: configuration.clone() }
    }
}

impl World {
    pub(super) fn start(&mut self, at: usize) {
        if self.nodes[at].running.is_some() {
            return;
        }
        let seed = self.random.draw();
        let node = &mut self.nodes[at];
        node.disk = node.recovered();
        let configuration = node.options.configuration.clone();
        let applied = node.state.unwrap_or(node.disk.start).index;
        let options = Options { seed, ..node.options.clone() };
        let mut raft = Raft::new(options, node.disk.recovered(), applied);
        if node.state.is_none() {
            raft.state_lost();
        }
        node.lives += 1;
        node.running = Some(Running {
            commit: raft.status().commit,
            raft,
            log: node.disk.clone(),
            writing: VecDeque::new(),
            busy_until: 0,
            written: WriteId(0),
            held: VecDeque::new(),
            applied,
            configuration,
            reads: BTreeMap::new(),
            reads_named: 0,
            fetching: None,
            role: None,
            ticks: 0,
            heard: BTreeMap::new(),
            down: BTreeSet::new(),
            was_hibernating: false,
        });
        self.note(|world| format!("n{} starts, applied {applied}", world.nodes[at].id));
        self.drain(at);
    }
}
