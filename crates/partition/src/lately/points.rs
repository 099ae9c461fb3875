//! Keys that were read by themselves: the newest version of each, or since when there is none.
//!
//! A key stands under its hash, so that to find one compares numbers, which stand together, and not keys, which do not. Of two keys with one hash the later drives out the
//! other: nobody can make it slow by choosing keys. And an absent key says since when it is known to be, which says more than all that is remembered of removals.
//!
//! What is over goes in the order of the hashes, which is none, but what was read since the last round stays for another (the clock algorithm, Corbató 1968).

use super::copied;
use quorate_types::{Bytes, Event, Key, KeyValue, Revision, reached};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use twox_hash::XxHash3_64;

/// Counted for each key beside its bytes and those of its value.
const OVERHEAD_BYTES: usize = 190;
/// A larger pair is not kept: it would only drive out everything else.
pub(super) const PAIR_BYTES_MAX: usize = 1 << 20;
/// Keys in a row that stay because they were read; then one goes all the same, for whoever applies waits.
const STAYING_MAX: usize = 16;

/// See the [module](self). Told of every change, it answers as the store does as of any revision that it answers for.
#[derive(Debug, Default)]
pub(super) struct Points {
    /// Boxed: so few bytes are walked over that they are in the processor's cache, and none are reserved for points that are not there.
    points: BTreeMap<u64, Box<Point>>,
    bytes: usize,
    /// Where to go on with giving up.
    hand: u64,
}

#[derive(Debug)]
struct Point {
    newest: Newest,
    /// It was read since the hand went by. Nothing else depends on it.
    is_used: AtomicBool,
}

/// What is known of a key.
#[derive(Debug)]
pub(super) enum Newest {
    Pair(KeyValue),
    /// There is none, and was none since then.
    Absent {
        key: Key,
        since: Revision,
    },
}

impl Newest {
    /// What a read brought as of `at`, which nothing has overtaken.
    pub(super) fn read(key: &Key, pair: Option<&KeyValue>, at: Revision) -> Self {
        match pair {
            Some(pair) => Self::Pair(copied(pair)),
            None => Self::Absent { key: Bytes::copy_from_slice(key), since: at },
        }
    }

    fn key(&self) -> &Key {
        match self {
            Self::Pair(pair) => &pair.key,
            Self::Absent { key, .. } => key,
        }
    }

    fn bytes(&self) -> usize {
        let value = match self {
            Self::Pair(pair) => pair.value.len(),
            Self::Absent { .. } => 0,
        };
        OVERHEAD_BYTES + self.key().len() + value
    }
}

impl Points {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.points.clear();
        self.bytes = 0;
    }

    /// What there was of `key` as of `at`, if that is known.
    pub(super) fn get(&self, key: &Key, at: Revision) -> Option<Option<KeyValue>> {
        let point = self.points.get(&hash(key)).filter(|point| point.newest.key() == key)?;
        let known = match &point.newest {
            Newest::Pair(pair) => (pair.modified <= at).then_some(Some(pair)),
            Newest::Absent { since, .. } => (*since <= at).then_some(None),
        };
        reached!("key-too-new", known.is_none());
        let known = known?;
        point.is_used.store(true, Ordering::Relaxed);
        // Whoever asks has the key already. Ours would have to be fetched, only to count that there is one more of it.
        Some(known.map(|pair| KeyValue { key: key.clone(), value: pair.value.clone(), ..*pair }))
    }

    /// Whether something is known of a key.
    #[cfg(test)]
    pub(super) fn has(&self, key: &Key) -> bool {
        self.points.get(&hash(key)).is_some_and(|point| point.newest.key() == key)
    }

    /// What is counted, counted anew.
    #[cfg(test)]
    pub(super) fn counted(&self) -> usize {
        self.points.values().map(|point| point.newest.bytes()).sum()
    }

    /// Makes a change to what is known.
    pub(super) fn note(&mut self, event: &Event) {
        if self.points.is_empty() {
            return;
        }
        let hash = hash(event.key());
        let Some(point) = self.points.get_mut(&hash).filter(|point| point.newest.key() == event.key()) else {
            return;
        };
        let key = point.newest.key().clone();
        self.bytes -= point.newest.bytes();
        point.newest = match event {
            Event::Put(pair) if pair.bytes() > PAIR_BYTES_MAX => {
                self.points.remove(&hash);
                return;
            }
            Event::Put(pair) => {
                Newest::Pair(KeyValue { key, value: Bytes::copy_from_slice(&pair.value), ..*pair })
            }
            Event::Delete { modified, .. } => Newest::Absent { key, since: *modified },
        };
        self.bytes += point.newest.bytes();
    }

    /// That is known of its key from now on.
    pub(super) fn learn(&mut self, newest: Newest) {
        let hash = hash(newest.key());
        self.bytes += newest.bytes();
        let point = Box::new(Point { newest, is_used: AtomicBool::new(false) });
        if let Some(before) = self.points.insert(hash, point) {
            self.bytes -= before.newest.bytes();
        }
    }

    /// Gives up one key, if there is any.
    pub(super) fn give_up(&mut self) {
        let ahead = self.points.range(self.hand..).chain(self.points.range(..self.hand));
        let mut going = None;
        for (hash, point) in ahead.take(STAYING_MAX + 1) {
            going = Some(*hash);
            if !point.is_used.swap(false, Ordering::Relaxed) {
                break;
            }
        }
        let Some(going) = going else { return };
        if let Some(point) = self.points.remove(&going) {
            self.bytes -= point.newest.bytes();
        }
        self.hand = going.wrapping_add(1);
    }
}

fn hash(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Key {
        Key::from(format!("k{number}"))
    }

    fn learn(points: &mut Points, number: u64) {
        points.learn(Newest::read(&key(number), None, Revision(5)));
    }

    #[test]
    fn what_is_read_again_and_again_stays() {
        let mut points = Points::default();
        (0..10).for_each(|number| learn(&mut points, number));
        for number in 10..1_000 {
            assert!(points.get(&key(3), Revision(5)).is_some(), "gone after {number}");
            learn(&mut points, number);
            points.give_up();
            assert_eq!((points.points.len(), points.bytes()), (10, points.counted()));
        }
    }

    #[test]
    fn one_goes_also_if_all_were_read() {
        let mut points = Points::default();
        (0..100).for_each(|number| learn(&mut points, number));
        for left in (0..100).rev() {
            (0..100).for_each(|number| drop(points.get(&key(number), Revision(5))));
            points.give_up();
            assert_eq!(points.points.len(), left);
        }
        points.give_up();
        assert_eq!(points.bytes(), 0);
    }

    #[test]
    fn keys_with_one_hash_are_not_taken_for_each_other() {
        let mut points = Points::default();
        let pair = |number, revision| {
            let modified = Revision(revision);
            KeyValue {
                key: key(number),
                value: Bytes::new(),
                create: modified,
                modified,
                version: 1,
                lease: None,
            }
        };
        // As if the first had the hash of the second.
        let point = Box::new(Point { newest: Newest::Pair(pair(1, 5)), is_used: AtomicBool::new(false) });
        points.bytes += point.newest.bytes();
        points.points.insert(hash(&key(2)), point);
        assert_eq!(points.get(&key(2), Revision(9)), None);
        points.note(&Event::Put(pair(2, 6)));
        assert_eq!(points.get(&key(2), Revision(9)), None);
        points.learn(Newest::read(&key(2), Some(&pair(2, 6)), Revision(6)));
        assert_eq!(points.get(&key(2), Revision(9)), Some(Some(pair(2, 6))));
        assert_eq!(points.bytes(), points.counted());
    }

    #[test]
    fn a_value_that_grows_too_large_drives_out_its_own_older_version() {
        let mut points = Points::default();
        let modified = Revision(6);
        let value = vec![0; PAIR_BYTES_MAX + 1].into();
        learn(&mut points, 1);
        points.note(&Event::Put(KeyValue {
            key: key(1),
            value,
            create: modified,
            modified,
            version: 1,
            lease: None,
        }));
        assert!(!points.has(&key(1)));
        assert_eq!(points.bytes(), 0);
    }
}
