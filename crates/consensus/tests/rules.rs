//! Raft's rules as directed scenarios: those that random runs hardly ever meet.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_consensus::{
    Consensus, Effects, Message, Options, Raft, ReadId, ReadOutcome, Recovered, Role, SnapshotMeta, WriteId,
};
use quorate_types::{Bytes, Entry, EntryKind, HardState, Index, NodeId, Position, Term};

/// A write that the disk is still busy with, and the messages that wait for it.
type Unreported = (WriteId, Vec<(NodeId, Message)>);

/// Replicas whose messages are delivered by hand.
struct Cluster {
    replicas: Vec<Raft>,
    flying: Vec<(NodeId, NodeId, Message)>,
    applied: Vec<Vec<Entry>>,
    reads: Vec<(usize, ReadId, ReadOutcome)>,
    /// Replicas whose disks take their time: writes are not reported until asked for.
    slow: Vec<usize>,
    unreported: Vec<Vec<Unreported>>,
}

impl Cluster {
    fn new(recovered: Vec<Recovered>) -> Self {
        Self::with(recovered, None)
    }

    fn with(recovered: Vec<Recovered>, lease_read: Option<u64>) -> Self {
        let size = recovered.len();
        let voters: Vec<NodeId> = (1..=size as u64).map(NodeId).collect();
        let replica = |(at, recovered): (usize, Recovered)| {
            let options = Options { lease_read, ..Options::new(voters[at], voters.clone(), at as u64) };
            Raft::new(options, recovered, Index::START)
        };
        Self {
            replicas: recovered.into_iter().enumerate().map(replica).collect(),
            flying: Vec::new(),
            applied: vec![Vec::new(); size],
            reads: Vec::new(),
            slow: Vec::new(),
            unreported: vec![Vec::new(); size],
        }
    }

    fn take(&mut self, at: usize) {
        loop {
            let effects: Effects = self.replicas[at].take();
            let is_quiet = effects.persist.is_none() && effects.apply.is_empty();
            let from = NodeId(at as u64 + 1);
            self.flying.extend(effects.send_now.into_iter().map(|(to, message)| (from, to, message)));
            self.reads.extend(effects.reads.into_iter().map(|(read, outcome)| (at, read, outcome)));
            let mut after: Vec<(NodeId, Message)> =
                effects.send_after.into_iter().map(|(_, to, message)| (to, message)).collect();
            if let Some((write, _)) = effects.persist {
                if self.slow.contains(&at) {
                    self.unreported[at].push((write, std::mem::take(&mut after)));
                } else {
                    self.replicas[at].persisted(write);
                }
            }
            if let Some(waiting) = self.unreported[at].last_mut() {
                waiting.1.append(&mut after);
            }
            self.flying.extend(after.into_iter().map(|(to, message)| (from, to, message)));
            if let Some(last) = effects.apply.last() {
                self.replicas[at].applied(last.index);
                self.applied[at].extend(effects.apply);
            }
            if is_quiet {
                return;
            }
        }
    }

    /// The disk catches up.
    fn report(&mut self, at: usize) {
        let from = NodeId(at as u64 + 1);
        for (write, after) in std::mem::take(&mut self.unreported[at]) {
            self.replicas[at].persisted(write);
            self.flying.extend(after.into_iter().map(|(to, message)| (from, to, message)));
        }
        self.take(at);
    }

    /// Delivers everything between these replicas, and loses the rest, until nothing moves.
    fn deliver(&mut self, among: &[usize]) {
        for at in among {
            self.take(*at);
        }
        while !self.flying.is_empty() {
            for (from, to, message) in std::mem::take(&mut self.flying) {
                let (from_at, to_at) = (from.0 as usize - 1, to.0 as usize - 1);
                if among.contains(&from_at) && among.contains(&to_at) {
                    self.replicas[to_at].step(from, message);
                    self.take(to_at);
                }
            }
        }
    }

    /// Lets `at` lead with the votes of `among`, everybody else silent.
    fn elect(&mut self, at: usize, among: &[usize]) {
        for _ in 0..200 {
            // Voters have not heard a leader for long, but do not stand themselves.
            for other in among {
                if *other != at {
                    for _ in 0..25 {
                        self.tick_only_waiting(*other);
                    }
                }
            }
            self.replicas[at].tick();
            self.deliver(among);
            if matches!(self.replicas[at].status().role, Role::Leader { .. }) {
                return;
            }
        }
        panic!("replica {at} was not elected among {among:?}: {:?}", self.replicas[at].status());
    }

    /// Time goes by for a voter; should it stand itself, nobody hears it.
    fn tick_only_waiting(&mut self, at: usize) {
        let before = self.flying.len();
        self.replicas[at].tick();
        self.take(at);
        self.flying.truncate(before);
    }

    fn propose(&mut self, at: usize, text: &'static str) -> Position {
        self.replicas[at].propose(EntryKind::Write, Bytes::from_static(text.as_bytes())).unwrap()
    }
}

fn log(terms: &[u64]) -> Recovered {
    let entries: Vec<Entry> = terms
        .iter()
        .enumerate()
        .map(|(at, term)| Entry {
            term: Term(*term),
            index: Index(at as u64 + 1),
            kind: EntryKind::Write,
            data: Bytes::from(format!("{at} of term {term}")),
        })
        .collect();
    let term = terms.last().map_or(Term(0), |term| Term(*term));
    Recovered { hard_state: HardState { term, ..HardState::default() }, entries, ..Recovered::default() }
}

#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    // Figure 8 of the paper: S1 has an entry of term 2 that S2 has too; S5 has one of term 3 there. S1 leads
    // again and brings its old entry to a third replica: a quorum holds it, and still it may be overwritten.
    let mut cluster = Cluster::new(vec![log(&[1, 2]), log(&[1, 2]), log(&[1]), log(&[1]), log(&[1, 3])]);
    // S1 leads with the votes of S2 and S3; nothing of its new term reaches anyone yet.
    while !cluster.flying.iter().any(|(_, _, message)| matches!(message, Message::VoteRequest { .. })) {
        cluster.replicas[0].tick();
        cluster.take(0);
    }
    for pre in [true, false] {
        let term = Term(cluster.replicas[0].status().term.0 + u64::from(pre));
        for voter in [2, 3] {
            cluster.replicas[0].step(NodeId(voter), Message::VoteResponse { term, granted: true, pre });
        }
        cluster.take(0);
    }
    let Role::Leader { fence } = cluster.replicas[0].status().role else { panic!("S1 does not lead") };
    cluster.flying.clear();
    // The followers get everything but the fence of the new term.
    let term = cluster.replicas[0].status().term;
    for follower in [1u64, 2] {
        cluster.replicas[0].step(NodeId(follower + 1), Message::Appended { term, matched: Index(2) });
    }
    cluster.take(0);
    let status = cluster.replicas[0].status();
    assert!(fence.index > Index(2));
    assert!(status.commit < Index(2), "an entry of term 2 was committed by counting: {status:?}");
    // With its own fence on a quorum, everything before is committed as well.
    for follower in [1u64, 2] {
        cluster.replicas[0].step(NodeId(follower + 1), Message::Appended { term, matched: fence.index });
    }
    cluster.take(0);
    assert_eq!(cluster.replicas[0].status().commit, fence.index);
}

#[test]
fn a_lone_replica_commits_only_what_is_durable() {
    let mut cluster = Cluster::new(vec![log(&[])]);
    cluster.slow = vec![0];
    cluster.replicas[0].tick();
    cluster.take(0);
    let fence = cluster.replicas[0].last().index;
    cluster.propose(0, "x");
    cluster.take(0);
    assert_eq!(cluster.replicas[0].status().commit, Index::START, "nothing is durable yet");
    let write = cluster.unreported[0][0].0;
    cluster.replicas[0].persisted(write);
    assert_eq!(cluster.replicas[0].status().commit, fence, "the fence is durable, the write is not");
    assert!(cluster.applied[0].is_empty());
    cluster.report(0);
    assert_eq!(cluster.applied[0].len(), 2, "the fence and the write");
}

#[test]
fn a_vote_leaves_only_after_it_is_durable() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.slow = vec![1];
    for _ in 0..60 {
        cluster.tick_only_waiting(1);
    }
    cluster.unreported[1].clear();
    let request =
        Message::VoteRequest { term: Term(9), last: Position::default(), pre: false, transfer: false };
    cluster.replicas[1].step(NodeId(1), request);
    cluster.take(1);
    assert!(cluster.flying.is_empty(), "promised before it was written: {:?}", cluster.flying);
    cluster.report(1);
    assert!(
        matches!(cluster.flying[..], [(_, NodeId(1), Message::VoteResponse { granted: true, .. })]),
        "{:?}",
        cluster.flying
    );
}

#[test]
fn a_candidate_asks_only_after_its_own_vote_is_durable() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    for _ in 0..60 {
        cluster.tick_only_waiting(1);
    }
    cluster.slow = vec![1];
    cluster.replicas[1].step(NodeId(1), Message::VoteResponse { term: Term(1), granted: true, pre: true });
    cluster.take(1);
    assert!(cluster.flying.is_empty(), "it could forget its vote and give another: {:?}", cluster.flying);
    cluster.report(1);
    let asks = |message: &Message| matches!(message, Message::VoteRequest { pre: false, .. });
    assert!(cluster.flying.iter().filter(|(_, _, message)| asks(message)).count() == 2);
}

#[test]
fn a_vote_is_remembered_over_a_crash() {
    let options = |seed| Options::new(NodeId(2), [1, 2, 3].map(NodeId).to_vec(), seed);
    let last = Position { term: Term(1), index: Index(1) };
    let request = Message::VoteRequest { term: Term(1), last, pre: false, transfer: false };
    let ask = |replica: &mut Raft, candidate| {
        for _ in 0..60 {
            replica.tick();
        }
        replica.take();
        replica.step(NodeId(candidate), request.clone());
        replica.take()
    };
    let granted = |effects: &Effects| {
        let is_vote = |message: &Message| matches!(message, Message::VoteResponse { granted: true, .. });
        effects.send_after.iter().any(|(_, _, message)| is_vote(message))
    };
    let mut replica = Raft::new(options(1), log(&[1]), Index::START);
    let effects = ask(&mut replica, 3);
    assert!(granted(&effects));
    let (_, write) = effects.persist.unwrap();
    let recovered = Recovered { hard_state: write.hard_state.unwrap(), ..log(&[1]) };
    let mut replica = Raft::new(options(2), recovered, Index::START);
    assert!(!granted(&ask(&mut replica, 1)), "a second vote in the term");
    assert!(granted(&ask(&mut replica, 3)), "the same vote again");
}

#[test]
fn a_replica_votes_once_in_a_term() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    for _ in 0..60 {
        cluster.tick_only_waiting(1);
    }
    let request =
        Message::VoteRequest { term: Term(9), last: Position::default(), pre: false, transfer: false };
    let mut granted = Vec::new();
    for candidate in [1, 3, 1] {
        cluster.replicas[1].step(NodeId(candidate), request.clone());
        cluster.take(1);
        let answer = cluster.flying.pop().unwrap().2;
        granted.push(matches!(answer, Message::VoteResponse { granted: true, .. }));
    }
    assert_eq!(granted, [true, false, true], "the same candidate may ask again, another may not");
}

#[test]
fn an_acknowledgement_leaves_only_after_it_is_durable() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    cluster.slow = vec![1];
    let position = cluster.propose(0, "x");
    cluster.deliver(&[0, 1]);
    assert!(cluster.replicas[0].status().commit < position.index, "only the leader holds it durably");
    cluster.report(1);
    cluster.deliver(&[0, 1]);
    assert_eq!(cluster.replicas[0].status().commit, position.index);
}

#[test]
fn a_leader_counts_itself_only_when_it_is_durable() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    cluster.slow = vec![0];
    let position = cluster.propose(0, "x");
    cluster.deliver(&[0, 1]);
    assert!(cluster.replicas[0].status().commit < position.index, "only one follower holds it durably");
    cluster.report(0);
    assert_eq!(cluster.replicas[0].status().commit, position.index);
}

#[test]
fn a_follower_commits_only_what_it_knows_to_be_equal() {
    // Its second and third entry are of a leader that is gone. The new one commits three of its own, and its
    // probe says so, but shows only the first to be the same.
    let mut cluster = Cluster::new(vec![log(&[]), log(&[1, 1, 1]), log(&[])]);
    let previous = Position { term: Term(1), index: Index(1) };
    let probe = Message::Append { term: Term(2), previous, entries: Vec::new(), commit: Index(3) };
    cluster.replicas[1].step(NodeId(1), probe);
    cluster.take(1);
    assert_eq!(cluster.replicas[1].status().commit, Index(1));
}

#[test]
fn a_replica_that_starts_honours_the_lease_it_may_have_granted() {
    // It may have answered its leader right before it crashed, and that leader reads by lease.
    let mut cluster = Cluster::new(vec![log(&[1]), log(&[1]), log(&[1])]);
    let last = Position { term: Term(1), index: Index(1) };
    for pre in [true, false] {
        let request = Message::VoteRequest { term: Term(2), last, pre, transfer: false };
        cluster.replicas[1].step(NodeId(1), request);
        cluster.take(1);
    }
    let granted = |message: &Message| matches!(message, Message::VoteResponse { granted: true, .. });
    assert!(!cluster.flying.iter().any(|(_, _, message)| granted(message)), "{:?}", cluster.flying);
}

#[test]
fn a_replica_without_state_does_not_campaign() {
    let mut cluster = Cluster::new(vec![log(&[1]), log(&[1]), log(&[1])]);
    cluster.replicas[1].state_lost();
    for _ in 0..200 {
        cluster.replicas[1].tick();
        cluster.take(1);
    }
    cluster.replicas[1].step(NodeId(1), Message::TimeoutNow { term: Term(1) });
    cluster.take(1);
    assert!(cluster.flying.is_empty(), "{:?}", cluster.flying);
}

#[test]
fn a_replica_that_lost_its_state_says_so_though_nothing_is_written() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    cluster.propose(0, "all");
    cluster.deliver(&[0, 1, 2]);
    let last = cluster.replicas[0].status().last;
    assert_eq!(cluster.replicas[1].status().last, last, "it has every entry");
    // It came back so quickly that nobody noticed.
    cluster.replicas[1].state_lost();
    let mut wanted = Vec::new();
    for _ in 0..20 {
        cluster.replicas[0].tick();
        let effects = cluster.replicas[0].take();
        wanted.extend(effects.snapshots_wanted);
        for (to, message) in effects.send_now {
            cluster.replicas[to.0 as usize - 1].step(NodeId(1), message);
        }
        for at in [1, 2] {
            for (_, to, message) in cluster.replicas[at].take().send_after {
                assert_eq!(to, NodeId(1));
                cluster.replicas[0].step(NodeId(at as u64 + 1), message);
            }
        }
    }
    assert_eq!(wanted, [NodeId(2)], "once: until it is offered one, or is probed again");
}

#[test]
fn nothing_is_handed_over_to_a_replica_without_a_state() {
    for (stateless, heir) in [(1, Some(NodeId(3))), (2, Some(NodeId(2)))] {
        let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
        cluster.elect(0, &[0, 1, 2]);
        cluster.replicas[stateless].state_lost();
        for _ in 0..20 {
            cluster.replicas[0].tick();
            cluster.deliver(&[0, 1, 2]);
        }
        for heir in [heir, None] {
            cluster.replicas[0].transfer(None);
            let told = cluster.replicas[0]
                .take()
                .send_now
                .into_iter()
                .find_map(|(to, message)| matches!(message, Message::TimeoutNow { .. }).then_some(to));
            assert_eq!(told, heir);
            assert_eq!(
                cluster.replicas[0].can_propose().is_ok(),
                heir.is_none(),
                "writes wait for an heir only"
            );
            // It goes by unanswered; and then there is nobody who could.
            let other = if stateless == 1 { 2 } else { 1 };
            cluster.replicas[other].state_lost();
            for _ in 0..100 {
                cluster.replicas[0].tick();
                cluster.deliver(&[0, 1, 2]);
            }
        }
    }
}

#[test]
fn a_deposed_leader_answers_no_read_it_took_before() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    // Cut off with a read; the others elect another leader, who commits something.
    cluster.replicas[0].read(ReadId(1));
    cluster.take(0);
    cluster.flying.clear();
    cluster.elect(1, &[1, 2]);
    cluster.propose(1, "newer");
    cluster.deliver(&[1, 2]);
    cluster.deliver(&[0, 1, 2]);
    for _ in 0..100 {
        cluster.replicas[0].tick();
        cluster.replicas[1].tick();
        cluster.deliver(&[0, 1, 2]);
    }
    assert_eq!(cluster.reads, [(0, ReadId(1), ReadOutcome::Failed)]);
}

#[test]
fn an_old_answer_does_not_confirm_a_new_read() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    cluster.replicas[0].read(ReadId(1));
    cluster.take(0);
    let round = cluster.flying.iter().find_map(|(_, _, message)| match message {
        Message::Heartbeat { round, .. } if *round > 0 => Some(*round),
        _ => None,
    });
    let round = round.unwrap();
    cluster.flying.clear();
    let term = cluster.replicas[0].status().term;
    let old = Message::HeartbeatResponse { term, round: round - 1, last: Index(1), withholds: false };
    cluster.replicas[0].step(NodeId(2), old);
    cluster.take(0);
    assert!(cluster.reads.is_empty(), "an answer to an earlier round proves nothing about now");
    cluster.replicas[0]
        .step(NodeId(2), Message::HeartbeatResponse { term, round, last: Index(1), withholds: false });
    cluster.take(0);
    assert!(matches!(cluster.reads[..], [(0, ReadId(1), ReadOutcome::Ready(_))]));
}

#[test]
fn who_asks_a_leader_of_three_for_a_read_is_answered_without_a_round() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    cluster.deliver(&[0, 1, 2]);
    let term = cluster.replicas[0].status().term;
    let asks = |read| Message::ReadRequest { term, read: ReadId(read) };
    cluster.replicas[0].step(NodeId(2), asks(7));
    let sent = cluster.replicas[0].take().send_now;
    assert!(matches!(sent[..], [(NodeId(2), Message::ReadResponse { index: Some(_), .. })]), "{sent:?}");
    // Of another term it is no word about this one.
    cluster.replicas[0].step(NodeId(2), Message::ReadRequest { term: Term(term.0 - 1), read: ReadId(9) });
    let sent = cluster.replicas[0].take().send_now;
    assert!(!sent.iter().any(|(_, message)| matches!(message, Message::ReadResponse { index: Some(_), .. })));
    // While a round is under way it joins the next, as others do.
    cluster.replicas[0].read(ReadId(1));
    cluster.replicas[0].take();
    cluster.replicas[0].step(NodeId(2), asks(8));
    let sent = cluster.replicas[0].take().send_now;
    assert!(sent.is_empty(), "{sent:?}");
}

#[test]
fn an_answer_to_an_earlier_life_is_not_taken_for_one_to_this() {
    // A follower forwards a read and crashes. Reads are named anew in its next life, and the answer to the
    // old one comes late: by then more was committed than it tells of.
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    let forward = |cluster: &mut Cluster| {
        cluster.replicas[1].read(ReadId(1));
        cluster.take(1);
        match cluster.flying.pop() {
            Some((_, _, Message::ReadRequest { read, .. })) => read,
            other => panic!("not forwarded: {other:?}"),
        }
    };
    let old = forward(&mut cluster);
    let status = cluster.replicas[1].status();
    let mut recovered = log(&[1]);
    recovered.hard_state.term = status.term;
    let options = Options::new(NodeId(2), [1, 2, 3].map(NodeId).to_vec(), 99);
    cluster.replicas[1] = Raft::new(options, recovered, Index::START);
    let heartbeat = Message::Heartbeat { term: status.term, commit: Index(1), round: 1 };
    cluster.replicas[1].step(NodeId(1), heartbeat);
    cluster.take(1);
    let new = forward(&mut cluster);
    let answer = |read| Message::ReadResponse { term: status.term, read, index: Some(Index(1)) };
    cluster.replicas[1].step(NodeId(1), answer(old));
    cluster.take(1);
    assert_eq!(cluster.reads, [], "an answer to the earlier life");
    cluster.replicas[1].step(NodeId(1), answer(new));
    cluster.take(1);
    assert_eq!(cluster.reads, [(1, ReadId(1), ReadOutcome::Ready(Index(1)))]);
}

#[test]
fn a_leader_that_let_another_campaign_reads_by_lease_no_more() {
    // The word to campaign is late. The leader gives the hand-over up, renews its lease and is cut off; then the
    // word arrives, and its election counts in spite of the lease. Whoever reads by that lease reads the past.
    let mut cluster = Cluster::with(vec![log(&[]), log(&[]), log(&[])], Some(22));
    cluster.elect(0, &[0, 1, 2]);
    cluster.replicas[0].transfer(Some(NodeId(3)));
    cluster.take(0);
    let is_word = |message: &Message| matches!(message, Message::TimeoutNow { .. });
    let at = cluster.flying.iter().position(|(_, _, message)| is_word(message)).unwrap();
    let (_, _, word) = cluster.flying.remove(at);
    for _ in 0..30 {
        cluster.replicas[0].tick();
        cluster.deliver(&[0, 1, 2]);
    }
    assert!(cluster.replicas[0].can_propose().is_ok(), "the hand-over was given up");
    cluster.replicas[2].step(NodeId(1), word);
    cluster.deliver(&[1, 2]);
    assert!(matches!(cluster.replicas[2].status().role, Role::Leader { .. }));
    cluster.replicas[0].read(ReadId(1));
    cluster.take(0);
    assert_eq!(cluster.reads, [], "answered without asking anyone, though another leads");
}

#[test]
fn a_broken_connection_is_no_reason_to_vote_where_reads_go_by_lease() {
    let mut cluster = Cluster::with(vec![log(&[]), log(&[]), log(&[])], Some(22));
    cluster.elect(0, &[0, 1, 2]);
    let last = cluster.replicas[0].status().last;
    cluster.replicas[1].peer_lost(NodeId(1), 1);
    for pre in [true, false] {
        let request = Message::VoteRequest { term: Term(9), last, pre, transfer: false };
        cluster.replicas[1].step(NodeId(3), request);
    }
    cluster.take(1);
    let granted = |message: &Message| matches!(message, Message::VoteResponse { granted: true, .. });
    assert!(!cluster.flying.iter().any(|(_, _, message)| granted(message)), "{:?}", cluster.flying);
}

#[test]
fn a_leader_steps_down_one_election_timeout_after_it_heard_a_quorum() {
    // At whatever time its links fail. One that looked once in an election timeout who was heard since would take up to two, in which those
    // who still hear it help nobody else into office.
    for ticks_before in 0..60 {
        let mut cluster = leading_with_slow(&[]);
        pass(&mut cluster, ticks_before);
        let mut ticks = 0;
        while matches!(cluster.replicas[0].status().role, Role::Leader { .. }) {
            cluster.replicas[0].tick();
            cluster.deliver(&[0]);
            ticks += 1;
        }
        // It heard them up to a heartbeat before.
        assert!((21..=25).contains(&ticks), "{ticks} ticks, cut off after {ticks_before}");
    }
}

/// A leader whose process was busy counts fewer ticks than those who wait for it.
#[test]
fn a_leader_that_time_went_by_for_heartbeats_at_its_next_tick() {
    for ticks_before in 0..10 {
        let mut cluster = leading_with_slow(&[]);
        pass(&mut cluster, ticks_before);
        cluster.replicas[0].slept();
        cluster.replicas[0].tick();
        let sent = cluster.replicas[0].take().send_now;
        let beats = sent.iter().filter(|(_, message)| matches!(message, Message::Heartbeat { .. }));
        assert_eq!(beats.count(), 2, "{ticks_before} ticks before: {sent:?}");
    }
}

#[test]
fn a_leader_finds_somebody_to_hand_over_to_at_any_time() {
    // Also right after it saw whether a quorum was heard, and before the next answer.
    for ticks_before in 0..60 {
        let mut cluster = leading_with_slow(&[]);
        pass(&mut cluster, ticks_before);
        cluster.replicas[0].tick();
        cluster.replicas[0].transfer(None);
        cluster.take(0);
        let is_word = |message: &Message| matches!(message, Message::TimeoutNow { .. });
        assert!(cluster.flying.iter().any(|(_, _, message)| is_word(message)), "after {ticks_before} ticks");
    }
}

#[test]
fn a_leader_hands_over_when_asked() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    cluster.propose(0, "x");
    cluster.replicas[0].transfer(Some(NodeId(3)));
    assert!(cluster.replicas[0].propose(EntryKind::Write, Bytes::new()).is_err());
    cluster.deliver(&[0, 1, 2]);
    assert!(matches!(cluster.replicas[2].status().role, Role::Leader { .. }));
    assert_eq!(cluster.replicas[0].status().leader, Some(NodeId(3)), "without waiting for any timeout");
}

#[test]
fn a_broken_connection_starts_an_election_at_once_and_a_false_alarm_does_not() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    let term = cluster.replicas[0].status().term;
    // Only one follower saw its connection break, and the leader lives: the other refuses.
    cluster.replicas[1].peer_lost(NodeId(1), 1);
    for _ in 0..5 {
        for at in 0..3 {
            cluster.replicas[at].tick();
        }
        cluster.deliver(&[0, 1, 2]);
    }
    assert_eq!(cluster.replicas[0].status().term, term, "the leader was not disturbed");
    // Now it is dead, and both saw it.
    cluster.replicas[1].peer_lost(NodeId(1), 1);
    cluster.replicas[2].peer_lost(NodeId(1), 1);
    let mut ticks = 0;
    while !(1..3).any(|at| matches!(cluster.replicas[at].status().role, Role::Leader { .. })) {
        ticks += 1;
        assert!(ticks <= 25, "no new leader within an ordinary election timeout");
        for at in 1..3 {
            cluster.replicas[at].tick();
        }
        cluster.deliver(&[1, 2]);
    }
}

#[test]
fn what_cannot_be_is_ignored() {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    let before = cluster.replicas[1].status();
    let entry = |index: u64, term: u64| Entry {
        term: Term(term),
        index: Index(index),
        kind: EntryKind::Write,
        data: Bytes::new(),
    };
    let at = |index: u64, term: u64| Position { term: Term(term), index: Index(index) };
    let term = before.term;
    let hostile = [
        // A gap; an index at the end of all numbers; a term above the sender's; a committed entry replaced.
        Message::Append { term, previous: at(1, 1), entries: vec![entry(7, 1)], commit: Index(9) },
        Message::Append {
            term,
            previous: at(u64::MAX, 1),
            entries: vec![entry(0, 1)],
            commit: Index(u64::MAX),
        },
        Message::Append { term, previous: at(1, 1), entries: vec![entry(2, 99)], commit: Index(2) },
        Message::Append { term, previous: at(0, 0), entries: vec![entry(1, 0)], commit: Index(1) },
    ];
    for message in hostile {
        cluster.replicas[1].step(NodeId(1), message.clone());
        cluster.replicas[1].step(NodeId(77), message);
        cluster.take(1);
        assert_eq!(cluster.replicas[1].status().last, before.last);
    }
    // A stranger's newer term. (A candidate or leader may be one that we shall hear of.)
    let answer = Message::HeartbeatResponse { term: Term(99), round: 1, last: Index(0), withholds: false };
    cluster.replicas[1].step(NodeId(77), answer);
    cluster.take(1);
    assert_eq!(cluster.replicas[1].status(), before);
    let leader = &mut cluster.replicas[0];
    leader.step(NodeId(2), Message::Appended { term, matched: Index(u64::MAX) });
    leader.step(NodeId(2), Message::AppendRejected { term, refused: Index(u64::MAX), hint: at(u64::MAX, 9) });
    leader.step(
        NodeId(2),
        Message::HeartbeatResponse { term, round: u64::MAX, last: Index(u64::MAX), withholds: false },
    );
    cluster.take(0);
    assert!(cluster.replicas[0].status().commit <= cluster.replicas[0].status().last.index);
}

/// A made-up message with the last of all terms must not be taken: there would be no next one.
#[test]
fn a_term_beyond_all_reason_is_ignored() {
    let mut cluster = Cluster::new(vec![Recovered::default(); 3]);
    for message in [
        Message::VoteRequest { term: Term(u64::MAX), last: Position::default(), pre: false, transfer: true },
        Message::Heartbeat { term: Term(u64::MAX), commit: Index(u64::MAX), round: u64::MAX },
    ] {
        cluster.replicas[0].step(NodeId(2), message);
        cluster.take(0);
        assert_eq!(cluster.replicas[0].status().term, Term(0));
    }
    cluster.replicas[0]
        .step(NodeId(2), Message::Heartbeat { term: Term(1 << 20), commit: Index(0), round: 1 });
    assert_eq!(cluster.replicas[0].status().term, Term(1 << 20), "one that was away for long");
}

#[test]
fn a_leader_that_slept_reads_by_lease_no_more() {
    // Its ticks stood still while the others elected another; whoever reads by ticks alone reads the past.
    let mut cluster = Cluster::with(vec![log(&[]), log(&[]), log(&[])], Some(22));
    cluster.elect(0, &[0, 1, 2]);
    for _ in 0..10 {
        cluster.replicas[0].tick();
        cluster.deliver(&[0, 1, 2]);
    }
    cluster.replicas[0].read(ReadId(1));
    cluster.take(0);
    assert_eq!(cluster.reads.len(), 1, "by lease, without asking anyone");
    cluster.replicas[0].slept();
    cluster.replicas[0].read(ReadId(2));
    cluster.take(0);
    assert_eq!(cluster.reads.len(), 1, "not by lease");
    cluster.deliver(&[0, 1, 2]);
    assert_eq!(cluster.reads.len(), 2, "a quorum has answered");
}

/// A leader on which writes are under way, whose disk is busy with them from now on.
fn leading_with_slow(slow: &[usize]) -> Cluster {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1, 2]);
    cluster.slow = slow.to_vec();
    cluster
}

fn propose(cluster: &mut Cluster) {
    cluster.replicas[0].propose(EntryKind::Write, Bytes::from_static(b"x")).unwrap();
    cluster.deliver(&[0, 1, 2]);
}

fn pass(cluster: &mut Cluster, ticks: u64) {
    for _ in 0..ticks {
        cluster.replicas[0].tick();
        cluster.deliver(&[0, 1, 2]);
    }
}

#[test]
fn a_leader_lags_when_its_disk_has_stopped_and_the_others_have_not() {
    let mut cluster = leading_with_slow(&[0]);
    propose(&mut cluster);
    pass(&mut cluster, 25);
    assert!(!cluster.replicas[0].lags(), "others take as long to be missed");
    pass(&mut cluster, 1);
    assert!(cluster.replicas[0].lags());
    cluster.report(0);
    pass(&mut cluster, 1);
    assert!(!cluster.replicas[0].lags());
}

#[test]
fn a_leader_does_not_lag_where_no_quorum_is_faster() {
    // Whoever took over would have to wait for as long with its first entry, and so on for ever.
    let mut cluster = leading_with_slow(&[0, 1, 2]);
    propose(&mut cluster);
    // Followers that answer nothing for longer depose it in another way.
    pass(&mut cluster, 20);
    assert!(!cluster.replicas[0].lags());
    for at in [1, 2, 0] {
        cluster.report(at);
    }
    pass(&mut cluster, 10);
    assert!(!cluster.replicas[0].lags());
}

#[test]
fn a_leader_whose_disk_is_behind_all_the_time_and_gets_on_does_not_lag() {
    let mut cluster = leading_with_slow(&[0]);
    propose(&mut cluster);
    for _ in 0..10 {
        pass(&mut cluster, 15);
        // More is under way when what was is done: at no moment has the disk taken everything.
        let older = std::mem::take(&mut cluster.unreported[0]);
        propose(&mut cluster);
        for (write, _) in older {
            cluster.replicas[0].persisted(write);
        }
        assert!(!cluster.replicas[0].lags());
    }
}

#[test]
fn a_leader_that_hears_nobody_says_so_when_it_steps_down() {
    let mut cluster = leading_with_slow(&[]);
    propose(&mut cluster);
    // What it says arrives; what is said to it does not. So the others have just heard it when it steps down.
    for _ in 0..25 + 10 {
        for at in 0..3 {
            cluster.replicas[at].tick();
            cluster.take(at);
        }
        while !cluster.flying.is_empty() {
            for (from, to, message) in std::mem::take(&mut cluster.flying) {
                if to != NodeId(1) {
                    cluster.replicas[to.0 as usize - 1].step(from, message);
                    cluster.take(to.0 as usize - 1);
                }
            }
        }
    }
    assert!(!matches!(cluster.replicas[0].status().role, Role::Leader { .. }));
    let leads = |at: usize| matches!(cluster.replicas[at].status().role, Role::Leader { .. });
    assert!(leads(1) || leads(2), "nobody waits for a timeout of its own");
}

#[test]
fn a_word_of_resignation_is_about_its_own_term() {
    let mut cluster = leading_with_slow(&[]);
    let term = cluster.replicas[0].status().term;
    let leader = |cluster: &Cluster| cluster.replicas[1].status().leader;
    for (from, term) in [(NodeId(1), Term(term.0 - 1)), (NodeId(3), term)] {
        cluster.replicas[1].step(from, Message::Resigned { term });
        assert_eq!(leader(&cluster), Some(NodeId(1)));
    }
    cluster.replicas[1].step(NodeId(1), Message::Resigned { term });
    assert_eq!(leader(&cluster), None);
}

#[test]
fn a_heartbeat_is_answered_while_entries_are_written_and_not_before_its_term_is_durable() {
    let log = Recovered::default();
    let mut raft =
        Raft::new(Options::new(NodeId(2), vec![NodeId(1), NodeId(2), NodeId(3)], 7), log, Index::START);
    let beat = |term: u64| Message::Heartbeat { term: Term(term), commit: Index(0), round: 1 };
    // Which writes an answer waits for, of those that were handed out.
    let waits = |effects: &Effects| {
        let answers = effects.send_after.iter();
        let answers = answers.filter(|(_, _, message)| matches!(message, Message::HeartbeatResponse { .. }));
        answers.map(|(write, _, _)| *write).collect::<Vec<_>>()
    };
    raft.step(NodeId(1), beat(3));
    let effects = raft.take();
    let (of_term, _) = effects.persist.clone().unwrap();
    assert_eq!(waits(&effects), [of_term]);
    let entry = Entry { term: Term(3), index: Index(1), kind: EntryKind::Write, data: Bytes::new() };
    let append = |entry: &Entry| Message::Append {
        term: Term(3),
        previous: Position::default(),
        entries: vec![entry.clone()],
        commit: Index(0),
    };
    raft.step(NodeId(1), append(&entry));
    raft.step(NodeId(1), beat(3));
    let effects = raft.take();
    let (of_entry, _) = effects.persist.clone().unwrap();
    assert!(of_entry > of_term);
    assert_eq!(waits(&effects), [of_term], "nothing is said of the entry");
    let appended =
        effects.send_after.iter().find(|(_, _, message)| matches!(message, Message::Appended { .. }));
    assert_eq!(appended.unwrap().0, of_entry);
    raft.step(NodeId(1), beat(3));
    assert_eq!(waits(&raft.take()), [of_term], "the disk is busy with it still");
    // A newer term waits for what is handed out with it.
    raft.step(NodeId(3), beat(4));
    let effects = raft.take();
    assert_eq!(waits(&effects), [effects.persist.clone().unwrap().0]);
}

/// A leader whose log begins after what the third replica has, and what that was offered.
fn offered() -> (Cluster, Position) {
    let mut cluster = Cluster::new(vec![log(&[]), log(&[]), log(&[])]);
    cluster.elect(0, &[0, 1]);
    let position = (0..9).map(|_| cluster.propose(0, "x")).last().unwrap();
    cluster.deliver(&[0, 1]);
    let leader = &mut cluster.replicas[0];
    leader.compact(position.index);
    let (term, refused) = (leader.status().term, position.index);
    // Whatever is tried, the third has nothing.
    for refused in 0..=refused.0 {
        let refused = Index(refused);
        leader.step(NodeId(3), Message::AppendRejected { term, refused, hint: Position::default() });
        if leader.take().snapshots_wanted == [NodeId(3)] {
            let configuration = leader.configuration_at(position.index).clone();
            leader.offer_snapshot(NodeId(3), SnapshotMeta { position, configuration });
            return (cluster, position);
        }
    }
    panic!("a replica without anything was not to be offered a snapshot");
}

#[test]
fn who_says_in_a_heartbeat_that_it_has_the_snapshot_goes_on_from_there() {
    let (mut cluster, position) = offered();
    cluster.propose(0, "more");
    cluster.deliver(&[0, 1]);
    let leader = &mut cluster.replicas[0];
    let term = leader.status().term;
    // Its acknowledgement waits for the disk, this does not.
    let answer = Message::HeartbeatResponse { term, round: 1, last: position.index, withholds: false };
    leader.step(NodeId(3), answer);
    let effects = leader.take();
    assert!(effects.snapshots_wanted.is_empty(), "another one: {effects:?}");
    let appends: Vec<_> = effects.send_now.iter().filter(|(to, _)| *to == NodeId(3)).collect();
    assert!(
        matches!(&appends[..], [(_, Message::Append { previous, entries, .. })] if *previous == position && entries.len() == 1),
        "{appends:?}"
    );
    // It may have something else than what it says that it ends with; then it is as before.
    let refused = position.index;
    leader.step(NodeId(3), Message::AppendRejected { term, refused, hint: Position::default() });
    assert_eq!(leader.take().snapshots_wanted, [NodeId(3)]);
}

#[test]
fn what_comes_after_a_snapshot_under_way_is_known_to_be_wanted() {
    let (mut cluster, position) = offered();
    let held = |cluster: &Cluster| cluster.replicas[0].held_by_answering(true);
    assert_eq!(held(&cluster), Some(position.index));
    let later = cluster.propose(0, "more");
    cluster.deliver(&[0, 1]);
    assert_eq!(held(&cluster), Some(position.index), "the other one has {later}");
    assert_eq!(cluster.replicas[0].held_by_answering(false), Some(later.index), "who cannot wait for that");
    cluster.replicas[0].snapshot_failed(NodeId(3));
    cluster.replicas[0].take();
    assert_eq!(held(&cluster), Some(later.index), "what the next one is from on, nobody knows");
}
