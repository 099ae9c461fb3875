//! Requests on a node that does not lead.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, of_group, put};
use quorate_consensus::{Message, Role};
use quorate_node::{IfBehind, PeerMessage, Reach, Ticket};
use quorate_types::{GroupId, Incarnation, KeyspaceId, NodeId, Rejection};

/// They came in the moment after the leader's connection broke and were sent to it all the same. What had been sent to it before was given up by then,
/// so nobody answered them before an election timeout was over, and then with "unknown", though the next leader had long been there.
#[test]
fn writes_right_after_the_leaders_connection_broke_wait_for_the_next_leader() {
    for seed in 1..=20 {
        let mut cluster = Cluster::new(seed);
        let leads = |cluster: &mut Cluster, at: usize| {
            let groups = cluster.host(at).status();
            let first = groups.iter().find(|status| status.group == GroupId::FIRST).unwrap();
            matches!(first.consensus.role, Role::Leader { .. })
        };
        let leader = (0..3).find(|at| leads(&mut cluster, *at)).unwrap();
        cluster.crash(leader);
        let survivors = (0..3).filter(|at| *at != leader);
        let tickets: Vec<_> =
            survivors.map(|at| cluster.ask(at, KeyspaceId::DEFAULT, put("key", 10))).collect();
        for ticket in tickets {
            let outcome = cluster.answer(ticket);
            assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
        }
    }
}

/// Consensus, which forgets the leader and hears of it again before it is looked at, has nothing to tell of: its role is what it was.
#[test]
fn a_leader_that_is_heard_again_at_once_is_sent_requests() {
    let mut cluster = Cluster::new(1);
    let first = |cluster: &mut Cluster, at: usize| {
        let groups = cluster.host(at).status();
        groups.into_iter().find(|status| status.group == GroupId::FIRST).unwrap().consensus
    };
    let leader = (0..3).find(|at| matches!(first(&mut cluster, *at).role, Role::Leader { .. })).unwrap();
    let follower = (leader + 1) % 3;
    let status = first(&mut cluster, leader);
    let message = Message::Heartbeat { term: status.term, commit: status.commit, round: 0 };
    let (from, incarnation) = (NodeId(leader as u64 + 1), Incarnation(leader as u64 + 1));
    let heartbeat = PeerMessage::Group { group: GroupId::FIRST, meta: status.term, message };
    cluster.host(follower).peer_lost(from);
    cluster.host(follower).receive(from, incarnation, heartbeat).unwrap();
    cluster.seconds(1);
    assert!(cluster.request(follower, KeyspaceId::DEFAULT, put("key", 10)).is_ok());
}

/// It waits for entries that are gone from the leader's log; a snapshot comes instead, which takes long.
#[test]
fn a_read_that_waits_where_a_snapshot_takes_the_states_place_is_left_to_the_leader() {
    let mut cluster = Cluster::with(3, 5, |options| {
        options.log_bytes_target = 4 << 10;
        options.log_bytes_max = 8 << 10;
    });
    let leads = |cluster: &mut Cluster, at: usize| {
        matches!(cluster.status(at, GroupId::FIRST).consensus.role, Role::Leader { .. })
    };
    let leader = (0..3).find(|at| leads(&mut cluster, *at)).unwrap();
    let late = (leader + 1) % 3;
    cluster.cut.push(late);
    let before = cluster.status(late, GroupId::FIRST).consensus.last.index;
    for number in 0..400 {
        let key = format!("{number:0100}");
        while cluster.put(KeyspaceId::DEFAULT, &key, 1) == Err(Rejection::LeaderChanged) {}
    }
    let leader = (0..3).find(|at| *at != late && leads(&mut cluster, *at)).unwrap();
    assert!(cluster.status(leader, GroupId::FIRST).consensus.start.index > before, "it has to be a snapshot");
    cluster.lose(|_, _, message| {
        matches!(of_group(message, GroupId::FIRST), Some(Message::SnapshotOffer { .. }))
            || matches!(message, PeerMessage::SnapshotChunk { .. })
    });
    cluster.cut.clear();
    cluster.seconds(1);
    let (waits, asks) = (Ticket(1 << 40), Ticket(1 << 41));
    let barrier = |cluster: &mut Cluster, ticket, if_behind| {
        cluster.host(late).barrier(ticket, KeyspaceId::DEFAULT, Vec::new(), if_behind).unwrap();
    };
    barrier(&mut cluster, waits, IfBehind::Wait);
    barrier(&mut cluster, asks, IfBehind::AskLeaders);
    cluster.seconds(1);
    assert!(cluster.grants.is_empty(), "few entries are missing: {:?}", cluster.grants);
    cluster.lose(|_, _, message| matches!(message, PeerMessage::SnapshotChunk { .. }));
    cluster.seconds(1);
    assert_eq!(cluster.grants[&asks].as_ref().map(|grant| grant.reach), Ok(Reach::Leader));
    assert!(!cluster.grants.contains_key(&waits), "it wants what is here");
    cluster.losing = None;
    cluster.seconds(2);
    assert_eq!(cluster.grants[&waits].as_ref().map(|grant| grant.reach), Ok(Reach::Here));
}
