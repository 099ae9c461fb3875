//! What a node makes of a log and a store that a crash has left at different places.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use quorate_consensus::Recovered;
use quorate_mvcc::engine::{Batch, Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_node::{Host, Notice, Options, Standing};
use quorate_partition::watch::{StreamId, Watches};
use quorate_partition::{Limits, Opened, Partition};
use quorate_storage::memory::MemoryEngine;
use quorate_types::{
    Bytes, Entry, EntryKind, Event, GroupId, HardState, Index, KeyRange, KeyspaceId, LogWrite, NodeId,
    PartitionId, Position, SlotSet, Term, Tick, WatchRequest,
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

/// Where is it led, and is that by another node?
#[test]
fn a_store_is_left_when_others_lead_all_of_it_and_not_before() {
    let mut cluster = cluster::Cluster::with(3, 23, |options| options.partitions = 2);
    for number in 0..10 {
        cluster.put(KeyspaceId::DEFAULT, &format!("/d{number}/k"), 100).unwrap();
    }
    cluster.seconds(1);
    let led = |cluster: &mut cluster::Cluster, at: usize| {
        let groups = cluster.host(at).status();
        groups
            .iter()
            .filter(|group| matches!(group.consensus.role, quorate_consensus::Role::Leader { .. }))
            .count()
    };
    let at = (0..3).find(|at| led(&mut cluster, *at) == 3).expect("all is led by one");
    assert!(!cluster.host(at).leave_store(), "it leads");
    let mut looks = 0;
    while !cluster.host(at).leave_store() {
        cluster.seconds(1);
        looks += 1;
        assert!(looks < 10, "{:?}", cluster.host(at).status());
    }
    assert_eq!(led(&mut cluster, at), 0);
    // Nobody is there who could lead: it is the last copy.
    let others: Vec<usize> = (0..3).filter(|other| *other != at).collect();
    for other in &others {
        cluster.crash(*other);
    }
    for _ in 0..10 {
        cluster.seconds(1);
        assert!(!cluster.host(at).leave_store());
    }
    // Nor if the one that is there has no state itself, though it has a vote.
    Partition::mark_incomplete(&cluster.nodes[others[0]].engine, GroupId::META).unwrap();
    cluster.nodes[others[0]].engine.flush().unwrap();
    cluster.start(others[0]);
    for _ in 0..3 {
        let is_empty = cluster.status(others[0], GroupId::META).digest.is_none();
        assert!(!(is_empty && cluster.host(at).leave_store()));
        cluster.seconds(1);
    }
}

/// A node stops while the meta group's state is being replaced, and has all of a keyspace. When it starts it does not know of the keyspace until
/// that state has come; who watches before that is told of everything from where he begins, though it was applied in an earlier life.
#[test]
fn who_watches_before_the_map_has_come_misses_nothing() {
    let keyspace = KeyspaceId::DEFAULT;
    let mut cluster = cluster::Cluster::with(3, 5, |options| options.partitions = 1);
    let put = |cluster: &mut cluster::Cluster, number: u64| {
        cluster.put(keyspace, &format!("/d/{number}"), 10).unwrap()
    };
    let first = put(&mut cluster, 0);
    (1..10).for_each(|number| _ = put(&mut cluster, number));
    cluster.seconds(1);
    let at = 2;
    cluster.nodes[at].engine.flush().unwrap();
    cluster.crash(at);
    Partition::mark_incomplete(&cluster.nodes[at].engine, GroupId::META).unwrap();
    cluster.start(at);
    cluster.told[at].clear();
    let reader = cluster.host(at).reader(keyspace).unwrap();
    assert!(reader.revision() < first, "no map names the partition");

    let stream = StreamId(1);
    let mut watches = Watches::new(Default::default(), reader.revision());
    watches.open(stream).unwrap();
    for start in [None, Some(first.0 as i64 + 3)] {
        let request = WatchRequest { start_revision: start, ..WatchRequest::new(KeyRange::prefix("/d/")) };
        watches.create(stream, request, &reader).unwrap();
    }
    cluster.seconds(4);
    let last = put(&mut cluster, 10);
    cluster.seconds(1);
    for (_, applied) in cluster.told[at].iter().filter(|(of, _)| *of == keyspace) {
        applied.replaced.into_iter().for_each(|revision| watches.restored(revision));
        watches.publish(&applied.changes);
        applied.through.into_iter().for_each(|revision| watches.advance(revision));
    }
    assert_eq!(watches.revision(), last);
    let mut told = BTreeMap::<i64, Vec<u64>>::new();
    while watches.take_ready() == [stream] {
        for response in watches.poll(stream, &reader, 1 << 20).unwrap() {
            let revisions = response.events.iter().map(|told| match &told.event {
                Event::Put(pair) => pair.modified.0,
                Event::Delete { modified, .. } => modified.0,
            });
            told.entry(response.id).or_default().extend(revisions);
        }
    }
    let from = |start: u64| (start..=last.0).collect::<Vec<_>>();
    assert_eq!(told, BTreeMap::from([(0, from(first.0)), (1, from(first.0 + 3))]));
}

#[test]
fn a_log_with_an_illegible_entry_about_members_is_refused() {
    // Its checksum was right, or the log would not have been opened: so it is not what consensus let in.
    let mut logged = entries(&[1, 1]);
    logged[1].kind = EntryKind::Config;
    let recovered = Recovered { entries: logged, ..Recovered::default() };
    let logs = BTreeMap::from([(GroupId::META, recovered)]);
    let options = Options::new(NodeId(1), 7);
    let host = Host::new(options, Standing::New, MemoryEngine::default(), cluster::founded_by(3), logs);
    assert!(host.err().unwrap().to_string().contains("an entry about its members is illegible"));
}
