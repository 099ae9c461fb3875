//! Nodes, network, disks and time.

mod applying;
mod bounds;
mod calls;
mod disks;
mod faults;
mod healing;
mod members;
mod network;
mod node;
mod parts;
mod rates;
mod rot;
mod settle;
mod sleep;
mod space;
mod splits;
mod start;
mod watching;
mod writes;

use crate::Summary;
use crate::applied::AppliedLog;
use crate::checker::Violation;
use crate::clients::{Call, Outcome};
use crate::history::History;
use crate::leases::{RATE_MAX, RATE_MIN};
use crate::random::Random;
use bounds::Largest;
use disks::Disks;
use members::Members;
use network::{Flying, Wire};
use node::{Node, Running};
use quorate_node::Standing;
use quorate_types::{GroupId, KeyspaceId, NodeId, PartitionId, Rejection, Term, TxnId};
use rates::{PAUSE_TICKS_LONGEST, Rates};
use rot::Rotting;
use space::Space;
use splits::Splits;
use std::collections::{BTreeMap, BTreeSet};

const FAULTY_TICKS: u64 = 1_500;
/// Where nodes pause for long: until some have come back, to everybody's surprise.
const FAULTY_TICKS_LONG: u64 = 4_500;
/// The same of the longest pauses.
const FAULTY_TICKS_LONGEST: u64 = 18_000;

/// Everything that exists.
pub struct World {
    /// Its seed.
    pub seed: u64,
    random: Random,
    rates: Rates,
    nodes: Vec<Node>,
    flying: Vec<Flying>,
    /// Connections that are cut, one way each.
    cut: BTreeMap<(NodeId, NodeId), u64>,
    /// Groups whose messages to a node are lost, until when; and whether those from it are, too.
    muted: BTreeMap<(GroupId, NodeId), (u64, bool)>,
    /// When a leadership is handed over while messages are lost.
    hand_over_at: u64,
    now: u64,
    step: u64,
    /// Every call ever made.
    pub calls: Vec<Call>,
    /// What happened to the keys.
    pub history: History,
    /// What was applied, entry by entry.
    pub applied: BTreeMap<GroupId, AppliedLog>,
    /// The same of the meta group.
    pub applied_meta: AppliedLog,
    /// How many partitions the keyspace begins with.
    pub partitions: u32,
    splits: Splits,
    members: Members,
    rotting: Rotting,
    /// When stores write what they have in memory.
    spilling: Random,
    disks: Disks,
    wire: Wire,
    space: Space,
    /// When faults ended.
    pub healed_tick: u64,
    /// Who led which term of which group.
    leaders: BTreeMap<(GroupId, Term), NodeId>,
    /// Prepared somewhere and not ended there: the term of the entry.
    prepared: BTreeMap<(GroupId, TxnId), Term>,
    trace: u64,
    counts: Summary,
    largest: Largest,
    is_faulty: bool,
    faulty_ticks: u64,
    /// Whether leaders read by lease.
    is_reading_by_lease: bool,
    /// When groups fall asleep.
    hibernate_after_ticks: Option<u64>,
    /// Nothing is asked until then.
    lull_until: u64,
}

impl World {
    /// The beginning, with so many partitions.
    pub fn new(seed: u64, partitions: u32) -> Self {
        let mut random = Random::new(seed);
        let size = [1, 3, 3, 3, 5][random.below(5) as usize];
        let mut splits = Splits::new(seed);
        let rates = Rates::draw(&mut random, &mut splits, partitions);
        let hibernate_after_ticks = [None, Some(5), Some(10), Some(50)][random.below(4) as usize];
        let members = Members::new(seed, size, partitions);
        let faulty_ticks = match rates.pause_ticks_max {
            PAUSE_TICKS_LONGEST if rates.pause > 0 => FAULTY_TICKS_LONGEST,
            ticks if rates.pause > 0 && ticks > FAULTY_TICKS => FAULTY_TICKS_LONG,
            _ if members.happen() => FAULTY_TICKS_LONG,
            _ => FAULTY_TICKS,
        };
        let are_skewed = random.chance(600);
        let mut clock = || if are_skewed { RATE_MIN + random.below(RATE_MAX - RATE_MIN + 1) } else { 1_000 };
        let nodes = (1..=size).map(|id| Node::new(NodeId(id), Standing::New, clock())).collect();
        Self {
            seed,
            random,
            rates,
            nodes,
            flying: Vec::new(),
            cut: BTreeMap::new(),
            muted: BTreeMap::new(),
            hand_over_at: 0,
            now: 0,
            step: 0,
            calls: Vec::new(),
            history: History { may_have_holes: partitions > 1 || splits.happen(), ..History::default() },
            splits,
            applied: BTreeMap::new(),
            applied_meta: AppliedLog::default(),
            partitions,
            healed_tick: 0,
            leaders: BTreeMap::new(),
            prepared: BTreeMap::new(),
            trace: 0,
            counts: Summary::default(),
            largest: Largest::new(),
            is_faulty: true,
            faulty_ticks,
            is_reading_by_lease: !seed.is_multiple_of(3),
            hibernate_after_ticks,
            lull_until: 0,
            members,
            rotting: Rotting::new(seed),
            spilling: Random::new(seed ^ 0x7370_696c),
            disks: Disks::new(seed),
            wire: Wire::new(seed),
            space: Space::new(seed),
        }
    }

    /// A world in which nothing fails, all clocks agree and nobody stops asking.
    pub fn healthy(seed: u64, partitions: u32) -> Self {
        let mut world = Self::new(seed, partitions);
        world.rates = world.rates.healthy();
        world.splits = Splits::none();
        world.members = Members::none(world.nodes.len() as u64);
        world.rotting = Rotting::none();
        world.disks = Disks::none();
        world.wire = Wire::none();
        world.space = Space::none();
        world.faulty_ticks = FAULTY_TICKS;
        world.history.may_have_holes = partitions > 1;
        world.nodes.iter_mut().for_each(|node| node.rate = 1_000);
        world
    }

    /// Ticks of simulated time so far.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// A violation found now.
    pub fn violation(&self, what: impl Into<String>) -> Violation {
        Violation { seed: self.seed, partitions: self.partitions, tick: self.now, what: what.into() }
    }

    fn note(&mut self, what: &[u8]) {
        self.trace = twox_hash::XxHash3_64::oneshot_with_seed(self.trace, what);
    }

    /// What happened so far.
    pub fn summary(&self) -> Summary {
        let ended = |is: fn(&Outcome) -> bool| {
            self.calls.iter().filter(|call| call.outcome.as_ref().is_some_and(is)).count() as u64
        };
        let unknown = ended(|outcome| matches!(outcome, Outcome::Rejected(Rejection::Unknown)));
        let open = self.calls.iter().filter(|call| call.outcome.is_none()).count() as u64;
        Summary {
            ticks: self.now,
            answered: ended(|outcome| !matches!(outcome, Outcome::Rejected(_))),
            unknown: unknown + open,
            rejected: ended(|outcome| matches!(outcome, Outcome::Rejected(_))) - unknown,
            revisions: self.history.revisions.len() as u64,
            elections: self.leaders.len() as u64,
            trace: self.trace,
            largest: self.largest.clone(),
            ..self.counts.clone()
        }
    }

    /// Everything may fail.
    pub fn run_with_faults(&mut self) -> Result<(), Violation> {
        while self.now < self.faulty_ticks {
            self.fail_something()?;
            self.split_something()?;
            self.order_members()?;
            self.rot();
            self.fail_disks();
            self.run_out_of_space();
            self.live_a_tick()?;
        }
        Ok(())
    }

    fn live_a_tick(&mut self) -> Result<(), Violation> {
        self.now += 1;
        for at in 0..self.nodes.len() {
            if self.nodes[at].running.is_none() && self.nodes[at].down_until <= self.now {
                self.start(at)?;
            }
        }
        for at in 0..self.nodes.len() {
            self.wake(at);
            self.nodes[at].time += self.nodes[at].rate;
            while self.nodes[at].time >= 1_000 {
                self.nodes[at].time -= 1_000;
                let Some(running) = self.awake(at) else { continue };
                let ticked = running.host.tick();
                running.watches.tick();
                if let Some(part) = &mut running.part {
                    part.tick();
                }
                self.settle(at, ticked)?;
            }
        }
        // Several rounds a tick: a message without delay arrives in the same tick.
        for _ in 0..4 {
            self.make_calls()?;
            self.deliver()?;
            self.finish_writes()?;
        }
        for at in 0..self.nodes.len() {
            self.watch(at)?;
            self.watch_part(at)?;
        }
        self.tend_stores()?;
        self.check_bounds()
    }

    /// A node whose pause is over goes on. The shell notices, gives it one tick, however many were missed, and everything that
    /// waited for it, in any order.
    fn wake(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.paused_until.take_if(|until| *until <= self.now).is_none() {
            return;
        }
        // Its messages may come before the tick, or after it.
        node.time = if self.random.chance(500) { 1_000u64.saturating_sub(node.rate) } else { 0 };
        if let Some(running) = &mut node.running {
            running.host.slept();
            self.flying.append(&mut running.mail);
        }
    }

    /// The process, unless it is dead or stands still.
    fn awake(&mut self, at: usize) -> Option<&mut Running> {
        let node = &mut self.nodes[at];
        if node.paused_until.is_some() { None } else { node.running.as_mut() }
    }

    /// The groups of keys that there are, or will be.
    fn groups(&self) -> Vec<GroupId> {
        let first = (0..self.partitions)
            .map(|partition| GroupId { keyspace: KeyspaceId::DEFAULT, partition: PartitionId(partition) });
        let mut groups: BTreeSet<GroupId> = self.applied.keys().copied().collect();
        groups.extend(first);
        groups.into_iter().collect()
    }

    /// The meta group, and those.
    fn all_groups(&self) -> Vec<GroupId> {
        std::iter::once(GroupId::META).chain(self.groups()).collect()
    }

    /// Whether the keyspace has several partitions, or may come to have.
    pub fn has_partitions(&self) -> bool {
        self.partitions > 1 || self.splits.happen()
    }
}
