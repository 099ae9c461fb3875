//! Who shall hold and lead which group in a cluster of more members than replicas: a pure function of members and places.
//!
//! Partitions are dealt over all members by `quorate_placement`: zones and weights kept, balanced, and moved as little as that allows; leaders
//! likewise, so each row names who shall lead. Without more members than replicas everything is on the same members, and leaders gather
//! (`placing.rs`). The meta group's voters are its own affair: few, and in different zones.
//!
//! Caveat: more groups than one plan can take are planned in parts, each balanced by itself.

use crate::placing;
use quorate_placement::{Assignment, Node, PARTITIONS_MAX, Standing as Placing};
use quorate_types::member::Standing;
use quorate_types::{GroupId, Member, NodeId, Place};
use std::collections::{BTreeMap, BTreeSet};

/// So many members vote in the meta group when there are as many, else as many as hold a partition.
const META_VOTERS: usize = 5;

/// What a row is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Whose row.
    pub group: GroupId,
    /// Who shall vote, rising.
    pub voters: Vec<NodeId>,
    /// Who shall lead.
    pub leader: Option<NodeId>,
}

/// The rows that are to say something else than they do; for the rest see [`placing::wanted`].
pub fn wishes(
    members: &[Member],
    unheard: &BTreeSet<NodeId>,
    places: &BTreeMap<GroupId, Place>,
    replicas: usize,
    leader: NodeId,
) -> Vec<Wish> {
    let active = members.iter().filter(|member| member.standing == Standing::Active).count();
    if active <= replicas {
        return together(members, unheard, places, replicas, leader);
    }
    let mut wishes = Vec::new();
    let only_meta: BTreeMap<GroupId, Place> =
        places.get(&GroupId::META).map(|place| (GroupId::META, place.clone())).into_iter().collect();
    let voters = if active >= META_VOTERS { META_VOTERS.max(replicas) } else { replicas };
    for (group, voters) in placing::wanted(members, unheard, &only_meta, voters, leader) {
        wishes.push(Wish { group, voters, leader: None });
    }
    let groups: Vec<(&GroupId, &Place)> = places.iter().filter(|(id, _)| **id != GroupId::META).collect();
    for part in groups.chunks(PARTITIONS_MAX) {
        wishes.extend(dealt(members, unheard, part, replicas));
    }
    wishes
}

/// Everything on the same members, and nobody named to lead.
fn together(
    members: &[Member],
    unheard: &BTreeSet<NodeId>,
    places: &BTreeMap<GroupId, Place>,
    replicas: usize,
    leader: NodeId,
) -> Vec<Wish> {
    let mut wanted: BTreeMap<GroupId, Vec<NodeId>> =
        placing::wanted(members, unheard, places, replicas, leader).into_iter().collect();
    let mut wishes = Vec::new();
    for (group, place) in places {
        let voters = wanted.remove(group).unwrap_or_else(|| target(place).to_vec());
        if voters != target(place) || place.leader.is_some() {
            wishes.push(Wish { group: *group, voters, leader: None });
        }
    }
    wishes
}

fn target(place: &Place) -> &[NodeId] {
    place.target.as_ref().unwrap_or(&place.voters)
}

fn dealt(
    members: &[Member],
    unheard: &BTreeSet<NodeId>,
    groups: &[(&GroupId, &Place)],
    replicas: usize,
) -> Vec<Wish> {
    let members: Vec<quorate_placement::Member> = members.iter().map(placed).collect();
    let row = |(_, place): &(&GroupId, &Place)| Assignment {
        replicas: target(place).to_vec(),
        leader: place.leader.filter(|leader| target(place).contains(leader)),
    };
    let old: Vec<Assignment> = groups.iter().map(row).collect();
    // Refused is only what the rows do not let be: bad weights, too many members.
    let Ok(plan) = quorate_placement::plan(&members, groups.len(), replicas, &old) else { return Vec::new() };
    let mut wishes = Vec::new();
    for ((group, place), row) in groups.iter().zip(plan.table) {
        let mut voters = row.replicas;
        voters.sort_unstable();
        let is_awaited = voters.iter().any(|id| unheard.contains(id) && !target(place).contains(id));
        // An even number is no better than one less, while somebody is missing anyway.
        let is_same = voters == target(place) && row.leader == place.leader;
        if !is_awaited && !is_same && !voters.is_empty() {
            wishes.push(Wish { group: **group, voters, leader: row.leader });
        }
    }
    wishes
}

/// A member as placement sees it.
fn placed(member: &Member) -> quorate_placement::Member {
    let mut node = Node::new(member.id).with_weight(member.weight.max(1));
    if !member.zone.is_empty() {
        node = node.in_zone(member.zone.clone());
    }
    let standing = match member.standing {
        Standing::Active => Placing::Active,
        Standing::Draining | Standing::Leaving => Placing::Draining,
        Standing::Lost => Placing::Gone,
    };
    quorate_placement::Member { node, standing }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{KeyspaceId, PartitionId};

    fn members(count: u64) -> Vec<Member> {
        (1..=count).map(|id| Member::new(NodeId(id), id.to_string(), "")).collect()
    }

    fn group(partition: u32) -> GroupId {
        GroupId { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(partition) }
    }

    /// A cluster of three that holds everything.
    fn begun(partitions: u32) -> BTreeMap<GroupId, Place> {
        let place = || Place::new([1, 2, 3].map(NodeId).into());
        let mut places: BTreeMap<GroupId, Place> = (0..partitions).map(|at| (group(at), place())).collect();
        places.insert(GroupId::META, place());
        places
    }

    /// The rows as they will be.
    fn carry_out(places: &mut BTreeMap<GroupId, Place>, wishes: &[Wish]) {
        for wish in wishes {
            let place = places.get_mut(&wish.group).unwrap();
            (place.voters, place.leader) = (wish.voters.clone(), wish.leader);
        }
    }

    fn held(places: &BTreeMap<GroupId, Place>, node: u64) -> usize {
        let partitions = places.iter().filter(|(id, _)| **id != GroupId::META);
        partitions.filter(|(_, place)| place.voters.contains(&NodeId(node))).count()
    }

    fn led(places: &BTreeMap<GroupId, Place>, node: u64) -> usize {
        places.values().filter(|place| place.leader == Some(NodeId(node))).count()
    }

    #[test]
    fn three_members_hold_everything_and_a_fourth_gets_its_share_and_no_more_moves() {
        let none = BTreeSet::new();
        let mut places = begun(32);
        assert_eq!(wishes(&members(3), &none, &places, 3, NodeId(1)), []);
        let change = wishes(&members(4), &none, &places, 3, NodeId(1));
        let coming = change.iter().filter(|wish| wish.voters.contains(&NodeId(4))).count();
        assert_eq!(coming, 24, "three quarters of 32, which is the least");
        carry_out(&mut places, &change);
        for node in 1..=4 {
            assert_eq!((held(&places, node), led(&places, node)), (24, 8));
        }
        assert_eq!(wishes(&members(4), &none, &places, 3, NodeId(1)), [], "it is done");
    }

    #[test]
    fn what_a_lost_member_had_goes_to_the_others_and_five_vote_in_the_meta_group() {
        let none = BTreeSet::new();
        let mut places = begun(32);
        carry_out(&mut places, &wishes(&members(5), &none, &begun(32), 3, NodeId(1)));
        assert_eq!(places[&GroupId::META].voters.len(), 5);
        let mut left = members(5);
        left[1].standing = Standing::Lost;
        let change = wishes(&left, &none, &places, 3, NodeId(1));
        let had = held(&places, 2);
        carry_out(&mut places, &change);
        let count = |places: &BTreeMap<GroupId, Place>| [1, 3, 4, 5].map(|node| held(places, node));
        assert_eq!((held(&places, 2), count(&places)), (0, [24; 4]), "{had} replicas were replaced");
        assert_eq!(led(&places, 2), 0);
        assert!(!places[&GroupId::META].voters.contains(&NodeId(2)));
    }

    #[test]
    fn nothing_new_is_given_to_a_silent_member() {
        let silent = BTreeSet::from([NodeId(4)]);
        let change = wishes(&members(4), &silent, &begun(8), 3, NodeId(1));
        assert!(change.iter().all(|wish| !wish.voters.contains(&NodeId(4))), "{change:?}");
    }

    /// It would never get there, and could go nowhere else.
    #[test]
    fn a_group_does_not_wait_for_a_lost_member_that_it_was_to_be_on() {
        let none = BTreeSet::new();
        let mut places = begun(2);
        let meta: Vec<NodeId> = [1, 4, 5].map(NodeId).into();
        places.insert(GroupId::META, Place::new(meta.clone()));
        let place = places.get_mut(&group(0)).unwrap();
        (place.voters, place.target) = ([1, 2, 5].map(NodeId).into(), Some(meta));
        let mut left = members(5);
        (left[1].standing, left[2].standing) = (Standing::Draining, Standing::Draining);
        left[3].standing = Standing::Lost;
        let wish =
            |partition| Wish { group: group(partition), voters: [1, 2, 5].map(NodeId).into(), leader: None };
        assert_eq!(wishes(&left, &none, &places, 3, NodeId(1)), [wish(0), wish(1)]);
    }

    #[test]
    fn with_no_more_members_than_replicas_leaders_gather_again() {
        let none = BTreeSet::new();
        let mut places = begun(8);
        carry_out(&mut places, &wishes(&members(4), &none, &begun(8), 3, NodeId(1)));
        let mut left = members(4);
        left[3].standing = Standing::Lost;
        let change = wishes(&left, &none, &places, 3, NodeId(1));
        carry_out(&mut places, &change);
        let all: Vec<NodeId> = [1, 2, 3].map(NodeId).into();
        assert!(places.values().all(|place| place.voters == all && place.leader.is_none()));
    }
}
