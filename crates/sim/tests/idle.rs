//! Hundreds of idle groups cost next to nothing, because nothing happens in them: no writes, no syncs, and no messages but
//! heartbeats, or none at all where groups sleep. Counted, not timed.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_node::{Cluster, Host, Options, PeerMessage, Standing};
use quorate_storage::memory::MemoryEngine;
use quorate_types::{Incarnation, Member, NodeId};
use std::collections::{BTreeMap, VecDeque};

const PARTITIONS: u32 = 255;
/// Those of the partitions, and the meta group.
const GROUPS: usize = PARTITIONS as usize + 1;

fn host(id: u64, size: u64, hibernate_after_ticks: Option<u64>) -> Host<MemoryEngine> {
    let options = Options { hibernate_after_ticks, partitions: PARTITIONS, ..Options::new(NodeId(id), id) };
    let members = (1..=size).map(|id| Member::new(NodeId(id), id.to_string(), ""));
    let cluster = Cluster::of_founders(members.collect());
    Host::new(options, Standing::New, MemoryEngine::default(), cluster, BTreeMap::new()).unwrap()
}

/// Counts of a stretch of time.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    writes: usize,
    flushes: usize,
    messages: usize,
}

fn live(hosts: &mut [Host<MemoryEngine>], ticks: usize) -> Counts {
    live_without(None, hosts, ticks)
}

/// One of them is dead.
fn live_without(dead: Option<usize>, hosts: &mut [Host<MemoryEngine>], ticks: usize) -> Counts {
    let mut counts = Counts::default();
    let mut flying: VecDeque<(NodeId, NodeId, PeerMessage)> = VecDeque::new();
    for _ in 0..ticks {
        for (_, host) in hosts.iter_mut().enumerate().filter(|(at, _)| Some(*at) != dead) {
            host.tick().unwrap();
        }
        loop {
            for (at, host) in hosts.iter_mut().enumerate().filter(|(at, _)| Some(*at) != dead) {
                let effects = host.take().unwrap();
                counts.messages += effects.send.len();
                counts.flushes += usize::from(effects.flush);
                let from = NodeId(at as u64 + 1);
                flying.extend(effects.send.into_iter().map(|(to, message)| (from, to, message)));
                if effects.standing.is_some() {
                    host.standing_recorded();
                }
                if let Some((write, _)) = effects.persist {
                    counts.writes += 1;
                    host.persisted(write);
                    let effects = host.take().unwrap();
                    flying.extend(effects.send.into_iter().map(|(to, message)| (from, to, message)));
                }
            }
            let Some((from, to, message)) = flying.pop_front() else { break };
            if dead == Some(to.0 as usize - 1) {
                continue;
            }
            hosts[to.0 as usize - 1].receive(from, Incarnation(from.0), message).unwrap();
        }
    }
    counts
}

#[test]
fn a_single_node_with_256_idle_groups_does_nothing_at_all() {
    let mut hosts = [host(1, 1, None)];
    live(&mut hosts, 100);
    assert!(hosts[0].status().iter().all(|status| status.is_serving), "every group leads itself");
    assert_eq!(live(&mut hosts, 3_000), Counts::default(), "in a minute of idling");
}

fn three(hibernate_after_ticks: Option<u64>) -> [Host<MemoryEngine>; 3] {
    let mut hosts = [1, 2, 3].map(|id| host(id, 3, hibernate_after_ticks));
    live(&mut hosts, 400);
    let serving = hosts.iter().flat_map(Host::status).filter(|status| status.is_serving).count();
    assert_eq!(serving, GROUPS, "each group has one leader");
    hosts
}

/// That a node lives, to two others, every fifth tick.
const ALIVE_PER_500_TICKS: usize = 3 * 2 * 500 / 5;
/// How far the keyspace is, asked by a node that is not the sequencer's, and answered, every fiftieth tick.
const SETTLING_PER_500_TICKS: usize = 2 * 500 / 50;

#[test]
fn three_nodes_with_256_groups_that_never_sleep_send_heartbeats_and_nothing_else() {
    let counts = live(&mut three(None), 500);
    assert_eq!((counts.writes, counts.flushes), (0, 0), "nothing is written in ten seconds of idling");
    // A heartbeat and its answer for each of two followers, every fifth tick.
    let heartbeats = GROUPS * 4 * 500 / 5 + ALIVE_PER_500_TICKS;
    assert!(counts.messages <= heartbeats + heartbeats / 10, "{} messages", counts.messages);
}

#[test]
fn three_nodes_with_256_idle_groups_say_only_that_they_live() {
    let mut hosts = three(Some(50));
    assert!(hosts.iter().flat_map(Host::status).all(|status| status.consensus.is_hibernating));
    let counts = live(&mut hosts, 500);
    assert_eq!((counts.writes, counts.flushes), (0, 0));
    assert!(
        counts.messages <= ALIVE_PER_500_TICKS + 2 * SETTLING_PER_500_TICKS,
        "{} messages",
        counts.messages
    );
}

/// How many groups each leads.
fn led(hosts: &[Host<MemoryEngine>]) -> Vec<usize> {
    hosts.iter().map(|host| host.status().iter().filter(|status| status.is_serving).count()).collect()
}

#[test]
fn a_dead_nodes_groups_go_to_one_survivor_and_sleep_again() {
    for is_noticed in [true, false] {
        let mut hosts = three(Some(50));
        let before = led(&hosts);
        for host in hosts[1..].iter_mut().filter(|_| is_noticed) {
            host.peer_lost(NodeId(1));
        }
        live_without(Some(0), &mut hosts, if is_noticed { 20 } else { 60 });
        let after = led(&hosts[1..]);
        assert_eq!(after.iter().sum::<usize>(), GROUPS, "all are led again");
        let gained = after[0] - before[1];
        assert!(gained == 0 || gained == before[0], "one takes all: {before:?}, then {after:?}");
        live_without(Some(0), &mut hosts, 150);
        let counts = live_without(Some(0), &mut hosts, 500);
        let said = ALIVE_PER_500_TICKS * 2 / 3 + SETTLING_PER_500_TICKS;
        assert!(counts.writes == 0 && counts.messages <= said, "{counts:?}");
        // It comes back without having noticed anything.
        live(&mut hosts, 200);
        assert_eq!(led(&hosts)[0], 0);
        assert!(hosts.iter().flat_map(Host::status).all(|status| status.consensus.is_hibernating));
    }
}
