//! Who has all of a keyspace: watches are served by a node that has, because they see whole revisions, of all partitions.

use super::Host;
use crate::group::Group;
use quorate_mvcc::engine::Engine;
use quorate_types::{GroupId, KeyspaceId, NodeId};
use std::collections::BTreeSet;

/// Where all of a keyspace is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Here.
    pub is_here: bool,
    /// The other members that have all of it and are heard. Rising.
    pub others: Vec<NodeId>,
}

impl<E: Engine> Host<E> {
    /// Where all of a keyspace is; `None` while this node does not know what it consists of.
    ///
    /// A node that comes to have all of it has to be told first how far that is (`was_here` is false): who begins at a revision of long ago would
    /// be told of what happened since, or that it is forgotten. Where nobody else could be asked it counts all the same.
    pub fn holding(&self, id: KeyspaceId, was_here: bool) -> Option<Holding> {
        let own = self.options.id;
        let groups: Vec<GroupId> = self.mapped_groups(id).collect();
        if groups.is_empty() {
            return None;
        }
        let mut holders: Option<BTreeSet<NodeId>> = None;
        for place in groups.iter().filter_map(|group| self.place_of(*group)) {
            let voters: BTreeSet<NodeId> = place.voters.iter().copied().collect();
            holders = Some(match holders {
                None => voters,
                Some(holders) => &holders & &voters,
            });
        }
        // Rows that are on their way leave everything where it is.
        let is_placed = holders.as_ref().is_none_or(|holders| holders.contains(&own));
        let has_all = is_placed && groups.iter().all(|group| self.groups.contains_key(group));
        let others = holders.unwrap_or_default().into_iter();
        let others: Vec<NodeId> = others.filter(|node| *node != own && !self.is_down(*node)).collect();
        let is_ready = |group: &GroupId| self.groups.get(group).and_then(Group::partition).is_some();
        let is_current = || groups.iter().all(is_ready) && self.is_told_of_all(id);
        let is_here = has_all && (was_here || others.is_empty() || is_current());
        Some(Holding { is_here, others })
    }

    /// Whether a group of which this node has no replica has a leader, for all that is known here: most of its
    /// voters are heard.
    pub fn is_led_afar(&self, id: GroupId) -> bool {
        let is_heard = |voter: &&NodeId| !self.is_down(**voter);
        !self.groups.contains_key(&id)
            && self
                .place_of(id)
                .is_some_and(|place| 2 * place.voters.iter().filter(is_heard).count() > place.voters.len())
    }

    fn mapped_groups(&self, id: KeyspaceId) -> impl Iterator<Item = GroupId> + '_ {
        let partitions = self.maps.get(&id).into_iter().flat_map(|map| &map.partitions);
        partitions.map(move |partition| GroupId { keyspace: id, partition: partition.id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::keyspaces::tests::host;
    use quorate_storage::memory::MemoryEngine;
    use quorate_types::{PartitionId, Place};

    const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

    fn group(partition: u32) -> GroupId {
        GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
    }

    #[test]
    fn a_keyspace_is_where_all_of_its_partitions_are() {
        let mut host = host(&MemoryEngine::default());
        assert_eq!(host.holding(KeyspaceId(7), true), None);
        let nodes = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
        let mut look = |first: &[u64], second: &[u64], was_here| {
            host.roster.places.insert(group(0), Place::new(nodes(first)));
            host.roster.places.insert(group(1), Place::new(nodes(second)));
            host.holding(KEYSPACE, was_here).map(|holding| (holding.is_here, holding.others))
        };
        // How far it is here is not known yet: whoever knows is asked, if there is anybody.
        assert_eq!(look(&[1], &[1], false), Some((true, vec![])));
        assert_eq!(look(&[1, 2, 3], &[1, 2, 4], false), Some((false, nodes(&[2]))));
        assert_eq!(look(&[1, 2, 3], &[1, 2, 4], true), Some((true, nodes(&[2]))));
        // Given away, in part or all of it.
        assert_eq!(look(&[1, 2, 3], &[2, 3, 4], true), Some((false, nodes(&[2, 3]))));
        assert_eq!(look(&[2, 3], &[3, 2], true), Some((false, nodes(&[2, 3]))));
        assert_eq!(look(&[1, 2], &[3, 4], true), Some((false, vec![])));
        // One that is silent is not asked.
        host.liveness.down.insert(NodeId(2));
        assert_eq!(host.holding(KEYSPACE, true), Some(Holding { is_here: false, others: vec![] }));
        host.roster.places.insert(group(0), Place::new(nodes(&[2, 3, 4])));
        host.roster.places.insert(group(1), Place::new(nodes(&[2, 3, 4])));
        assert_eq!(host.holding(KEYSPACE, true).map(|holding| holding.others), Some(nodes(&[3, 4])));
    }
}
