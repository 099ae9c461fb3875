//! A twin beside it, and what it must not learn.

use super::recent::RECENT_KEY_BYTES_MAX;
use super::*;
use crate::view::{PairIter, View};
use quorate_types::request::SortOrder;
use quorate_types::{Fault, Slot};

/// A generator of its own: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn key(number: u64) -> Key {
    Key::from(format!("k{number:02}"))
}

fn pair(number: u64, revision: u64, bytes: usize) -> KeyValue {
    let modified = Revision(revision);
    let value = vec![b'v'; bytes].into();
    KeyValue { key: key(number), value, create: modified, modified, version: 1, lease: None }
}

fn put(pair: KeyValue) -> Changes {
    Changes::whole(pair.modified, vec![Event::Put(pair)])
}

fn delete(number: u64, revision: u64) -> Changes {
    let modified = Revision(revision);
    Changes::whole(modified, vec![Event::Delete { key: key(number), modified }])
}

fn request(range: KeyRange, limit: Option<u64>) -> RangeRequest {
    RangeRequest { limit, ..RangeRequest::new(range) }
}

/// The history of the keys: what a store is.
#[derive(Default)]
struct Store(BTreeMap<Key, Vec<(Revision, Option<KeyValue>)>>);

impl Store {
    fn apply(&mut self, changes: &Changes) {
        for event in changes.events.iter() {
            let pair = match event {
                Event::Put(pair) => Some(pair.clone()),
                Event::Delete { .. } => None,
            };
            self.0.entry(event.key().clone()).or_default().push((changes.revision, pair));
        }
    }

    fn at(&self, key: &Key, at: Revision) -> Option<KeyValue> {
        let versions = self.0.get(key)?;
        versions.iter().rev().find(|(revision, _)| *revision <= at)?.1.clone()
    }
}

impl View for Store {
    fn slot(&self, _: &[u8]) -> Slot {
        Slot(0)
    }

    fn revision(&self) -> Revision {
        Revision(u64::MAX)
    }

    fn compacted(&self) -> Option<Revision> {
        None
    }

    fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault> {
        Ok(self.at(key, at))
    }

    fn pairs<'v>(&'v self, range: &KeyRange, at: Revision) -> PairIter<'v> {
        let keys = self.0.range::<[u8], _>(range.bounds());
        Box::new(keys.filter_map(move |(key, _)| self.at(key, at)).map(Ok))
    }
}

fn some_range(random: &mut Random) -> KeyRange {
    match random.below(8) {
        0..4 => KeyRange::Single(key(random.below(30))),
        7 => KeyRange::From(key(random.below(30))),
        _ => KeyRange::Between(key(random.below(30)), key(random.below(30))),
    }
}

/// Reads that are learnt late, changes that are published late, and never another answer than the store's.
#[test]
fn it_answers_as_the_store_does_or_not_at_all() {
    let (mut answered, mut keys, mut history, mut learnt) = (0, 0, 0, 0);
    for seed in 0..60 {
        let mut random = Random(seed);
        let (lately, mut store) = (Lately::new(6_000), Store::default());
        let (mut newest, mut published) = (1, Revision(1));
        // Reads under way: the request, the answer, and as of when.
        let mut reads: Vec<(RangeRequest, RangeAnswer, (Revision, Mark))> = Vec::new();
        for _ in 0..3_000 {
            match random.below(10) {
                0..3 => {
                    newest += 1;
                    let number = random.below(30);
                    let change = if random.below(3) == 0 {
                        delete(number, newest)
                    } else {
                        put(pair(number, newest, random.below(200) as usize))
                    };
                    store.apply(&change);
                    lately.note(&[change]);
                }
                3 => published = published.max(Revision(newest - random.below(3).min(newest - 1))),
                4..6 => {
                    let limit = (random.below(3) == 0).then(|| 1 + random.below(5));
                    let request = request(some_range(&mut random), limit);
                    let answer = range::answer(&store, &request, published).unwrap();
                    reads.push((request, answer, (published, lately.mark())));
                }
                6 if !reads.is_empty() => {
                    let (request, answer, at) = reads.swap_remove(random.below(reads.len() as u64) as usize);
                    match &request.range {
                        KeyRange::Single(key) => lately.learn_key(key, answer.pairs.first(), at, || true),
                        _ => lately.learn(&request, &answer, at, || true),
                    }
                    learnt += 1;
                }
                _ => {
                    let mut request = request(some_range(&mut random), None);
                    match random.below(6) {
                        0 => request.limit = Some(1 + random.below(4)),
                        1 => request.count_only = true,
                        2 => request.keys_only = true,
                        3 => request.sort_order = Some(SortOrder::Descending),
                        4 => request.filter.modified_min = Some(Revision(published.0.saturating_sub(9))),
                        _ => {}
                    }
                    // As one that was granted a while ago.
                    let at = Revision(published.0.saturating_sub([0, 0, 1, 5][random.below(4) as usize]));
                    if let Some(answer) = lately.answer(&request, at) {
                        answered += 1;
                        keys += u64::from(matches!(request.range, KeyRange::Single(_)));
                        let expected = range::answer(&store, &request, at).unwrap();
                        assert_eq!(answer, expected, "seed {seed}: {request:?} at {at}");
                    }
                    let (key, at) = (key(random.below(30)), Revision(random.below(published.0 + 1)));
                    if let Ok(pair) = lately.get(&key, at) {
                        history += 1;
                        assert_eq!(pair, store.at(&key, at), "seed {seed}: {key:?} at {at}");
                    }
                }
            }
            let inner = lately.read();
            let pairs: usize = inner.pairs.values().map(pair_bytes).sum();
            let ranges = inner.known.iter().map(|(start, end)| range_bytes(start, end.as_ref()));
            assert_eq!(inner.bytes, pairs + ranges.sum::<usize>());
            assert_eq!(inner.points.bytes(), inner.points.counted());
            assert!(inner.bytes + inner.points.bytes() <= inner.bytes_max);
            assert!(inner.pairs.keys().all(|key| inner.known_end(key).is_some()), "a pair in no range");
        }
    }
    let counts = [answered, keys, history, learnt];
    assert!(counts.iter().all(|count| *count > 2_000), "answered, keys, history, learnt: {counts:?}");
}

#[test]
fn nothing_is_learnt_from_before_a_partition_was_opened_nor_after_the_ground_was_pulled_away() {
    let lately = Lately::default();
    let all = request(KeyRange::all(), None);
    let answer = RangeAnswer { count: 1, pairs: vec![pair(1, 5, 1)], more: false };
    lately.open(Revision(6));
    lately.learn(&all, &answer, (Revision(5), lately.mark()), || true);
    assert_eq!(lately.answer(&all, Revision(6)), None);
    lately.learn(&all, &answer, (Revision(6), lately.mark()), || false);
    assert_eq!(lately.answer(&all, Revision(6)), None);
    lately.learn(&all, &answer, (Revision(6), lately.mark()), || true);
    assert_eq!(lately.answer(&all, Revision(6)), Some(answer));
    lately.forget();
    assert_eq!(lately.answer(&all, Revision(6)), None);
}

#[test]
fn no_key_either() {
    let lately = Lately::default();
    let (key, found) = (key(1), pair(1, 5, 1));
    let mark = || lately.get(&key, Revision(6)).unwrap_err();
    lately.open(Revision(6));
    lately.learn_key(&key, Some(&found), (Revision(5), mark()), || true);
    lately.learn_key(&key, Some(&found), (Revision(6), mark()), || false);
    lately.learn_key(&key, Some(&found), (Revision(6), mark()), || true);
    assert_eq!(lately.get(&key, Revision(6)).unwrap(), Some(found));
    lately.forget();
    mark();
}

#[test]
fn what_was_applied_while_the_store_was_read_counts_also_below_what_was_published() {
    let lately = Lately::default();
    let all = request(KeyRange::all(), None);
    let answer = RangeAnswer { count: 1, pairs: vec![pair(1, 60, 1)], more: false };
    let mark = lately.mark();
    // Revisions have begun again: the state was replaced by one that is older than what was published.
    lately.note(&[put(pair(1, 81, 2))]);
    lately.learn(&all, &answer, (Revision(100), mark), || true);
    assert_eq!(lately.answer(&all, Revision(100)), None);
    lately.learn_key(&key(1), Some(&pair(1, 60, 1)), (Revision(100), mark), || true);
    assert!(lately.get(&key(1), Revision(100)).is_err());
    let long = Key::from(vec![b'k'; RECENT_KEY_BYTES_MAX + 1]);
    let mark = lately.mark();
    lately.note(&[put(KeyValue { key: long, ..pair(1, 82, 2) })]);
    lately.learn(&all, &answer, (Revision(100), mark), || true);
    assert_eq!(lately.answer(&all, Revision(100)), None);
    lately.learn(&all, &answer, (Revision(100), lately.mark()), || true);
    assert_eq!(lately.answer(&all, Revision(100)), Some(answer));
}

#[test]
fn a_key_that_was_removed_before_its_range_was_known_is_missed_by_who_is_to_see_it() {
    let lately = Lately::default();
    let all = request(KeyRange::all(), None);
    lately.note(&[delete(1, 11)]);
    lately.learn(&all, &RangeAnswer::default(), (Revision(11), lately.mark()), || true);
    assert_eq!(lately.answer(&all, Revision(10)), None);
    assert_eq!(lately.answer(&all, Revision(11)), Some(RangeAnswer::default()));
}

#[test]
fn ranges_that_are_too_large_are_left_to_the_store() {
    let lately = Lately::default();
    let all = request(KeyRange::all(), None);
    let pairs: Vec<KeyValue> = (0..=PAIRS_MAX).map(|number| pair(number, 5, 1)).collect();
    let mut answer = RangeAnswer { count: PAIRS_MAX + 1, pairs, more: false };
    lately.learn(&all, &answer, (Revision(6), lately.mark()), || true);
    assert_eq!(lately.answer(&all, Revision(6)), None);
    answer.pairs.pop();
    answer.count = PAIRS_MAX;
    lately.learn(&all, &answer, (Revision(6), lately.mark()), || true);
    assert!(lately.answer(&all, Revision(6)).is_some());
    lately.note(&[put(pair(9_999, 7, 1))]);
    assert_eq!(lately.answer(&all, Revision(7)), None);
}

#[test]
fn neither_keys_nor_ranges_drive_out_all_of_the_others() {
    let lately = Lately::new(30_000);
    let learn_range = |number| {
        let range = KeyRange::Between(key(number), behind(&key(number)));
        let answer = RangeAnswer { count: 1, pairs: vec![pair(number, 5, 100)], more: false };
        lately.learn(&request(range, None), &answer, (Revision(6), lately.mark()), || true);
    };
    let learn_key = |number| {
        let pair = pair(number, 5, 100);
        lately.learn_key(&key(number), Some(&pair), (Revision(6), lately.mark()), || true);
    };
    (100..300).for_each(learn_key);
    let shares = || (lately.read().bytes, lately.read().points.bytes());
    assert!(shares().1 > 29_000, "{shares:?}", shares = shares());
    (300..500).for_each(learn_range);
    assert!(shares().0 > 14_000 && shares().1 > 14_000, "{shares:?}", shares = shares());
    lately.forget();
    (300..500).for_each(learn_range);
    assert!(shares().0 > 29_000, "{shares:?}", shares = shares());
    (100..300).for_each(learn_key);
    assert!(shares().0 > 14_000 && shares().1 > 14_000, "{shares:?}", shares = shares());
}
