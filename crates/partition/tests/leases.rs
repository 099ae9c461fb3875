//! Time and leases: never early, whoever leads; late by a stated bound.

// The lint's exception for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used)]

mod support;

use quorate_partition::Evaluated;
use quorate_types::request::{PutLease, PutRequest};
use quorate_types::{Request, Tick};
use support::{Pair, lease, put_op};

/// Ticks in a second, and those a new leader adds, of the tests' limits.
const SECOND: u64 = 10;
const ELECTION: u64 = 5;

fn grant(pair: &mut Pair, id: i64, ttl_seconds: i64) {
    pair.evaluate(&Request::LeaseGrant { lease: lease(id), ttl_seconds }).unwrap();
    pair.apply_all();
}

fn checkpoint(pair: &mut Pair) -> bool {
    let index = pair.next();
    match pair.leader.checkpoints(pair.now, index).unwrap() {
        Some(evaluated @ Evaluated::Changes { .. }) => {
            pair.take(Ok(evaluated)).unwrap();
            pair.apply_all();
            true
        }
        Some(Evaluated::Unchanged { .. }) => panic!("a checkpoint that changes nothing"),
        None => false,
    }
}

#[test]
fn a_lease_ends_when_its_time_is_over_and_not_before() {
    let mut pair = Pair::new();
    pair.now = Tick(100);
    grant(&mut pair, 1, 3);
    grant(&mut pair, 2, 2);
    let end = |pair: &Pair, at| pair.leader.expired(Tick(at), 10);
    assert_eq!(end(&pair, 100 + 2 * SECOND - 1), []);
    assert_eq!(end(&pair, 100 + 2 * SECOND), [lease(2)]);
    assert_eq!(end(&pair, 100 + 3 * SECOND), [lease(2), lease(1)]);
    assert_eq!(pair.leader.expired(Tick(1000), 1), [lease(2)]);
    // A replica that does not lead ends nothing, however late it is.
    assert_eq!(pair.follower.expired(Tick(1_000_000), 10), []);
    let time = pair.leader.time_to_live(lease(1), Tick(100 + SECOND + 1), false).unwrap();
    assert_eq!((time.granted_seconds, time.remaining_seconds), (3, 1));
    assert_eq!(pair.leader.leases(), [lease(2), lease(1)]);
    // Once its end is proposed it is not due again, cannot be renewed, and still exists until that is applied.
    pair.now = Tick(1000);
    pair.evaluate(&Request::LeaseRevoke { lease: lease(2) }).unwrap();
    assert_eq!(end(&pair, 1000), [lease(1)]);
    assert_eq!(pair.keep_alive(lease(2)), None);
    assert!(pair.leader.time_to_live(lease(2), pair.now, false).is_some());
    pair.apply_all();
    assert_eq!(pair.leader.time_to_live(lease(2), pair.now, false), None);
    assert_eq!(pair.keep_alive(lease(2)), None);
}

/// A client's revocation that met locks and was given up.
#[test]
fn a_lease_whose_revocation_came_to_nothing_ends_when_it_would_have() {
    let mut pair = Pair::new();
    grant(&mut pair, 1, 3);
    pair.leader.ending(lease(1));
    assert_eq!((pair.leader.next_due(), pair.leader.is_ending(lease(1))), (None, true));
    pair.leader.end_again(lease(1), Tick(SECOND));
    assert_eq!(pair.leader.expired(Tick(3 * SECOND - 1), 10), []);
    assert_eq!(pair.leader.expired(Tick(3 * SECOND), 10), [lease(1)]);
}

#[test]
fn a_renewal_counts_from_when_it_came_and_never_shortens() {
    let mut pair = Pair::new();
    grant(&mut pair, 1, 2);
    pair.now = Tick(15);
    assert_eq!(pair.keep_alive(lease(1)), Some(2));
    assert_eq!(pair.leader.expired(Tick(34), 10), []);
    assert_eq!(pair.leader.expired(Tick(35), 10), [lease(1)]);
    // One that was received earlier and worked off later.
    pair.now = Tick(3);
    assert_eq!(pair.keep_alive(lease(1)), Some(2));
    assert_eq!(pair.leader.expired(Tick(34), 10), []);
    assert_eq!(pair.keep_alive(lease(9)), None);
    // A grant that is still pending can be renewed; its time starts when it is applied.
    pair.evaluate(&Request::LeaseGrant { lease: lease(3), ttl_seconds: 7 }).unwrap();
    assert_eq!(pair.keep_alive(lease(3)), Some(7));
}

#[test]
fn a_new_leader_gives_every_lease_its_full_time_and_an_election_timeout() {
    let mut pair = Pair::new();
    grant(&mut pair, 1, 3);
    pair.now = Tick(29);
    pair.elect();
    let end = 29 + 3 * SECOND + ELECTION;
    assert_eq!(pair.leader.expired(Tick(end - 1), 10), []);
    assert_eq!(pair.leader.expired(Tick(end), 10), [lease(1)]);
    // The deposed one has forgotten when anything ends.
    assert_eq!(pair.follower.expired(Tick(u64::MAX), 10), []);
}

#[test]
fn a_long_lease_is_not_thrown_back_to_its_full_time_by_every_election() {
    let mut pair = Pair::new();
    let hour = 3600;
    grant(&mut pair, 1, hour);
    grant(&mut pair, 2, 300);
    assert!(!checkpoint(&mut pair));
    // An election every ten minutes, and the lease ends all the same.
    let mut elections = 0;
    while pair.leader.expired(pair.now, 10).iter().all(|ended| *ended != lease(1)) {
        pair.now = pair.now.after(SECOND);
        checkpoint(&mut pair);
        if pair.now.0.is_multiple_of(600 * SECOND) {
            pair.elect();
            elections += 1;
        }
        assert!(pair.now.0 < 3 * hour as u64 * SECOND, "still there after {}", pair.now);
    }
    // Never early, and late by no more than a checkpoint interval and an election timeout for each election.
    let hour = hour as u64 * SECOND;
    assert!(pair.now.0 >= hour, "ended early, at {}", pair.now);
    assert!(pair.now.0 <= hour + elections * (300 * SECOND + ELECTION + SECOND), "{} {elections}", pair.now);
}

#[test]
fn a_renewal_after_a_checkpoint_is_an_entry_so_that_the_next_leader_knows_of_it() {
    // Otherwise: ten seconds remain and are recorded; the client renews for an hour and hears of it; the
    // leader dies; the next one starts from the ten seconds and ends the lease under its holder.
    let mut pair = Pair::new();
    grant(&mut pair, 1, 310);
    pair.now = Tick(300 * SECOND);
    assert!(checkpoint(&mut pair));
    let entries = pair.log.len();
    pair.now = Tick(301 * SECOND);
    assert_eq!(pair.keep_alive(lease(1)), Some(310));
    assert_eq!(pair.log.len(), entries + 1);
    // The next renewal need not be recorded again, pending or applied.
    assert_eq!(pair.keep_alive(lease(1)), Some(310));
    pair.apply_all();
    assert_eq!(pair.keep_alive(lease(1)), Some(310));
    assert_eq!(pair.log.len(), entries + 1);
    pair.elect();
    assert_eq!(pair.leader.expired(Tick((301 + 310) * SECOND + ELECTION - 1), 10), []);
    // Without a renewal the recorded rest is what the next leader starts from.
    pair.now = Tick(2000 * SECOND);
    pair.elect();
    pair.now = Tick(2300 * SECOND);
    assert!(checkpoint(&mut pair));
    pair.elect();
    assert_eq!(pair.leader.expired(Tick(2312 * SECOND), 10), [lease(1)]);
}

#[test]
fn leases_and_their_keys_come_back_from_the_store() {
    let mut pair = Pair::new();
    grant(&mut pair, 1, 60);
    grant(&mut pair, -2, 60);
    for (key, id) in [("a", 1), ("b", -2), ("c\0", 1), ("d", 1)] {
        let put = PutRequest { lease: PutLease::Attach(lease(id)), ..put_op(key, "1") };
        pair.evaluate(&Request::Put(put)).unwrap();
    }
    pair.evaluate(&support::put("d", "2")).unwrap();
    pair.evaluate(&Request::LeaseRevoke { lease: lease(-2) }).unwrap();
    pair.apply_all();
    let reopened = support::open(&pair.follower.engine().clone());
    assert_eq!(reopened.leases(), [lease(1)]);
    let keys = reopened.time_to_live(lease(1), Tick(0), true).unwrap().keys;
    assert_eq!(keys, ["a", "c\0"]);
}

#[test]
fn a_hundred_thousand_leases_cost_a_tick_only_those_that_are_due() {
    let mut pair = Pair::new();
    let count = 100_000;
    for id in 1..=count {
        pair.evaluate(&Request::LeaseGrant { lease: lease(id), ttl_seconds: 100 + id % 50 }).unwrap();
    }
    pair.apply_all();
    let mut looked_at = 0;
    for tick in 0..100 * SECOND {
        looked_at += pair.leader.expired(Tick(tick), 64).len();
    }
    assert_eq!(looked_at, 0);
    assert_eq!(pair.leader.expired(Tick(100 * SECOND), usize::MAX).len() as i64, count / 50);
}
