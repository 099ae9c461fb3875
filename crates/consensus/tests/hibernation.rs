//! An idle group sleeps, and whatever happens wakes it: directed scenarios.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_consensus::{Consensus, Message, Options, Raft, ReadId, ReadOutcome, Recovered, Role};
use quorate_types::{Bytes, EntryKind, Index, NodeId, Position, Term};

const IDLE_TICKS: u64 = 10;

/// Replicas with disks that are done at once, and messages that arrive at once, unless to or from somebody cut off.
struct Group {
    replicas: Vec<Raft>,
    flying: Vec<(usize, usize, Message)>,
    cut: Vec<usize>,
    sent: usize,
    reads: Vec<(usize, ReadOutcome)>,
}

impl Group {
    /// The first replica leads.
    fn new(size: u64, change: impl Fn(&mut Options)) -> Self {
        let voters: Vec<NodeId> = (1..=size).map(NodeId).collect();
        let replica = |id: &NodeId| {
            let mut options = Options::new(*id, voters.clone(), id.0);
            options.hibernate_after_ticks = Some(IDLE_TICKS);
            change(&mut options);
            Raft::new(options, Recovered::default(), Index::START)
        };
        let replicas = voters.iter().map(replica).collect();
        let mut group = Self { replicas, flying: Vec::new(), cut: Vec::new(), sent: 0, reads: Vec::new() };
        // It is granted what it asks for; the others have not got round to it.
        while !matches!(group.replicas[0].status().role, Role::Leader { .. }) {
            group.replicas[0].tick();
            group.take(0);
            for (_, to, message) in std::mem::take(&mut group.flying) {
                if let Message::VoteRequest { term, pre, .. } = message {
                    let answer = Message::VoteResponse { term, granted: true, pre };
                    group.replicas[0].step(NodeId(to as u64 + 1), answer);
                }
            }
        }
        group.settle();
        group
    }

    fn take(&mut self, at: usize) {
        loop {
            let effects = self.replicas[at].take();
            let is_quiet = effects.persist.is_none() && effects.apply.is_empty();
            if let Some((write, _)) = effects.persist {
                self.replicas[at].persisted(write);
            }
            if let Some(entry) = effects.apply.last() {
                self.replicas[at].applied(entry.index);
            }
            self.reads.extend(effects.reads.into_iter().map(|(_, outcome)| (at, outcome)));
            let after = effects.send_after.into_iter().map(|(_, to, message)| (to, message));
            let sent = effects.send_now.into_iter().chain(after);
            self.flying.extend(sent.map(|(to, message)| (at, to.0 as usize - 1, message)));
            if is_quiet {
                return;
            }
        }
    }

    /// Everything that follows, until nothing does.
    fn settle(&mut self) {
        loop {
            (0..self.replicas.len()).for_each(|at| self.take(at));
            if self.flying.is_empty() {
                return;
            }
            for (from, to, message) in std::mem::take(&mut self.flying) {
                self.sent += 1;
                if !self.cut.contains(&from) && !self.cut.contains(&to) {
                    self.replicas[to].step(NodeId(from as u64 + 1), message);
                }
            }
        }
    }

    fn ticks(&mut self, count: u64) {
        for _ in 0..count {
            for at in 0..self.replicas.len() {
                if !self.cut.contains(&at) {
                    self.replicas[at].tick();
                    self.settle();
                }
            }
        }
    }

    fn asleep(&self) -> Vec<bool> {
        self.replicas.iter().map(Raft::is_hibernating).collect()
    }

    /// Three that have fallen asleep.
    fn sleeping() -> Self {
        let mut group = Self::new(3, |_| {});
        group.ticks(IDLE_TICKS + 10);
        assert_eq!(group.asleep(), [true; 3]);
        group
    }

    fn propose(&mut self, at: usize) -> Position {
        self.replicas[at].propose(EntryKind::Write, Bytes::from_static(b"x")).unwrap()
    }

    fn leader(&self) -> Option<usize> {
        self.replicas.iter().position(|replica| matches!(replica.status().role, Role::Leader { .. }))
    }
}

#[test]
fn an_idle_group_falls_asleep_and_says_nothing_any_more() {
    let mut group = Group::sleeping();
    group.sent = 0;
    group.ticks(10_000);
    assert_eq!((group.sent, group.leader()), (0, Some(0)));
    let term = group.replicas[0].status().term;
    assert!(group.replicas.iter().all(|replica| replica.status().term == term));
    assert!(group.replicas.iter().all(|replica| replica.status().commit == replica.last().index));
}

#[test]
fn a_group_that_is_asked_for_something_stays_awake() {
    let mut group = Group::new(3, |_| {});
    for at in 0..20 {
        if at % 2 == 0 {
            group.replicas[2].read(ReadId(at))
        } else {
            group.propose(0);
        }
        group.settle();
        group.ticks(IDLE_TICKS - 1);
        assert_eq!(group.asleep(), [false; 3], "at {at}");
    }
}

#[test]
fn a_proposal_wakes_everybody() {
    let mut group = Group::sleeping();
    let position = group.propose(0);
    group.settle();
    assert_eq!(group.asleep(), [false; 3]);
    assert!(group.replicas.iter().all(|replica| replica.status().commit == position.index));
    group.ticks(IDLE_TICKS + 10);
    assert_eq!(group.asleep(), [true; 3]);
}

#[test]
fn a_read_wakes_whoever_has_to_answer_it() {
    for at in 0..3 {
        let mut group = Group::sleeping();
        group.replicas[at].read(ReadId(1));
        group.settle();
        let index = group.replicas[0].status().commit;
        assert_eq!(group.reads, [(at, ReadOutcome::Ready(index))]);
        assert_eq!(group.asleep(), [false; 3]);
    }
}

#[test]
fn a_read_that_nobody_hears_of_fails_in_time() {
    for at in 0..2 {
        let mut group = Group::sleeping();
        group.cut = (0..3).filter(|other| *other != at).collect();
        group.replicas[at].read(ReadId(1));
        group.settle();
        group.ticks(60);
        assert_eq!(group.reads, [(at, ReadOutcome::Failed)]);
    }
}

#[test]
fn a_read_of_a_leader_that_slept_through_its_deposition_fails() {
    // Time does not pass for it, so nothing but an answer of a quorum may count: here a lease was held when it fell asleep.
    let mut group = Group::new(3, |options| options.lease_read = Some(22));
    group.ticks(IDLE_TICKS + 10);
    group.cut = vec![0];
    for at in [1, 2] {
        group.replicas[at].node_down(NodeId(1), 1 + at as u64);
    }
    group.ticks(10);
    let position = group.propose(group.leader().filter(|at| *at > 0).unwrap_or(1));
    group.settle();
    group.replicas[0].read(ReadId(1));
    group.settle();
    assert!(group.reads.is_empty(), "answered without {position}: {:?}", group.reads);
    (0..60).for_each(|_| group.replicas[0].tick());
    group.settle();
    assert_eq!(group.reads, [(0, ReadOutcome::Failed)]);
}

#[test]
fn an_explicit_wake_a_pause_and_a_lost_disk_wake_everybody() {
    let wakers: [fn(&mut Raft); 4] = [
        |raft| raft.wake(),
        |raft| raft.slept(),
        |raft| raft.peer_forgot(NodeId(3)),
        |raft| raft.transfer(Some(NodeId(2))),
    ];
    for (number, wake) in wakers.iter().enumerate() {
        for at in 0..if number == 3 { 1 } else { 2 } {
            let mut group = Group::sleeping();
            wake(&mut group.replicas[at]);
            group.settle();
            assert_eq!(group.asleep(), [false; 3], "waker {number} at {at}");
        }
    }
}

#[test]
fn a_group_with_a_follower_that_lags_stays_awake_unless_its_node_is_down() {
    let mut group = Group::sleeping();
    group.cut = vec![2];
    group.propose(0);
    group.settle();
    group.ticks(200);
    assert_eq!(group.asleep(), [false, false, true]);
    group.replicas[0].node_down(NodeId(3), 1);
    group.replicas[1].node_down(NodeId(3), 1);
    group.ticks(10);
    assert_eq!(group.asleep(), [true; 3], "the two that are left sleep without it");
    group.cut.clear();
    group.replicas[0].node_up(NodeId(3));
    group.settle();
    group.ticks(10);
    assert_eq!(group.replicas[2].last(), group.replicas[0].last(), "it is brought up to date");
    group.ticks(IDLE_TICKS + 10);
    assert_eq!((group.asleep(), group.leader()), (vec![true; 3], Some(0)));
}

#[test]
fn a_leader_without_a_quorum_up_wakes_and_steps_down() {
    let mut group = Group::sleeping();
    group.cut = vec![1, 2];
    group.replicas[0].node_down(NodeId(2), 1);
    assert!(group.replicas[0].is_hibernating(), "one may be down");
    group.replicas[0].node_down(NodeId(3), 1);
    group.ticks(60);
    assert_eq!(group.leader(), None);
    assert!(!group.replicas[0].is_hibernating());
}

#[test]
fn a_dead_leaders_followers_wake_and_elect() {
    for is_broken in [true, false] {
        let mut group = Group::sleeping();
        group.cut = vec![0];
        for at in [1, 2] {
            let delay = at as u64;
            if is_broken {
                group.replicas[at].peer_lost(NodeId(1), delay);
            } else {
                group.replicas[at].node_down(NodeId(1), delay);
            }
        }
        group.ticks(2);
        assert_eq!(group.replicas[2].status().leader, Some(NodeId(2)), "the shorter delay comes first");
        group.ticks(IDLE_TICKS + 10);
        assert_eq!(
            group.asleep(),
            [true, !is_broken, !is_broken],
            "they sleep again once the third is known to be down"
        );
    }
}

#[test]
fn a_follower_that_did_not_hear_that_the_group_sleeps_wakes_it() {
    let mut group = Group::new(3, |_| {});
    while !group.replicas[0].is_hibernating() {
        group.ticks(1);
    }
    // As if that had been lost on the way to the third.
    group.replicas[2].step(NodeId(1), Message::Heartbeat { term: Term(1), commit: Index::START, round: 0 });
    assert_eq!(group.asleep(), [true, true, false]);
    let term = group.replicas[0].status().term;
    group.ticks(100);
    assert_eq!(
        (group.asleep(), group.replicas[0].status().term),
        (vec![true; 3], term),
        "without a new leader"
    );
}

#[test]
fn a_follower_sleeps_only_with_a_whole_log() {
    let mut group = Group::sleeping();
    let (term, last) = (group.replicas[0].status().term, group.replicas[0].last());
    for wrong in [
        Position { index: last.index.next(), ..last },
        Position { index: last.index.previous(), ..last },
        Position { term: Term(last.term.0 + 1), ..last },
    ] {
        // Awake without the leader's knowing.
        group.replicas[1].step(NodeId(1), Message::Heartbeat { term, commit: Index::START, round: 0 });
        group.replicas[1].step(NodeId(1), Message::Hibernate { term, last: wrong });
        assert!(!group.replicas[1].is_hibernating(), "{wrong} is not its end");
        assert!(group.replicas[1].status().commit <= last.index);
        group.settle();
        assert!(!group.replicas[0].is_hibernating(), "the leader is told");
        group.ticks(IDLE_TICKS + 10);
    }
    // Nor when another leads, or when somebody says so who does not.
    group.replicas[1].wake();
    group.replicas[1].step(NodeId(3), Message::Hibernate { term, last });
    assert!(!group.replicas[1].is_hibernating());
}
