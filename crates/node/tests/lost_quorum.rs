//! Most replicas of a group are lost for good: an operator goes on with one, and the dead that come back begin anew.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, Outcome, count, get, put};
use quorate_node::Options;
use quorate_node::recovery::RecoverRefused;
use quorate_types::{GroupId, KeyspaceId, NodeId, PartitionId, Place, Rejection, Revision};
use std::collections::BTreeMap;

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
const PARTITIONS: u32 = 3;

fn group(partition: u32) -> GroupId {
    GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
}

fn groups() -> Vec<GroupId> {
    (0..PARTITIONS).map(group).collect()
}

fn together(options: &mut Options) {
    options.partitions = PARTITIONS;
}

fn key(number: u64) -> String {
    format!("/d{}/{number}", number % 13)
}

impl Cluster {
    fn recover(&mut self, at: usize, id: GroupId) -> Result<(), RecoverRefused> {
        let shown = self.host(at).survivor(id).map(|survivor| survivor.last);
        let outcome = self.host(at).recover(id, shown).unwrap();
        self.seconds(2);
        outcome
    }

    fn write(&mut self, via: usize, numbers: std::ops::Range<u64>) -> Revision {
        let mut last = Revision(0);
        for number in numbers {
            last = self.request(via, KEYSPACE, put(&key(number), 50)).unwrap().revision;
        }
        last
    }

    fn is_there(&mut self, via: usize, number: u64) -> bool {
        let outcome: Outcome = self.request(via, KEYSPACE, get(&key(number)));
        count(outcome) == 1
    }

    /// All of these have all groups that they shall have, equal.
    #[track_caller]
    fn assert_healed(&mut self, among: &[usize]) {
        self.seconds(20);
        let places: Vec<(GroupId, Place)> =
            self.host(among[0]).places().iter().map(|(id, place)| (*id, place.clone())).collect();
        for (id, place) in places {
            assert_eq!(place.target, None, "{id} is where it shall be");
            let holders: Vec<usize> = among
                .iter()
                .copied()
                .filter(|at| id == GroupId::META || place.voters.contains(&NodeId(*at as u64 + 1)))
                .collect();
            let digests: Vec<_> = holders
                .iter()
                .map(|at| {
                    let status = self.status(*at, id);
                    (status.digest, status.consensus.applied, status.consensus.term.lineage())
                })
                .collect();
            assert!(digests.iter().all(|digest| digest == &digests[0]), "{id} at {holders:?}: {digests:?}");
            assert!(digests[0].0.is_some(), "{id} is whole");
        }
    }
}

/// Two of three nodes burn. With the third everything goes on: first the cluster's own rows, then each partition. What was acknowledged
/// and reached the third is there; and no revision is given out twice.
#[test]
fn a_cluster_goes_on_with_one_of_three_nodes() {
    let mut cluster = Cluster::with(3, 3, together);
    let before = cluster.write(0, 0..40);
    cluster.crash(1);
    cluster.crash(2);
    cluster.seconds(4);
    assert_eq!(cluster.recover(0, group(0)), Err(RecoverRefused::MetaFirst));
    assert_eq!(cluster.recover(0, GroupId::META), Ok(()));
    let refused = cluster.recover(0, GroupId::META);
    assert_eq!(refused, Err(RecoverRefused::IsLed(NodeId(1))), "once is enough");
    for id in groups() {
        assert_eq!(cluster.recover(0, id), Ok(()));
        assert_eq!(cluster.status(0, id).consensus.term.lineage(), 1);
        assert_eq!(cluster.recover(0, id), Err(RecoverRefused::IsLed(NodeId(1))));
    }
    let after = cluster.write(0, 40..50);
    assert!(after.0 > before.0 + 1_000_000, "the survivor may have missed any number of revisions: {after}");
    assert!((0..50).all(|number| cluster.is_there(0, number)));

    // The dead come back, with all that they had: they are filled anew.
    cluster.start(1);
    cluster.start(2);
    cluster.seconds(10);
    cluster.write(1, 50..60);
    cluster.assert_healed(&[0, 1, 2]);
    assert!((0..60).all(|number| cluster.is_there(2, number)));
    // And count: with one of them and without the survivor.
    cluster.crash(0);
    cluster.seconds(4);
    cluster.write(1, 60..70);
}

/// What only the dead had is lost; and when they come back with it, it does not come back into what has gone on since.
#[test]
fn what_only_the_dead_had_does_not_come_back() {
    let mut cluster = Cluster::with(3, 5, together);
    cluster.write(0, 0..20);
    let lagging = 2;
    cluster.cut = vec![lagging];
    cluster.seconds(4);
    cluster.write(0, 20..40);
    // In the cluster's own rows, too.
    let lost = cluster.create("lost", 1, None).unwrap();
    cluster.cut.clear();
    cluster.crash(0);
    cluster.crash(1);
    cluster.seconds(4);
    cluster.recover(lagging, GroupId::META).unwrap();
    groups().into_iter().for_each(|id| cluster.recover(lagging, id).unwrap());
    assert!((0..20).all(|number| cluster.is_there(lagging, number)));
    assert!((20..40).all(|number| !cluster.is_there(lagging, number)), "nobody has that who is alive");
    cluster.write(lagging, 100..110);
    // They are a majority of what was, and elect nobody as long as the survivor is heard.
    cluster.start(0);
    cluster.start(1);
    cluster.assert_healed(&[0, 1, 2]);
    for at in 0..3 {
        assert!((0..20).chain(100..110).all(|number| cluster.is_there(at, number)));
        assert!((20..40).all(|number| !cluster.is_there(at, number)), "gone for good");
        assert!(cluster.host(at).maps().all(|map| map.id != lost), "as is the keyspace");
    }
}

#[test]
fn nothing_is_recovered_while_a_quorum_lives() {
    let mut cluster = Cluster::with(3, 7, together);
    cluster.write(0, 0..5);
    for id in groups().into_iter().chain([GroupId::META]) {
        let leader = cluster.status(1, id).consensus.leader.unwrap();
        assert_eq!(cluster.recover(1, id), Err(RecoverRefused::IsLed(leader)));
    }
    // A leader that has just died: two are left, who elect another.
    let leader = cluster.status(1, GroupId::META).consensus.leader.unwrap().0 as usize - 1;
    let other = (leader + 1) % 3;
    cluster.crash(leader);
    let refused = cluster.host(other).recover(GroupId::META, None).unwrap().unwrap_err();
    assert!(matches!(refused, RecoverRefused::HasQuorum(_) | RecoverRefused::IsLed(_)), "{refused:?}");
}

fn dealt(options: &mut Options) {
    options.partitions = 12;
    options.replicas = 3;
    options.spread_replicas = true;
    options.grace_ticks = 200;
}

/// The partitions that these two nodes have both.
fn shared(places: &BTreeMap<GroupId, Place>, nodes: [usize; 2]) -> Vec<GroupId> {
    let have = |place: &Place| nodes.iter().all(|at| place.voters.contains(&NodeId(*at as u64 + 1)));
    places.iter().filter(|(id, place)| **id != GroupId::META && have(place)).map(|(id, _)| *id).collect()
}

/// Five nodes, three replicas of each partition, and two nodes die at once: partitions that were on both have lost their quorum, the others serve
/// on. Each lost one goes on with its survivor; and when the two come back, they know it before they have a say.
#[test]
fn partitions_that_two_dead_nodes_shared_go_on_with_the_third_while_others_serve() {
    let mut cluster = Cluster::with(5, 11, dealt);
    cluster.seconds(30);
    let all: Vec<u64> = (0..200).collect();
    cluster.write(0, 0..200);
    let dead = [3usize, 4];
    let places = cluster.host(0).places().clone();
    let lost = shared(&places, dead);
    assert!(!lost.is_empty() && lost.len() < 12, "{places:?}");
    dead.into_iter().for_each(|at| cluster.crash(at));
    cluster.seconds(8);
    // Keys of partitions that live are served as ever.
    let mut stuck = Vec::new();
    for number in &all {
        let ticket = cluster.ask(0, KEYSPACE, put(&key(*number), 10));
        match cluster.answer(ticket) {
            Ok(_) => {}
            Err(Rejection::Timeout | Rejection::NoLeader | Rejection::Unavailable | Rejection::Unknown) => {
                stuck.push(*number);
            }
            Err(other) => panic!("{other:?}"),
        }
        if stuck.len() > 3 {
            break;
        }
    }
    assert!(!stuck.is_empty(), "some keys are in what is lost");
    for id in &lost {
        let survivor = (0..3).find(|at| places[id].voters.contains(&NodeId(*at as u64 + 1))).unwrap();
        assert_eq!(cluster.recover(survivor, *id), Ok(()), "{id}");
    }
    cluster.seconds(10);
    cluster.write(0, 200..260);
    assert!(all.iter().all(|number| cluster.is_there(1, *number)));
    dead.into_iter().for_each(|at| cluster.start(at));
    cluster.assert_healed(&[0, 1, 2, 3, 4]);
    cluster.write(3, 260..300);
    assert!((0..300).all(|number| cluster.is_there(4, number)));
}

/// The dead come back cut off from everybody but each other. In the partitions that went on without them they do not serve, because they do not
/// vote before they know where things are.
#[test]
fn the_dead_do_not_serve_what_went_on_without_them() {
    let mut cluster = Cluster::with(5, 13, dealt);
    cluster.seconds(30);
    cluster.write(0, 0..50);
    let dead = [3usize, 4];
    let places = cluster.host(0).places().clone();
    let lost = shared(&places, dead);
    dead.into_iter().for_each(|at| cluster.crash(at));
    cluster.seconds(8);
    for id in &lost {
        let survivor = (0..3).find(|at| places[id].voters.contains(&NodeId(*at as u64 + 1))).unwrap();
        cluster.recover(survivor, *id).unwrap();
    }
    let is_dead_at = move |at: usize| dead.contains(&at);
    cluster.lose(move |from, to, _| is_dead_at(from) != is_dead_at(to));
    dead.into_iter().for_each(|at| cluster.start(at));
    cluster.seconds(10);
    for at in dead {
        for id in &lost {
            let status = cluster.status(at, *id);
            assert!(!status.is_serving && status.consensus.leader.is_none(), "{id} at {at}");
        }
    }
    cluster.losing = None;
    cluster.assert_healed(&[0, 1, 2, 3, 4]);
}

/// The survivor with the longest log may be one that only learns: of the meta group, of which it has everything, where the voter that is left has not.
#[test]
fn a_learner_that_has_more_than_the_voter_that_is_left_goes_on() {
    let mut cluster = Cluster::with(3, 17, together);
    cluster.write(0, 0..20);
    let learner = cluster.join(0);
    cluster.seconds(5);
    let lagging = 2;
    cluster.cut = vec![lagging];
    cluster.seconds(4);
    let made = cluster.create("orders", 2, None).unwrap();
    cluster.cut.clear();
    cluster.crash(0);
    cluster.crash(1);
    cluster.seconds(4);
    let last = |cluster: &mut Cluster, at| cluster.host(at).survivor(GroupId::META).unwrap().last;
    assert!(last(&mut cluster, learner) > last(&mut cluster, lagging));
    assert_eq!(cluster.recover(learner, GroupId::META), Ok(()));
    let lost: Vec<GroupId> = groups();
    for id in lost {
        assert_eq!(cluster.recover(lagging, id), Ok(()), "{id}");
    }
    cluster.seconds(20);
    assert!((0..20).all(|number| cluster.is_there(lagging, number)));
    let known: Vec<KeyspaceId> = cluster.host(lagging).maps().map(|map| map.id).collect();
    assert!(known.contains(&made), "the voter that was left had not heard of it: {known:?}");
    cluster.write(learner, 20..40);
}

/// Two survivors that do not hear each other are both told to go on. When they meet, one gives way.
#[test]
fn of_two_that_were_both_told_to_go_on_one_gives_way() {
    let mut cluster = Cluster::with(5, 19, |options| {
        options.partitions = 1;
        options.replicas = 5;
    });
    cluster.write(0, 0..5);
    (2..5).for_each(|at| cluster.crash(at));
    cluster.cut = vec![0, 1];
    cluster.seconds(4);
    assert_eq!(cluster.recover(0, GroupId::META), Ok(()));
    assert_eq!(cluster.recover(1, GroupId::META), Ok(()));
    cluster.cut.clear();
    cluster.seconds(20);
    let leaders: Vec<_> = (0..2).map(|at| cluster.status(at, GroupId::META).consensus.leader).collect();
    assert!(leaders[0].is_some() && leaders[0] == leaders[1], "{leaders:?}");
    let digests: Vec<_> = (0..2).map(|at| cluster.status(at, GroupId::META).digest).collect();
    assert_eq!(digests[0], digests[1]);
}
