//! The groups of one node and the gateway in front of them.
//!
//! * [`agenda`]: which groups a tick concerns.
//! * [`joining`]: this node's admission, and that of others.
//! * [`keyspaces`]: what the partitions of one keyspace share.
//! * [`maps`]: which keyspaces and partitions there are.
//! * [`liveness`]: which other nodes are heard.
//! * [`requests`]: from a request to its answer.
//! * [`sequencing`]: where revisions come from.
//! * [`transacting`]: transactions over partitions.
//! * [`reading`]: reads over partitions.
//! * [`removal`]: keyspaces that are deleted.
//! * [`space`]: whose disks run full.
//! * [`splitting`]: one partition becomes two.
//! * [`transfers`]: snapshots as the groups see them.
//! * [`usage`]: how much of a keyspace's quota is used.

mod agenda;
mod joining;
mod keyspaces;
mod liveness;
mod maps;
mod reading;
mod removal;
mod requests;
mod sequencing;
mod space;
mod splitting;
mod transacting;
mod transfers;
mod usage;

use crate::admission::{Admission, Standing};
use crate::effects::{Effects, Notice, Ticket, WriteId};
use crate::group::{Group, GroupStatus, Origin, State, Then, Work, may_change, revocation};
use crate::peer::PeerMessage;
use crate::sequencer::Sequencer;
use crate::snapshots::{Fetching, Sources, Step};
use crate::transaction::{Attempt, TxnMessage};
use crate::{Options, Router};
use agenda::Agenda;
use keyspaces::Keyspace;
use liveness::Liveness;
use quorate_consensus::{Consensus, Message, Raft, ReadId, Recovered, Role};
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::Installer;
use quorate_partition::{Evaluated, Opened, Partition, ReadError, Reader};
use quorate_types::{
    Entry, EntryKind, Fault, GroupId, Incarnation, Index, KeyRange, KeyspaceId, KeyspaceMap, LogWrite,
    NodeId, PartitionId, Position, Rejection, Request, Term, Tick, TxnId,
};
use reading::{Purpose, Reading};
use removal::Removals;
use requests::propose;
pub use sequencing::HeldBack;
use space::Space;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use usage::Usage;

/// How often everything that waits is looked through for what came too late, in ticks.
const TIMEOUT_SCAN_TICKS: u64 = 10;

/// One node.
pub struct Host<E: Engine> {
    options: Options,
    engine: E,
    router: Router,
    now: Tick,
    groups: BTreeMap<GroupId, Group<E>>,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    /// The voters of every group.
    voters: Vec<NodeId>,
    /// The others of them.
    members: BTreeSet<NodeId>,
    /// Logs of groups that the maps this node has do not name yet.
    unopened: BTreeMap<GroupId, Recovered>,
    maps: BTreeMap<KeyspaceId, KeyspaceMap>,
    /// Partitions that the maps say are being split, and their children.
    splits: BTreeMap<GroupId, PartitionId>,
    /// The id of the next keyspace, as far as is known here.
    next_keyspace: KeyspaceId,
    removals: Removals,
    /// Of the keyspaces that have a quota.
    usages: BTreeMap<KeyspaceId, Usage>,
    /// Requests that wait for the first map.
    unrouted: Vec<(KeyspaceId, Work)>,
    /// The role, while this node leads the meta group.
    sequencer: Option<Sequencer>,
    raise_marks_next: bool,
    /// Keyspaces of which more may be applied everywhere than was known.
    wants_settled: BTreeSet<KeyspaceId>,
    /// Partitions led here that had prepared transactions when their leaders began, which may not have ended.
    inheriting: BTreeSet<GroupId>,
    /// Keyspaces for which that is being asked.
    settling: BTreeSet<KeyspaceId>,
    /// Reads over partitions under way.
    readings: BTreeMap<u64, Reading>,
    /// Attempts at transactions that this node coordinates.
    attempts: BTreeMap<(KeyspaceId, TxnId), Attempt>,
    next_attempt: u64,
    /// Requests whose attempt came to nothing, for the next tick.
    again: Vec<(GroupId, Work, bool)>,
    /// Attempts with all their votes that wait for the sequencer.
    undecided: BTreeSet<(KeyspaceId, TxnId)>,
    /// Decisions of partitions led here, and who is not known to have them.
    owed: BTreeMap<(KeyspaceId, TxnId), BTreeSet<PartitionId>>,
    /// Decisions that everybody has.
    forgettable: BTreeMap<GroupId, Vec<TxnId>>,
    /// What leaders on this node say to each other.
    told: VecDeque<(GroupId, TxnMessage)>,
    /// Groups in which locks were given back.
    rouse_blocked: BTreeSet<GroupId>,
    /// Groups in which what waits may go on.
    rouse_waiting: BTreeSet<GroupId>,
    /// In which terms a node that lost its disk abstains.
    abstaining: BTreeMap<GroupId, Term>,
    /// Groups that may have effects to collect.
    dirty: BTreeSet<GroupId>,
    agenda: Agenda,
    liveness: Liveness,
    /// The meta group's term as a crash would leave it: what messages carry.
    meta_term_durable: Term,
    /// Newer ones, and the writes that make them so.
    meta_terms_written: VecDeque<(WriteId, Term)>,
    next_read: u64,
    next_reading: u64,
    write: WriteId,
    /// Writes under way, with each group's own name for its part.
    writing: VecDeque<(WriteId, Vec<(GroupId, quorate_consensus::WriteId)>)>,
    /// Parts of the next write that did not come from consensus.
    extra_writes: Vec<(GroupId, LogWrite)>,
    is_flushing: bool,
    space: Space,
    sources: Sources<E>,
    fetching: BTreeMap<GroupId, Fetching<E>>,
    admission: Admission,
    /// Barriers of the admission that failed and are to be begun again.
    catch_up_again: Vec<GroupId>,
    /// Groups that have passed their barrier of the admission, and the write that has to be durable before it counts.
    caught_up: BTreeMap<GroupId, quorate_consensus::WriteId>,
    out: Effects,
}

impl<E: Engine> Host<E> {
    /// A node with its groups as they were recovered. A store that lies behind the start of a group's log has
    /// lost what it had promised to keep, and is refused.
    ///
    /// `voters` are the cluster's members, `logs` what the log held of each group.
    pub fn new(
        options: Options,
        standing: Standing,
        engine: E,
        voters: Vec<NodeId>,
        logs: BTreeMap<GroupId, Recovered>,
    ) -> Result<Self, Fault> {
        let meta_term_durable = logs.get(&GroupId::META).map_or(Term(0), |meta| meta.hard_state.term);
        let mut host = Self {
            meta_term_durable,
            meta_terms_written: VecDeque::new(),
            router: Router::with(&[]),
            now: Tick(0),
            groups: BTreeMap::new(),
            keyspaces: BTreeMap::new(),
            members: voters.iter().copied().filter(|voter| *voter != options.id).collect(),
            voters,
            unopened: logs,
            maps: BTreeMap::new(),
            splits: BTreeMap::new(),
            next_keyspace: KeyspaceId::FIRST_CREATED,
            removals: Removals::default(),
            usages: BTreeMap::new(),
            unrouted: Vec::new(),
            sequencer: None,
            raise_marks_next: false,
            wants_settled: BTreeSet::new(),
            inheriting: BTreeSet::new(),
            settling: BTreeSet::new(),
            readings: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next_attempt: 0,
            again: Vec::new(),
            undecided: BTreeSet::new(),
            owed: BTreeMap::new(),
            forgettable: BTreeMap::new(),
            told: VecDeque::new(),
            rouse_blocked: BTreeSet::new(),
            rouse_waiting: BTreeSet::new(),
            abstaining: BTreeMap::new(),
            dirty: BTreeSet::new(),
            agenda: Agenda::default(),
            liveness: Liveness::default(),
            next_read: 0,
            // Never used twice, also not by another life of this node: answers to an earlier one may come late.
            next_reading: options.seed,
            write: WriteId(0),
            writing: VecDeque::new(),
            extra_writes: Vec::new(),
            is_flushing: false,
            space: Space::default(),
            sources: Sources::new(),
            fetching: BTreeMap::new(),
            admission: Admission::new(options.incarnation, standing),
            catch_up_again: Vec::new(),
            caught_up: BTreeMap::new(),
            out: Effects::default(),
            options,
            engine,
        };
        host.keyspace(KeyspaceId::DEFAULT)?;
        host.open_group(GroupId::META)?;
        host.load_maps()?;
        host.begin_admission()?;
        Ok(host)
    }

    pub(crate) fn open_group(&mut self, id: GroupId) -> Result<(), Fault> {
        let voters = self.voters.clone();
        let mut recovered = self.unopened.remove(&id).unwrap_or_default();
        let limits = self.options.partition.clone();
        // Nobody was told of what it applied in an earlier life.
        let begins_split = Partition::is_split(&self.engine, id)? && !self.is_sequenced(id.keyspace);
        if begins_split {
            let keyspace = self.keyspace(id.keyspace)?;
            keyspace.is_split = true;
            keyspace.publication.together();
        }
        let keyspace = self.keyspace(id.keyspace)?;
        keyspace.is_compaction_due = true;
        let publication = keyspace.publication.clone();
        let engine = self.engine.clone();
        let opened = if self.is_without_state(id)? {
            Opened::Incomplete
        } else {
            Partition::open_among(&publication, engine, id, self.original_slots(id), limits.clone())?
        };
        let (state, reader, applied) = match opened {
            Opened::Ready(mut partition) => {
                partition.set_rules(self.router.rules(id.keyspace));
                let (reader, applied) = (partition.reader(), partition.applied());
                (State::Ready(*partition), reader, applied)
            }
            Opened::Incomplete => {
                let clear = self.slots_to_clear(id);
                let installer =
                    Installer::begin_among(&publication, self.engine.clone(), id, &clear, limits)?;
                self.compact_anew(id.keyspace)?;
                let reader = installer.reader();
                (State::Installing(Some(installer)), reader, recovered.start)
            }
        };
        if applied.index < recovered.start.index {
            return Err(Fault::new(
                format!("opening group {id}"),
                format!(
                    "the store holds its state at {applied}, but the log begins after {}: the store lost writes that it \
                     had confirmed. The others go on without this node. If there are others, move the data directory away and start \
                     with an empty one: it is filled from them",
                    recovered.start
                ),
            ));
        }
        let mut positions =
            std::iter::once(recovered.start).chain(recovered.entries.iter().map(Entry::position));
        if !positions.any(|position| position == applied) {
            // A snapshot was put in place and the node stopped before the log restarted after it. The log may be shorter, or hold
            // entries that the snapshot's history has replaced.
            recovered.start = applied;
            recovered.entries.clear();
            self.extra_writes.push((id, LogWrite { restart: Some(applied), ..LogWrite::default() }));
        }
        let options = quorate_consensus::Options {
            heartbeat_ticks: self.options.heartbeat_ticks,
            election_ticks_min: self.options.election_ticks_min,
            election_ticks_max: self.options.election_ticks_max,
            hibernate_after_ticks: self.options.hibernate_after_ticks,
            // Nine tenths of the time that followers honour the leader: room for clocks a tenth apart.
            lease_read: self.options.lease_read.then(|| self.options.election_ticks_min * 9 / 10),
            ..quorate_consensus::Options::new(
                self.options.id,
                voters.clone(),
                self.options.seed ^ (u64::from(id.keyspace.0) << 32) ^ u64::from(id.partition.0),
            )
        };
        let mut raft = Raft::new(options, recovered, applied.index);
        if let State::Installing(_) = state {
            raft.state_lost();
        }
        if !self.admission.is_admitted() {
            raft.withhold_votes();
        }
        let group = Group {
            id,
            voters,
            raft,
            state,
            reader,
            role: Role::Follower { leader: None },
            leader: None,
            term: quorate_types::Term(0),
            is_serving: false,
            registered: None,
            registering: None,
            met: BTreeMap::new(),
            acks: BTreeMap::new(),
            unconfirmed: VecDeque::new(),
            blocked: VecDeque::new(),
            questions: Vec::new(),
            held_since: BTreeMap::new(),
            ended: BTreeMap::new(),
            proposed: Position::default(),
            waiting: VecDeque::new(),
            forwarded: BTreeMap::new(),
            reads: BTreeMap::new(),
            waits: BTreeMap::new(),
            physical: Vec::new(),
            held: VecDeque::new(),
            persisted: quorate_consensus::WriteId(0),
            flushing: None,
            flushed: Index::START,
            is_pinning: false,
            is_splitting: false,
            is_split_proposed: false,
        };
        self.groups.insert(id, group);
        self.note_slots_of(id);
        if begins_split {
            self.note_untold(id)?;
        }
        self.dirty.insert(id);
        Ok(())
    }

    /// A handle for reading a keyspace from any thread.
    pub fn reader(&self, keyspace: KeyspaceId) -> Option<Reader<E>> {
        let keyspace_here = self.keyspaces.get(&keyspace)?;
        Some(keyspace_here.publication.reader(self.engine.clone(), keyspace))
    }

    /// The keyspaces that this node knows of, and their partitions.
    pub fn maps(&self) -> impl Iterator<Item = &KeyspaceMap> {
        self.maps.values()
    }

    /// How all groups stand.
    pub fn status(&self) -> Vec<GroupStatus> {
        self.groups.values().map(Group::status).collect()
    }

    /// The node's time.
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Time goes on by one tick. After a pause of the whole process the shell gives one tick, not as many
    /// as were missed: leases then live longer, never shorter.
    pub fn tick(&mut self) -> Result<(), Fault> {
        self.now = self.now.after(1);
        self.sources.refill(self.options.snapshot_bytes_per_tick);
        self.tick_compaction()?;
        self.tick_removals()?;
        self.tick_usage()?;
        for id in self.agenda.at(self.now) {
            self.tick_group(id)?;
        }
        self.tick_sequencing()?;
        self.tick_splits()?;
        self.tick_transactions()?;
        self.tick_readings()?;
        self.tick_settling()?;
        if self.now.0.is_multiple_of(TIMEOUT_SCAN_TICKS) {
            self.reject_late()?;
            for (group, node) in self.sources.drop_idle(self.now, self.options.snapshot_idle_ticks) {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.raft.snapshot_failed(node);
                }
            }
        }
        self.repeat_pulls();
        self.tick_space();
        self.tick_liveness();
        self.tick_admission()
    }

    fn tick_group(&mut self, id: GroupId) -> Result<(), Fault> {
        let now = self.now;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.raft.tick();
        self.dirty.insert(id);
        // A leader may be known by now.
        let waiting = std::mem::take(&mut group.waiting);
        if !waiting.is_empty() {
            group.raft.wake();
        }
        for work in waiting {
            self.dispatch_again(id, work)?;
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if !group.is_serving {
            return Ok(());
        }
        let expired = match group.partition() {
            Some(partition) => partition.expired(now, self.options.expiries_per_tick),
            None => Vec::new(),
        };
        for lease in expired {
            let work = Work { origin: Origin::Own, request: revocation(lease), received: now, deadline: now };
            self.serve(id, work)?;
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if group.raft.can_propose().is_ok() && !group.is_splitting {
            let index = group.raft.last().index.next();
            let State::Ready(partition) = &mut group.state else { return Ok(()) };
            match partition.checkpoints(now, index) {
                Ok(Some(Evaluated::Changes { kind, data, .. })) => {
                    group.proposed = propose(&mut group.raft, kind, data, index);
                }
                Ok(_) | Err(ReadError::Rejection(_)) => {}
                Err(ReadError::Fault(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// A client of this node asks something. Answered once, in [`Effects::replies`].
    pub fn request(&mut self, ticket: Ticket, keyspace: KeyspaceId, request: Request) -> Result<(), Fault> {
        let deadline = self.now.after(self.options.request_ticks_max);
        let work = Work { origin: Origin::Local(ticket), request, received: self.now, deadline };
        self.route(keyspace, work)
    }

    fn route(&mut self, keyspace: KeyspaceId, work: Work) -> Result<(), Fault> {
        match self.router.route(keyspace, &work.request) {
            Ok(group) => return self.dispatch(group, work),
            // At a cluster's beginning, and while this node fetches the maps.
            Err(_) if self.is_unmapped(keyspace) && self.unrouted.len() < self.options.waiting_max => {
                self.unrouted.push((keyspace, work));
            }
            Err(rejection) => self.reply(work.origin, Err(rejection)),
        }
        Ok(())
    }

    /// Whether this is the keyspace that every cluster has, and its map has not come here yet.
    fn is_unmapped(&self, keyspace: KeyspaceId) -> bool {
        keyspace == KeyspaceId::DEFAULT && !self.maps.contains_key(&keyspace)
    }

    /// A client of this node wants to read these ranges, everything if there are none: answered once, in [`Effects::grants`], when this
    /// node's copy of them contains every write acknowledged before this call.
    pub fn barrier(
        &mut self,
        ticket: Ticket,
        keyspace: KeyspaceId,
        ranges: Vec<KeyRange>,
    ) -> Result<(), Fault> {
        if self.is_sequenced(keyspace) || self.is_unmapped(keyspace) {
            return self.begin_reading(Purpose::Client(ticket), keyspace, ranges);
        }
        match self.router.groups(keyspace) {
            Ok(group) => {
                let deadline = self.now.after(self.options.request_ticks_max);
                return self.begin_barrier(group, Position::default(), deadline, Then::Grant(ticket), None);
            }
            Err(rejection) => self.out.grants.push((ticket, Err(rejection))),
        }
        Ok(())
    }

    /// A peer's message came in; `incarnation` is the data directory it was sent from.
    pub fn receive(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        message: PeerMessage,
    ) -> Result<(), Fault> {
        if !self.admit_sender(from, incarnation, &message) {
            return Ok(());
        }
        self.heard(from);
        match message {
            PeerMessage::Alive => {}
            PeerMessage::SpaceShort => self.on_space_short(from),
            PeerMessage::AdmissionAsk { incarnation } => self.on_admission_ask(from, incarnation),
            PeerMessage::AdmissionAnswer(answer) => self.on_admission_answer(from, incarnation, answer)?,
            PeerMessage::Group { .. } if self.admission.is_mute() => {}
            PeerMessage::Group { group: id, meta, message } => {
                if let Message::Appended { matched, term } = message {
                    self.on_acknowledged(id, from, (matched, term), meta);
                }
                if let Message::Appended { term, .. } | Message::HeartbeatResponse { term, .. } = message {
                    self.on_met(id, from, term, meta);
                }
                // A group that is not here may be one that the maps of this node do not name yet.
                if let Some(group) = self.groups.get_mut(&id) {
                    group.raft.step(from, message);
                    self.dirty.insert(id);
                    self.finish_confirmed(id)?;
                }
            }
            PeerMessage::ReadAsk { reading, keyspace, ranges, confirmed } => {
                self.on_read_ask(Some(from), reading, keyspace, ranges, confirmed)?;
            }
            PeerMessage::ReadAnswer { reading, answer } => self.on_read_answer(reading, answer)?,
            PeerMessage::Txn { to, message } => self.on_txn(to, message)?,
            PeerMessage::Request { ticket, group, request } => {
                let deadline = self.now.after(self.options.request_ticks_max);
                let origin = Origin::Remote(from, ticket);
                let work = Work { origin, request, received: self.now, deadline };
                if self.groups.contains_key(&group) {
                    self.dispatch_again(group, work)?;
                } else {
                    self.reply(origin, Err(Rejection::LeaderChanged));
                }
            }
            PeerMessage::Reply { ticket, outcome } => self.on_reply(from, ticket, outcome.0),
            PeerMessage::SnapshotPull { group, position, cursor } => {
                self.sources.pull(from, group, position, cursor);
            }
            PeerMessage::SnapshotChunk { group, position, after, chunk } => {
                let is_ours = |fetching: &&mut Fetching<E>| {
                    fetching.fetch.from == from && fetching.fetch.meta.position == position
                };
                if let Some(fetching) = self.fetching.get_mut(&group).filter(is_ours) {
                    match fetching.add(after, chunk)? {
                        Step::Ignore => {}
                        Step::Pull => {
                            let (to, pull) = fetching.pull(group, self.now);
                            self.out.send.push((to, pull));
                        }
                        Step::Failed(reason) => self.fail_fetch(group, reason),
                        Step::Complete => self.finish_fetch(group)?,
                    }
                }
            }
            PeerMessage::SnapshotGone { group, position } => {
                if let Some(fetching) = self.fetching.get(&group)
                    && fetching.fetch.from == from
                    && fetching.fetch.meta.position == position
                {
                    self.fail_fetch(group, format!("{from} does not keep it any more"));
                }
            }
        }
        Ok(())
    }

    /// The connection to a peer broke.
    pub fn peer_lost(&mut self, node: NodeId) {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        let delay = self.delay_after(node);
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.raft.peer_lost(node, delay);
            self.dirty.insert(id);
            let lost: Vec<Ticket> = group
                .forwarded
                .iter()
                .filter(|(_, (to, _))| *to == node)
                .map(|(ticket, _)| *ticket)
                .collect();
            for ticket in lost {
                self.forward_failed(id, ticket);
            }
            if self.fetching.get(&id).is_some_and(|fetching| fetching.fetch.from == node) {
                self.fail_fetch(id, format!("the connection to {node} broke"));
            }
        }
    }

    /// This write and all before it are durable.
    pub fn persisted(&mut self, write: WriteId) {
        while let Some((id, _)) = self.writing.front()
            && *id <= write
            && let Some((_, parts)) = self.writing.pop_front()
        {
            for (id, part) in parts {
                let Some(group) = self.groups.get_mut(&id) else { continue };
                group.raft.persisted(part);
                group.persisted = part;
                while let Some((waits_for, _, _)) = group.held.front()
                    && *waits_for <= part
                    && let Some((_, to, message)) = group.held.pop_front()
                {
                    self.out.send.push((to, message));
                }
                self.dirty.insert(id);
            }
        }
        while let Some((_, term)) = self.meta_terms_written.pop_front_if(|(id, _)| *id <= write) {
            self.meta_term_durable = self.meta_term_durable.max(term);
        }
        self.count_caught_up();
    }

    /// The flush that [`Effects::flush`] asked for is done.
    pub fn flushed(&mut self) {
        self.is_flushing = false;
        let (target, max) = (self.options.log_bytes_target, self.options.log_bytes_max);
        for (id, group) in &mut self.groups {
            if let Some(flushed) = group.flushing.take() {
                group.flushed = group.flushed.max(flushed);
                group.cut_log(target, max);
                self.dirty.insert(*id);
            }
        }
        self.remove_logs();
    }

    /// The node's log could be shorter if these groups let go of their oldest entries.
    pub fn release_log(&mut self, groups: impl IntoIterator<Item = GroupId>) {
        for id in groups {
            if let Some(group) = self.groups.get_mut(&id) {
                group.is_pinning = true;
                self.dirty.insert(id);
            }
        }
    }

    /// Time went by that ticks did not count: the process was paused, or the machine slept. Leases of leaderships are given up.
    pub fn slept(&mut self) {
        for (id, group) in &mut self.groups {
            group.raft.slept();
            self.dirty.insert(*id);
        }
    }

    /// Hands over every leadership; returns whether none is left.
    pub fn hand_over(&mut self) -> bool {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        let mut is_done = true;
        for id in ids {
            is_done &= self.hand_over_group(id);
        }
        is_done
    }

    /// Hands over the leadership of one group; returns whether it is not led here.
    pub fn hand_over_group(&mut self, id: GroupId) -> bool {
        let Some(group) = self.groups.get_mut(&id) else { return true };
        let is_done = !matches!(group.role, Role::Leader { .. }) || group.voters.len() == 1;
        if !is_done {
            if group.raft.can_propose().is_ok() {
                group.raft.transfer(None);
            }
            self.dirty.insert(id);
        }
        is_done
    }

    /// What to do now. Everything that was told since the last call is carried out first.
    pub fn take(&mut self) -> Result<Effects, Fault> {
        let mut writes: Vec<(GroupId, LogWrite)> = Vec::new();
        let mut parts = Vec::new();
        let target = self.options.log_bytes_target;
        loop {
            self.carry_told()?;
            self.rouse()?;
            if self.raise_marks_next {
                self.raise_marks()?;
            }
            // The messages of leaders to each other cost nothing here; what they lead to shares one write.
            if self.told.is_empty() && self.rouse_blocked.is_empty() && self.rouse_waiting.is_empty() {
                let Some(id) = self.dirty.pop_first() else { break };
                self.collect(id, &mut writes, &mut parts)?;
                if let Some(group) = self.groups.get(&id) {
                    self.agenda.note(group, target);
                }
            }
        }
        self.settle()?;
        // A group that was opened just now, by a split, may have entries already: its log begins before them.
        writes.splice(0..0, std::mem::take(&mut self.extra_writes));
        if !writes.is_empty() {
            self.write = WriteId(self.write.0 + 1);
            let of_meta = writes.iter().filter(|(id, _)| *id == GroupId::META);
            let terms = of_meta.filter_map(|(_, write)| Some((self.write, write.hard_state?.term)));
            self.meta_terms_written.extend(terms);
            self.writing.push_back((self.write, parts));
            self.out.persist = Some((self.write, writes));
        }
        if !self.is_flushing && (self.agenda.is_flush_wanted() || self.removals.wants_flush()) {
            self.is_flushing = true;
            self.out.flush = true;
            self.agenda.flush_begins();
            self.removals.flush_begins();
            for group in self.groups.values_mut() {
                group.flushing = Some(group.applied());
            }
        }
        let chunks = self.sources.serve(self.options.snapshot_chunk_bytes, self.now);
        self.out.send.extend(chunks);
        Ok(std::mem::take(&mut self.out))
    }

    fn collect(
        &mut self,
        id: GroupId,
        writes: &mut Vec<(GroupId, LogWrite)>,
        parts: &mut Vec<(GroupId, quorate_consensus::WriteId)>,
    ) -> Result<(), Fault> {
        let now = self.now;
        // What it promised in a newer term, which a crash may let it forget, is not promised to anybody yet.
        let meta = self.meta_term_durable;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let effects = group.raft.take();
        let wrap = |message: Message| PeerMessage::Group { group: id, meta, message };
        self.out.send.extend(effects.send_now.into_iter().map(|(to, message)| (to, wrap(message))));
        if let Some((part, write)) = effects.persist {
            writes.push((id, write));
            parts.push((id, part));
        }
        for (waits_for, to, message) in effects.send_after {
            if waits_for <= group.persisted {
                self.out.send.push((to, wrap(message)));
            } else {
                group.held.push_back((waits_for, to, wrap(message)));
            }
        }
        if let Some(role) = effects.role_changed {
            self.on_role(id, role)?;
        }
        if !effects.apply.is_empty() {
            self.apply(id, &effects.apply, now)?;
            // There may be more to apply than came at once.
            self.dirty.insert(id);
        }
        for (read, outcome) in effects.reads {
            self.on_read(id, read, outcome)?;
        }
        for to in effects.snapshots_wanted {
            self.offer_snapshot(id, to);
        }
        if let Some(fetch) = effects.fetch {
            self.begin_fetch(id, fetch)?;
        }
        Ok(())
    }

    fn on_role(&mut self, id: GroupId, role: Role) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let status = group.raft.status();
        let old_leader = group.leader;
        group.role = role;
        group.leader = status.leader;
        group.term = status.term;
        self.out.notices.push(Notice::Role { group: id, term: status.term, role });
        let was_serving = group.is_serving;
        if group.is_serving || matches!(role, Role::Leader { .. }) {
            if let Some(partition) = group.partition_mut() {
                partition.follow();
            }
            group.is_serving = false;
            group.is_split_proposed = false;
            group.met.clear();
            self.note_slots_of(id);
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if let Role::Leader { fence } = role {
            group.proposed = fence;
        }
        // What was forwarded to a leader that no longer is will not be answered by it for sure.
        if old_leader != group.leader {
            let leader = group.leader;
            let lost: Vec<Ticket> = group
                .forwarded
                .iter()
                .filter(|(_, (to, work))| Some(*to) != leader && !may_change(&work.request))
                .map(|(ticket, _)| *ticket)
                .collect();
            // What may have changed something waits for the old leader's word, which comes at once if it only lost its
            // office. One that is paused or cut off must not keep the client for the whole of its time.
            let deadline = self.now.after(self.options.election_ticks_max);
            for (to, work) in group.forwarded.values_mut() {
                if Some(*to) != leader {
                    work.deadline = work.deadline.min(deadline);
                }
            }
            for ticket in lost {
                self.forward_failed(id, ticket);
            }
        }
        if was_serving {
            self.resign(id)?;
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        // Changing the role has failed every barrier; those that can be asked for again are.
        let reads: Vec<ReadId> = group.reads.keys().copied().collect();
        let waiting = std::mem::take(&mut group.waiting);
        for read in reads {
            self.retry_read(id, read);
        }
        for work in waiting {
            self.dispatch_again(id, work)?;
        }
        if id == GroupId::META {
            self.repeat_readings()?;
        }
        self.dirty.insert(id);
        Ok(())
    }

    /// The group was led here until now.
    fn resign(&mut self, id: GroupId) -> Result<(), Fault> {
        if id == GroupId::META {
            self.end_sequencer();
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.registered = None;
        group.registering = None;
        // They are in the log for good, but whether in time will not be known.
        for (_, _, wait) in std::mem::take(&mut group.unconfirmed) {
            self.reject(wait.then, Rejection::Unknown);
        }
        self.end_coordination(id)
    }

    fn apply(&mut self, id: GroupId, entries: &[Entry], now: Tick) -> Result<(), Fault> {
        let own_meta = self.meta_term();
        // What comes after a split is told in another way than what came before it.
        for entries in entries.split_inclusive(|entry| entry.kind == EntryKind::Split) {
            let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
            let State::Ready(partition) = &mut group.state else {
                panic!("group {id} was given entries to apply while its state is being installed");
            };
            let mut applied = partition.apply(entries, now)?;
            let split = applied.split.take();
            self.on_applied(id, applied)?;
            if let Some(split) = split {
                self.on_split(id, &split)?;
            }
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let last = entries.last().map_or(Index::START, |entry| entry.index);
        group.raft.applied(last);
        let begins = match group.role {
            Role::Leader { fence } => !group.is_serving && last >= fence.index,
            _ => false,
        };
        if begins {
            self.begin_serving(id)?;
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let still_waiting = group.waits.split_off(&last.next());
        let done = std::mem::replace(&mut group.waits, still_waiting);
        let first = entries.first().map_or(Index::START, |entry| entry.index);
        for (index, waits) in done {
            let term =
                index.0.checked_sub(first.0).and_then(|at| entries.get(at as usize)).map(|entry| entry.term);
            for wait in waits {
                if wait.term.is_none() || wait.term == term {
                    let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
                    if let Some(epoch) = wait.confirm
                        && !Self::is_confirmed(group, own_meta, index, epoch)
                    {
                        group.unconfirmed.push_back((index, epoch, wait));
                        continue;
                    }
                    self.finish(id, wait.then, wait.deadline)?;
                } else {
                    self.reject(wait.then, Rejection::LeaderChanged);
                }
            }
        }
        self.answer_physical(id);
        Ok(())
    }

    /// The group is led here, and what earlier leaders committed is applied.
    fn begin_serving(&mut self, id: GroupId) -> Result<(), Fault> {
        let (now, is_refusing) = (self.now, self.is_refusing(id.keyspace));
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let State::Ready(partition) = &mut group.state else { return Ok(()) };
        group.is_serving = true;
        partition.lead(now);
        partition.set_no_space(is_refusing);
        self.out.notices.push(Notice::Serving { group: id, term: group.term });
        let waiting = std::mem::take(&mut group.waiting);
        if id == GroupId::META {
            self.begin_sequencer()?;
        } else {
            self.note_inherited(id);
            self.arrange(id)?;
            self.owe_all(id);
            self.inherit(id);
            self.tick_splits()?;
        }
        for work in waiting {
            self.dispatch_again(id, work)?;
        }
        Ok(())
    }

    fn suspicious(&mut self, from: NodeId, what: String) {
        self.out.notices.push(Notice::Suspicious { from, what });
    }
}
