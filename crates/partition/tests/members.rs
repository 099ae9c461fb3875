//! Who takes part in a group is kept with its state: across restarts, in snapshots, and by what is split off.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_mvcc::engine::{Engine, Read, Table};
use quorate_partition::Partition;
use quorate_partition::snapshot::Installer;
use quorate_types::{
    Bytes, Encode, Entry, EntryKind, GroupId, Index, PartitionId, SlotSet, Split, Term, Tick,
};
use std::ops::Bound;
use support::{GROUP, TestEngine, limits, open};

const CHILD: GroupId = GroupId { partition: PartitionId(7), ..GROUP };

fn entry(index: u64, kind: EntryKind, data: impl Into<Bytes>) -> Entry {
    Entry { term: Term(1), index: Index(index), kind, data: data.into() }
}

fn members(engine: &TestEngine, group: GroupId) -> Option<Bytes> {
    Partition::members(engine, group).unwrap()
}

#[test]
fn the_newest_entry_applied_says_who_the_members_are_also_after_a_crash() {
    let engine = TestEngine::default();
    let mut replica = open(&engine);
    assert_eq!(members(&engine, GROUP), None);
    let entries = [entry(1, EntryKind::Config, "one"), entry(2, EntryKind::Config, "two")];
    replica.apply(&entries[..1], Tick(0)).unwrap();
    engine.flush().unwrap();
    replica.apply(&entries[1..], Tick(0)).unwrap();
    assert_eq!(members(&engine, GROUP), Some("two".into()));
    let crashed = engine.crash(0);
    assert_eq!(members(&crashed, GROUP), Some("one".into()));
    assert_eq!(open(&crashed).applied().index, Index(1), "with the position");
}

#[test]
fn a_snapshot_brings_them_and_until_it_does_the_old_ones_stay() {
    let (source, target) = (TestEngine::default(), TestEngine::default());
    let mut leader = open(&source);
    leader.apply(&[entry(1, EntryKind::Config, "new")], Tick(0)).unwrap();
    let mut behind = open(&target);
    behind.apply(&[entry(1, EntryKind::Config, "old")], Tick(0)).unwrap();
    let mut installer = behind.into_installer(&SlotSet::all()).unwrap();
    assert_eq!(members(&target, GROUP), Some("old".into()));
    installer.clear().unwrap();
    assert_eq!(members(&target, GROUP), Some("old".into()));
    let snapshot = leader.snapshot();
    while !installer.is_complete() {
        installer.add(snapshot.chunk(installer.cursor().cloned(), 1).unwrap()).unwrap();
    }
    installer.make_durable(snapshot.position()).unwrap();
    installer.finish().unwrap();
    assert_eq!(members(&target, GROUP), Some("new".into()));
}

#[test]
fn what_is_split_off_begins_with_those_of_the_parent() {
    let (_, slots) = SlotSet::all().split().unwrap();
    let split = Split { child: CHILD.partition, slots }.encoded();
    let entries = [entry(1, EntryKind::Config, "those"), entry(2, EntryKind::Split, split)];
    for at_once in [true, false] {
        let engine = TestEngine::default();
        let mut replica = open(&engine);
        if at_once {
            replica.apply(&entries, Tick(0)).unwrap();
        } else {
            replica.apply(&entries[..1], Tick(0)).unwrap();
            replica.apply(&entries[1..], Tick(0)).unwrap();
        }
        assert_eq!(members(&engine, CHILD), Some("those".into()));
    }
}

#[test]
fn of_a_replica_that_is_thrown_away_nothing_stays() {
    let engine = TestEngine::default();
    let mut replica = open(&engine);
    replica.apply(&[entry(1, EntryKind::Config, "those")], Tick(0)).unwrap();
    let reader = replica.reader();
    let mut installer = replica.into_installer(&SlotSet::all()).unwrap();
    installer.clear().unwrap();
    installer.abandon().unwrap();
    assert!(reader.is_available(), "what takes the place of it is not this one's affair");
    assert_eq!(
        Table::ALL.map(|table| engine.scan(table, (Bound::Unbounded, Bound::Unbounded)).count()),
        [0, 0, 0]
    );
    // Also one that was interrupted.
    let mut installer = Installer::begin(engine.clone(), GROUP, &SlotSet::all(), limits()).unwrap();
    installer.clear().unwrap();
    installer.abandon().unwrap();
    assert!(!Partition::is_incomplete(&engine, GROUP).unwrap());
}
