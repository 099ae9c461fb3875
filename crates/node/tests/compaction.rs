//! Compactions whose callers wait until history is removed from the store.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::Cluster;
use quorate_consensus::Role;
use quorate_mvcc::engine::{Read, Table};
use quorate_mvcc::layout;
use quorate_node::Ticket;
use quorate_types::{GroupId, KeyspaceId, Rejection, Request, Revision};

/// A request has so many ticks.
const TICKS_MAX: u64 = 60;
/// And with two rows a tick so many revisions of a key need many times more.
const OVERWRITES: usize = 300;

fn overwritten(seed: u64) -> (Cluster, Revision) {
    let mut cluster = Cluster::with(3, seed, |options| {
        options.request_ticks_max = TICKS_MAX;
        options.compaction_rows_per_tick = 2;
    });
    let mut newest = Revision(0);
    for _ in 0..OVERWRITES {
        newest = cluster.put(KeyspaceId::DEFAULT, "key", 1).unwrap();
    }
    (cluster, newest)
}

fn compact(cluster: &mut Cluster, at: usize, revision: Revision) -> Ticket {
    let request = Request::Compact { revision: revision.0 as i64, physical: true };
    cluster.ask(at, KeyspaceId::DEFAULT, request)
}

fn changes(cluster: &Cluster, at: usize) -> usize {
    let rows = layout::rows(Table::Change, GroupId::FIRST);
    cluster.nodes[at].engine.scan(Table::Change, rows).count()
}

fn leader(cluster: &mut Cluster) -> usize {
    (0..3)
        .find(|at| matches!(cluster.status(*at, GroupId::FIRST).consensus.role, Role::Leader { .. }))
        .unwrap()
}

fn ticks(cluster: &mut Cluster, count: u64) {
    (0..count).for_each(|_| cluster.tick());
}

/// The call ran into the deadline that every request has, and failed, though the work was done all the same.
#[test]
fn the_caller_is_answered_when_history_is_removed_however_long_that_takes() {
    for away in 0..3 {
        let (mut cluster, newest) = overwritten(1 + away as u64);
        let asked = (leader(&mut cluster) + away) % 3;
        let ticket = compact(&mut cluster, asked, newest);
        ticks(&mut cluster, 3 * TICKS_MAX);
        assert!(!cluster.answers.contains_key(&ticket), "answered too early: {:?}", cluster.answers);
        assert!(changes(&cluster, asked) > 1);
        cluster.answer(ticket).unwrap();
        assert_eq!(changes(&cluster, asked), 1);
    }
}

#[test]
fn nor_does_it_matter_who_leads_meanwhile() {
    let (mut cluster, newest) = overwritten(7);
    let leader = leader(&mut cluster);
    let asked = (leader + 1) % 3;
    let ticket = compact(&mut cluster, asked, newest);
    ticks(&mut cluster, TICKS_MAX);
    cluster.crash(leader);
    ticks(&mut cluster, TICKS_MAX);
    assert!(!cluster.answers.contains_key(&ticket), "{:?}", cluster.answers);
    cluster.answer(ticket).unwrap();
    assert_eq!(changes(&cluster, asked), 1);
}

#[test]
fn one_that_is_refused_waits_for_nothing() {
    let (mut cluster, newest) = overwritten(8);
    let ticket = compact(&mut cluster, 0, newest);
    ticks(&mut cluster, TICKS_MAX);
    let again = compact(&mut cluster, 1, newest);
    let refused = cluster.answer(again);
    assert_eq!(refused.unwrap_err(), Rejection::Compacted { asked: newest.0 as i64, oldest: newest });
    assert!(!cluster.answers.contains_key(&ticket));
}

/// Nobody has the space back whose keyspace is gone, and nobody waits for it.
#[test]
fn a_keyspace_that_is_deleted_ends_the_waiting() {
    let mut cluster = Cluster::with(3, 9, |options| options.compaction_rows_per_tick = 1);
    let keyspace = cluster.create("other", 1, None).unwrap();
    let mut newest = Revision(0);
    for _ in 0..OVERWRITES {
        newest = cluster.put(keyspace, "key", 1).unwrap();
    }
    let request = Request::Compact { revision: newest.0 as i64, physical: true };
    let ticket = cluster.ask(1, keyspace, request);
    ticks(&mut cluster, 20);
    assert!(!cluster.answers.contains_key(&ticket));
    cluster.delete("other").unwrap();
    cluster.answer(ticket).unwrap();
}
