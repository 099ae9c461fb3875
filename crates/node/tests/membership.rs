//! Members come, go and die, and the groups go where they are wanted.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, member, put};
use quorate_consensus::Role;
use quorate_mvcc::engine::Engine;
use quorate_node::{Options, Order};
use quorate_types::member::Standing;
use quorate_types::{GroupId, KeyspaceId, Member, NodeId, PartitionId, Place};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
const PARTITIONS: u32 = 3;

fn group(partition: u32) -> GroupId {
    GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
}

fn all_groups() -> Vec<GroupId> {
    std::iter::once(GroupId::META).chain((0..PARTITIONS).map(group)).collect()
}

fn ids(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// Members are lost after two seconds of silence.
fn quick(options: &mut Options) {
    options.grace_ticks = 100;
    options.partitions = PARTITIONS;
}

fn founded() -> Cluster {
    Cluster::with(3, 7, quick)
}

impl Cluster {
    /// Some of everything, enough that the logs are cut.
    fn fill(&mut self, via: usize, round: &str) {
        for number in 0..60 {
            let key = format!("/d{}/{round}{number}", number % 7);
            self.request(via, KEYSPACE, put(&key, 200)).unwrap();
        }
    }

    fn place(&mut self, at: usize, id: GroupId) -> Place {
        self.host(at).places()[&id].clone()
    }

    /// Whether all groups are just there, as this node knows.
    fn are_at(&mut self, at: usize, voters: &[u64]) -> bool {
        let places = self.host(at).places();
        all_groups().into_iter().all(|id| {
            places.get(&id).is_some_and(|place| place.target.is_none() && place.voters == ids(voters))
        })
    }

    #[track_caller]
    fn until_at(&mut self, at: usize, voters: &[u64]) {
        for _ in 0..1_500 {
            if self.are_at(at, voters) {
                return;
            }
            self.tick();
        }
        panic!("groups are at {:?}", self.host(at).places());
    }

    fn holds(&mut self, at: usize, id: GroupId) -> bool {
        self.host(at).status().iter().any(|status| status.group == id)
    }

    fn leader(&mut self, among: &[usize], id: GroupId) -> Option<usize> {
        among.iter().copied().find(|at| {
            let statuses = self.host(*at).status();
            statuses.iter().any(|status| status.group == id && status.is_serving)
        })
    }

    /// These nodes have all groups, and all that is in them.
    #[track_caller]
    fn assert_equal(&mut self, among: &[usize]) {
        for id in all_groups() {
            let first = self.status(among[0], id);
            assert!(first.digest.is_some(), "{id} is whole");
            for at in &among[1..] {
                let other = self.status(*at, id);
                assert_eq!(
                    (other.consensus.applied, other.digest),
                    (first.consensus.applied, first.digest),
                    "{id}"
                );
            }
        }
    }
}

#[test]
fn a_node_that_joins_learns_the_meta_group_and_holds_nothing_else() {
    let mut cluster = founded();
    cluster.fill(0, "a");
    let joined = cluster.join(0);
    cluster.seconds(3);
    let known = cluster.host(joined).members();
    assert_eq!(known, (1..=4).map(|id| member(NodeId(id))).collect::<Vec<_>>());
    let of_first = cluster.status(0, GroupId::META);
    let of_joined = cluster.status(joined, GroupId::META);
    assert_eq!(
        (of_joined.consensus.applied, of_joined.digest),
        (of_first.consensus.applied, of_first.digest)
    );
    assert!((0..PARTITIONS).all(|partition| !cluster.holds(joined, group(partition))));
    assert!(cluster.are_at(joined, &[1, 2, 3]));
    // It never stands for election, however long nobody leads.
    cluster.cut = vec![0, 1, 2];
    cluster.seconds(4);
    assert!(matches!(cluster.status(joined, GroupId::META).consensus.role, Role::Follower { leader: None }));
    cluster.cut.clear();
    cluster.seconds(2);
    cluster.fill(0, "b");
}

#[test]
fn a_spare_takes_the_place_of_a_lost_member_and_then_a_second_death_is_survived() {
    for dying in 0..3 {
        let mut cluster = founded();
        let via = (dying + 1) % 3;
        cluster.fill(via, "a");
        let spare = cluster.join(via);
        cluster.seconds(2);
        cluster.crash(dying);
        cluster.seconds(2);
        cluster.fill(via, "b");
        let mut left: Vec<usize> = (0..4).filter(|at| *at != dying).collect();
        let voters: Vec<u64> = left.iter().map(|at| *at as u64 + 1).collect();
        cluster.until_at(via, &voters);
        let lost = cluster.host(via).members()[dying].clone();
        assert_eq!(lost.standing, Standing::Lost);
        cluster.seconds(1);
        cluster.assert_equal(&left);
        cluster.crash(via);
        left.retain(|at| *at != via);
        cluster.seconds(3);
        cluster.fill(spare, "c");
        cluster.seconds(1);
        cluster.assert_equal(&left);
    }
}

#[test]
fn one_that_was_lost_and_is_back_throws_its_replicas_away_and_counts_again() {
    let mut cluster = founded();
    cluster.fill(0, "a");
    let spare = cluster.join(0);
    cluster.crash(2);
    cluster.until_at(0, &[1, 2, 4]);
    cluster.fill(0, "b");
    cluster.start(2);
    cluster.seconds(6);
    assert_eq!(cluster.host(0).members()[2].standing, Standing::Active);
    assert!((0..PARTITIONS).all(|partition| !cluster.holds(2, group(partition))));
    assert!(cluster.holds(2, GroupId::META));
    // After another start, too.
    cluster.crash(2);
    cluster.start(2);
    cluster.seconds(1);
    assert!((0..PARTITIONS).all(|partition| !cluster.holds(2, group(partition))));
    // It is given them anew when the spare dies.
    cluster.crash(spare);
    cluster.until_at(0, &[1, 2, 3]);
    cluster.seconds(1);
    cluster.fill(0, "c");
    cluster.seconds(1);
    cluster.assert_equal(&[0, 1, 2]);
}

#[test]
fn a_move_goes_on_when_its_leader_dies_in_the_middle() {
    for step in 0..40 {
        let mut cluster = founded();
        cluster.fill(1, "a");
        let spare = cluster.join(1);
        cluster.seconds(2);
        let id = if step % 2 == 0 { GroupId::META } else { group(1) };
        cluster.put_member(1, &Member { standing: Standing::Draining, ..member(NodeId(3)) });
        while cluster.place(1, id).target.is_none() {
            cluster.tick();
        }
        (0..step).for_each(|_| cluster.tick());
        let leader = cluster.leader(&[0, 1, 2], id).unwrap();
        if leader == 2 {
            // What it leads is being handed over; its death is another story.
            continue;
        }
        cluster.crash(leader);
        cluster.seconds(1);
        cluster.start(leader);
        cluster.until_at(1, &[1, 2, 4]);
        cluster.seconds(2);
        cluster.fill(spare, "b");
        cluster.seconds(1);
        cluster.assert_equal(&[0, 1, 3]);
    }
}

#[test]
fn a_member_that_is_to_leave_gives_everything_away_and_goes() {
    for leaving in 0..3 {
        let mut cluster = founded();
        let via = (leaving + 1) % 3;
        cluster.fill(via, "a");
        let spare = cluster.join(via);
        let id = NodeId(leaving as u64 + 1);
        cluster.put_member(via, &Member { standing: Standing::Leaving, ..member(id) });
        let left: Vec<usize> = (0..4).filter(|at| *at != leaving).collect();
        let voters: Vec<u64> = left.iter().map(|at| *at as u64 + 1).collect();
        cluster.until_at(via, &voters);
        cluster.seconds(4);
        assert!(cluster.host(via).members().iter().all(|member| member.id != id));
        assert!((0..PARTITIONS).all(|partition| !cluster.holds(leaving, group(partition))));
        // It heard of that, and troubles nobody.
        assert!(cluster.host(leaving).removed().contains(&id));
        let term = cluster.status(via, GroupId::META).consensus.term;
        cluster.seconds(6);
        assert_eq!(cluster.status(via, GroupId::META).consensus.term, term);
        cluster.fill(spare, "b");
        cluster.seconds(1);
        cluster.assert_equal(&left);
    }
}

/// A member that is only silent for a while holds what it held.
#[test]
fn within_the_grace_period_nothing_moves_and_without_a_spare_nothing_ever_does() {
    let mut cluster = founded();
    cluster.crash(2);
    cluster.seconds(10);
    assert_eq!(cluster.host(0).members()[2].standing, Standing::Lost);
    assert!(cluster.are_at(0, &[1, 2, 3]));
    cluster.start(2);
    cluster.seconds(5);
    assert_eq!(cluster.host(0).members()[2].standing, Standing::Active);
    let _ = cluster.join(0);
    cluster.crash(1);
    cluster.seconds(1);
    cluster.start(1);
    cluster.seconds(4);
    assert!(cluster.are_at(0, &[1, 2, 3]));
}

#[test]
fn a_group_that_is_split_is_not_moved_and_one_that_moves_is_not_split() {
    for lead in [0, 3, 10, 30] {
        for is_split_first in [true, false] {
            let mut cluster = founded();
            cluster.fill(0, "a");
            let _ = cluster.join(0);
            cluster.seconds(2);
            let drain = Member { standing: Standing::Draining, ..member(NodeId(3)) };
            let split = Order::Split { name: "default".to_owned(), partition: Some(PartitionId(1)) };
            if is_split_first {
                cluster.order(0, split).unwrap();
                (0..lead).for_each(|_| cluster.tick());
                cluster.put_member(0, &drain);
            } else {
                cluster.put_member(0, &drain);
                (0..lead).for_each(|_| cluster.tick());
                cluster.order(0, split).unwrap();
            }
            cluster.until_at(0, &[1, 2, 4]);
            for _ in 0..500 {
                cluster.tick();
            }
            let child = group(PARTITIONS);
            assert_eq!(cluster.place(0, child).voters, ids(&[1, 2, 4]));
            assert_eq!(cluster.place(0, child).target, None);
            cluster.fill(1, "b");
            cluster.seconds(1);
            for at in [1, 3] {
                let (first, other) = (cluster.status(0, child), cluster.status(at, child));
                assert_eq!((first.consensus.applied, first.digest), (other.consensus.applied, other.digest));
            }
            cluster.assert_equal(&[0, 1, 3]);
        }
    }
}

/// What a row wanted first may be in the group's log by the time that it wants something else: who came for that counts until the group has left it.
#[test]
fn a_target_that_takes_the_place_of_another_costs_nobody_his_vote() {
    let drained = |id: u64| Member { standing: Standing::Draining, ..member(NodeId(id)) };
    for step in (0..30).step_by(3) {
        let mut cluster = founded();
        cluster.fill(0, "a");
        (0..3).for_each(|_| assert!(cluster.join(0) > 2));
        cluster.seconds(2);
        cluster.put_member(0, &drained(2));
        cluster.put_member(0, &drained(3));
        let id = group(step % PARTITIONS);
        while cluster.place(0, id).target != Some(ids(&[1, 4, 5])) {
            cluster.tick();
        }
        (0..step).for_each(|_| cluster.tick());
        cluster.put_member(0, &drained(5));
        while cluster.place(0, id).holds(NodeId(5)) {
            cluster.tick();
        }
        (0..5).for_each(|_| cluster.tick());
        cluster.crash(4);
        cluster.start(4);
        cluster.crash(0);
        cluster.until_at(3, &[1, 4, 6]);
        cluster.seconds(2);
        cluster.fill(3, "b");
        cluster.seconds(1);
        cluster.assert_equal(&[3, 5]);
    }
}

/// A learner asks for no votes, which would wake a group that sleeps. Started anew before anybody has missed it, it has to find the leader all the same.
#[test]
fn a_learner_that_starts_anew_wakes_the_group_that_it_learns_from() {
    let mut cluster = founded();
    let joined = cluster.join(0);
    cluster.seconds(5);
    assert!(cluster.status(0, GroupId::META).consensus.is_hibernating);
    cluster.nodes[joined].engine.flush().unwrap();
    cluster.nodes[joined].running = None;
    cluster.start(joined);
    cluster.seconds(2);
    assert!(cluster.status(joined, GroupId::META).consensus.leader.is_some());
    cluster.seconds(3);
    assert!(cluster.status(joined, GroupId::META).consensus.is_hibernating);
}

/// A group that is opened while a member is down knows of that, and sleeps without it.
#[test]
fn groups_that_are_opened_while_a_member_is_down_sleep_without_it() {
    let mut cluster = founded();
    cluster.fill(0, "a");
    cluster.crash(2);
    cluster.seconds(1);
    cluster.order(0, Order::Split { name: "default".to_owned(), partition: Some(PartitionId(1)) }).unwrap();
    cluster.seconds(6);
    assert!((0..2).all(|at| cluster.status(at, group(PARTITIONS)).consensus.is_hibernating));
}
