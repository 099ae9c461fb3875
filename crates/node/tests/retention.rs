//! How often the store is flushed, which is work: a file, and merging it with others.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::Cluster;
use quorate_consensus::Role;
use quorate_types::{GroupId, KeyspaceId};

const PUTS: u64 = 2_000;
const VALUE_BYTES: usize = 100;
const TARGET_BYTES: u64 = 4 << 10;

/// Writes, with one node away if so said; returns how often the leader flushed, and what its log has at the end.
fn write(is_one_away: bool) -> (u64, usize) {
    let mut cluster = Cluster::with(3, 5, |options| {
        options.log_bytes_target = TARGET_BYTES as usize;
        options.log_bytes_max = 8 << 20;
    });
    let leads = |cluster: &mut Cluster, at: usize| {
        matches!(cluster.status(at, GroupId::FIRST).consensus.role, Role::Leader { .. })
    };
    let leader = (0..3).find(|at| leads(&mut cluster, *at)).unwrap();
    if is_one_away {
        cluster.crash((leader + 1) % 3);
    }
    cluster.flushed.clear();
    for number in 0..PUTS {
        cluster.put(KeyspaceId::DEFAULT, &format!("{number:0width$}", width = VALUE_BYTES), 1).unwrap();
    }
    assert!(leads(&mut cluster, leader));
    let status = cluster.status(leader, GroupId::FIRST);
    (cluster.flushed.get(&leader).copied().unwrap_or_default(), status.consensus.log_bytes)
}

/// A log that is kept for whoever is away does not shrink by flushing, however often the log asks for it.
#[test]
fn a_store_is_flushed_as_the_log_grows_and_not_more_often_while_a_follower_is_away() {
    let bytes = PUTS * VALUE_BYTES as u64;
    let (usual, log_bytes) = write(false);
    assert!(usual > 10 && usual < 4 * bytes / TARGET_BYTES, "{usual}");
    assert!(log_bytes < 64 << 10, "{log_bytes}");
    let (while_away, log_bytes) = write(true);
    assert!(while_away > 10 && while_away < 4 * bytes / TARGET_BYTES, "{while_away}, not {usual}");
    assert!(log_bytes as u64 > bytes, "it is kept: {log_bytes}");
}
