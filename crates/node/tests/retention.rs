//! How often the store is flushed, which is work: a file, and merging it with others.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, of_group};
use quorate_consensus::{Message, Role};
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

/// A log with more than it may have is kept for whoever answers, though behind, while there is room: what is under way may be as large. It is not for ever.
#[test]
fn a_large_log_is_kept_for_a_follower_that_answers_and_cut_in_the_end() {
    const MAX_BYTES: usize = 8 << 10;
    let mut cluster = Cluster::with(3, 5, |options| {
        options.log_bytes_target = MAX_BYTES / 2;
        options.log_bytes_max = MAX_BYTES;
    });
    let leads = |cluster: &mut Cluster, at: usize| {
        matches!(cluster.status(at, GroupId::FIRST).consensus.role, Role::Leader { .. })
    };
    let leader = (0..3).find(|at| leads(&mut cluster, *at)).unwrap();
    let behind = (leader + 1) % 3;
    cluster.lose(move |from, _, message| {
        from == behind && matches!(of_group(message, GroupId::FIRST), Some(Message::Appended { .. }))
    });
    let mut number = 0;
    let mut write = |cluster: &mut Cluster, bytes: usize| {
        for _ in 0..bytes / VALUE_BYTES {
            number += 1;
            cluster.put(KeyspaceId::DEFAULT, &format!("{number:0width$}", width = VALUE_BYTES), 1).unwrap();
        }
        assert!(leads(cluster, leader));
        cluster.status(leader, GroupId::FIRST).consensus.log_bytes
    };
    cluster.flushed.clear();
    let log_bytes = write(&mut cluster, 2 * MAX_BYTES);
    assert!(log_bytes >= 2 * MAX_BYTES, "it is kept: {log_bytes}");
    let flushes = cluster.flushed.get(&leader).copied().unwrap_or_default();
    assert!(flushes < 20, "a flush lets go of nothing: {flushes}");
    let log_bytes = write(&mut cluster, 8 * MAX_BYTES);
    assert!(log_bytes < 5 * MAX_BYTES, "it is cut: {log_bytes}");
}
