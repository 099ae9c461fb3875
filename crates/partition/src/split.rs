//! Splitting a partition: an entry of its log by which some of its slots become another partition's.
//!
//! The rows of keys are the keyspace's, and each says its slot (`quorate_mvcc::layout`). So nothing of them is touched: the parent
//! forgets the slots, the child begins with them. What is written is the child's own state, in the batch that applies the entry: its head,
//! which stands at [`FIRST`] of a log that begins there; its slots; and its share of the leases.
//!
//! * **A lease** is at home where its number hashes to, so its home may move. Home and keys are told apart as between any two partitions: the
//!   home knows who holds keys, and who holds keys has a copy.
//! * **Transactions** are not split: the leader appends the entry only while nothing is locked, and locks nothing until it is applied.
//!   Decisions that are owed to others stay with the parent, whose name they bear.

use crate::apply::{bad, digest};
use crate::lease::LeaseRow;
use crate::partition::Partition;
use crate::state::{self, Head};
use quorate_mvcc::engine::{Batch, Engine, Table};
use quorate_mvcc::layout;
use quorate_types::{
    Bytes, Encode, Entry, EntryKind, Fault, GroupId, Index, Key, LeaseId, Malformed, PartitionId, Position,
    Slot, SlotSet, Split, Term,
};
use std::sync::Arc;

/// Where the log of a partition begins that came from a split: as if a snapshot had been installed.
pub const FIRST: Position = Position { term: Term(1), index: Index(1) };

impl<E: Engine> Partition<E> {
    /// At the leader: the entry returned must be proposed at `index` next. Nothing may be locked here, and nothing is to be evaluated from
    /// now on until the entry is applied: whose a key is, is open.
    pub fn split(&mut self, split: &Split, index: Index) -> (EntryKind, Bytes) {
        assert!(!self.has_locks(), "group {} is split while transactions hold locks", self.group);
        self.register_changes(index, None, Vec::new());
        (EntryKind::Split, split.encoded())
    }

    /// Whether a split of the group is applied in this store: it does not own the whole keyspace.
    pub fn is_split(engine: &E, group: GroupId) -> Result<bool, Fault> {
        Ok(state::load_slots(engine, group)?.is_some_and(|slots| !slots.is_all()))
    }

    /// Whether the group has any state in this store. One that came from a split and has none must get it from others.
    pub fn has_state(engine: &E, group: GroupId) -> Result<bool, Fault> {
        Ok(engine.get(Table::State, &Head::row(group))?.is_some())
    }

    /// `head` is the parent's, before the entry.
    pub(crate) fn apply_split(
        &mut self,
        entry: &Entry,
        split: &Split,
        head: &Head,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        let kept = self.slots.subtract(&split.slots);
        if split.slots.is_empty() || kept.is_empty() || kept.len() + split.slots.len() != self.slots.len() {
            return Err(bad(entry, Malformed("a split by slots that are not a part of the partition's")));
        }
        let child = GroupId { partition: split.child, ..self.group };
        self.split_leases(child, &split.slots, batch);
        let row = Head::row(child);
        let child_head = Head { position: FIRST, digest: digest(head.digest, entry, &[]), ..*head };
        batch.put(Table::State, row.clone(), layout::encode(Table::State, &row, &child_head));
        // It begins with the parent's members, by whatever entry of the parent's log they became that.
        if let Some(members) = self.members_before(batch)? {
            let row = state::members_row(child);
            let value = layout::seal(Table::State, &row, members.to_vec());
            batch.put(Table::State, row, value);
        }
        let row = state::slots_row(child);
        batch.put(Table::State, row.clone(), layout::encode(Table::State, &row, &split.slots));
        self.slots = Arc::new(kept);
        self.are_slots_stored = false;
        self.cache.get_mut().clear();
        Ok(())
    }

    /// The members that entries before the split have made, applied earlier or in the same batch.
    fn members_before(&self, batch: &Batch) -> Result<Option<Bytes>, Fault> {
        let row = state::members_row(self.group);
        match batch.changes.iter().rev().find(|change| change.1 == row).and_then(|change| change.2.clone()) {
            Some(sealed) => layout::open(Table::State, &row, sealed).map(Some),
            None => state::load_members(&self.engine, self.group),
        }
    }

    fn split_leases(&mut self, child: GroupId, slots: &SlotSet, batch: &mut Batch) {
        for lease in self.leases.ids() {
            let Some(row) = self.leases.row(lease) else { continue };
            let (moved, kept): (Vec<Key>, Vec<Key>) =
                self.leases.keys(lease).cloned().partition(|key| slots.contains(self.rules.slot(key)));
            if !row.is_copy && slots.contains(Slot::of_lease(lease)) {
                self.move_home(child, lease, row, !kept.is_empty(), batch);
            } else if !moved.is_empty() {
                put_row(batch, state::lease_row(child, lease), &LeaseRow::copy());
                // What the home of a copy knows is the parent; that the child comes from it, is in the map.
                if !row.is_copy && self.leases.add_holder(lease, child.partition) {
                    put_mark(batch, state::holder_row(self.group, lease, child.partition));
                }
            }
            for key in moved {
                self.leases.detach(lease, &key);
                batch.delete(Table::State, state::leased_row(self.group, lease, &key));
                put_mark(batch, state::leased_row(child, lease, &key));
            }
        }
    }

    /// The child keeps the lease's time from now on.
    fn move_home(
        &mut self,
        child: GroupId,
        lease: LeaseId,
        row: LeaseRow,
        keeps_keys: bool,
        batch: &mut Batch,
    ) {
        put_row(batch, state::lease_row(child, lease), &row);
        let mut holders: Vec<PartitionId> = self.leases.holders(lease);
        for holder in &holders {
            batch.delete(Table::State, state::holder_row(self.group, lease, *holder));
        }
        if keeps_keys {
            holders.push(self.group.partition);
            self.leases.become_copy(lease);
            put_row(batch, state::lease_row(self.group, lease), &LeaseRow::copy());
        } else {
            self.leases.remove(lease);
            batch.delete(Table::State, state::lease_row(self.group, lease));
        }
        for holder in holders {
            put_mark(batch, state::holder_row(child, lease, holder));
        }
    }
}

fn put_row(batch: &mut Batch, row: Bytes, value: &LeaseRow) {
    let value = layout::encode(Table::State, &row, value);
    batch.put(Table::State, row, value);
}

fn put_mark(batch: &mut Batch, row: Bytes) {
    let value = layout::seal(Table::State, &row, Vec::new());
    batch.put(Table::State, row, value);
}
