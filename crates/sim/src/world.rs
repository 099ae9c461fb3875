//! Nodes, network, disks and time.

mod faults;
mod members;
mod parts;
mod rot;
mod sleep;
mod splits;

use crate::Summary;
use crate::applied::{AppliedLog, Shadow, changes_of};
use crate::checker::Violation;
use crate::clients::{self, Ask, Call, Outcome};
use crate::history::History;
use crate::leases::{RATE_MAX, RATE_MIN};
use crate::random::Random;
use crate::watchers::{self, Known};
use members::Members;
use quorate_consensus::{Recovered, Role};
use quorate_node::{Effects, Errand, Host, Notice, Options, PeerMessage, Reach, Standing, Ticket, WriteId};
use quorate_partition::watch::Watches;
use quorate_storage::disk::MemoryDisk;
use quorate_storage::memory::MemoryEngine;
use quorate_storage::wal::{Wal, WalOptions};
use quorate_types::{
    Answer, Encode, Event, GroupId, Incarnation, Index, KeyspaceId, NodeId, PartitionId, Rejection, Request,
    Revision, Term, TxnId, WatchRequest,
};
use rot::{Rot, Rotting};
use splits::{Orders, Splits};
use std::collections::{BTreeMap, BTreeSet};

const FAULTY_TICKS: u64 = 1_500;
/// Where nodes pause for long: until some have come back, to everybody's surprise.
const FAULTY_TICKS_LONG: u64 = 4_500;
/// After healing calls go on until so long before the end; then nothing is asked, and every lease runs out.
const QUIET_TICKS: u64 = 700;
/// Quiet time in which everything must finish: some elections, and the timeout of every call.
const HEALED_TICKS: u64 = 1_500;
const CALLS_OPEN_MAX: usize = 8;
/// Calls where partitions are dealt and nothing fails any more, in thousandths of a tick.
const DEALT_CALLS_MAX: u64 = 200;
/// More messages on their way than any load of ours explains: they answer each other without end.
const FLYING_MAX: usize = 50_000;

/// How bad this run's world is; drawn from the seed, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Rates {
    loss: u64,
    repeat: u64,
    delay_ticks_max: u64,
    cut: u64,
    crash: u64,
    disk_loss: u64,
    sync_ticks_max: u64,
    pause: u64,
    pause_ticks_max: u64,
    breaks: u64,
    hand_over: u64,
    /// One group is handed over, in a keyspace of several partitions: leaderships scatter, the sequencer's goes from under a transaction.
    scatter: u64,
    /// One group's messages to and from a node are lost for a while, and the others' are not: nodes differ about who is the
    /// sequencer while partitions go on, and votes are waited for while other participants get new leaders.
    mute: u64,
    calls: u64,
    /// The load stops for a while, so that groups fall asleep among the faults.
    lull: u64,
}

impl Rates {
    /// Nothing fails.
    fn healthy(self) -> Self {
        Self {
            loss: 0,
            repeat: 0,
            delay_ticks_max: 1,
            cut: 0,
            crash: 0,
            disk_loss: 0,
            sync_ticks_max: 1,
            pause: 0,
            breaks: 0,
            hand_over: 0,
            scatter: 0,
            mute: 0,
            lull: 0,
            ..self
        }
    }
}

struct Node {
    id: NodeId,
    disk: MemoryDisk,
    engine: MemoryEngine,
    /// Of the disk; another one is made when it is lost.
    incarnation: Incarnation,
    /// What the disk says besides.
    standing: Standing,
    /// It has lost a disk and has not been admitted since.
    is_forgetful: bool,
    /// A row of its store has rotted, and how far it is with that.
    rot: Option<Rot>,
    /// The members when it joined; nobody of a founder's.
    welcomed_by: Vec<NodeId>,
    running: Option<Running>,
    /// The tick at which it comes back.
    down_until: u64,
    /// It stands still until then, as under SIGSTOP: what it is sent waits for it, what is on its disk stays.
    paused_until: Option<u64>,
    /// Ticks of its clock in a thousand of ours.
    rate: u64,
    /// How much of its next tick has passed, in thousandths.
    time: u64,
    /// Watches that its clients had when it died.
    resuming: Vec<WatchRequest>,
    /// What it may still apply.
    shadows: BTreeMap<GroupId, Shadow>,
}

impl Node {
    fn new(id: NodeId, standing: Standing, rate: u64) -> Self {
        Self {
            id,
            disk: MemoryDisk::default(),
            engine: MemoryEngine::default(),
            incarnation: Incarnation(id.0),
            standing,
            is_forgetful: false,
            rot: None,
            welcomed_by: Vec::new(),
            running: None,
            down_until: 0,
            paused_until: None,
            rate,
            time: 0,
            resuming: Vec::new(),
            shadows: BTreeMap::new(),
        }
    }
}

struct Running {
    host: Host<MemoryEngine>,
    wal: Wal<MemoryDisk>,
    /// Appended and not yet synced: the newest write, and when the sync is done.
    syncing: Option<(WriteId, u64)>,
    /// When the flush under way will be reported, and whether what was there when it began is all that it took.
    flush_due: Option<(u64, bool)>,
    /// When they are run.
    errands: Vec<(u64, Errand<MemoryEngine>)>,
    watches: Watches,
    watchers: watchers::Clients,
    /// Those that watch some of the slots that are held here.
    part: Option<parts::PartWatch>,
    /// Messages that came while it stood still.
    mail: Vec<Flying>,
    /// Calls likewise.
    inbox: Vec<usize>,
    /// Calls that this process owes an answer.
    open: BTreeMap<Ticket, usize>,
    orders: Orders,
}

struct Flying {
    due: u64,
    from: NodeId,
    /// The disk that it was sent from.
    incarnation: Incarnation,
    to: NodeId,
    message: PeerMessage,
}

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
    /// When faults ended.
    pub healed_tick: u64,
    /// Who led which term of which group.
    leaders: BTreeMap<(GroupId, Term), NodeId>,
    /// Prepared somewhere and not ended there: the term of the entry.
    prepared: BTreeMap<(GroupId, TxnId), Term>,
    trace: u64,
    counts: Summary,
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
        let mut rate = |max: u64| if random.chance(600) { random.below(max) } else { 0 };
        let rates = Rates {
            loss: rate(200),
            repeat: rate(200),
            delay_ticks_max: 1 + rate(6),
            cut: rate(8),
            crash: rate(12),
            disk_loss: rate(6),
            sync_ticks_max: rate(30),
            pause: rate(6),
            pause_ticks_max: 0,
            breaks: rate(30),
            hand_over: rate(6),
            calls: 200 + rate(800),
            lull: rate(8),
            scatter: if partitions > 1 { rate(40) } else { splits.rate(40) },
            mute: if partitions > 1 { rate(20) } else { splits.rate(20) },
        };
        // Long pauses are rare, and such runs are longer.
        let pause_ticks_max = [60, 250, 250, 3_000][random.below(4) as usize];
        let rates = Rates { pause_ticks_max, ..rates };
        let hibernate_after_ticks = [None, Some(5), Some(10), Some(50)][random.below(4) as usize];
        let is_long = rates.pause > 0 && pause_ticks_max > FAULTY_TICKS;
        let are_skewed = random.chance(600);
        let mut clock = || if are_skewed { RATE_MIN + random.below(RATE_MAX - RATE_MIN + 1) } else { 1_000 };
        let nodes = (1..=size).map(|id| Node::new(NodeId(id), Standing::New, clock())).collect();
        let members = Members::new(seed, size, partitions);
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
            is_faulty: true,
            faulty_ticks: if is_long || members.happen() { FAULTY_TICKS_LONG } else { FAULTY_TICKS },
            is_reading_by_lease: !seed.is_multiple_of(3),
            hibernate_after_ticks,
            lull_until: 0,
            members,
            rotting: Rotting::new(seed),
        }
    }

    /// A world in which nothing fails, all clocks agree and nobody stops asking.
    pub fn healthy(seed: u64, partitions: u32) -> Self {
        let mut world = Self::new(seed, partitions);
        world.rates = world.rates.healthy();
        world.splits = Splits::none();
        world.members = Members::none(world.nodes.len() as u64);
        world.rotting = Rotting::none();
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
            self.live_a_tick()?;
        }
        Ok(())
    }

    /// Nothing fails any more, and everything must finish.
    pub fn heal_and_finish(&mut self) -> Result<(), Violation> {
        self.is_faulty = false;
        self.cut.clear();
        self.muted.clear();
        self.rates = self.rates.healthy();
        self.healed_tick = self.now;
        let lost = &self.members.lost;
        for node in self.nodes.iter_mut().filter(|node| !lost.contains(&node.id)) {
            node.down_until = 0;
            node.paused_until = node.paused_until.map(|_| self.now);
        }
        self.members.moved_tick = self.now;
        if self.members.are_dealt() {
            // Every transaction takes its locks on several nodes one after the other: with more calls than that on so few keys some get none in their time.
            self.rates.calls = self.rates.calls.min(DEALT_CALLS_MAX);
        }
        // Whoever was lost last may have to be found lost yet, and replaced.
        let until = self.now + HEALED_TICKS * if self.members.move_groups() { 2 } else { 1 };
        while self.now < until {
            if self.now + QUIET_TICKS > until {
                self.rates.calls = 0;
            }
            self.order_members()?;
            self.live_a_tick()?;
        }
        self.check_splits()?;
        self.check_members()?;
        for node in &mut self.nodes {
            if let Some(running) = &mut node.running {
                running.watchers.ask_progress(&mut running.watches);
                if let Some(part) = &mut running.part {
                    part.ask_progress();
                }
            }
        }
        for at in 0..self.nodes.len() {
            // One poll may end with history that had nothing for a stream.
            for _ in 0..3 {
                self.watch(at)?;
                self.watch_part(at)?;
            }
        }
        let open =
            self.nodes.iter().filter_map(|node| node.running.as_ref()).map(|running| running.open.len());
        if open.sum::<usize>() > 0 {
            return Err(self.violation("calls were never answered though nothing failed any more"));
        }
        let settled_tick = self.healed_tick.max(self.members.moved_tick) + members::SETTLED_TICKS;
        let healed = |call: &&Call| call.asked_tick > settled_tick;
        let refused = self.calls.iter().filter(healed).find(|call| {
            matches!(
                call.outcome,
                Some(Outcome::Rejected(
                    Rejection::NoLeader | Rejection::Timeout | Rejection::Unknown | Rejection::Unavailable
                ))
            )
        });
        if let Some(call) = refused {
            return Err(self.violation(format!("a healed cluster did not serve {call:?}")));
        }
        let mut states = Vec::new();
        for node in &self.nodes {
            if self.members.lost.contains(&node.id) {
                continue;
            }
            let Some(running) = &node.running else {
                return Err(self.violation(format!("node {} did not come back", node.id)));
            };
            if !running.host.is_admitted() {
                return Err(self.violation(format!("node {} was never admitted", node.id)));
            }
            for status in running.host.status() {
                states.push((
                    status.group,
                    status.consensus.applied,
                    status.digest,
                    status.revision,
                    node.id,
                ));
            }
            let known = Known { history: &self.history, compacted: None, published: None, now: self.now };
            if let Err(problem) = running.watchers.finish(&known) {
                return Err(self.violation(format!("at {}: {problem}", node.id)));
            }
        }
        for at in 0..self.nodes.len() {
            self.check_part(at)?;
        }
        for group in self.all_groups() {
            let mut of_group = states.iter().filter(|state| state.0 == group);
            let Some(first) = of_group.next() else { continue };
            if let Some(other) =
                of_group.find(|other| (other.1, other.2, other.3) != (first.1, first.2, first.3))
            {
                return Err(self.violation(format!("replicas differ after healing: {first:?} and {other:?}")));
            }
        }
        Ok(())
    }

    /// In half of the runs leaders stay where they are and draw from afar. Not with many partitions: transactions over all of them take their locks
    /// one after the other, and every message takes a tick.
    fn are_leaders_spread(&self) -> bool {
        self.seed & 8 != 0 && self.partitions <= 4
    }

    fn start(&mut self, at: usize) -> Result<(), Violation> {
        let cluster = self.members.told(&self.nodes[at]);
        let salt = self.random.below(u64::MAX);
        let spreads = self.are_leaders_spread();
        let node = &mut self.nodes[at];
        let opened = Wal::open(node.disk.clone(), node.id.0, WalOptions { segment_bytes: 32 << 10 });
        let (wal, recovered, _) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(self.violation(format!("a log that only crashed is refused: {error}"))),
        };
        let mut options = Options::new(node.id, salt);
        options.incarnation = node.incarnation;
        self.members.set(&mut options);
        options.log_bytes_target = 1 << 10;
        // Small in half of the runs, so that followers fall behind and need snapshots.
        options.log_bytes_max = if self.seed.is_multiple_of(2) { 2 << 10 } else { 16 << 10 };
        options.snapshot_chunk_bytes = 256;
        options.snapshot_bytes_per_tick = 2_048;
        options.snapshot_idle_ticks = 100;
        options.compaction_rows_per_tick = 5;
        options.clear_rows = 50;
        options.lease_read = self.is_reading_by_lease;
        options.hibernate_after_ticks = self.hibernate_after_ticks;
        if !self.seed.is_multiple_of(4) {
            options.partition.lease_checkpoint_seconds = 1;
        }
        options.partitions = self.partitions;
        options.spread_leaders = spreads;
        let logs = recovered.clone();
        let host = match Host::new(options, node.standing.clone(), node.engine.clone(), cluster, recovered) {
            Ok(host) => host,
            Err(fault) if fault.is_damage() && self.sees_rot(at) => {
                // With that store it serves nobody.
                self.give_up_store(at)?;
                return self.start(at);
            }
            Err(fault) => {
                return Err(self.violation(format!("a node that only crashed does not start: {fault}")));
            }
        };
        let revision = host.reader(KeyspaceId::DEFAULT).map_or(Revision::FIRST, |reader| reader.revision());
        let applied: BTreeMap<GroupId, Index> =
            host.status().into_iter().map(|status| (status.group, status.consensus.applied)).collect();
        let shadow = |(group, recovered): (&GroupId, &Recovered)| {
            (*group, Shadow::new(recovered, applied.get(group).copied().unwrap_or_default()))
        };
        node.shadows = logs.iter().map(shadow).collect();
        let mut running = Running {
            host,
            wal,
            syncing: None,
            flush_due: None,
            errands: Vec::new(),
            watches: Watches::new(watchers::limits(&mut self.random), revision),
            watchers: watchers::Clients::default(),
            part: None,
            mail: Vec::new(),
            inbox: Vec::new(),
            open: BTreeMap::new(),
            orders: Orders::default(),
        };
        let resuming = std::mem::take(&mut node.resuming);
        if !resuming.is_empty() && self.random.chance(800) {
            let id = running.watchers.open(&mut self.random, &mut running.watches);
            if let (Ok(id), Some(reader)) = (id, running.host.reader(KeyspaceId::DEFAULT)) {
                for request in resuming {
                    let created = running.watchers.create(id, request, &mut running.watches, &reader);
                    assert!(created.is_ok(), "a few watches are within the limits: {created:?}");
                }
            }
        }
        self.nodes[at].running = Some(running);
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
        self.tend_stores()
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

    /// Gives a node that woke up the calls that waited for it, now or a little later.
    fn read_inboxes(&mut self) -> Result<(), Violation> {
        for at in 0..self.nodes.len() {
            let is_waiting = self.awake(at).is_some_and(|running| !running.inbox.is_empty());
            if is_waiting && self.random.chance(500) {
                let Some(running) = self.awake(at) else { continue };
                for number in std::mem::take(&mut running.inbox) {
                    self.begin_call(at, number)?;
                }
            }
        }
        Ok(())
    }

    fn begin_call(&mut self, at: usize, number: usize) -> Result<(), Violation> {
        let ask = self.calls[number].ask.clone();
        let Some(running) = self.awake(at) else { return Ok(()) };
        let ticket = Ticket(number as u64);
        let asked = match ask {
            Ask::Request(request) => running.host.request(ticket, KeyspaceId::DEFAULT, request),
            Ask::Read(read) => running.host.barrier(ticket, KeyspaceId::DEFAULT, vec![read.range]),
        };
        self.settle(at, asked)
    }

    fn make_calls(&mut self) -> Result<(), Violation> {
        self.read_inboxes()?;
        let at = self.random.below(self.nodes.len() as u64) as usize;
        let is_free =
            self.nodes[at].running.as_ref().is_some_and(|running| running.open.len() < CALLS_OPEN_MAX);
        if !is_free
            || !self.is_called(at)
            || self.now < self.lull_until
            || !self.random.chance(self.rates.calls / 4)
        {
            return Ok(());
        }
        let number = self.calls.len();
        let ask = clients::draw(&mut self.random, number as u64, self.history.newest());
        self.call(at, ask)
    }

    fn call(&mut self, at: usize, ask: Ask) -> Result<(), Violation> {
        let number = self.calls.len();
        self.step += 1;
        self.calls.push(Call {
            ask,
            asked: self.step,
            asked_tick: self.now,
            answered: None,
            answered_tick: None,
            outcome: None,
        });
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return Ok(()) };
        running.open.insert(Ticket(number as u64), number);
        if node.paused_until.is_some() {
            running.inbox.push(number);
            return Ok(());
        }
        self.begin_call(at, number)
    }

    fn deliver(&mut self) -> Result<(), Violation> {
        let mut due = Vec::new();
        let mut at = 0;
        while at < self.flying.len() {
            if self.flying[at].due <= self.now {
                due.push(self.flying.swap_remove(at));
            } else {
                at += 1;
            }
        }
        if due.len() > FLYING_MAX {
            return Err(self.violation("messages multiply"));
        }
        while !due.is_empty() {
            let next = self.random.below(due.len() as u64) as usize;
            let flying = due.swap_remove(next);
            if self.cut.contains_key(&(flying.from, flying.to)) || self.is_muted(&flying) {
                continue;
            }
            let at = flying.to.0 as usize - 1;
            // A member whose row is there and that has not begun yet.
            if at >= self.nodes.len() {
                continue;
            }
            let is_paused = self.nodes[at].paused_until.is_some();
            if let Some(running) = self.nodes[at].running.as_mut().filter(|_| is_paused) {
                running.mail.push(flying);
                continue;
            }
            let Flying { from, incarnation, message, .. } = flying;
            self.note(&message.encoded_vec());
            let Some(running) = &mut self.nodes[at].running else { continue };
            let received = running.host.receive(from, incarnation, message);
            self.settle(at, received)?;
        }
        Ok(())
    }

    fn finish_writes(&mut self) -> Result<(), Violation> {
        let now = self.now;
        for at in 0..self.nodes.len() {
            let Some(running) = self.awake(at) else { continue };
            if let Some((write, _)) = running.syncing.take_if(|(_, due)| *due <= now) {
                if let Err(fault) = running.wal.sync() {
                    return Err(self.violation(format!("a healthy disk failed: {fault}")));
                }
                running.host.persisted(write);
                let pinned = running.wal.pinned(128 << 10);
                running.host.release_log(pinned);
                self.settle(at, Ok(()))?;
            }
            let Some(running) = self.awake(at) else { continue };
            if let Some((_, is_taken)) = running.flush_due.take_if(|(due, _)| *due <= now) {
                if !is_taken && let Err(fault) = quorate_mvcc::engine::Engine::flush(&self.nodes[at].engine) {
                    return Err(self.violation(format!("a healthy store failed: {fault}")));
                }
                let Some(running) = &mut self.nodes[at].running else { continue };
                running.host.flushed();
                self.settle(at, Ok(()))?;
            }
            self.run_errands(at)?;
        }
        Ok(())
    }

    /// What is done beside a host is done late, and in any order.
    fn run_errands(&mut self, at: usize) -> Result<(), Violation> {
        let now = self.now;
        loop {
            let Some(running) = self.awake(at) else { return Ok(()) };
            let Some(next) = running.errands.iter().position(|(due, _)| *due <= now) else { return Ok(()) };
            let (_, errand) = running.errands.swap_remove(next);
            let done = running.host.errand_done(errand.run());
            self.settle(at, done)?;
        }
    }

    /// Carries out what a node wants done.
    fn settle(&mut self, at: usize, outcome: Result<(), quorate_types::Fault>) -> Result<(), Violation> {
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let effects = match outcome.and_then(|()| running.host.take()) {
            Ok(effects) => effects,
            Err(fault) => return self.stops_for(at, &fault),
        };
        let Effects {
            send,
            persist,
            replies,
            grants,
            applied,
            flush,
            standing,
            members: _,
            notices,
            suspect,
        } = effects;
        if let Some(fault) = suspect
            && !self.sees_rot(at)
        {
            return Err(self.violation(format!("a healthy store is suspected: {fault}")));
        }
        let (from, incarnation) = (self.nodes[at].id, self.nodes[at].incarnation);
        for (to, message) in send {
            if self.random.chance(self.rates.loss) {
                continue;
            }
            // Requests and replies travel over one TCP connection, which repeats nothing.
            let is_call = matches!(message, PeerMessage::Request { .. } | PeerMessage::Reply { .. });
            let copies = 1 + u64::from(!is_call && self.random.chance(self.rates.repeat));
            for _ in 0..copies {
                let due = self.now + self.random.below(self.rates.delay_ticks_max);
                self.flying.push(Flying { due, from, incarnation, to, message: message.clone() });
            }
        }
        let sync_due = self.now + self.random.below(self.rates.sync_ticks_max + 1);
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        for errand in running.host.errands() {
            let due = self.now + self.random.below(self.rates.sync_ticks_max + 1);
            running.errands.push((due, errand));
        }
        let mut written = Vec::new();
        if let Some((write, parts)) = persist {
            if let Err(fault) = running.wal.append(&parts) {
                return Err(self.violation(format!("a healthy disk failed: {fault}")));
            }
            let due = running.syncing.map_or(sync_due, |(_, due)| due);
            running.syncing = Some((write, due));
            written.extend(parts);
        }
        if flush {
            // What is written while a flush goes on is in it, or not.
            let is_taken = self.random.chance(500);
            running.flush_due = Some((sync_due + 1, is_taken));
            if is_taken && let Err(fault) = quorate_mvcc::engine::Engine::flush(&self.nodes[at].engine) {
                return Err(self.violation(format!("a healthy store failed: {fault}")));
            }
        }
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        if let Some(standing) = standing {
            running.host.standing_recorded();
            self.nodes[at].standing = standing;
            self.nodes[at].is_forgetful = false;
        }
        for notice in &notices {
            // It may have lost its registration again by now, and have answered meanwhile.
            if let Notice::Registered { group, term, .. } = notice {
                self.nodes[at].shadows.entry(*group).or_default().register(*term);
            }
            self.counts.moves += u64::from(matches!(notice, Notice::Discarded { .. }));
            self.counts.snapshots += u64::from(matches!(notice, Notice::SnapshotInstalled { .. }));
        }
        self.note_applied(at, &written)?;
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        for (keyspace, applied) in applied {
            if keyspace != KeyspaceId::DEFAULT {
                continue;
            }
            if let Some(part) = &mut running.part {
                part.tell(&applied);
            }
            // Who watches everything hears nothing of what is in part here.
            if applied.is_in_part {
                continue;
            }
            if let Some(revision) = applied.replaced {
                running.watches.restored(revision);
            }
            running.watches.publish(&applied.changes);
            if let Some(revision) = applied.through {
                running.watches.advance(revision);
            }
            if let Some(compacted) = applied.compacted {
                running.watches.compacted(compacted);
            }
            for changes in applied.changes {
                if let Err(what) = self.history.check(&changes) {
                    return Err(self.violation(what));
                }
            }
        }
        for notice in notices {
            // Whoever leads, served or not: at most one in a term (Election Safety; Raft paper, figure 3).
            if let Notice::Role { group, term, role: Role::Leader { .. } } = notice
                && *self.leaders.entry((group, term)).or_insert(from) != from
            {
                return Err(self.violation(format!("two leaders of term {term} of group {group}")));
            }
        }
        for (ticket, outcome) in replies {
            if members::is_order(ticket) {
                continue;
            }
            let orders = self.nodes[at].running.as_mut().map(|running| &mut running.orders);
            if orders.is_some_and(|orders| orders.answered(ticket, &outcome)) {
                continue;
            }
            let outcome = match outcome {
                Ok(reply) => {
                    self.history.reach(reply.revision);
                    let is_read =
                        matches!(self.calls.get(ticket.0 as usize), Some(Call { ask: Ask::Read(_), .. }));
                    match reply.answer {
                        Answer::Range(answer) if is_read => Outcome::Read(reply.revision, answer),
                        _ => Outcome::Reply(reply),
                    }
                }
                Err(rejection) => Outcome::Rejected(rejection),
            };
            self.answer(at, ticket, outcome)?;
        }
        for (ticket, grant) in grants {
            let outcome = match grant {
                Ok(grant) if grant.reach != Reach::Here => {
                    // Some of it is on other nodes only: those that have it answer.
                    let Some(Call { ask: Ask::Read(read), .. }) = self.calls.get(ticket.0 as usize) else {
                        return Err(self.violation(format!("{ticket:?} reads what nobody asked for")));
                    };
                    let request = Request::Range(read.clone());
                    let Some(running) = &mut self.nodes[at].running else { continue };
                    let asked = running.host.request(ticket, KeyspaceId::DEFAULT, request);
                    self.settle(at, asked)?;
                    continue;
                }
                Ok(grant) => {
                    self.history.reach(grant.revision);
                    self.read(at, ticket, grant.revision)?
                }
                Err(rejection) => Outcome::Rejected(rejection),
            };
            self.answer(at, ticket, outcome)?;
        }
        Ok(())
    }

    /// What the node wrote to its log and what it has applied, as far as that can be seen.
    fn note_applied(
        &mut self,
        at: usize,
        written: &[(GroupId, quorate_types::LogWrite)],
    ) -> Result<(), Violation> {
        let node = &mut self.nodes[at];
        let Some(running) = &node.running else { return Ok(()) };
        for (group, write) in written {
            node.shadows.entry(*group).or_default().write(write);
        }
        let id = node.id;
        let mut statuses = running.host.status();
        for status in statuses.extract_if(.., |status| status.group == GroupId::META) {
            let shadow = node.shadows.entry(GroupId::META).or_default();
            let news =
                self.applied_meta.advance(shadow, status.consensus.applied, status.digest, true, self.now);
            if let Err(what) = news {
                return Err(self.violation(format!("at {id}, the meta group: {what}")));
            }
        }
        // The only partition answers whether or not it is registered.
        let is_only =
            running.host.maps().all(|map| map.id != KeyspaceId::DEFAULT || map.partitions.len() == 1);
        let is_alone = statuses.len() == 1 && is_only;
        for status in statuses {
            let log = self.applied.entry(status.group).or_default();
            let shadow = node.shadows.entry(status.group).or_default();
            // What it was asked then is answered also after a split.
            if is_alone && status.is_serving {
                shadow.register(status.consensus.term);
            }
            let is_visible = is_alone || status.is_registered;
            let news = log.advance(shadow, status.consensus.applied, status.digest, is_visible, self.now);
            let noted = news.and_then(|news| {
                for entry in news {
                    self.counts.transactions.note(status.group, &entry, &mut self.prepared);
                    if let Some((revision, part)) = changes_of(&entry)? {
                        self.history.add(revision, part, self.now)?;
                    }
                }
                Ok(())
            });
            if let Err(what) = noted {
                return Err(self.violation(format!("at {id}, group {}: {what}", status.group)));
            }
        }
        Ok(())
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

    fn read(&mut self, at: usize, ticket: Ticket, newest: Revision) -> Result<Outcome, Violation> {
        let Some(Call { ask: Ask::Read(request), .. }) = self.calls.get(ticket.0 as usize) else {
            return Err(self.violation(format!("{ticket:?} was granted a read that nobody asked for")));
        };
        let reader =
            self.nodes[at].running.as_ref().and_then(|running| running.host.reader(KeyspaceId::DEFAULT));
        match reader.map(|reader| reader.range(request, newest)) {
            Some(Ok((revision, answer))) => Ok(Outcome::Read(revision, answer)),
            Some(Err(quorate_partition::ReadError::Rejection(rejection))) => Ok(Outcome::Rejected(rejection)),
            Some(Err(quorate_partition::ReadError::Fault(fault)))
                if fault.is_damage() && self.sees_rot(at) =>
            {
                Ok(Outcome::Rejected(Rejection::Unavailable))
            }
            Some(Err(quorate_partition::ReadError::Fault(fault))) => {
                Err(self.violation(format!("a read of a healthy store failed: {fault}")))
            }
            None => Err(self.violation("a read was granted where there is nothing to read")),
        }
    }

    fn answer(&mut self, at: usize, ticket: Ticket, outcome: Outcome) -> Result<(), Violation> {
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let Some(number) = running.open.remove(&ticket) else {
            return Err(self.violation(format!("{ticket:?} was answered twice, or never asked")));
        };
        self.step += 1;
        self.note(format!("{number} {outcome:?}").as_bytes());
        self.calls[number].answered = Some(self.step);
        self.calls[number].answered_tick = Some(self.now);
        self.calls[number].outcome = Some(outcome);
        Ok(())
    }

    /// Lets the clients that watch at a node do something, and take what they are told.
    fn watch(&mut self, at: usize) -> Result<(), Violation> {
        let is_holder = self.is_holder(at);
        let node = &mut self.nodes[at];
        if node.paused_until.is_some() {
            return Ok(());
        }
        let Some(running) = &mut node.running else { return Ok(()) };
        let Some(reader) = running.host.reader(KeyspaceId::DEFAULT) else { return Ok(()) };
        if !is_holder {
            // Its clients go elsewhere.
            running.watchers = watchers::Clients::default();
            running.watches = Watches::new(watchers::limits(&mut self.random), reader.revision());
            return Ok(());
        }
        let (random, watches) = (&mut self.random, &mut running.watches);
        self.history.reach(reader.revision());
        let newest = self.history.newest();
        let mut outcome = Ok(0);
        if self.rates.calls > 0 && random.chance(50) {
            outcome = running.watchers.act(random, watches, &reader, newest).map(|()| 0);
        }
        if outcome.is_ok() {
            let published = reader.is_available().then(|| watches.revision());
            let compacted = reader.compacted();
            let known = Known { history: &self.history, compacted, published, now: self.now };
            outcome = running.watchers.take(random, watches, &reader, &known, !self.is_faulty);
        }
        let id = node.id;
        match outcome {
            Ok(told) => self.counts.watched += told,
            Err(problem) if problem.contains(watchers::STORE_FAILED) && self.sees_rot(at) => {
                // Its streams have ended.
                self.crash(at);
            }
            Err(problem) => return Err(self.violation(format!("a watcher at {id}: {problem}"))),
        }
        Ok(())
    }
}

/// The revision of an event.
pub fn modified(event: &Event) -> Revision {
    match event {
        Event::Put(pair) => pair.modified,
        Event::Delete { modified, .. } => *modified,
    }
}
