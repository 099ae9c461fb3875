//! Changes of members: each rule as a directed scenario that fails without it.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_consensus::{
    ChangeError, Configuration, Consensus, Message, Options, ProposeError, Raft, ReadId, ReadOutcome,
    Recovered, Role, SnapshotMeta, WriteId,
};
use quorate_types::{Bytes, Encode, Entry, EntryKind, HardState, Index, NodeId, Position, Term};

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn joint(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Configuration {
    Configuration { voters: ids(voters), outgoing: ids(outgoing), learners: ids(learners) }
}

fn simple(voters: &[u64], learners: &[u64]) -> Configuration {
    joint(voters, &[], learners)
}

/// Whose slow disk is busy with what, and what waits for that.
type Held = (u64, WriteId, Vec<(NodeId, Message)>);

/// Nodes 1 to 5, of which 1 to 3 vote in the beginning. Messages arrive at once, unless to or from somebody cut off; disks are done at once,
/// unless slow.
struct Group {
    replicas: Vec<Raft>,
    flying: Vec<(u64, u64, Message)>,
    cut: Vec<u64>,
    slow: Vec<u64>,
    held: Vec<Held>,
    reads: Vec<ReadOutcome>,
}

impl Group {
    fn of(replicas: Vec<Raft>) -> Self {
        let (flying, cut, slow, held, reads) = Default::default();
        Self { replicas, flying, cut, slow, held, reads }
    }

    /// The first leads.
    fn new() -> Self {
        let mut group =
            Self::of((1..=5).map(|id| replica(id, &simple(&[1, 2, 3], &[]), &[], |_| {})).collect());
        group.elect(1);
        group
    }

    /// The first leads, four and five hold everything and do not vote.
    fn with_learners() -> Self {
        let mut group = Self::new();
        group.change(1, &[1, 2, 3], &[4, 5]).unwrap();
        // Until they have answered a heartbeat nobody knows whether they vote.
        group.tick(5, &[1]);
        group
    }

    fn at(&mut self, id: u64) -> &mut Raft {
        &mut self.replicas[id as usize - 1]
    }

    fn is_leader(&mut self, id: u64) -> bool {
        matches!(self.at(id).status().role, Role::Leader { .. })
    }

    fn change(&mut self, id: u64, voters: &[u64], learners: &[u64]) -> Result<Position, ChangeError> {
        self.at(id).change(ids(voters), ids(learners))
    }

    fn propose(&mut self, id: u64) -> Position {
        self.at(id).propose(EntryKind::Write, Bytes::from_static(b"x")).unwrap()
    }

    fn take(&mut self, id: u64) {
        loop {
            let effects = self.at(id).take();
            let is_quiet = effects.persist.is_none() && effects.apply.is_empty();
            self.flying.extend(effects.send_now.into_iter().map(|(to, message)| (id, to.0, message)));
            let mut after = effects.send_after.into_iter().map(|(_, to, message)| (to, message)).collect();
            if let Some((write, _)) = effects.persist {
                if self.slow.contains(&id) {
                    self.held.push((id, write, std::mem::take(&mut after)));
                } else {
                    self.at(id).persisted(write);
                }
            }
            self.flying.extend(after.into_iter().map(|(to, message)| (id, to.0, message)));
            if let Some(entry) = effects.apply.last() {
                self.at(id).applied(entry.index);
            }
            self.reads.extend(effects.reads.into_iter().map(|(_, outcome)| outcome));
            if is_quiet {
                return;
            }
        }
    }

    /// Disks catch up.
    fn report(&mut self) {
        self.slow.clear();
        for (id, write, after) in std::mem::take(&mut self.held) {
            self.at(id).persisted(write);
            self.flying.extend(after.into_iter().map(|(to, message)| (id, to.0, message)));
        }
        self.settle();
    }

    fn settle(&mut self) {
        for id in 1..=self.replicas.len() as u64 {
            self.take(id);
        }
        while !self.flying.is_empty() {
            for (from, to, message) in std::mem::take(&mut self.flying) {
                if !self.cut.contains(&from) && !self.cut.contains(&to) {
                    self.at(to).step(NodeId(from), message);
                    self.take(to);
                }
            }
        }
    }

    fn tick(&mut self, ticks: u64, among: &[u64]) {
        for _ in 0..ticks {
            for id in among {
                self.at(*id).tick();
            }
            self.settle();
        }
    }

    /// Time goes by for all, but only this one may stand.
    fn elect(&mut self, id: u64) {
        for _ in 0..200 {
            for other in (1..=self.replicas.len() as u64).filter(|other| *other != id) {
                self.at(other).tick();
                let _ = self.at(other).take();
            }
            self.tick(1, &[id]);
            if self.is_leader(id) {
                return self.tick(5, &[id]);
            }
        }
        panic!("{id} is not elected: {:?}", self.at(id).status());
    }
}

/// A replica with these entries of term 1 in its log: what each says of the members, or nothing.
fn replica(
    id: u64,
    members: &Configuration,
    log: &[Option<Configuration>],
    change: impl Fn(&mut Options),
) -> Raft {
    let entry = |(at, says): (usize, &Option<Configuration>)| Entry {
        term: Term(1),
        index: Index(at as u64 + 1),
        kind: if says.is_some() { EntryKind::Config } else { EntryKind::Write },
        data: says.as_ref().map_or(Bytes::new(), Encode::encoded),
    };
    let recovered = Recovered {
        hard_state: HardState { term: Term(1), ..HardState::default() },
        entries: log.iter().enumerate().map(entry).collect(),
        ..Recovered::default()
    };
    let mut options = Options::new(NodeId(id), vec![NodeId(1)], id);
    options.configuration = members.clone();
    change(&mut options);
    Raft::new(options, recovered, Index::START)
}

#[test]
fn learners_come_and_go_in_one_step_and_hold_everything() {
    let mut group = Group::new();
    let before = group.propose(1);
    group.settle();
    group.change(1, &[1, 2, 3], &[4]).unwrap();
    assert_eq!(*group.at(1).configuration(), simple(&[1, 2, 3], &[4]), "from when it is appended");
    group.settle();
    assert!(group.at(4).status().commit > before.index);
    group.change(1, &[1, 2, 3], &[]).unwrap();
    group.settle();
    assert_eq!(*group.at(2).configuration(), simple(&[1, 2, 3], &[]));
}

#[test]
fn a_learner_counts_for_nothing() {
    let mut group = Group::with_learners();
    group.cut = vec![2, 3];
    let position = group.propose(1);
    group.settle();
    assert!(
        group.at(4).status().last.index >= position.index
            && group.at(5).status().last.index >= position.index
    );
    assert!(group.at(1).status().commit < position.index, "three of five hold it, but one of three voters");
    group.at(1).read(ReadId(1));
    group.settle();
    assert!(group.reads.is_empty(), "nor do they prove who leads");
    group.tick(50, &[1]);
    assert!(!group.is_leader(1), "nor are they the quorum that a leader must hear");
}

#[test]
fn a_learner_does_not_stand_but_votes_for_whom_it_is_asked_by() {
    let mut group = Group::with_learners();
    let term = group.at(4).status().term;
    group.cut = vec![1];
    group.tick(100, &[4, 5]);
    let status = group.at(4).status();
    assert_eq!((status.term, status.role), (term, Role::Follower { leader: None }));
    // It may not have heard yet that it votes, nor of who asks.
    let last = group.at(4).status().last;
    group.at(4).step(NodeId(77), Message::VoteRequest { term: Term(9), last, pre: false, transfer: false });
    group.take(4);
    assert!(matches!(group.flying[..], [(4, 77, Message::VoteResponse { granted: true, .. })]));
}

#[test]
fn while_joint_both_sets_of_voters_decide() {
    for (cut, who) in [([2, 3], "old"), ([4, 5], "new")] {
        let mut group = Group::with_learners();
        group.cut = cut.to_vec();
        let position = group.change(1, &[1, 4, 5], &[]).unwrap();
        group.settle();
        assert_eq!(*group.at(1).configuration(), joint(&[1, 4, 5], &[1, 2, 3], &[]));
        assert!(group.at(1).status().commit < position.index, "committed without the {who} voters");
        group.at(1).read(ReadId(1));
        group.settle();
        assert!(group.reads.is_empty(), "a read confirmed without the {who} voters");
        group.cut.pop();
        group.tick(20, &[1]);
        assert!(group.at(1).status().commit > position.index);
        assert_eq!(*group.at(1).configuration(), simple(&[1, 4, 5], &[]), "left by itself");
        assert!(matches!(group.reads[..], [ReadOutcome::Ready(_)]));
    }
}

#[test]
fn a_leader_steps_down_when_a_joint_quorum_is_silent() {
    let mut group = Group::with_learners();
    group.cut = vec![4, 5];
    group.change(1, &[1, 4, 5], &[]).unwrap();
    group.tick(60, &[1, 2, 3]);
    assert!(!group.is_leader(1) && !group.is_leader(2) && !group.is_leader(3));
    assert!(group.at(2).configuration().is_joint());
    group.cut.clear();
    group.tick(120, &[1, 2, 3, 4, 5]);
    assert_eq!(*group.at(5).configuration(), simple(&[1, 4, 5], &[]), "whoever leads next goes on");
}

#[test]
fn what_is_cut_off_the_log_is_not_in_effect() {
    let mut group = Group::with_learners();
    group.cut = vec![1];
    group.change(1, &[1, 4, 5], &[]).unwrap();
    group.settle();
    group.elect(2);
    group.propose(2);
    group.settle();
    assert!(group.at(1).configuration().is_joint());
    group.cut.clear();
    group.tick(20, &[2]);
    assert_eq!(*group.at(1).configuration(), simple(&[1, 2, 3], &[4, 5]));
}

#[test]
fn a_change_waits_for_the_fence_and_for_the_change_before() {
    let mut group = Group::with_learners();
    assert_eq!(
        group.change(2, &[1, 2, 3], &[]),
        Err(ChangeError::Refused(ProposeError::NotLeader(Some(NodeId(1)))))
    );
    group.cut = vec![2, 3];
    group.change(1, &[1, 2, 3], &[]).unwrap();
    assert_eq!(group.change(1, &[1, 2, 3], &[4]), Err(ChangeError::InFlight), "not committed");
    group.cut.clear();
    group.tick(20, &[1]);
    assert_eq!(group.change(1, &[], &[4]), Err(ChangeError::Malformed));
    assert_eq!(group.change(1, &[1, 1], &[]), Err(ChangeError::Malformed));
    assert_eq!(group.change(1, &[1, 2], &[2]), Err(ChangeError::Malformed));
    group.cut = vec![3];
    group.change(1, &[1, 2], &[]).unwrap();
    group.slow = vec![1, 2];
    group.settle();
    assert_eq!(group.change(1, &[1, 2, 3], &[]), Err(ChangeError::InFlight), "joint");
    // Elected, and nothing of its term is committed.
    let mut lone = Group::of(vec![replica(1, &simple(&[1], &[]), &[], |_| {})]);
    lone.slow = vec![1];
    lone.tick(1, &[1]);
    assert!(lone.is_leader(1));
    assert_eq!(lone.change(1, &[1], &[2]), Err(ChangeError::Unfenced));
}

#[test]
fn a_group_is_not_shrunk_to_those_of_whom_too_many_are_behind() {
    let mut group = Group::new();
    group.cut = vec![3];
    for _ in 0..300 {
        group.propose(1);
    }
    group.settle();
    assert_eq!(group.change(1, &[1, 3], &[]), Err(ChangeError::Behind(NodeId(3))));
    assert_eq!(group.change(1, &[1, 2, 3], &[4]), Ok(group.at(1).status().last), "who votes stays as it is");
    group.settle();
    group.change(1, &[1, 2], &[]).unwrap();
    group.settle();
    assert_eq!(group.at(1).configuration().voters, ids(&[1, 2]));
}

/// It votes again when it has caught up in all of its groups, also in those that could not be led without it: two of those would wait for each other.
#[test]
fn a_group_is_not_shrunk_to_those_of_whom_too_many_vote_for_nobody_yet() {
    let mut group = Group::new();
    group.at(3).withhold_votes();
    group.tick(5, &[1]);
    assert_eq!(group.change(1, &[1, 3], &[]), Err(ChangeError::Behind(NodeId(3))));
    group.at(3).give_votes();
    group.tick(5, &[1]);
    group.change(1, &[1, 3], &[]).unwrap();
}

#[test]
fn an_older_snapshot_is_not_offered_from_before_the_replica_came_nor_from_before_what_it_acknowledged() {
    let mut group = Group::new();
    group.change(1, &[1, 2, 3], &[4]).unwrap();
    let former = group.propose(1);
    group.settle();
    assert!(group.at(4).status().last.index >= former.index, "its former life has it");
    group.change(1, &[1, 2, 3], &[]).unwrap();
    group.settle();
    group.cut = vec![4];
    group.change(1, &[1, 2, 3], &[4]).unwrap();
    let came = group.at(1).status().last;
    let later = group.propose(1);
    group.settle();
    let offered =
        |group: &mut Group, to| [former, came, later].map(|at| group.at(1).may_offer(NodeId(to), at));
    assert_eq!(offered(&mut group, 4), [false, true, true]);
    assert_eq!(offered(&mut group, 5), [false; 3], "no member");
    assert!(!group.at(2).may_offer(NodeId(4), later), "does not lead");
    group.cut.clear();
    group.tick(20, &[1]);
    assert_eq!(offered(&mut group, 4), [false, false, true], "it has acknowledged what is later");
    group.elect(2);
    assert!(!group.at(2).may_offer(NodeId(4), later), "what was committed before its term may be missing");
}

#[test]
fn nobody_votes_before_it_has_caught_up() {
    let mut group = Group::new();
    assert_eq!(group.change(1, &[1, 2, 4], &[]), Err(ChangeError::Behind(NodeId(4))), "not even a learner");
    group.cut = vec![4];
    group.change(1, &[1, 2, 3], &[4]).unwrap();
    for _ in 0..300 {
        group.propose(1);
    }
    group.settle();
    assert_eq!(group.change(1, &[1, 2, 4], &[]), Err(ChangeError::Behind(NodeId(4))));
    group.cut.clear();
    group.tick(30, &[1]);
    let status = group.at(1).status();
    assert!(group.at(1).matched().contains(&(NodeId(4), status.last.index)), "{status:?}");
    group.change(1, &[1, 2, 4], &[]).unwrap();
}

#[test]
fn a_leader_that_is_removed_leads_until_then_and_lets_another_take_over() {
    let mut group = Group::with_learners();
    group.cut = vec![4, 5];
    group.change(1, &[2, 4, 5], &[]).unwrap();
    group.settle();
    assert!(group.is_leader(1));
    group.cut.clear();
    group.tick(20, &[1]);
    // No timeout is waited for: no other time has gone by.
    assert!(!group.is_leader(1));
    let leader = [2, 4, 5].into_iter().find(|id| group.is_leader(*id)).unwrap();
    assert_eq!(*group.at(leader).configuration(), simple(&[2, 4, 5], &[]));
    let position = group.propose(leader);
    group.settle();
    assert!(group.at(leader).status().commit >= position.index);
}

#[test]
fn a_leader_that_is_removed_does_not_count_itself() {
    let mut group = Group::with_learners();
    let position = group.change(1, &[2, 4], &[]).unwrap();
    // Of the last entry, the new voters alone, only one hears.
    for _ in 0..20 {
        if !group.at(1).configuration().is_joint() {
            break;
        }
        group.take(1);
        for (from, to, message) in std::mem::take(&mut group.flying) {
            group.at(to).step(NodeId(from), message);
            if to != 1 {
                group.take(to);
            }
        }
    }
    group.cut = vec![4, 5];
    group.tick(10, &[1]);
    assert_eq!(group.at(2).status().last.index, Index(position.index.0 + 1));
    assert_eq!(group.at(1).status().commit, position.index, "one of two holds it, whoever leads");
}

#[test]
fn one_whose_removal_is_not_committed_may_be_needed() {
    // A leader of {1, 2, 3} made 1 the only voter; 2 and 3 hold that, 1 does not, and the leader is gone. One cannot win, because its log
    // is shorter than the others'; they do not vote any more, and stand all the same (thesis, 4.2.2).
    let first = simple(&[1, 2, 3], &[]);
    let (step, last) = (joint(&[1], &[1, 2, 3], &[]), simple(&[1], &[]));
    let short = [Some(step.clone())];
    let long = [Some(step), Some(last.clone())];
    let mut group = Group::of(vec![
        replica(1, &first, &short, |_| {}),
        replica(2, &first, &long, |_| {}),
        replica(3, &first, &long, |_| {}),
    ]);
    group.tick(200, &[1, 2, 3]);
    assert!(group.is_leader(1));
    assert_eq!(*group.at(1).configuration(), last);
}

#[test]
fn whoever_leads_next_leaves_the_joint_configuration_when_it_is_committed() {
    let first = simple(&[1, 2, 3], &[]);
    let log = [Some(joint(&[1, 4, 5], &[1, 2, 3], &[]))];
    let replicas = (1..=5).map(|id| replica(id, &first, if id < 4 { &log } else { &[] }, |_| {})).collect();
    let mut group = Group::of(replicas);
    // Neither the old voters alone nor the new ones elect anybody: the entry counts though it is not committed.
    for cut in [[4, 5], [2, 3]] {
        group.cut = cut.to_vec();
        for _ in 0..100 {
            group.tick(1, &[1, 2, 3, 4, 5]);
            assert!((1..=5).all(|id| !group.is_leader(id)), "elected without {cut:?}");
        }
    }
    group.cut = vec![5];
    group.elect(1);
    assert_eq!(*group.at(4).configuration(), simple(&[1, 4, 5], &[]));
}

#[test]
fn a_joint_configuration_is_left_only_when_it_is_committed() {
    let mut group = Group::with_learners();
    let before = group.propose(1);
    group.take(1);
    group.change(1, &[1, 4, 5], &[]).unwrap();
    // All hold what was proposed, and nobody the change yet.
    for _ in 0..2 {
        for (from, to, message) in std::mem::take(&mut group.flying) {
            group.at(to).step(NodeId(from), message);
            if to != 1 {
                group.take(to);
            }
        }
    }
    assert_eq!(group.at(1).status().commit, before.index);
    assert!(group.at(1).configuration().is_joint());
}

#[test]
fn a_new_leader_leaves_no_joint_configuration_before_its_fence_is_committed() {
    let step = joint(&[1, 4], &[1, 2], &[]);
    let mut replica = replica(1, &simple(&[1, 2], &[]), &[Some(step.clone())], |_| {});
    let elected = |replica: &mut Raft| {
        let effects = replica.take();
        if let Some((write, _)) = effects.persist {
            replica.persisted(write);
        }
        let after = effects.send_after.into_iter().map(|(_, to, message)| (to, message));
        for (from, message) in effects.send_now.into_iter().chain(after) {
            if let Message::VoteRequest { term, pre, .. } = message {
                replica.step(from, Message::VoteResponse { term, granted: true, pre });
            }
        }
        matches!(replica.status().role, Role::Leader { .. })
    };
    while !elected(&mut replica) {
        replica.tick();
        assert!(replica.status().term < Term(9), "not elected");
    }
    assert_eq!(*replica.configuration(), step);
}

#[test]
fn a_read_under_way_when_nobody_else_is_left_is_answered() {
    let mut group = Group::new();
    group.cut = vec![3];
    group.change(1, &[1], &[]).unwrap();
    group.take(1);
    // Two's acknowledgement comes, its answer to the read's round does not.
    let sent = std::mem::take(&mut group.flying);
    group.at(1).read(ReadId(1));
    group.take(1);
    group.flying = sent;
    group.flying.retain(|(_, _, message)| matches!(message, Message::Append { .. }));
    group.settle();
    assert_eq!(*group.at(1).configuration(), simple(&[1], &[]));
    assert!(matches!(group.reads[..], [ReadOutcome::Ready(_)]), "{:?}", group.reads);
}

#[test]
fn leadership_is_handed_to_voters_only() {
    let mut group = Group::with_learners();
    group.at(1).transfer(Some(NodeId(4)));
    group.settle();
    assert_eq!(group.at(1).can_propose(), Ok(()), "a learner would not take over");
    group.cut = vec![2, 3];
    group.propose(1);
    group.settle();
    group.cut.clear();
    group.at(1).transfer(None);
    group.tick(15, &[1]);
    assert!(group.is_leader(2) || group.is_leader(3), "whoever is furthest of those who vote");
}

#[test]
fn a_removed_replica_neither_deposes_nor_wakes_anybody() {
    let sleeps = |options: &mut Options| options.hibernate_after_ticks = Some(10);
    let replicas = (1..=3).map(|id| replica(id, &simple(&[1, 2, 3], &[]), &[], sleeps)).collect();
    let mut group = Group::of(replicas);
    group.elect(1);
    group.cut = vec![3];
    group.change(1, &[1, 2], &[]).unwrap();
    group.tick(30, &[1, 2]);
    group.cut.clear();
    let term = group.at(1).status().term;
    assert!(group.at(1).is_hibernating() && group.at(2).is_hibernating());
    for _ in 0..300 {
        group.tick(1, &[1, 2, 3]);
        assert!(group.at(1).is_hibernating() && group.at(2).is_hibernating());
    }
    assert!(group.is_leader(1));
    assert_eq!(group.at(1).status().term, term);
}

#[test]
fn a_lone_voter_with_learners_leads_only_when_its_term_is_durable() {
    // It could forget the term, lead it again, and send the learner other entries of the same places.
    let mut group = Group::of((1..=2).map(|id| replica(id, &simple(&[1], &[2]), &[], |_| {})).collect());
    group.slow = vec![1];
    group.tick(3, &[1]);
    assert!(!group.is_leader(1));
    assert_eq!(group.at(2).status().term, Term(1), "nobody was told anything");
    group.report();
    assert!(group.is_leader(1));
    assert!(group.at(2).status().last.index > Index::START);
}

#[test]
fn members_are_known_after_a_restart_and_after_a_snapshot() {
    let (first, step) = (simple(&[1, 2, 3], &[]), joint(&[1, 4], &[1, 2, 3], &[]));
    let log = [None, Some(step.clone()), None];
    assert_eq!(*replica(4, &first, &log, |_| {}).configuration(), step, "committed or not");
    let mut group = Group::with_learners();
    let last = group.at(1).status().last;
    let meta =
        SnapshotMeta { position: last, configuration: group.at(1).configuration_at(last.index).clone() };
    assert_eq!(meta.configuration, simple(&[1, 2, 3], &[4, 5]));
    assert_eq!(*group.at(1).configuration_at(Index::START), first);
    let mut late = replica(4, &first, &[], |_| {});
    late.step(NodeId(1), Message::SnapshotOffer { term: last.term, meta });
    let fetch = late.take().fetch.unwrap();
    late.state_lost();
    late.restored(fetch.meta);
    assert_eq!(*late.configuration(), simple(&[1, 2, 3], &[4, 5]));
}

#[test]
fn members_that_cannot_be_are_not_appended() {
    let mut group = Group::new();
    let status = group.at(2).status();
    for data in [Bytes::new(), simple(&[], &[1]).encoded(), simple(&[2, 1], &[]).encoded()] {
        let index = status.last.index.next();
        let entry = Entry { term: status.term, index, kind: EntryKind::Config, data };
        let append = Message::Append {
            term: status.term,
            previous: status.last,
            entries: vec![entry],
            commit: Index::START,
        };
        group.at(2).step(NodeId(1), append);
        assert_eq!(group.at(2).status().last, status.last);
    }
    let meta = SnapshotMeta {
        position: Position { term: status.term, index: Index(99) },
        configuration: simple(&[], &[]),
    };
    group.at(2).step(NodeId(1), Message::SnapshotOffer { term: status.term, meta });
    assert_eq!(group.at(2).take().fetch, None);
}
