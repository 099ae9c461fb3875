//! What this node's partitions of one keyspace share: the rows of their keys, and with them what is published to readers and
//! the removal of forgotten history.

use super::Host;
use super::forgetting::Compaction;
use super::holding::Holds;
use crate::effects::Applied;
use crate::group::Group;
use quorate_mvcc::engine::Engine;
use quorate_partition::{Publication, ReadError};
use quorate_types::{Changes, Event, Fault, GroupId, KeyspaceId, PartitionId, Revision, SlotSet};
use std::collections::BTreeMap;

/// Bytes of changes kept for watchers until all before them are applied; past that watchers read them from the store.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// How often a node asks how far an idle keyspace is, in ticks: revisions may have been given out that nobody used.
const SETTLE_TICKS: u64 = 50;

/// One keyspace on this node.
pub(super) struct Keyspace {
    pub(super) publication: Publication,
    pub(super) compaction: Compaction,
    /// In a keyspace of several partitions: applied, but earlier revisions of other partitions may not be.
    waiting: BTreeMap<Revision, Waiting>,
    waiting_bytes: usize,
    /// Some changes up to here were not kept, or came with a snapshot: watchers have to read the store.
    dropped: Option<Revision>,
    compacted: Option<Revision>,
    /// There may be forgotten history to remove.
    pub(super) is_compaction_due: bool,
    /// A partition here does not own all of it, whatever the map says yet.
    pub(super) is_split: bool,
    /// Watches here were not told of everything that is settled, because part of the keyspace was elsewhere.
    missed: bool,
    /// Some partitions have no replica here, and are not to get one.
    is_in_part: bool,
    /// Leaders are not all where revisions come from.
    is_scattered: bool,
    /// All that is settled is here, of every slot. Not so where some partitions are elsewhere, and between a snapshot of a partition that was split and
    /// the map that names the child.
    is_whole: bool,
    /// Which partitions here have all that is settled.
    pub(super) holds: Holds,
    /// Somebody waits here for this to be settled.
    wanted: Revision,
}

impl Keyspace {
    /// Whether some partitions have no replica here, and are not to get one.
    pub(super) fn is_in_part(&self) -> bool {
        self.is_in_part
    }
}

/// A revision that is applied in some partitions.
#[derive(Debug)]
enum Waiting {
    /// All of it.
    Whole(Changes),
    /// Parts, in several partitions; the order among them is in the store.
    Parts {
        /// So many are applied.
        seen: usize,
        /// Of so many, once the transaction's home has said.
        of: Option<usize>,
    },
}

impl Waiting {
    fn is_whole(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Parts { seen, of } => Some(*seen) == *of,
        }
    }
}

impl<E: Engine> Host<E> {
    /// What is shared by the partitions of a keyspace, which begins with the first of them.
    pub(super) fn keyspace(&mut self, id: KeyspaceId) -> Result<&mut Keyspace, Fault> {
        if !self.keyspaces.contains_key(&id) {
            let compaction = Compaction::Here(self.compactor(id)?);
            let keyspace = Keyspace {
                publication: Publication::by_apply(),
                compaction,
                waiting: BTreeMap::new(),
                waiting_bytes: 0,
                dropped: None,
                compacted: None,
                is_compaction_due: true,
                is_split: false,
                missed: false,
                is_in_part: false,
                is_scattered: false,
                is_whole: true,
                holds: Holds::default(),
                wanted: Revision::default(),
            };
            self.keyspaces.insert(id, keyspace);
        }
        Ok(self.keyspaces.get_mut(&id).expect("it is there, or was just put there"))
    }

    /// A partition was opened with what it had applied in an earlier life: nobody was told of that. Somebody may watch already, where the map came
    /// late because the meta group's state was being replaced when the node started.
    pub(super) fn note_untold(&mut self, id: GroupId) -> Result<(), Fault> {
        let Some(partition) = self.groups.get(&id).and_then(Group::partition) else { return Ok(()) };
        if self.is_sequenced(id.keyspace) {
            let applied = partition.revision();
            let keyspace = self.keyspace(id.keyspace)?;
            keyspace.dropped = keyspace.dropped.max(Some(applied));
        } else {
            // The only one has published it already.
            let replaced = self.published_revision(id.keyspace);
            self.out.applied.push((id.keyspace, Applied { replaced, ..Applied::default() }));
        }
        Ok(())
    }

    /// What a group has just applied goes to those who watch: at once if the group is the whole keyspace.
    pub(super) fn on_applied(
        &mut self,
        id: GroupId,
        applied: quorate_partition::Applied,
    ) -> Result<(), Fault> {
        if id == GroupId::META {
            for changes in &applied.changes {
                for event in changes.events.iter() {
                    self.on_meta_event(event)?;
                }
            }
            self.follow_roster()?;
        }
        let quorate_partition::Applied { changes, compacted, shared, split: _ } = applied;
        self.use_space(id.keyspace, &changes);
        if compacted.is_some() {
            self.keyspace(id.keyspace)?.is_compaction_due = true;
        }
        if changes.is_empty() && compacted.is_none() && shared.is_empty() {
            return Ok(());
        }
        if !self.is_sequenced(id.keyspace) {
            self.out.applied.push((id.keyspace, Applied { changes, compacted, ..Applied::default() }));
            return Ok(());
        }
        let decided = shared.iter().filter(|(_, share)| share.parts.is_some()).map(|(revision, _)| *revision);
        let position = self.groups.get(&id).and_then(Group::partition).map(|partition| partition.applied());
        if let Some(sequencer) = &mut self.sequencer {
            for revision in decided {
                sequencer.decided(id, revision);
            }
            for changes in &changes {
                sequencer.applied(id, changes.revision);
            }
            if let Some(position) = position {
                sequencer.reached(id, position);
            }
        } else {
            self.tell_applied(id, changes.iter().map(|changes| changes.revision), decided);
        }
        let keyspace = self.keyspace(id.keyspace)?;
        keyspace.compacted = keyspace.compacted.max(compacted);
        for (revision, share) in &shared {
            let waiting = keyspace.waiting.entry(*revision).or_insert(Waiting::Parts { seen: 0, of: None });
            if let Waiting::Parts { seen, of } = waiting {
                *seen += usize::from(share.is_part);
                *of = of.or(share.parts);
            }
        }
        for changes in changes.into_iter().filter(|changes| !shared.contains_key(&changes.revision)) {
            let bytes: usize = changes.events.iter().map(Event::size).sum();
            if keyspace.waiting_bytes + bytes > WAITING_BYTES_MAX {
                keyspace.dropped =
                    keyspace.waiting.last_key_value().map(|(last, _)| *last).max(keyspace.dropped);
                keyspace.waiting.clear();
                keyspace.waiting_bytes = 0;
            }
            keyspace.waiting_bytes += bytes;
            keyspace.waiting.insert(changes.revision, Waiting::Whole(changes));
        }
        self.wants_settled.insert(id.keyspace);
        Ok(())
    }

    /// Where the sequencer is elsewhere: revisions are given out one after the other, so what is applied here without a gap is all there is.
    /// A gap stays when a sequencer or a leader died; then the sequencer is asked ([`Host::tick_settling`]). Only where leaders are with the sequencer
    /// ([`Host::sees_gathered`]).
    pub(super) fn settle_contiguous(&mut self, id: KeyspaceId) -> Result<(), Fault> {
        let Some(known) = self.published_revision(id) else { return Ok(()) };
        let Some(keyspace) = self.keyspaces.get(&id).filter(|keyspace| keyspace.publication.is_settled())
        else {
            return Ok(());
        };
        let mut settled = known;
        for (revision, waiting) in keyspace.waiting.range(known.next()..) {
            if *revision != settled.next() || !waiting.is_whole() {
                break;
            }
            settled = *revision;
        }
        if settled > known { self.settled_at(id, settled, &[]) } else { Ok(()) }
    }

    /// A snapshot has taken the place of a group's state.
    pub(super) fn on_replaced(&mut self, id: GroupId) -> Result<(), Fault> {
        let rules = self.router.rules(id.keyspace);
        let Some(partition) = self.groups.get_mut(&id).and_then(Group::partition_mut) else { return Ok(()) };
        partition.set_rules(rules);
        let (revision, is_split) = (partition.revision(), !partition.slots().is_all());
        let keyspace = self.keyspace(id.keyspace)?;
        keyspace.is_split |= is_split;
        keyspace.is_compaction_due = true;
        self.note_slots(id.keyspace);
        self.open_partitions(id.keyspace)?;
        self.note_whole(id.keyspace)?;
        self.count_anew(id.keyspace);
        if id == GroupId::META {
            self.load_maps()?;
        }
        if self.is_sequenced(id.keyspace) {
            // What it changed on the way was not told.
            let keyspace = self.keyspace(id.keyspace)?;
            keyspace.dropped = keyspace.dropped.max(Some(revision));
            let is_in_part = !keyspace.is_whole;
            // Those that could read nothing meanwhile go on with what was known before.
            let replaced = self.published_revision(id.keyspace);
            self.out.applied.push((id.keyspace, Applied { replaced, is_in_part, ..Applied::default() }));
            self.wants_settled.insert(id.keyspace);
        } else {
            self.out.applied.push((id.keyspace, Applied { replaced: Some(revision), ..Applied::default() }));
        }
        Ok(())
    }

    /// How far all of a keyspace is applied here, if that is known.
    pub(super) fn published_revision(&self, id: KeyspaceId) -> Option<Revision> {
        let keyspace = self.keyspaces.get(&id)?;
        Some(keyspace.publication.reader(self.engine.clone(), id).revision())
    }

    /// All of the keyspace up to here that this node has is applied: readers and watchers may see it. Of the partitions `told` it has all,
    /// beside those of which that was known.
    pub(super) fn settled_at(
        &mut self,
        id: KeyspaceId,
        revision: Revision,
        told: &[PartitionId],
    ) -> Result<(), Fault> {
        let engine = self.engine.clone();
        let keyspace = self.keyspace(id)?;
        let reader = keyspace.publication.reader(engine, id);
        let known = reader.revision();
        // An old answer; also when the state has been replaced since more was known, because a snapshot is never older.
        if revision < known {
            return Ok(());
        }
        keyspace.publication.advance(revision);
        self.note_told(id, told)?;
        let keyspace = self.keyspace(id)?;
        // Watches of everything see whole revisions or nothing. They read on from the store when all of the keyspace is here.
        let is_in_part = !keyspace.is_whole;
        let later = keyspace.waiting.split_off(&revision.next());
        let settled = std::mem::replace(&mut keyspace.waiting, later);
        let compacted = keyspace.compacted.take();
        let mut changes = Vec::with_capacity(settled.len());
        let has_missed = std::mem::replace(&mut keyspace.missed, is_in_part) && !is_in_part;
        let held = keyspace.holds.slots();
        let mut replaced = (keyspace.dropped.is_some() || has_missed).then_some(revision);
        keyspace.dropped = keyspace.dropped.filter(|dropped| *dropped > revision);
        for (at, waiting) in settled {
            match waiting {
                Waiting::Whole(whole) => {
                    keyspace.waiting_bytes -= whole.events.iter().map(Event::size).sum::<usize>();
                    changes.push(whole);
                }
                Waiting::Parts { .. } => match reader.changes_of(&held, at) {
                    Ok(Some(whole)) => changes.push(whole),
                    Ok(None) => {}
                    Err(ReadError::Fault(fault)) => return Err(fault),
                    // Compacted, or a partition's state is being replaced: watchers read on when they can.
                    Err(ReadError::Rejection(_)) => replaced = Some(revision),
                },
            }
        }
        // Below what is known there is nothing new: a partition may apply late what a snapshot of another had shown already.
        changes.retain(|changes| changes.revision > known);
        if replaced.is_some() {
            changes.clear();
        }
        let through = Some(revision).filter(|revision| *revision > known);
        if through.is_some() || compacted.is_some() || replaced.is_some() {
            let applied = Applied { changes, compacted, through, replaced, is_in_part, held: None };
            self.out.applied.push((id, applied));
        }
        Ok(())
    }

    /// Finds out how far the keyspaces are applied here, where that does not show by itself.
    pub(super) fn tick_settling(&mut self) -> Result<(), Fault> {
        for id in self.keyspaces.keys().copied().collect::<Vec<_>>() {
            let is_due = self.is_unsettled(id) || self.now.0.is_multiple_of(SETTLE_TICKS);
            let is_held = self.groups_of(id).next().is_some();
            if is_due && is_held && self.is_sequenced(id) {
                self.wants_settled.insert(id);
                if self.sequencer.is_none() {
                    self.begin_settling(id)?;
                }
            }
        }
        Ok(())
    }

    /// Whether there is something here that nobody was told of, as it is not known whether earlier revisions are applied.
    pub(super) fn is_unsettled(&self, id: KeyspaceId) -> bool {
        self.keyspaces.get(&id).is_some_and(|keyspace| {
            !keyspace.waiting.is_empty()
                || keyspace.dropped.is_some()
                || keyspace.compacted.is_some()
                || (keyspace.missed && keyspace.is_whole)
                || !keyspace.publication.is_settled()
                || keyspace.holds.has_untold()
        }) || self.is_awaited(id)
    }

    /// Somebody here waits for a revision to be settled, which others know of: it is found out whether it is, though nothing here changes.
    pub fn await_settled(&mut self, id: KeyspaceId, revision: Revision) {
        if let Some(keyspace) = self.keyspaces.get_mut(&id) {
            keyspace.wanted = keyspace.wanted.max(revision);
            self.wants_settled.insert(id);
        }
    }

    pub(super) fn is_awaited(&self, id: KeyspaceId) -> bool {
        let known = self.published_revision(id);
        self.keyspaces.get(&id).is_some_and(|keyspace| known.is_some_and(|known| known < keyspace.wanted))
    }

    /// Whether watches here have been told of everything that is here.
    pub(super) fn is_told_of_all(&self, id: KeyspaceId) -> bool {
        self.keyspaces.get(&id).is_some_and(|keyspace| {
            keyspace.is_whole
                && keyspace.publication.is_settled()
                && !keyspace.missed
                && keyspace.dropped.is_none()
        })
    }

    /// What this node knows to be settled, for the sequencer to say more; the beginning if any answer is of use.
    pub(super) fn settled_known(&self, id: KeyspaceId) -> Revision {
        let is_enough = self.keyspaces.get(&id).is_some_and(|keyspace| {
            let has_missed = keyspace.missed && keyspace.is_whole;
            let has_more = keyspace.dropped.is_some() || keyspace.compacted.is_some() || has_missed;
            keyspace.publication.is_settled() && !has_more && !keyspace.holds.has_untold()
        });
        let known = self.published_revision(id).filter(|_| is_enough);
        known.unwrap_or_default()
    }

    /// What a partition owns when it begins: what the map gives it and all that has been split off it since.
    pub(super) fn original_slots(&self, id: GroupId) -> SlotSet {
        self.maps.get(&id.keyspace).map_or_else(SlotSet::all, |map| map.original_slots(id.partition))
    }

    /// The slots that the map gives a partition.
    pub(super) fn mapped_slots(&self, id: GroupId) -> SlotSet {
        let map = self.maps.get(&id.keyspace);
        let partition = map.and_then(|map| map.partition(id.partition));
        partition.map_or_else(SlotSet::all, |partition| partition.slots.clone())
    }

    /// What all partitions have compacted to, which is nothing if one has nothing. `None` while the state of one is being
    /// replaced: what it will need is not known yet; and while rows of another are removed, of which some are gone.
    pub(super) fn compacted_by_all(&self, id: KeyspaceId) -> Option<Option<Revision>> {
        if self.discards.is_clearing(id) {
            return None;
        }
        let compacted = |group| Some(self.groups.get(&group)?.partition()?.compacted());
        let all = self.groups_of(id).map(compacted).collect::<Option<Vec<_>>>()?;
        all.into_iter().min()
    }

    /// Looks what of the keyspace is here; until that is everything nobody reads all of it here.
    pub(super) fn note_whole(&mut self, id: KeyspaceId) -> Result<(), Fault> {
        let first = GroupId { keyspace: id, partition: PartitionId(0) };
        let last = GroupId { keyspace: id, partition: PartitionId(u32::MAX) };
        let is_scattered = self.roster.places.range(first..=last).any(|(_, place)| place.leader.is_some());
        let mut partitions = self.router.partitions(id).iter();
        let is_in_part =
            partitions.any(|partition| self.is_distant(GroupId { keyspace: id, partition: *partition }));
        let is_scattered = is_scattered || self.options.spread_leaders;
        let keyspace = self.keyspace(id)?;
        (keyspace.is_scattered, keyspace.is_in_part) = (is_scattered, is_in_part);
        self.note_ready(id)
    }

    /// Whether the leaders of a keyspace's partitions are not all where revisions come from.
    pub(super) fn is_scattered(&self, id: KeyspaceId) -> bool {
        self.keyspaces.get(&id).is_some_and(|keyspace| keyspace.is_scattered)
    }

    pub(super) fn set_whole(&mut self, id: KeyspaceId, is_whole: bool) -> Result<(), Fault> {
        let keyspace = self.keyspace(id)?;
        if std::mem::replace(&mut keyspace.is_whole, is_whole) != is_whole {
            keyspace.publication.set_whole(is_whole);
        }
        Ok(())
    }

    /// What a partition owns here, or will when its state has come.
    pub(super) fn claimed_slots(&self, id: GroupId) -> SlotSet {
        let owned = self.groups.get(&id).and_then(|group| group.partition());
        match (owned, self.origin_of(id)) {
            (Some(partition), _) => partition.slots().as_ref().clone(),
            (None, Some((_, slots))) => slots.clone(),
            (None, None) => self.mapped_slots(id),
        }
    }

    /// The slots whose rows go when a snapshot replaces the state of `group`: its own, without what other partitions of this
    /// node own and hold. Those may have got it from this one, by a split that this replica has not applied yet. To look for rows is a pass over all
    /// of the keyspace's, and there are none where this replica has none and its slots were never another partition's.
    pub(super) fn slots_to_clear(&self, group: GroupId, has_rows: bool) -> SlotSet {
        if !has_rows && self.maps.contains_key(&group.keyspace) && self.origin_of(group).is_none() {
            return SlotSet::none();
        }
        self.unclaimed(group, self.claimed_slots(group))
    }

    /// What of these slots of a group no other partition of this node owns and holds.
    pub(super) fn unclaimed(&self, group: GroupId, slots: SlotSet) -> SlotSet {
        let is_ready = |id: GroupId| self.groups.get(&id).is_some_and(|group| group.partition().is_some());
        let origin = self.origin_of(group).map(|(origin, _)| origin);
        // What its parent is to get by a snapshot is without this.
        let is_other =
            |other: &GroupId| *other != group && (is_ready(*other) || Some(other.partition) != origin);
        let others = self.groups_of(group.keyspace).filter(is_other);
        others.fold(slots, |rest, other| rest.subtract(&self.claimed_slots(other)))
    }

    pub(super) fn groups_of(&self, id: KeyspaceId) -> impl Iterator<Item = GroupId> + '_ {
        let of_keyspace = |partition| GroupId { keyspace: id, partition: PartitionId(partition) };
        self.groups.range(of_keyspace(0)..=of_keyspace(u32::MAX)).map(|(group, _)| *group)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{Cluster, Options, Standing};
    use quorate_mvcc::engine::Table;
    use quorate_mvcc::layout;
    use quorate_partition::snapshot::Installer;
    use quorate_partition::{Limits, Partition};
    use quorate_storage::memory::MemoryEngine;
    use quorate_types::{
        Command, Effect, Encode, Entry, EntryKind, KeyspaceMap, Member, NodeId, PartitionId, Place, Stamp,
        Term, Tick,
    };
    use std::collections::BTreeMap;

    const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

    fn group(partition: u32) -> GroupId {
        GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
    }

    fn half(partition: u32) -> SlotSet {
        let (lower, upper) = SlotSet::all().split().expect("there are many slots");
        if partition == 0 { lower } else { upper }
    }

    /// A partition that has put one key ten times, from this revision on, and then compacted.
    fn fill(engine: &MemoryEngine, partition: u32, first: u64, compacted: Option<u64>) {
        let opened = Partition::open(engine.clone(), group(partition), half(partition), Limits::default());
        let mut replica = opened.unwrap().ready().unwrap();
        let slot = quorate_types::Slot(half(partition).ranges().next().unwrap().start);
        let put = |number: u64| Effect::Put {
            slot,
            stamp: Stamp { revision: Revision(first + number), sub: 0 },
            key: format!("key of {partition}").into(),
            value: "v".into(),
            create: Revision(first),
            version: number + 1,
            lease: None,
            previous_lease: None,
        };
        let mut effects: Vec<Effect> = (0..10).map(put).collect();
        effects.extend(compacted.map(|revision| Effect::Compact { revision: Revision(revision) }));
        for effect in effects {
            let data = Command { group: group(partition), effects: vec![effect] }.encoded();
            let index = replica.applied().index.next();
            replica.apply(&[Entry { term: Term(1), index, kind: EntryKind::Write, data }], Tick(0)).unwrap();
        }
    }

    /// A node that knows of the keyspace by what the meta group has applied.
    pub(in crate::host) fn host(engine: &MemoryEngine) -> Host<MemoryEngine> {
        let map = KeyspaceMap::new(KEYSPACE, "default", 2, Default::default(), None).unwrap();
        let meta = Partition::open(engine.clone(), GroupId::META, SlotSet::all(), Limits::default());
        let place = Place::new(vec![NodeId(1)]).encoded();
        let rows = [
            (Place::row_key(group(0)), place.clone()),
            (Place::row_key(group(1)), place),
            (KeyspaceMap::row_key(KEYSPACE), map.encoded()),
        ];
        let put = |(sub, (key, value))| Effect::Put {
            slot: quorate_types::Slot(0),
            stamp: Stamp { revision: Revision(2), sub },
            key,
            value,
            create: Revision(2),
            version: 1,
            lease: None,
            previous_lease: None,
        };
        let effects = (0..).zip(rows).map(put).collect();
        let data = Command { group: GroupId::META, effects }.encoded();
        let first = Entry { term: Term(1), index: quorate_types::Index(1), kind: EntryKind::Write, data };
        meta.unwrap().ready().unwrap().apply(&[first], Tick(0)).unwrap();
        let standing = Standing::Admitted(BTreeMap::new());
        let cluster = Cluster::of_founders(vec![Member::new(NodeId(1), "", "")]);
        Host::new(Options::new(NodeId(1), 1), standing, engine.clone(), cluster, BTreeMap::new()).unwrap()
    }

    fn changes(engine: &MemoryEngine) -> usize {
        use quorate_mvcc::engine::Read;
        engine.scan(Table::Change, layout::rows(Table::Change, group(0))).count()
    }

    /// A tick, and what it has done.
    fn compact(host: &mut Host<MemoryEngine>) {
        host.tick_compaction();
        for errand in host.errands() {
            host.errand_done(errand.run()).unwrap();
        }
    }

    #[test]
    fn history_is_removed_up_to_what_all_partitions_have_compacted() {
        for (compacted, left) in
            [([Some(8), Some(15)], 14), ([Some(15), Some(8)], 14), ([Some(15), None], 20)]
        {
            let engine = MemoryEngine::default();
            fill(&engine, 0, 2, compacted[0]);
            fill(&engine, 1, 12, compacted[1]);
            let mut host = host(&engine);
            compact(&mut host);
            assert_eq!(changes(&engine), left, "{compacted:?}");
            let least = compacted.into_iter().min().flatten().map(Revision);
            assert_eq!(host.physically_compacted(KEYSPACE), least);
        }
    }

    /// The rows that take the old ones' place may be older than what it would remove.
    #[test]
    fn a_step_that_was_ordered_before_a_partition_was_given_up_does_nothing() {
        let engine = MemoryEngine::default();
        fill(&engine, 0, 2, Some(8));
        fill(&engine, 1, 12, Some(8));
        let mut host = host(&engine);
        host.tick_compaction();
        let errands = host.errands();
        assert_eq!(errands.len(), 1);
        host.stop_compaction(KEYSPACE);
        for errand in errands {
            host.errand_done(errand.run()).unwrap();
        }
        assert_eq!((host.physically_compacted(KEYSPACE), changes(&engine)), (None, 20));
        host.compact_anew(KEYSPACE).unwrap();
        compact(&mut host);
        assert_eq!((host.physically_compacted(KEYSPACE), changes(&engine)), (Some(Revision(8)), 14));
    }

    #[test]
    fn nothing_is_removed_while_a_partition_is_replaced_and_its_neighbours_keep_their_rows() {
        let engine = MemoryEngine::default();
        fill(&engine, 0, 2, Some(8));
        fill(&engine, 1, 12, Some(8));
        let whole = host(&engine);
        assert_eq!(
            (whole.slots_to_clear(group(0), true), whole.slots_to_clear(group(1), true)),
            (half(0), half(1))
        );
        // The node stops while partition 0 is being replaced.
        let mut installer = Installer::begin(engine.clone(), group(0), &half(0), Limits::default()).unwrap();
        installer.clear().unwrap();
        let mut host = host(&engine);
        compact(&mut host);
        assert_eq!((host.physically_compacted(KEYSPACE), changes(&engine)), (None, 10));
    }
}
