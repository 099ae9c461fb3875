//! Key → directory → slot → partition.

use quorate_types::{GroupId, KeyspaceId, PartitionId, Rejection, Request, Slot};
use std::collections::BTreeMap;

/// The table of partitions. Stands before every request, also when there is only one partition and
/// it is on this node, so that nothing above it changes when there are many.
#[derive(Clone, Debug)]
pub struct Router {
    /// For each keyspace, the partition that owns the slots from this one up to the next entry's.
    keyspaces: BTreeMap<KeyspaceId, BTreeMap<Slot, PartitionId>>,
}

impl Router {
    /// The table of a new cluster: the system keyspace and the default one, a partition each.
    pub fn single() -> Self {
        let whole = |partition| BTreeMap::from([(Slot(0), partition)]);
        Self {
            keyspaces: BTreeMap::from([
                (KeyspaceId::SYSTEM, whole(GroupId::META.partition)),
                (KeyspaceId::DEFAULT, whole(GroupId::FIRST.partition)),
            ]),
        }
    }

    /// The group that `request` belongs to.
    pub fn route(&self, keyspace: KeyspaceId, request: &Request) -> Result<GroupId, Rejection> {
        let slots = self.keyspaces.get(&keyspace).ok_or(Rejection::KeyspaceNotFound)?;
        let slot = match (slots.len(), request) {
            (1, _) => Slot(0),
            (_, Request::Put(put)) => Slot::of(&put.key),
            (_, Request::Range(range)) => Slot::of(range.range.start()),
            (_, Request::DeleteRange(delete)) => Slot::of(delete.range.start()),
            _ => Slot(0),
        };
        self.owner(keyspace, slot)
    }

    /// The groups of a keyspace; a read barrier over it asks each of them.
    pub fn groups(&self, keyspace: KeyspaceId) -> Result<GroupId, Rejection> {
        self.owner(keyspace, Slot(0))
    }

    fn owner(&self, keyspace: KeyspaceId, slot: Slot) -> Result<GroupId, Rejection> {
        let slots = self.keyspaces.get(&keyspace).ok_or(Rejection::KeyspaceNotFound)?;
        let (_, partition) = slots.range(..=slot).next_back().ok_or(Rejection::KeyspaceNotFound)?;
        Ok(GroupId { keyspace, partition: *partition })
    }
}
