//! The newest pairs of keys and ranges that were read lately: what is read again is answered from memory, whatever history its keys have.
//!
//! In the store the versions of a key stand together, so a range over keys that are often written walks over old versions, or seeks past
//! them, key by key. What was read of the newest revision is kept here, and every change that is applied is made here, too. The ranges that are
//! *known* are kept beside the pairs: a key that is in one and has no pair does not exist. A key that was read by itself is a *point*
//! ([`points`]): it is found sooner, and takes less.
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
//! Bounded in bytes, of a keyspace on a node: points or ranges, of what there is more. Ranges go from the smallest keys to the largest and from the smallest again, so that nothing has
//! to be remembered of who reads what.

mod known;
mod points;
mod recent;

use crate::range;
use known::Known;
use points::{Newest, PAIR_BYTES_MAX, Points};
use quorate_types::reply::RangeAnswer;
use quorate_types::request::{RangeRequest, SortTarget};
use quorate_types::{Bytes, Changes, Event, Key, KeyRange, KeyValue, Revision, reached};
pub(crate) use recent::Mark;
use recent::Recent;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes of points, pairs and ranges.
const BYTES_MAX: usize = 16 << 20;
/// Counted for each pair and each range beside their bytes.
const OVERHEAD_BYTES: usize = 200;
/// Ranges with more pairs are not kept, nor answered: whoever applies would wait for it.
const PAIRS_MAX: u64 = 1_000;
/// Of the pairs of one range, about: to copy more takes long.
const READ_BYTES_MAX: usize = 1 << 20;
/// Pairs that are given up together.
const GIVEN_UP_AT_ONCE: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lately {
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes_max: usize,
    points: Points,
    pairs: BTreeMap<Key, KeyValue>,
    /// Where known ranges begin and end (`None`: nowhere); they neither overlap nor touch.
    known: BTreeMap<Key, Option<Key>>,
    /// Of pairs and ranges.
    bytes: usize,
    /// The newest change that removed a key.
    removed: Revision,
    recent: Recent,
    /// Where to go on with giving up what is over.
    hand: Key,
}

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
                points: Points::default(),
                pairs: BTreeMap::new(),
                known: BTreeMap::new(),
                bytes: 0,
                removed: Revision(0),
                recent: Recent::default(),
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
        inner.recent.miss(revision);
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
        let is_single = matches!(request.range, KeyRange::Single(_));
        if !is_single && !inner.is_known_at(&request.range, at) {
            return None;
        }
        let view = Known::new(&inner, at);
        let answer = range::answer(&view, request, at).ok()?;
        let is_known = view.is_known() && answer.count <= PAIRS_MAX;
        reached!("read-from-memory", is_known && !is_single);
        reached!("read-from-memory-too-new", !is_single && !view.is_known());
        is_known.then_some(answer)
    }

    /// All pairs of a range as of everything that was noted, if they are known here and are not many: for the thread that applies.
    pub(crate) fn noted(&self, range: &KeyRange) -> Option<Vec<KeyValue>> {
        let inner = self.read();
        if !inner.knows(range) {
            return None;
        }
        let pairs = inner.pairs.range::<[u8], _>(range.bounds()).map(|(_, pair)| pair.clone());
        let pairs: Vec<KeyValue> = pairs.take(PAIRS_MAX as usize + 1).collect();
        (pairs.len() as u64 <= PAIRS_MAX).then_some(pairs)
    }

    /// A key as of `at`, which is not newer than what is published, if that is known here; else what [`Lately::learn_key`] is to be given.
    pub(crate) fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Mark> {
        let inner = self.read();
        let known = inner.get(key, at);
        reached!("key-from-memory", known.is_some());
        known.ok_or_else(|| inner.recent.mark())
    }

    /// What the store had of a key as of `at`. `is_readable` is asked while nobody else can change anything here.
    pub(crate) fn learn_key(
        &self,
        key: &Key,
        pair: Option<&KeyValue>,
        (at, mark): (Revision, Mark),
        is_readable: impl FnOnce() -> bool,
    ) {
        if pair.is_some_and(|pair| pair.bytes() > PAIR_BYTES_MAX) {
            return;
        }
        // Before anybody has to wait.
        let newest = Newest::read(key, pair, at);
        let range = KeyRange::Single(key.clone());
        let mut inner = self.write();
        if !is_readable() {
            return;
        }
        let recent = &inner.recent;
        if recent.is_overtaken(&range, at) || recent.has_changed(&range, mark) {
            reached!("key-overtaken-not-kept");
            return;
        }
        inner.points.learn(newest);
        inner.bound();
    }

    /// To be taken before the store is read, for [`Lately::learn`].
    pub(crate) fn mark(&self) -> Mark {
        self.read().recent.mark()
    }

    /// What the store had of a range as of `at`; single keys are [`Lately::learn_key`]'s. `is_readable` is asked while nobody else can change anything here.
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
            (KeyRange::Single(_), _) => return,
            (_, Some(last)) => Some(behind(&last.key)),
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
        if inner.recent.is_overtaken(&request.range, at) || inner.recent.has_changed(&request.range, mark) {
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
        self.points.clear();
        self.pairs.clear();
        self.known.clear();
        self.bytes = 0;
    }

    /// Gives up what is over.
    fn bound(&mut self) {
        while self.points.bytes() + self.bytes > self.bytes_max {
            // So neither has less than half, if it needs that.
            if self.points.bytes() >= self.bytes {
                self.points.give_up();
                continue;
            }
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

    /// Whether what a range was as of `at` is known, but for pairs that are newer.
    fn is_known_at(&self, range: &KeyRange, at: Revision) -> bool {
        let is_removed_since = || at < self.removed && self.recent.is_overtaken(range, at);
        if self.knows(range) && !is_removed_since() {
            return true;
        }
        reached!("read-from-memory-removed-since", self.knows(range));
        false
    }

    fn get(&self, key: &Key, at: Revision) -> Option<Option<KeyValue>> {
        if let Some(known) = self.points.get(key, at) {
            return Some(known);
        }
        if self.known.is_empty() || !self.is_known_at(&KeyRange::Single(key.clone()), at) {
            return None;
        }
        let pair = self.pairs.get(key);
        pair.is_none_or(|pair| pair.modified <= at).then(|| pair.cloned())
    }

    fn note(&mut self, event: &Event, revision: Revision) {
        let key = event.key();
        self.points.note(event);
        self.recent.note(key, revision);
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

    fn put(&mut self, pair: KeyValue) {
        self.bytes += pair_bytes(&pair);
        if let Some(before) = self.pairs.insert(pair.key.clone(), pair) {
            self.bytes -= pair_bytes(&before);
        }
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

#[cfg(test)]
mod tests;
