//! Whether and when a leader is found after links failed, and whether it stays.

use crate::graph::Graph;
use crate::network::{Network, Owner, numbers};
use crate::start::{LEADER, Logs, Start, electable};
use quorate_consensus::Consensus;
use quorate_types::{Position, Term};
use std::fmt;

/// Election timeouts in which a leader must be found. One more for each election that two began at once, so that nobody won it.
const FOUND_WITHIN: u64 = 4;
/// More elections are not lost by chance.
const LOST_MAX: u64 = 8;
/// With those, so many of ten thousand may take longer than that.
const LATE_MAX: u64 = 1;
/// Election timeouts for which it must go on leading.
const STABLE_FOR: u64 = 20;
/// How often leaders may be replaced in that time where two partitions follow one another: two that stood at once, one unheard by the other, may
/// both have won by turns. Never after the first.
const CHANGES_MAX: u64 = 1;

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nobody reaches a quorum, and nobody leads.
    NoQuorum,
    /// Who led leads on.
    Stayed,
    /// Another was found who can commit.
    Found,
    /// Nobody leads, because everybody who reaches a quorum has too old a log for it.
    Constrained,
}

impl Verdict {
    pub(crate) const ALL: [Self; 4] = [Self::NoQuorum, Self::Stayed, Self::Found, Self::Constrained];
}

/// How often which verdict was right, and what it took.
#[derive(Default)]
pub(crate) struct Tally {
    counts: [u64; Verdict::ALL.len()],
    /// Ticks until the first commit, where another leader was found: all together, and the most.
    ticks: u64,
    ticks_max: u64,
    /// Groups that took longer than [`FOUND_WITHIN`].
    late: u64,
    /// Groups in which elections were lost, and the most in one.
    split: u64,
    lost_max: u64,
    changes_max: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (verdict, count) in Verdict::ALL.iter().zip(self.counts) {
            write!(f, "{verdict:?} {count}, ")?;
        }
        let mean = self.ticks / self.counts[Verdict::Found as usize].max(1);
        write!(
            f,
            "found after {mean} ticks on average and {} at most, late {}, ",
            self.ticks_max, self.late
        )?;
        write!(f, "elections lost in {} groups, {} at most; ", self.split, self.lost_max)?;
        write!(f, "replaced {} times at most", self.changes_max)
    }
}

/// A group whose links have failed.
struct Trial {
    graph: Graph,
    network: Network,
    /// The term each node leads, and a write there that is not committed.
    leading: Vec<Option<(Term, Option<Position>)>>,
    /// How often somebody began to lead.
    changes: u64,
}

impl Trial {
    fn new(graph: Graph, network: Network) -> Self {
        let mut trial = Self { graph, network, leading: vec![None; graph.size], changes: 0 };
        trial.look();
        trial.changes = 0;
        trial
    }

    fn look(&mut self) {
        for (at, leading) in self.leading.iter_mut().enumerate() {
            let term = self.network.replicas[at].term();
            if !self.network.leads(at) {
                *leading = None;
            } else if leading.is_none_or(|(of, _)| of != term) {
                *leading = Some((term, None));
                self.changes += 1;
            }
        }
    }

    /// Time goes on by one tick, while clients write to whoever leads and may be able to commit, one write at a time. Whether one was committed.
    fn tick(&mut self, is_writing: bool) -> bool {
        self.network.tick();
        self.look();
        let mut is_committed = false;
        for (at, leading) in self.leading.iter_mut().enumerate() {
            let Some((_, write)) = leading else { continue };
            match write {
                Some(position) if self.network.replicas[at].status().commit >= position.index => {
                    is_committed = true;
                    *write = None;
                }
                None if is_writing && self.graph.is_quorum_connected(at) => *write = self.network.propose(at),
                _ => {}
            }
        }
        is_committed
    }

    fn lasts(&self) -> Vec<Position> {
        self.network.replicas.iter().map(Consensus::last).collect()
    }

    fn term(&self) -> u64 {
        self.network.replicas.iter().map(|replica| replica.term().0).max().unwrap()
    }

    /// Looks for a leader: the tick of the first commit, and how many elections nobody won before.
    fn find(&mut self, what: &str) -> Option<(u64, u64)> {
        let (election, term) = (numbers().election_ticks_max, self.term());
        let mut tick = 0;
        loop {
            tick += 1;
            let is_committed = self.tick(true);
            let lost = (self.term() - term).saturating_sub(1);
            if is_committed {
                return Some((tick, lost));
            }
            if tick >= election * (FOUND_WITHIN + lost.min(LOST_MAX)) {
                assert!(!self.leading.iter().any(Option::is_some), "{what}: one leads who cannot commit");
                return None;
            }
        }
    }

    /// Watches the leader; how often it was replaced.
    fn stay(&mut self, what: &str) -> u64 {
        self.changes = 0;
        for timeout in 0..STABLE_FOR {
            let mut is_committed = false;
            for _ in 0..numbers().election_ticks_max {
                is_committed |= self.tick(!is_committed);
            }
            assert!(is_committed, "{what}: nothing was committed in the election timeout {timeout}");
        }
        self.changes
    }
}

impl Tally {
    /// How often each of [`Verdict::ALL`] was right; prints it all.
    pub(crate) fn counts(&self, name: &str) -> [u64; Verdict::ALL.len()] {
        println!("{name}: {self}");
        let [_, stayed, found, _] = self.counts;
        assert!(
            self.late <= (stayed + found) * LATE_MAX / 10_000,
            "{name}: luck alone is not so bad: {self}"
        );
        self.counts
    }

    /// A healthy group whose links fail: what becomes of it is known from how it stood.
    pub(crate) fn add_start(&mut self, start: &Start, owner: Owner, seed: u64) {
        let what = format!("{start:?}, {owner:?}, {seed}");
        let graph = start.graph;
        let mut trial = Trial::new(graph, start.network(owner, seed));
        let expected = if !graph.has_quorum() {
            Verdict::NoQuorum
        } else if graph.is_quorum_connected(LEADER) {
            Verdict::Stayed
        } else if electable(&graph, &start.handed_on(&trial.lasts())) {
            Verdict::Found
        } else {
            Verdict::Constrained
        };
        let term = trial.term();
        let (verdict, changes) = self.judge(&mut trial, &what);
        assert_eq!(verdict, expected, "{what}");
        assert_eq!(changes, 0, "{what}: the leader was replaced");
        if verdict != Verdict::Found {
            assert_eq!(trial.term(), term, "{what}: nobody else could win, but somebody began a term");
        }
    }

    /// A group whose links fail, and, after a time of that, fail in another way.
    pub(crate) fn add_pair(&mut self, [before, graph]: [Graph; 2], owner: Owner, seed: u64) {
        let what = format!("{before:?}, then {graph:?}, {owner:?}, {seed}");
        let election = numbers().election_ticks_max;
        let start = Start { graph: before, logs: Logs::Equal };
        let mut trial = Trial::new(before, start.network(owner, seed));
        for _ in 0..FOUND_WITHIN * election + seed % (2 * election) {
            trial.tick(true);
        }
        trial.network.impose(graph);
        let mut trial = Trial::new(graph, trial.network);
        let (_, changes) = self.judge(&mut trial, &what);
        assert!(changes <= CHANGES_MAX, "{what}: leaders were replaced {changes} times");
    }

    /// What becomes of a group, and how often a leader that was found is replaced.
    fn judge(&mut self, trial: &mut Trial, what: &str) -> (Verdict, u64) {
        let graph = trial.graph;
        let is_led = (0..graph.size).any(|at| trial.network.leads(at) && graph.is_quorum_connected(at));
        let Some((ticks, lost)) = trial.find(what) else {
            let verdict = if graph.has_quorum() { Verdict::Constrained } else { Verdict::NoQuorum };
            assert!(!electable(&graph, &trial.lasts()), "{what}: one could lead, and nobody does");
            self.counts[verdict as usize] += 1;
            return (verdict, 0);
        };
        let verdict = if is_led { Verdict::Stayed } else { Verdict::Found };
        if verdict == Verdict::Found {
            self.ticks += ticks;
            self.ticks_max = self.ticks_max.max(ticks);
        }
        self.late += u64::from(ticks > FOUND_WITHIN * numbers().election_ticks_max);
        self.counts[verdict as usize] += 1;
        self.split += u64::from(lost > 0);
        self.lost_max = self.lost_max.max(lost);
        let changes = trial.stay(what);
        self.changes_max = self.changes_max.max(changes);
        (verdict, changes)
    }
}
