//! Transactions, reads and watches over partitions, each in the one order of events that a rule of `docs/partitions.md` is there for. Random runs
//! hardly come upon these; `docs/simulation.md` names the planted bug that each of them finds.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, brings, get, of_group, put};
use quorate_consensus::Message;
use quorate_node::{Grant, IfBehind, PeerMessage, Ticket};
use quorate_types::request::{
    Compare, CompareResult, CompareTarget, Operation, PutLease, PutRequest, RangeRequest, TxnRequest,
};
use quorate_types::{
    Answer, Bytes, EntryKind, Event, GroupId, KeyRange, KeyspaceId, LeaseId, PartitionId, Request, Slot,
};

/// A keyspace of so many partitions, all led by the sequencer's node, and a key in each of them.
struct Scene {
    cluster: Cluster,
    keyspace: KeyspaceId,
    keys: Vec<String>,
}

impl Scene {
    fn new(partitions: u32, leader: usize) -> Self {
        Self::of(3, partitions, leader)
    }

    fn of(nodes: usize, partitions: u32, leader: usize) -> Self {
        let mut cluster = Cluster::of(nodes, 7);
        let keyspace = cluster.create("orders", partitions, None).unwrap();
        cluster.take_over(leader, GroupId::META);
        cluster.seconds(2);
        let mut scene = Self::over(cluster, keyspace);
        scene.assert_led(leader);
        scene
    }

    /// A key in each partition of a keyspace.
    fn over(mut cluster: Cluster, keyspace: KeyspaceId) -> Self {
        let map = cluster.host(0).maps().find(|map| map.id == keyspace).unwrap().clone();
        let partitions = map.partitions.len() as u32;
        let key_of = |partition: u32| {
            let slots = &map.partition(PartitionId(partition)).unwrap().slots;
            let mut keys = (0..).map(|number| format!("/{partition}/{number}/"));
            keys.find(|key| slots.contains(Slot::of(key.as_bytes()))).unwrap()
        };
        let keys = (0..partitions).map(key_of).collect();
        Self { cluster, keyspace, keys }
    }

    fn group(&self, partition: u32) -> GroupId {
        GroupId { keyspace: self.keyspace, partition: PartitionId(partition) }
    }

    /// The node is the sequencer's, leads all partitions, and all of them can draw revisions.
    #[track_caller]
    fn assert_led(&mut self, at: usize) {
        for partition in 0..self.keys.len() as u32 {
            let group = self.group(partition);
            assert!(self.cluster.status(at, group).is_registered, "{group} at node {}", at + 1);
        }
    }

    fn ticks(&mut self, count: u64) {
        (0..count).for_each(|_| self.cluster.tick());
    }

    /// Waits for a read barrier; after so many ticks nothing is lost any more.
    fn granted(&mut self, ticket: Ticket, losing_ticks: u64) -> Grant {
        for tick in 0.. {
            if tick == losing_ticks {
                self.cluster.losing = None;
            }
            self.cluster.deliver();
            if let Some(grant) = self.cluster.grants.remove(&ticket) {
                return grant.unwrap();
            }
            self.cluster.tick();
        }
        panic!("{ticket:?} was not granted")
    }

    /// A transaction that puts the keys of these partitions; the first of them is its home.
    fn puts(&self, partitions: &[usize]) -> TxnRequest {
        let put = |partition: &usize| {
            Operation::Put(PutRequest {
                key: self.keys[*partition].clone().into(),
                value: Some(Bytes::from_static(b"of the transaction")),
                lease: PutLease::Detach,
                previous: false,
            })
        };
        TxnRequest { success: partitions.iter().map(put).collect(), ..TxnRequest::default() }
    }

    /// Which of the keys are there, as a leader says.
    fn found(&mut self) -> Vec<bool> {
        let (keys, keyspace) = (self.keys.clone(), self.keyspace);
        let is_there = |key: &String| cluster::count(self.cluster.request(0, keyspace, get(key))) == 1;
        keys.iter().map(is_there).collect()
    }

    /// The keys that a node's watchers were told of, in order; nothing may have been left for them to read.
    #[track_caller]
    fn told(&self, at: usize) -> Vec<String> {
        let of_keyspace = self.cluster.told[at].iter().filter(|(keyspace, _)| *keyspace == self.keyspace);
        let mut keys = Vec::new();
        for (_, applied) in of_keyspace {
            for changes in &applied.changes {
                keys.extend(changes.events.iter().map(|event| match event {
                    Event::Put(pair) => String::from_utf8(pair.key.to_vec()).unwrap(),
                    Event::Delete { key, .. } => panic!("{key:?} was deleted"),
                }));
            }
        }
        keys
    }
}

/// A sequencer does not know which revisions an earlier one gave out. Were a leader registered while such a one is still on its way through its
/// log, later ones would be settled before it, and no watcher would be told of it.
#[test]
fn a_leader_registers_when_all_of_its_log_is_applied() {
    let mut scene = Scene::new(2, 0);
    let (first, second) = (scene.group(0), scene.group(1));
    let term = scene.cluster.status(0, first).consensus.term;
    scene.cluster.lose(move |_, _, message| brings(message, first, EntryKind::Write));
    let request = put(&scene.keys[0].clone(), 1);
    scene.cluster.ask(0, scene.keyspace, request);
    scene.cluster.deliver();
    // The sequencer's office goes away and comes back; the partition's leader stays.
    scene.cluster.take_over(1, GroupId::META);
    scene.cluster.take_over(0, GroupId::META);
    let later = put(&scene.keys[1].clone(), 1);
    scene.cluster.request(0, scene.keyspace, later).unwrap();
    assert!(scene.cluster.status(0, second).is_registered);
    scene.ticks(10);
    scene.cluster.losing = None;
    scene.cluster.seconds(2);
    assert_eq!(scene.cluster.status(0, first).consensus.term, term);
    for at in 0..3 {
        assert_eq!(scene.told(at), scene.keys, "node {}", at + 1);
    }
}

/// A transaction that was decided under an earlier sequencer ends, in another partition, under a later one that has never heard of its
/// revision. What is settled must wait for it, or watchers are told half of it.
#[test]
fn what_is_settled_waits_for_what_its_leader_prepared_under_an_earlier_sequencer() {
    let mut scene = Scene::new(2, 0);
    let (home, other) = (scene.group(0), scene.group(1));
    let term = scene.cluster.status(0, other).consensus.term;
    let is_commit = move |message: &PeerMessage| brings(message, other, EntryKind::Commit);
    scene.cluster.lose(move |_, _, message| brings(message, home, EntryKind::Decide) || is_commit(message));
    let txn = Request::Txn(scene.puts(&[0, 1]));
    scene.cluster.ask(0, scene.keyspace, txn);
    scene.cluster.deliver();
    scene.cluster.take_over(1, GroupId::META);
    scene.cluster.take_over(0, GroupId::META);
    scene.ticks(10);
    assert!(scene.cluster.status(0, other).is_registered);
    assert!(!scene.cluster.status(0, home).is_registered, "its decision is not applied");
    // Now it is decided, and ends in the other partition later than the next revision is given out.
    scene.cluster.lose(move |_, _, message| is_commit(message));
    let later = put("/0/later", 1);
    scene.cluster.request(0, scene.keyspace, later).unwrap();
    scene.ticks(10);
    scene.cluster.losing = None;
    scene.cluster.seconds(2);
    assert_eq!(scene.cluster.status(0, other).consensus.term, term);
    for at in 0..3 {
        assert_eq!(scene.told(at), [&scene.keys[0], &scene.keys[1], "/0/later"], "node {}", at + 1);
    }
}

/// A leader on another node than the sequencer names what it found prepared when it registers. When that ends before the answer comes, it has to say so
/// then: nothing is settled before.
#[test]
fn a_leader_elsewhere_tells_that_what_it_named_has_ended() {
    let mut cluster = Cluster::with(3, 7, |options| options.spread_leaders = true);
    let keyspace = cluster.create("orders", 2, None).unwrap();
    let mut scene = Scene::over(cluster, keyspace);
    scene.cluster.take_over(0, GroupId::META);
    let (home, other) = (scene.group(0), scene.group(1));
    [home, other].into_iter().for_each(|group| scene.cluster.take_over(1, group));
    scene.cluster.seconds(2);
    scene.assert_led(1);
    let is_end = move |message: &PeerMessage| {
        brings(message, home, EntryKind::Decide) || brings(message, other, EntryKind::Commit)
    };
    let is_answer = |message: &PeerMessage| matches!(message, PeerMessage::Drawn { .. });
    scene.cluster.lose(move |_, _, message| is_end(message));
    let txn = Request::Txn(scene.puts(&[0, 1]));
    scene.cluster.ask(1, keyspace, txn);
    scene.ticks(3);
    // It registers with a later sequencer, is not answered, and the transaction ends.
    scene.cluster.lose(move |_, _, message| is_end(message) || is_answer(message));
    scene.cluster.take_over(2, GroupId::META);
    scene.cluster.take_over(0, GroupId::META);
    scene.ticks(10);
    scene.cluster.lose(move |_, _, message| is_answer(message));
    scene.ticks(20);
    scene.cluster.losing = None;
    scene.ticks(20);
    assert!(scene.cluster.status(1, other).is_registered);
    scene.cluster.request(1, keyspace, put("/0/later", 1)).unwrap();
    scene.cluster.seconds(2);
    for at in 0..3 {
        assert_eq!(scene.told(at).last().map(String::as_str), Some("/0/later"), "node {}", at + 1);
    }
}

/// Another leader commits what the one on the sequencer's node has proposed, before that knows that it is deposed: whoever hears of it then, by a watch on
/// another node, has to see it when it reads.
#[test]
fn what_another_leader_commits_is_not_shown_before_the_sequencer_knows_of_it() {
    let mut scene = Scene::new(2, 0);
    let first = scene.group(0);
    let keyspace = scene.keyspace;
    // The entry comes to the others; that they have it does not come to its leader.
    scene.cluster.lose(move |_, to, message| to == 0 && of_group(message, first).is_some());
    scene.cluster.ask(0, keyspace, put(&scene.keys[0].clone(), 1));
    scene.cluster.deliver();
    scene.cluster.take_over(1, first);
    // Its next heartbeats say what is committed.
    scene.ticks(8);
    let ticket = Ticket(1 << 40);
    scene.cluster.host(0).barrier(ticket, keyspace, Vec::new(), IfBehind::Wait).unwrap();
    let shown = [1, 2].map(|at| scene.told(at));
    let revision = scene.granted(ticket, 5).revision;
    let reader = scene.cluster.host(0).reader(keyspace).unwrap();
    let key = KeyRange::Single(scene.keys[0].clone().into());
    let found = reader.range(&RangeRequest::new(key), revision).unwrap().1.count;
    assert!(found == 1 || shown.iter().all(Vec::is_empty), "{shown:?} was shown, and not read at {revision}");
    scene.cluster.losing = None;
    scene.cluster.seconds(2);
    for at in 0..3 {
        assert_eq!(scene.told(at), scene.keys[..1], "node {}", at + 1);
    }
}

/// A reader is told to wait for the entry that ends a transaction in a partition. Another leader's entry takes its place there; the end comes later.
#[test]
fn a_read_does_not_take_another_leaders_entry_for_the_one_it_waits_for() {
    let mut scene = Scene::new(2, 0);
    let other = scene.group(1);
    scene.cluster.lose(move |_, _, message| brings(message, other, EntryKind::Commit));
    let txn = Request::Txn(scene.puts(&[0, 1]));
    scene.cluster.request(0, scene.keyspace, txn).unwrap();
    let ticket = Ticket(1 << 32);
    let keyspace = scene.keyspace;
    scene.cluster.host(1).barrier(ticket, keyspace, Vec::new(), IfBehind::Wait).unwrap();
    scene.ticks(1);
    assert!(!scene.cluster.grants.contains_key(&ticket), "the end is not applied");
    scene.cluster.lose(move |from, to, message| of_group(message, other).is_some() && (from == 0 || to == 0));
    scene.cluster.take_over(1, other);
    let grant = scene.granted(ticket, 2);
    let reader = scene.cluster.host(1).reader(keyspace).unwrap();
    let (_, answer) = reader.range(&RangeRequest::new(KeyRange::all()), grant.revision).unwrap();
    assert_eq!(answer.count, 2, "both of what the transaction put");
}

/// A leader was deposed in its partition and does not know it, and the office has been elsewhere, where others were registered and wrote, and is
/// back on its node.
#[test]
fn a_leader_that_is_not_registered_does_not_answer_a_read() {
    let (old, new) = (0, 1);
    let mut scene = Scene::new(2, old);
    let (other, keyspace, key) = (scene.group(1), scene.keyspace, scene.keys[1].clone());
    scene
        .cluster
        .lose(move |from, to, message| of_group(message, other).is_some() && (from == old || to == old));
    for group in [other, GroupId::META] {
        scene.cluster.take_over(new, group);
    }
    scene.cluster.request(new, keyspace, put(&key, 1)).unwrap();
    scene.cluster.take_over(old, GroupId::META);
    assert!(scene.cluster.status(old, other).is_serving, "it does not know yet");
    let ticket = Ticket(1 << 32);
    let range = KeyRange::Single(key.into());
    scene.cluster.host(old).barrier(ticket, keyspace, vec![range.clone()], IfBehind::Wait).unwrap();
    let grant = scene.granted(ticket, 5);
    let reader = scene.cluster.host(old).reader(keyspace).unwrap();
    let (_, answer) = reader.range(&RangeRequest::new(range), grant.revision).unwrap();
    assert_eq!(answer.count, 1);
}

/// What a leader has answered rests on an entry that nobody else has. Before the answer may leave, the leader is deposed, its entry replaced, and
/// it is elected again.
#[test]
fn an_answer_that_changes_nothing_is_not_given_in_a_later_term() {
    let mut scene = Scene::new(2, 0);
    let (other, keyspace, key) = (scene.group(1), scene.keyspace, scene.keys[1].clone());
    let term = scene.cluster.status(0, other).consensus.term;
    scene.cluster.lose(move |_, to, message| {
        let is_of_office =
            matches!(of_group(message, GroupId::META), Some(Message::HeartbeatResponse { .. }));
        brings(message, other, EntryKind::Write) || is_of_office && to == 0
    });
    scene.cluster.ask(0, keyspace, put(&key, 1));
    let asked = scene.cluster.ask(0, keyspace, get(&key));
    scene.cluster.deliver();
    scene.cluster.take_over(1, other);
    scene.ticks(4);
    // To register it needs the word of the others, as the answer does.
    scene.cluster.lose(move |_, _, message| brings(message, other, EntryKind::Write));
    scene.ticks(8);
    let again = scene.cluster.status(0, other);
    assert!(again.is_registered && again.consensus.term > term, "it was led elsewhere meanwhile");
    scene.cluster.losing = None;
    let outcome = scene.cluster.answer(asked);
    assert_eq!(cluster::count(outcome), 0, "nobody put it");
}

/// A follower acknowledges entries that another leader's take the place of. When their leader is elected again its log is shorter, and what that
/// follower is known to have held says nothing of what is written now: it is in a newer sequencer's epoch already.
#[test]
fn what_was_acknowledged_before_does_not_confirm_what_is_written_now() {
    let (old, new, outdated) = (0, 1, 3);
    let mut scene = Scene::of(5, 2, old);
    let (first, other, keyspace) = (scene.group(0), scene.group(1), scene.keyspace);
    let [earlier, later] = [0, 1].map(|partition| put(&scene.keys[partition], 1));
    scene.cluster.lose(move |_, to, message| brings(message, other, EntryKind::Write) && to != new);
    for _ in 0..9 {
        scene.cluster.ask(old, keyspace, later.clone());
    }
    scene.cluster.deliver();
    let long = scene.cluster.status(new, other).consensus.last;
    scene.cluster.take_over(2, other);
    scene.ticks(10);
    assert!(scene.cluster.status(old, other).is_registered, "it is elected again");
    let is_cut = move |from: usize, to: usize, message: &PeerMessage| {
        let is_one = |at: usize| at == old || at == outdated;
        of_group(message, GroupId::META).is_some() && is_one(from) != is_one(to)
    };
    scene.cluster.lose(is_cut);
    for group in [GroupId::META, first] {
        scene.cluster.take_over(new, group);
    }
    let earlier = scene.cluster.request(new, keyspace, earlier).unwrap().revision;
    let status = scene.cluster.status(old, other);
    assert!(status.is_registered && status.consensus.last.index < long.index, "it does not know yet");
    if let Ok(reply) = scene.cluster.request(old, keyspace, later) {
        assert!(reply.revision > earlier, "{:?} was asked for after {earlier:?} was there", reply.revision);
    }
}

/// Locks of what is only read are in memory. Its leader loses its office and wins it again; in between somebody writes what was read.
#[test]
fn a_transaction_is_not_decided_by_a_vote_of_an_earlier_term() {
    let mut scene = Scene::new(3, 0);
    let (read, slow) = (scene.group(1), scene.group(2));
    let is_absent = Compare {
        range: KeyRange::Single(scene.keys[1].clone().into()),
        result: CompareResult::Equal,
        target: CompareTarget::Version(0),
    };
    scene.cluster.lose(move |_, _, message| brings(message, slow, EntryKind::Prepare));
    let txn = TxnRequest { compares: vec![is_absent], ..scene.puts(&[0, 2]) };
    let asked = scene.cluster.ask(0, scene.keyspace, Request::Txn(txn));
    scene.cluster.deliver();
    let term = scene.cluster.status(0, read).consensus.term;
    scene.cluster.take_over(1, read);
    scene.ticks(1);
    let again = scene.cluster.status(0, read);
    assert!(again.is_registered && again.consensus.term > term, "it was led elsewhere meanwhile");
    let written = put(&scene.keys[1].clone(), 1);
    scene.cluster.request(0, scene.keyspace, written).unwrap();
    scene.cluster.losing = None;
    let Answer::Txn(answer) = scene.cluster.answer(asked).unwrap().answer else { panic!() };
    assert!(!answer.succeeded, "the key was there before");
    assert_eq!(scene.found(), [false, true, false]);
}

/// One participant has the decision, another loses it with its leader, and asks.
#[test]
fn a_decision_is_kept_until_all_have_it() {
    let mut scene = Scene::new(3, 0);
    let late = scene.group(2);
    scene.cluster.lose(move |_, _, message| brings(message, late, EntryKind::Commit));
    let txn = Request::Txn(scene.puts(&[0, 1, 2]));
    scene.cluster.request(0, scene.keyspace, txn).unwrap();
    // Time to forget it.
    scene.ticks(20);
    scene.cluster.lose(move |from, to, message| of_group(message, late).is_some() && (from == 0 || to == 0));
    scene.cluster.take_over(1, late);
    scene.cluster.losing = None;
    scene.cluster.seconds(3);
    assert_eq!(scene.found(), [true; 3]);
}

/// Locks are taken one after the other, which takes so long that who gave the first asks how it ended. It may yet be decided.
#[test]
fn who_asks_while_votes_are_awaited_is_not_told_that_there_is_no_decision() {
    let mut scene = Scene::new(4, 0);
    let [first, second, third] = [1, 2, 3].map(|partition| scene.group(partition));
    // Another transaction holds locks, so the attempt goes in order.
    scene.cluster.lose(move |_, _, message| brings(message, first, EntryKind::Decide));
    let before = Request::Txn(scene.puts(&[1, 2]));
    scene.cluster.ask(0, scene.keyspace, before);
    scene.cluster.deliver();
    let txn = Request::Txn(scene.puts(&[0, 1, 2, 3]));
    let asked = scene.cluster.ask(0, scene.keyspace, txn);
    scene.cluster.deliver();
    let is_prepare = move |message: &PeerMessage, id| brings(message, id, EntryKind::Prepare);
    scene.cluster.lose(move |_, _, message| is_prepare(message, second) || is_prepare(message, third));
    scene.ticks(20);
    scene.cluster.lose(move |_, _, message| is_prepare(message, third));
    scene.ticks(15);
    scene.cluster.losing = None;
    scene.cluster.answer(asked).unwrap();
    scene.cluster.seconds(2);
    let [home, one, two, three] = [0, 1, 2, 3].map(|partition| scene.keys[partition].clone());
    assert_eq!(scene.told(0), [one.clone(), two.clone(), home, one, two, three]);
}

/// A participant's new leader asks the one whom it takes for the home's leader: itself, which was deposed there before the attempt began and
/// does not know it. It cannot know what was decided since.
#[test]
fn a_deposed_leader_of_the_home_does_not_say_how_a_later_attempt_ended() {
    let (new, old) = (0, 1);
    let mut scene = Scene::new(3, old);
    let (home, other, slow) = (scene.group(0), scene.group(1), scene.group(2));
    let is_cut = move |from: usize, to: usize, message: &PeerMessage| {
        let is_of = of_group(message, GroupId::META).or(of_group(message, home)).is_some();
        is_of && (from == old || to == old)
    };
    scene.cluster.lose(is_cut);
    for group in [GroupId::META, home, other, slow] {
        scene.cluster.take_over(new, group);
    }
    scene.ticks(10);
    scene.assert_led(new);
    assert!(scene.cluster.status(old, home).is_serving, "it does not know yet");
    scene.cluster.lose(move |from, to, message| {
        is_cut(from, to, message) || brings(message, slow, EntryKind::Prepare)
    });
    let txn = Request::Txn(scene.puts(&[0, 1, 2]));
    let asked = scene.cluster.ask(new, scene.keyspace, txn);
    scene.cluster.deliver();
    scene.cluster.take_over(old, other);
    assert!(scene.cluster.status(old, home).is_serving, "it is who was asked");
    scene.cluster.lose(is_cut);
    scene.cluster.answer(asked).unwrap();
    scene.cluster.losing = None;
    scene.cluster.seconds(3);
    assert_eq!(scene.found(), [true; 3]);
}

/// The home's new leader has a decision to tell, and tells the one whom it takes for the participant's leader: itself, which was deposed there before
/// the transaction was prepared. That it has nothing of it does not mean that it is over.
#[test]
fn a_deposed_leader_does_not_acknowledge_a_decision_that_it_never_heard_of() {
    let (new, old, third) = (0, 1, 2);
    let mut scene = Scene::new(2, old);
    let (home, other) = (scene.group(0), scene.group(1));
    let is_cut = move |from: usize, to: usize, message: &PeerMessage| {
        let is_of = of_group(message, GroupId::META).or(of_group(message, other)).is_some();
        is_of && (from == old || to == old)
    };
    scene.cluster.lose(is_cut);
    for group in [GroupId::META, home, other] {
        scene.cluster.take_over(new, group);
    }
    scene.ticks(10);
    scene.assert_led(new);
    scene.cluster.lose(move |from, to, message| {
        is_cut(from, to, message) || brings(message, other, EntryKind::Commit)
    });
    let txn = Request::Txn(scene.puts(&[0, 1]));
    scene.cluster.request(new, scene.keyspace, txn).unwrap();
    assert!(scene.cluster.status(old, other).is_serving, "it does not know yet");
    scene.cluster.take_over(old, home);
    // Time to forget it.
    scene.ticks(10);
    // Who has the end in its log, and nobody else has it, is not heard of for a while.
    scene.cluster.losing = None;
    scene.cluster.cut.push(new);
    scene.cluster.take_over(third, other);
    scene.cluster.seconds(3);
    scene.cluster.cut.clear();
    scene.cluster.seconds(3);
    assert_eq!(scene.found(), [true; 2]);
}

/// The sequencer's node is being sent the state of a partition that others lead still. What it had settled before, it cannot tell where in that
/// partition's log others have it, too.
#[test]
fn a_node_whose_partition_is_being_replaced_does_not_say_what_is_settled() {
    let (replaced, behind) = (1, 2);
    let mut scene = Scene::of(5, 2, 0);
    let (slow, keyspace, key) = (scene.group(1), scene.keyspace, scene.keys[1].clone());
    let is_slow = move |message: &PeerMessage| of_group(message, slow).is_some();
    scene.cluster.lose(move |_, to, message| is_slow(message) && to == behind);
    let written = scene.cluster.request(0, keyspace, put(&key, 1)).unwrap().revision;
    scene.cluster.seconds(2);
    let settled = |scene: &mut Scene, at| scene.cluster.host(at).reader(keyspace).unwrap().revision();
    assert!(settled(&mut scene, replaced) >= written && settled(&mut scene, behind) < written);
    // So much that the log does not go back to before it.
    scene.cluster.lose(move |_, to, message| is_slow(message) && (to == behind || to == replaced));
    for _ in 0..200 {
        scene.cluster.request(0, keyspace, put(&key, 200)).unwrap();
    }
    // It would hand the sequencer over.
    let hands_over =
        |message: &PeerMessage| matches!(of_group(message, GroupId::META), Some(Message::TimeoutNow { .. }));
    let is_lost = move |from, to, message: &PeerMessage| {
        is_slow(message) && to == behind
            || matches!(message, PeerMessage::SnapshotChunk { .. })
            || from == replaced && hands_over(message)
    };
    scene.cluster.lose(is_lost);
    scene.cluster.seconds(1);
    scene.cluster.take_over(replaced, GroupId::META);
    // Until the answer that it has from the sequencer of before is given up.
    scene.cluster.seconds(8);
    assert!(scene.cluster.status(replaced, GroupId::META).is_serving);
    assert_eq!(scene.cluster.status(replaced, slow).digest, None, "its state is being replaced");
    assert!(settled(&mut scene, behind) < written);
    scene.cluster.lose(move |from, _, message| from == replaced && hands_over(message));
    scene.cluster.seconds(5);
    scene.assert_led(replaced);
    assert!(settled(&mut scene, behind) > written);
    assert_eq!(scene.found(), [false, true]);
}

/// A lease runs out while a transaction has locked a key of it, so it cannot end. Then it is renewed, and then the lock goes.
#[test]
fn a_lease_that_is_renewed_while_its_end_has_to_wait_lives_on() {
    let mut scene = Scene::new(2, 0);
    let (home, keyspace) = (scene.group(0), scene.keyspace);
    let map = scene.cluster.host(0).maps().find(|map| map.id == keyspace).unwrap().clone();
    let slots = &map.partition(PartitionId(1)).unwrap().slots;
    let mut leases = (1..).filter_map(LeaseId::new);
    let lease = leases.find(|lease| slots.contains(Slot::of_lease(*lease))).unwrap();
    scene.cluster.request(0, keyspace, Request::LeaseGrant { lease, ttl_seconds: 2 }).unwrap();
    let leased = PutRequest {
        key: scene.keys[1].clone().into(),
        value: Some(Bytes::from_static(b"leased")),
        lease: PutLease::Attach(lease),
        previous: false,
    };
    scene.cluster.request(0, keyspace, Request::Put(leased)).unwrap();
    scene.cluster.lose(move |_, _, message| brings(message, home, EntryKind::Decide));
    let txn = Request::Txn(scene.puts(&[0, 1]));
    let asked = scene.cluster.ask(0, keyspace, txn);
    scene.cluster.seconds(4);
    // What waits and is late is dropped every ten ticks: just after that.
    while !scene.cluster.host(0).now().0.is_multiple_of(10) {
        scene.cluster.tick();
    }
    scene.cluster.tick();
    let keep_alive = Request::LeaseKeepAlive { lease };
    let kept = scene.cluster.request(0, keyspace, keep_alive).unwrap().answer;
    assert_eq!(kept, Answer::LeaseKeepAlive { ttl_seconds: Some(2) });
    scene.cluster.losing = None;
    scene.cluster.answer(asked).unwrap();
    scene.ticks(5);
    let time = Request::LeaseTimeToLive { lease, with_keys: false };
    let Answer::LeaseTimeToLive(time) = scene.cluster.request(0, keyspace, time).unwrap().answer else {
        panic!()
    };
    assert!(time.is_some());
}
