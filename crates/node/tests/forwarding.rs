//! Requests on a node that does not lead.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, put};
use quorate_consensus::{Message, Role};
use quorate_node::PeerMessage;
use quorate_types::{GroupId, Incarnation, KeyspaceId, NodeId};

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
