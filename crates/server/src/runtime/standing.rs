//! How things stand on this node, for `status`, `partitions`, metrics and health.

use quorate_node::recovery::Survivor;
use quorate_node::{GroupStatus, HeldBack};
use quorate_types::{GroupId, KeyspaceId, KeyspaceMap, Member, NodeId, Term};
use std::collections::{BTreeMap, BTreeSet};

/// What is left of each group on this node.
#[derive(Debug)]
pub struct Survivors {
    /// With the keyspaces' names.
    pub groups: Vec<(String, GroupId, Survivor)>,
    /// Whom the members are, for names.
    pub members: Vec<Member>,
}

/// What this node knows of the keyspaces, and how its replicas are.
#[derive(Debug)]
pub struct Standing {
    /// The keyspaces and their partitions, the system's first.
    pub maps: Vec<KeyspaceMap>,
    /// The groups that are here.
    pub groups: Vec<GroupStatus>,
    /// Groups that are elsewhere and have a leader for all that is known here, and who that is if it is known.
    pub led_afar: BTreeMap<GroupId, Option<NodeId>>,
    /// The space that keyspaces with a quota take on this node.
    pub used_bytes: BTreeMap<KeyspaceId, u64>,
    /// Members that this node has not heard for an election timeout.
    pub unheard: BTreeSet<NodeId>,
    /// The partition that holds back a keyspace's readers and watches on this node, where one does.
    pub held_back: BTreeMap<KeyspaceId, HeldBack>,
}

/// A keyspace as if it were one group, which is what etcd's API can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whether all the groups that it needs have leaders.
    pub is_led: bool,
    /// Who leads its partition; of several, who leads the group that gives them their revisions. `None` while that or any partition's leader
    /// is unknown here.
    pub leader: Option<NodeId>,
    /// In which term, if that group is here.
    pub term: Term,
    /// Entries committed, of all partitions here together; 0 where there is none.
    pub committed: u64,
    /// Entries applied, likewise.
    pub applied: u64,
    /// Whether this node is that leader, and serves.
    pub is_serving: bool,
    /// Live leases kept by leaders here.
    pub leases: usize,
}

impl Standing {
    /// The groups of a keyspace that are here.
    pub fn of(&self, keyspace: KeyspaceId) -> impl Iterator<Item = &GroupStatus> {
        self.groups.iter().filter(move |status| status.group.keyspace == keyspace)
    }

    /// One group.
    pub fn group(&self, id: GroupId) -> Option<&GroupStatus> {
        self.groups.iter().find(|status| status.group == id)
    }

    /// The space that a keyspace may take, if it has a limit of its own.
    pub fn quota_bytes(&self, keyspace: KeyspaceId) -> Option<u64> {
        self.maps.iter().find(|map| map.id == keyspace)?.quota_bytes
    }

    /// Whether a keyspace has used up its quota, as far as this node has counted.
    pub fn is_full(&self, keyspace: KeyspaceId) -> bool {
        let used = self.used_bytes.get(&keyspace);
        used.zip(self.quota_bytes(keyspace)).is_some_and(|(used, quota)| *used >= quota)
    }

    /// A keyspace in short; `None` while it is not known here what it consists of.
    pub fn summary(&self, keyspace: KeyspaceId) -> Option<Summary> {
        let map = self.maps.iter().find(|map| map.id == keyspace)?;
        let groups = map.partitions.iter().map(|partition| GroupId { keyspace, partition: partition.id });
        let groups: Vec<GroupId> = groups.collect();
        let first = if groups.len() > 1 { GroupId::META } else { *groups.first()? };
        let is_led = groups.iter().chain([&first]).all(|group| self.is_led(*group));
        let here = self.group(first);
        let leader = here
            .map_or_else(|| self.led_afar.get(&first).copied().flatten(), |status| status.consensus.leader);
        Some(Summary {
            is_led,
            leader: leader.filter(|_| is_led),
            term: here.map_or(Term(0), |status| status.consensus.term),
            committed: self.of(keyspace).map(|status| status.consensus.commit.0).sum(),
            applied: self.of(keyspace).map(|status| status.consensus.applied.0).sum(),
            is_serving: here.is_some_and(|status| status.is_serving),
            leases: self.of(keyspace).map(|status| status.leases).sum(),
        })
    }

    fn is_led(&self, group: GroupId) -> bool {
        self.group(group)
            .map_or_else(|| self.led_afar.contains_key(&group), |status| status.consensus.leader.is_some())
    }
}
