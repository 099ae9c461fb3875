//! Rows in memory in front of a store: one ordered store to those who use it, and after a crash one that has lost the latest batches and nothing else.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

#[path = "../../mvcc/tests/support/engine_contract.rs"]
mod contract;

use quorate_consensus::random::Random;
use quorate_mvcc::engine::{Batch, Engine, Read, Row, RowRange, Rows, Table};
use quorate_storage::front::Front;
use quorate_storage::memory::MemoryEngine;
use quorate_types::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::atomic::{AtomicBool, Ordering};

type Store = Front<MemoryEngine>;

#[test]
fn operations_do_what_they_do_on_ordered_maps() {
    for seed in 0..40 {
        // From layers of a single batch to one that is never full.
        let layer_bytes = [1, 600, 5_000, 200_000, usize::MAX / 2][seed as usize % 5];
        let new = || Front::new(MemoryEngine::default(), layer_bytes);
        contract::check_operations(seed, 40, new(), |front| Front::new(front.base().clone(), layer_bytes));
    }
}

#[test]
fn batches_are_seen_whole_and_in_order_while_others_spill() {
    for layer_bytes in [1, 3_000, 50_000] {
        let front = Front::new(MemoryEngine::default(), layer_bytes);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    front.spill().unwrap();
                    std::thread::yield_now();
                }
            });
            contract::check_batches_are_atomic(&front);
            is_over.store(true, Ordering::Release);
        });
    }
}

/// The rows after each batch so far.
#[derive(Clone, Default)]
struct Model(BTreeMap<(Table, Bytes), Bytes>);

impl Model {
    fn write(&mut self, batch: &Batch) {
        for (table, key, value) in &batch.changes {
            match value {
                Some(value) => self.0.insert((*table, key.clone()), value.clone()),
                None => self.0.remove(&(*table, key.clone())),
            };
        }
    }

    fn of(read: &impl Read) -> Self {
        let rows = Table::ALL.into_iter().flat_map(|table| {
            let rows = read.scan(table, (Unbounded, Unbounded)).map(Result::unwrap);
            rows.map(|(key, value)| ((table, key), value)).collect::<Vec<_>>()
        });
        Self(rows.collect())
    }
}

fn random_batch(random: &mut Random) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..random.between(1, 12) {
        let table = Table::ALL[random.between(0, 3) as usize];
        // Some longer than what stands in the map itself.
        let length = [2, 2, 39, 40, 41, 90][random.between(0, 6) as usize];
        let mut key = vec![b'k'; length];
        key[length - 1] = random.between(0, 40) as u8;
        if random.between(0, 4) == 0 {
            batch.delete(table, key);
        } else {
            let bytes = random.between(0, 60) as usize;
            batch.put(table, key, vec![random.between(0, 256) as u8; bytes]);
        }
    }
    batch
}

/// Batches, views of any age, spilling and crashes, in any order.
#[test]
fn a_crash_loses_the_latest_batches_and_nothing_else() {
    let (mut lost, mut kept_some) = (0, 0);
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let layer_bytes = random.between(1, 8_000) as usize;
        let base = MemoryEngine::default();
        let mut front: Store = Front::new(base.clone(), layer_bytes);
        let (mut models, mut durable) = (vec![Model::default()], 0);
        let mut views = Vec::new();
        for _ in 0..random.between(10, 120) {
            let now = models.last().unwrap().clone();
            match random.between(0, 20) {
                0 => {
                    front.flush().unwrap();
                    durable = models.len() - 1;
                    assert_eq!(front.bytes(), (0, 0));
                }
                1 | 2 => drop(front.spill().unwrap()),
                3 => front.seal(),
                4 => views.push((front.snapshot(), now)),
                5 if !views.is_empty() => {
                    views.swap_remove(random.between(0, views.len() as u64) as usize);
                }
                6 => {
                    // All that was not spilled is gone; what was, is there as a whole.
                    drop(views.split_off(0));
                    front = Front::new(base.clone(), layer_bytes);
                    let found = Model::of(&front).0;
                    let at = models.iter().rposition(|model| model.0 == found);
                    let at = at.unwrap_or_else(|| panic!("seed {seed}: rows that never were so"));
                    assert!(at >= durable, "seed {seed}: {at} of {}, {durable} were durable", models.len());
                    (lost, kept_some) = (lost + models.len() - 1 - at, kept_some + usize::from(at > durable));
                    models.truncate(at + 1);
                }
                _ => {
                    let batch = random_batch(&mut random);
                    let mut next = now;
                    next.write(&batch);
                    models.push(next);
                    front.write(batch).unwrap();
                }
            }
            assert_eq!(Model::of(&front).0, models.last().unwrap().0, "seed {seed}");
            for (view, model) in &views {
                assert_eq!(Model::of(view).0, model.0, "seed {seed}: a view of before");
            }
        }
    }
    assert!(lost > 1_000 && kept_some > 50, "{lost} {kept_some}");
}

#[test]
fn a_scan_goes_on_over_rows_that_came_later() {
    let front: Store = Front::new(MemoryEngine::default(), usize::MAX / 2);
    let put = |numbers: &mut dyn Iterator<Item = u16>| {
        let mut batch = Batch::default();
        numbers.for_each(|number| batch.put(Table::Version, number.to_be_bytes().to_vec(), vec![1]));
        front.write(batch).unwrap();
    };
    put(&mut [3, 5_000, 9_999].into_iter());
    let view = front.snapshot();
    put(&mut (0..10_000));
    let numbers = |rows: Rows<'_>| -> Vec<u16> {
        let number = |row: Row| u16::from_be_bytes(row.0[..].try_into().unwrap());
        rows.map(|row| number(row.unwrap())).collect()
    };
    let all: RowRange = (Unbounded, Unbounded);
    assert_eq!(numbers(view.scan(Table::Version, all.clone())), [3, 5_000, 9_999]);
    assert_eq!(numbers(view.scan_back(Table::Version, all.clone())), [9_999, 5_000, 3]);
    assert_eq!(numbers(front.scan(Table::Version, all)).len(), 10_000);
    let key = |number: u16| Bytes::from(number.to_be_bytes().to_vec());
    let range = (Excluded(key(7)), Included(key(400)));
    assert_eq!(numbers(front.scan_back(Table::Version, range)), (8..=400).rev().collect::<Vec<_>>());
}

/// Versions of keys, written in their order and removed in any, wherever they stand.
#[test]
fn the_newest_version_of_a_key_is_found_as_by_a_scan() {
    let (mut found, mut gone) = (0, 0);
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let front: Store = Front::new(MemoryEngine::default(), random.between(1, 3_000) as usize);
        let row = |key: u64, stamp: u64| vec![key as u8, !(stamp as u8)];
        let mut views = vec![(front.snapshot(), 0)];
        for stamp in 1..=200 {
            let mut batch = Batch::default();
            batch.put(Table::Version, row(random.between(0, 6), stamp), vec![stamp as u8]);
            for _ in 0..random.between(0, 3) {
                batch.delete(Table::Version, row(random.between(0, 6), random.between(1, stamp + 1)));
            }
            front.write(batch).unwrap();
            if random.between(0, 3) == 0 {
                front.spill().unwrap();
            }
            if random.between(0, 20) == 0 {
                views.push((front.snapshot(), stamp));
            }
            let range = |at: u64, key: u64| {
                (Included(Bytes::from(row(key, at))), Excluded(Bytes::from(vec![key as u8 + 1])))
            };
            let at = range(random.between(1, stamp + 1), random.between(0, 6));
            let expected = front.scan(Table::Version, at.clone()).next().transpose().unwrap();
            (found, gone) = (found + usize::from(expected.is_some()), gone + usize::from(expected.is_none()));
            assert_eq!(front.first(Table::Version, at).unwrap(), expected, "seed {seed}");
            let (view, newest) = &views[random.between(0, views.len() as u64) as usize];
            let at = range(*newest, random.between(0, 6));
            let expected = view.scan(Table::Version, at.clone()).next().transpose().unwrap();
            assert_eq!(view.first(Table::Version, at).unwrap(), expected, "seed {seed}: a view");
        }
    }
    assert!(found > 5_000 && gone > 500, "{found} {gone}");
}

#[test]
fn memory_is_bounded_whether_or_not_somebody_spills() {
    let front: Store = Front::new(MemoryEngine::default(), 10_000);
    for number in 0..5_000u32 {
        let mut batch = Batch::default();
        batch.put(Table::Change, number.to_be_bytes().to_vec(), vec![7; 100]);
        // What is written again takes no more.
        batch.put(Table::State, vec![1], vec![7; 100]);
        front.write(batch).unwrap();
        let (active, sealed) = front.bytes();
        assert!(active < 21_000 && sealed < 21_000, "{active} {sealed}");
    }
    assert!(Model::of(front.base()).0.len() > 4_800);
}

#[test]
fn nothing_is_written_after_the_base_failed() {
    let front: Store = Front::new(MemoryEngine::default(), 10_000);
    let mut batch = Batch::default();
    batch.put(Table::State, vec![1], vec![1]);
    front.write(batch.clone()).unwrap();
    front.base().fail_after(0);
    front.flush().unwrap_err();
    front.write(batch).unwrap_err();
    front.flush().unwrap_err();
    front.spill().unwrap_err();
    assert_eq!(front.get(Table::State, &[1]).unwrap().unwrap()[..], [1], "reads go on");
}
