//! Partitions that are split while they are used, with crashes in between.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, Outcome, brings, get, of_group, put};
use quorate_consensus::Message;
use quorate_mvcc::engine::Engine;
use quorate_node::effects::Applied;
use quorate_node::{IfBehind, Order, PeerMessage, Refused, Ticket};
use quorate_types::request::{DeleteRequest, PutLease, PutRequest, RangeRequest};
use quorate_types::{
    Answer, Bytes, EntryKind, GroupId, KeyRange, KeyspaceId, LeaseId, PartitionId, Rejection, Request,
    Revision, SlotSet, SplitError,
};
use std::collections::BTreeMap;

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

/// Keys and values as they were acknowledged.
type Model = BTreeMap<String, String>;

impl Cluster {
    fn split(&mut self, partition: Option<u32>) -> Result<(), Refused> {
        let partition = partition.map(PartitionId);
        self.order(0, Order::Split { name: "default".into(), partition }).map(|_| ())
    }

    /// Partitions of the map as a node knows it; a split that is under way counts.
    fn partitions(&mut self, at: usize) -> (usize, usize) {
        let maps: Vec<_> = self.host(at).maps().cloned().collect();
        let map = maps.iter().find(|map| map.id == KEYSPACE).unwrap();
        let splitting = map.partitions.iter().filter(|partition| partition.child().is_some()).count();
        (map.partitions.len(), splitting)
    }

    fn write(
        &mut self,
        at: usize,
        model: &mut Model,
        key: String,
        value: String,
    ) -> Result<Revision, Rejection> {
        let request = Request::Put(PutRequest {
            key: key.clone().into(),
            value: Some(Bytes::from(value.clone())),
            lease: PutLease::Detach,
            previous: false,
        });
        let revision = self.request(at, KEYSPACE, request)?.revision;
        model.insert(key, value);
        Ok(revision)
    }

    /// Reads everything behind a barrier, from a node's own copy.
    fn read_all(&mut self, at: usize) -> Model {
        for _ in 0..20 {
            self.next_ticket += 1;
            let ticket = Ticket(self.next_ticket);
            self.host(at).barrier(ticket, KEYSPACE, Vec::new(), IfBehind::Wait).unwrap();
            let grant = loop {
                if let Some(grant) = self.grants.remove(&ticket) {
                    break grant;
                }
                self.tick();
            };
            let Ok(grant) = grant else { continue };
            let reader = self.host(at).reader(KEYSPACE).unwrap();
            if let Ok((_, answer)) = reader.range(&RangeRequest::new(KeyRange::all()), grant.revision) {
                let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                return answer.pairs.iter().map(|pair| (text(&pair.key), text(&pair.value))).collect();
            }
        }
        panic!("node {} cannot read", at + 1);
    }

    /// All replicas are where the map says, and equal.
    #[track_caller]
    fn assert_settled(&mut self, partitions: usize) {
        let mut digests: BTreeMap<GroupId, u64> = BTreeMap::new();
        for at in 0..self.nodes.len() {
            assert_eq!(self.partitions(at), (partitions, 0), "node {}", at + 1);
            let groups: Vec<_> = self
                .host(at)
                .status()
                .into_iter()
                .filter(|status| status.group.keyspace == KEYSPACE)
                .collect();
            assert_eq!(groups.len(), partitions, "node {}", at + 1);
            for status in groups {
                let digest = status.digest.expect("its state is whole");
                assert_eq!(*digests.entry(status.group).or_insert(digest), digest, "{}", status.group);
            }
        }
    }
}

fn text(number: u64) -> String {
    format!("value {number}")
}

fn key(number: u64) -> String {
    format!("/d{}/k{}", number % 23, number % 5)
}

#[test]
fn a_partition_is_split_again_and_again_while_it_is_used() {
    let mut cluster = Cluster::new(11);
    let mut model = Model::new();
    let mut revision = Revision::FIRST;
    for number in 0..40 {
        let written = cluster.write(0, &mut model, key(number), text(number)).unwrap();
        assert_eq!(written, revision.next());
        revision = written;
    }
    let mut number = 40;
    for splits in 1..=7 {
        cluster.split(None).unwrap();
        // Nothing is refused meanwhile, it waits; and the revisions go on one after the other.
        for _ in 0..30 {
            let at = (number % 3) as usize;
            let written = cluster.write(at, &mut model, key(number), text(number)).unwrap();
            assert_eq!(written, revision.next(), "after {splits} splits");
            revision = written;
            number += 1;
        }
        let at = splits % 3;
        assert_eq!(cluster.read_all(at), model, "after {splits} splits, at node {}", at + 1);
        cluster.seconds(1);
        cluster.assert_settled(splits + 1);
    }
    for at in 0..3 {
        assert_eq!(cluster.read_all(at), model);
        let reader = cluster.host(at).reader(KEYSPACE).unwrap();
        assert_eq!(reader.revision(), revision, "all is known to be applied on node {}", at + 1);
    }
}

#[test]
fn what_cannot_be_split_is_refused_and_nothing_changes() {
    let mut cluster = Cluster::new(3);
    let none = SplitError::NoPartition(PartitionId(9));
    assert_eq!(cluster.split(Some(9)), Err(Refused::Split(none)));
    let unknown = Order::Split { name: "orders".into(), partition: None };
    assert_eq!(cluster.order(0, unknown), Err(Refused::NotFound { name: "orders".into() }));
    // With a majority away the partition cannot be split, and a second order finds it at that.
    cluster.split(None).unwrap();
    assert_eq!(cluster.split(Some(0)), Err(Refused::Split(SplitError::UnderWay(PartitionId(0)))));
    cluster.seconds(1);
    cluster.assert_settled(2);
}

/// A key of each half of the slots.
fn halves() -> [String; 2] {
    let (lower, upper) = SlotSet::all().split().unwrap();
    [lower, upper].map(|half| {
        let mut keys = (0..).map(|number| format!("/half{number}/k"));
        keys.find(|key| half.contains(quorate_types::Slot::of(key.as_bytes()))).unwrap()
    })
}

/// A lease whose home is in each half of the slots.
fn leases() -> [LeaseId; 2] {
    let (lower, upper) = SlotSet::all().split().unwrap();
    [lower, upper].map(|half| {
        let mut leases = (1..).filter_map(LeaseId::new);
        leases.find(|lease| half.contains(quorate_types::Slot::of_lease(*lease))).unwrap()
    })
}

fn leased(key: &str, lease: LeaseId) -> Request {
    Request::Put(PutRequest {
        key: key.to_owned().into(),
        value: Some(Bytes::from_static(b"v")),
        lease: PutLease::Attach(lease),
        previous: false,
    })
}

fn is_there(outcome: Outcome) -> bool {
    cluster::count(outcome) == 1
}

#[test]
fn leases_and_their_keys_are_told_apart_by_a_split() {
    let (keys, leases) = (halves(), leases());
    for ends_by_itself in [false, true] {
        // With keys in either half, in both, in none.
        for held in [&[][..], &[0][..], &[1][..], &[0, 1][..]] {
            for lease in leases {
                let mut cluster = Cluster::new(5);
                let grant = Request::LeaseGrant { lease, ttl_seconds: 4 };
                cluster.request(0, KEYSPACE, grant).unwrap();
                for at in held {
                    cluster.request(0, KEYSPACE, leased(&keys[*at], lease)).unwrap();
                }
                cluster.split(None).unwrap();
                cluster.seconds(1);
                cluster.assert_settled(2);
                let case = format!("lease {lease} with keys in {held:?}");
                let time = cluster.request(1, KEYSPACE, Request::LeaseTimeToLive { lease, with_keys: true });
                let Answer::LeaseTimeToLive(Some(time)) = time.unwrap().answer else { panic!("{case}") };
                let found: Vec<&str> =
                    time.keys.iter().map(|key| std::str::from_utf8(key).unwrap()).collect();
                let mut expected: Vec<&str> = held.iter().map(|at| keys[*at].as_str()).collect();
                expected.sort_unstable();
                assert_eq!(found, expected, "{case}");
                // Another key in the other half, after the split.
                cluster.request(2, KEYSPACE, leased(&keys[0], lease)).unwrap();
                cluster.split(Some(1)).unwrap();
                cluster.split(Some(0)).unwrap();
                cluster.seconds(1);
                let kept = cluster.request(2, KEYSPACE, Request::LeaseKeepAlive { lease }).unwrap();
                assert_eq!(kept.answer, Answer::LeaseKeepAlive { ttl_seconds: Some(4) }, "{case}");
                if ends_by_itself {
                    cluster.seconds(8);
                } else {
                    cluster.request(1, KEYSPACE, Request::LeaseRevoke { lease }).unwrap();
                }
                for key in &keys {
                    assert!(!is_there(cluster.request(1, KEYSPACE, get(key))), "{case} left {key}");
                }
                let refused = cluster.request(0, KEYSPACE, leased(&keys[0], lease));
                assert_eq!(refused, Err(Rejection::LeaseNotFound(lease)), "{case}");
                let all = cluster.request(0, KEYSPACE, Request::Leases).unwrap();
                assert_eq!(all.answer, Answer::Leases(Vec::new()), "{case}");
                cluster.assert_settled(4);
            }
        }
    }
}

#[test]
fn crashes_at_any_step_of_a_split_lose_nothing() {
    let mut splits = 0;
    for seed in 0..60 {
        let mut cluster = Cluster::new(1000 + seed);
        let mut model = Model::new();
        // What was not answered may be there or not.
        let mut unsure: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut number = 0;
        for round in 0..12 {
            let up: Vec<usize> = (0..3).filter(|at| cluster.nodes[*at].running.is_some()).collect();
            let at = up[cluster.draw(up.len() as u64) as usize];
            if round % 4 == 1 {
                let (mut order, mut request) = quorate_node::Administration::begin(Order::Split {
                    name: "default".into(),
                    partition: None,
                })
                .unwrap();
                // Whoever is asked may crash; then it is open whether the split began.
                while let Ok(reply) = cluster.request(at, KeyspaceId::SYSTEM, request.clone()) {
                    match order.answered(reply) {
                        Ok(quorate_node::administration::Step::Ask(next)) => request = next,
                        _ => break,
                    }
                }
            }
            for _ in 0..cluster.draw(12) {
                let (name, value) = (key(number * 7), text(number));
                number += 1;
                let before = model.clone();
                if cluster.write(at, &mut model, name.clone(), value.clone()).is_err() {
                    model = before;
                    unsure.entry(name).or_default().push(value);
                } else {
                    unsure.remove(&name);
                }
            }
            for _ in 0..cluster.draw(6) {
                cluster.tick();
            }
            let victim = cluster.draw(3) as usize;
            let down: Vec<usize> = (0..3).filter(|at| cluster.nodes[*at].running.is_none()).collect();
            match down.first() {
                Some(down) => cluster.start(*down),
                None => cluster.crash(victim),
            }
            let ticks = cluster.draw(120);
            (0..ticks).for_each(|_| cluster.tick());
        }
        for at in 0..3 {
            if cluster.nodes[at].running.is_none() {
                cluster.start(at);
            }
        }
        cluster.seconds(6);
        let (partitions, _) = cluster.partitions(0);
        splits += partitions - 1;
        cluster.assert_settled(partitions);
        for at in 0..3 {
            let found = cluster.read_all(at);
            for name in model.keys().chain(found.keys()) {
                let (value, expected) = (found.get(name), model.get(name));
                let may_be = unsure.get(name).is_some_and(|values| value.is_some_and(|v| values.contains(v)));
                assert!(
                    value == expected || may_be,
                    "seed {seed}: {name} is {value:?} on {}, not {expected:?}",
                    at + 1
                );
            }
        }
    }
    assert!(splits > 60, "only {splits} splits");
}

#[test]
fn a_node_that_was_away_gets_the_state_of_partitions_it_never_had() {
    for (seed, is_cut) in [(1, false), (2, true)] {
        let mut cluster = Cluster::new(seed);
        let mut model = Model::new();
        for number in 0..50 {
            cluster.write(0, &mut model, key(number), text(number)).unwrap();
        }
        let at = (0..3).find(|at| {
            !cluster
                .host(*at)
                .status()
                .iter()
                .any(|status| status.group == GroupId::META && status.is_serving)
        });
        let away = at.unwrap();
        if is_cut {
            cluster.cut.push(away)
        } else {
            cluster.crash(away)
        }
        let here = (away + 1) % 3;
        cluster.seconds(2);
        for _ in 0..3 {
            let order = Order::Split { name: "default".into(), partition: None };
            cluster.order(here, order).unwrap();
            // So much that the logs do not go back to before the split.
            for number in 0..400 {
                let value = format!("{number} {}", "x".repeat(200));
                cluster.write(here, &mut model, key(number), value).unwrap();
            }
        }
        cluster.cut.clear();
        if !is_cut {
            cluster.start(away);
        }
        cluster.seconds(20);
        cluster.assert_settled(4);
        assert_eq!(cluster.read_all(away), model, "cut off {is_cut}");
        // It counts: with another one away, these two go on.
        cluster.crash(here);
        cluster.seconds(5);
        cluster.request(away, KEYSPACE, put("/after", 1)).unwrap();
    }
}

/// A node that is alone elects itself and appends to the new partition's log in the very moment in which it opens it.
#[test]
fn a_node_that_is_alone_opens_its_partitions_again_after_a_crash() {
    for seed in 1..=8 {
        let mut cluster = Cluster::of(1, seed);
        let mut model = Model::new();
        for partitions in 1..5 {
            for number in 0..40 {
                cluster.write(0, &mut model, key(number), format!("{partitions} {number}")).unwrap();
            }
            cluster.split(None).unwrap();
            // Without writes nothing would be missed in its log.
            for number in 0..cluster.draw(40) {
                cluster.write(0, &mut model, key(number), format!("{number}")).unwrap();
            }
            cluster.crash(0);
            cluster.start(0);
            cluster.seconds(4);
            cluster.assert_settled(partitions + 1);
            assert_eq!(cluster.read_all(0), model, "seed {seed}, {} partitions", partitions + 1);
        }
    }
}

fn delete(key: String) -> Request {
    Request::DeleteRange(DeleteRequest { range: KeyRange::Single(key.into()), previous: false })
}

#[test]
fn while_space_is_short_what_makes_room_gets_its_revisions() {
    let mut cluster = Cluster::new(21);
    let id = cluster.create("orders", 2, None).unwrap();
    for number in 0..450 {
        cluster.put(id, &key(number), 10).unwrap();
    }
    (0..3).for_each(|at| cluster.host(at).set_no_space(true));
    assert_eq!(cluster.put(id, &key(0), 10), Err(Rejection::NoSpace));
    for number in 0..115 {
        cluster.request(0, id, delete(key(number))).unwrap();
    }
    (0..3).for_each(|at| cluster.host(at).set_no_space(false));
    cluster.seconds(5);
    for number in 0..800 {
        cluster.put(id, &key(number), 10).unwrap_or_else(|cause| panic!("{number}: {cause:?}"));
    }
}

#[test]
fn a_split_comes_to_its_end_while_space_is_short() {
    let mut cluster = Cluster::new(22);
    let mut model = Model::new();
    for number in 0..40 {
        cluster.write(0, &mut model, key(number), text(number)).unwrap();
    }
    cluster.split(None).unwrap();
    (0..3).for_each(|at| cluster.host(at).set_no_space(true));
    for number in 0..40 {
        cluster.request(0, KEYSPACE, delete(key(number))).unwrap();
    }
    cluster.assert_settled(2);
}

const PARENT: GroupId = GroupId { keyspace: KEYSPACE, partition: PartitionId(0) };
const CHILD: GroupId = GroupId { keyspace: KEYSPACE, partition: PartitionId(1) };

/// A keyspace of one partition, led by the first node with everything else, and some keys in it.
fn unsplit() -> (Cluster, Model) {
    let (mut cluster, mut model) = (Cluster::new(9), Model::new());
    cluster.take_over(0, GroupId::META);
    cluster.take_over(0, PARENT);
    for number in 0..40 {
        cluster.write(0, &mut model, key(number), text(number)).unwrap();
    }
    (cluster, model)
}

/// How many keys a node's own copy has, for whoever reads it without asking a leader.
fn count_at(cluster: &mut Cluster, at: usize) -> Result<u64, ()> {
    let reader = cluster.host(at).reader(KEYSPACE).unwrap();
    let all = reader.range(&RangeRequest::new(KeyRange::all()), reader.revision());
    all.map(|(_, answer)| answer.count).map_err(|_| ())
}

/// So much that the logs do not go back to before it.
fn write_much(cluster: &mut Cluster, model: &mut Model) {
    for number in 0..400 {
        let value = format!("{number} {}", "x".repeat(200));
        cluster.write(0, model, key(number), value).unwrap();
    }
}

/// The question waits for a write before it, and the split is applied along with that write.
#[test]
fn a_lease_is_not_told_of_by_a_partition_that_has_given_it_away() {
    let (mut cluster, _) = unsplit();
    let [_, lease] = leases();
    cluster.request(0, KEYSPACE, Request::LeaseGrant { lease, ttl_seconds: 60 }).unwrap();
    cluster.lose(|_, _, message| {
        brings(message, PARENT, EntryKind::Write) || brings(message, PARENT, EntryKind::Split)
    });
    cluster.ask(0, KEYSPACE, put("/before", 1));
    let asked = cluster.ask(0, KEYSPACE, Request::LeaseTimeToLive { lease, with_keys: false });
    let before = cluster.status(0, PARENT).consensus.last;
    cluster.split(None).unwrap();
    cluster.tick();
    let last = cluster.status(0, PARENT).consensus.last;
    assert_eq!((before.term, before.index.next()), (last.term, last.index), "the split entry is next");
    cluster.losing = None;
    let Answer::LeaseTimeToLive(time) = cluster.answer(asked).unwrap().answer else { panic!() };
    assert!(time.is_some());
    cluster.seconds(1);
    cluster.assert_settled(2);
}

/// The barrier that the answer waits for takes longer than the split.
#[test]
fn a_lease_is_not_told_of_by_a_partition_that_gave_it_away_long_since() {
    for question in [|lease| Request::LeaseTimeToLive { lease, with_keys: false }, |_| Request::Leases] {
        let (mut cluster, _) = unsplit();
        let [_, lease] = leases();
        cluster.request(0, KEYSPACE, Request::LeaseGrant { lease, ttl_seconds: 60 }).unwrap();
        cluster.lose(|_, to, message| {
            to == 0 && matches!(of_group(message, PARENT), Some(Message::HeartbeatResponse { .. }))
        });
        let asked = cluster.ask(0, KEYSPACE, question(lease));
        cluster.deliver();
        cluster.split(None).unwrap();
        while cluster.partitions(0) != (2, 0) {
            cluster.tick();
        }
        assert!(!cluster.answers.contains_key(&asked));
        cluster.losing = None;
        match cluster.answer(asked).unwrap().answer {
            Answer::LeaseTimeToLive(time) => assert!(time.is_some()),
            Answer::Leases(leases) => assert_eq!(leases, [lease]),
            answer => panic!("{answer:?}"),
        }
    }
}

/// A node asks the only partition that it knows of, and hears of the split before it has its answer.
#[test]
fn a_barrier_of_the_only_partition_does_not_do_after_its_split() {
    let (mut cluster, mut model) = unsplit();
    let [_, upper] = halves();
    cluster.cut.push(2);
    cluster.split(None).unwrap();
    cluster.write(0, &mut model, upper, "in the child".into()).unwrap();
    cluster.cut.clear();
    cluster.lose(|_, to, message| of_group(message, CHILD).is_some() && to == 2);
    let ticket = Ticket(1 << 32);
    cluster.host(2).barrier(ticket, KEYSPACE, Vec::new(), IfBehind::Wait).unwrap();
    for tick in 0.. {
        if tick == 30 {
            cluster.losing = None;
        }
        cluster.tick();
        if let Some(grant) = cluster.grants.remove(&ticket) {
            let reader = cluster.host(2).reader(KEYSPACE).unwrap();
            let all = reader.range(&RangeRequest::new(KeyRange::all()), grant.unwrap().revision);
            assert_eq!(all.unwrap().1.count, model.len() as u64);
            break;
        }
    }
}

/// The parent's snapshot is without what was split off. Until the map has come, and then the child's own snapshot, keys are missing here.
#[test]
fn a_node_is_not_read_while_it_is_without_a_partition() {
    for partitions in [1, 2] {
        let (mut cluster, mut model) = unsplit();
        if partitions == 2 {
            cluster.split(Some(0)).unwrap();
            cluster.seconds(2);
        }
        let child = GroupId { keyspace: KEYSPACE, partition: PartitionId(partitions as u32) };
        let keys = model.len() as u64;
        assert_eq!(count_at(&mut cluster, 2), Ok(keys));
        cluster.cut.push(2);
        cluster.split(Some(0)).unwrap();
        write_much(&mut cluster, &mut model);
        cluster.cut.clear();
        cluster.lose(move |_, to, message| {
            to == 2 && (of_group(message, GroupId::META).is_some() || of_group(message, child).is_some())
        });
        let first = cluster.status(2, PARENT).consensus.start;
        cluster.seconds(4);
        assert!(cluster.status(2, PARENT).consensus.start > first, "a snapshot is in place");
        for partition in (0..partitions as u32).map(PartitionId) {
            let status = cluster.status(2, GroupId { keyspace: KEYSPACE, partition });
            assert!(status.digest.is_some(), "{partition:?} is whole");
        }
        assert_eq!(cluster.partitions(2), (partitions, 0), "the map has not come");
        assert_eq!(count_at(&mut cluster, 2), Err(()));
        cluster.lose(move |_, to, message| to == 2 && of_group(message, child).is_some());
        cluster.seconds(2);
        assert_eq!(cluster.partitions(2), (partitions + 1, 0));
        assert_eq!(count_at(&mut cluster, 2), Err(()));
        cluster.losing = None;
        cluster.seconds(4);
        cluster.assert_settled(partitions + 1);
        assert_eq!(cluster.read_all(2), model);
    }
}

/// A node stops while the parent's state is replaced there, and begins that anew; it does not know yet that the split is finished.
#[test]
fn a_snapshot_of_the_parent_leaves_the_childs_keys_alone() {
    let (mut cluster, mut model) = unsplit();
    cluster.lose(|_, _, message| brings(message, PARENT, EntryKind::Split));
    cluster.split(None).unwrap();
    while cluster.partitions(2) != (1, 1) {
        cluster.tick();
    }
    let is_meta = |to: usize, message: &PeerMessage| to == 2 && of_group(message, GroupId::META).is_some();
    cluster.lose(move |_, to, message| is_meta(to, message));
    for number in 0..40 {
        cluster.write(0, &mut model, key(number), format!("later {number}")).unwrap();
    }
    cluster.seconds(1);
    assert!(cluster.status(2, CHILD).digest.is_some(), "the child is whole there");
    cluster
        .lose(move |_, to, message| is_meta(to, message) || to == 2 && of_group(message, PARENT).is_some());
    write_much(&mut cluster, &mut model);
    cluster.lose(move |_, to, message| {
        is_meta(to, message) || matches!(message, PeerMessage::SnapshotChunk { .. })
    });
    cluster.seconds(1);
    assert_eq!(cluster.status(2, PARENT).digest, None, "its state is being replaced");
    cluster.nodes[2].engine.flush().unwrap();
    cluster.crash(2);
    cluster.start(2);
    assert_eq!(cluster.partitions(2), (1, 1));
    cluster.lose(move |_, to, message| is_meta(to, message));
    cluster.seconds(4);
    assert!(cluster.status(2, PARENT).digest.is_some());
    assert_eq!(cluster.partitions(2), (1, 1));
    cluster.losing = None;
    cluster.seconds(4);
    cluster.assert_settled(2);
    assert_eq!(cluster.read_all(2), model);
}

/// A node starts with a map from before a split, and with what the child had applied there in an earlier life. What was settled at the start is before that.
#[test]
fn watchers_are_told_what_a_partition_had_applied_that_is_opened_late() {
    const LATE: usize = 2;
    let (mut cluster, mut model) = unsplit();
    cluster.split(None).unwrap();
    cluster.seconds(2);
    let (held, child) = (PARENT, GroupId { keyspace: KEYSPACE, partition: PartitionId(2) });
    let is_meta = |to: usize, message: &PeerMessage| to == LATE && of_group(message, GroupId::META).is_some();
    cluster.lose(move |_, to, message| is_meta(to, message));
    cluster.split(Some(1)).unwrap();
    cluster.seconds(2);
    assert_eq!((cluster.partitions(0), cluster.partitions(LATE)), ((3, 0), (2, 0)));

    // A revision is given out and does not come to be, so that what comes after it is not settled.
    let is_held = move |message: &PeerMessage| brings(message, held, EntryKind::Write);
    cluster.lose(move |_, to, message| is_meta(to, message) || is_held(message));
    let waits = cluster.ask(0, KEYSPACE, put(&halves()[0], 1));
    (0..5).for_each(|_| cluster.tick());
    let last = SlotSet::all().ranges().last().unwrap().end - 1;
    let is_childs = |key: &String| quorate_types::Slot::of(key.as_bytes()).0 > last / 4 * 3;
    let of_child = (0..).map(|number| format!("/late{number}/k")).find(is_childs).unwrap();
    let written = cluster.write(0, &mut model, of_child, "v".into()).unwrap();
    (0..5).for_each(|_| cluster.tick());
    let settled = |cluster: &mut Cluster| cluster.host(LATE).reader(KEYSPACE).unwrap().revision();
    assert!(cluster.status(LATE, child).digest.is_some() && settled(&mut cluster) < written);

    cluster.nodes[LATE].engine.flush().unwrap();
    cluster.crash(LATE);
    cluster.start(LATE);
    assert!(cluster.host(LATE).status().iter().all(|status| status.group != child), "no map names it");
    cluster.told[LATE].clear();
    cluster.lose(move |_, _, message| is_held(message));
    cluster.seconds(3);
    assert_eq!(cluster.partitions(LATE), (3, 0));
    assert_eq!(settled(&mut cluster), Revision(written.0 - 2), "the one that is held comes next");
    cluster.losing = None;
    cluster.answer(waits).unwrap();
    cluster.seconds(2);
    assert!(settled(&mut cluster) >= written);
    let is_told = |applied: &Applied| {
        applied.replaced.is_some_and(|through| through >= written)
            || applied.changes.iter().any(|changes| changes.revision == written)
    };
    assert!(cluster.told[LATE].iter().any(|(_, applied)| is_told(applied)), "{:?}", cluster.told[LATE]);
}
