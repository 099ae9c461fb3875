//! A group whose messages take one tick, along the links of a graph, and whose disks are done at once.

use crate::fast::taken;
use crate::graph::Graph;
use quorate_consensus::{Consensus, HURRIED_TICKS_MAX, Message, Options, Raft, Recovered};
use quorate_types::{Bytes, EntryKind, Index, NodeId, Position};

/// How the nodes learn of links that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// By what does not come.
    Silent,
    /// The connections break, at both ends, also where one way would go on.
    Told,
    /// Idle groups sleep, and each node tells the others that it lives, as `host/liveness.rs` in `quorate-node` does.
    Watching,
}

impl Owner {
    pub(crate) const ALL: [Self; 3] = [Self::Silent, Self::Told, Self::Watching];
}

pub(crate) struct Network {
    pub(crate) replicas: Vec<Raft>,
    graph: Graph,
    flying: Vec<(usize, usize, Message)>,
    owner: Owner,
    numbers: Options,
    now: u64,
    /// For each node, when it heard each other last, and whether it takes that for down.
    heard: Vec<Vec<u64>>,
    down: Vec<Vec<bool>>,
}

pub(crate) fn id(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

fn options(at: usize, size: usize, seed: u64) -> Options {
    Options::new(id(at), (0..size).map(id).collect(), seed << 3 | at as u64)
}

/// The numbers that all replicas run by.
pub(crate) fn numbers() -> Options {
    options(0, 1, 0)
}

/// An idle group that sleeps does so after this, as in `quorate-node`.
pub(crate) const HIBERNATE_AFTER_TICKS: u64 = 50;

impl Network {
    pub(crate) fn new(size: usize, owner: Owner, seed: u64) -> Self {
        let replica = |at| {
            let hibernate_after_ticks = (owner == Owner::Watching).then_some(HIBERNATE_AFTER_TICKS);
            let options = Options { hibernate_after_ticks, ..options(at, size, seed) };
            Raft::new(options, Recovered::default(), Index::START)
        };
        Self {
            replicas: (0..size).map(replica).collect(),
            graph: Graph::complete(size),
            flying: Vec::new(),
            owner,
            numbers: numbers(),
            now: 0,
            heard: vec![vec![0; size]; size],
            down: vec![vec![false; size]; size],
        }
    }

    /// For a moment only these links are there, too short for anybody to notice.
    pub(crate) fn cut(&mut self, graph: Graph) {
        self.graph = graph;
    }

    /// From now on these links are there and no others; what is under way along another is lost.
    pub(crate) fn impose(&mut self, graph: Graph) {
        self.graph = graph;
        for at in 0..graph.size {
            for other in (0..graph.size).filter(|other| *other != at) {
                if self.owner == Owner::Told && !graph.has_both(at, other) {
                    let delay = self.delay_after(at, other);
                    self.replicas[at].peer_lost(id(other), delay);
                    self.take(at);
                }
            }
        }
    }

    /// The survivors go one after the other.
    fn delay_after(&self, at: usize, lost: usize) -> u64 {
        let before = (0..at).filter(|other| *other != lost && !self.down[at][*other]);
        1 + before.count() as u64 * HURRIED_TICKS_MAX
    }

    /// Time goes on by one tick.
    pub(crate) fn tick(&mut self) {
        self.now += 1;
        for (from, to, message) in std::mem::take(&mut self.flying) {
            if self.graph.has(from, to) {
                self.hear(to, from);
                self.replicas[to].step(id(from), message);
                self.take(to);
            }
        }
        if self.owner == Owner::Watching {
            self.watch();
        }
        for at in 0..self.replicas.len() {
            self.replicas[at].tick();
            self.take(at);
        }
    }

    fn watch(&mut self) {
        let (heartbeat, silence) = (self.numbers.heartbeat_ticks, self.numbers.election_ticks_min);
        for at in 0..self.replicas.len() {
            for other in (0..self.replicas.len()).filter(|other| *other != at) {
                if self.now.is_multiple_of(heartbeat) && self.graph.has(other, at) {
                    self.hear(at, other);
                }
                if self.now - self.heard[at][other] >= silence && !self.down[at][other] {
                    self.down[at][other] = true;
                    let delay = self.delay_after(at, other);
                    self.replicas[at].node_down(id(other), delay);
                }
            }
            self.take(at);
        }
    }

    fn hear(&mut self, at: usize, from: usize) {
        self.heard[at][from] = self.now;
        if std::mem::take(&mut self.down[at][from]) {
            self.replicas[at].node_up(id(from));
        }
    }

    fn take(&mut self, at: usize) {
        let messages = taken(&mut self.replicas[at]).into_iter();
        self.flying.extend(messages.map(|(to, message)| (at, to.0 as usize - 1, message)));
    }

    pub(crate) fn stand(&mut self, at: usize) {
        self.replicas[at].stand();
        self.take(at);
    }

    pub(crate) fn leads(&self, at: usize) -> bool {
        self.replicas[at].leader() == Some(id(at))
    }

    /// A client writes at a leader.
    pub(crate) fn propose(&mut self, at: usize) -> Option<Position> {
        let position = self.replicas[at].propose(EntryKind::Write, Bytes::from_static(b"x")).ok();
        self.take(at);
        position
    }
}
