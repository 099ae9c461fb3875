//! Nodes, network, disks and time of one seed.

use crate::disk::Disk;
use crate::invariants::{Durable, Invariants};
use quorate_consensus::random::Random;
use quorate_consensus::{
    Configuration, Consensus, HURRIED_TICKS_MAX, Message, Options, Raft, ReadId, ReadOutcome, Role,
    SnapshotFetch, SnapshotMeta, WriteId,
};
use quorate_types::{Bytes, EntryKind, Index, LogWrite, NodeId, Position, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Units of time in a tick; messages and disks are faster than ticks.
const TICK: u64 = 8;
const FAULTY: u64 = 250 * TICK;
/// Within so much quiet time everything must have settled: some elections, and what was late before.
const HEALED: u64 = 400 * TICK;
/// Units between two rounds of chance.
const CHANCE: u64 = 4;

/// How bad this seed's world is; rates are in thousandths.
#[derive(Clone, Debug)]
struct Weather {
    loss: u64,
    repeat: u64,
    /// Messages that are late by many ticks.
    late: u64,
    write_time_max: u64,
    /// Each tick takes as long as it likes; never with lease reads, which trust clocks.
    has_odd_clocks: bool,
    propose: u64,
    read: u64,
    crash: u64,
    cut: u64,
    mend: u64,
    flush: u64,
    alarm: u64,
    transfer: u64,
    snapshot_failure: u64,
    change: u64,
}

impl Weather {
    fn draw(random: &mut Random, is_leased: bool, is_changing: bool) -> Self {
        let mut pick = |choices: &[u64]| choices[random.between(0, choices.len() as u64) as usize];
        Self {
            loss: pick(&[0, 0, 20, 150]),
            repeat: pick(&[0, 50, 200]),
            late: pick(&[0, 20, 60, 200]),
            write_time_max: pick(&[2, 8, 40, 160]),
            has_odd_clocks: pick(&[0, 1]) == 1 && !is_leased,
            propose: pick(&[3, 50, 200, 500]),
            read: pick(&[3, 50, 200, 500]),
            crash: pick(&[0, 5, 10, 25]),
            cut: pick(&[0, 10, 30, 60]),
            mend: pick(&[5, 20, 60]),
            flush: pick(&[0, 20, 100]),
            alarm: pick(&[0, 5, 30]),
            transfer: pick(&[0, 3, 15]),
            snapshot_failure: pick(&[0, 5]),
            change: if is_changing { pick(&[5, 20, 60]) } else { 0 },
        }
    }
}

enum Event {
    Tick(usize),
    Deliver { from: NodeId, to: usize, message: Option<Message> },
    Written { at: usize, life: u64, write: WriteId },
    Restart(usize),
    Offer { at: usize, life: u64, to: NodeId },
    Fetched { at: usize, life: u64, fetch: SnapshotFetch },
    Chance,
}

struct Node {
    id: NodeId,
    /// With the members that the durable state machine knows.
    options: Options,
    disk: Disk,
    /// What the state machine holds durably; `None` between giving it up for a snapshot and having that.
    state: Option<Position>,
    lives: u64,
    running: Option<Running>,
}

struct Running {
    raft: Raft,
    /// The log in memory, as it follows from the writes handed out.
    log: Disk,
    writing: VecDeque<(WriteId, LogWrite)>,
    /// When the disk is done with what it was given; writes overlap, and finish in order.
    busy_until: u64,
    written: WriteId,
    held: VecDeque<(WriteId, NodeId, Message)>,
    applied: Index,
    /// The members as of what is applied.
    configuration: Configuration,
    commit: Index,
    /// Reads not yet answered, and the lowest index that is a right answer.
    reads: BTreeMap<ReadId, Index>,
    /// Names are unique within a life only, as the trait asks.
    reads_named: u64,
    fetching: Option<SnapshotFetch>,
    role: Option<Role>,
    ticks: u64,
    /// When each other node was heard last, and which are silent: what the owner watches.
    heard: BTreeMap<NodeId, u64>,
    down: BTreeSet<NodeId>,
    was_hibernating: bool,
}

impl Running {
    /// A node said something, or only that it is there.
    fn hear(&mut self, from: NodeId, message: Option<Message>) {
        self.heard.insert(from, self.ticks);
        if self.down.remove(&from) {
            self.raft.node_up(from);
        }
        if let Some(message) = message {
            self.raft.step(from, message);
        }
    }
}

impl Node {
    /// Where its log would begin if it crashed now: a snapshot in place counts even when the log was not
    /// yet restarted after it.
    fn recovered(&self) -> Disk {
        let mut disk = self.disk.clone();
        if let Some(state) = self.state
            && !disk.holds(state)
        {
            disk.restart(state);
        }
        disk
    }

    fn durable(&self, committed: Position, invariants: &Invariants) -> Durable {
        let is_restarted = self.state.filter(|state| !self.disk.holds(*state));
        let last = is_restarted.unwrap_or(self.disk.last());
        let holds_committed = match is_restarted {
            Some(state) => committed.index <= state.index,
            None => self.disk.holds(committed),
        };
        let configuration = match is_restarted {
            Some(state) => invariants.configuration_at(state.index),
            None => invariants.configuration_of(&self.disk),
        };
        Durable { id: self.id, last, holds_committed, configuration: configuration.clone() }
    }
}

/// How often things happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    leaders: u64,
    commits: u64,
    reads: u64,
    failed_reads: u64,
    crashes: u64,
    snapshots: u64,
    hibernations: u64,
    replaced: u64,
    transfers: u64,
    pub(crate) changes: u64,
    pub(crate) resignations: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.leaders += other.leaders;
        self.commits += other.commits;
        self.reads += other.reads;
        self.failed_reads += other.failed_reads;
        self.crashes += other.crashes;
        self.snapshots += other.snapshots;
        self.hibernations += other.hibernations;
        self.replaced += other.replaced;
        self.transfers += other.transfers;
        self.changes += other.changes;
        self.resignations += other.resignations;
    }

    pub(crate) fn is_eventful(&self) -> bool {
        let all = [
            self.leaders,
            self.commits,
            self.reads,
            self.failed_reads,
            self.crashes,
            self.snapshots,
            self.hibernations,
            self.replaced,
            self.transfers,
        ];
        all.iter().all(|count| *count > 0)
    }
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

    fn start(&mut self, at: usize) {
        if self.nodes[at].running.is_some() {
            return;
        }
        let seed = self.random.draw();
        let node = &mut self.nodes[at];
        node.disk = node.recovered();
        let configuration = node.options.configuration.clone();
        let applied = node.state.unwrap_or(node.disk.start).index;
        let options = Options { seed, ..node.options.clone() };
        let mut raft = Raft::new(options, node.disk.recovered(), applied);
        if node.state.is_none() {
            raft.state_lost();
        }
        node.lives += 1;
        node.running = Some(Running {
            commit: raft.status().commit,
            raft,
            log: node.disk.clone(),
            writing: VecDeque::new(),
            busy_until: 0,
            written: WriteId(0),
            held: VecDeque::new(),
            applied,
            configuration,
            reads: BTreeMap::new(),
            reads_named: 0,
            fetching: None,
            role: None,
            ticks: 0,
            heard: BTreeMap::new(),
            down: BTreeSet::new(),
            was_hibernating: false,
        });
        self.note(|world| format!("n{} starts, applied {applied}", world.nodes[at].id));
        self.drain(at);
    }

    /// Any number of the writes that were not reported may have reached the disk, in their order.
    fn crash(&mut self, at: usize) {
        let Some(running) = self.nodes[at].running.take() else { return };
        let kept = self.random.between(0, running.writing.len() as u64 + 1);
        for (_, write) in running.writing.iter().take(kept as usize) {
            self.nodes[at].disk.write(write);
        }
        let disk = &self.nodes[at].disk;
        if self.invariants.configuration_of(disk).members().iter().eq([&self.nodes[at].id]) {
            // Alone, it leads before its term is durable, for nobody sees that: what is lost with the term was never there.
            let lost = running.writing.iter().skip(kept as usize).flat_map(|(_, write)| &write.entries);
            lost.filter(|entry| entry.term > disk.hard_state.term)
                .for_each(|entry| self.invariants.forgets(entry.position()));
        }
        self.counts.crashes += 1;
        self.note(|world| format!("n{} crashes, {kept} unreported writes survive", world.nodes[at].id));
        let id = self.nodes[at].id;
        for other in 0..self.nodes.len() {
            if self.chance(500) {
                self.lose_peer(other, id);
            }
        }
        let down_max = if self.chance(500) { 2 } else { 40 };
        let down = self.random.between(1, down_max * TICK);
        self.schedule(down, Event::Restart(at));
        self.check_kept();
    }

    fn lose_peer(&mut self, at: usize, peer: NodeId) {
        let delay = self.random.between(1, 1 + HURRIED_TICKS_MAX);
        if let Some(running) = &mut self.nodes[at].running {
            running.raft.peer_lost(peer, delay);
            self.note(|world| format!("n{} loses its connection to n{peer}", world.nodes[at].id));
            self.drain(at);
        }
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

    fn begin_write(&mut self, at: usize, write: WriteId, content: LogWrite) {
        let time = if self.is_healed { 2 } else { self.random.between(0, self.weather.write_time_max) };
        let now = self.now;
        let Node { id, lives, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let (id, life) = (*id, *lives);
        let status = running.raft.status();
        if content.entries.first().is_some_and(|first| first.index <= running.log.last().index) {
            self.counts.replaced += 1;
        }
        // Checked before what it compacts is gone.
        running.log.write(&LogWrite { compact: None, ..content.clone() });
        self.invariants.appends(id, &running.log, &content);
        for entry in &content.entries {
            // One change at a time: a leader has committed the one before.
            let before = running.log.configurations.iter().rfind(|(at, _)| *at < entry.index);
            let is_ours = matches!(status.role, Role::Leader { .. }) && entry.term == status.term;
            if let (EntryKind::Config, true, Some((before, _))) = (entry.kind, is_ours, before) {
                assert!(*before <= status.commit, "n{id} changes members at {} and {before}", entry.index);
            }
        }
        running.log.write(&LogWrite { compact: content.compact, ..LogWrite::default() });
        running.writing.push_back((write, content));
        running.busy_until = running.busy_until.max(now + time);
        let after = running.busy_until - now;
        self.schedule(after, Event::Written { at, life, write });
    }

    fn written(&mut self, at: usize, life: u64, write: WriteId) {
        if self.nodes[at].lives != life {
            return;
        }
        let Node { id, disk, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let id = *id;
        if write <= running.written {
            return; // Reported with a later one.
        }
        while let Some((number, content)) = running.writing.front()
            && *number <= write
        {
            disk.write(content);
            running.writing.pop_front();
        }
        running.written = write;
        running.raft.persisted(write);
        let done: VecDeque<_>;
        (done, running.held) =
            std::mem::take(&mut running.held).into_iter().partition(|(waits_for, ..)| *waits_for <= write);
        self.note(|_| format!("n{id} has written {}", write.0));
        for (_, to, message) in done {
            self.send(id, to, message);
        }
        self.drain(at);
        self.check_kept();
    }

    fn delay(&mut self) -> u64 {
        if !self.is_healed && self.chance(self.weather.late) {
            self.random.between(TICK, 50 * TICK)
        } else {
            self.random.between(0, 4)
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        match &message {
            Message::VoteRequest { pre: false, term, .. } => self.invariants.votes(from, *term, from),
            Message::VoteResponse { pre: false, granted: true, term } => {
                self.invariants.votes(from, *term, to);
            }
            _ => {}
        }
        self.fly(from, to, Some(message));
    }

    fn fly(&mut self, from: NodeId, to: NodeId, message: Option<Message>) {
        let is_lost = !self.is_healed && self.chance(self.weather.loss);
        if is_lost || self.cut.contains(&(from, to)) {
            return;
        }
        let is_repeated = !self.is_healed && self.chance(self.weather.repeat);
        let to = (to.0 - 1) as usize;
        for _ in 0..1 + u64::from(is_repeated) {
            let delay = self.delay();
            self.schedule(delay, Event::Deliver { from, to, message: message.clone() });
        }
    }

    /// Looks at a replica after it did something.
    fn observe(&mut self, at: usize) {
        let Node { id, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let (id, status) = (*id, running.raft.status());
        assert_eq!((status.last, status.start), (running.log.last(), running.log.start), "n{id}'s log");
        let configuration = running.raft.configuration();
        assert_eq!(configuration, self.invariants.configuration_of(&running.log), "n{id}'s members");
        let was_leader = matches!(running.role, Some(Role::Leader { .. }));
        let has_resigned = was_leader && !matches!(status.role, Role::Leader { .. });
        self.counts.resignations += u64::from(has_resigned && !configuration.is_voter(id));
        assert!(status.commit >= running.commit, "n{id}'s commit index fell");
        assert!(status.applied <= status.commit && status.commit <= status.last.index, "{status:?}");
        running.commit = status.commit;
        let is_new_role = running.role != Some(status.role);
        self.counts.hibernations += u64::from(status.is_hibernating && !running.was_hibernating);
        running.was_hibernating = status.is_hibernating;
        running.role = Some(status.role);
        if let Role::Leader { .. } = status.role
            && is_new_role
            && self.invariants.leads(status.term, id, &running.log)
        {
            let committed = self.invariants.configuration_at(status.commit.min(self.invariants.committed()));
            let may_lead = configuration.is_voter(id) || committed.is_voter(id);
            assert!(may_lead, "n{id} leads without a vote in {configuration:?}");
            self.counts.leaders += 1;
        }
        let before = self.invariants.committed().0;
        let is_news = self.invariants.commits(id, status.commit, &running.log);
        if is_new_role {
            self.note(|_| format!("n{id} in term {}: {:?}", status.term, status.role));
        }
        if is_news {
            self.counts.commits += status.commit.0 - before;
            self.counts.changes = self.invariants.changes();
            self.note(|_| format!("n{id} commits up to {}", status.commit));
            self.check_completeness(status.term);
            self.check_kept();
        }
    }

    /// Leader completeness, from the other side: an older term commits while a newer one has its leader.
    fn check_completeness(&self, term: Term) {
        let Some(committed) = self.invariants.committed_position() else { return };
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let status = running.raft.status();
            if matches!(status.role, Role::Leader { .. }) && status.term >= term {
                assert!(running.log.holds(committed), "n{} leads without {committed}", node.id);
            }
        }
    }

    fn check_kept(&self) {
        let Some(committed) = self.invariants.committed_position() else { return };
        let durable: Vec<Durable> =
            self.nodes.iter().map(|node| node.durable(committed, &self.invariants)).collect();
        self.invariants.is_kept(&durable);
    }

    fn propose(&mut self, at: usize) -> bool {
        self.proposals += 1;
        let data = Bytes::from(self.proposals.to_le_bytes().to_vec());
        let Some(running) = &mut self.nodes[at].running else { return false };
        let Ok(position) = running.raft.propose(EntryKind::Write, data) else { return false };
        self.note(|world| format!("n{} proposes {position}", world.nodes[at].id));
        // Several proposals may leave in one write.
        if self.is_healed || self.chance(700) {
            self.drain(at);
        }
        true
    }

    fn read(&mut self, at: usize) {
        let floor = self.invariants.committed();
        let Some(running) = &mut self.nodes[at].running else { return };
        running.reads_named += 1;
        let read = ReadId(running.reads_named);
        running.reads.insert(read, floor);
        running.raft.read(read);
        self.note(|world| format!("n{} reads as {}, committed {floor}", world.nodes[at].id, read.0));
        self.drain(at);
    }

    /// Linearizable reads (thesis, 6.4): the answer contains whatever anyone took for committed when the
    /// read was asked for.
    fn answered(&mut self, at: usize, read: ReadId, outcome: ReadOutcome) {
        let committed = self.invariants.committed();
        let Node { id, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let id = *id;
        let floor = running.reads.remove(&read);
        let floor = floor.unwrap_or_else(|| panic!("n{id} answers {read:?} twice, or unasked"));
        match outcome {
            ReadOutcome::Ready(index) => {
                assert!(index >= floor, "n{id} answers {read:?} with {index}, {floor} was committed before");
                assert!(index <= committed, "n{id} answers {read:?} with {index}, of {committed}");
                self.counts.reads += 1;
            }
            ReadOutcome::Failed => self.counts.failed_reads += 1,
        }
        self.note(|_| format!("n{id} answers {}: {outcome:?}", read.0));
    }

    fn offer(&mut self, at: usize, life: u64, to: NodeId) {
        let Node { id, lives, state: Some(_), running: Some(running), .. } = &mut self.nodes[at] else {
            return;
        };
        if *lives == life {
            let (id, position) = (*id, self.invariants.position_at(running.applied));
            let configuration = running.raft.configuration_at(position.index).clone();
            running.raft.offer_snapshot(to, SnapshotMeta { position, configuration });
            self.note(|_| format!("n{id} offers n{to} a snapshot at {position}"));
            self.drain(at);
        }
    }

    fn begin_fetch(&mut self, at: usize, fetch: SnapshotFetch) {
        let delay = if self.is_healed { 8 } else { self.random.between(0, 20 * TICK) };
        let node = &mut self.nodes[at];
        node.state = None;
        let life = node.lives;
        let Some(running) = &mut node.running else { return };
        running.raft.state_lost();
        running.fetching = Some(fetch.clone());
        self.note(|world| format!("n{} begins to fetch {fetch:?}", world.nodes[at].id));
        self.schedule(delay, Event::Fetched { at, life, fetch });
    }

    fn fetched(&mut self, at: usize, life: u64, fetch: SnapshotFetch) {
        let is_failed = !self.is_healed && self.chance(200);
        if self.nodes[at].lives != life {
            return;
        }
        let Node { id, options, state, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let id = *id;
        if running.fetching.as_ref() != Some(&fetch) {
            return;
        }
        running.fetching = None;
        if is_failed {
            running.raft.fetch_failed();
        } else {
            let position = fetch.meta.position;
            let committed = self.invariants.position_at(position.index);
            assert_eq!(position, committed, "n{id} installs a snapshot that was never committed");
            let members = self.invariants.configuration_at(position.index);
            assert_eq!(fetch.meta.configuration, *members, "n{id} installs a snapshot of other members");
            *state = Some(position);
            options.configuration = members.clone();
            running.configuration = members.clone();
            running.applied = position.index;
            running.raft.restored(fetch.meta);
            self.counts.snapshots += 1;
        }
        self.note(|_| format!("n{id} ends its fetch, failed {is_failed}"));
        self.drain(at);
        if !self.is_healed && self.chance(200) {
            self.crash(at); // Before the log is restarted after the snapshot.
        }
        self.check_kept();
    }

    fn take_chances(&mut self) {
        let weather = self.weather.clone();
        let size = self.nodes.len() as u64;
        for at in 0..self.nodes.len() {
            if self.chance(weather.propose) {
                self.propose(at);
            }
        }
        let at = self.pick();
        let other = NodeId(1 + self.random.between(0, size));
        if self.chance(weather.read) {
            self.read(at);
        }
        if self.chance(weather.flush) {
            self.flush(at);
        }
        if self.chance(weather.crash) {
            self.crash(at);
        }
        if self.chance(weather.crash / 4) {
            self.note(|_| "the power fails".to_owned());
            for each in 0..self.nodes.len() {
                self.crash(each);
            }
        }
        if self.chance(weather.mend) {
            self.cut.clear();
        }
        if self.chance(weather.cut) {
            self.cut_links();
        }
        if self.chance(weather.alarm) {
            self.alarm(at, other);
        }
        if self.chance(weather.transfer) {
            self.transfer(at, other);
        }
        if weather.change > 0 && self.chance(weather.change) {
            self.change(at, other);
        }
        if self.chance(weather.snapshot_failure)
            && let Some(running) = &mut self.nodes[at].running
        {
            running.raft.snapshot_failed(other);
            self.drain(at);
        }
    }

    /// Connections break though nobody died: one, or all to one node.
    fn alarm(&mut self, at: usize, other: NodeId) {
        if self.chance(500) {
            return self.lose_peer(at, other);
        }
        let id = self.nodes[at].id;
        for each in 0..self.nodes.len() {
            self.lose_peer(each, id);
        }
    }

    /// A node, half of the time one that leads or thinks so: there most can go wrong.
    fn pick(&mut self) -> usize {
        let leads = |node: &Node| {
            let role = node.running.as_ref().and_then(|running| running.role);
            matches!(role, Some(Role::Leader { .. }))
        };
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(|at| leads(&self.nodes[*at])).collect();
        if leaders.is_empty() || self.chance(500) {
            self.random.between(0, self.nodes.len() as u64) as usize
        } else {
            leaders[self.random.between(0, leaders.len() as u64) as usize]
        }
    }

    fn transfer(&mut self, at: usize, other: NodeId) {
        let to = self.chance(700).then_some(other);
        if let Some(running) = &mut self.nodes[at].running {
            let is_leader = matches!(running.raft.status().role, Role::Leader { .. });
            self.counts.transfers += u64::from(is_leader);
            running.raft.transfer(to);
            self.note(|world| format!("n{} is asked to hand over to {to:?}", world.nodes[at].id));
            self.drain(at);
        }
    }

    /// A node learns or learns no more, or any of those who vote and learn will vote.
    fn change(&mut self, at: usize, other: NodeId) {
        let Some(running) = &self.nodes[at].running else { return };
        let Configuration { mut voters, mut learners, .. } = running.raft.configuration().clone();
        if self.chance(400) {
            if learners.contains(&other) {
                learners.retain(|learner| *learner != other);
            } else if !voters.contains(&other) {
                learners.push(other);
            }
        } else {
            let members: Vec<NodeId> = voters.drain(..).chain(learners.drain(..)).collect();
            for id in members {
                match self.random.between(0, 6) {
                    0 => {}
                    1 => learners.push(id),
                    _ => voters.push(id),
                }
            }
        }
        let Some(running) = &mut self.nodes[at].running else { return };
        let outcome = running.raft.change(voters.clone(), learners.clone());
        self.note(|world| {
            format!("n{} makes {voters:?} vote, {learners:?} learn: {outcome:?}", world.nodes[at].id)
        });
        if self.chance(700) {
            self.drain(at);
        }
    }

    /// The state machine becomes durable, and the log gives up some of what is in it.
    fn flush(&mut self, at: usize) {
        let back = self.random.between(0, 4);
        let Node { options, state: Some(state), running: Some(running), .. } = &mut self.nodes[at] else {
            return;
        };
        *state = self.invariants.position_at(running.applied);
        options.configuration = running.configuration.clone();
        running.raft.compact(Index(running.applied.0.saturating_sub(back)));
        self.note(|world| format!("n{} flushes", world.nodes[at].id));
        self.drain(at);
    }

    /// One node alone, two halves, or one link, so that some hear each other only through a third; both ways
    /// or one.
    fn cut_links(&mut self) {
        self.cut.clear();
        let sides: Vec<bool> = self.nodes.iter().map(|_| self.random.between(0, 2) == 0).collect();
        let is_one_way = self.chance(200);
        let alone = self.chance(400).then(|| self.pick());
        let link =
            self.chance(400).then(|| (self.pick(), self.random.between(0, sides.len() as u64) as usize));
        for a in 0..sides.len() {
            for b in 0..sides.len() {
                let is_apart = match (alone, link) {
                    (Some(alone), _) => (a == alone) != (b == alone) && (a == alone || !is_one_way),
                    (None, Some(link)) => a != b && ((a, b) == link || (b, a) == link && !is_one_way),
                    (None, None) => sides[a] != sides[b] && (sides[a] || !is_one_way),
                };
                if is_apart {
                    self.cut.insert((self.nodes[a].id, self.nodes[b].id));
                }
            }
        }
        self.note(|world| format!("cut: {:?}", world.cut));
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
