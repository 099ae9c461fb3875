//! Making committed entries part of the state.
//!
//! Total: whatever was committed can be applied; there is nothing to decide. All entries of a call become
//! one batch with the position, revision, digest and lease rows they lead to, so that after any crash the
//! store stands exactly after some entry, and the log replays from there.

use crate::lease::LeaseRow;
use crate::partition::Partition;
use crate::state::{self, Head};
use quorate_mvcc::engine::{Batch, Engine, Table};
use quorate_mvcc::layout::{self, ChangeKind};
use quorate_types::record::Stored;
use quorate_types::{
    Bytes, Changes, Command, Decode, Effect, Encode, Entry, EntryKind, Event, Fault, Key, KeyValue, LeaseId,
    Malformed, Record, Revision, Stamp, Tick,
};
use twox_hash::XxHash3_64;

/// What was applied, for those who watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Revisions ascending.
    pub changes: Vec<Changes>,
    /// History before this revision is gone.
    pub compacted: Option<Revision>,
}

impl<E: Engine> Partition<E> {
    /// Applies committed entries, in order. Those applied before (replayed after a crash) are skipped. `now` is when leases
    /// granted here begin, if this replica leads.
    ///
    /// # Errors
    /// A fault of the store, or an entry that is not ours, does not decode, or does not follow what is applied. The
    /// partition must not be used after it.
    pub fn apply(&mut self, entries: &[Entry], now: Tick) -> Result<Applied, Fault> {
        let mut applied = Applied::default();
        let mut head = self.head;
        let mut batch = Batch::default();
        let before = self.head.position.index;
        for entry in entries.iter().filter(|entry| entry.index > before) {
            if entry.index != head.position.index.next() {
                return Err(bad(entry, Malformed("an entry that does not follow what is applied")));
            }
            let is_command = matches!(entry.kind, EntryKind::Write | EntryKind::Lease);
            if is_command {
                let command = Command::from_bytes(entry.data.clone()).map_err(|cause| bad(entry, cause))?;
                if command.group != self.group {
                    return Err(bad(entry, Malformed("a command of another group")));
                }
                self.apply_command(entry, command, now, &mut head, &mut batch, &mut applied)?;
            }
            head.position = entry.position();
            head.digest = digest(head.digest, entry);
        }
        if head == self.head {
            return Ok(applied);
        }
        let row = Head::row(self.group);
        batch.put(Table::State, row.clone(), layout::encode(Table::State, &row, &head));
        self.engine.write(batch)?;
        self.head = head;
        self.published.publish(&head);
        if let Some(overlay) = &mut self.overlay {
            overlay.release(head.position.index);
        }
        Ok(applied)
    }

    fn apply_command(
        &mut self,
        entry: &Entry,
        command: Command,
        now: Tick,
        head: &mut Head,
        batch: &mut Batch,
        applied: &mut Applied,
    ) -> Result<(), Fault> {
        let before = head.revision;
        let mut events: Vec<Event> = Vec::new();
        for effect in command.effects {
            if let Some(stamp) = effect.stamp() {
                let is_next = if events.is_empty() {
                    stamp.revision > before && stamp.sub == 0
                } else {
                    stamp.revision == head.revision && stamp.sub as usize == events.len()
                };
                if !is_next {
                    return Err(bad(entry, Malformed("a change whose stamp does not follow the last")));
                }
                head.revision = stamp.revision;
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
                    let row = LeaseRow { ttl_seconds, remaining_seconds: None };
                    self.leases.insert(lease, row);
                    self.put_lease(batch, lease, row);
                    if self.overlay.is_some() {
                        self.leases.renew(lease, now, &self.limits);
                    }
                }
                Effect::LeaseRemove { lease } => {
                    for key in self.leases.keys(lease) {
                        batch.delete(Table::State, state::leased_row(self.group, lease, key));
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
            }
        }
        if !events.is_empty() {
            applied.changes.push(Changes { revision: head.revision, events: events.into() });
        }
        Ok(())
    }

    fn put_rows(&self, batch: &mut Batch, stamp: Stamp, key: &Key, kind: ChangeKind, record: &Record) {
        let row = layout::version_row(self.group, key, stamp);
        let value = layout::seal(Table::Version, &row, record.encoded_vec());
        batch.put(Table::Version, row, value);
        let row = layout::change_row(self.group, stamp);
        let value = layout::seal(Table::Change, &row, layout::change_value(kind, key));
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

/// The digest after `entry`, given that before it.
fn digest(before: u64, entry: &Entry) -> u64 {
    let mut place = [0; 17];
    place[..8].copy_from_slice(&entry.term.0.to_be_bytes());
    place[8..16].copy_from_slice(&entry.index.0.to_be_bytes());
    place[16] = entry.kind as u8;
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot_with_seed(before, &place), &entry.data)
}

fn bad(entry: &Entry, cause: Malformed) -> Fault {
    Fault::new(format!("applying entry {}", entry.position()), cause)
}
