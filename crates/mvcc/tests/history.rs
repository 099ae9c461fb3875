//! Random histories, read at every revision and compacted at random points, against a naive twin that
//! keeps the whole state of every revision.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_mvcc::engine::{Batch, Engine, Table};
use quorate_mvcc::hash;
use quorate_mvcc::layout::{self, ChangeKind};
use quorate_mvcc::{Compactor, KeySpace};
use quorate_types::record::Stored;
use quorate_types::{
    Bytes, Encode, Event, Key, KeyRange, KeyValue, KeyspaceId, Record, Revision, Slot, SlotSet, Stamp,
};
use std::collections::BTreeMap;
use std::iter::once;
use support::{Random, TestEngine};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

/// The whole state after each revision, and what each revision changed.
struct Twin {
    engine: TestEngine,
    states: BTreeMap<Revision, BTreeMap<Key, KeyValue>>,
    changes: BTreeMap<Revision, Vec<Event>>,
    versions: BTreeMap<(Key, Stamp), Option<KeyValue>>,
}

fn keys() -> Vec<Key> {
    ["a", "a\0", "a\0b", "ab", "b", "\0", "\u{1}", "c", "zz"].map(Bytes::from).to_vec()
}

/// Not the real one, which all of these keys share.
fn slot_of(key: &Key) -> Slot {
    Slot(key.len() as u16)
}

impl Twin {
    fn grow(random: &mut Random, revisions: u64) -> Self {
        let mut twin = Self {
            engine: TestEngine::default(),
            states: BTreeMap::from([(Revision(1), BTreeMap::new())]),
            changes: BTreeMap::new(),
            versions: BTreeMap::new(),
        };
        for revision in (2..2 + revisions).map(Revision) {
            let mut state = twin.states[&revision.previous()].clone();
            let mut batch = Batch::default();
            for sub in 0..1 + random.below(3) as u32 {
                let stamp = Stamp { revision, sub };
                // Few keys, and one of them far more often, so that long histories of a key are met.
                let key = if random.chance(3) { random.pick(&keys()) } else { Bytes::from("b") };
                let before = state.get(&key).cloned();
                let pair = (before.is_none() || !random.chance(4)).then(|| KeyValue {
                    key: key.clone(),
                    value: Bytes::from(format!("{revision}.{sub}")),
                    create: before.as_ref().map_or(revision, |pair| pair.create),
                    modified: revision,
                    version: before.as_ref().map_or(1, |pair| pair.version + 1),
                    lease: None,
                });
                twin.write(&mut batch, stamp, &key, pair.as_ref());
                match pair {
                    Some(pair) => state.insert(key, pair),
                    None => state.remove(&key),
                };
            }
            twin.engine.write(batch).unwrap();
            twin.states.insert(revision, state);
        }
        twin
    }

    fn write(&mut self, batch: &mut Batch, stamp: Stamp, key: &Key, pair: Option<&KeyValue>) {
        let slot = slot_of(key);
        let (kind, record, event) = match pair {
            Some(pair) => (
                ChangeKind::Put,
                Record::Value(Stored {
                    slot,
                    create: pair.create,
                    version: pair.version,
                    lease: None,
                    value: pair.value.clone(),
                }),
                Event::Put(pair.clone()),
            ),
            None => (
                ChangeKind::Delete,
                Record::Tombstone { slot },
                Event::Delete { key: key.clone(), modified: stamp.revision },
            ),
        };
        let row = layout::version_row(KEYSPACE, key, stamp);
        batch.put(Table::Version, row.clone(), layout::seal(Table::Version, &row, record.encoded_vec()));
        let row = layout::change_row(KEYSPACE, stamp);
        let value = layout::seal(Table::Change, &row, layout::change_value(kind, slot, key));
        batch.put(Table::Change, row, value);
        self.changes.entry(stamp.revision).or_default().push(event);
        self.versions.insert((key.clone(), stamp), pair.cloned());
    }

    fn newest(&self) -> Revision {
        *self.states.keys().last().unwrap()
    }

    /// Everything that may be asked of revisions from `compacted` on.
    fn check(&self, engine: &TestEngine, compacted: Option<Revision>) {
        let space = KeySpace::new(engine, KEYSPACE);
        let from = compacted.unwrap_or(Revision(1));
        let ranges = [
            KeyRange::all(),
            KeyRange::Between("a".into(), "b".into()),
            KeyRange::Between("b".into(), "a".into()),
            KeyRange::prefix("a\0"),
            KeyRange::From("b".into()),
            KeyRange::Single("b".into()),
        ];
        for (at, state) in self.states.range(from..) {
            for range in &ranges {
                let expected: Vec<&KeyValue> =
                    state.values().filter(|pair| range.contains(&pair.key)).collect();
                let found: Vec<KeyValue> = space.range(range, *at).map(Result::unwrap).collect();
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{range:?} at {at}");
            }
            for key in keys() {
                assert_eq!(space.get(&key, *at).unwrap().as_ref(), state.get(&key), "{key:?} at {at}");
                let before = state.get(&key).filter(|_| *at >= from);
                assert_eq!(space.previous(&key, at.next(), compacted).unwrap().as_ref(), before);
            }
        }
        let mut next = Some(from);
        let mut found = Vec::new();
        while let Some(at) = next {
            let page = space.changes(at, self.newest(), 3, 40).unwrap().unwrap();
            assert!(page.changes.len() <= 3);
            assert!(page.next.is_none() || !page.changes.is_empty());
            next = page.next;
            found.extend(page.changes.into_iter().map(|changes| (changes.revision, changes.events.to_vec())));
        }
        let expected: Vec<_> =
            self.changes.range(from..).map(|(revision, events)| (*revision, events.clone())).collect();
        assert_eq!(found, expected);
    }

    /// The same for what is in some slots: as if the other keys were not there.
    fn check_within(&self, slots: &SlotSet) {
        let space = KeySpace::new(&self.engine, KEYSPACE).within(slots);
        for (at, state) in &self.states {
            let expected: Vec<&KeyValue> =
                state.values().filter(|pair| slots.contains(slot_of(&pair.key))).collect();
            let found: Vec<KeyValue> = space.range(&KeyRange::all(), *at).map(Result::unwrap).collect();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{slots} at {at}");
        }
        let key = |event: &Event| match event {
            Event::Put(pair) => pair.key.clone(),
            Event::Delete { key, .. } => key.clone(),
        };
        let mut next = Some(Revision(1));
        let mut found = Vec::new();
        while let Some(at) = next {
            let page = space.changes(at, self.newest(), 3, 40).unwrap().unwrap();
            assert!(page.changes.len() <= 3);
            next = page.next;
            found.extend(page.changes.into_iter().map(|changes| (changes.revision, changes.events.to_vec())));
        }
        let within = |events: &Vec<Event>| -> Vec<Event> {
            events.iter().filter(|event| slots.contains(slot_of(&key(event)))).cloned().collect()
        };
        let expected: Vec<_> = self
            .changes
            .iter()
            .map(|(revision, events)| (*revision, within(events)))
            .filter(|(_, events)| !events.is_empty())
            .collect();
        assert_eq!(found, expected, "{slots}");
    }

    fn hash(&self, engine: &TestEngine, compacted: Option<Revision>) -> Vec<u32> {
        let from = compacted.unwrap_or(Revision(1));
        let through = (from.0..=self.newest().0).map(Revision);
        through
            .map(|through| hash::history(&engine.snapshot(), KEYSPACE, None, through, compacted).unwrap())
            .collect()
    }

    /// The versions that the rule leaves after compacting at `at`.
    fn kept(&self, at: Revision) -> Vec<Bytes> {
        let mut rows: Vec<Bytes> = self
            .versions
            .iter()
            .filter(|((key, stamp), pair)| {
                let is_newest = !self
                    .versions
                    .keys()
                    .any(|(other, later)| other == key && later > stamp && later.revision <= at);
                stamp.revision >= at || (is_newest && pair.is_some())
            })
            .map(|((key, stamp), _)| layout::version_row(KEYSPACE, key, *stamp))
            .collect();
        rows.sort();
        rows
    }
}

fn stored_versions(engine: &TestEngine) -> Vec<Bytes> {
    engine.dump().into_iter().filter(|(table, _)| *table == Table::Version).map(|(_, (row, _))| row).collect()
}

#[test]
fn every_revision_reads_as_it_was_before_while_and_after_history_is_compacted() {
    for seed in 0..25 {
        let mut random = Random::new(seed);
        let twin = Twin::grow(&mut random, 45);
        twin.engine.flush().unwrap();
        twin.check(&twin.engine, None);
        // By change, by reading everything, and as it comes.
        let open = |engine: &TestEngine, random: &mut Random| {
            Compactor::open(engine, KEYSPACE)
                .unwrap()
                .with_sweep_part([0, 1_000, 8][random.below(3) as usize])
        };
        let mut compactor = open(&twin.engine, &mut random);
        let mut engine = twin.engine.clone();
        let mut compacted = Revision(0);
        for _ in 0..4 {
            compacted = Revision(compacted.0 + 1 + random.below(12)).min(twin.newest());
            let hashes = twin.hash(&engine, Some(compacted));
            loop {
                let is_done = compactor.step(&engine, Some(compacted), 1 + random.below(7) as usize).unwrap();
                twin.check(&engine, Some(compacted));
                assert_eq!(twin.hash(&engine, Some(compacted)), hashes, "seed {seed} at {compacted}");
                if random.chance(4) {
                    // A crash loses some steps; the rest is done again from what the store remembers.
                    engine = engine.crash(random.below(1 + engine.unflushed() as u64) as usize);
                    compactor = open(&engine, &mut random);
                    continue;
                }
                if is_done {
                    break;
                }
            }
            assert_eq!(stored_versions(&engine), twin.kept(compacted), "seed {seed} at {compacted}");
            engine.flush().unwrap();
        }
    }
}

#[test]
fn a_rotten_row_is_a_fault_and_never_an_answer() {
    let twin = Twin::grow(&mut Random::new(7), 20);
    for (table, (row, _)) in twin.engine.dump() {
        let engine = twin.engine.crash(usize::MAX);
        engine.rot(table, &row);
        let space = KeySpace::new(&engine, KEYSPACE);
        match table {
            Table::Version => {
                let newest = (2..=twin.newest().0).map(Revision);
                let faults = newest.filter(|at| space.range(&KeyRange::all(), *at).any(|pair| pair.is_err()));
                // A version that another change of the same revision replaced is never read by a range.
                let hash = hash::history(&engine.snapshot(), KEYSPACE, None, twin.newest(), None);
                assert!(hash.is_err() && faults.count() <= 20);
            }
            Table::Change => {
                assert!(space.changes(Revision(1), twin.newest(), 100, usize::MAX).is_err());
            }
            Table::State => {}
        }
    }
}

#[test]
fn a_key_space_within_slots_is_as_if_there_were_no_others() {
    for seed in 0..5 {
        let twin = Twin::grow(&mut Random::new(seed), 40);
        let sets = [
            SlotSet::none(),
            SlotSet::from_ranges(once(1..2)),
            SlotSet::from_ranges(once(2..4)),
            SlotSet::all(),
        ];
        for slots in &sets {
            twin.check_within(slots);
        }
        // The hash of some slots is that of a store which holds only those.
        let [_, _, slots, all] = &sets;
        let hash = |engine: &TestEngine, slots| {
            hash::history(&engine.snapshot(), KEYSPACE, slots, twin.newest(), Some(Revision(20))).unwrap()
        };
        let alone = twin.engine.crash(usize::MAX);
        let mut batch = Batch::default();
        for (key, stamp) in twin.versions.keys().filter(|(key, _)| !slots.contains(slot_of(key))) {
            batch.delete(Table::Version, layout::version_row(KEYSPACE, key, *stamp));
        }
        alone.write(batch).unwrap();
        assert_eq!(hash(&twin.engine, Some(slots)), hash(&alone, None));
        assert_eq!(hash(&twin.engine, Some(all)), hash(&twin.engine, None));
        assert_ne!(hash(&twin.engine, Some(slots)), hash(&twin.engine, None));
    }
}

/// A partition is moved to a node that had compacted further without it, and brings older history along.
#[test]
fn rows_older_than_the_last_compaction_are_removed_when_the_next_one_may() {
    [0, 1_000].into_iter().for_each(rows_come_that_are_older);
}

fn rows_come_that_are_older(sweep_part: u64) {
    let twin = Twin::grow(&mut Random::new(3), 40);
    let engine = twin.engine.crash(usize::MAX);
    let mut compactor = Compactor::open(&engine, KEYSPACE).unwrap().with_sweep_part(sweep_part);
    while !compactor.step(&engine, Some(Revision(30)), 5).unwrap() {}
    assert_eq!(compactor.finished(), Some(Revision(30)));
    for compacted in [None, Some(Revision(10))] {
        // What was removed is there again.
        let mut batch = Batch::default();
        for (table, (row, value)) in twin.engine.dump() {
            batch.put(table, row, value);
        }
        engine.write(batch).unwrap();
        while !compactor.step(&engine, compacted, 5).unwrap() {}
        assert_eq!(compactor.finished(), compacted);
        twin.check(&engine, compacted);
        // A pass under way that may not go on.
        assert!(!compactor.step(&engine, Some(Revision(35)), 5).unwrap());
        while !compactor.step(&engine, compacted, 5).unwrap() {}
        twin.check(&engine, Some(Revision(35)));
        while !compactor.step(&engine, Some(Revision(35)), 5).unwrap() {}
        assert_eq!(stored_versions(&engine), twin.kept(Revision(35)));
    }
}
