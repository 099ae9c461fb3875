//! What idle groups cost: three hosts with 256 groups, in one thread, at the tick and message counts of real time.
//!
//! `cargo run --release -p quorate-node --example idle_groups [-- GROUPS [SECONDS]]`
//!
//! Prints the processor time per node and simulated second, with hibernation and without, with all three nodes and with one dead
//! for good, and then how a dead node's groups find new leaders. Messages are encoded and decoded on their way, as over a socket; what
//! sockets, threads and disks cost is not in the numbers.
//!
//! Caveat: the processor time is that of this thread as Linux counts it (`/proc/thread-self/schedstat`), in steps of some milliseconds: for
//! groups that sleep let it run for 1,200 seconds.

#![allow(clippy::unwrap_used)] // A measurement, with nobody to hand an error to.

use quorate_consensus::Role;
use quorate_node::{Cluster, Host, Options, PeerMessage, Standing};
use quorate_storage::memory::MemoryEngine;
use quorate_types::{Bytes, Decode, Encode, Incarnation, Input, Member, NodeId};
use std::collections::BTreeMap;

const TICKS_PER_SECOND: u64 = 50;

struct World {
    /// `None`: dead.
    hosts: Vec<Option<Host<MemoryEngine>>>,
    messages: u64,
}

impl World {
    fn new(groups: u32, hibernate_after_ticks: Option<u64>) -> Self {
        let voters: Vec<NodeId> = (1..=3).map(NodeId).collect();
        let members = voters.iter().map(|id| Member::new(*id, id.to_string(), "")).collect();
        let cluster = Cluster::of_founders(members);
        let host = |id: &NodeId| {
            let options =
                Options { hibernate_after_ticks, partitions: groups, ..Options::new(*id, id.0 * 7) };
            let (engine, logs) = (MemoryEngine::default(), BTreeMap::new());
            Host::new(options, Standing::New, engine, cluster.clone(), logs).unwrap()
        };
        Self { hosts: voters.iter().map(|id| Some(host(id))).collect(), messages: 0 }
    }

    fn tick(&mut self) {
        for host in self.hosts.iter_mut().flatten() {
            host.tick().unwrap();
        }
        loop {
            let mut batches: BTreeMap<(u64, u64), Vec<PeerMessage>> = BTreeMap::new();
            for (at, host) in self.hosts.iter_mut().enumerate() {
                let Some(host) = host else { continue };
                let mut effects = host.take().unwrap();
                if effects.standing.is_some() {
                    host.standing_recorded();
                }
                let mut sent = effects.send;
                while let Some((write, _)) = effects.persist {
                    host.persisted(write);
                    effects = host.take().unwrap();
                    sent.append(&mut effects.send);
                }
                self.messages += sent.len() as u64;
                for (to, message) in sent {
                    batches.entry((at as u64 + 1, to.0)).or_default().push(message);
                }
            }
            if batches.is_empty() {
                return;
            }
            for ((from, to), batch) in batches {
                let frame = Bytes::from(batch.encoded_vec());
                let Some(host) = &mut self.hosts[to as usize - 1] else { continue };
                for message in Vec::<PeerMessage>::decode(&mut Input::new(frame)).unwrap() {
                    host.receive(NodeId(from), Incarnation(from * 7), message).unwrap();
                }
            }
        }
    }

    fn seconds(&mut self, count: u64) {
        (0..count * TICKS_PER_SECOND).for_each(|_| self.tick());
    }

    /// Groups led by each node.
    fn leaders(&self) -> Vec<usize> {
        let leads = |host: &Option<Host<MemoryEngine>>| {
            let statuses = host.as_ref().map(Host::status).unwrap_or_default();
            statuses.iter().filter(|status| matches!(status.consensus.role, Role::Leader { .. })).count()
        };
        self.hosts.iter().map(leads).collect()
    }

    fn kill(&mut self, at: usize, is_noticed: bool) {
        self.hosts[at] = None;
        for host in self.hosts.iter_mut().flatten().filter(|_| is_noticed) {
            host.peer_lost(NodeId(at as u64 + 1));
        }
    }
}

/// Nanoseconds that this thread has run.
fn processor_time() -> u64 {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    said.split(' ').next().unwrap().parse().unwrap()
}

fn measure(what: &str, world: &mut World, seconds: u64) {
    let (before, messages) = (processor_time(), world.messages);
    world.seconds(seconds);
    let nodes = world.hosts.iter().flatten().count() as u64;
    let spent = (processor_time() - before) as f64 / (seconds * nodes) as f64;
    let messages = (world.messages - messages) / seconds / nodes;
    let percent = spent / 1e7;
    println!("{what:<34} {:>9.1} us  {percent:>6.3} % of a core  {messages:>6} messages", spent / 1e3);
}

fn main() {
    let number = |at: usize| std::env::args().nth(at).map(|text| text.parse::<u32>().unwrap());
    let (groups, seconds) = (number(1).unwrap_or(256), u64::from(number(2).unwrap_or(60)));
    println!("{groups} idle groups on three nodes; per node and second:");
    for (name, hibernate_after_ticks) in [("never asleep", None), ("asleep", Some(TICKS_PER_SECOND))] {
        let mut world = World::new(groups, hibernate_after_ticks);
        world.seconds(10);
        assert_eq!(world.leaders().iter().sum::<usize>(), groups as usize, "each group has a leader");
        measure(name, &mut world, seconds);
        world.kill(2, true);
        world.seconds(10);
        measure(&format!("{name}, one node dead"), &mut world, seconds);
        world.kill(1, true);
        world.seconds(10);
        measure(&format!("{name}, two nodes dead"), &mut world, seconds);
    }
    println!("groups led by each node, before and after one dies:");
    for (name, is_noticed) in [("its connections break", true), ("it falls silent", false)] {
        let mut world = World::new(groups, Some(TICKS_PER_SECOND));
        world.seconds(10);
        let before = world.leaders();
        world.kill(0, is_noticed);
        let mut ticks = 0;
        while world.leaders().iter().sum::<usize>() < groups as usize {
            world.tick();
            ticks += 1;
        }
        println!("{name:<34} {before:?} -> {:?} after {ticks} ticks", world.leaders());
    }
}
