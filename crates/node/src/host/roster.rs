//! Which members the cluster has, and where its groups are, as far as this node has applied the meta group, which every member has.
//!
//! * **Members.** What the node was told when it started counts beside the rows until a read barrier of the meta group has shown that the rows
//!   are not old: a node that reads the log from its beginning would otherwise not know those by now who send it. From then on the rows alone count.
//! * **Places.** A node opens the groups that a row gives it, and throws away its replica of a group whose row leaves it no part and says that
//!   nothing moves ([`Place`] says why it may). A group without a row is left as it is: its row is on its way.
//!
//! Messages of a member whose row was removed are dropped: ids are not used again. Those of one that this node has not heard of yet are taken,
//! as it may be behind. Caveat: which were removed is known for as long as the process lives, or the meta group's log shows it again; later
//! such a node is a stranger, whom consensus does not let do harm either.

use super::Host;
use super::leaving::Leaving;
use crate::admission::RowsAsOf;
use crate::cluster::Cluster;
use crate::effects::Notice;
use crate::group::Then;
use quorate_consensus::Configuration;
use quorate_mvcc::engine::Engine;
use quorate_partition::Partition;
use quorate_types::{
    Decode, Fault, GroupId, KeyRange, KeyValue, KeyspaceId, Member, NodeId, Place, Position, Revision,
};
use std::collections::{BTreeMap, BTreeSet};

/// How often it is tried to find out that the rows are not old, in ticks.
const ASK_TICKS: u64 = 10;

/// The rows.
pub(super) struct Roster {
    /// What this node was told when it started; if its directory was empty, what others have said since.
    told: Cluster,
    /// How new that is.
    told_as_of: RowsAsOf,
    /// No row that is here is newer: those of a node that asks for admission may be from when it asked the last time.
    is_told_newest: bool,
    members: BTreeMap<NodeId, Member>,
    pub(super) places: BTreeMap<GroupId, Place>,
    /// Counts the changes of those.
    version: u64,
    /// Whose rows were there and are not any more.
    gone: BTreeSet<NodeId>,
    /// What was told counts no more.
    is_current: bool,
    /// A barrier that shows it is under way.
    is_asking: bool,
    /// Groups whose rows have changed since they were looked at.
    moved: BTreeSet<GroupId>,
    are_members_changed: bool,
}

impl Roster {
    pub(super) fn new(told: Cluster) -> Self {
        Self {
            told,
            told_as_of: RowsAsOf::default(),
            is_told_newest: false,
            members: BTreeMap::new(),
            places: BTreeMap::new(),
            version: 0,
            gone: BTreeSet::new(),
            is_current: false,
            is_asking: false,
            moved: BTreeSet::new(),
            are_members_changed: true,
        }
    }

    /// Those that the rows name.
    pub(super) fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// All that there are, for all that is known.
    fn known(&self) -> BTreeMap<NodeId, Member> {
        let are_old = self.is_told_newest && !self.is_current;
        let mut known = if are_old { BTreeMap::new() } else { self.members.clone() };
        if !self.is_current || known.is_empty() {
            for member in self.told.members.iter().filter(|member| !self.gone.contains(&member.id)) {
                known.entry(member.id).or_insert_with(|| member.clone());
            }
        }
        known
    }

    /// Somebody says which rows there are; those that are here are as new as `own`. Returns whether that is newer than what was told before.
    pub(super) fn tell(&mut self, members: &[Member], as_of: RowsAsOf, own: RowsAsOf) -> bool {
        let is_newer = !members.is_empty() && as_of > self.told_as_of;
        if is_newer {
            self.told.members = members.to_vec();
            self.told_as_of = as_of;
            self.is_told_newest = as_of >= own;
        }
        is_newer
    }

    /// Whether what was told counts no more, because the rows are known not to be old.
    pub(super) fn is_current(&self) -> bool {
        self.is_current
    }

    /// The rows may be old after all.
    pub(super) fn doubt(&mut self) {
        self.is_current = false;
    }

    /// Who voted in the meta group in the beginning.
    pub(super) fn first_voters(&self) -> &[NodeId] {
        &self.told.first_voters
    }

    /// Whether the member was removed.
    pub(super) fn is_gone(&self, node: NodeId) -> bool {
        self.gone.contains(&node)
    }

    fn put_member(&mut self, member: Member) {
        self.is_told_newest = false;
        self.gone.remove(&member.id);
        self.are_members_changed |= self.members.get(&member.id) != Some(&member);
        self.members.insert(member.id, member);
    }

    fn remove_member(&mut self, id: NodeId) {
        self.members.remove(&id);
        self.gone.insert(id);
        self.are_members_changed = true;
    }

    fn put_place(&mut self, group: GroupId, place: Place) -> Option<Place> {
        self.moved.insert(group);
        self.version += 1;
        self.places.insert(group, place)
    }
}

impl<E: Engine> Host<E> {
    /// The members of the cluster, as far as this node knows.
    pub fn members(&self) -> Vec<Member> {
        self.roster.known().into_values().collect()
    }

    /// Where the groups are, as far as this node knows.
    pub fn places(&self) -> &BTreeMap<GroupId, Place> {
        &self.roster.places
    }

    /// Another number whenever [`Host::places`] has changed.
    pub fn places_version(&self) -> u64 {
        self.roster.version
    }

    /// Members whose rows this node has seen removed.
    pub fn removed(&self) -> &BTreeSet<NodeId> {
        &self.roster.gone
    }

    /// Reads all rows; those that this node had and finds no more were removed while it did not hear of it.
    pub(super) fn load_roster(&mut self) -> Result<(), Fault> {
        let mut members = std::mem::take(&mut self.roster.members);
        for pair in self.scan_meta(KeyRange::prefix(Member::rows()))? {
            self.take_member_row(&pair)?;
        }
        members.retain(|id, _| !self.roster.members.contains_key(id));
        for id in members.into_keys() {
            self.roster.remove_member(id);
        }
        self.roster.are_members_changed = true;
        self.roster.version += 1;
        self.roster.places.clear();
        // A row in between may have named this node, and a target that came after it not.
        self.leaving = Leaving::default();
        for pair in self.scan_meta(KeyRange::prefix(Place::rows()))? {
            self.take_place_row(&pair)?;
        }
        self.note_members();
        Ok(())
    }

    /// A row was put; returns whether it was one of these.
    pub(super) fn take_roster_row(&mut self, pair: &KeyValue) -> Result<bool, Fault> {
        let Some(id) = Member::parse_row_key(&pair.key) else { return self.take_place_row(pair) };
        let before = self.roster.members.get(&id).cloned();
        self.take_member_row(pair)?;
        self.note_member(id, before, pair.modified);
        Ok(true)
    }

    fn note_member(&mut self, id: NodeId, before: Option<Member>, revision: Revision) {
        let now = self.roster.members.get(&id).cloned();
        if before != now {
            let (before, now) = (before.map(Box::new), now.map(Box::new));
            self.out.notices.push(Notice::Member { before, now, revision });
        }
    }

    fn take_member_row(&mut self, pair: &KeyValue) -> Result<bool, Fault> {
        let Some(id) = Member::parse_row_key(&pair.key) else { return Ok(false) };
        let member = Member::from_bytes(pair.value.clone())
            .map_err(|cause| Fault::new(format!("reading the row of member {id}"), cause))?;
        self.roster.put_member(Member { id, ..member });
        Ok(true)
    }

    fn take_place_row(&mut self, pair: &KeyValue) -> Result<bool, Fault> {
        let Some(group) = Place::parse_row_key(&pair.key) else { return Ok(false) };
        let place = Place::from_bytes(pair.value.clone())
            .map_err(|cause| Fault::new(format!("reading the place of group {group}"), cause))?;
        if place.holds(self.options.id) {
            self.leaving.remove(group);
        }
        let before = self.roster.put_place(group, place);
        self.note_move(group, before.as_ref(), pair.modified);
        Ok(true)
    }

    /// A row was removed; returns whether it was one of these.
    pub(super) fn remove_roster_row(&mut self, key: &[u8], revision: Revision) -> bool {
        if let Some(id) = Member::parse_row_key(key) {
            let before = self.roster.members.get(&id).cloned();
            self.roster.remove_member(id);
            self.note_member(id, before, revision);
        } else if let Some(group) = Place::parse_row_key(key) {
            self.roster.version += 1;
            self.roster.places.remove(&group);
        } else {
            return false;
        }
        true
    }

    /// After all rows of an entry: what has changed is followed.
    pub(super) fn follow_roster(&mut self) -> Result<(), Fault> {
        if self.roster.are_members_changed {
            self.note_members();
        }
        let moved = std::mem::take(&mut self.roster.moved);
        let mut keyspaces: BTreeSet<KeyspaceId> = BTreeSet::new();
        if moved.contains(&GroupId::META) && self.sequencer.is_some() {
            // It may have been put right after the group's quorum was lost.
            self.open_counters()?;
        }
        for id in moved.into_iter().filter(|id| *id != GroupId::META) {
            let Some(place) = self.roster.places.get(&id) else { continue };
            let (is_held, is_done) = (place.holds(self.options.id), place.target.is_none());
            keyspaces.insert(id.keyspace);
            // While the group moves, its log may still name those of an earlier target.
            if !is_held && is_done {
                self.leave(id)?;
            } else {
                self.follow_lineage(id)?;
            }
        }
        for keyspace in keyspaces {
            self.open_partitions(keyspace)?;
            self.note_slots(keyspace);
            self.note_whole(keyspace)?;
        }
        Ok(())
    }

    pub(super) fn note_members(&mut self) {
        self.roster.are_members_changed = false;
        let known = self.roster.known();
        let own = self.options.id;
        let others: BTreeSet<NodeId> = known.keys().copied().filter(|id| *id != own).collect();
        self.watch_over(&others);
        // Rows that are there and do not name this node, though they once did.
        if self.roster.is_gone(own) && !self.roster.members.is_empty() && !self.is_removed {
            self.is_removed = true;
            self.out.notices.push(Notice::Removed);
        }
        self.members = others;
        self.forget_distant_leaders();
        self.out.members = Some(known.into_values().collect());
    }

    /// Every so often, until it is known that the rows are not old.
    pub(super) fn tick_roster(&mut self) -> Result<(), Fault> {
        let roster = &mut self.roster;
        if roster.is_current
            || roster.is_asking
            || self.admission.is_mute()
            || !self.now.0.is_multiple_of(ASK_TICKS)
        {
            return Ok(());
        }
        roster.is_asking = true;
        let deadline = self.now.after(self.options.request_ticks_max);
        self.begin_barrier(GroupId::META, Position::default(), deadline, Then::Roster, None)
    }

    /// The barrier was passed, or not.
    pub(super) fn roster_asked(&mut self, is_passed: bool) {
        self.roster.is_asking = false;
        // Before there is any row what was told is all there is.
        if is_passed && !self.roster.members.is_empty() {
            self.roster.is_current = true;
            self.heed_rows();
            self.out.notices.push(Notice::Current);
            self.note_members();
        }
    }

    /// Whether this node shall have a replica of a group. Of one that is being split off the row comes when the split is finished: until then it is
    /// where its parent is. While a group moves, whoever has a replica keeps it: what its row wanted before may be in its log.
    pub(super) fn is_placed_here(&self, id: GroupId) -> Result<bool, Fault> {
        let Some(place) = self.place_of(id) else { return Ok(false) };
        let is_kept = place.target.is_some()
            && (self.unopened.contains_key(&id)
                || Partition::has_state(&self.engine, id)?
                || Partition::is_incomplete(&self.engine, id)?);
        Ok(is_kept || place.holds(self.options.id))
    }

    /// The row of a group, or of what it is being split off: no group is moved while it is being split.
    pub(super) fn place_of(&self, id: GroupId) -> Option<&Place> {
        self.roster.places.get(&id).or_else(|| {
            let (origin, _) = self.origin_of(id)?;
            self.roster.places.get(&GroupId { partition: origin, ..id })
        })
    }

    /// Whether a replica that begins here has to be given its state by others, even though the group's log may begin with nothing: what is in the
    /// log's beginning concerns partitions that this node has no part in, or has in a later state. Only those begin with nothing that the group
    /// began with.
    pub(super) fn is_newcomer(&self, id: GroupId) -> bool {
        let own = self.options.id;
        let begins = |place: &Place| place.first.contains(&own) && place.voters.contains(&own);
        id != GroupId::META && self.roster.places.get(&id).is_some_and(|place| !begins(place))
    }

    /// Whether a replica here is on its way into the group: it may have been in it before and forgotten what it promised, so it votes only
    /// when it has been given a state. That state is from after it had left; a candidate that could still count on a forgotten vote has not
    /// the entries by which it left, and is refused for that.
    pub(super) fn is_returning(&self, id: GroupId) -> bool {
        let is_voter = |place: &Place| place.voters.contains(&self.options.id);
        id != GroupId::META && self.place_of(id).is_some_and(|place| !is_voter(place))
    }

    /// The members of a group as of what is applied here.
    pub(super) fn stored_configuration(&self, id: GroupId) -> Result<Configuration, Fault> {
        if let Some(stored) = Partition::members(&self.engine, id)? {
            let stored = Configuration::from_bytes(stored).ok().filter(Configuration::is_valid);
            return stored
                .ok_or_else(|| Fault::new(format!("opening group {id}"), "its members are illegible"));
        }
        let first = match (id, self.roster.places.get(&id)) {
            (GroupId::META, _) => self.roster.first_voters(),
            (_, Some(place)) => &place.first,
            (_, None) => self.place_of(id).map_or(self.roster.first_voters(), |parent| &parent.voters),
        };
        Ok(Configuration::of_voters(first.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_counts_alone_until_a_newer_row_comes() {
        let member = |id| Member::new(NodeId(id), id.to_string(), "");
        let known = |roster: &Roster| roster.known().into_keys().map(|id| id.0).collect::<Vec<_>>();
        let at = |revision| RowsAsOf { lineage: 0, revision: Revision(revision) };
        let mut roster = Roster::new(Cluster::of_founders([1, 2].map(member).into()));
        (1..=5).for_each(|id| roster.put_member(member(id)));
        assert!(roster.tell(&[1, 2, 3].map(member), at(5), at(9)), "older than the rows");
        assert_eq!(known(&roster), [1, 2, 3, 4, 5]);
        assert!(roster.tell(&[1, 3, 4].map(member), at(20), at(9)));
        assert_eq!(known(&roster), [1, 3, 4]);
        assert!(!roster.tell(&[1, 2].map(member), at(19), at(9)));
        roster.put_member(member(6));
        assert_eq!(known(&roster), [1, 2, 3, 4, 5, 6]);
        roster.is_current = true;
        assert!(roster.tell(&[1].map(member), at(30), at(9)));
        assert_eq!(known(&roster), [1, 2, 3, 4, 5, 6]);
    }
}
