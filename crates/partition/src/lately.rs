//! The newest pairs of ranges that were read lately: what is read again is answered from memory, whatever history its keys have.
//!
//! In the store the versions of a key stand together, so a range over keys that are often written walks over old versions, or seeks past
//! them, key by key. What was read of the newest revision is kept here, and every change that is applied is made here, too. The ranges that are
//! *known* are kept beside the pairs: a key that is in one and has no pair does not exist.
//!
//! It must never answer otherwise than the store:
//!
//! * Changes come in before they are published ([`Lately::note`]). Whoever reads as of a revision is answered only if nothing in its range is newer, and if
//!   nothing newer was removed from it; of a keyspace with several partitions some have applied more than is published.
//! * What a read brings ([`Lately::learn`]) is as of its revision. Nothing in its range may have been applied since it began, nor be newer than it: the changes of
//!   late are remembered by key, and a read that is older than those is not taken. Both are asked, because after the recovery of a lost quorum revisions may begin
//!   again below what was published.
//! * Whatever else changes the rows (a snapshot, slots that come and go) makes the keyspace unreadable first, and with that all is forgotten
//!   ([`Lately::forget`]); a partition that is opened may have more than is published and noted ([`Lately::open`]).
//!
//! Bounded in bytes, of a keyspace on a node: what is over goes from the smallest keys to the largest and from the smallest again, so that nothing has to be
//! remembered of who reads what.

use crate::range;
use crate::view::{PairIter, View};
use quorate_types::reply::RangeAnswer;
use quorate_types::request::{RangeRequest, SortTarget};
use quorate_types::{Bytes, Changes, Event, Fault, Key, KeyRange, KeyValue, Revision, Slot, reached};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes of pairs and ranges.
const BYTES_MAX: usize = 16 << 20;
/// Counted for each pair and each range beside their bytes.
const OVERHEAD_BYTES: usize = 200;
/// Ranges with more pairs are not kept, nor answered: whoever applies would wait for it.
const PAIRS_MAX: u64 = 1_000;
/// Of the pairs of one range, about: to copy more takes long.
const READ_BYTES_MAX: usize = 1 << 20;
/// Pairs that are given up together.
const GIVEN_UP_AT_ONCE: usize = 64;
/// Changes that a read may be overtaken by and still be kept, if they are of other keys.
const RECENT_MAX: usize = 512;
/// A change of a longer key is not remembered: no read that it may have overtaken is kept.
const RECENT_KEY_BYTES_MAX: usize = 1_024;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lately {
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes_max: usize,
    pairs: BTreeMap<Key, KeyValue>,
    /// Where known ranges begin and end (`None`: nowhere); they neither overlap nor touch.
    known: BTreeMap<Key, Option<Key>>,
    bytes: usize,
    /// The newest change that removed a key.
    removed: Revision,
    /// How many changes were noted.
    noted: u64,
    /// The last of them.
    recent: VecDeque<Recent>,
    /// The newest revision of these,
    newest: Revision,
    /// the newest that may be missing among them,
    unseen: Revision,
    /// and the number of the last that is missing.
    dropped: u64,
    /// Where to go on with giving up what is over.
    hand: Key,
}

/// A change of late: its number, when it was made, and of what.
#[derive(Debug)]
struct Recent {
    number: u64,
    revision: Revision,
    key: Key,
}

/// What had been noted when a read began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

impl Default for Lately {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl Lately {
    fn new(bytes_max: usize) -> Self {
        Self {
            inner: RwLock::new(Inner {
                bytes_max,
                pairs: BTreeMap::new(),
                known: BTreeMap::new(),
                bytes: 0,
                removed: Revision(0),
                noted: 0,
                recent: VecDeque::new(),
                newest: Revision(0),
                unseen: Revision(0),
                dropped: 0,
                hand: Key::new(),
            }),
        }
    }

    // Nothing can panic while it is locked that would leave it half changed and readable: what is applied ends with the process.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// These changes are in the store, and not published yet.
    pub(crate) fn note(&self, changes: &[Changes]) {
        if changes.is_empty() {
            return;
        }
        let mut inner = self.write();
        for change in changes {
            for event in change.events.iter() {
                inner.note(event, change.revision);
            }
        }
        inner.bound();
    }

    /// A partition was opened, or filled anew, whose rows go up to this revision.
    pub(crate) fn open(&self, revision: Revision) {
        let mut inner = self.write();
        inner.clear();
        inner.unseen = inner.unseen.max(revision);
        inner.removed = inner.removed.max(revision);
    }

    /// Rows may change without a word. To be called when nobody may read the keyspace any more.
    pub(crate) fn forget(&self) {
        self.write().clear();
    }

    /// The answer as of `at`, a revision that is published, if all that it takes is known here.
    pub(crate) fn answer(&self, request: &RangeRequest, at: Revision) -> Option<RangeAnswer> {
        if is_of_a_revision(request) {
            return None;
        }
        let inner = self.read();
        if !inner.knows(&request.range) {
            return None;
        }
        if at < inner.removed && inner.is_overtaken(&request.range, at) {
            reached!("read-from-memory-removed-since");
            return None;
        }
        let view = Known { inner: &inner, at, is_known: Cell::new(true) };
        let answer = range::answer(&view, request, at).ok()?;
        let is_known = view.is_known.get() && answer.count <= PAIRS_MAX;
        reached!("read-from-memory", is_known);
        reached!("read-from-memory-too-new", !view.is_known.get());
        is_known.then_some(answer)
    }

    /// To be taken before the store is read, for [`Lately::learn`].
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.read().noted)
    }

    /// What the store had of a range as of `at`. `is_readable` is asked while nobody else can change anything here.
    pub(crate) fn learn(
        &self,
        request: &RangeRequest,
        answer: &RangeAnswer,
        (at, mark): (Revision, Mark),
        is_readable: impl FnOnce() -> bool,
    ) {
        let is_whole = !request.count_only && !request.keys_only && !request.filter.is_set();
        let is_in_order = request.sort_order.is_none() && request.sort_target == SortTarget::Key;
        let is_small = answer.pairs.len() as u64 <= PAIRS_MAX
            && answer.pairs.iter().map(pair_bytes).sum::<usize>() <= READ_BYTES_MAX;
        if is_of_a_revision(request) || !is_whole || !is_in_order || !is_small || request.limit == Some(0) {
            return;
        }
        let start = request.range.start();
        let end = match (&request.range, answer.pairs.last().filter(|_| answer.more)) {
            (_, Some(last)) => Some(behind(&last.key)),
            (KeyRange::Single(key), None) => Some(behind(key)),
            (KeyRange::Between(start, end), None) if start < end => Some(Key::copy_from_slice(end)),
            (KeyRange::Between(..), None) => return,
            (KeyRange::From(_), None) => None,
        };
        // Before anybody has to wait.
        let pairs: Vec<KeyValue> = answer.pairs.iter().map(copied).collect();
        let mut inner = self.write();
        if !is_readable() {
            return;
        }
        if inner.is_overtaken(&request.range, at) || inner.has_changed(&request.range, mark) {
            reached!("read-overtaken-not-kept");
            return;
        }
        inner.learn(start, end, pairs);
    }
}

/// Whether history is asked for.
fn is_of_a_revision(request: &RangeRequest) -> bool {
    request.revision.is_some_and(|asked| asked > 0)
}

/// The smallest key behind `key`.
fn behind(key: &[u8]) -> Key {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Whether a range that ends at `end` reaches beyond `key`.
fn reaches(end: Option<&Key>, key: &[u8]) -> bool {
    end.is_none_or(|end| key < end.as_ref())
}

fn pair_bytes(pair: &KeyValue) -> usize {
    OVERHEAD_BYTES + pair.key.len() + pair.value.len()
}

fn range_bytes(start: &Key, end: Option<&Key>) -> usize {
    OVERHEAD_BYTES + start.len() + end.map_or(0, Key::len)
}

/// A slice would keep all that it was cut from in memory, and the bound would mean nothing.
fn copied(pair: &KeyValue) -> KeyValue {
    KeyValue { key: Bytes::copy_from_slice(&pair.key), value: Bytes::copy_from_slice(&pair.value), ..*pair }
}

impl Inner {
    fn clear(&mut self) {
        self.pairs.clear();
        self.known.clear();
        self.bytes = 0;
    }

    /// Gives up what is over.
    fn bound(&mut self) {
        while self.bytes > self.bytes_max {
            let behind = self.known.range::<Key, _>(&self.hand..).next();
            let Some((start, end)) = behind.or_else(|| self.known.iter().next()) else { return };
            let (start, end) = (start.clone(), end.clone());
            self.known.remove(&start);
            self.bytes -= range_bytes(&start, end.as_ref());
            let bounds = (Bound::Included(&start), end.as_ref().map_or(Bound::Unbounded, Bound::Excluded));
            let mut keys: Vec<Key> = self
                .pairs
                .range::<Key, _>(bounds)
                .take(GIVEN_UP_AT_ONCE + 1)
                .map(|(key, _)| key.clone())
                .collect();
            let rest = if keys.len() > GIVEN_UP_AT_ONCE { keys.pop() } else { None };
            for key in keys {
                self.drop_pair(&key);
            }
            match rest {
                Some(rest) => {
                    self.bytes += range_bytes(&rest, end.as_ref());
                    self.known.insert(rest.clone(), end);
                    self.hand = rest;
                }
                None => self.hand = start,
            }
        }
    }

    fn drop_pair(&mut self, key: &[u8]) {
        if let Some(pair) = self.pairs.remove(key) {
            self.bytes -= pair_bytes(&pair);
        }
    }

    /// The known range that a key is in, if any: where it ends.
    fn known_end(&self, key: &[u8]) -> Option<Option<&Key>> {
        let (_, end) = self.known.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        reaches(end.as_ref(), key).then_some(end.as_ref())
    }

    fn knows(&self, range: &KeyRange) -> bool {
        let Some(end) = self.known_end(range.start()) else { return false };
        match (range, end) {
            (KeyRange::Single(_), _) | (_, None) => true,
            (KeyRange::Between(_, wanted), Some(end)) => wanted <= end,
            (KeyRange::From(_), Some(_)) => false,
        }
    }

    fn note(&mut self, event: &Event, revision: Revision) {
        let key = event.key();
        self.remember(key, revision);
        let is_known = self.known_end(key).is_some();
        match event {
            Event::Put(pair) if is_known => self.put(copied(pair)),
            Event::Put(_) => {}
            Event::Delete { key, modified } => {
                self.drop_pair(key);
                // Also of what is not known now: it may be when somebody comes who is to see the key.
                self.removed = self.removed.max(*modified);
            }
        }
    }

    fn remember(&mut self, key: &Key, revision: Revision) {
        self.noted += 1;
        self.newest = self.newest.max(revision);
        let mut forgotten = None;
        if key.len() > RECENT_KEY_BYTES_MAX {
            forgotten = Some((self.noted, revision));
        } else {
            let key = Key::copy_from_slice(key);
            self.recent.push_back(Recent { number: self.noted, revision, key });
            if self.recent.len() > RECENT_MAX {
                forgotten = self.recent.pop_front().map(|recent| (recent.number, recent.revision));
            }
        }
        if let Some((number, revision)) = forgotten {
            self.dropped = self.dropped.max(number);
            self.unseen = self.unseen.max(revision);
        }
    }

    fn put(&mut self, pair: KeyValue) {
        self.bytes += pair_bytes(&pair);
        if let Some(before) = self.pairs.insert(pair.key.clone(), pair) {
            self.bytes -= pair_bytes(&before);
        }
    }

    /// Whether something in the range is newer than `at`, or may be.
    fn is_overtaken(&self, range: &KeyRange, at: Revision) -> bool {
        let is_newer = |recent: &Recent| recent.revision > at && range.contains(&recent.key);
        at < self.unseen || (at < self.newest && self.recent.iter().any(is_newer))
    }

    /// Whether something in the range was applied after `mark`, or may have been.
    fn has_changed(&self, range: &KeyRange, mark: Mark) -> bool {
        let since = self.recent.iter().rev().take_while(|recent| recent.number > mark.0);
        mark.0 < self.dropped || { since }.any(|recent| range.contains(&recent.key))
    }

    /// The pairs are those of the range now.
    fn learn(&mut self, start: &Key, end: Option<Key>, pairs: Vec<KeyValue>) {
        for pair in pairs {
            self.put(pair);
        }
        let (mut start, mut end) = (Key::copy_from_slice(start), end);
        // One that begins before it and reaches it, and those that begin in it or where it ends, become one with it.
        if let Some((first, until)) = self.known.range::<Key, _>(..=&start).next_back()
            && until.as_ref().is_none_or(|until| start <= *until)
        {
            start = first.clone();
        }
        while let Some((next, until)) = self.known.range::<Key, _>(&start..).next()
            && end.as_ref().is_none_or(|end| next <= end)
        {
            let (next, until) = (next.clone(), until.clone());
            self.known.remove(&next);
            self.bytes -= range_bytes(&next, until.as_ref());
            end = end.and_then(|end| Some(end.max(until?)));
        }
        self.bytes += range_bytes(&start, end.as_ref());
        self.known.insert(start, end);
        self.bound();
    }
}

/// What is known, as of a revision.
struct Known<'a> {
    inner: &'a Inner,
    at: Revision,
    /// Nothing newer was met.
    is_known: Cell<bool>,
}

impl Known<'_> {
    fn is_of(&self, pair: &KeyValue) -> bool {
        let is_of = pair.modified <= self.at;
        if !is_of {
            self.is_known.set(false);
        }
        is_of
    }
}

impl View for Known<'_> {
    fn slot(&self, _: &[u8]) -> Slot {
        panic!("nothing is written over what is known: a leader evaluates")
    }

    fn revision(&self) -> Revision {
        self.at
    }

    fn compacted(&self) -> Option<Revision> {
        None
    }

    fn get(&self, key: &Key, _: Revision) -> Result<Option<KeyValue>, Fault> {
        Ok(self.inner.pairs.get(key).filter(|pair| self.is_of(pair)).cloned())
    }

    fn pairs<'v>(&'v self, range: &KeyRange, _: Revision) -> PairIter<'v> {
        let pairs = self.inner.pairs.range::<[u8], _>(range.bounds()).map(|(_, pair)| pair);
        // One more than is answered, which tells that there are too many.
        let pairs = pairs.take(PAIRS_MAX as usize + 1).take_while(|pair| self.is_of(pair));
        Box::new(pairs.map(|pair| Ok(pair.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::request::SortOrder;

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
        let (mut answered, mut learnt) = (0, 0);
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
                        let (request, answer, at) =
                            reads.swap_remove(random.below(reads.len() as u64) as usize);
                        lately.learn(&request, &answer, at, || true);
                        learnt += 1;
                    }
                    _ => {
                        let mut request = request(some_range(&mut random), None);
                        match random.below(6) {
                            0 => request.limit = Some(1 + random.below(4)),
                            1 => request.count_only = true,
                            2 => request.keys_only = true,
                            3 => request.sort_order = Some(SortOrder::Descending),
                            _ => {}
                        }
                        // As one that was granted a while ago.
                        let at = Revision(published.0.saturating_sub([0, 0, 1, 5][random.below(4) as usize]));
                        if let Some(answer) = lately.answer(&request, at) {
                            answered += 1;
                            let expected = range::answer(&store, &request, at).unwrap();
                            assert_eq!(answer, expected, "seed {seed}: {request:?} at {at}");
                        }
                    }
                }
                let inner = lately.read();
                let pairs: usize = inner.pairs.values().map(pair_bytes).sum();
                let ranges = inner.known.iter().map(|(start, end)| range_bytes(start, end.as_ref()));
                assert_eq!(inner.bytes, pairs + ranges.sum::<usize>());
                assert!(inner.bytes <= inner.bytes_max);
                assert!(inner.pairs.keys().all(|key| inner.known_end(key).is_some()), "a pair in no range");
            }
        }
        assert!(answered > 5_000 && learnt > 5_000, "{answered} answered, {learnt} learnt");
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
    fn what_was_applied_while_the_store_was_read_counts_also_below_what_was_published() {
        let lately = Lately::default();
        let all = request(KeyRange::all(), None);
        let answer = RangeAnswer { count: 1, pairs: vec![pair(1, 60, 1)], more: false };
        let mark = lately.mark();
        // Revisions have begun again: the state was replaced by one that is older than what was published.
        lately.note(&[put(pair(1, 81, 2))]);
        lately.learn(&all, &answer, (Revision(100), mark), || true);
        assert_eq!(lately.answer(&all, Revision(100)), None);
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
}
