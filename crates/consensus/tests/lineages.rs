//! A group that goes on with one survivor: what replicas of two lineages make of each other.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod fast;

use fast::taken;
use quorate_consensus::{Consensus, Message, Options, Raft, Recovered, Role};
use quorate_types::{Bytes, Entry, EntryKind, HardState, Index, NodeId, Position, Term};

/// One of three with these entries, of term 1.
fn replica(id: u64, entries: u64) -> Raft {
    let entry =
        |index| Entry { term: Term(1), index: Index(index), kind: EntryKind::Write, data: Bytes::new() };
    let recovered = Recovered {
        hard_state: HardState { term: Term(entries.min(1)), vote: None, commit: Index::START },
        start: Position::default(),
        entries: (1..=entries).map(entry).collect(),
    };
    Raft::new(Options::new(NodeId(id), [1, 2, 3].map(NodeId).to_vec(), id), recovered, Index::START)
}

fn heartbeat(term: Term) -> Message {
    Message::Heartbeat { term, commit: Index::START, round: 1 }
}

#[test]
fn the_survivor_leads_alone_and_commits_all_that_it_has() {
    let mut raft = replica(1, 3);
    raft.begin_lineage(1);
    taken(&mut raft);
    raft.tick();
    taken(&mut raft);
    let status = raft.status();
    assert!(matches!(status.role, Role::Leader { .. }), "{status:?}");
    assert_eq!(
        (status.term.lineage(), status.commit),
        (1, Index(5)),
        "three, its configuration and its fence"
    );
    assert!(raft.configuration().is_alone(NodeId(1)));
    // The dead ask in vain, and are told.
    let last = Position { term: Term(1), index: Index(9) };
    raft.step(NodeId(2), Message::VoteRequest { term: Term(7), last, pre: false, transfer: true });
    let told = taken(&mut raft);
    assert!(
        matches!(told[..], [(NodeId(2), Message::VoteResponse { granted: false, term, .. })] if term == status.term)
    );
}

#[test]
fn one_that_holds_something_is_superseded_and_one_that_holds_nothing_follows() {
    let newer = Term::first_of(1).next();
    let mut old = replica(2, 3);
    old.step(NodeId(1), heartbeat(newer));
    assert_eq!((old.superseded(), old.term()), (Some(1), Term(1)));
    taken(&mut old);
    for _ in 0..200 {
        old.tick();
        assert_eq!(taken(&mut old), [], "it has no say any more");
    }
    old.step(NodeId(3), Message::VoteRequest { term: Term(2), last: old.last(), pre: false, transfer: true });
    assert_eq!(taken(&mut old), []);
    let mut new = replica(2, 0);
    new.step(NodeId(1), heartbeat(newer));
    assert_eq!((new.superseded(), new.leader(), new.term()), (None, Some(NodeId(1)), newer));
}

#[test]
fn a_lineage_that_is_made_up_supersedes_nobody() {
    let mut old = replica(2, 3);
    for term in [Term(u64::MAX), Term(Term::first_of(1).0 + (1 << 39))] {
        old.step(NodeId(1), heartbeat(term));
        assert_eq!(old.superseded(), None, "{term}");
    }
}
