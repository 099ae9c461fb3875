//! Where the sequencer is, and whether its partitions can be led there.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, put};
use quorate_consensus::Role;
use quorate_node::PeerMessage;
use quorate_types::{GroupId, KeyspaceId, Rejection};

impl Cluster {
    fn leads_meta(&mut self, at: usize) -> bool {
        let status = self.host(at).status();
        status
            .iter()
            .any(|group| group.group == GroupId::META && matches!(group.consensus.role, Role::Leader { .. }))
    }

    /// Partitions whose state is being replaced on a node.
    fn missing(&mut self, at: usize, keyspace: KeyspaceId) -> usize {
        let status = self.host(at).status();
        status.iter().filter(|group| group.group.keyspace == keyspace && group.digest.is_none()).count()
    }

    /// The meta group goes from node to node until this one leads it.
    fn give_meta_to(&mut self, wanted: usize) {
        for _ in 0..100 {
            for at in 0..self.nodes.len() {
                if at != wanted {
                    self.host(at).hand_over_group(GroupId::META);
                }
            }
            for _ in 0..50 {
                self.tick();
                if self.leads_meta(wanted) {
                    return;
                }
            }
        }
        panic!("node {} never led the meta group", wanted + 1);
    }
}

#[test]
fn a_sequencer_does_not_stay_where_partitions_cannot_be_led() {
    let mut cluster = Cluster::new(1);
    let keyspace = cluster.create("wide", 4, None).unwrap();
    let key = |number: u32| format!("/{}/{number}", number % 16);
    // One node is away for longer than the logs reach back, and what takes its state's place is very long in coming.
    cluster.cut.push(2);
    for number in 0..400 {
        while cluster.request(0, keyspace, put(&key(number), 1_000)) == Err(Rejection::LeaderChanged) {}
    }
    cluster.losing = Some(Box::new(|_, _, message| matches!(message, PeerMessage::SnapshotChunk { .. })));
    cluster.cut.clear();
    cluster.seconds(5);
    assert_eq!(cluster.missing(2, keyspace), 4);
    cluster.give_meta_to(2);
    cluster.seconds(3);
    assert!(!cluster.leads_meta(2), "it leads what it has no state for");
    for number in 0..16 {
        cluster.request(number as usize % 3, keyspace, put(&key(number), 1)).unwrap();
    }
    cluster.losing = None;
    cluster.seconds(5);
    assert_eq!(cluster.missing(2, keyspace), 0);
}
