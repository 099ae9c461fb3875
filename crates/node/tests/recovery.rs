//! What a node makes of a log and a store that a crash has left at different places.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use quorate_consensus::Recovered;
use quorate_mvcc::engine::{Batch, Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_node::{Host, Notice, Options, Standing};
use quorate_partition::{Limits, Opened, Partition};
use quorate_storage::memory::MemoryEngine;
use quorate_types::{
    Bytes, Entry, EntryKind, GroupId, HardState, Index, KeyspaceId, LogWrite, NodeId, PartitionId, Position,
    SlotSet, Term, Tick,
};
use std::collections::BTreeMap;

/// Fences with these terms, from index 1 on.
fn entries(terms: &[u64]) -> Vec<Entry> {
    let entry = |(index, term): (u64, &u64)| Entry {
        term: Term(*term),
        index: Index(index),
        kind: EntryKind::Fence,
        data: Bytes::new(),
    };
    (1..).zip(terms).map(entry).collect()
}

/// Starts node 1 of three with a store that has applied `applied`, and a log of `logged`; gives what it writes first.
fn first_write(applied: &[u64], logged: &[u64]) -> Option<LogWrite> {
    let engine = MemoryEngine::default();
    let Opened::Ready(mut partition) =
        Partition::open(engine.clone(), GroupId::META, SlotSet::all(), Limits::default()).unwrap()
    else {
        panic!("an empty store is whole")
    };
    partition.apply(&entries(applied), Tick(0)).unwrap();
    drop(partition);
    let recovered = Recovered {
        hard_state: HardState { term: Term(9), vote: None, commit: Index(1) },
        start: Position::default(),
        entries: entries(logged),
    };
    let cluster = cluster::founded_by(3);
    let logs = BTreeMap::from([(GroupId::META, recovered)]);
    let standing = Standing::Admitted(BTreeMap::new());
    let mut host = Host::new(Options::new(NodeId(1), 1), standing, engine, cluster, logs).unwrap();
    let status = host.status();
    assert_eq!(status[0].consensus.applied, Index(applied.len() as u64));
    let (_, writes) = host.take().unwrap().persist?;
    let (_, write) = writes.into_iter().next().unwrap();
    Some(write)
}

#[test]
fn a_store_that_lies_within_the_log_leaves_it_alone() {
    assert_eq!(first_write(&[1, 2], &[1, 2, 2, 3]), None);
    assert_eq!(first_write(&[], &[1, 2]), None);
}

#[test]
fn a_store_beyond_the_log_restarts_it() {
    let at = Position { term: Term(2), index: Index(3) };
    assert_eq!(first_write(&[1, 2, 2], &[1]).unwrap().restart, Some(at));
}

/// The crash came between a snapshot's last row and the log's restart, and the log was longer, with entries that another
/// leader's have replaced: one of them would be taken for committed.
#[test]
fn a_store_that_contradicts_the_log_restarts_it() {
    let at = Position { term: Term(4), index: Index(3) };
    assert_eq!(first_write(&[1, 2, 4], &[1, 2, 2, 2, 2]).unwrap().restart, Some(at));
}

/// Three nodes, one of which finds a damaged row in a partition's state when it starts. That replica is filled from the others; the node's other
/// replicas go on as they were.
#[test]
fn a_damaged_state_of_one_group_is_fetched_from_the_others() {
    let mut cluster = cluster::Cluster::with(3, 17, |options| options.partitions = 2);
    let group = |partition| GroupId { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(partition) };
    for number in 0..30 {
        cluster.put(KeyspaceId::DEFAULT, &format!("/d{number}/k"), 100).unwrap();
    }
    cluster.seconds(1);
    let at = 2;
    cluster.nodes[at].engine.flush().unwrap();
    cluster.crash(at);
    let row = layout::state_row(group(0), b"head");
    let sealed = cluster.nodes[at].engine.get(Table::State, &row).unwrap().expect("it has a state");
    let mut damaged = sealed.to_vec();
    damaged[0] ^= 1;
    let mut batch = Batch::default();
    batch.put(Table::State, row, damaged);
    cluster.nodes[at].engine.write(batch).unwrap();
    cluster.start(at);
    let before = cluster.host(at).take().unwrap().notices;
    let is_damage = |notice: &&Notice| matches!(notice, Notice::Damaged { .. });
    let told: Vec<&Notice> = before.iter().filter(is_damage).collect();
    assert!(matches!(told[..], [Notice::Damaged { group: id, .. }] if *id == group(0)), "{told:?}");
    assert_eq!(cluster.status(at, group(0)).digest, None, "it has none");
    assert!(cluster.status(at, group(1)).digest.is_some(), "the other is whole");
    // Nothing is written meanwhile: its log has all that there is, and still it needs the state.
    cluster.seconds(5);
    for id in [GroupId::META, group(0), group(1)] {
        let (one, other) = (cluster.status(0, id), cluster.status(at, id));
        assert_eq!((one.digest, one.consensus.applied), (other.digest, other.consensus.applied), "{id}");
        assert!(one.digest.is_some());
    }
    // It counts as before: with one of the others.
    cluster.crash(1);
    cluster.seconds(3);
    cluster.put(KeyspaceId::DEFAULT, "/d4/more", 10).unwrap();
}
