//! How things stand on this node, for `status`, `partitions`, metrics and health.

use quorate_node::{GroupStatus, HeldBack};
use quorate_types::{GroupId, KeyspaceId, KeyspaceMap, NodeId, Term};
use std::collections::{BTreeMap, BTreeSet};

/// What this node knows of the keyspaces, and how its replicas are.
#[derive(Debug)]
pub struct Standing {
    /// The keyspaces and their partitions, the system's first.
    pub maps: Vec<KeyspaceMap>,
    /// The groups that are here.
    pub groups: Vec<GroupStatus>,
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
    /// Who leads its partition; of several, who leads the group that gives them their revisions. `None` while that or any partition's leader
    /// is unknown here.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: Term,
    /// Entries committed, of all partitions together.
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

    /// A keyspace in short; `None` while none of it is here.
    pub fn summary(&self, keyspace: KeyspaceId) -> Option<Summary> {
        let is_sequenced = self.of(keyspace).nth(1).is_some();
        let first = if is_sequenced { self.group(GroupId::META) } else { self.of(keyspace).next() }?;
        let is_led = self.of(keyspace).all(|status| status.consensus.leader.is_some());
        Some(Summary {
            leader: first.consensus.leader.filter(|_| is_led),
            term: first.consensus.term,
            committed: self.of(keyspace).map(|status| status.consensus.commit.0).sum(),
            applied: self.of(keyspace).map(|status| status.consensus.applied.0).sum(),
            is_serving: first.is_serving,
            leases: self.of(keyspace).map(|status| status.leases).sum(),
        })
    }
}
