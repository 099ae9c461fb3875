//! What this node's partitions of one keyspace share: the rows of their keys, and with them what is published to readers and
//! the removal of forgotten history.

use super::Host;
use crate::group::State;
use quorate_mvcc::Compactor;
use quorate_mvcc::engine::Engine;
use quorate_partition::Publication;
use quorate_types::{Fault, GroupId, KeyspaceId, Revision, SlotSet};

/// One keyspace on this node.
pub(super) struct Keyspace {
    pub(super) publication: Publication,
    compactor: Compactor,
}

impl<E: Engine> Host<E> {
    /// What is shared by the partitions of a keyspace, which begins with the first of them.
    pub(super) fn keyspace(&mut self, id: KeyspaceId) -> Result<&mut Keyspace, Fault> {
        if !self.keyspaces.contains_key(&id) {
            let compactor = Compactor::open(&self.engine, id)?;
            self.keyspaces.insert(id, Keyspace { publication: Publication::by_apply(), compactor });
        }
        Ok(self.keyspaces.get_mut(&id).expect("it is there, or was just put there"))
    }

    /// A partition's rows are being replaced by those of a snapshot, which may be older than what is removed here.
    pub(super) fn compact_anew(&mut self, id: KeyspaceId) -> Result<(), Fault> {
        let compactor = Compactor::open(&self.engine, id)?;
        self.keyspace(id)?.compactor = compactor;
        Ok(())
    }

    /// Removes a little of the forgotten history of each keyspace, as far as all of its partitions here have compacted.
    pub(super) fn tick_compaction(&mut self) -> Result<(), Fault> {
        let ids: Vec<KeyspaceId> = self.keyspaces.keys().copied().collect();
        for id in ids {
            let Some(compacted) = self.compacted_by_all(id) else { continue };
            let rows_max = self.options.compaction_rows_per_tick;
            let Some(keyspace) = self.keyspaces.get_mut(&id) else { continue };
            if !keyspace.compactor.is_pending(compacted) {
                continue;
            }
            keyspace.compactor.step(&self.engine, compacted, rows_max)?;
            let groups: Vec<GroupId> = self.groups_of(id).collect();
            for group in groups {
                self.answer_physical(group);
            }
        }
        Ok(())
    }

    /// What all partitions have compacted to, which is nothing if one has nothing. `None` while the state of one is being
    /// replaced: what it will need is not known yet.
    fn compacted_by_all(&self, id: KeyspaceId) -> Option<Option<Revision>> {
        let compacted = |group| Some(self.groups.get(&group)?.partition()?.compacted());
        let all = self.groups_of(id).map(compacted).collect::<Option<Vec<_>>>()?;
        all.into_iter().min()
    }

    /// How far history is removed from the store.
    pub(super) fn physically_compacted(&self, id: KeyspaceId) -> Option<Revision> {
        self.keyspaces.get(&id).and_then(|keyspace| keyspace.compactor.finished())
    }

    /// The slots whose rows go when a snapshot replaces the state of `group`: its own, without what other partitions of this
    /// node own and hold. Those may have got it from this one, by a split that this replica has not applied yet.
    pub(super) fn slots_to_clear(&self, group: GroupId) -> SlotSet {
        let slots = |id: GroupId| match &self.groups.get(&id)?.state {
            State::Ready(partition) => Some(partition.slots().as_ref().clone()),
            State::Installing(_) => None,
        };
        let own = slots(group).unwrap_or_else(|| mapped_slots(group));
        let others = self.groups_of(group.keyspace).filter(|other| *other != group).filter_map(slots);
        others.fold(own, |rest, taken| rest.subtract(&taken))
    }

    fn groups_of(&self, id: KeyspaceId) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied().filter(move |group| group.keyspace == id)
    }
}

/// The slots of a partition that has no state yet: all, for every keyspace has one partition.
pub(super) fn mapped_slots(_: GroupId) -> SlotSet {
    SlotSet::all()
}
