//! What a group was doing when its links failed.

use crate::graph::{Graph, orders};
use crate::network::{HIBERNATE_AFTER_TICKS, Network, Owner, numbers};
use quorate_consensus::Consensus;
use quorate_consensus::random::Random;
use quorate_types::Position;
use std::collections::BTreeSet;

/// The first node leads; where one follower differs from the others, it is the second.
pub(crate) const LEADER: usize = 0;
const OTHER: usize = 1;

/// Entries by which logs differ.
const ENTRIES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Logs {
    /// All hold the same.
    Equal,
    /// One follower lacks what the others have committed.
    Behind,
    /// The leader holds what nobody else has got.
    Unsent,
    /// The leader and one follower hold what nobody else has got.
    Half,
}

impl Logs {
    pub(crate) const ALL: [Self; 4] = [Self::Equal, Self::Behind, Self::Unsent, Self::Half];

    /// How many nodes are unlike the others, the leader among them.
    fn distinguished(self) -> usize {
        match self {
            Self::Equal | Self::Unsent => 1,
            Self::Behind | Self::Half => 2,
        }
    }
}

/// One case: the links that are left, and how things stood before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Start {
    pub(crate) graph: Graph,
    pub(crate) logs: Logs,
}

impl Start {
    /// These graphs with a leader at every node, and every state of the logs, but of those that differ in the nodes' names only the
    /// first.
    pub(crate) fn all(graphs: &[Graph]) -> BTreeSet<Self> {
        let mut starts = BTreeSet::new();
        for logs in Logs::ALL {
            let orders = orders(graphs[0].size, logs.distinguished());
            for graph in graphs {
                // The leader being the first, the graphs with the nodes in all orders put it everywhere.
                if orders.iter().all(|order| *graph <= graph.renamed(order)) {
                    starts.insert(Self { graph: *graph, logs });
                }
            }
        }
        starts
    }

    /// A group right after its links failed; the seed says when that was, and all timeouts.
    pub(crate) fn network(&self, owner: Owner, seed: u64) -> Network {
        let size = self.graph.size;
        let mut random =
            Random::new(self.graph.number() << 8 ^ seed << 40 ^ (self.logs as u64) << 4 ^ owner as u64);
        let mut network = Network::new(size, owner, random.draw() >> 3);
        network.stand(LEADER);
        let asleep = if owner == Owner::Watching { 2 * HIBERNATE_AFTER_TICKS } else { 0 };
        // At any time between two heartbeats, and up to an election timeout apart.
        for _ in 0..10 + asleep + random.between(0, numbers().election_ticks_min) {
            network.tick();
        }
        assert!(network.leads(LEADER), "nothing has failed yet");
        match self.logs {
            Logs::Equal => {}
            Logs::Unsent => write(&mut network),
            Logs::Behind => {
                let mut others = Graph::empty(size);
                for from in (0..size).filter(|at| *at != OTHER) {
                    (0..size).filter(|to| *to != from && *to != OTHER).for_each(|to| others.link(from, to));
                }
                network.cut(others);
                write(&mut network);
                (0..4).for_each(|_| network.tick());
                let newest = network.replicas[LEADER].status();
                assert_eq!(newest.commit, newest.last.index, "the others are a quorum");
                assert!(network.replicas[OTHER].last() < newest.last);
            }
            Logs::Half => {
                let mut link = Graph::empty(size);
                link.link(LEADER, OTHER);
                network.cut(link);
                write(&mut network);
                network.tick();
                let newest = network.replicas[LEADER].status();
                assert!(newest.commit < newest.last.index);
                assert_eq!(network.replicas[OTHER].last(), newest.last);
            }
        }
        network.impose(self.graph);
        network
    }

    /// Where the logs will end before anybody can be elected: a leader that cannot commit hands its log to whoever hears it, before it
    /// steps down.
    pub(crate) fn handed_on(&self, lasts: &[Position]) -> Vec<Position> {
        let last = |at| if self.graph.has(LEADER, at) { lasts[LEADER].max(lasts[at]) } else { lasts[at] };
        (0..self.graph.size).map(last).collect()
    }
}

/// Whether Raft lets anybody lead who could commit: somebody who reaches, both ways and himself included, a quorum of nodes whose logs end no later than his.
pub(crate) fn electable(graph: &Graph, lasts: &[Position]) -> bool {
    let votes = |at: usize| {
        let is_granted = |voter: &usize| graph.has_both(at, *voter) && lasts[*voter] <= lasts[at];
        1 + (0..graph.size).filter(|voter| *voter != at && is_granted(voter)).count()
    };
    (0..graph.size).any(|at| votes(at) >= graph.quorum())
}

fn write(network: &mut Network) {
    for _ in 0..ENTRIES {
        assert!(network.propose(LEADER).is_some(), "it leads");
    }
}
