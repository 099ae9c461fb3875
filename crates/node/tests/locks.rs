//! Locks that are asked for by attempts nobody makes any more: their coordinator has given them up, and the word of that was lost.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, put};
use quorate_node::PeerMessage;
use quorate_node::transaction::TxnMessage;
use quorate_types::request::{Operation, TxnRequest};
use quorate_types::{
    Footprint, GroupId, Incarnation, KeyRange, KeyspaceId, NodeId, PartitionId, Request, Revision, Slot,
    TxnId,
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

/// Two partitions, led by two nodes.
fn cluster() -> Cluster {
    let mut cluster = Cluster::with(3, 11, |options| {
        options.partitions = 2;
        options.spread_leaders = true;
    });
    cluster.take_over(SEQUENCER, GroupId::META);
    cluster.take_over(HOME, group(0));
    cluster.take_over(PARTICIPANT, group(1));
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

/// The participant is asked to lock the key, and to wait for it, for an attempt that has been given up.
fn prepare(cluster: &mut Cluster, number: u64, key: &str) {
    let term = cluster.status(HOME, group(0)).consensus.term;
    let id = TxnId { home: PartitionId(0), term, number: GIVEN_UP + number };
    let exclusive = vec![KeyRange::Single(key.to_owned().into())];
    let footprint = Footprint { exclusive, ..Footprint::default() };
    let message = TxnMessage::Prepare { id, footprint, wait: true, at: Revision::FIRST };
    let home = NodeId(HOME as u64 + 1);
    let message = PeerMessage::Txn { to: group(1), message };
    cluster.host(PARTICIPANT).receive(home, Incarnation(home.0), message).unwrap();
    cluster.deliver();
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
        let operation = |key: &String| match put(key, 1) {
            Request::Put(put) => Operation::Put(put),
            other => panic!("not a put: {other:?}"),
        };
        let puts = [&first, &other].map(operation).to_vec();
        let both = Request::Txn(TxnRequest { success: puts, ..TxnRequest::default() });
        cluster.request(HOME, KEYSPACE, both).unwrap();
        (0..7).for_each(|_| cluster.tick());
    }
    cluster.answer(waiting).unwrap();
}
