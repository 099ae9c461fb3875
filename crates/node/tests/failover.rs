//! Nodes that die or come back while others have sent them requests. Partitions are dealt, so every node has some to which it only sends.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, get, put};
use quorate_consensus::Message;
use quorate_node::{Options, PeerMessage, Ticket};
use quorate_types::request::{Operation, TxnRequest};
use quorate_types::{GroupId, Incarnation, KeyspaceId, NodeId, PartitionId, Rejection, Request, Slot};
use std::collections::BTreeMap;

const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
const NODES: usize = 5;
const PARTITIONS: u32 = 12;
/// Within so many ticks clients are answered: an election timeout, if nothing was noticed at once, elections and registering. A request's deadline is
/// at 300.
const SOON: u64 = 80;
/// So long a leader that does not hear the sequencer may go on trying, and then it has handed over.
const PATIENCE: u64 = 80;
/// Within so many where nobody has to be elected.
const SOON_WITHOUT_ELECTION: u64 = 10;

fn dealt(options: &mut Options) {
    options.partitions = PARTITIONS;
    options.replicas = 3;
    options.spread_replicas = true;
}

/// Five nodes, everything where it is to be, and every node knows who leads.
struct Dealt {
    cluster: Cluster,
    keys: Vec<String>,
}

impl Dealt {
    fn new(seed: u64) -> Self {
        let mut cluster = Cluster::with(NODES, seed, dealt);
        cluster.seconds(30);
        let map = cluster.host(0).maps().find(|map| map.id == KEYSPACE).unwrap().clone();
        let key_of = |partition: u32| {
            let slots = &map.partition(PartitionId(partition)).unwrap().slots;
            let mut keys = (0..).map(|number| format!("/{partition}/{number}/"));
            keys.find(|key| slots.contains(Slot::of(key.as_bytes()))).unwrap()
        };
        let keys = (0..PARTITIONS).map(key_of).collect();
        let mut dealt = Self { cluster, keys };
        let tickets = dealt.put(&[0, 1, 2, 3, 4]);
        let answered = dealt.answered(tickets, SOON);
        assert!(answered.values().all(|outcome| *outcome == Some(Ok(()))), "{answered:?}");
        dealt
    }

    /// Who leads a partition.
    fn leader(&mut self, partition: u32) -> usize {
        let group = GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) };
        (0..NODES)
            .find(|at| self.cluster.host(*at).status().iter().any(|it| it.group == group && it.is_serving))
            .unwrap()
    }

    /// A put in every partition, at each of these nodes.
    fn put(&mut self, nodes: &[usize]) -> BTreeMap<Ticket, (usize, u32)> {
        self.ask(nodes, |key| put(key, 10))
    }

    fn ask(&mut self, nodes: &[usize], request: impl Fn(&str) -> Request) -> BTreeMap<Ticket, (usize, u32)> {
        let mut tickets = BTreeMap::new();
        for at in nodes {
            for (partition, key) in (0..).zip(self.keys.clone()) {
                tickets.insert(self.cluster.ask(*at, KEYSPACE, request(&key)), (*at, partition));
            }
        }
        tickets
    }

    /// What these were answered, by node and partition, within so many ticks.
    fn answered(
        &mut self,
        tickets: BTreeMap<Ticket, (usize, u32)>,
        ticks: u64,
    ) -> BTreeMap<(usize, u32), Option<Result<(), Rejection>>> {
        for _ in 0..ticks {
            if tickets.keys().all(|ticket| self.cluster.answers.contains_key(ticket)) {
                break;
            }
            self.cluster.tick();
        }
        let answer = |(ticket, of)| {
            let outcome = self.cluster.answers.remove(&ticket);
            (of, outcome.map(|outcome| outcome.map(|_| ())))
        };
        tickets.into_iter().map(answer).collect()
    }

    fn others(at: usize) -> Vec<usize> {
        (0..NODES).filter(|other| *other != at).collect()
    }
}

/// They came in the moment after the connection broke. Whoever had no replica of their partitions knew no better than that the dead one led, sent them there, and
/// nobody answered them before their deadline: clients in closed loops stood still one after the other.
#[test]
fn writes_right_after_a_connection_broke_are_not_sent_to_who_is_gone() {
    for victim in 0..NODES {
        let mut dealt = Dealt::new(20 + victim as u64);
        dealt.cluster.crash(victim);
        let tickets = dealt.put(&Dealt::others(victim));
        let answered = dealt.answered(tickets, SOON);
        assert!(answered.values().all(|outcome| *outcome == Some(Ok(()))), "node {victim}: {answered:?}");
    }
}

/// No connection breaks: a machine without power says nothing. What was sent to it is given up when it counts as down.
#[test]
fn what_was_sent_to_who_falls_silent_is_given_up_with_it() {
    let mut dealt = Dealt::new(31);
    let victim = dealt.leader(0);
    dealt.cluster.cut = vec![victim];
    let tickets = dealt.put(&Dealt::others(victim));
    let answered = dealt.answered(tickets, SOON);
    for ((at, partition), outcome) in answered {
        let is_right = matches!(outcome, Some(Ok(()) | Err(Rejection::Unknown)));
        assert!(is_right, "node {at}, partition {partition}: {outcome:?}");
    }
    // Nobody sends there again.
    let tickets = dealt.put(&Dealt::others(victim));
    let answered = dealt.answered(tickets, SOON);
    assert!(answered.values().all(|outcome| *outcome == Some(Ok(()))), "{answered:?}");
}

/// The node lives and says so, and nothing that it leads gets anywhere: it has to hand over by itself, and is not handed anything until its disk answers.
#[test]
fn who_leads_on_a_disk_that_has_stopped_hands_over() {
    for victim in 0..NODES {
        let mut dealt = Dealt::new(50 + victim as u64);
        dealt.cluster.hung.insert(victim);
        let tickets = dealt.put(&Dealt::others(victim));
        let answered = dealt.answered(tickets, SOON);
        let is_right = |outcome: &Option<_>| matches!(outcome, Some(Ok(()) | Err(Rejection::Unknown)));
        assert!(answered.values().all(is_right), "node {victim}: {answered:?}");
        // Over several of the times at which leaders are handed to whom their rows name.
        for _ in 0..12 {
            dealt.cluster.seconds(1);
            let tickets = dealt.put(&Dealt::others(victim));
            let answered = dealt.answered(tickets, SOON_WITHOUT_ELECTION);
            assert!(answered.values().all(|outcome| *outcome == Some(Ok(()))), "node {victim}: {answered:?}");
        }
        assert!(dealt.cluster.host(victim).is_stalled());
        dealt.cluster.resume_disk(victim);
        assert!(!dealt.cluster.host(victim).is_stalled());
        dealt.cluster.seconds(30);
        let led = |at: usize, dealt: &mut Dealt| {
            (0..PARTITIONS).filter(|partition| dealt.leader(*partition) == at).count()
        };
        assert!(led(victim, &mut dealt) > 0, "node {victim} leads again");
    }
}

/// A leader is not heard by the sequencer's node, or does not hear it, and everybody else hears both: what it leads could not be written to for as long as that lasts.
#[test]
fn who_leads_and_does_not_hear_the_sequencer_hands_over() {
    let mut dealt = Dealt::new(61);
    let office = (0..NODES).find(|at| dealt.cluster.status(*at, GroupId::META).is_serving).unwrap();
    // With one that has a voice where revisions come from, and one that has none.
    let has_meta = |at: &usize, dealt: &mut Dealt| {
        dealt.cluster.host(*at).status().iter().any(|status| status.group == GroupId::META)
    };
    for victim in Dealt::others(office) {
        let led = |dealt: &mut Dealt| (0..PARTITIONS).any(|partition| dealt.leader(partition) == victim);
        assert!(led(&mut dealt), "node {victim} leads something, meta: {}", has_meta(&victim, &mut dealt));
        dealt.cluster.lose(move |from, to, _| from == office && to == victim);
        (0..PATIENCE).for_each(|_| dealt.cluster.tick());
        let nodes: Vec<usize> = Dealt::others(victim).into_iter().filter(|at| *at != office).collect();
        let tickets = dealt.put(&nodes);
        let answered = dealt.answered(tickets, SOON);
        assert!(answered.values().all(|outcome| *outcome == Some(Ok(()))), "node {victim}: {answered:?}");
        dealt.cluster.losing = None;
        dealt.cluster.seconds(30);
    }
}

/// A request or its answer gets lost on the way: what waits for a new connection is thrown away when that stands. Both ends live, so no
/// silence tells of it.
#[test]
fn a_request_or_an_answer_that_got_lost_is_asked_for() {
    type Lost = fn(&PeerMessage) -> bool;
    let kinds: [Lost; 2] = [
        |message| matches!(message, PeerMessage::Request { .. }),
        |message| matches!(message, PeerMessage::Reply { .. }),
    ];
    for is_lost in kinds {
        let mut dealt = Dealt::new(41);
        dealt.cluster.lose(move |_, _, message| is_lost(message));
        let writes = dealt.put(&[0]);
        let reads = dealt.ask(&[0], get);
        dealt.cluster.tick();
        dealt.cluster.losing = None;
        let answered = dealt.answered(writes, SOON);
        for (of, outcome) in &answered {
            assert!(matches!(outcome, Some(Ok(()) | Err(Rejection::Unknown))), "{of:?}: {outcome:?}");
        }
        assert!(
            answered.values().any(|outcome| *outcome == Some(Err(Rejection::Unknown))),
            "something was lost"
        );
        let answered = dealt.answered(reads, SOON);
        assert!(answered.values().all(|outcome| *outcome == Some(Ok(()))), "{answered:?}");
    }
}

/// It dies and is back before anybody has noticed: no connection was seen to break, and the new process knows nothing of what was sent to the old one.
#[test]
fn what_was_sent_to_who_begins_anew_is_given_up() {
    let mut dealt = Dealt::new(51);
    let victim = dealt.leader(0);
    // It had them in hand when it died.
    dealt
        .cluster
        .lose(move |from, _, message| from == victim && matches!(message, PeerMessage::Reply { .. }));
    let tickets = dealt.put(&Dealt::others(victim));
    dealt.cluster.deliver();
    dealt.cluster.losing = None;
    dealt.cluster.crash_unnoticed(victim);
    dealt.cluster.start(victim);
    let answered = dealt.answered(tickets, SOON);
    for ((at, partition), outcome) in answered {
        let is_right = matches!(outcome, Some(Ok(()) | Err(Rejection::Unknown)));
        assert!(is_right, "node {at}, partition {partition}: {outcome:?}");
    }
    let tickets = dealt.put(&[0, 1, 2, 3, 4]);
    let answered = dealt.answered(tickets, SOON);
    assert!(answered.values().all(|outcome| *outcome == Some(Ok(()))), "{answered:?}");
}

/// Writes that have their revisions and not yet their quorum when the sequencer changes cannot be confirmed any more. They waited for it until their
/// deadline all the same.
#[test]
fn writes_under_way_when_the_sequencer_dies_are_answered() {
    let mut dealt = Dealt::new(61);
    let sequencer = dealt.cluster.status(0, GroupId::META).consensus.leader.unwrap().0 as usize - 1;
    // Each partition's entries are there, and nobody says so.
    dealt.cluster.lose(|_, _, message| match message {
        PeerMessage::Group { group, message, .. } => {
            *group != GroupId::META && matches!(message, Message::Appended { .. })
        }
        _ => false,
    });
    let tickets = dealt.put(&Dealt::others(sequencer));
    dealt.cluster.deliver();
    dealt.cluster.crash(sequencer);
    dealt.cluster.losing = None;
    let answered = dealt.answered(tickets, SOON);
    for (of, outcome) in &answered {
        assert!(matches!(outcome, Some(Ok(()) | Err(Rejection::Unknown))), "{of:?}: {outcome:?}");
    }
    let tickets = dealt.put(&Dealt::others(sequencer));
    let answered = dealt.answered(tickets, SOON);
    assert!(answered.values().all(|outcome| *outcome == Some(Ok(()))), "{answered:?}");
}

/// The rows say that it is to lead what it led. Those that took over handed that back to it, which was not there any more, and nobody could write until
/// they gave that up, an election timeout later.
#[test]
fn who_has_just_died_or_handed_over_is_not_made_leader() {
    for is_stopped in [false, true] {
        let mut dealt = Dealt::new(71);
        let victim = dealt.leader(0);
        if is_stopped {
            while !dealt.cluster.host(victim).hand_over() {
                dealt.cluster.tick();
            }
            // Its last calls end.
            dealt.cluster.seconds(2);
            assert!(dealt.cluster.host(victim).hand_over(), "nobody gives it anything back");
        }
        dealt.cluster.crash(victim);
        // Each group has its turn to be handed to who shall lead it within two seconds.
        for _ in 0..25 {
            let tickets = dealt.put(&Dealt::others(victim));
            let answered = dealt.answered(tickets, SOON / 5);
            let is_wrong = |outcome: &Option<Result<(), Rejection>>| outcome.is_none();
            assert!(!answered.values().any(is_wrong), "stopped: {is_stopped}, {answered:?}");
        }
    }
}

/// It has nothing of that partition and knows of nobody who leads it, so it says nothing. A transaction went on asking it until its client's deadline.
#[test]
fn who_is_wrongly_said_to_lead_and_knows_nobody_is_not_asked_for_ever() {
    let mut dealt = Dealt::new(90);
    let group = |partition: u32| GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) };
    let mut has = |at: usize, partition: u32| {
        dealt.cluster.host(at).status().iter().any(|status| status.group == group(partition))
    };
    let pairs = (0..PARTITIONS).flat_map(|home| (0..PARTITIONS).map(move |other| (home, other)));
    let lacking: Vec<(u32, u32, Vec<usize>)> = pairs
        .map(|(home, other)| (home, other, (0..NODES).filter(|at| !has(*at, other)).collect()))
        .collect();
    let of_home = |(home, other, without): (u32, u32, Vec<usize>)| {
        let coordinator = dealt.leader(home);
        let wrong = without.iter().copied().find(|at| *at != coordinator)?;
        (home != other && without.contains(&coordinator)).then_some((home, other, coordinator, wrong))
    };
    let (home, other, coordinator, wrong) = lacking.into_iter().find_map(of_home).unwrap();
    dealt.cluster.lose(move |from, to, message| {
        (from, to) == (wrong, coordinator) && matches!(message, PeerMessage::Leaders { .. })
    });
    let said = PeerMessage::Leaders { leaders: vec![(group(other), NodeId(wrong as u64 + 1))] };
    let by = NodeId(wrong as u64 + 1);
    dealt.cluster.host(coordinator).receive(by, Incarnation(by.0), said).unwrap();
    let operation = |partition: u32| match put(&dealt.keys[partition as usize], 10) {
        Request::Put(put) => Operation::Put(put),
        other => panic!("not a put: {other:?}"),
    };
    let success = vec![operation(home), operation(other)];
    let request = Request::Txn(TxnRequest { success, ..TxnRequest::default() });
    let ticket = dealt.cluster.ask(coordinator, KEYSPACE, request);
    let answered = dealt.answered(BTreeMap::from([(ticket, (coordinator, home))]), SOON);
    assert_eq!(answered[&(coordinator, home)], Some(Ok(())));
}
