//! What a request touches, before anything of it is evaluated.
//!
//! Keys and ranges of an etcd transaction are written in the request; only the branch taken and the members of a range are not.
//! So what must be locked, and in which partitions, is known at once: both branches of everything, nested
//! transactions too. A little more is locked than is used; nothing is ever locked later.

use quorate_types::request::{Operation, PutLease, PutRequest, RangeRequest, TxnRequest};
use quorate_types::{
    Footprint, Key, KeyRange, LeaseId, PartitionId, PastRange, Request, Revision, Slot, reached,
};
use std::collections::BTreeMap;

/// What a request touches in the whole keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Keys, and leases that end.
    pub footprint: Footprint,
    /// Keys that are attached to a lease.
    pub attached: Vec<(Key, LeaseId)>,
}

/// Where keys and leases are.
pub trait Places {
    /// The one partition that every key of the range is in; `None` if there may be several.
    fn of_range(&self, range: &KeyRange) -> Option<PartitionId>;
    /// The partition that keeps the lease's time.
    fn of_lease(&self, lease: LeaseId) -> PartitionId;
    /// The slot of a key.
    fn slot(&self, key: &[u8]) -> Slot;
    /// All partitions, ascending.
    fn all(&self) -> Vec<PartitionId>;
}

impl<P: Places> Places for std::sync::Arc<P> {
    fn of_range(&self, range: &KeyRange) -> Option<PartitionId> {
        (**self).of_range(range)
    }

    fn of_lease(&self, lease: LeaseId) -> PartitionId {
        (**self).of_lease(lease)
    }

    fn slot(&self, key: &[u8]) -> Slot {
        (**self).slot(key)
    }

    fn all(&self) -> Vec<PartitionId> {
        (**self).all()
    }
}

impl Touched {
    /// By `request`. Requests that read leases' times touch nothing.
    pub fn by(request: &Request) -> Self {
        let mut touched = Self::default();
        match request {
            Request::Range(range) => touched.range(range),
            Request::Put(put) => touched.put(put),
            Request::DeleteRange(delete) => touched.footprint.exclusive.push(delete.range.clone()),
            Request::Txn(txn) => touched.txn(txn),
            Request::Compact { revision, physical: _ } => touched.footprint.compact = Some(*revision),
            Request::LeaseGrant { lease, .. } | Request::LeaseRevoke { lease } => {
                touched.footprint.leases_exclusive.push(*lease);
            }
            Request::LeaseKeepAlive { .. } | Request::LeaseTimeToLive { .. } | Request::Leases => {}
        }
        touched
    }

    fn range(&mut self, request: &RangeRequest) {
        match request.revision.filter(|revision| *revision > 0) {
            Some(revision) => {
                let revision = Revision(revision as u64);
                self.footprint.past.push(PastRange { range: request.range.clone(), revision });
            }
            None => self.footprint.shared.push(request.range.clone()),
        }
    }

    fn put(&mut self, request: &PutRequest) {
        self.footprint.exclusive.push(KeyRange::Single(request.key.clone()));
        if let PutLease::Attach(lease) = request.lease {
            self.attached.push((request.key.clone(), lease));
        }
    }

    fn txn(&mut self, txn: &TxnRequest) {
        self.footprint.shared.extend(txn.compares.iter().map(|compare| compare.range.clone()));
        for operation in txn.success.iter().chain(&txn.failure) {
            match operation {
                Operation::Range(range) => self.range(range),
                Operation::Put(put) => self.put(put),
                Operation::DeleteRange(delete) => self.footprint.exclusive.push(delete.range.clone()),
                Operation::Txn(inner) => self.txn(inner),
            }
        }
    }

    /// The one partition that all of it lies in, if it does.
    pub fn partition(&self, places: &impl Places) -> Option<PartitionId> {
        let footprint = &self.footprint;
        if footprint.compact.is_some() {
            return places.all().first().copied().filter(|_| places.all().len() == 1);
        }
        let ranges = footprint.exclusive.iter().chain(&footprint.shared);
        let ranges = ranges.chain(footprint.past.iter().map(|past| &past.range));
        let mut found = None;
        for place in ranges.map(|range| places.of_range(range)) {
            let place = place?;
            if *found.get_or_insert(place) != place {
                return None;
            }
        }
        for lease in &footprint.leases_exclusive {
            let place = places.of_lease(*lease);
            if *found.get_or_insert(place) != place {
                return None;
            }
        }
        found
    }

    /// The partition that coordinates it: that of the first key it may write, or else of the first that it reads.
    pub fn home(&self, places: &impl Places) -> PartitionId {
        let footprint = &self.footprint;
        let ranges = footprint.exclusive.iter().chain(&footprint.shared);
        let mut ranges = ranges.chain(footprint.past.iter().map(|past| &past.range));
        let first_lease = || footprint.leases_exclusive.first().map(|lease| places.of_lease(*lease));
        let of_range = ranges.find_map(|range| places.of_range(range));
        of_range.or_else(first_lease).unwrap_or_else(|| places.all().first().copied().unwrap_or_default())
    }

    /// What it touches in each partition. A lease's home has no say where a key is attached that is in a partition which is `known` to have a copy of
    /// the lease: it ends there, too, if it ends.
    pub fn split(
        &self,
        places: &impl Places,
        known: impl Fn(PartitionId, LeaseId) -> bool,
    ) -> BTreeMap<PartitionId, Footprint> {
        let mut parts: BTreeMap<PartitionId, Footprint> = BTreeMap::new();
        let all = places.all();
        let among = |range: &KeyRange| match places.of_range(range) {
            Some(one) => vec![one],
            None => all.clone(),
        };
        for range in &self.footprint.exclusive {
            for partition in among(range) {
                parts.entry(partition).or_default().exclusive.push(range.clone());
            }
        }
        for range in &self.footprint.shared {
            for partition in among(range) {
                parts.entry(partition).or_default().shared.push(range.clone());
            }
        }
        for past in &self.footprint.past {
            for partition in among(&past.range) {
                parts.entry(partition).or_default().past.push(past.clone());
            }
        }
        for lease in &self.footprint.leases_exclusive {
            parts.entry(places.of_lease(*lease)).or_default().leases_exclusive.push(*lease);
        }
        for (key, lease) in &self.attached {
            let holder = places.of_range(&KeyRange::Single(key.clone())).unwrap_or_default();
            let leases = &mut parts.entry(holder).or_default().leases_exclusive;
            if !leases.contains(lease) {
                leases.push(*lease);
            }
            if known(holder, *lease) {
                reached!("attached-by-copy", places.of_lease(*lease) != holder);
                continue;
            }
            let leases = &mut parts.entry(places.of_lease(*lease)).or_default().leases_exclusive;
            if !leases.contains(lease) {
                leases.push(*lease);
            }
        }
        if self.footprint.compact.is_some() {
            for partition in all {
                parts.entry(partition).or_default().compact = self.footprint.compact;
            }
        }
        parts
    }
}
