//! Splitting a partition while it is used.
//!
//! 1. **The map says so**: an order puts [`PartitionState::Splitting`] into it, with the child's number and slots.
//! 2. The partition's leader lets transactions over partitions end and locks nothing more for new ones; then it
//!    appends the **split entry**. From now on requests wait: whose their keys are is open.
//! 3. Every replica that applies the entry has the child's state, opens its group, and the leader's node stands for election in it at once.
//! 4. When the child's leader serves, the **map is finished**: keys are routed to the child, and both answer
//!    again. A keyspace that had one partition is counted by the sequencer from here on, beginning after the newest revision,
//!    which is committed as its mark in the same transaction.
//!
//! A crash at any step leaves something that whoever leads next goes on with: the map is in the meta group, the entry in the partition's log.
//!
//! **Who has no state must not stand in for who has.** A replica of the parent that was sent a snapshot from after the split has not the child's
//! keys. It opens the child as one that has lost its state: it votes, but does not stand, and is sent a snapshot of the child. That
//! loses nothing: the entry was committed by a quorum that has it in its logs, and nobody who has it there is ever sent a snapshot of
//! the parent in place of applying it (what an offer speaks of and the log holds is taken as committed).
//!
//! [`Group::is_splitting`] says that what the partition owns and what the map gives it differ, or are about to.

use super::Host;
use super::requests::propose;
use super::rows::{is_as_read, put};
use super::sequencing::{Count, mark_key};
use crate::group::{State, Work};
use quorate_consensus::{Consensus, Role};
use quorate_mvcc::engine::Engine;
use quorate_partition::Partition;
use quorate_types::{
    Encode, Fault, GroupId, KeyspaceId, KeyspaceMap, LeaseId, PartitionId, Place, SlotSet, Split, Term,
    crash_point, reached,
};
use std::collections::BTreeSet;

/// Between two attempts to have the map finished, in ticks: the meta group's leader may be on another node.
const FINISH_TICKS: u64 = 2;
/// Between two attempts of a new partition's first leader to be elected, in ticks: the others may not have opened it yet.
const STAND_TICKS: u64 = 2;
/// And so often: each attempt takes a term. After that others get their chance, who may have more in their logs.
const STAND_TERMS_MAX: Term = Term(12);

impl<E: Engine> Host<E> {
    /// Notes which splits a new map names.
    pub(super) fn note_splits(&mut self, map: &KeyspaceMap) {
        self.splits.retain(|parent, _| parent.keyspace != map.id);
        let splits = map.partitions.iter().filter_map(|partition| {
            Some((GroupId { keyspace: map.id, partition: partition.id }, partition.child()?.0))
        });
        self.splits.extend(splits);
    }

    /// The split that the map wants of a partition and that its replica here has not applied.
    pub(super) fn wanted_split(&self, id: GroupId) -> Option<Split> {
        let (child, slots) = self.maps.get(&id.keyspace)?.partition(id.partition)?.child()?;
        let owned = self.groups.get(&id)?.partition()?.slots();
        let is_applied = owned.subtract(slots).len() == owned.len();
        (!is_applied).then(|| Split { child, slots: slots.clone() })
    }

    /// Whether transactions over partitions must not begin here, so that those under way can end.
    pub(super) fn is_closed_to_transactions(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_some_and(|group| group.is_splitting) || self.wanted_split(id).is_some()
    }

    /// Goes on with the splits that the maps name.
    pub(super) fn tick_splits(&mut self) -> Result<(), Fault> {
        for (parent, child) in self.splits.clone() {
            self.begin_split(parent)?;
            self.stand_for_child(parent, GroupId { partition: child, ..parent });
            self.finish_split(parent, child)?;
        }
        Ok(())
    }

    /// Appends the split entry, if the map wants it and nothing is in the way.
    fn begin_split(&mut self, id: GroupId) -> Result<(), Fault> {
        let Some(split) = self.wanted_split(id) else { return Ok(()) };
        let count = self.count(id);
        if count == Count::Wait {
            return Ok(());
        }
        // What is split off begins with the parent's voters, so nobody must be coming or going.
        let is_moving = self.roster.places.get(&id).is_none_or(|place| place.target.is_some());
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.is_serving && !group.is_splitting)
        else {
            return Ok(());
        };
        let members = group.raft.configuration();
        if is_moving || members.is_joint() || !members.learners.is_empty() {
            reached!("split-waits-for-move");
            return Ok(());
        }
        if group.raft.can_propose().is_err() {
            return Ok(());
        }
        let index = group.raft.last().index.next();
        let State::Ready(partition) = &mut group.state else { return Ok(()) };
        if partition.has_locks() {
            reached!("split-waits-for-locks");
            return Ok(());
        }
        let (kind, data) = partition.split(&split, index);
        group.proposed = propose(&mut group.raft, kind, data, index);
        (group.is_splitting, group.is_split_proposed) = (true, true);
        crash_point("split.proposed");
        self.dirty.insert(id);
        Ok(())
    }

    /// This replica of the parent has applied the entry: the child is there.
    pub(super) fn on_split(&mut self, parent: GroupId, split: &Split) -> Result<(), Fault> {
        let child = GroupId { partition: split.child, ..parent };
        crash_point("split.applied");
        let was_sequenced = self.is_sequenced(parent.keyspace);
        let keyspace = self.keyspace(parent.keyspace)?;
        keyspace.is_split = true;
        if !was_sequenced {
            reached!("first-split");
            // The parent has published all there was; that can be read on.
            keyspace.publication.share();
        }
        if let Some(group) = self.groups.get_mut(&parent) {
            group.is_split_proposed = false;
        }
        self.note_slots(parent.keyspace);
        if self.groups.contains_key(&child) {
            return Err(Fault::new(
                format!("splitting group {parent}"),
                format!("group {child} is there already"),
            ));
        }
        // It may have gone elsewhere since, while this replica of the parent was behind.
        if self.roster.places.get(&child).is_some_and(|place| !place.holds(self.options.id)) {
            reached!("child-elsewhere");
            self.discard_of(child, split.slots.clone())?;
            // What comes from now on is not all of the keyspace any more.
            return self.note_whole(parent.keyspace);
        }
        self.open_group(child)?;
        crash_point("split.opened");
        self.told_by_split(parent, child)?;
        self.catch_up_also(child)?;
        self.stand_for_child(parent, child);
        Ok(())
    }

    /// The leader of the parent is the child's first, if the others agree.
    fn stand_for_child(&mut self, parent: GroupId, child: GroupId) {
        let is_due = self.now.0.is_multiple_of(STAND_TICKS) || !self.groups.contains_key(&parent);
        let leads = self.groups.get(&parent).is_some_and(|group| matches!(group.role, Role::Leader { .. }));
        let Some(group) = self.groups.get_mut(&child) else { return };
        let is_free = group.leader.is_none() && !matches!(group.role, Role::Leader { .. });
        if leads && is_due && is_free && group.raft.term() < STAND_TERMS_MAX {
            reached!("child-stood-for-again", group.raft.term() > Term(1));
            group.raft.stand();
            self.dirty.insert(child);
        }
    }

    /// The child's leader serves here: keys are its own from now on.
    fn finish_split(&mut self, parent: GroupId, child: PartitionId) -> Result<(), Fault> {
        let child = GroupId { partition: child, ..parent };
        let is_led_here = self.groups.get(&child).is_some_and(|group| group.is_serving);
        if !is_led_here || !self.now.0.is_multiple_of(FINISH_TICKS) {
            return Ok(());
        }
        let key = KeyspaceMap::row_key(parent.keyspace);
        let Some((_, modified)) = self.read_row(&key)? else { return Ok(()) };
        let Some(mut map) = self.maps.get(&parent.keyspace).cloned() else { return Ok(()) };
        let was_alone = map.partitions.len() == 1;
        if map.finish_split(parent.partition).is_err() {
            return Ok(());
        }
        reached!("split-finished-by-other", self.groups.get(&parent).is_none_or(|group| !group.is_serving));
        let Some(group) = self.groups.get(&child) else { return Ok(()) };
        let place = Place::new(group.raft.configuration().voters.clone());
        let mut success = vec![put(Place::row_key(child), place.encoded()), put(key.clone(), map.encoded())];
        if was_alone {
            // The parent counted until now, and has given out nothing since the split.
            let Some(newest) = group.partition().map(Partition::revision) else { return Ok(()) };
            success.push(put(mark_key(parent.keyspace), newest.encoded()));
        }
        crash_point("split.finishing");
        self.change_rows(vec![is_as_read(key, Some(modified))], success)
    }

    /// Opens the groups of a keyspace that are not open and can be.
    pub(super) fn open_partitions(&mut self, keyspace: KeyspaceId) -> Result<(), Fault> {
        let Some(map) = self.maps.get(&keyspace).cloned() else { return Ok(()) };
        // They are opened when the rows that are being removed are gone.
        if self.discards.is_clearing(keyspace) {
            return Ok(());
        }
        let mut ids: Vec<GroupId> = Vec::new();
        for partition in &map.partitions {
            ids.push(GroupId { keyspace, partition: partition.id });
            ids.extend(partition.child().map(|(child, _)| GroupId { keyspace, partition: child }));
        }
        // What a partition that is not whole may clear is known when all that are whole are open.
        for incomplete in [false, true] {
            for id in &ids {
                if !self.groups.contains_key(id)
                    && self.is_at_hand(&map, *id)?
                    && Partition::is_incomplete(&self.engine, *id)? == incomplete
                {
                    self.open_group(*id)?;
                    self.note_untold(*id)?;
                    self.catch_up_also(*id)?;
                }
            }
        }
        Ok(())
    }

    /// What a partition was split off, and its slots, as far as the map tells; also when it is not finished.
    pub(super) fn origin_of(&self, id: GroupId) -> Option<(PartitionId, &SlotSet)> {
        Self::origin(self.maps.get(&id.keyspace)?, id.partition)
    }

    fn origin(map: &KeyspaceMap, id: PartitionId) -> Option<(PartitionId, &SlotSet)> {
        if let Some(partition) = map.partition(id) {
            return Some((partition.origin?, &partition.slots));
        }
        let mut children = map.partitions.iter().filter_map(|parent| Some((parent.id, parent.child()?)));
        children.find(|(_, (child, _))| *child == id).map(|(parent, (_, slots))| (parent, slots))
    }

    /// Whether a group can be opened by the map, and is to be here. One that comes from a split waits until its parent here has applied the split: until then the
    /// keys are the parent's. That is so also where both wait for their states, because the store was given up: the parent's may be from before the split, and
    /// to apply that is to write the other's.
    fn is_at_hand(&self, map: &KeyspaceMap, id: GroupId) -> Result<bool, Fault> {
        if !self.is_placed_here(id)? {
            return Ok(false);
        }
        if Partition::has_state(&self.engine, id)? {
            return Ok(true);
        }
        let Some((origin, slots)) = Self::origin(map, id.partition) else { return Ok(true) };
        let origin = GroupId { partition: origin, ..id };
        let parent = self.groups.get(&origin);
        if parent.is_none() && !self.is_placed_here(origin)? {
            return Ok(true);
        }
        let owned = parent.and_then(|parent| parent.partition()).map(Partition::slots);
        Ok(owned.is_some_and(|owned| owned.subtract(slots).len() == owned.len()))
    }

    /// Whether a group comes from a split whose entry is not in this store, or this node comes late to it: others have its state.
    pub(super) fn is_without_state(&self, id: GroupId) -> Result<bool, Fault> {
        let is_given_state = self.origin_of(id).is_some() || self.is_newcomer(id);
        Ok(is_given_state && !Partition::has_state(&self.engine, id)?)
    }

    /// Compares what the partitions own with what the map gives them; what waits for that goes on.
    pub(super) fn note_slots(&mut self, keyspace: KeyspaceId) {
        let ids: Vec<GroupId> = self.groups_of(keyspace).collect();
        for id in ids {
            self.note_slots_of(id);
        }
    }

    /// The same for one of them.
    pub(super) fn note_slots_of(&mut self, id: GroupId) {
        let mapped = self.mapped_slots(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(partition) = group.partition() else { return };
        let is_splitting = group.is_split_proposed || **partition.slots() != mapped;
        if std::mem::replace(&mut group.is_splitting, is_splitting) && !is_splitting {
            self.rouse_waiting.insert(id);
        }
    }

    /// The partitions that may hold keys of a lease, besides its home: those that it knows, and what has been split off them since.
    pub(super) fn holders(&self, home: GroupId, lease: LeaseId) -> BTreeSet<PartitionId> {
        let partition = self.groups.get(&home).and_then(|group| group.partition());
        let known = partition.map(|partition| partition.lease_holders(lease)).unwrap_or_default();
        let mut holders = match self.maps.get(&home.keyspace) {
            Some(map) => map.with_descendants(known),
            None => known.into_iter().collect(),
        };
        holders.remove(&home.partition);
        holders
    }

    /// Sends on what waited: its keys may be another partition's by now.
    pub(super) fn dispatch_again(&mut self, id: GroupId, work: Work) -> Result<(), Fault> {
        if id.keyspace == KeyspaceId::SYSTEM || self.router.partitions(id.keyspace).len() < 2 {
            return self.dispatch(id, work);
        }
        reached!("request-rerouted-by-split", self.router.route(id.keyspace, &work.request) != Ok(id));
        match self.router.route(id.keyspace, &work.request) {
            Ok(group) => self.dispatch(group, work),
            Err(rejection) => {
                self.reply(work.origin, Err(rejection));
                Ok(())
            }
        }
    }
}
