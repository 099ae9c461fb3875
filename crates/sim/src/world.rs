//! Nodes, network, disks and time.

use crate::Summary;
use crate::checker::Violation;
use crate::clients::{self, Ask, Call, Outcome};
use crate::random::Random;
use quorate_node::{Effects, GroupStart, Host, Notice, Options, PeerMessage, Standing, Ticket, WriteId};
use quorate_partition::watch::{self, StreamId, WatchResponseKind, Watches};
use quorate_storage::disk::MemoryDisk;
use quorate_storage::memory::MemoryEngine;
use quorate_storage::wal::{Wal, WalOptions};
use quorate_types::{
    Encode, Event, GroupId, Incarnation, KeyRange, KeyspaceId, NodeId, Rejection, Revision, Term,
    WatchRequest,
};
use std::collections::BTreeMap;

const GROUPS: [GroupId; 2] = [GroupId::META, GroupId::FIRST];
const FAULTY_TICKS: u64 = 1_500;
/// Quiet time in which everything must finish: some elections, and the timeout of every call.
const HEALED_TICKS: u64 = 1_500;
const CALLS_OPEN_MAX: usize = 8;

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
    calls: u64,
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
    running: Option<Running>,
    /// The tick at which it comes back.
    down_until: u64,
    /// The newest revision its watcher was told of, over all its lives.
    told: Revision,
}

struct Running {
    host: Host<MemoryEngine>,
    wal: Wal<MemoryDisk>,
    /// Appended and not yet synced: the newest write, and when the sync is done.
    syncing: Option<(WriteId, u64)>,
    flush_due: Option<u64>,
    watches: Watches,
    /// Calls that this process owes an answer.
    open: BTreeMap<Ticket, usize>,
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
    now: u64,
    step: u64,
    /// Every call ever made.
    pub calls: Vec<Call>,
    /// What each revision changed, as the first replica that applied it said, and when that was.
    pub history: BTreeMap<Revision, (Vec<Event>, u64)>,
    /// Who led which term of which group.
    leaders: BTreeMap<(GroupId, Term), NodeId>,
    newest: Revision,
    trace: u64,
    counts: Summary,
    is_faulty: bool,
}

/// The stream of a node's one watcher.
const WATCHER: StreamId = StreamId(1);

impl World {
    /// The beginning.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let size = [1, 3, 3, 3, 5][random.below(5) as usize];
        let mut rate = |max: u64| if random.chance(600) { random.below(max) } else { 0 };
        let rates = Rates {
            loss: rate(200),
            repeat: rate(200),
            delay_ticks_max: 1 + rate(6),
            cut: rate(8),
            crash: rate(12),
            disk_loss: rate(6),
            sync_ticks_max: rate(30),
            calls: 200 + rate(800),
        };
        let node = |number: u64| Node {
            id: NodeId(number),
            disk: MemoryDisk::default(),
            engine: MemoryEngine::default(),
            incarnation: Incarnation(number),
            standing: Standing::New,
            is_forgetful: false,
            running: None,
            down_until: 0,
            told: Revision::FIRST,
        };
        Self {
            seed,
            random,
            rates,
            nodes: (1..=size).map(node).collect(),
            flying: Vec::new(),
            cut: BTreeMap::new(),
            now: 0,
            step: 0,
            calls: Vec::new(),
            history: BTreeMap::new(),
            leaders: BTreeMap::new(),
            newest: Revision::FIRST,
            trace: 0,
            counts: Summary::default(),
            is_faulty: true,
        }
    }

    /// A violation found now.
    pub fn violation(&self, what: impl Into<String>) -> Violation {
        Violation { seed: self.seed, tick: self.now, what: what.into() }
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
            revisions: self.history.len() as u64,
            elections: self.leaders.len() as u64,
            trace: self.trace,
            ..self.counts.clone()
        }
    }

    /// Everything may fail.
    pub fn run_with_faults(&mut self) -> Result<(), Violation> {
        while self.now < FAULTY_TICKS {
            self.fail_something();
            self.live_a_tick()?;
        }
        Ok(())
    }

    /// Nothing fails any more, and everything must finish.
    pub fn heal_and_finish(&mut self) -> Result<(), Violation> {
        self.is_faulty = false;
        self.cut.clear();
        self.rates = Rates {
            loss: 0,
            repeat: 0,
            delay_ticks_max: 1,
            cut: 0,
            crash: 0,
            disk_loss: 0,
            sync_ticks_max: 1,
            ..self.rates
        };
        for node in &mut self.nodes {
            node.down_until = 0;
        }
        let until = self.now + HEALED_TICKS;
        while self.now < until {
            if self.now + 700 > until {
                self.rates.calls = 0;
            }
            self.live_a_tick()?;
        }
        let open =
            self.nodes.iter().filter_map(|node| node.running.as_ref()).map(|running| running.open.len());
        if open.sum::<usize>() > 0 {
            return Err(self.violation("calls were never answered though nothing failed any more"));
        }
        let healed = |call: &&Call| call.asked_tick > FAULTY_TICKS + 200;
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
            if node.told != self.newest && self.newest > Revision::FIRST {
                let problem =
                    format!("the watcher at {} was told up to {} of {}", node.id, node.told, self.newest);
                return Err(self.violation(problem));
            }
        }
        for group in GROUPS {
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

    fn fail_something(&mut self) {
        if self.random.chance(self.rates.crash) {
            let at = self.random.below(self.nodes.len() as u64) as usize;
            self.crash(at);
            // Now and then the power fails for some or all: what only memory held is gone everywhere.
            if self.random.chance(250) {
                for at in 0..self.nodes.len() {
                    if self.random.chance(300) {
                        continue;
                    }
                    self.crash(at);
                }
            }
        }
        if self.random.chance(self.rates.disk_loss) {
            self.lose_disk();
        }
        if self.random.chance(self.rates.cut) && self.nodes.len() > 1 {
            let until = self.now + 20 + self.random.below(200);
            let lonely = NodeId(1 + self.random.below(self.nodes.len() as u64));
            let (is_out, is_in) = (self.random.chance(800), self.random.chance(800));
            for other in self.nodes.iter().map(|node| node.id).filter(|id| *id != lonely) {
                if is_out {
                    self.cut.insert((lonely, other), until);
                }
                if is_in {
                    self.cut.insert((other, lonely), until);
                }
            }
        }
        let now = self.now;
        self.cut.retain(|_, until| *until > now);
    }

    /// A node crashes and comes back with an empty disk; one at a time, because what a majority forgets is lost.
    fn lose_disk(&mut self) {
        if self.nodes.iter().any(|node| node.is_forgetful) || self.nodes.len() == 1 {
            return;
        }
        let at = self.random.below(self.nodes.len() as u64) as usize;
        self.crash(at);
        let node = &mut self.nodes[at];
        node.disk = MemoryDisk::default();
        node.engine = MemoryEngine::default();
        node.incarnation = Incarnation(node.incarnation.0 + 10);
        node.standing = Standing::New;
        node.is_forgetful = true;
        self.counts.disks_lost += 1;
    }

    fn crash(&mut self, at: usize) {
        let Some(running) = self.nodes[at].running.take() else { return };
        self.counts.crashes += 1;
        drop(running);
        let random = &mut self.random;
        let survives = random.below(1001);
        self.nodes[at].disk.crash(|| random.chance(survives));
        let kept = random.below(self.nodes[at].engine.unflushed() as u64 + 1) as usize;
        self.nodes[at].engine.crash(kept);
        self.nodes[at].down_until = self.now + 5 + self.random.below(150);
        let lost = self.nodes[at].id;
        // Peers see the connection break, unless the network ate that too.
        for other in 0..self.nodes.len() {
            if self.random.chance(700)
                && let Some(running) = &mut self.nodes[other].running
            {
                running.host.peer_lost(lost);
            }
        }
    }

    fn start(&mut self, at: usize) -> Result<(), Violation> {
        let voters: Vec<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let salt = self.random.below(u64::MAX);
        let node = &mut self.nodes[at];
        let opened = Wal::open(node.disk.clone(), node.id.0, WalOptions { segment_bytes: 32 << 10 });
        let (wal, mut recovered, _) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(self.violation(format!("a log that only crashed is refused: {error}"))),
        };
        let mut options = Options::new(node.id, salt);
        options.incarnation = node.incarnation;
        options.log_bytes_target = 1 << 10;
        // Small in half of the runs, so that followers fall behind and need snapshots.
        options.log_bytes_max = if self.seed.is_multiple_of(2) { 2 << 10 } else { 16 << 10 };
        options.snapshot_chunk_bytes = 256;
        options.snapshot_bytes_per_tick = 2_048;
        options.snapshot_idle_ticks = 100;
        options.compaction_rows_per_tick = 5;
        let starts = GROUPS.map(|group| GroupStart {
            group,
            voters: voters.clone(),
            recovered: recovered.remove(&group).unwrap_or_default(),
        });
        let host = match Host::new(options, node.standing.clone(), node.engine.clone(), starts.to_vec()) {
            Ok(host) => host,
            Err(fault) => {
                return Err(self.violation(format!("a node that only crashed does not start: {fault}")));
            }
        };
        let revision = host.reader(GroupId::FIRST).map_or(Revision::FIRST, |reader| reader.revision());
        let watches =
            Watches::new(watch::Limits { stream_queue_bytes_max: 400, ..watch::Limits::default() }, revision);
        let mut running =
            Running { host, wal, syncing: None, flush_due: None, watches, open: BTreeMap::new() };
        let from = node.told.next();
        Self::begin_watch(&mut running, from);
        node.running = Some(running);
        Ok(())
    }

    fn begin_watch(running: &mut Running, from: Revision) {
        let mut request = WatchRequest::new(KeyRange::all());
        request.start_revision = Some(from.0 as i64);
        running.watches.close(WATCHER);
        let opened = running.watches.open(WATCHER);
        assert!(opened.is_ok(), "one stream is within the limit: {opened:?}");
        if let Some(reader) = running.host.reader(GroupId::FIRST) {
            let created = running.watches.create(WATCHER, request, &reader);
            assert!(created.is_ok(), "one watch is within the limit: {created:?}");
        }
    }

    fn live_a_tick(&mut self) -> Result<(), Violation> {
        self.now += 1;
        for at in 0..self.nodes.len() {
            if self.nodes[at].running.is_none() && self.nodes[at].down_until <= self.now {
                self.start(at)?;
            }
        }
        for at in 0..self.nodes.len() {
            let Some(running) = &mut self.nodes[at].running else { continue };
            let ticked = running.host.tick();
            running.watches.tick();
            self.settle(at, ticked)?;
        }
        // Several rounds a tick: a message without delay arrives in the same tick.
        for _ in 0..4 {
            self.make_calls()?;
            self.deliver()?;
            self.finish_writes()?;
        }
        for at in 0..self.nodes.len() {
            self.watch(at)?;
        }
        Ok(())
    }

    fn make_calls(&mut self) -> Result<(), Violation> {
        let at = self.random.below(self.nodes.len() as u64) as usize;
        let is_free =
            self.nodes[at].running.as_ref().is_some_and(|running| running.open.len() < CALLS_OPEN_MAX);
        if !is_free || !self.random.chance(self.rates.calls / 4) {
            return Ok(());
        }
        let number = self.calls.len();
        let ask = clients::draw(&mut self.random, number as u64, self.newest);
        self.step += 1;
        self.calls.push(Call {
            ask: ask.clone(),
            asked: self.step,
            asked_tick: self.now,
            answered: None,
            outcome: None,
        });
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let ticket = Ticket(number as u64);
        running.open.insert(ticket, number);
        let asked = match ask {
            Ask::Request(request) => running.host.request(ticket, KeyspaceId::DEFAULT, request),
            Ask::Read(_) => running.host.barrier(ticket, KeyspaceId::DEFAULT),
        };
        self.settle(at, asked)
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
        while !due.is_empty() {
            let next = self.random.below(due.len() as u64) as usize;
            let Flying { from, incarnation, to, message, .. } = due.swap_remove(next);
            if self.cut.contains_key(&(from, to)) {
                continue;
            }
            self.note(&message.encoded_vec());
            let at = to.0 as usize - 1;
            let Some(running) = &mut self.nodes[at].running else { continue };
            let received = running.host.receive(from, incarnation, message);
            self.settle(at, received)?;
        }
        Ok(())
    }

    fn finish_writes(&mut self) -> Result<(), Violation> {
        for at in 0..self.nodes.len() {
            let Some(running) = &mut self.nodes[at].running else { continue };
            if let Some((write, _)) = running.syncing.take_if(|(_, due)| *due <= self.now) {
                if let Err(fault) = running.wal.sync() {
                    return Err(self.violation(format!("a healthy disk failed: {fault}")));
                }
                running.host.persisted(write);
                let pinned = running.wal.pinned(128 << 10);
                running.host.release_log(pinned);
                self.settle(at, Ok(()))?;
            }
            let Some(running) = &mut self.nodes[at].running else { continue };
            if running.flush_due.take_if(|due| *due <= self.now).is_some() {
                if let Err(fault) = quorate_mvcc::engine::Engine::flush(&self.nodes[at].engine) {
                    return Err(self.violation(format!("a healthy store failed: {fault}")));
                }
                let Some(running) = &mut self.nodes[at].running else { continue };
                running.host.flushed();
                self.settle(at, Ok(()))?;
            }
        }
        Ok(())
    }

    /// Carries out what a node wants done.
    fn settle(&mut self, at: usize, outcome: Result<(), quorate_types::Fault>) -> Result<(), Violation> {
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let effects = match outcome.and_then(|()| running.host.take()) {
            Ok(effects) => effects,
            Err(fault) => return Err(self.violation(format!("a node with a healthy disk stopped: {fault}"))),
        };
        let Effects { send, persist, replies, grants, applied, flush, standing, notices } = effects;
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
        if let Some((write, parts)) = persist {
            if let Err(fault) = running.wal.append(&parts) {
                return Err(self.violation(format!("a healthy disk failed: {fault}")));
            }
            let due = running.syncing.map_or(sync_due, |(_, due)| due);
            running.syncing = Some((write, due));
        }
        if flush {
            running.flush_due = Some(sync_due + 1);
        }
        if let Some(standing) = standing {
            running.host.standing_recorded();
            self.nodes[at].standing = standing;
            self.nodes[at].is_forgetful = false;
        }
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        for (group, applied) in applied {
            if group != GroupId::FIRST {
                continue;
            }
            if let Some(revision) = applied.replaced {
                running.watches.restored(revision);
                self.counts.snapshots += 1;
            }
            running.watches.publish(&applied.changes);
            if let Some(compacted) = applied.compacted {
                running.watches.compacted(compacted);
            }
            for changes in applied.changes {
                let events: Vec<Event> = changes.events.to_vec();
                let (known, _) =
                    self.history.entry(changes.revision).or_insert_with(|| (events.clone(), self.now));
                if *known != events {
                    let what = format!("revision {} is {known:?} and {events:?}", changes.revision);
                    return Err(Violation { seed: self.seed, tick: self.now, what });
                }
                self.newest = self.newest.max(changes.revision);
            }
        }
        for notice in notices {
            if let Notice::Serving { group, term } = notice
                && *self.leaders.entry((group, term)).or_insert(from) != from
            {
                return Err(self.violation(format!("two leaders of term {term} of group {group}")));
            }
        }
        for (ticket, outcome) in replies {
            let outcome = match outcome {
                Ok(reply) => Outcome::Reply(reply),
                Err(rejection) => Outcome::Rejected(rejection),
            };
            self.answer(at, ticket, outcome)?;
        }
        for (ticket, grant) in grants {
            let outcome = match grant {
                Ok(_) => self.read(at, ticket)?,
                Err(rejection) => Outcome::Rejected(rejection),
            };
            self.answer(at, ticket, outcome)?;
        }
        Ok(())
    }

    fn read(&self, at: usize, ticket: Ticket) -> Result<Outcome, Violation> {
        let Some(Call { ask: Ask::Read(request), .. }) = self.calls.get(ticket.0 as usize) else {
            return Err(self.violation(format!("{ticket:?} was granted a read that nobody asked for")));
        };
        let reader = self.nodes[at].running.as_ref().and_then(|running| running.host.reader(GroupId::FIRST));
        match reader.map(|reader| reader.range(request)) {
            Some(Ok((revision, answer))) => Ok(Outcome::Read(revision, answer)),
            Some(Err(quorate_partition::ReadError::Rejection(rejection))) => Ok(Outcome::Rejected(rejection)),
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
        self.calls[number].outcome = Some(outcome);
        Ok(())
    }

    /// Takes what the node's watcher is told, and compares it with what happened.
    fn watch(&mut self, at: usize) -> Result<(), Violation> {
        if self.is_faulty && !self.random.chance(300) {
            return Ok(());
        }
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return Ok(()) };
        let Some(reader) = running.host.reader(GroupId::FIRST) else { return Ok(()) };
        let polled = match running.watches.poll(WATCHER, &reader, 1_000) {
            Ok(polled) => polled,
            Err(fault) => return Err(self.violation(format!("history of a healthy store failed: {fault}"))),
        };
        for response in polled {
            match response.kind {
                WatchResponseKind::Events => {
                    let mut events = response.events.into_iter().map(|(event, _)| event).peekable();
                    while let Some(first) = events.peek() {
                        let revision = modified(first);
                        let expected = self.history.range(node.told.next()..).next();
                        let Some((next, (all, _))) = expected.filter(|(next, _)| **next == revision) else {
                            let what = format!("told of revision {revision} after {}", node.told);
                            return Err(Violation { seed: self.seed, tick: self.now, what });
                        };
                        for event in all {
                            if events.next().as_ref() != Some(event) {
                                let what = format!("revision {next} was told otherwise than it happened");
                                return Err(Violation { seed: self.seed, tick: self.now, what });
                            }
                            self.counts.watched += 1;
                        }
                        node.told = revision;
                    }
                }
                WatchResponseKind::Canceled { compacted: Some(compacted), .. } => {
                    node.told = node.told.max(compacted.previous());
                    let from = node.told.next();
                    Self::begin_watch(running, from);
                }
                WatchResponseKind::Created | WatchResponseKind::Progress => {}
                other => return Err(self.violation(format!("the watcher was told {other:?}"))),
            }
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
