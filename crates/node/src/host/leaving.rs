//! A replica is thrown away only when the row that says so is not an old one.
//!
//! A node whose rows are behind may be told that a group does without it when it has long been given a part in it again, and has acknowledged entries with the replica
//! that it still had: the leader counts on these. So from the row on the replica hears nothing, and a barrier of the meta group begins.
//! Whatever this node acknowledged in that group it did before; if it was a member by a later row, that is applied when the barrier is passed.

use super::Host;
use crate::group::Then;
use quorate_mvcc::engine::Engine;
use quorate_types::{Fault, GroupId, Position};
use std::collections::BTreeMap;

/// Groups that do without this node, by a row that it has, and hear nothing. No later row names it, even if it says that the group moves.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Of each, whether the barrier under way began after it was noted.
    groups: BTreeMap<GroupId, bool>,
}

impl Leaving {
    /// Whether this is one of them.
    pub(super) fn contains(&self, id: GroupId) -> bool {
        self.groups.contains_key(&id)
    }

    /// It is none of them any more.
    pub(super) fn remove(&mut self, id: GroupId) {
        self.groups.remove(&id);
    }
}

impl<E: Engine> Host<E> {
    /// A row says that this node has no part in the group.
    pub(super) fn leave(&mut self, id: GroupId) -> Result<(), Fault> {
        if !self.groups.contains_key(&id) && !self.unopened.contains_key(&id) {
            return self.discard(id);
        }
        self.leaving.groups.entry(id).or_insert(false);
        Ok(())
    }

    /// Asks whether the rows are old, if that is to be known.
    pub(super) fn tick_leaving(&mut self) -> Result<(), Fault> {
        let groups = &mut self.leaving.groups;
        // One barrier at a time: those that it does not speak for wait for the next.
        if groups.is_empty() || groups.values().any(|is_asked| *is_asked) {
            return Ok(());
        }
        groups.values_mut().for_each(|is_asked| *is_asked = true);
        let deadline = self.now.after(self.options.request_ticks_max);
        self.begin_barrier(GroupId::META, Position::default(), deadline, Then::Leaving, None)
    }

    /// The rows are as they were when it was asked, or newer.
    pub(super) fn leaves(&mut self) -> Result<(), Fault> {
        let asked: Vec<GroupId> =
            self.leaving.groups.extract_if(.., |_, asked| *asked).map(|(id, _)| id).collect();
        for id in asked {
            self.discard(id)?;
            self.note_slots(id.keyspace);
            self.note_whole(id.keyspace)?;
        }
        Ok(())
    }

    /// Nobody knows whether they are.
    pub(super) fn stays_for_now(&mut self) {
        self.leaving.groups.values_mut().for_each(|is_asked| *is_asked = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::keyspaces::tests::host;
    use quorate_storage::memory::MemoryEngine;
    use quorate_types::{Encode, KeyValue, KeyspaceId, NodeId, PartitionId, Place, Revision};

    const GROUP: GroupId = GroupId { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(1) };

    /// A row is applied that says where the group is, and is to be; this is node 1.
    fn row(host: &mut Host<MemoryEngine>, voters: &[u64], target: Option<&[u64]>) {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        let place = Place { target: target.map(ids), ..Place::new(ids(voters)) };
        let (key, value) = (Place::row_key(GROUP), place.encoded());
        let modified = Revision(3);
        let row = KeyValue { key, value, create: modified, modified, version: 1, lease: None };
        assert!(host.take_roster_row(&row).unwrap());
        host.follow_roster().unwrap();
    }

    fn answers(host: &Host<MemoryEngine>) -> bool {
        !host.leaving.contains(GROUP) && host.groups.contains_key(&GROUP)
    }

    #[test]
    fn a_replica_is_not_thrown_away_for_a_row_that_was_followed_by_another() {
        let mut host = host(&MemoryEngine::default());
        row(&mut host, &[2, 3], None);
        assert!(host.groups.contains_key(&GROUP) && !answers(&host));
        host.tick_leaving().unwrap();
        row(&mut host, &[2, 3], Some(&[1, 3]));
        assert!(answers(&host));
        host.leaves().unwrap();
        assert!(answers(&host));
    }

    #[test]
    fn a_replica_goes_when_a_barrier_that_began_after_the_row_has_passed() {
        let mut host = host(&MemoryEngine::default());
        row(&mut host, &[2, 3], None);
        // One that began before says nothing, and one that failed neither.
        host.leaves().unwrap();
        assert!(host.groups.contains_key(&GROUP));
        host.tick_leaving().unwrap();
        host.stays_for_now();
        host.leaves().unwrap();
        assert!(host.groups.contains_key(&GROUP));
        host.tick_leaving().unwrap();
        // The group may be on its way elsewhere again.
        row(&mut host, &[2, 3], Some(&[2, 4]));
        host.leaves().unwrap();
        assert!(!host.groups.contains_key(&GROUP));
    }
}
