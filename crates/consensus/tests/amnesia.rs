//! A replica that lost its disk: what random runs hardly ever meet.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod fast;

use fast::taken;
use quorate_consensus::{Consensus, Message, Options, Raft, ReadId, ReadOutcome, Recovered, Role};
use quorate_types::{Bytes, EntryKind, HardState, Index, NodeId, Position, Term};

fn replica(id: u64, term: u64) -> Raft {
    let voters = [1, 2, 3].map(NodeId).to_vec();
    let hard_state = HardState { term: Term(term), vote: None, commit: Index::START };
    let recovered = Recovered { hard_state, ..Recovered::default() };
    Raft::new(Options::new(NodeId(id), voters, id), recovered, Index::START)
}

fn vote_request(term: u64) -> Message {
    Message::VoteRequest { term: Term(term), last: Position::default(), pre: false, transfer: true }
}

fn is_grant(message: &Message) -> bool {
    matches!(message, Message::VoteResponse { granted: true, .. })
}

/// Ticks until it asks for votes in earnest, granting its pre-vote.
fn campaign(raft: &mut Raft) -> Term {
    for _ in 0..200 {
        raft.tick();
        for (to, message) in taken(raft) {
            match message {
                Message::VoteRequest { term, pre: true, .. } => {
                    raft.step(to, Message::VoteResponse { term, granted: true, pre: true });
                }
                Message::VoteRequest { term, pre: false, .. } => return term,
                _ => {}
            }
        }
    }
    panic!("it never asked for votes");
}

/// Node 1 voted for 2 in term 5, lost its disk, and is asked by 3, whom 2 has not heard of.
#[test]
fn it_votes_for_nobody_in_a_term_that_it_may_have_voted_in() {
    let mut raft = replica(1, 0);
    raft.withhold_votes();
    raft.abstain(Term(5));
    taken(&mut raft);
    raft.step(NodeId(3), vote_request(5));
    assert_eq!(taken(&mut raft), [], "it withholds its votes");
    raft.give_votes();
    raft.step(NodeId(3), vote_request(5));
    assert!(!taken(&mut raft).iter().any(|(_, message)| is_grant(message)), "a second vote in term 5");
    raft.step(NodeId(3), vote_request(6));
    assert!(taken(&mut raft).iter().any(|(_, message)| is_grant(message)), "a first vote in term 6");
}

/// An answer that was made up must not use up the terms.
#[test]
fn an_absurd_term_leaves_terms_to_elect_in() {
    let mut raft = replica(1, 0);
    raft.withhold_votes();
    raft.abstain(Term(u64::MAX));
    assert!(raft.status().term < Term(u64::MAX / 2));
}

/// The abstention outlives a crash.
#[test]
fn abstaining_is_written_down() {
    let mut raft = replica(1, 0);
    raft.withhold_votes();
    raft.abstain(Term(5));
    let (_, write) = raft.take().persist.unwrap();
    let written = write.hard_state.unwrap();
    assert_eq!((written.term, written.vote), (Term(5), Some(NodeId(1))));
}

#[test]
fn while_it_withholds_votes_it_never_asks_for_any() {
    let mut raft = replica(1, 3);
    raft.withhold_votes();
    for _ in 0..500 {
        raft.tick();
        assert_eq!(taken(&mut raft), []);
    }
    raft.step(NodeId(2), Message::Heartbeat { term: Term(3), commit: Index::START, round: 1 });
    taken(&mut raft);
    raft.step(NodeId(2), Message::TimeoutNow { term: Term(3) });
    raft.peer_lost(NodeId(2), 1);
    for _ in 0..500 {
        raft.tick();
        assert_eq!(taken(&mut raft), []);
    }
}

/// A vote that was counted before the voter lost its disk must not elect us after.
#[test]
fn a_candidate_drops_the_vote_of_a_former_life() {
    let voters = [1, 2, 3, 4, 5].map(NodeId).to_vec();
    let mut raft = Raft::new(Options::new(NodeId(1), voters, 1), Recovered::default(), Index::START);
    let term = campaign(&mut raft);
    let grant = Message::VoteResponse { term, granted: true, pre: false };
    raft.step(NodeId(2), grant.clone());
    raft.peer_forgot(NodeId(2));
    raft.step(NodeId(3), grant.clone());
    assert_eq!(raft.status().role, Role::Candidate, "three of five, but one has forgotten");
    raft.step(NodeId(4), grant);
    assert!(matches!(raft.status().role, Role::Leader { .. }));
}

/// What only the lost disk and we held is not committed any more by counting that disk.
#[test]
fn a_leader_drops_the_acknowledgements_of_a_former_life() {
    let mut raft = replica(1, 0);
    let term = campaign(&mut raft);
    raft.step(NodeId(2), Message::VoteResponse { term, granted: true, pre: false });
    taken(&mut raft);
    raft.step(NodeId(2), Message::Appended { term, matched: Index(1) });
    assert_eq!(raft.status().commit, Index(1));
    // A read barrier that the former life has answered in advance, as it were.
    raft.read(ReadId(1));
    taken(&mut raft);
    raft.peer_forgot(NodeId(2));
    let position = raft.propose(EntryKind::Write, Bytes::from_static(b"x")).unwrap();
    taken(&mut raft);
    assert_eq!(raft.matched().iter().find(|(node, _)| *node == NodeId(2)).unwrap().1, Index::START);
    raft.step(NodeId(3), Message::Appended { term, matched: Index(1) });
    assert_eq!(raft.status().commit, Index(1), "only we hold the second entry");
    raft.step(NodeId(3), Message::Appended { term, matched: position.index });
    assert_eq!(raft.status().commit, position.index);
    let round = 100;
    raft.step(NodeId(3), Message::HeartbeatResponse { term, round, last: position.index, withholds: false });
    let ready = raft.take().reads.into_iter().any(|(_, outcome)| matches!(outcome, ReadOutcome::Ready(_)));
    assert!(ready);
}
