//! Hundreds of idle groups cost next to nothing, because nothing happens in them: no writes, no syncs, and no messages but
//! heartbeats. Counted, not timed.

#![allow(clippy::unwrap_used)] // A test; the lint's own exemption does not see helpers.

use quorate_node::{GroupStart, Host, Options, PeerMessage, Standing};
use quorate_storage::memory::MemoryEngine;
use quorate_types::{GroupId, Incarnation, KeyspaceId, NodeId, PartitionId};
use std::collections::VecDeque;

const GROUPS: u32 = 256;

fn host(id: u64, size: u64) -> Host<MemoryEngine> {
    let starts = (0..GROUPS).map(|number| GroupStart {
        group: GroupId { keyspace: KeyspaceId(1), partition: PartitionId(number) },
        voters: (1..=size).map(NodeId).collect(),
        recovered: Default::default(),
    });
    Host::new(Options::new(NodeId(id), id), Standing::New, MemoryEngine::default(), starts.collect()).unwrap()
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
    let mut hosts = [host(1, 1)];
    live(&mut hosts, 100);
    assert!(hosts[0].status().iter().all(|status| status.is_serving), "every group leads itself");
    assert_eq!(live(&mut hosts, 3_000), Counts::default(), "in a minute of idling");
}

#[test]
fn three_nodes_with_256_idle_groups_send_heartbeats_and_nothing_else() {
    let mut hosts = [host(1, 3), host(2, 3), host(3, 3)];
    live(&mut hosts, 400);
    let serving = hosts.iter().flat_map(Host::status).filter(|status| status.is_serving).count();
    assert_eq!(serving, GROUPS as usize, "each group has one leader");
    let counts = live(&mut hosts, 500);
    assert_eq!((counts.writes, counts.flushes), (0, 0), "nothing is written in ten seconds of idling");
    // A heartbeat and its answer for each of two followers, every fifth tick.
    let heartbeats = GROUPS as usize * 4 * 500 / 5;
    assert!(counts.messages <= heartbeats + heartbeats / 10, "{} messages", counts.messages);
}
