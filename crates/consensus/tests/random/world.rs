//! Nodes, network, disks and time of one seed.

mod faults;
mod network;
mod node;
mod observe;
mod requests;
mod snapshots;
mod weather;
mod writes;

use crate::counts::Counts;
use crate::disk::Disk;
use crate::invariants::Invariants;
use node::Node;
use quorate_consensus::random::Random;
use quorate_consensus::{Configuration, Consensus, Message, Options, SnapshotFetch, WriteId};
use quorate_types::{EntryKind, NodeId, Position};
use std::collections::{BTreeMap, BTreeSet};
use weather::Weather;

/// Units of time in a tick; messages and disks are faster than ticks.
const TICK: u64 = 8;
const FAULTY: u64 = 250 * TICK;
/// Within so much quiet time everything must have settled: some elections, and what was late before.
const HEALED: u64 = 400 * TICK;
/// Units between two rounds of chance.
const CHANCE: u64 = 4;

enum Event {
    Tick(usize),
    Deliver { from: NodeId, to: usize, message: Option<Message> },
    Written { at: usize, life: u64, write: WriteId },
    Restart(usize),
    Offer { at: usize, life: u64, to: NodeId },
    Fetched { at: usize, life: u64, fetch: SnapshotFetch },
    Chance,
}

/// Everything that exists in one run.
pub(crate) struct World {
    random: Random,
    weather: Weather,
    nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), Event>,
    now: u64,
    scheduled: u64,
    cut: BTreeSet<(NodeId, NodeId)>,
    is_healed: bool,
    proposals: u64,
    invariants: Invariants,
    pub(crate) counts: Counts,
    is_traced: bool,
    pub(crate) trace: Vec<String>,
}

impl World {
    /// So many nodes vote in the beginning; where there are spares, members change.
    pub(crate) fn new(voters: u64, spares: u64, seed: u64, is_traced: bool) -> Self {
        let mut random = Random::new(seed ^ (voters << 56) ^ (spares << 48));
        let ids: Vec<NodeId> = (1..=voters + spares).map(NodeId).collect();
        let voters: Vec<NodeId> = ids[..voters as usize].to_vec();
        let is_leased = random.between(0, 3) == 0;
        let weather = Weather::draw(&mut random, is_leased, spares > 0);
        let election_ticks_min = random.between(5, 9);
        let small = random.between(0, 2) == 0;
        // In two of three runs, after so short a time that it happens between two proposals.
        let hibernate_after_ticks = [None, Some(1), Some(4)][random.between(0, 3) as usize];
        let node = |id: &NodeId| Node {
            id: *id,
            options: Options {
                heartbeat_ticks: 2,
                election_ticks_min,
                election_ticks_max: election_ticks_min + 6,
                inflight_messages_max: if small { 2 } else { 256 },
                append_bytes_max: if small { 80 } else { 1 << 20 },
                uncommitted_bytes_max: if small { 400 } else { 64 << 20 },
                lease_read: is_leased.then_some(election_ticks_min * 9 / 10),
                hibernate_after_ticks,
                ..Options::new(*id, voters.clone(), 0)
            },
            disk: Disk::default(),
            state: Some(Position::default()),
            lives: 0,
            running: None,
        };
        Self {
            nodes: ids.iter().map(node).collect(),
            random,
            weather,
            events: BTreeMap::new(),
            now: 0,
            scheduled: 0,
            cut: BTreeSet::new(),
            is_healed: false,
            proposals: 0,
            invariants: Invariants::new(Configuration::of_voters(voters)),
            counts: Counts::default(),
            is_traced,
            trace: Vec::new(),
        }
    }

    /// Faults, then none; panics when anything is wrong.
    pub(crate) fn run(&mut self) {
        self.note(|world| format!("{:?} {:?}", world.weather, world.nodes[0].options));
        for at in 0..self.nodes.len() {
            self.start(at);
            let phase = self.random.between(0, TICK);
            self.schedule(phase, Event::Tick(at));
        }
        self.schedule(0, Event::Chance);
        self.run_until(FAULTY);
        self.heal();
        let mut is_proposed = false;
        while !(is_proposed && self.is_settled()) {
            if self.now >= FAULTY + HEALED {
                let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
                let lines = running.map(|it| format!("{:?}, reads {:?}", it.raft.status(), it.reads));
                panic!("not settled after all faults ended:\n{}", lines.collect::<Vec<_>>().join("\n"));
            }
            self.run_until(self.now + TICK);
            if let Some(leader) = self.agreed_leader()
                && !is_proposed
            {
                is_proposed = self.propose(leader);
            }
        }
    }

    fn run_until(&mut self, end: u64) {
        while let Some(next) = self.events.first_entry()
            && next.key().0 < end
        {
            let ((due, _), event) = next.remove_entry();
            self.now = due;
            self.handle(event);
        }
        self.now = end;
    }

    fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.is_traced {
            let line = line(self);
            self.trace.push(format!("{:>6} {line}", self.now));
        }
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        self.random.between(0, 1000) < thousandths
    }

    /// Events due at one time come in any order.
    fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        let order = self.random.draw() << 32 | self.scheduled;
        self.events.insert((self.now + after, order), event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick(at) => {
                let period =
                    if self.weather.has_odd_clocks { self.random.between(2, 2 * TICK) } else { TICK };
                self.schedule(period, Event::Tick(at));
                self.tick(at);
            }
            Event::Deliver { from, to, message } => {
                let is_cut = self.cut.contains(&(from, self.nodes[to].id));
                if !is_cut && self.nodes[to].running.is_some() {
                    self.note(|world| format!("n{} hears of n{from} {message:?}", world.nodes[to].id));
                    if let Some(running) = &mut self.nodes[to].running {
                        running.hear(from, message);
                    }
                    self.drain(to);
                }
            }
            Event::Written { at, life, write } => self.written(at, life, write),
            Event::Restart(at) => self.start(at),
            Event::Offer { at, life, to } => self.offer(at, life, to),
            Event::Fetched { at, life, fetch } => self.fetched(at, life, fetch),
            Event::Chance => {
                if !self.is_healed {
                    self.take_chances();
                    self.schedule(CHANCE, Event::Chance);
                }
            }
        }
    }

    /// A tick of a node: its replica's, and of what watches over the other nodes.
    fn tick(&mut self, at: usize) {
        let delay = self.random.between(1, 6);
        let ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let Node { id, options, running: Some(running), .. } = &mut self.nodes[at] else { return };
        running.ticks += 1;
        running.raft.tick();
        for other in ids.iter().filter(|other| *other != id) {
            let silence = running.ticks - running.heard.get(other).copied().unwrap_or_default();
            if silence >= options.election_ticks_min && running.down.insert(*other) {
                running.raft.node_down(*other, delay);
            }
        }
        if running.ticks.is_multiple_of(options.heartbeat_ticks) {
            let id = *id;
            for other in ids.into_iter().filter(|other| *other != id) {
                self.fly(id, other, None);
            }
        }
        self.drain(at);
    }

    /// Does what a replica wants until it wants nothing more.
    fn drain(&mut self, at: usize) {
        loop {
            let Some(running) = &mut self.nodes[at].running else { return };
            let effects = running.raft.take();
            let is_quiet = effects.persist.is_none() && effects.apply.is_empty();
            let id = self.nodes[at].id;
            if let Some((write, content)) = effects.persist {
                self.begin_write(at, write, content);
            }
            self.observe(at);
            for (to, message) in effects.send_now {
                self.send(id, to, message);
            }
            for (write, to, message) in effects.send_after {
                let Some(running) = &mut self.nodes[at].running else { return };
                if write <= running.written {
                    self.send(id, to, message);
                } else {
                    running.held.push_back((write, to, message));
                }
            }
            for entry in effects.apply {
                let node = &mut self.nodes[at];
                let Some(running) = &mut node.running else { return };
                assert_eq!(entry.index, running.applied.next(), "n{id} applies out of order");
                assert!(node.disk.holds(entry.position()), "n{id} applies what is not durable there");
                running.applied = entry.index;
                if entry.kind == EntryKind::Config {
                    running.configuration = Configuration::from_entry(&entry).unwrap();
                }
                running.raft.applied(entry.index);
                self.invariants.applies(id, &entry);
            }
            for (read, outcome) in effects.reads {
                self.answered(at, read, outcome);
            }
            for to in effects.snapshots_wanted {
                let (life, delay) = (self.nodes[at].lives, self.delay());
                self.schedule(delay, Event::Offer { at, life, to });
            }
            if let Some(fetch) = effects.fetch {
                self.begin_fetch(at, fetch);
            }
            if is_quiet {
                return;
            }
        }
    }

    fn heal(&mut self) {
        self.is_healed = true;
        self.cut.clear();
        self.weather.has_odd_clocks = false;
        self.note(|_| "all faults end".to_owned());
        for at in 0..self.nodes.len() {
            self.start(at);
        }
    }

    /// The leader that every member follows. Who was removed may not know, and follow nobody.
    fn agreed_leader(&self) -> Option<usize> {
        let members = self.invariants.configuration();
        let members = self.nodes.iter().filter(|node| members.contains(node.id));
        let mut leaders = members.map(|node| node.running.as_ref()?.raft.status().leader);
        let first = leaders.next()??;
        leaders.all(|leader| leader == Some(first)).then_some((first.0 - 1) as usize)
    }

    /// Everybody follows one leader, has applied all of its log, and owes no answer.
    fn is_settled(&self) -> bool {
        let Some(leader) = self.agreed_leader() else { return false };
        let Some(leader) = &self.nodes[leader].running else { return false };
        let (last, members) = (leader.raft.last(), leader.raft.configuration());
        let all_are = self.nodes.iter().all(|node| {
            node.running.as_ref().is_some_and(|running| {
                let is_equal = running.applied == last.index && running.raft.last() == last;
                (is_equal || !members.contains(node.id)) && running.reads.is_empty()
            })
        });
        all_are && !members.is_joint()
    }
}
