//! Who shall hold which group: a pure function of members and places.
//!
//! All groups, the meta group among them, are on the same members, because the leaders of a keyspace's partitions gather on the sequencer's
//! node. These are the meta group's voters of now, with as little change as possible: who shall hold nothing (it drains, leaves or is lost) is replaced
//! by an active member that is heard, preferably of a zone that has none yet; as long as there is none it is kept, because a voter that may come back
//! is better than none. Only who was told to leave goes all the same, unless nobody else is there. There are as many as is asked for, or fewer: a group grows to an odd number only, as one voter more than that brings
//! nothing.

use quorate_types::member::Standing;
use quorate_types::{GroupId, Member, NodeId, Place};
use std::collections::{BTreeMap, BTreeSet};

/// The groups whose rows want another target, and which. `unheard` are members that are silent just now: nothing new is given to them. `leader` leads the
/// meta group, and stays if that shrinks: nothing can be written while another takes over.
pub fn wanted(
    members: &[Member],
    unheard: &BTreeSet<NodeId>,
    places: &BTreeMap<GroupId, Place>,
    replicas: usize,
    leader: NodeId,
) -> Vec<(GroupId, Vec<NodeId>)> {
    let Some(meta) = places.get(&GroupId::META) else { return Vec::new() };
    let holders = holders(members, unheard, (meta, leader), replicas.max(1));
    let wanted = places.iter().map(|(id, place)| (id, place, able(&holders, members, place)));
    let elsewhere = wanted.filter(|(_, place, able)| place.target.as_ref().unwrap_or(&place.voters) != able);
    elsewhere.map(|(id, _, able)| (*id, able)).collect()
}

/// Of those that shall hold everything, whom a group can be moved to. The meta group keeps a lost voter while there is no other; a group that never was
/// on it would wait for it in vain, and keeps instead whom it has, but for those that were told to leave.
fn able(holders: &[NodeId], members: &[Member], place: &Place) -> Vec<NodeId> {
    let is =
        |id: &NodeId, standing| members.iter().any(|member| member.id == *id && member.standing == standing);
    let mut able: Vec<NodeId> =
        holders.iter().copied().filter(|id| place.voters.contains(id) || is(id, Standing::Active)).collect();
    let kept = place.voters.iter().filter(|id| !holders.contains(id) && !is(id, Standing::Leaving));
    able.extend(kept.take(holders.len() - able.len()));
    able.sort_unstable();
    if able.is_empty() { place.voters.clone() } else { able }
}

/// The members that shall hold everything, rising.
fn holders(
    members: &[Member],
    unheard: &BTreeSet<NodeId>,
    (meta, leader): (&Place, NodeId),
    replicas: usize,
) -> Vec<NodeId> {
    let by_id: BTreeMap<NodeId, &Member> = members.iter().map(|member| (member.id, member)).collect();
    let is_active = |id: &NodeId| by_id.get(id).is_some_and(|member| member.standing == Standing::Active);
    let (mut holders, mut leavers): (Vec<NodeId>, Vec<NodeId>) =
        meta.voters.iter().partition(|id| is_active(id));
    let leaves = |id: &NodeId| by_id.get(id).is_none_or(|member| member.standing == Standing::Leaving);
    if !holders.is_empty() {
        leavers.retain(|id| !leaves(id));
    }
    // A move under way is gone on with, unless who was to come cannot.
    let coming: Vec<NodeId> = meta.target.iter().flatten().copied().collect();
    let mut spares: Vec<&Member> = members
        .iter()
        .filter(|member| is_active(&member.id) && !unheard.contains(&member.id))
        .filter(|member| !holders.contains(&member.id))
        .collect();
    let most = odd(replicas, holders.len() + leavers.len(), holders.len() + spares.len());
    // Too many: those that are silent go first, then who goes anyway, and never who leads if another can.
    holders.sort_by_key(|id| (unheard.contains(id), !coming.contains(id), *id != leader, *id));
    holders.truncate(most);
    while holders.len() < most && !spares.is_empty() {
        let zones: BTreeSet<&str> =
            holders.iter().filter_map(|id| by_id.get(id)).map(|member| member.zone.as_str()).collect();
        let is_new_zone = |member: &Member| member.zone.is_empty() || !zones.contains(member.zone.as_str());
        let worth = |member: &Member| {
            let is_coming = coming.contains(&member.id);
            (is_coming, is_new_zone(member), member.weight, std::cmp::Reverse(member.id))
        };
        let best = (0..spares.len()).max_by_key(|at| worth(spares[*at]));
        let Some(best) = best else { break };
        holders.push(spares.swap_remove(best).id);
    }
    // Nobody is there to take their places.
    leavers.sort_by_key(|id| (unheard.contains(id), *id));
    leavers.truncate(most.saturating_sub(holders.len()));
    holders.extend(leavers);
    holders.sort_unstable();
    holders
}

/// How many voters there shall be: as many as are wanted; where there are fewer, those that there are now, or an odd number of those that
/// there could be.
fn odd(wanted: usize, now: usize, possible: usize) -> usize {
    let could = if possible >= wanted {
        wanted
    } else {
        possible - usize::from(possible.is_multiple_of(2) && possible > 0)
    };
    could.max(now.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Active, Draining, Leaving, Lost};

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn members(standings: &[Standing]) -> Vec<Member> {
        let member = |(id, standing): (u64, &Standing)| Member {
            standing: *standing,
            ..Member::new(NodeId(id), id.to_string(), "")
        };
        (1..).zip(standings).map(member).collect()
    }

    /// Who shall hold everything, when members of these standings are there and these vote, and three are wanted.
    #[track_caller]
    fn check(
        standings: &[Standing],
        unheard: &[u64],
        voters: &[u64],
        target: Option<&[u64]>,
        expected: &[u64],
    ) {
        let meta = Place { target: target.map(ids), ..Place::new(ids(voters)) };
        let unheard = ids(unheard).into_iter().collect();
        assert_eq!(holders(&members(standings), &unheard, (&meta, NodeId(4)), 3), ids(expected));
    }

    #[test]
    fn who_shall_hold_nothing_is_replaced_if_there_is_somebody() {
        let a = Active;
        check(&[a, a, a, a], &[], &[1, 2, 3], None, &[1, 2, 3]);
        check(&[a, a, a, a], &[3], &[1, 2, 3], None, &[1, 2, 3]);
        for standing in [Draining, Leaving, Lost] {
            check(&[a, a, standing, a], &[], &[1, 2, 3], None, &[1, 2, 4]);
            check(&[standing, a, a, a], &[], &[1, 2, 3], None, &[2, 3, 4]);
            let left: &[u64] = if standing == Leaving { &[1, 2] } else { &[1, 2, 3] };
            check(&[a, a, standing], &[], &[1, 2, 3], None, left);
            check(&[a, a, standing, a], &[4], &[1, 2, 3], None, left);
            check(&[a, a, standing, standing], &[], &[1, 2, 3], None, left);
            check(&[standing, standing, standing], &[], &[1, 2, 3], None, &[1, 2, 3]);
        }
        check(&[a, Draining, Lost, a], &[3], &[1, 2, 3], None, &[1, 2, 4]);
    }

    #[test]
    fn a_group_is_not_sent_to_a_lost_voter_of_the_meta_group() {
        let group = GroupId { keyspace: quorate_types::KeyspaceId::DEFAULT, ..GroupId::META };
        let check = |standing, target: Option<&[u64]>, expected: Option<&[u64]>| {
            let place = Place { target: target.map(ids), ..Place::new(ids(&[1, 2, 3])) };
            let places = BTreeMap::from([(GroupId::META, Place::new(ids(&[1, 2, 4]))), (group, place)]);
            let members = members(&[Active, Active, standing, Lost]);
            let found: BTreeMap<_, _> =
                wanted(&members, &BTreeSet::new(), &places, 3, NodeId(1)).into_iter().collect();
            assert_eq!(found.get(&group), expected.map(ids).as_ref(), "{standing:?} {target:?}");
        };
        check(Leaving, None, Some(&[1, 2]));
        check(Leaving, Some(&[1, 2, 4]), Some(&[1, 2]));
        check(Draining, None, None);
        check(Draining, Some(&[1, 2, 4]), Some(&[1, 2, 3]));
    }

    #[test]
    fn a_move_under_way_is_gone_on_with_unless_it_cannot() {
        let a = Active;
        check(&[a, a, Lost, a, a], &[], &[1, 2, 3], Some(&[1, 2, 5]), &[1, 2, 5]);
        check(&[a, a, Lost, a, Lost], &[], &[1, 2, 3], Some(&[1, 2, 5]), &[1, 2, 4]);
        check(&[a, a, a, a, a], &[], &[1, 2, 3], Some(&[1, 2, 5]), &[1, 2, 3]);
    }

    #[test]
    fn groups_grow_to_odd_numbers_and_shrink_to_what_is_wanted() {
        let a = Active;
        check(&[a, a], &[], &[1], None, &[1]);
        check(&[a, a, a], &[], &[1], None, &[1, 2, 3]);
        check(&[a, a], &[], &[1, 2], None, &[1, 2]);
        check(&[a; 5], &[1], &[1, 2, 3, 4, 5], None, &[2, 3, 4]);
        // The leader, 4, stays, but not against a move under way.
        check(&[a; 5], &[], &[1, 2, 3, 4, 5], None, &[1, 2, 4]);
        check(&[a; 5], &[], &[1, 2, 3, 4, 5], Some(&[1, 2, 3]), &[1, 2, 3]);
        check(&[a; 5], &[4], &[1, 2, 3, 4, 5], None, &[1, 2, 3]);
    }

    #[test]
    fn zones_without_a_voter_come_first_then_weight() {
        let mut members = members(&[Active, Active, Lost, Active, Active, Active]);
        for (at, zone) in ["a", "b", "c", "b", "c", "c"].into_iter().enumerate() {
            members[at].zone = zone.into();
        }
        members[5].weight = 2;
        let meta = Place::new(ids(&[1, 2, 3]));
        assert_eq!(holders(&members, &BTreeSet::new(), (&meta, NodeId(1)), 3), ids(&[1, 2, 6]));
    }

    #[test]
    fn rows_that_say_it_already_are_left_alone() {
        let group =
            |partition| GroupId { partition: quorate_types::PartitionId(partition), ..GroupId::FIRST };
        let place = |voters: &[u64], target: Option<&[u64]>| Place {
            target: target.map(ids),
            ..Place::new(ids(voters))
        };
        let places = BTreeMap::from([
            (GroupId::META, place(&[1, 2, 3], None)),
            (group(0), place(&[1, 2, 3], Some(&[1, 2, 4]))),
            (group(1), place(&[1, 2, 4], None)),
            (group(2), place(&[1, 2, 3], None)),
        ]);
        let plan = wanted(&members(&[Active, Active, Lost, Active]), &BTreeSet::new(), &places, 3, NodeId(1));
        assert_eq!(plan, [(GroupId::META, ids(&[1, 2, 4])), (group(2), ids(&[1, 2, 4]))]);
    }
}
