//! Leases: what exists, what belongs to it, and, at the leader, when it ends.
//!
//! Which leases there are, their granted time to live, the last checkpoint of the remaining one and their keys are
//! replicated state, changed by applying effects alone. When a lease ends is the leader's business: it
//! counts its own ticks, proposes a revocation when they have run out, and only the applied entry ends
//! the lease. A replica that does not lead has no ends at all, so a deposed or paused leader expires nothing.
//!
//! Never early: a new leader starts every lease anew, with its checkpointed remainder if there is one and
//! its full time to live if not, plus one election timeout. A checkpoint is therefore only good while the lease was not
//! renewed since: the first renewal after a checkpoint is itself an entry ([`Leases::needs_record`]), and
//! the client hears of it only when that is applied.
//!
//! Late by at most: the checkpoint interval and an election timeout per change of leader, and the time the revocation takes.
//!
//! Ends are kept in order, so that a tick looks only at leases that are due, whatever their number.

use crate::limits::Limits;
use quorate_types::reply::LeaseTime;
use quorate_types::{Key, LeaseId, PartitionId, Tick, reached, wire_struct};
use std::collections::{BTreeMap, BTreeSet};

/// The table of leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    table: BTreeMap<LeaseId, Lease>,
    /// At the leader, every lease by when it ends, without those whose revocation is proposed.
    ends: BTreeSet<(Tick, LeaseId)>,
    /// At the leader, long leases by when their remaining time is to be recorded next.
    checkpoints: BTreeSet<(Tick, LeaseId)>,
}

#[derive(Debug)]
struct Lease {
    row: LeaseRow,
    keys: BTreeSet<Key>,
    /// The other partitions that hold keys of it; known at its home.
    holders: BTreeSet<PartitionId>,
    end: Option<Tick>,
    /// When its time was over, or would have been, once a revocation has been begun: until it is renewed.
    end_before: Option<Tick>,
    checkpoint: Option<Tick>,
}

/// What is stored of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseRow {
    /// Granted.
    pub(crate) ttl_seconds: u64,
    /// Left at the last checkpoint, if the lease was not renewed since.
    pub(crate) remaining_seconds: Option<u64>,
    /// The lease's home is another partition, which keeps its time; keys here may belong to it until it is removed.
    pub(crate) is_copy: bool,
}

wire_struct!(LeaseRow { ttl_seconds, remaining_seconds, is_copy });

impl LeaseRow {
    /// Of a lease that was just granted.
    pub(crate) fn granted(ttl_seconds: u64) -> Self {
        Self { ttl_seconds, remaining_seconds: None, is_copy: false }
    }

    /// Of a lease whose home is elsewhere.
    pub(crate) fn copy() -> Self {
        Self { ttl_seconds: 0, remaining_seconds: None, is_copy: true }
    }
}

impl Leases {
    pub(crate) fn contains(&self, lease: LeaseId) -> bool {
        self.table.contains_key(&lease)
    }

    pub(crate) fn row(&self, lease: LeaseId) -> Option<LeaseRow> {
        self.table.get(&lease).map(|lease| lease.row)
    }

    pub(crate) fn keys(&self, lease: LeaseId) -> impl Iterator<Item = &Key> {
        self.table.get(&lease).into_iter().flat_map(|lease| &lease.keys)
    }

    pub(crate) fn insert(&mut self, lease: LeaseId, row: LeaseRow) {
        self.remove(lease);
        let (keys, holders) = (BTreeSet::new(), BTreeSet::new());
        self.table.insert(lease, Lease { row, keys, holders, end: None, end_before: None, checkpoint: None });
    }

    /// Another partition holds keys of it from now on; nothing happens when there is no such lease.
    pub(crate) fn add_holder(&mut self, lease: LeaseId, holder: PartitionId) -> bool {
        self.table.get_mut(&lease).is_some_and(|lease| lease.holders.insert(holder))
    }

    pub(crate) fn holders(&self, lease: LeaseId) -> Vec<PartitionId> {
        self.table.get(&lease).into_iter().flat_map(|lease| lease.holders.iter().copied()).collect()
    }

    pub(crate) fn is_copy(&self, lease: LeaseId) -> bool {
        self.table.get(&lease).is_some_and(|lease| lease.row.is_copy)
    }

    /// All of them, copies too.
    pub(crate) fn ids(&self) -> Vec<LeaseId> {
        self.table.keys().copied().collect()
    }

    /// Its home is elsewhere from now on; keys here may still belong to it.
    pub(crate) fn become_copy(&mut self, lease: LeaseId) {
        reached!("lease-moved-by-split");
        self.forget_times(lease);
        if let Some(lease) = self.table.get_mut(&lease) {
            lease.row = LeaseRow::copy();
            lease.holders.clear();
        }
    }

    pub(crate) fn remove(&mut self, lease: LeaseId) {
        self.forget_times(lease);
        self.table.remove(&lease);
    }

    pub(crate) fn set_row(&mut self, lease: LeaseId, row: LeaseRow) {
        if let Some(lease) = self.table.get_mut(&lease) {
            lease.row = row;
        }
    }

    /// Whether there is such a lease to attach to.
    pub(crate) fn attach(&mut self, lease: LeaseId, key: Key) -> bool {
        match self.table.get_mut(&lease) {
            Some(lease) => {
                lease.keys.insert(key);
                true
            }
            None => false,
        }
    }

    pub(crate) fn detach(&mut self, lease: LeaseId, key: &[u8]) {
        if let Some(lease) = self.table.get_mut(&lease) {
            lease.keys.remove(key);
        }
    }

    /// This replica leads from now on: every lease gets a time to end.
    pub(crate) fn lead(&mut self, now: Tick, limits: &Limits) {
        self.follow();
        let leases: Vec<(LeaseId, LeaseRow)> = self
            .table
            .iter()
            .filter(|(_, lease)| !lease.row.is_copy)
            .map(|(id, lease)| (*id, lease.row))
            .collect();
        for (lease, row) in leases {
            reached!("lease-begun-anew", row.remaining_seconds.is_none());
            reached!("lease-begun-at-checkpoint", row.remaining_seconds.is_some());
            let seconds = row.remaining_seconds.unwrap_or(row.ttl_seconds);
            let ticks = seconds.saturating_mul(limits.ticks_per_second);
            self.set_end(lease, now.after(ticks).after(limits.election_timeout_ticks));
            self.plan_checkpoint(lease, now, limits);
        }
    }

    /// It does not lead: nothing ends here.
    pub(crate) fn follow(&mut self) {
        self.ends.clear();
        self.checkpoints.clear();
        for lease in self.table.values_mut() {
            lease.end = None;
            lease.end_before = None;
            lease.checkpoint = None;
        }
    }

    /// The lease's time to live starts anew; one that would end even later keeps its end.
    pub(crate) fn renew(&mut self, lease: LeaseId, from: Tick, limits: &Limits) {
        let Some(found) = self.table.get(&lease).filter(|lease| !lease.row.is_copy) else { return };
        let end = from.after(found.row.ttl_seconds.saturating_mul(limits.ticks_per_second));
        reached!("lease-renewed-while-ending", found.end.is_none());
        self.set_end(lease, found.end.map_or(end, |before| before.max(end)));
        self.plan_checkpoint(lease, from, limits);
    }

    /// Whether a renewal must go through the log because the remaining time recorded there would let a
    /// new leader end the lease before the renewed time is over.
    pub(crate) fn needs_record(&self, lease: LeaseId) -> bool {
        self.row(lease).is_some_and(|row| row.remaining_seconds.is_some())
    }

    /// Its revocation is proposed: it is not due again.
    pub(crate) fn ending(&mut self, lease: LeaseId) {
        let end = self.end(lease);
        let Some(found) = self.table.get_mut(&lease) else { return };
        found.end_before = end;
        // It is recorded on as before, should nothing come of it.
        if let Some(end) = found.end.take() {
            self.ends.remove(&(end, lease));
        }
    }

    /// Its revocation did not come about: it ends when it would have without.
    pub(crate) fn end_again(&mut self, lease: LeaseId, now: Tick) {
        let Some(found) = self.table.get(&lease).filter(|lease| lease.end.is_none()) else { return };
        if !found.row.is_copy {
            reached!("lease-ends-again");
            let before = found.end_before;
            // Behind those whose turn has not come yet, or a few that cannot end would be all that is tried.
            self.set_end(lease, before.map_or(now, |before| before.max(now)));
            if let Some(found) = self.table.get_mut(&lease) {
                found.end_before = before;
            }
        }
    }

    /// When it ends or its time was over, whether a revocation is under way or not.
    pub(crate) fn end(&self, lease: LeaseId) -> Option<Tick> {
        self.table.get(&lease).and_then(|lease| lease.end_before.or(lease.end))
    }

    /// When the next lease ends or is to be recorded.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        let firsts = [self.ends.first(), self.checkpoints.first()];
        firsts.into_iter().flatten().map(|(at, _)| *at).min()
    }

    pub(crate) fn is_ending(&self, lease: LeaseId) -> bool {
        self.table.get(&lease).is_some_and(|lease| lease.end.is_none())
    }

    /// Leases that are due, longest overdue first.
    pub(crate) fn expired(&self, now: Tick, max: usize) -> Vec<LeaseId> {
        self.ends.iter().take_while(|(end, _)| *end <= now).take(max).map(|(_, lease)| *lease).collect()
    }

    /// Long leases whose remaining time is to be recorded now, with that time rounded up; each comes again
    /// after the interval.
    pub(crate) fn due_checkpoints(&mut self, now: Tick, limits: &Limits) -> Vec<(LeaseId, u64)> {
        let due: Vec<LeaseId> = self
            .checkpoints
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(limits.lease_checkpoints_max)
            .map(|(_, lease)| *lease)
            .collect();
        let mut remaining = Vec::with_capacity(due.len());
        for lease in due {
            self.plan_checkpoint(lease, now, limits);
            if let Some(end) = self.table.get(&lease).and_then(|lease| lease.end) {
                reached!("lease-checkpointed");
                remaining.push((lease, end.since(now).div_ceil(limits.ticks_per_second)));
            }
        }
        remaining
    }

    pub(crate) fn time(
        &self,
        lease: LeaseId,
        now: Tick,
        with_keys: bool,
        limits: &Limits,
    ) -> Option<LeaseTime> {
        let found = self.table.get(&lease).filter(|lease| !lease.row.is_copy)?;
        Some(LeaseTime {
            granted_seconds: found.row.ttl_seconds,
            // One whose revocation is under way has no end any more, and no time.
            remaining_seconds: found.end.map_or(0, |end| end.since(now) / limits.ticks_per_second),
            remaining_ticks: found.end.map_or(0, |end| end.since(now)),
            keys: if with_keys { found.keys.iter().cloned().collect() } else { Vec::new() },
        })
    }

    /// All leases, soonest to end first; those that are already ending before them.
    pub(crate) fn list(&self) -> Vec<LeaseId> {
        let is_ending = |lease: &Lease| lease.end.is_none() && !lease.row.is_copy;
        let ending = self.table.iter().filter(|(_, lease)| is_ending(lease)).map(|(id, _)| *id);
        ending.chain(self.ends.iter().map(|(_, lease)| *lease)).collect()
    }

    fn set_end(&mut self, id: LeaseId, end: Tick) {
        let Some(lease) = self.table.get_mut(&id) else { return };
        lease.end_before = None;
        if let Some(before) = lease.end.replace(end) {
            self.ends.remove(&(before, id));
        }
        self.ends.insert((end, id));
    }

    fn plan_checkpoint(&mut self, id: LeaseId, now: Tick, limits: &Limits) {
        let Some(lease) = self.table.get_mut(&id) else { return };
        if let Some(before) = lease.checkpoint.take() {
            self.checkpoints.remove(&(before, id));
        }
        if lease.row.ttl_seconds > limits.lease_checkpoint_seconds {
            let at = now.after(limits.lease_checkpoint_seconds.saturating_mul(limits.ticks_per_second));
            lease.checkpoint = Some(at);
            self.checkpoints.insert((at, id));
        }
    }

    fn forget_times(&mut self, id: LeaseId) {
        let Some(lease) = self.table.get_mut(&id) else { return };
        if let Some(end) = lease.end.take() {
            self.ends.remove(&(end, id));
        }
        if let Some(at) = lease.checkpoint.take() {
            self.checkpoints.remove(&(at, id));
        }
    }
}
