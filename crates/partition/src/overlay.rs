//! What the leader has proposed and not yet applied, over what it has applied.
//!
//! The next request is evaluated as if every pending entry were applied already, so that proposals can follow
//! each other without waiting. An entry's changes leave the overlay when it is applied; if leadership
//! is lost the whole overlay goes, because other entries may take the places.
//!
//! Every pending version of a key is kept, not just the newest, so that a range may ask for any revision
//! between the applied and the newest pending one.

use crate::cache::Cache;
use crate::publication::Published;
use crate::recall::applied_pairs;
use crate::view::{PairIter, View, laid_over};
use crate::writer::Written;
use quorate_mvcc::KeySpace;
use quorate_mvcc::engine::Read;
use quorate_types::revision::LocalRevisions;
use quorate_types::{
    Effect, Fault, Index, Key, KeyRange, KeyValue, LeaseId, PartitionId, Revision, Rules, Slot, SlotSet,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

/// The pending entries of a leader. Bounded by what consensus takes in flight.
#[derive(Debug)]
pub(crate) struct Overlay {
    revisions: LocalRevisions,
    /// Oldest first.
    entries: VecDeque<PendingEntry>,
    /// The pending versions of each key, oldest first; never empty.
    keys: BTreeMap<Key, Vec<Pending>>,
    /// The newest pending fate of each lease.
    leases: BTreeMap<LeaseId, PendingLease>,
    /// Keys that a pending entry puts under a lease. They may have left it again since.
    attached: BTreeMap<LeaseId, BTreeMap<Key, Index>>,
    /// Partitions that pending entries make known at a lease's home.
    holders: BTreeMap<LeaseId, BTreeMap<PartitionId, Index>>,
    compacted: Option<(Index, Revision)>,
}

#[derive(Debug)]
struct PendingEntry {
    index: Index,
    keys: Vec<Key>,
    leases: Vec<LeaseId>,
    attached: Vec<(LeaseId, Key)>,
}

#[derive(Debug)]
struct Pending {
    index: Index,
    revision: Revision,
    pair: Option<KeyValue>,
}

#[derive(Clone, Copy, Debug)]
struct PendingLease {
    index: Index,
    fate: LeaseFate,
}

/// What pending entries do to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseFate {
    /// It begins, with this time to live.
    Granted { ttl_seconds: u64 },
    /// It ends.
    Removed,
    /// Its home is another partition; keys here may be attached to it from now on.
    Copied,
    /// Its remaining time is recorded.
    Checkpointed { remaining_seconds: u64 },
}

impl Overlay {
    /// Nothing pending; revisions go on after `applied`.
    pub(crate) fn new(applied: Revision) -> Self {
        Self {
            revisions: LocalRevisions::after(applied),
            entries: VecDeque::new(),
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            attached: BTreeMap::new(),
            holders: BTreeMap::new(),
            compacted: None,
        }
    }

    pub(crate) fn revisions(&self) -> LocalRevisions {
        self.revisions
    }

    /// The keyspace's newest revision is at least this one.
    pub(crate) fn observe(&mut self, newest: Revision) {
        self.revisions = LocalRevisions::after(self.revisions.last().max(newest));
    }

    /// The index of the last pending entry that changes a key of these ranges at `at` or before.
    pub(crate) fn pending_until(&self, ranges: &[KeyRange], at: Revision) -> Option<Index> {
        let until = |pending: &Vec<Pending>| as_of(pending, at).map(|pending| pending.index);
        let of_range = |range: &KeyRange| match range {
            KeyRange::Single(key) => self.keys.get(key).and_then(until),
            range => {
                self.keys.range::<[u8], _>(range.bounds()).filter_map(|(_, pending)| until(pending)).max()
            }
        };
        if self.keys.is_empty() { None } else { ranges.iter().filter_map(of_range).max() }
    }

    /// What pending entries do to `lease` last.
    pub(crate) fn lease(&self, lease: LeaseId) -> Option<LeaseFate> {
        self.leases.get(&lease).map(|pending| pending.fate)
    }

    /// Keys that pending entries put under `lease`.
    pub(crate) fn attached(&self, lease: LeaseId) -> impl Iterator<Item = &Key> {
        self.attached.get(&lease).into_iter().flat_map(|keys| keys.keys())
    }

    /// Partitions that pending entries make known as holders of `lease`.
    pub(crate) fn holders(&self, lease: LeaseId) -> impl Iterator<Item = PartitionId> {
        self.holders.get(&lease).into_iter().flat_map(|holders| holders.keys().copied())
    }

    /// Takes in what the entry at `index` will do.
    pub(crate) fn register(&mut self, index: Index, written: Written) {
        if let Some(last) = self.entries.back() {
            assert!(last.index < index, "evaluated for index {index} after {}", last.index);
        }
        if let Some(revision) = written.revision {
            self.observe(revision);
        }
        let mut entry = PendingEntry { index, keys: Vec::new(), leases: Vec::new(), attached: Vec::new() };
        for effect in written.effects {
            let (lease, fate) = match effect {
                Effect::Put { key, lease: Some(lease), .. } => {
                    self.attached.entry(lease).or_default().insert(key.clone(), index);
                    entry.attached.push((lease, key));
                    continue;
                }
                Effect::Put { .. } | Effect::Delete { .. } => continue,
                Effect::LeaseGrant { lease, ttl_seconds } => (lease, LeaseFate::Granted { ttl_seconds }),
                Effect::LeaseRemove { lease } => (lease, LeaseFate::Removed),
                Effect::LeaseCopy { lease } => (lease, LeaseFate::Copied),
                Effect::LeaseHolder { lease, holder } => {
                    self.holders.entry(lease).or_default().insert(holder, index);
                    continue;
                }
                Effect::LeaseCheckpoint { lease, remaining_seconds } => match self.lease(lease) {
                    // The grant is what says how long a pending lease lives; it has run for no time at all.
                    Some(LeaseFate::Granted { .. } | LeaseFate::Copied) => continue,
                    _ => (lease, LeaseFate::Checkpointed { remaining_seconds }),
                },
                Effect::Compact { revision } => {
                    self.compacted = Some((index, revision));
                    continue;
                }
            };
            self.leases.insert(lease, PendingLease { index, fate });
            entry.leases.push(lease);
        }
        for (key, pair) in written.changed {
            let revision = written.revision.expect("a change of a key has drawn a revision");
            // Mostly there is one.
            let pending = self.keys.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
            pending.push(Pending { index, revision, pair });
            entry.keys.push(key);
        }
        self.entries.push_back(entry);
    }

    /// Everything up to `index` is applied.
    pub(crate) fn release(&mut self, index: Index) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.index <= index) {
            for key in entry.keys {
                if let Some(pending) = self.keys.get_mut(&key) {
                    pending.retain(|pending| pending.index > index);
                    if pending.is_empty() {
                        self.keys.remove(&key);
                    }
                }
            }
            for lease in entry.leases {
                if self.leases.get(&lease).is_some_and(|pending| pending.index <= index) {
                    self.leases.remove(&lease);
                }
            }
            for (lease, key) in entry.attached {
                if let Some(keys) = self.attached.get_mut(&lease) {
                    if keys.get(&key).is_some_and(|at| *at <= index) {
                        keys.remove(&key);
                    }
                    if keys.is_empty() {
                        self.attached.remove(&lease);
                    }
                }
            }
        }
        if !self.holders.is_empty() {
            self.holders.retain(|_, holders| {
                holders.retain(|_, at| *at > index);
                !holders.is_empty()
            });
        }
        if self.compacted.is_some_and(|(at, _)| at <= index) {
            self.compacted = None;
        }
    }
}

fn as_of(pending: &[Pending], at: Revision) -> Option<&Pending> {
    pending.iter().rev().find(|pending| pending.revision <= at)
}

/// The leader's state as if everything pending were applied.
pub(crate) struct Ahead<'a, R> {
    pub(crate) space: KeySpace<'a, R>,
    pub(crate) overlay: &'a Overlay,
    pub(crate) cache: &'a RefCell<Cache>,
    /// What is in memory of all partitions of the keyspace that are here.
    pub(crate) published: &'a Published,
    /// What of it is this partition's.
    pub(crate) slots: &'a SlotSet,
    pub(crate) rules: &'a Rules,
    /// What the store holds.
    pub(crate) applied: Revision,
    pub(crate) compacted: Option<Revision>,
}

impl<R: Read> Ahead<'_, R> {
    fn applied_pairs<'v>(&'v self, range: &KeyRange, at: Revision) -> PairIter<'v> {
        let is_of_now = at >= self.applied && !range.is_empty() && !matches!(range, KeyRange::Single(_));
        let Some(pairs) =
            is_of_now.then(|| applied_pairs(self.space.of_all(), self.published, range)).flatten()
        else {
            return Box::new(self.space.range(range, at));
        };
        let is_own = |pair: &KeyValue| self.slots.is_all() || self.slots.contains(self.rules.slot(&pair.key));
        Box::new(pairs.into_iter().filter(is_own).map(Ok))
    }
}

impl<R: Read> View for Ahead<'_, R> {
    fn slot(&self, key: &[u8]) -> Slot {
        self.rules.slot(key)
    }

    fn revision(&self) -> Revision {
        self.overlay.revisions.last()
    }

    fn compacted(&self) -> Option<Revision> {
        self.overlay.compacted.map(|(_, revision)| revision).or(self.compacted)
    }

    fn get(&self, key: &Key, at: Revision) -> Result<Option<KeyValue>, Fault> {
        if let Some(pending) = self.overlay.keys.get(key).and_then(|pending| as_of(pending, at)) {
            return Ok(pending.pair.clone());
        }
        if at < self.applied {
            return self.space.get(key, at);
        }
        if let Some(pair) = self.cache.borrow_mut().get(key) {
            return Ok(pair);
        }
        let pair = self.space.get(key, self.applied)?;
        self.cache.borrow_mut().put(key, pair.as_ref());
        Ok(pair)
    }

    fn pairs<'v>(&'v self, range: &KeyRange, at: Revision) -> PairIter<'v> {
        let applied = self.applied_pairs(range, at);
        let pending = self.overlay.keys.range::<[u8], _>(range.bounds());
        laid_over(
            applied,
            pending.filter_map(move |(key, pending)| Some((key, as_of(pending, at)?.pair.as_ref()))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Stamp;

    #[test]
    fn nothing_of_an_entry_stays_when_it_is_applied() {
        let mut overlay = Overlay::new(Revision(1));
        let lease = LeaseId::new(7);
        let key = Key::from("k");
        for number in 1..=5u64 {
            let revision = Revision(1 + number);
            let pair = KeyValue {
                key: key.clone(),
                value: Key::new(),
                create: Revision(2),
                modified: revision,
                version: number,
                lease,
            };
            let put = Effect::Put {
                slot: Slot(0),
                stamp: Stamp { revision, sub: 0 },
                key: key.clone(),
                value: Key::new(),
                create: Revision(2),
                version: number,
                lease,
                previous_lease: lease,
            };
            let remaining_seconds = number;
            let checkpoint = Effect::LeaseCheckpoint { lease: lease.unwrap(), remaining_seconds };
            let effects = vec![put, checkpoint, Effect::Compact { revision: Revision(number) }];
            let changed = BTreeMap::from([(key.clone(), Some(pair))]);
            overlay.register(Index(number), Written { revision: Some(revision), changed, effects });
        }
        overlay.release(Index(3));
        assert_eq!(overlay.entries.len(), 2);
        let versions: Vec<u64> = overlay.keys[&key].iter().map(|pending| pending.revision.0).collect();
        assert_eq!(versions, [5, 6]);
        assert_eq!(overlay.attached(lease.unwrap()).count(), 1);
        let fate = LeaseFate::Checkpointed { remaining_seconds: 5 };
        assert_eq!(overlay.lease(lease.unwrap()), Some(fate));
        overlay.release(Index(5));
        assert!(overlay.entries.is_empty() && overlay.keys.is_empty() && overlay.leases.is_empty());
        assert!(overlay.attached.is_empty() && overlay.compacted.is_none());
        assert_eq!(overlay.revisions().last(), Revision(6));
    }
}
