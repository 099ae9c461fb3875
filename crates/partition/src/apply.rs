//! Making committed entries part of the state.
//!
//! Total: whatever was committed can be applied; there is nothing to decide. All entries of a call become
//! one batch with the position, revision, digest and lease rows they lead to, so that after any crash the
//! store stands exactly after some entry, and the log replays from there.

use crate::lease::LeaseRow;
use crate::partition::Partition;
use crate::state::{self, Head};
use quorate_mvcc::engine::{Batch, Change, Engine, Table};
use quorate_mvcc::layout::{self, ChangeKind};
use quorate_types::record::Stored;
use quorate_types::{
    Bytes, Changes, Command, Committed, Decide, Decode, Effect, Entry, EntryKind, Event, Fault, Key,
    KeyValue, LeaseId, Malformed, Part, Prepared, Record, Revision, Split, Stamp, Tick, TxnId, crash_point,
};
use std::collections::BTreeMap;
use twox_hash::XxHash3_64;

/// What was applied, for those who watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Revisions ascending.
    pub changes: Vec<Changes>,
    /// History before this revision is gone.
    pub compacted: Option<Revision>,
    /// Revisions of transactions over partitions that have a part here, or were decided here.
    pub shared: BTreeMap<Revision, Share>,
    /// The partition was split by the last entry.
    pub split: Option<Split>,
}

/// What one partition says of a revision that several may have parts of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Whether there is a part here.
    pub is_part: bool,
    /// How many partitions have one; the transaction's home knows.
    pub parts: Option<usize>,
}

impl<E: Engine> Partition<E> {
    /// Applies committed entries, in order. Those applied before (replayed after a crash) are skipped. `now` is when leases
    /// granted here begin, if this replica leads. A split entry must be the last of a call: what comes after it is of another partition's making, too.
    ///
    /// # Errors
    /// A fault of the store, or an entry that is not ours, does not decode, or does not follow what is applied. The
    /// partition must not be used after it.
    pub fn apply(&mut self, entries: &[Entry], now: Tick) -> Result<Applied, Fault> {
        let mut applied = Applied::default();
        let mut head = self.head;
        // Two rows for a change, and one to say how far.
        let mut batch = Batch { changes: Vec::with_capacity(2 * entries.len() + 2) };
        let before = self.head.position.index;
        crash_point("apply.begun");
        for entry in entries.iter().filter(|entry| entry.index > before) {
            if entry.index != head.position.index.next() {
                return Err(bad(entry, Malformed("an entry that does not follow what is applied")));
            }
            let rows_before = batch.changes.len();
            match entry.kind {
                EntryKind::Write | EntryKind::Lease => {
                    let command: Command = decode(entry)?;
                    if command.group != self.group {
                        return Err(bad(entry, Malformed("a command of another group")));
                    }
                    let mut tail = Tail { now, head: &mut head, batch: &mut batch, applied: &mut applied };
                    self.apply_effects(entry, command.effects, false, &mut tail)?;
                }
                EntryKind::Prepare => {
                    let prepared: Prepared = decode(entry)?;
                    let row = state::prepared_row(self.group, prepared.id);
                    batch.put(Table::State, row.clone(), layout::encode(Table::State, &row, &prepared));
                    crash_point("apply.prepare");
                    self.prepared.insert(prepared.id, prepared);
                }
                EntryKind::Commit => {
                    let committed: Committed = decode(entry)?;
                    // A leader appends the end of what its log has prepared and not ended, so there is always something to end.
                    if self.end_prepared(committed.id, &mut batch) {
                        let mut tail =
                            Tail { now, head: &mut head, batch: &mut batch, applied: &mut applied };
                        self.apply_effects(entry, committed.effects, true, &mut tail)?;
                        crash_point("apply.commit");
                    }
                }
                EntryKind::Abort => {
                    let id: TxnId = decode(entry)?;
                    self.end_prepared(id, &mut batch);
                }
                EntryKind::Decide => match decode(entry)? {
                    Decide::Commit { id, own, others } => {
                        let row = state::decided_row(self.group, id);
                        if let Some((revision, parts)) = parts_of(&own, &others) {
                            applied.shared.entry(revision).or_default().parts = Some(parts);
                        }
                        if !others.is_empty() {
                            batch.put(Table::State, row.clone(), layout::encode(Table::State, &row, &others));
                            self.decided.insert(id, others);
                        }
                        let mut tail =
                            Tail { now, head: &mut head, batch: &mut batch, applied: &mut applied };
                        self.apply_effects(entry, own, true, &mut tail)?;
                        crash_point("apply.decide");
                    }
                    Decide::Forget(ids) => {
                        for id in ids {
                            if self.decided.remove(&id).is_some() {
                                batch.delete(Table::State, state::decided_row(self.group, id));
                                crash_point("apply.forget");
                            }
                        }
                    }
                },
                EntryKind::Split => {
                    let split: Split = decode(entry)?;
                    self.apply_split(entry, &split, &head, &mut batch)?;
                    crash_point("apply.split");
                    applied.split = Some(split);
                }
                EntryKind::Config => {
                    let row = state::members_row(self.group);
                    let value = layout::seal(Table::State, &row, entry.data.to_vec());
                    batch.put(Table::State, row, value);
                    crash_point("apply.members");
                }
                EntryKind::Fence => {}
            }
            head.position = entry.position();
            head.digest = digest(head.digest, entry, &batch.changes[rows_before..]);
        }
        if head == self.head {
            return Ok(applied);
        }
        let row = Head::row(self.group);
        batch.put(Table::State, row.clone(), layout::encode(Table::State, &row, &head));
        if !self.are_slots_stored {
            let row = state::slots_row(self.group);
            batch.put(Table::State, row.clone(), layout::encode(Table::State, &row, &*self.slots));
        }
        crash_point("apply.batched");
        self.engine.write(batch)?;
        crash_point("apply.written");
        self.are_slots_stored = true;
        self.head = head;
        self.publication.published.lately.note(&applied.changes);
        self.publication.publish(&head);
        crash_point("apply.published");
        if let Some(overlay) = &mut self.overlay {
            overlay.release(head.position.index);
        }
        Ok(applied)
    }

    fn end_prepared(&mut self, id: TxnId, batch: &mut Batch) -> bool {
        let was_prepared = self.prepared.remove(&id).is_some();
        if was_prepared {
            batch.delete(Table::State, state::prepared_row(self.group, id));
        }
        was_prepared
    }

    /// `is_part`: of a transaction over several partitions. Then subs may be missing, which others have, and the revision may be one
    /// that later entries of this partition have overtaken.
    fn apply_effects(
        &mut self,
        entry: &Entry,
        effects: Vec<Effect>,
        is_part: bool,
        tail: &mut Tail<'_>,
    ) -> Result<(), Fault> {
        let Tail { now, head, batch, applied } = tail;
        let before = head.revision;
        let mut last: Option<Stamp> = None;
        let mut events: Vec<Event> = Vec::with_capacity(effects.len());
        for effect in effects {
            if let Some(stamp) = effect.stamp() {
                let is_next = match last {
                    None if is_part => true,
                    None => stamp.revision > before && stamp.sub == 0,
                    Some(last) if is_part => stamp.revision == last.revision && stamp.sub > last.sub,
                    Some(last) => stamp.revision == last.revision && stamp.sub == last.sub + 1,
                };
                if !is_next {
                    return Err(bad(entry, Malformed("a change whose stamp does not follow the last")));
                }
                last = Some(stamp);
                head.revision = head.revision.max(stamp.revision);
            }
            match effect {
                Effect::Put { slot, stamp, key, value, create, version, lease, previous_lease } => {
                    self.attach(batch, &key, lease, previous_lease);
                    let stored = Stored { slot, create, version, lease, value };
                    let record = Record::Value(stored.clone());
                    self.put_rows(batch, stamp, &key, ChangeKind::Put, &record);
                    let pair = KeyValue::new(key, stamp, stored);
                    if self.overlay.is_some() {
                        self.cache.get_mut().put(&pair.key, Some(&pair));
                    }
                    events.push(Event::Put(pair));
                }
                Effect::Delete { slot, stamp, key, previous_lease } => {
                    self.attach(batch, &key, None, previous_lease);
                    self.put_rows(batch, stamp, &key, ChangeKind::Delete, &Record::Tombstone { slot });
                    if self.overlay.is_some() {
                        self.cache.get_mut().put(&key, None);
                    }
                    events.push(Event::Delete { key, modified: stamp.revision });
                }
                Effect::LeaseGrant { lease, ttl_seconds } => {
                    let row = LeaseRow::granted(ttl_seconds);
                    self.leases.insert(lease, row);
                    self.put_lease(batch, lease, row);
                    if self.overlay.is_some() {
                        self.leases.renew(lease, *now, &self.limits);
                    }
                }
                Effect::LeaseRemove { lease } => {
                    for key in self.leases.keys(lease) {
                        batch.delete(Table::State, state::leased_row(self.group, lease, key));
                    }
                    for holder in self.leases.holders(lease) {
                        batch.delete(Table::State, state::holder_row(self.group, lease, holder));
                    }
                    self.leases.remove(lease);
                    batch.delete(Table::State, state::lease_row(self.group, lease));
                }
                Effect::LeaseCheckpoint { lease, remaining_seconds } => {
                    if let Some(row) = self.leases.row(lease) {
                        let remaining_seconds =
                            Some(remaining_seconds).filter(|remaining| *remaining < row.ttl_seconds);
                        let row = LeaseRow { remaining_seconds, ..row };
                        self.leases.set_row(lease, row);
                        self.put_lease(batch, lease, row);
                    }
                }
                Effect::Compact { revision } => {
                    head.compacted = head.compacted.max(Some(revision));
                    applied.compacted = head.compacted;
                }
                Effect::LeaseHolder { lease, holder } => {
                    if self.leases.add_holder(lease, holder) {
                        let row = state::holder_row(self.group, lease, holder);
                        let value = layout::seal(Table::State, &row, Vec::new());
                        batch.put(Table::State, row, value);
                    }
                }
                Effect::LeaseCopy { lease } => {
                    if !self.leases.contains(lease) {
                        let row = LeaseRow::copy();
                        self.leases.insert(lease, row);
                        self.put_lease(batch, lease, row);
                    }
                }
            }
        }
        if let Some(Stamp { revision, .. }) = last {
            applied.changes.push(Changes::whole(revision, events));
            if is_part {
                applied.shared.entry(revision).or_default().is_part = true;
            }
        }
        Ok(())
    }

    fn put_rows(&self, batch: &mut Batch, stamp: Stamp, key: &Key, kind: ChangeKind, record: &Record) {
        let keyspace = self.group.keyspace;
        let row = layout::version_row(keyspace, key, stamp);
        let value = layout::encode(Table::Version, &row, record);
        batch.put(Table::Version, row, value);
        let row = layout::change_row(keyspace, stamp);
        let value = layout::seal(Table::Change, &row, layout::change_value(kind, record.slot(), key));
        batch.put(Table::Change, row, value);
    }

    fn put_lease(&self, batch: &mut Batch, lease: LeaseId, row: LeaseRow) {
        let key = state::lease_row(self.group, lease);
        let value = layout::encode(Table::State, &key, &row);
        batch.put(Table::State, key, value);
    }

    /// Moves a key from one lease to another, in the table and its rows.
    fn attach(&mut self, batch: &mut Batch, key: &Key, lease: Option<LeaseId>, previous: Option<LeaseId>) {
        if lease == previous {
            return;
        }
        if let Some(previous) = previous {
            self.leases.detach(previous, key);
            batch.delete(Table::State, state::leased_row(self.group, previous, key));
        }
        // The leader checked that the lease exists; were it wrong, every replica would leave the key without one alike.
        if let Some(lease) = lease
            && self.leases.attach(lease, Bytes::copy_from_slice(key))
        {
            let row = state::leased_row(self.group, lease, key);
            let value = layout::seal(Table::State, &row, Vec::new());
            batch.put(Table::State, row, value);
        }
    }
}

/// Where applying puts what it finds.
struct Tail<'a> {
    now: Tick,
    head: &'a mut Head,
    batch: &'a mut Batch,
    applied: &'a mut Applied,
}

/// The revision of a decided transaction, if it has one, and how many partitions change keys at it.
fn parts_of(own: &[Effect], others: &[Part]) -> Option<(Revision, usize)> {
    let all = std::iter::once(own).chain(others.iter().map(|part| &part.effects[..]));
    let mut stamps = all.filter_map(|effects| effects.iter().find_map(Effect::stamp)).peekable();
    let revision = stamps.peek()?.revision;
    Some((revision, stamps.count()))
}

fn decode<T: Decode>(entry: &Entry) -> Result<T, Fault> {
    T::from_bytes(entry.data.clone()).map_err(|cause| bad(entry, cause))
}

/// The digest after `entry` and what it has changed, in any order, given that before it.
pub(crate) fn digest(before: u64, entry: &Entry, changes: &[Change]) -> u64 {
    let mut place = [0; 17];
    place[..8].copy_from_slice(&entry.term.0.to_be_bytes());
    place[8..16].copy_from_slice(&entry.index.0.to_be_bytes());
    place[16] = entry.kind as u8;
    let rows = changes.iter().map(|(table, row, value)| {
        let row = XxHash3_64::oneshot_with_seed(*table as u64, row);
        value.as_ref().map_or(!row, |value| XxHash3_64::oneshot_with_seed(row, value))
    });
    let rows = rows.fold(0u64, u64::wrapping_add);
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot_with_seed(before, &place) ^ rows, &entry.data)
}

pub(crate) fn bad(entry: &Entry, cause: Malformed) -> Fault {
    Fault::new(format!("applying entry {}", entry.position()), cause)
}
