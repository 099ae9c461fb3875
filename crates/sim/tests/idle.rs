//! Hundreds of idle groups cost next to nothing, because nothing happens in them: no writes, no syncs, and no messages but
//! heartbeats, or none at all where groups sleep. Counted, not timed.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_node::{GroupStart, Host, Options, PeerMessage, Standing};
use quorate_storage::memory::MemoryEngine;
use quorate_types::{GroupId, Incarnation, KeyspaceId, NodeId, PartitionId};
use std::collections::VecDeque;

const GROUPS: u32 = 256;

fn host(id: u64, size: u64, hibernate_after_ticks: Option<u64>) -> Host<MemoryEngine> {
    let starts = (0..GROUPS).map(|number| GroupStart {
        group: GroupId { keyspace: KeyspaceId(1), partition: PartitionId(number) },
        voters: (1..=size).map(NodeId).collect(),
        recovered: Default::default(),
    });
    let options = Options { hibernate_after_ticks, ..Options::new(NodeId(id), id) };
    Host::new(options, Standing::New, MemoryEngine::default(), starts.collect()).unwrap()
}

/// Counts of a stretch of time.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    writes: usize,
    flushes: usize,
    messages: usize,
}

fn live(hosts: &mut [Host<MemoryEngine>], ticks: usize) -> Counts {
    let mut counts = Counts::default();
    let mut flying: VecDeque<(NodeId, NodeId, PeerMessage)> = VecDeque::new();
    for _ in 0..ticks {
        for host in hosts.iter_mut() {
            host.tick().unwrap();
        }
        loop {
            for (at, host) in hosts.iter_mut().enumerate() {
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
    assert_eq!(serving, GROUPS as usize, "each group has one leader");
    hosts
}

/// That a node lives, to two others, every fifth tick.
const ALIVE_PER_500_TICKS: usize = 3 * 2 * 500 / 5;

#[test]
fn three_nodes_with_256_groups_that_never_sleep_send_heartbeats_and_nothing_else() {
    let counts = live(&mut three(None), 500);
    assert_eq!((counts.writes, counts.flushes), (0, 0), "nothing is written in ten seconds of idling");
    // A heartbeat and its answer for each of two followers, every fifth tick.
    let heartbeats = GROUPS as usize * 4 * 500 / 5 + ALIVE_PER_500_TICKS;
    assert!(counts.messages <= heartbeats + heartbeats / 10, "{} messages", counts.messages);
}

#[test]
fn three_nodes_with_256_idle_groups_say_only_that_they_live() {
    let mut hosts = three(Some(50));
    assert!(hosts.iter().flat_map(Host::status).all(|status| status.consensus.is_hibernating));
    let counts = live(&mut hosts, 500);
    assert_eq!(counts, Counts { messages: ALIVE_PER_500_TICKS, ..Counts::default() });
}
