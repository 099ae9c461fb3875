//! Where the replicas of a group are, and where they shall be.
//!
//! One row of the system keyspace for each group, under [`Place::row_key`]. The group's own log is what counts
//! ([`crate::EntryKind::Config`]); the row says who may have to open the group, who may be asked for it, and what is to come. It is always behind or
//! ahead of the log in one direction only:
//!
//! * A node that is to become a member is in `target` before the group's leader names it in the log.
//! * A node that was one is in `voters` until an entry that leaves it out is committed, and what is joint of both has been left.
//!
//! A target that takes the place of another is different: those of the former may be voters in the log by then, and no row names them. So a node that
//! is in neither has no part in the group, and may throw its replica away, when there is *no target*; until then it keeps what it has.

use crate::codec::{Decode, Encode, Input, Malformed, Output};
use crate::{GroupId, Key, KeyspaceId, NodeId, PartitionId};
use std::collections::BTreeSet;

const ROWS: &str = "places/";

/// Where a group is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The voters that the group's log began with, for ever: a replica without any state begins with them. Rising.
    pub first: Vec<NodeId>,
    /// The voters when the last move was done. Rising.
    pub voters: Vec<NodeId>,
    /// Who shall vote: the group's leader moves it there, and then puts it in place of `voters`. Rising.
    pub target: Option<Vec<NodeId>>,
    /// Who shall lead, of those who vote; `None`: leaders gather where revisions come from.
    pub leader: Option<NodeId>,
    /// How often the group was gone on with after it had lost its quorum for good ([`crate::Term::lineage`]). A replica of an older lineage
    /// counts no more: the one in `voters` begins this one, others are thrown away.
    pub lineage: u64,
}

// A lineage is at the end of the row where there is one: nearly no row has, and earlier versions know those.
impl Encode for Place {
    fn encode(&self, out: &mut impl Output) {
        self.first.encode(out);
        self.voters.encode(out);
        self.target.encode(out);
        self.leader.encode(out);
        if self.lineage > 0 {
            self.lineage.encode(out);
        }
    }
}

impl Decode for Place {
    fn decode(input: &mut Input) -> Result<Self, Malformed> {
        let [first, voters] = [Decode::decode(input)?, Decode::decode(input)?];
        let (target, leader) = (Decode::decode(input)?, Decode::decode(input)?);
        let lineage = if input.is_empty() { 0 } else { Decode::decode(input)? };
        Ok(Self { first, voters, target, leader, lineage })
    }
}

impl Place {
    /// A new group's.
    pub fn new(mut voters: Vec<NodeId>) -> Self {
        voters.sort_unstable();
        voters.dedup();
        Self { first: voters.clone(), voters, target: None, leader: None, lineage: 0 }
    }

    /// Where the row of a group is stored in the system keyspace.
    pub fn row_key(id: GroupId) -> Key {
        Key::from(format!("{ROWS}{:08x}/{:08x}", id.keyspace.0, id.partition.0))
    }

    /// What all [`Place::row_key`]s begin with.
    pub fn rows() -> Key {
        Key::from_static(ROWS.as_bytes())
    }

    /// What those of one keyspace begin with.
    pub fn rows_of(keyspace: KeyspaceId) -> Key {
        Key::from(format!("{ROWS}{:08x}/", keyspace.0))
    }

    /// Whose row it is; `None` for a key that [`Place::row_key`] does not give.
    pub fn parse_row_key(key: &[u8]) -> Option<GroupId> {
        let text = std::str::from_utf8(key.strip_prefix(ROWS.as_bytes())?).ok()?;
        let (keyspace, partition) = text.split_once('/')?;
        let number = |digits| u32::from_str_radix(digits, 16).ok();
        let id =
            GroupId { keyspace: KeyspaceId(number(keyspace)?), partition: PartitionId(number(partition)?) };
        (Self::row_key(id) == key).then_some(id)
    }

    /// The group goes on with what this voter has of it, alone.
    pub fn recovered(&self, survivor: NodeId) -> Self {
        Self { lineage: self.lineage + 1, ..Self::new(vec![survivor]) }
    }

    /// Everybody who has or gets a replica.
    pub fn holders(&self) -> BTreeSet<NodeId> {
        self.voters.iter().chain(self.target.iter().flatten()).copied().collect()
    }

    /// Whether this node has or gets a replica.
    pub fn holds(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.target.as_ref().is_some_and(|target| target.contains(&node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_as_it_was_written_and_its_key_names_the_group() {
        let mut place = Place::new(vec![NodeId(3), NodeId(1), NodeId(2)]);
        assert_eq!(place.voters, [NodeId(1), NodeId(2), NodeId(3)]);
        place.target = Some(vec![NodeId(1), NodeId(2), NodeId(4)]);
        assert_eq!(Place::from_bytes(place.encoded()), Ok(place.clone()));
        let recovered = place.recovered(NodeId(2));
        assert_eq!((recovered.lineage, &*recovered.voters, &recovered.target), (1, &[NodeId(2)][..], &None));
        assert_eq!(Place::from_bytes(recovered.encoded()), Ok(recovered));
        assert_eq!(place.holders(), [1, 2, 3, 4].map(NodeId).into());
        assert!(place.holds(NodeId(3)) && place.holds(NodeId(4)) && !place.holds(NodeId(5)));
        assert_eq!(Place::parse_row_key(&Place::row_key(GroupId::FIRST)), Some(GroupId::FIRST));
        assert!(Place::row_key(GroupId::FIRST).starts_with(&Place::rows_of(KeyspaceId::DEFAULT)));
        assert_eq!(Place::parse_row_key(b"places/1/0"), None);
    }
}
