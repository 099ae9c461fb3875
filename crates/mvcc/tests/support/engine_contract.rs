//! What `quorate_mvcc::engine` asks of every ordered store, as a test that any store can be put through: random
//! operations against three ordered maps. It is a file of its own because stores live in crates further down; their
//! tests include it by its path.

#![allow(unreachable_pub)]

use quorate_mvcc::engine::{Batch, Engine, ROW_KEY_BYTES_MAX, Read, Row, RowRange, Rows, Table};
use quorate_types::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::{Bound, RangeBounds};

const OPERATIONS: usize = 400;
const SNAPSHOTS_MAX: usize = 4;

/// Seeded random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    /// Keys that begin one another, and the bytes where encodings tend to go wrong; now and then one as long as may be.
    fn key(&mut self) -> Bytes {
        let letter = |random: &mut Self| [0, 1, b'a', b'b', 0xfe, 0xff][random.below(6) as usize];
        let length = 1 + self.below(3);
        let mut key: Vec<u8> = (0..length).map(|_| letter(self)).collect();
        if self.below(40) == 0 {
            let last = letter(self);
            key.resize(ROW_KEY_BYTES_MAX - 1, b'x');
            key.push(last);
        }
        key.into()
    }

    /// Around that key; also bounds that are longer than any row's key.
    fn bound(&mut self) -> Bound<Bytes> {
        let mut key = self.key().to_vec();
        match self.below(12) {
            0 => return Unbounded,
            1 => {
                key.resize(ROW_KEY_BYTES_MAX, b'x');
                key.extend_from_slice(&[0, 7]);
            }
            2 => key.clear(),
            _ => {}
        }
        if self.below(2) == 0 { Included(key.into()) } else { Excluded(key.into()) }
    }

    /// Also ranges that end before they begin, of which there is nothing to read.
    fn range(&mut self) -> RowRange {
        if self.below(4) == 0 {
            // A prefix and all that begins with it.
            let start = self.key().to_vec();
            let mut end = start.clone();
            while end.last() == Some(&0xff) {
                end.pop();
            }
            let after = match end.last_mut() {
                Some(last) => {
                    *last += 1;
                    Excluded(end.into())
                }
                None => Unbounded,
            };
            return (Included(start.into()), after);
        }
        (self.bound(), self.bound())
    }

    fn table(&mut self) -> Table {
        Table::ALL[self.below(3) as usize]
    }
}

/// The rows as they should be.
#[derive(Clone, Default)]
struct Twin([BTreeMap<Bytes, Bytes>; 3]);

impl Twin {
    fn write(&mut self, batch: &Batch) {
        for (table, key, value) in &batch.changes {
            let rows = &mut self.0[*table as usize];
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
    }

    fn rows(&self, table: Table, range: &RowRange) -> Vec<Row> {
        let rows = self.0[table as usize].iter().filter(|(key, _)| range.contains(*key));
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

fn collected(rows: Rows<'_>) -> Vec<Row> {
    rows.map(|row| row.unwrap()).collect()
}

/// Reads something of `store` that must be as in `twin`.
fn check_read(random: &mut Random, store: &impl Read, twin: &Twin) {
    let table = random.table();
    let key =
        if random.below(20) == 0 { Bytes::from(vec![b'x'; ROW_KEY_BYTES_MAX + 1]) } else { random.key() };
    assert_eq!(
        store.get(table, &key).unwrap().as_ref(),
        twin.0[table as usize].get(&key),
        "{table:?} {key:?}"
    );
    let range = random.range();
    let mut expected = twin.rows(table, &range);
    assert_eq!(collected(store.scan(table, range.clone())), expected, "{table:?} {range:?}");
    expected.reverse();
    assert_eq!(collected(store.scan_back(table, range.clone())), expected, "back: {table:?} {range:?}");
}

fn random_batch(random: &mut Random, value_bytes_max: u64) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..random.below(9) {
        let (table, key) = (random.table(), random.key());
        if random.below(3) == 0 {
            batch.delete(table, key);
        } else {
            let value = vec![random.below(256) as u8; random.below(value_bytes_max) as usize];
            batch.put(table, key, value);
        }
    }
    batch
}

/// Puts a store through random operations. `reopened` gives the store as it is after its process has ended.
/// Larger values make a store that writes to disk in parts write more of them.
pub fn check_operations<E: Engine>(
    seed: u64,
    value_bytes_max: u64,
    mut engine: E,
    reopened: impl Fn(E) -> E,
) {
    println!("seed {seed}");
    let random = &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut twin = Twin::default();
    let mut snapshots: Vec<(E::Snapshot, Twin)> = Vec::new();
    for _ in 0..OPERATIONS {
        match random.below(40) {
            0 => {
                engine.flush().unwrap();
                // A store is not opened again while a view of it is in use.
                snapshots.clear();
                engine = reopened(engine);
            }
            1 => engine.flush().unwrap(),
            2..6 => {
                if snapshots.len() == SNAPSHOTS_MAX {
                    snapshots.remove(random.below(SNAPSHOTS_MAX as u64) as usize);
                }
                snapshots.push((engine.snapshot(), twin.clone()));
            }
            6..8 => {
                // A scan shows the moment of its call, whatever is written while it is read.
                let (table, range) = (random.table(), random.range());
                let mut expected = twin.rows(table, &range);
                let is_back = random.below(2) == 0;
                if is_back {
                    expected.reverse();
                }
                let reader = engine.clone();
                let mut rows = if is_back {
                    reader.scan_back(table, range.clone())
                } else {
                    reader.scan(table, range.clone())
                };
                let mut found: Vec<Row> = rows.by_ref().take(2).map(|row| row.unwrap()).collect();
                let batch = random_batch(random, value_bytes_max);
                twin.write(&batch);
                engine.write(batch).unwrap();
                found.extend(collected(rows));
                assert_eq!(found, expected, "{table:?} {range:?} while written");
            }
            8..24 => {
                let batch = random_batch(random, value_bytes_max);
                twin.write(&batch);
                engine.write(batch).unwrap();
            }
            _ => check_read(random, &engine, &twin),
        }
        if !snapshots.is_empty() {
            let (snapshot, twin) = &snapshots[random.below(snapshots.len() as u64) as usize];
            check_read(random, snapshot, twin);
        }
    }
    for table in Table::ALL {
        let all = (Unbounded, Unbounded);
        assert_eq!(collected(engine.scan(table, all.clone())), twin.rows(table, &all));
    }
}

/// Batches are visible whole or not at all, and in order, to a thread that reads while another writes.
pub fn check_batches_are_atomic<E: Engine>(engine: &E) {
    const BATCHES: u64 = 2_000;
    const KEYS: [&[u8]; 3] = [b"a", b"m", b"z"];
    let batch = |number: u64| {
        let mut batch = Batch::default();
        for table in Table::ALL {
            for key in KEYS {
                batch.put(table, key, number.to_be_bytes().to_vec());
            }
        }
        batch
    };
    let number = |value: &Bytes| u64::from_be_bytes(value[..].try_into().unwrap());
    engine.write(batch(0)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=BATCHES {
                engine.write(batch(number)).unwrap();
            }
        });
        let mut last = 0;
        while last < BATCHES {
            let snapshot = engine.snapshot();
            let values: Vec<u64> = Table::ALL
                .into_iter()
                .flat_map(|table| collected(snapshot.scan(table, (Unbounded, Unbounded))))
                .map(|(_, value)| number(&value))
                .collect();
            assert!(values.len() == 9 && values.iter().all(|value| *value == values[0]), "{values:?}");
            assert!(values[0] >= last, "{} after {last}", values[0]);
            last = values[0];
            // A scan of the store itself is of one moment, too.
            let values: Vec<u64> = collected(engine.scan_back(Table::Change, (Unbounded, Unbounded)))
                .iter()
                .map(|(_, value)| number(value))
                .collect();
            assert!(values.len() == 3 && values.iter().all(|value| *value == values[0]), "{values:?}");
            assert!(values[0] >= last, "{} after {last}", values[0]);
        }
    });
}
