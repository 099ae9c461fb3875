//! Requests on a node that does not lead.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, put};
use quorate_consensus::Role;
use quorate_types::{GroupId, KeyspaceId};

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
