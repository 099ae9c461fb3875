//! Replicas: equal whatever happened to them on the way; whole or nothing after a crash.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_mvcc::engine::{Engine, Table};
use quorate_partition::snapshot::{Chunk, Cursor, InstallError, Installer, SnapshotSource};
use quorate_partition::{Opened, Partition, ReadError, Reader};
use quorate_types::request::{PutLease, PutRequest};
use quorate_types::{
    Command, Decode, Effect, Encode, Entry, EntryKind, GroupId, Index, KeyRange, PartitionId, Position,
    Rejection, Request, Revision, Slot, SlotSet, Split, Stamp, Term, Tick,
};
use support::{GROUP, Pair, Random, TestEngine, delete, lease, limits, open, put_op, range};

const KEYS: [&str; 5] = ["a", "b", "b\0", "c/d", "c/e"];

/// A group with something of everything in it.
fn grown(random: &mut Random, steps: u64) -> Pair {
    let mut pair = Pair::new();
    for id in 1..4 {
        pair.evaluate(&Request::LeaseGrant { lease: lease(id), ttl_seconds: 600 }).unwrap();
    }
    for step in 0..steps {
        let key: &'static str = random.pick(&KEYS);
        let request = match random.below(8) {
            0 => delete(KeyRange::prefix(random.pick(&["a", "c/"]))),
            1 if step > 20 => Request::Compact { revision: step as i64 / 3, physical: false },
            2 => {
                let lease = PutLease::Attach(lease(1 + random.below(3) as i64));
                Request::Put(PutRequest { lease, ..put_op(key, "leased") })
            }
            _ => Request::Put(PutRequest { value: Some(step.to_string().into()), ..put_op(key, "") }),
        };
        let _ = pair.evaluate(&request);
    }
    pair
}

#[test]
fn a_crash_anywhere_leaves_a_state_from_which_the_log_replays_to_the_same_end() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut pair = grown(&mut random, 60);
        let mut engine = pair.follower.engine().clone();
        let mut replica = open(&engine);
        while (replica.applied().index.0 as usize) < pair.log.len() {
            // Overlapping what is applied, as after a restart the log does.
            let from = replica.applied().index.0.saturating_sub(random.below(4)) as usize;
            let to = (from + 1 + random.below(9) as usize).min(pair.log.len());
            replica.apply(&pair.log[from..to], Tick(0)).unwrap();
            support::compact_step(&replica, 3);
            match random.below(5) {
                0 => engine.flush().unwrap(),
                1 => {
                    engine = engine.crash(random.below(1 + engine.unflushed() as u64) as usize);
                    replica = open(&engine);
                }
                _ => {}
            }
        }
        Pair::apply_to(&mut pair.leader, &pair.log, usize::MAX >> 1, Tick(0));
        for partition in [&replica, &pair.leader] {
            while !support::compact_step(partition, 100) {}
        }
        assert_eq!(replica.digest(), pair.leader.digest(), "seed {seed}");
        assert_eq!(engine.dump(), pair.leader.engine().clone().dump(), "seed {seed}");
    }
}

/// Carries a snapshot over, in chunks of about this size, interrupted at random.
fn carry(
    source: &SnapshotSource<TestEngine>,
    installer: &mut Installer<TestEngine>,
    bytes_max: usize,
) -> Result<(), InstallError> {
    while !installer.is_complete() {
        // Over the wire and back.
        let cursor = installer.cursor().map(|cursor| Cursor::from_bytes(cursor.encoded()).unwrap());
        let chunk = source.chunk(cursor, bytes_max).unwrap();
        installer.add(Chunk::from_bytes(chunk.encoded()).unwrap())?;
    }
    Ok(())
}

#[test]
fn a_snapshot_makes_a_replica_that_is_the_same_to_the_byte() {
    for bytes_max in [1, 100, 1 << 20] {
        let mut random = Random::new(bytes_max as u64);
        let mut pair = grown(&mut random, 80);
        pair.apply_all();
        let source = pair.leader.snapshot();
        let rows = pair.leader.engine().clone().dump();
        // The group works on meanwhile; the snapshot stays as it was.
        pair.evaluate(&support::put("later", "1")).unwrap();
        pair.apply_all();
        // A replica with an older state of its own, and a reader that was there before.
        let behind = grown(&mut Random::new(99), 30);
        let mut replica = behind.leader;
        Pair::apply_to(&mut replica, &behind.log, usize::MAX >> 1, Tick(0));
        let reader = replica.reader();
        let engine = replica.engine().clone();
        let single = |reader: &Reader<TestEngine>, key: &'static str| {
            reader.range(&range(KeyRange::Single(key.into())), reader.revision()).unwrap().1
        };
        // These are in memory now.
        let before = KEYS.map(|key| single(&reader, key));
        let mut installer = replica.into_installer(&SlotSet::all()).unwrap();
        let refused = reader.range(&range(KeyRange::all()), reader.revision());
        assert!(matches!(refused, Err(ReadError::Rejection(Rejection::Unavailable))));
        installer.clear().unwrap();
        carry(&source, &mut installer, bytes_max).unwrap();
        installer.make_durable(source.position()).unwrap();
        let mut replica = installer.finish().unwrap();
        assert_eq!(engine.dump(), rows);
        assert_eq!(engine.unflushed(), 0);
        assert_eq!((replica.digest(), replica.revision()), (source.digest(), source.revision()));
        assert_eq!(reader.revision(), source.revision());
        assert!(reader.range(&range(KeyRange::all()), reader.revision()).is_ok());
        // As nobody sees it who has something in memory.
        let after = KEYS.map(|key| single(&reader, key));
        assert_eq!(after, KEYS.map(|key| single(&open(&engine).reader(), key)));
        assert_ne!(after, before);
        // And the log goes on from there.
        Pair::apply_to(&mut replica, &pair.log, usize::MAX >> 1, Tick(0));
        assert_eq!(replica.digest(), pair.leader.digest());
        assert_eq!(engine.dump(), pair.leader.engine().clone().dump());
    }
}

#[test]
fn a_state_of_which_rows_are_gone_is_never_taken_for_one() {
    let mut pair = grown(&mut Random::new(7), 40);
    pair.apply_all();
    let engine = pair.leader.engine().clone();
    engine.flush().unwrap();
    let whole = (pair.leader.digest(), engine.dump());
    let mut installer = pair.leader.into_installer(&SlotSet::all()).unwrap();
    assert!(installer.has_rows());
    let mut opened_whole = 0;
    let mut steps = 0;
    loop {
        for kept in 0..=engine.unflushed() {
            let crashed = engine.crash(kept);
            match Partition::open(crashed.clone(), GROUP, SlotSet::all(), limits()).unwrap() {
                Opened::Incomplete => {}
                Opened::Ready(partition) => {
                    assert!((partition.digest(), crashed.dump()) == whole, "{kept} writes were kept");
                    opened_whole += 1;
                }
            }
        }
        if installer.is_cleared() {
            break;
        }
        steps += usize::from(!installer.clear_some(10).unwrap());
    }
    assert!(steps > 5 && opened_whole > 0);
    assert!(!installer.has_rows());
    // Only what says that it is none is left, and none is there once that is taken away.
    assert_eq!(engine.dump().len(), 1);
    installer.abandon().unwrap();
    assert_eq!(engine.dump(), []);
}

#[test]
fn a_snapshot_that_was_cut_off_is_never_taken_for_a_state() {
    let mut pair = grown(&mut Random::new(5), 40);
    pair.apply_all();
    let source = pair.leader.snapshot();
    let behind = TestEngine::default();
    let mut installer = open(&behind).into_installer(&SlotSet::all()).unwrap();
    installer.clear().unwrap();
    let mut crashes = 0;
    while !installer.is_complete() {
        let chunk = source.chunk(installer.cursor().cloned(), 200).unwrap();
        installer.add(chunk).unwrap();
        for kept in 0..=behind.unflushed() {
            let opened = Partition::open(behind.crash(kept), GROUP, SlotSet::all(), limits()).unwrap();
            assert!(matches!(opened, Opened::Incomplete));
            crashes += 1;
        }
    }
    assert!(crashes > 10);
    // Begun anew after such a crash, it comes out whole.
    let engine = behind.crash(3);
    let mut installer = Installer::begin(engine.clone(), GROUP, &SlotSet::all(), limits()).unwrap();
    assert!(!installer.reader().is_available());
    installer.clear().unwrap();
    carry(&source, &mut installer, 300).unwrap();
    let wrong = Position { term: Term(9), index: Index(9) };
    assert!(matches!(installer.make_durable(wrong), Err(InstallError::Mismatch(_))));
    let reader = installer.reader();
    let mut installer = installer.restart(&SlotSet::all()).unwrap();
    installer.clear().unwrap();
    carry(&source, &mut installer, 300).unwrap();
    installer.make_durable(source.position()).unwrap();
    assert!(!reader.is_available());
    let whole = engine.crash(0);
    // Another is offered before whoever wanted this one hears of it: nothing of it is missing before the mark is there again.
    let mut installer = installer.restart(&SlotSet::all()).unwrap();
    let mut opened_whole = 0;
    while !installer.is_cleared() {
        for kept in 0..=engine.unflushed() {
            match Partition::open(engine.crash(kept), GROUP, SlotSet::all(), limits()).unwrap() {
                Opened::Incomplete => {}
                Opened::Ready(partition) => {
                    assert_eq!(partition.digest(), pair.leader.digest());
                    opened_whole += 1;
                }
            }
        }
        installer.clear_some(10).unwrap();
    }
    assert!(opened_whole > 0 && open(&whole).digest() == pair.leader.digest());
    carry(&source, &mut installer, 300).unwrap();
    installer.make_durable(source.position()).unwrap();
    assert!(!reader.is_available());
    let replica = installer.finish().unwrap();
    assert!(reader.is_available());
    assert_eq!(replica.digest(), pair.leader.digest());
    assert_eq!(open(&engine.crash(0)).digest(), pair.leader.digest());
}

#[test]
fn a_damaged_snapshot_neither_leaves_nor_enters() {
    let mut pair = grown(&mut Random::new(6), 40);
    pair.apply_all();
    let source = pair.leader.snapshot();
    let good = source.chunk(None, 400).unwrap();
    assert!(good.rows.len() > 3 && !good.last);
    let mut missing = good.clone();
    missing.rows.remove(1);
    let mut swapped = good.clone();
    swapped.rows.swap(0, 1);
    let mut doubled = good.clone();
    doubled.rows.insert(1, good.rows[1].clone());
    let mut rotten = good.clone();
    let mut value = rotten.rows[2].value.to_vec();
    value[0] ^= 1;
    rotten.rows[2].value = value.into();
    let mut misplaced = good.clone();
    misplaced.rows[0].table = Table::State;
    let mut lying = good.clone();
    lying.cursor.checksum ^= 1;
    for bad in [missing, swapped, doubled, rotten, misplaced, lying] {
        let engine = TestEngine::default();
        let mut installer = open(&engine).into_installer(&SlotSet::all()).unwrap();
        installer.clear().unwrap();
        let before = engine.dump();
        assert!(matches!(installer.add(bad), Err(InstallError::Mismatch(_))));
        assert_eq!(engine.dump(), before);
    }
    // A row that rotted in the source's store ends the source, before anything leaves.
    let engine = pair.leader.engine().clone();
    let (row, _) = engine.dump().into_iter().find(|(table, _)| *table == Table::Version).unwrap().1;
    engine.rot(Table::Version, &row);
    assert!(pair.leader.snapshot().chunk(None, 400).is_err());
}

#[test]
fn an_entry_that_cannot_be_ours_is_a_fault() {
    let entry =
        |index, kind, data: Vec<u8>| Entry { term: Term(1), index: Index(index), kind, data: data.into() };
    let command = |group, revision, sub| {
        let stamp = Stamp { revision: Revision(revision), sub };
        let effect = Effect::Delete { slot: Slot(0), stamp, key: "a".into(), previous_lease: None };
        Command { group, effects: vec![effect] }.encoded_vec()
    };
    let split = |slots| Split { child: PartitionId(1), slots }.encoded_vec();
    for bad in [
        entry(1, EntryKind::Write, b"nonsense".to_vec()),
        entry(1, EntryKind::Prepare, b"nonsense".to_vec()),
        entry(1, EntryKind::Write, command(GroupId::META, 2, 0)),
        entry(1, EntryKind::Write, command(GROUP, 1, 0)),
        entry(1, EntryKind::Write, command(GROUP, 2, 1)),
        entry(1, EntryKind::Split, b"nonsense".to_vec()),
        entry(1, EntryKind::Split, split(SlotSet::none())),
        entry(1, EntryKind::Split, split(SlotSet::all())),
        entry(3, EntryKind::Fence, Vec::new()),
    ] {
        assert!(open(&TestEngine::default()).apply(&[bad], Tick(0)).is_err());
    }
    // Reserved kinds only move the place.
    let mut partition = open(&TestEngine::default());
    let entries = [entry(1, EntryKind::Config, b"x".to_vec()), entry(2, EntryKind::Fence, Vec::new())];
    let applied = partition.apply(&entries, Tick(0)).unwrap();
    assert!(applied.changes.is_empty());
    assert_eq!(partition.applied(), Position { term: Term(1), index: Index(2) });
}

#[test]
fn readers_see_a_revision_only_after_it_is_in_the_store() {
    let mut pair = Pair::new();
    let reader = pair.follower.reader();
    pair.evaluate(&support::put("a", "1")).unwrap();
    assert_eq!(reader.revision(), Revision(1));
    pair.follower.engine().clone().fail_after(0);
    let from = pair.follower.applied().index.0 as usize;
    assert!(pair.follower.apply(&pair.log[from..], Tick(0)).is_err());
    assert_eq!(reader.revision(), Revision(1));
}

#[test]
fn a_leader_that_was_deposed_forgets_what_was_pending() {
    let mut pair = Pair::new();
    pair.evaluate(&support::put("a", "1")).unwrap();
    pair.apply_all();
    pair.evaluate(&support::put("a", "2")).unwrap();
    pair.leader.follow();
    pair.log.pop();
    // Another leader's entry took the place; this one leads again later.
    pair.append(EntryKind::Fence, Vec::new().into());
    pair.apply_all();
    pair.leader.lead(pair.now);
    let Ok((revision, _)) = pair.evaluate(&support::put("a", "3")) else { panic!() };
    assert_eq!(revision, Revision(3));
    pair.apply_all();
    let (_, answer) = pair.leader.reader().range(&range(KeyRange::all()), pair.leader.revision()).unwrap();
    assert_eq!((&answer.pairs[0].value[..], answer.pairs[0].version), (&b"3"[..], 2));
}
