//! Locks that are asked for by attempts nobody makes any more: their coordinator has given them up, and the word of that was lost. And who goes first where many wait.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, of_group, put};
use quorate_node::transaction::TxnMessage;
use quorate_node::{Options, PeerMessage};
use quorate_types::request::{Operation, PutLease, PutRequest, TxnRequest};
use quorate_types::{
    Footprint, GroupId, Incarnation, KeyRange, KeyspaceId, LeaseId, NodeId, PartitionId, Request, Revision,
    Slot, TxnId,
};

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
/// Who leads what.
const SEQUENCER: usize = 0;
const HOME: usize = 1;
const PARTICIPANT: usize = 2;
/// Attempts with such numbers are not under way.
const GIVEN_UP: u64 = 1_000_000;

fn group(partition: u32) -> GroupId {
    GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
}

fn is_given_up(id: &TxnId) -> bool {
    id.number >= GIVEN_UP
}

/// Three partitions, the first two led by two nodes.
fn cluster() -> Cluster {
    with_leaders(Cluster::with(3, 11, tune))
}

fn tune(options: &mut Options) {
    options.partitions = 3;
    options.spread_leaders = true;
}

fn with_leaders(mut cluster: Cluster) -> Cluster {
    cluster.take_over(SEQUENCER, GroupId::META);
    cluster.take_over(HOME, group(0));
    cluster.take_over(PARTICIPANT, group(1));
    cluster.take_over(SEQUENCER, group(2));
    cluster.seconds(1);
    cluster
}

/// A key of the partition.
fn key(cluster: &mut Cluster, partition: u32, name: &str) -> String {
    let map = cluster.host(0).maps().find(|map| map.id == KEYSPACE).unwrap().clone();
    let slots = &map.partition(PartitionId(partition)).unwrap().slots;
    let mut keys = (0..).map(|number| format!("/{number}/{name}"));
    keys.find(|key| slots.contains(Slot::of(key.as_bytes()))).unwrap()
}

fn given_up(cluster: &mut Cluster, number: u64) -> TxnId {
    let term = cluster.status(HOME, group(0)).consensus.term;
    TxnId { home: PartitionId(0), term, number: GIVEN_UP + number }
}

/// The home's leader says something to a partition's.
fn tell(cluster: &mut Cluster, at: usize, partition: u32, message: TxnMessage) {
    let home = NodeId(HOME as u64 + 1);
    let message = PeerMessage::Txn { to: group(partition), message };
    cluster.host(at).receive(home, Incarnation(home.0), message).unwrap();
    cluster.deliver();
}

/// The participant is asked to lock the key, and to wait for it, for an attempt that has been given up.
fn prepare(cluster: &mut Cluster, number: u64, key: &str) {
    let id = given_up(cluster, number);
    let exclusive = vec![KeyRange::Single(key.to_owned().into())];
    let footprint = Footprint { exclusive, ..Footprint::default() };
    let message = TxnMessage::Prepare { id, footprint, wait: true, waited: 0, at: Revision::FIRST };
    tell(cluster, PARTICIPANT, 1, message);
}

/// A transaction that puts all of them.
fn puts(keys: &[&String]) -> Request {
    let operation = |key: &&String| match put(key, 1) {
        Request::Put(put) => Operation::Put(put),
        other => panic!("not a put: {other:?}"),
    };
    Request::Txn(TxnRequest { success: keys.iter().map(operation).collect(), ..TxnRequest::default() })
}

/// Its vote says so, and is answered with the end of it. What the participant asks when it has held the lock for long is lost here.
#[test]
fn a_vote_for_an_attempt_that_was_given_up_gives_the_locks_back() {
    let mut cluster = cluster();
    let key = key(&mut cluster, 1, "k");
    cluster
        .lose(|_, _, message| matches!(message, PeerMessage::Txn { message: TxnMessage::Status { .. }, .. }));
    prepare(&mut cluster, 0, &key);
    cluster.request(PARTICIPANT, KEYSPACE, put(&key, 1)).unwrap();
}

/// Each of them would hold the lock until its end is asked for, one after the other. They wait no longer than a coordinator would wait for
/// them, also where other locks are given back all the time, at which all that wait are looked at.
#[test]
fn attempts_that_were_given_up_do_not_queue_for_locks_for_ever() {
    let mut cluster = cluster();
    let (first, locked, other) =
        (key(&mut cluster, 0, "k"), key(&mut cluster, 1, "k"), key(&mut cluster, 1, "other"));
    cluster.lose(|_, _, message| {
        matches!(message, PeerMessage::Txn { message: TxnMessage::Vote { id, .. }, .. } if is_given_up(id))
    });
    (0..30).for_each(|number| prepare(&mut cluster, number, &locked));
    let waiting = cluster.ask(PARTICIPANT, KEYSPACE, put(&locked, 1));
    while !cluster.answers.contains_key(&waiting) {
        cluster.request(HOME, KEYSPACE, puts(&[&first, &other])).unwrap();
        (0..7).for_each(|_| cluster.tick());
    }
    cluster.answer(waiting).unwrap();
}

/// Nothing is committed there, so none of them has its vote, and their coordinator begins one after the other.
#[test]
fn attempts_that_were_given_up_while_nothing_is_committed_are_bounded() {
    const INFLIGHT_MAX: usize = 4;
    let mut cluster = with_leaders(Cluster::with(3, 11, |options| {
        tune(options);
        options.inflight_max = INFLIGHT_MAX;
    }));
    cluster
        .lose(|from, to, message| [from, to].contains(&PARTICIPANT) && of_group(message, group(1)).is_some());
    for number in 0..20 * INFLIGHT_MAX as u64 {
        let key = key(&mut cluster, 1, &format!("k{number}"));
        prepare(&mut cluster, number, &key);
        let id = given_up(&mut cluster, number);
        tell(&mut cluster, PARTICIPANT, 1, TxnMessage::Finish { id, effects: None });
    }
    for queue in cluster.host(PARTICIPANT).queues() {
        assert!(queue.len <= queue.max, "{queue:?}");
    }
    // Which is not for ever.
    cluster.lose(|_, _, _| false);
    cluster.seconds(2);
    let (first, second) = (key(&mut cluster, 0, "k"), key(&mut cluster, 1, "k"));
    cluster.request(HOME, KEYSPACE, puts(&[&first, &second])).unwrap();
}

/// Each reader takes its lock while the one before holds it, so somebody always does. Who has waited long for it goes before those that come.
#[test]
fn a_writer_is_not_passed_for_ever_by_readers_that_come_later() {
    let mut cluster = cluster();
    let key = key(&mut cluster, 1, "k");
    cluster.lose(|_, _, message| {
        matches!(message, PeerMessage::Txn { message: TxnMessage::Vote { id, .. }, .. } if is_given_up(id))
    });
    let read = |cluster: &mut Cluster, number: u64| {
        let shared = vec![KeyRange::Single(key.clone().into())];
        let footprint = Footprint { shared, reads_only: true, ..Footprint::default() };
        let id = given_up(cluster, number);
        let message = TxnMessage::Prepare { id, footprint, wait: false, waited: 0, at: Revision::FIRST };
        tell(cluster, PARTICIPANT, 1, message);
    };
    read(&mut cluster, 0);
    let waiting = cluster.ask(PARTICIPANT, KEYSPACE, put(&key, 1));
    for number in 0.. {
        read(&mut cluster, number + 1);
        let id = given_up(&mut cluster, number);
        tell(&mut cluster, PARTICIPANT, 1, TxnMessage::Finish { id, effects: None });
        if let Some(outcome) = cluster.answers.remove(&waiting) {
            outcome.unwrap();
            return;
        }
        cluster.tick();
    }
}

/// The younger one holds what the older needs and waits for something else. It begins anew, and does not keep the older waiting until its own attempt
/// comes to its end.
#[test]
fn a_transaction_yields_to_one_that_has_waited_much_longer() {
    let mut cluster = cluster();
    let (first, other) = (key(&mut cluster, 0, "k"), key(&mut cluster, 0, "other"));
    let (contended, locked) = (key(&mut cluster, 1, "k"), key(&mut cluster, 2, "k"));
    cluster.lose(|_, _, message| {
        matches!(message, PeerMessage::Txn { message: TxnMessage::Vote { id, .. }, .. } if is_given_up(id))
            || matches!(message, PeerMessage::Txn { message: TxnMessage::Status { id, .. }, .. } if is_given_up(id))
    });
    let lock = |cluster: &mut Cluster, at: usize, partition: u32, key: &str| {
        let exclusive = vec![KeyRange::Single(key.to_owned().into())];
        let footprint = Footprint { exclusive, ..Footprint::default() };
        // Who holds it asks the leader of another partition, elsewhere, how it ended.
        let home = PartitionId(1 - partition.min(1));
        let id = TxnId { home, ..given_up(cluster, 0) };
        let message = TxnMessage::Prepare { id, footprint, wait: false, waited: 0, at: Revision::FIRST };
        tell(cluster, at, partition, message);
        id
    };
    let held = lock(&mut cluster, HOME, 0, &first);
    lock(&mut cluster, SEQUENCER, 2, &locked);
    let older = cluster.ask(HOME, KEYSPACE, puts(&[&first, &contended]));
    cluster.seconds(2);
    let younger = cluster.ask(HOME, KEYSPACE, puts(&[&other, &contended, &locked]));
    (0..2).for_each(|_| cluster.tick());
    tell(&mut cluster, HOME, 0, TxnMessage::Finish { id: held, effects: None });
    for _ in 0..12 {
        cluster.tick();
    }
    cluster.answers.remove(&older).expect("the younger one yields").unwrap();
    assert!(!cluster.answers.contains_key(&younger));
}

/// The end of the lease has waited longest, so the write stands behind it; and it holds no lock that would be given back when it has passed.
#[test]
fn who_stood_behind_the_end_of_a_lease_goes_on_when_that_has_passed() {
    let mut cluster = cluster();
    let lease = (1..)
        .map(|id| LeaseId::new(id).unwrap())
        .find(|lease| {
            let map = cluster.host(0).maps().find(|map| map.id == KEYSPACE).unwrap().clone();
            map.partition(PartitionId(2)).unwrap().slots.contains(Slot::of_lease(*lease))
        })
        .unwrap();
    let key = key(&mut cluster, 2, "k");
    cluster.request(SEQUENCER, KEYSPACE, Request::LeaseGrant { lease, ttl_seconds: 2 }).unwrap();
    let Request::Put(leased) = put(&key, 1) else { panic!("not a put") };
    let leased = PutRequest { lease: PutLease::Attach(lease), ..leased };
    cluster.request(SEQUENCER, KEYSPACE, Request::Put(leased)).unwrap();
    cluster.lose(|_, _, message| {
        matches!(message, PeerMessage::Txn { message: TxnMessage::Vote { id, .. }, .. } if is_given_up(id))
            || matches!(message, PeerMessage::Txn { message: TxnMessage::Status { id, .. }, .. } if is_given_up(id))
    });
    let id = given_up(&mut cluster, 0);
    let exclusive = vec![KeyRange::Single(key.clone().into())];
    let footprint = Footprint { exclusive, ..Footprint::default() };
    let message = TxnMessage::Prepare { id, footprint, wait: false, waited: 0, at: Revision::FIRST };
    tell(&mut cluster, SEQUENCER, 2, message);
    // The lease runs out, and its end waits long for the key.
    cluster.seconds(4);
    let waiting = cluster.ask(SEQUENCER, KEYSPACE, put(&key, 1));
    cluster.tick();
    tell(&mut cluster, SEQUENCER, 2, TxnMessage::Finish { id, effects: None });
    (0..4).for_each(|_| cluster.tick());
    cluster.answers.remove(&waiting).expect("nothing is in its way").unwrap();
}
