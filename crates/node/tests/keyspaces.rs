//! Several keyspaces in one cluster: created, deleted, limited; with crashes in between.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

mod cluster;

use cluster::{Cluster, count, get, new, put};
use quorate_mvcc::engine::{Read, Table};
use quorate_node::administration::Step;
use quorate_node::{Administration, Order, Refused, Ticket};
use quorate_storage::wal::{Wal, WalOptions};
use quorate_types::map::PARTITIONS_MAX;
use quorate_types::request::{DeleteRequest, RangeRequest};
use quorate_types::{
    Bytes, GroupId, Incarnation, Index, KeyRange, KeyspaceId, MapError, NodeId, PartitionId, Rejection,
    Request, Revision,
};
use std::ops::Bound;

impl Cluster {
    /// Rows of a keyspace in a node's store.
    fn rows(&self, at: usize, keyspace: KeyspaceId) -> usize {
        let bound = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
        let range = || (Bound::Included(bound(keyspace.0)), Bound::Excluded(bound(keyspace.0 + 1)));
        Table::ALL.iter().map(|table| self.nodes[at].engine.scan(*table, range()).count()).sum()
    }

    /// Groups of a keyspace that a node's log knows, when it is opened again.
    fn logs(&mut self, at: usize, keyspace: KeyspaceId) -> usize {
        let disk = self.nodes[at].disk.clone();
        let (_, logs, _) = Wal::open(disk, at as u64 + 1, WalOptions { segment_bytes: 16 << 10 }).unwrap();
        logs.keys().filter(|group| group.keyspace == keyspace).count()
    }

    #[track_caller]
    fn assert_gone(&mut self, keyspace: KeyspaceId) {
        for at in 0..3 {
            let groups =
                self.host(at).status().iter().filter(|status| status.group.keyspace == keyspace).count();
            let left = (groups, self.rows(at, keyspace), self.logs(at, keyspace));
            assert_eq!(left, (0, 0, 0), "groups, rows and logs of keyspace {keyspace} on node {}", at + 1);
        }
    }
}

#[test]
fn keyspaces_have_keys_and_revisions_of_their_own() {
    let mut cluster = Cluster::new(1);
    let orders = cluster.create("orders", 1, None).unwrap();
    let users = cluster.create("users", 4, None).unwrap();
    assert_eq!((orders, users), (KeyspaceId(2), KeyspaceId(3)));
    assert_eq!(cluster.names(), ["default", "orders", "users"]);
    for revision in 2..10 {
        assert_eq!(cluster.put(orders, "/a", 1), Ok(Revision(revision)));
    }
    let first = cluster.put(users, "/a", 1).unwrap();
    assert_eq!(cluster.put(users, "/b/c", 1), Ok(first.next()));
    assert_eq!(cluster.put(KeyspaceId::DEFAULT, "/a", 1), Ok(Revision(2)));
    assert_eq!(count(cluster.request(1, orders, get("/b/c"))), 0);
    assert_eq!(count(cluster.request(2, users, get("/b/c"))), 1);
    // A revision of another keyspace is one that this one has not reached, or has forgotten.
    let asked = RangeRequest { revision: Some(9), ..RangeRequest::new(KeyRange::all()) };
    let refused = cluster.request(1, KeyspaceId::DEFAULT, Request::Range(asked));
    assert_eq!(refused, Err(Rejection::FutureRevision { asked: 9, newest: Revision(2) }));
    cluster.request(0, orders, Request::Compact { revision: 9, physical: false }).unwrap();
    let asked = RangeRequest { revision: Some(2), ..RangeRequest::new(KeyRange::all()) };
    assert_eq!(count(cluster.request(1, KeyspaceId::DEFAULT, Request::Range(asked.clone()))), 1);
    let refused = cluster.request(1, orders, Request::Range(asked));
    assert_eq!(refused, Err(Rejection::Compacted { asked: 2, oldest: Revision(9) }));
    let refused = cluster.request(1, KeyspaceId(4), get("/a"));
    assert_eq!(refused, Err(Rejection::KeyspaceNotFound));
}

#[test]
fn a_deleted_keyspace_leaves_no_rows_and_no_log_and_its_name_is_free() {
    for partitions in [1, 3] {
        let mut cluster = Cluster::new(2);
        let orders = cluster.create("orders", partitions, None).unwrap();
        for number in 0..50 {
            cluster.put(orders, &format!("/d{number}/k"), 100).unwrap();
        }
        assert_eq!(cluster.delete("orders"), Ok(orders));
        assert_eq!(cluster.names(), ["default"]);
        cluster.seconds(3);
        cluster.assert_gone(orders);
        assert_eq!(cluster.put(orders, "/a", 1), Err(Rejection::KeyspaceNotFound));
        // Nothing of it is left in the system keyspace, either.
        let rows = RangeRequest::new(KeyRange::prefix("sequence/"));
        assert_eq!(count(cluster.request(0, KeyspaceId::SYSTEM, Request::Range(rows))), 0);
        let again = cluster.create("orders", partitions, None).unwrap();
        assert_eq!(again, KeyspaceId(3), "an id is not used twice");
        assert_eq!(count(cluster.request(0, again, get("/d1/k"))), 0);
        cluster.put(again, "/a", 1).unwrap();
    }
}

#[test]
fn who_waits_in_a_keyspace_that_is_deleted_is_told() {
    let mut cluster = Cluster::new(3);
    let orders = cluster.create("orders", 2, None).unwrap();
    let waiting: Vec<Ticket> =
        (0..30).map(|at| cluster.ask(at % 3, orders, put(&format!("/{at}/k"), 9))).collect();
    let reading: Vec<Ticket> = (0..30).map(|at| cluster.ask(at % 3, orders, get("/0/k"))).collect();
    cluster.delete("orders").unwrap();
    for ticket in waiting.into_iter().chain(reading) {
        match cluster.answer(ticket) {
            Ok(_) | Err(Rejection::KeyspaceNotFound | Rejection::Unknown) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn crashes_at_any_step_bring_nothing_back() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(100 + seed);
        let orders = cluster.create("orders", 1 + (seed % 3) as u32, None).unwrap();
        for number in 0..40 {
            cluster.put(orders, &format!("/d{number}/k"), 50).unwrap();
        }
        cluster.put(KeyspaceId::DEFAULT, "/kept", 1).unwrap();
        // Stores that are not flushed fall far behind their logs.
        cluster.flushes = seed % 2 == 0;
        cluster.delete("orders").unwrap();
        for _ in 0..4 {
            for _ in 0..cluster.draw(12) {
                cluster.tick();
            }
            let at = cluster.draw(3) as usize;
            cluster.crash(at);
            for _ in 0..cluster.draw(30) {
                cluster.tick();
            }
            cluster.start(at);
        }
        cluster.flushes = true;
        for at in 0..3 {
            // A flush that was asked for while there were none will not be reported.
            if seed % 2 == 1 {
                cluster.flush(at);
            }
        }
        cluster.seconds(6);
        cluster.assert_gone(orders);
        assert_eq!(count(cluster.request(0, KeyspaceId::DEFAULT, get("/kept"))), 1);
        assert_eq!(cluster.names(), ["default"]);
        // The whole machine room.
        (0..3).for_each(|at| cluster.crash(at));
        (0..3).for_each(|at| cluster.start(at));
        cluster.seconds(4);
        cluster.assert_gone(orders);
        assert_eq!(cluster.create("orders", 1, None), Ok(KeyspaceId(3)));
    }
}

#[test]
fn a_node_that_was_down_cleans_up_when_it_comes_back() {
    // So many entries of the system keyspace since that it gets a snapshot instead of the log.
    for others in [0, 200] {
        let mut cluster = Cluster::new(7);
        let orders = cluster.create("orders", 3, None).unwrap();
        for number in 0..50 {
            cluster.put(orders, &format!("/d{number}/k"), 100).unwrap();
        }
        cluster.crash(2);
        cluster.seconds(2);
        cluster.delete("orders").unwrap();
        for number in 0..others {
            cluster.put(KeyspaceId::SYSTEM, &format!("other/{number}"), 500).unwrap();
        }
        cluster.seconds(2);
        assert!(cluster.rows(2, orders) > 0, "it holds all of it still");
        cluster.start(2);
        cluster.seconds(6);
        cluster.assert_gone(orders);
    }
}

#[test]
fn deleted_keyspaces_do_not_pin_the_log() {
    let mut cluster = Cluster::new(8);
    for round in 0..20 {
        let name = format!("k{round}");
        let keyspace = cluster.create(&name, 2, None).unwrap();
        for number in 0..30 {
            cluster.put(keyspace, &format!("/d{number}/k"), 300).unwrap();
        }
        cluster.delete(&name).unwrap();
        cluster.seconds(1);
    }
    cluster.seconds(2);
    for node in &cluster.nodes {
        let bytes = node.running.as_ref().unwrap().wal.bytes();
        assert!(bytes <= 64 << 10, "node {} keeps {bytes} bytes of log", node.id);
    }
}

#[test]
fn of_two_creations_at_once_one_is_refused_and_ids_differ() {
    let mut cluster = Cluster::new(9);
    for (names, ends) in [(["a", "a"], [true, false]), (["b", "c"], [true, true])] {
        let mut orders: Vec<_> = names
            .iter()
            .map(|name| Administration::begin(Order::Create(new(name, 1, None))).unwrap())
            .collect();
        let mut outcomes = [None, None];
        // Step by step, so that both have read before either writes.
        while outcomes.iter().any(Option::is_none) {
            for (at, (order, request)) in orders.iter_mut().enumerate() {
                if outcomes[at].is_some() {
                    continue;
                }
                let reply = cluster.request(at, KeyspaceId::SYSTEM, request.clone()).unwrap();
                match order.answered(reply) {
                    Ok(Step::Ask(next)) => *request = next,
                    Ok(Step::Done(maps)) => outcomes[at] = Some(Ok(maps[0].id)),
                    Err(refused) => outcomes[at] = Some(Err(refused)),
                }
            }
        }
        assert_eq!(outcomes.clone().map(|outcome| outcome.unwrap().is_ok()), ends);
        assert_ne!(outcomes[0], outcomes[1]);
    }
    assert_eq!(cluster.names(), ["default", "a", "b", "c"]);
}

#[test]
fn wrong_orders_are_refused_and_change_nothing() {
    let mut cluster = Cluster::new(10);
    cluster.create("orders", 1, None).unwrap();
    let before = cluster.order(0, Order::List).unwrap();
    let exists = |name: &str| Err(Refused::Exists { name: name.to_owned() });
    assert_eq!(cluster.create("orders", 1, None), exists("orders"));
    assert_eq!(cluster.create("default", 1, None), exists("default"));
    assert_eq!(cluster.create("system", 1, None), exists("system"));
    for name in ["", "-a", ".a", "a b", "a/b", "ä", &"a".repeat(65)] {
        assert_eq!(cluster.create(name, 1, None), Err(Refused::Map(MapError::Name)), "{name}");
    }
    for partitions in [0, PARTITIONS_MAX + 1] {
        let refused = Err(Refused::Map(MapError::PartitionCount { partitions }));
        assert_eq!(cluster.create("a", partitions, None), refused);
    }
    assert_eq!(cluster.create("a", 1, Some(0)), Err(Refused::QuotaZero));
    assert_eq!(cluster.delete("a"), Err(Refused::NotFound { name: "a".to_owned() }));
    for name in ["system", "default"] {
        assert_eq!(cluster.delete(name), Err(Refused::Permanent { name: name.to_owned() }));
    }
    assert_eq!(cluster.order(0, Order::List).unwrap(), before);
    cluster.delete("orders").unwrap();
    assert_eq!(cluster.delete("orders"), Err(Refused::NotFound { name: "orders".to_owned() }));
}

#[test]
fn a_keyspace_over_its_quota_takes_no_writes_until_there_is_space_again() {
    for partitions in [1, 3] {
        let mut cluster = Cluster::new(11);
        let small = cluster.create("small", partitions, Some(100_000)).unwrap();
        let mut written = 0;
        while cluster.put(small, &format!("/d{}/k", written % 5), 1_000).is_ok() {
            written += 1;
            assert!(written < 200, "never refused");
        }
        assert!((70..110).contains(&written), "{written} of 1,000 bytes and their rows make 100,000");
        assert_eq!(cluster.put(small, "/a", 1), Err(Rejection::NoSpace));
        assert!(cluster.put(KeyspaceId::DEFAULT, "/a", 1_000).is_ok(), "others go on");
        assert_eq!(count(cluster.request(0, small, get("/d1/k"))), 1);
        // After a restart, too, when the rows are counted: the estimate was a little more.
        (0..3).for_each(|at| cluster.crash(at));
        (0..3).for_each(|at| cluster.start(at));
        cluster.seconds(4);
        let more = (0..5).take_while(|_| cluster.put(small, "/a", 1_000).is_ok()).count();
        assert!(more < 5, "{more} more");
        assert_eq!(cluster.put(small, "/a", 1), Err(Rejection::NoSpace));
        let delete = DeleteRequest { range: KeyRange::all(), previous: false };
        let deleted = cluster.request(0, small, Request::DeleteRange(delete)).unwrap();
        assert_eq!(cluster.put(small, "/a", 1), Err(Rejection::NoSpace), "history is there still");
        let revision = deleted.revision.0 as i64;
        cluster.request(0, small, Request::Compact { revision, physical: true }).unwrap();
        cluster.seconds(7);
        assert!(cluster.put(small, "/a", 1).is_ok());
        let used = (0..3).map(|at| cluster.host(at).keyspace_bytes(small).unwrap()).max().unwrap();
        assert!(used < 5_000, "{used}");
    }
}

#[test]
fn a_group_of_a_deleted_keyspace_is_not_opened_by_what_peers_say() {
    let mut cluster = Cluster::new(12);
    let orders = cluster.create("orders", 1, None).unwrap();
    let group = GroupId { keyspace: orders, partition: PartitionId(0) };
    let request = |ticket| quorate_node::PeerMessage::Request { ticket, group, request: put("/a", 1) };
    cluster.delete("orders").unwrap();
    cluster.seconds(2);
    cluster.host(0).receive(NodeId(2), Incarnation(2), request(Ticket(1 << 40))).unwrap();
    cluster.seconds(1);
    cluster.assert_gone(orders);
}

/// A revision that is given out and cannot be applied holds back all later ones, of other partitions too; who asks is told which partition it waits for.
#[test]
fn the_partition_that_holds_back_a_keyspace_is_named() {
    let mut cluster = Cluster::new(1);
    let space = cluster.create("space", 4, None).unwrap();
    for number in 0..20 {
        cluster.put(space, &format!("/d{number}/k"), 1).unwrap();
    }
    cluster.seconds(2);
    for at in 0..3 {
        assert_eq!(cluster.host(at).held_back(space), None, "node {}", at + 1);
        assert_eq!(cluster.host(at).held_back(KeyspaceId::DEFAULT), None, "of one partition");
    }
    let is_sequencer = |at: &usize| {
        let status = cluster.nodes[*at].running.as_ref().unwrap().host.status();
        status.iter().any(|status| status.group == GroupId::META && status.is_serving)
    };
    let sequencer = (0..3).find(is_sequencer).unwrap();
    let committed = |cluster: &mut Cluster| -> Vec<(PartitionId, Index)> {
        let status = cluster.host(sequencer).status();
        let of = status.iter().filter(|status| status.group.keyspace == space);
        of.map(|status| (status.group.partition, status.consensus.last.index)).collect()
    };
    let before = committed(&mut cluster);
    // Nobody acknowledges it any more.
    cluster.cut = (0..3).filter(|at| *at != sequencer).collect();
    let ticket = cluster.ask(sequencer, space, put("/d7/k", 1));
    cluster.tick();
    let after = committed(&mut cluster);
    let (late, _) = before.into_iter().zip(after).find(|(before, after)| before != after).unwrap().1;
    let held = cluster.host(sequencer).held_back(space).unwrap();
    assert_eq!(held.partition, late);
    assert_eq!(held.newest, held.settled.next());
    cluster.cut.clear();
    let revision = cluster.answer(ticket).map(|reply| reply.revision);
    assert_eq!(revision, Ok(held.newest));
    cluster.seconds(2);
    for at in 0..3 {
        assert_eq!(cluster.host(at).held_back(space), None, "node {}", at + 1);
    }
}
