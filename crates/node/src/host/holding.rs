//! Who has what of a keyspace, for watches: they see whole revisions, of all partitions.
//!
//! Where a node has all of it, watches are served by such a node. Where none has, they are put together from the nodes that
//! *hold* its slots: a node holds a slot when everything up to the revision that is settled there is in its store. It comes to hold those of a
//! partition when what it has applied of that is as far as the sequencer's node says is needed for what is settled; and holds them for
//! as long as the partition's replica has its state: what is settled later has been applied by then. What is split off is held as what it was split off.

use super::Host;
use crate::effects::Applied;
use crate::group::Group;
use quorate_mvcc::engine::Engine;
use quorate_types::{Fault, GroupId, KeyspaceId, NodeId, PartitionId, SlotSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where a keyspace is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// All of it is here.
    pub is_here: bool,
    /// The other members that have all of it and are heard. Rising.
    pub others: Vec<NodeId>,
    /// The slots that are held here,
    pub held: Arc<SlotSet>,
    /// and what other members that are heard hold, by the rows. Only where nobody has all of it.
    pub parts: BTreeMap<NodeId, Arc<SlotSet>>,
}

/// What a node holds of a keyspace.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Partitions that have applied everything that is settled.
    told: BTreeSet<PartitionId>,
    slots: Arc<SlotSet>,
    /// A replica here has its state and is none of those yet.
    has_untold: bool,
}

impl Holds {
    pub(super) fn slots(&self) -> Arc<SlotSet> {
        Arc::clone(&self.slots)
    }

    pub(super) fn has_untold(&self) -> bool {
        self.has_untold
    }
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
        let is_heard = |node: &NodeId| *node != own && !self.is_down(*node);
        let others: Vec<NodeId> = holders.unwrap_or_default().into_iter().filter(is_heard).collect();
        let is_ready = |group: &GroupId| self.groups.get(group).and_then(Group::partition).is_some();
        let is_current = || groups.iter().all(is_ready) && self.is_told_of_all(id);
        let is_here = has_all && (was_here || others.is_empty() || is_current());
        let mut parts = BTreeMap::new();
        if !is_here && others.is_empty() {
            let mut ranges: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
            for (place, group) in groups.iter().filter_map(|group| Some((self.place_of(*group)?, group))) {
                let slots =
                    self.maps.get(&id).and_then(|map| map.partition(group.partition)).map(|of| &of.slots);
                for voter in place.voters.iter().filter(|voter| is_heard(voter)) {
                    ranges.entry(*voter).or_default().extend(slots.into_iter().flat_map(SlotSet::ranges));
                }
            }
            let of_node = |(node, ranges)| (node, Arc::new(SlotSet::from_ranges(ranges)));
            parts = ranges.into_iter().map(of_node).collect();
        }
        let held = self.keyspaces.get(&id).map(|keyspace| keyspace.holds.slots()).unwrap_or_default();
        Some(Holding { is_here, others, held, parts })
    }

    /// Another number whenever what is held of any keyspace has changed.
    pub fn held_version(&self) -> u64 {
        self.held_version
    }

    /// Everything up to what is settled is here of these partitions.
    pub(super) fn note_told(&mut self, id: KeyspaceId, told: &[PartitionId]) -> Result<(), Fault> {
        let keyspace = self.keyspace(id)?;
        let before = keyspace.holds.told.len();
        keyspace.holds.told.extend(told);
        if keyspace.holds.told.len() > before { self.note_held(id) } else { Ok(()) }
    }

    /// Of what is split off as much is here as of what it was split off.
    pub(super) fn told_by_split(&mut self, parent: GroupId, child: GroupId) -> Result<(), Fault> {
        let holds = &mut self.keyspace(parent.keyspace)?.holds;
        if holds.told.contains(&parent.partition) {
            holds.told.insert(child.partition);
        }
        self.note_held(parent.keyspace)
    }

    /// A partition's state is about to be replaced, or thrown away.
    pub(super) fn forget_told(&mut self, id: GroupId) -> Result<(), Fault> {
        if self.keyspace(id.keyspace)?.holds.told.remove(&id.partition) {
            self.note_held(id.keyspace)?;
        }
        Ok(())
    }

    /// Replicas have been opened, or have got their state.
    pub(super) fn note_ready(&mut self, id: KeyspaceId) -> Result<(), Fault> {
        // The only partition of a keyspace publishes what it applies.
        if !self.is_sequenced(id) {
            let ready: Vec<PartitionId> = self.ready(id).map(|(partition, _)| partition).collect();
            self.keyspace(id)?.holds.told.extend(ready);
        }
        self.note_held(id)
    }

    fn ready(&self, id: KeyspaceId) -> impl Iterator<Item = (PartitionId, &Arc<SlotSet>)> {
        let slots = |group: GroupId| Some((group.partition, self.groups.get(&group)?.partition()?.slots()));
        self.groups_of(id).filter_map(slots)
    }

    fn note_held(&mut self, id: KeyspaceId) -> Result<(), Fault> {
        let is_sequenced = self.is_sequenced(id);
        let mut holds = std::mem::take(&mut self.keyspace(id)?.holds);
        holds.told.retain(|partition| {
            let group = self.groups.get(&GroupId { keyspace: id, partition: *partition });
            group.is_some_and(|group| group.partition().is_some())
        });
        holds.has_untold = self.ready(id).any(|(partition, _)| !holds.told.contains(&partition));
        let told = self.ready(id).filter(|(partition, _)| holds.told.contains(partition));
        let held = SlotSet::from_ranges(told.flat_map(|(_, slots)| slots.ranges()));
        let is_whole = !is_sequenced || held.is_all();
        let is_loss = !holds.slots.subtract(&held).is_empty();
        if *holds.slots != held {
            holds.slots = Arc::new(held);
            self.held_version += 1;
            if is_loss {
                let held = Some(holds.slots());
                self.out.applied.push((id, Applied { is_in_part: true, held, ..Applied::default() }));
            }
        }
        let keyspace = self.keyspace(id)?;
        keyspace.publication.hold(holds.slots());
        keyspace.holds = holds;
        self.set_whole(id, is_whole)
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
        assert_eq!(
            host.holding(KEYSPACE, true).map(|holding| (holding.is_here, holding.others)),
            Some((false, vec![]))
        );
        host.roster.places.insert(group(0), Place::new(nodes(&[2, 3, 4])));
        host.roster.places.insert(group(1), Place::new(nodes(&[2, 3, 4])));
        assert_eq!(host.holding(KEYSPACE, true).map(|holding| holding.others), Some(nodes(&[3, 4])));
    }
}
