//! The groups of one node and the gateway in front of them.

use crate::effects::{Applied, Effects, Grant, Notice, Ticket, WriteId};
use crate::group::{
    Group, GroupStatus, Origin, ReadWait, State, Then, Wait, Work, is_timer_call, may_change, revocation,
};
use crate::peer::{Outcome, PeerMessage};
use crate::snapshots::{Fetching, Sources, Step};
use crate::{Options, Router};
use quorate_consensus::{
    Consensus, Message, ProposeError, Raft, ReadId, ReadOutcome, Recovered, Role, SnapshotFetch, SnapshotMeta,
};
use quorate_mvcc::engine::Engine;
use quorate_partition::snapshot::{InstallError, Installer};
use quorate_partition::{Evaluated, Opened, Partition, ReadError, Reader};
use quorate_types::{
    Answer, Entry, Fault, GroupId, Index, KeyspaceId, LogWrite, NodeId, Position, Rejection, Reply, Request,
    Revision, Tick,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How often everything that waits is looked through for what came too late, in ticks.
const TIMEOUT_SCAN_TICKS: u64 = 10;

/// One group to start.
#[derive(Clone, Debug)]
pub struct GroupStart {
    /// Which.
    pub group: GroupId,
    /// Its voters.
    pub voters: Vec<NodeId>,
    /// What the log held of it.
    pub recovered: Recovered,
}

/// One node.
pub struct Host<E: Engine> {
    options: Options,
    engine: E,
    router: Router,
    now: Tick,
    groups: BTreeMap<GroupId, Group<E>>,
    /// Groups that may have effects to collect.
    dirty: BTreeSet<GroupId>,
    next_read: u64,
    write: WriteId,
    /// Writes under way, with each group's own name for its part.
    writing: VecDeque<(WriteId, Vec<(GroupId, quorate_consensus::WriteId)>)>,
    /// Parts of the next write that did not come from consensus.
    extra_writes: Vec<(GroupId, LogWrite)>,
    is_flushing: bool,
    no_space: bool,
    sources: Sources<E>,
    fetching: BTreeMap<GroupId, Fetching<E>>,
    out: Effects,
}

impl<E: Engine> Host<E> {
    /// A node with its groups as they were recovered. A store that lies behind the start of a group's log has
    /// lost what it had promised to keep, and is refused.
    pub fn new(options: Options, engine: E, starts: Vec<GroupStart>) -> Result<Self, Fault> {
        let mut host = Self {
            router: Router::single(),
            now: Tick(0),
            groups: BTreeMap::new(),
            dirty: BTreeSet::new(),
            next_read: 0,
            write: WriteId(0),
            writing: VecDeque::new(),
            extra_writes: Vec::new(),
            is_flushing: false,
            no_space: false,
            sources: Sources::new(),
            fetching: BTreeMap::new(),
            out: Effects::default(),
            options,
            engine,
        };
        for start in starts {
            host.open_group(start)?;
        }
        Ok(host)
    }

    fn open_group(&mut self, start: GroupStart) -> Result<(), Fault> {
        let GroupStart { group: id, voters, mut recovered } = start;
        let limits = self.options.partition.clone();
        let (state, reader, applied) = match Partition::open(self.engine.clone(), id, limits.clone())? {
            Opened::Ready(partition) => {
                let (reader, applied) = (partition.reader(), partition.applied());
                (State::Ready(*partition), reader, applied)
            }
            Opened::Incomplete => {
                let installer = Installer::begin(self.engine.clone(), id, limits)?;
                let reader = installer.reader();
                (State::Installing(Some(installer)), reader, recovered.start)
            }
        };
        if applied.index < recovered.start.index {
            return Err(Fault::new(
                format!("opening group {id}"),
                format!(
                    "the store holds its state at {applied}, but the log begins after {}: the store lost \
                     writes that it had confirmed. Keep this node stopped; the others go on without it. Do not start \
                     it with an empty data directory: it would forget what it has promised",
                    recovered.start
                ),
            ));
        }
        let last = recovered.entries.last().map_or(recovered.start, Entry::position);
        if applied.index > last.index {
            // A snapshot was put in place and the node stopped before the log restarted after it.
            recovered.start = applied;
            recovered.entries.clear();
            self.extra_writes.push((id, LogWrite { restart: Some(applied), ..LogWrite::default() }));
        }
        let options = quorate_consensus::Options {
            heartbeat_ticks: self.options.heartbeat_ticks,
            election_ticks_min: self.options.election_ticks_min,
            election_ticks_max: self.options.election_ticks_max,
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
        };
        self.groups.insert(id, group);
        self.dirty.insert(id);
        Ok(())
    }

    /// A handle for reading a group's applied state from any thread.
    pub fn reader(&self, group: GroupId) -> Option<Reader<E>> {
        self.groups.get(&group).map(|group| group.reader.clone())
    }

    /// How all groups stand.
    pub fn status(&self) -> Vec<GroupStatus> {
        self.groups.values().map(Group::status).collect()
    }

    /// The node's time.
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Whether writes that need space are refused: the shell has seen the disk, or the quota, run full, or
    /// space come back.
    pub fn set_no_space(&mut self, no_space: bool) {
        if self.no_space != no_space {
            self.no_space = no_space;
            for group in self.groups.values_mut() {
                if let Some(partition) = group.partition_mut() {
                    partition.set_no_space(no_space);
                }
            }
        }
    }

    /// Time goes on by one tick. After a pause of the whole process the shell gives one tick, not as many
    /// as were missed: leases then live longer, never shorter.
    pub fn tick(&mut self) -> Result<(), Fault> {
        self.now = self.now.after(1);
        self.sources.refill(self.options.snapshot_bytes_per_tick);
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.tick_group(id)?;
        }
        if self.now.0.is_multiple_of(TIMEOUT_SCAN_TICKS) {
            self.reject_late();
            for (group, node) in self.sources.drop_idle(self.now, self.options.snapshot_idle_ticks) {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.raft.snapshot_failed(node);
                }
            }
        }
        self.repeat_pulls();
        Ok(())
    }

    fn tick_group(&mut self, id: GroupId) -> Result<(), Fault> {
        let now = self.now;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.raft.tick();
        self.dirty.insert(id);
        let rows_max = self.options.compaction_rows_per_tick;
        if let Some(partition) = group.partition_mut()
            && partition.compaction_pending()
        {
            partition.compact_step(rows_max)?;
            self.answer_physical(id);
        }
        // A leader may be known by now.
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let waiting = std::mem::take(&mut group.waiting);
        for work in waiting {
            self.dispatch(id, work)?;
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
        if group.raft.can_propose().is_ok() {
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
        match self.router.route(keyspace, &work.request) {
            Ok(group) => self.dispatch(group, work)?,
            Err(rejection) => self.reply(work.origin, Err(rejection)),
        }
        Ok(())
    }

    /// A client of this node wants to read: answered once, in [`Effects::grants`], when this node's copy
    /// contains every write acknowledged before this call.
    pub fn barrier(&mut self, ticket: Ticket, keyspace: KeyspaceId) -> Result<(), Fault> {
        match self.router.groups(keyspace) {
            Ok(group) => {
                let deadline = self.now.after(self.options.request_ticks_max);
                return self.begin_barrier(group, Position::default(), deadline, Then::Grant(ticket), None);
            }
            Err(rejection) => self.out.grants.push((ticket, Err(rejection))),
        }
        Ok(())
    }

    /// A peer's message came in.
    pub fn receive(&mut self, from: NodeId, message: PeerMessage) -> Result<(), Fault> {
        match message {
            PeerMessage::Group { group: id, message } => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.raft.step(from, message);
                    self.dirty.insert(id);
                } else {
                    self.suspicious(from, format!("a message of group {id}, which is not on this node"));
                }
            }
            PeerMessage::Request { ticket, group, request } => {
                let deadline = self.now.after(self.options.request_ticks_max);
                let origin = Origin::Remote(from, ticket);
                let work = Work { origin, request, received: self.now, deadline };
                if self.groups.contains_key(&group) {
                    self.dispatch(group, work)?;
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
        for id in ids {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.raft.peer_lost(node);
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
                    self.out.send.push((to, PeerMessage::Group { group: id, message }));
                }
                self.dirty.insert(id);
            }
        }
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
    }

    /// The node's log could be shorter if these groups let go of their oldest entries.
    pub fn release_log(&mut self, groups: impl IntoIterator<Item = GroupId>) {
        for id in groups {
            if let Some(group) = self.groups.get_mut(&id) {
                group.is_pinning = true;
            }
        }
    }

    /// Hands over every leadership; returns whether none is left.
    pub fn hand_over(&mut self) -> bool {
        let mut is_done = true;
        for (id, group) in &mut self.groups {
            if let Role::Leader { .. } = group.role
                && group.voters.len() > 1
            {
                is_done = false;
                if group.raft.can_propose().is_ok() {
                    group.raft.transfer(None);
                }
                self.dirty.insert(*id);
            }
        }
        is_done
    }

    /// What to do now. Everything that was told since the last call is carried out first.
    pub fn take(&mut self) -> Result<Effects, Fault> {
        let mut writes: Vec<(GroupId, LogWrite)> = std::mem::take(&mut self.extra_writes);
        let mut parts = Vec::new();
        while let Some(id) = self.dirty.pop_first() {
            self.collect(id, &mut writes, &mut parts)?;
        }
        if !writes.is_empty() {
            self.write = WriteId(self.write.0 + 1);
            self.writing.push_back((self.write, parts));
            self.out.persist = Some((self.write, writes));
        }
        let target = self.options.log_bytes_target;
        if !self.is_flushing && self.groups.values().any(|group| group.wants_flush(target)) {
            self.is_flushing = true;
            self.out.flush = true;
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
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let effects = group.raft.take();
        let wrap = |message: Message| PeerMessage::Group { group: id, message };
        self.out.send.extend(effects.send_now.into_iter().map(|(to, message)| (to, wrap(message))));
        if let Some((part, write)) = effects.persist {
            writes.push((id, write));
            parts.push((id, part));
        }
        for (waits_for, to, message) in effects.send_after {
            if waits_for <= group.persisted {
                self.out.send.push((to, wrap(message)));
            } else {
                group.held.push_back((waits_for, to, message));
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
        if group.is_serving || matches!(role, Role::Leader { .. }) {
            if let Some(partition) = group.partition_mut() {
                partition.follow();
            }
            group.is_serving = false;
        }
        if let Role::Leader { fence } = role {
            group.proposed = fence;
        }
        // What was forwarded to a leader that no longer is will not be answered by it for sure.
        if old_leader != group.leader
            && let Some(old) = old_leader
        {
            let lost: Vec<Ticket> = group
                .forwarded
                .iter()
                .filter(|(_, (to, work))| *to == old && !may_change(&work.request))
                .map(|(ticket, _)| *ticket)
                .collect();
            for ticket in lost {
                self.forward_failed(id, ticket);
            }
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        // Changing the role has failed every barrier; those that can be asked for again are.
        let reads: Vec<ReadId> = group.reads.keys().copied().collect();
        let waiting = std::mem::take(&mut group.waiting);
        for read in reads {
            self.retry_read(id, read);
        }
        for work in waiting {
            self.dispatch(id, work)?;
        }
        self.dirty.insert(id);
        Ok(())
    }

    fn apply(&mut self, id: GroupId, entries: &[Entry], now: Tick) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let State::Ready(partition) = &mut group.state else {
            panic!("group {id} was given entries to apply while its state is being installed");
        };
        let applied = partition.apply(entries, now)?;
        let last = entries.last().map_or(Index::START, |entry| entry.index);
        group.raft.applied(last);
        if !applied.changes.is_empty() || applied.compacted.is_some() {
            let applied = Applied { changes: applied.changes, compacted: applied.compacted, replaced: None };
            self.out.applied.push((id, applied));
        }
        if let Role::Leader { fence } = group.role
            && !group.is_serving
            && last >= fence.index
        {
            group.is_serving = true;
            partition.lead(now);
            partition.set_no_space(self.no_space);
            self.out.notices.push(Notice::Serving { group: id, term: group.term });
            let waiting = std::mem::take(&mut group.waiting);
            for work in waiting {
                self.dispatch(id, work)?;
            }
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
                    self.finish(id, wait.then, wait.deadline)?;
                } else {
                    self.reject(wait.then, Rejection::LeaderChanged);
                }
            }
        }
        self.answer_physical(id);
        Ok(())
    }

    /// Sends a request where it can be answered.
    fn dispatch(&mut self, id: GroupId, work: Work) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else {
            self.reply(work.origin, Err(Rejection::Unavailable));
            return Ok(());
        };
        if group.is_serving {
            return self.serve(id, work);
        }
        let is_local = matches!(work.origin, Origin::Local(_));
        match (group.role, group.leader, work.origin) {
            (Role::Follower { .. }, Some(leader), Origin::Local(ticket)) => {
                let message = PeerMessage::Request { ticket, group: id, request: work.request.clone() };
                group.forwarded.insert(ticket, (leader, work));
                self.out.send.push((leader, message));
            }
            (Role::Leader { .. }, _, _) | (_, None, _)
                if is_local || matches!(group.role, Role::Leader { .. }) =>
            {
                if group.waiting.len() < self.options.waiting_max {
                    group.waiting.push_back(work);
                } else {
                    self.reply(work.origin, Err(Rejection::Busy));
                }
            }
            _ => self.reply(work.origin, Err(Rejection::LeaderChanged)),
        }
        Ok(())
    }

    /// Answers a request on the group's serving leader.
    fn serve(&mut self, id: GroupId, work: Work) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if group.inflight() >= self.options.inflight_max {
            self.reply(work.origin, Err(Rejection::Busy));
            return Ok(());
        }
        if is_timer_call(&work.request) {
            let (after, deadline) = (group.proposed, work.deadline);
            return self.begin_barrier(id, after, deadline, Then::Lease(work.clone()), Some(work));
        }
        match group.raft.can_propose() {
            Ok(()) => {}
            Err(ProposeError::Full) => {
                self.reply(work.origin, Err(Rejection::Busy));
                return Ok(());
            }
            Err(_) => {
                // Leadership is being handed over: wait for who takes it.
                if group.waiting.len() < self.options.waiting_max && work.origin != Origin::Own {
                    group.waiting.push_back(work);
                } else {
                    self.reply(work.origin, Err(Rejection::LeaderChanged));
                }
                return Ok(());
            }
        }
        let index = group.raft.last().index.next();
        let State::Ready(partition) = &mut group.state else {
            panic!("group {id} serves while its state is being installed");
        };
        let evaluated = match &work.request {
            Request::LeaseKeepAlive { lease } => partition.keep_alive(*lease, work.received, index),
            request => partition.evaluate(request, index),
        };
        match evaluated {
            Err(ReadError::Rejection(rejection)) => self.reply(work.origin, Err(rejection)),
            Err(ReadError::Fault(fault)) => return Err(fault),
            Ok(Evaluated::Unchanged { reply }) => {
                let (after, deadline) = (group.proposed, work.deadline);
                let then = Then::Reply(work.origin, reply);
                return self.begin_barrier(id, after, deadline, then, Some(work));
            }
            Ok(Evaluated::Changes { kind, data, reply }) => {
                let position = propose(&mut group.raft, kind, data, index);
                group.proposed = position;
                self.dirty.insert(id);
                let then = match work.request {
                    Request::Compact { revision, physical: true } => {
                        let revision = Revision(u64::try_from(revision).unwrap_or(0));
                        Then::ReplyPhysical(work.origin, reply, revision)
                    }
                    _ => Then::Reply(work.origin, reply),
                };
                let wait = Wait { term: Some(position.term), deadline: work.deadline, then };
                group.waits.entry(index).or_default().push(wait);
            }
        }
        Ok(())
    }

    fn begin_barrier(
        &mut self,
        id: GroupId,
        after: Position,
        deadline: Tick,
        then: Then,
        again: Option<Work>,
    ) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else {
            self.reject(then, Rejection::Unavailable);
            return Ok(());
        };
        if group.reads.len() >= self.options.inflight_max {
            self.reject(then, Rejection::Busy);
            return Ok(());
        }
        self.next_read += 1;
        let read = ReadId(self.next_read);
        group.reads.insert(read, ReadWait { after, deadline, then, again });
        group.raft.read(read);
        self.dirty.insert(id);
        Ok(())
    }

    fn on_read(&mut self, id: GroupId, read: ReadId, outcome: ReadOutcome) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let Some(wait) = group.reads.remove(&read) else { return Ok(()) };
        match outcome {
            ReadOutcome::Ready(index) => {
                let applied = group.applied();
                // The entries it rests on are ours and of this term: once past them in the log, they are
                // committed; if they are still to come, their term is checked when they are applied.
                let (index, term) = if wait.after.index > index {
                    (wait.after.index, Some(wait.after.term))
                } else {
                    (index, None)
                };
                if index <= applied && group.partition().is_some() {
                    return self.finish(id, wait.then, wait.deadline);
                }
                let wait = Wait { term, deadline: wait.deadline, then: wait.then };
                group.waits.entry(index).or_default().push(wait);
            }
            // Nothing has happened: ask again, after a tick so as not to spin while nobody leads.
            ReadOutcome::Failed => match wait.again {
                Some(work) if self.now < work.deadline => group.waiting.push_back(work),
                None if self.now < wait.deadline => {
                    self.next_read += 1;
                    let again = ReadId(self.next_read);
                    group.reads.insert(again, wait);
                    self.retry_read(id, again);
                }
                _ => self.reject(wait.then, Rejection::NoLeader),
            },
        }
        Ok(())
    }

    /// A barrier that failed is asked for again at the next scan, when a leader may be known.
    fn retry_read(&mut self, id: GroupId, read: ReadId) {
        if let Some(group) = self.groups.get_mut(&id)
            && group.leader.is_some()
        {
            group.raft.read(read);
            self.dirty.insert(id);
        }
    }

    fn finish(&mut self, id: GroupId, then: Then, deadline: Tick) -> Result<(), Fault> {
        let now = self.now;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        match then {
            Then::Reply(origin, (revision, answer)) => {
                let term = group.term;
                self.reply(origin, Ok(Reply { revision, term, answer }));
            }
            Then::ReplyPhysical(origin, reply, revision) => {
                group.physical.push((revision, origin, reply, deadline));
            }
            Then::Grant(ticket) => {
                let grant = Grant { group: id, revision: group.reader.revision(), term: group.term };
                self.out.grants.push((ticket, Ok(grant)));
            }
            Then::Lease(work) => {
                let (State::Ready(partition), true) = (&group.state, group.is_serving) else {
                    return self.dispatch(id, work);
                };
                let answer = match &work.request {
                    Request::LeaseTimeToLive { lease, with_keys } => {
                        Answer::LeaseTimeToLive(partition.time_to_live(*lease, now, *with_keys))
                    }
                    _ => Answer::Leases(partition.leases()),
                };
                let reply = Reply { revision: partition.revision(), term: group.term, answer };
                self.reply(work.origin, Ok(reply));
            }
        }
        Ok(())
    }

    fn reject(&mut self, then: Then, rejection: Rejection) {
        match then {
            Then::Reply(origin, _) | Then::ReplyPhysical(origin, _, _) => self.reply(origin, Err(rejection)),
            Then::Lease(work) => self.reply(work.origin, Err(rejection)),
            Then::Grant(ticket) => self.out.grants.push((ticket, Err(rejection))),
        }
    }

    fn reply(&mut self, origin: Origin, outcome: Result<Reply, Rejection>) {
        match origin {
            Origin::Local(ticket) => self.out.replies.push((ticket, outcome)),
            Origin::Remote(node, ticket) => {
                self.out.send.push((node, PeerMessage::Reply { ticket, outcome: Outcome(outcome) }));
            }
            Origin::Own => {}
        }
    }

    fn on_reply(&mut self, from: NodeId, ticket: Ticket, outcome: Result<Reply, Rejection>) {
        let found = self.groups.iter_mut().find_map(|(id, group)| {
            let is_from = group.forwarded.get(&ticket).is_some_and(|(to, _)| *to == from);
            is_from.then(|| group.forwarded.remove(&ticket)).flatten().map(|(_, work)| (*id, work))
        });
        let Some((id, work)) = found else { return };
        match outcome {
            // It did nothing there; somebody else may lead, or soon will.
            Err(Rejection::LeaderChanged | Rejection::NoLeader) if self.now < work.deadline => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.waiting.push_back(work);
                }
            }
            outcome => self.reply(work.origin, outcome),
        }
    }

    /// The answer to a forwarded request will not come.
    fn forward_failed(&mut self, id: GroupId, ticket: Ticket) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some((_, work)) = group.forwarded.remove(&ticket) else { return };
        if may_change(&work.request) {
            self.reply(work.origin, Err(Rejection::Unknown));
        } else {
            group.waiting.push_back(work);
        }
    }

    fn answer_physical(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.physical.is_empty() {
            return;
        }
        let done = group.partition().and_then(Partition::physically_compacted);
        let term = group.term;
        let (ready, rest) = std::mem::take(&mut group.physical)
            .into_iter()
            .partition(|(revision, ..)| done.is_some_and(|done| done >= *revision));
        group.physical = rest;
        for (_, origin, (revision, answer), _) in Vec::from_iter::<Vec<_>>(ready) {
            self.reply(origin, Ok(Reply { revision, term, answer }));
        }
    }

    fn reject_late(&mut self) {
        let now = self.now;
        let mut late: Vec<(Then, Rejection)> = Vec::new();
        let mut retry = Vec::new();
        for (id, group) in &mut self.groups {
            group.waiting.retain(|work| {
                let is_late = work.deadline <= now;
                if is_late {
                    let then = Then::Reply(work.origin, (Revision(0), Answer::Compact));
                    late.push((then, Rejection::NoLeader));
                }
                !is_late
            });
            let expired = group.forwarded.iter().filter(|(_, (_, work))| work.deadline <= now);
            for ticket in expired.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
                if let Some((_, work)) = group.forwarded.remove(&ticket) {
                    let rejection =
                        if may_change(&work.request) { Rejection::Unknown } else { Rejection::Timeout };
                    late.push((Then::Reply(work.origin, (Revision(0), Answer::Compact)), rejection));
                }
            }
            let expired = group.reads.iter().filter(|(_, wait)| wait.deadline <= now);
            for read in expired.map(|(read, _)| *read).collect::<Vec<_>>() {
                if let Some(wait) = group.reads.remove(&read) {
                    late.push((wait.then, Rejection::Timeout));
                }
            }
            // Barriers that failed for want of a leader; asking twice for one that is under way is harmless.
            retry.extend(group.reads.keys().map(|read| (*id, *read)));
            for waits in group.waits.values_mut() {
                waits.retain(|wait| {
                    let is_late = wait.deadline <= now;
                    if is_late {
                        let rejection =
                            if wait.term.is_some() { Rejection::Unknown } else { Rejection::Timeout };
                        late.push((wait.then.clone(), rejection));
                    }
                    !is_late
                });
            }
            group.waits.retain(|_, waits| !waits.is_empty());
            group.physical.retain(|(_, origin, reply, deadline)| {
                let is_late = *deadline <= now;
                if is_late {
                    late.push((Then::Reply(*origin, reply.clone()), Rejection::Timeout));
                }
                !is_late
            });
        }
        for (then, rejection) in late {
            self.reject(then, rejection);
        }
        for (id, read) in retry {
            self.retry_read(id, read);
        }
    }

    fn offer_snapshot(&mut self, id: GroupId, to: NodeId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let voters = group.voters.clone();
        let Some(source) = group.partition().map(Partition::snapshot) else { return };
        let position = self.sources.keep(id, to, source, self.now);
        group.raft.offer_snapshot(to, SnapshotMeta { position, voters });
        self.dirty.insert(id);
        self.out.notices.push(Notice::SnapshotOffered { group: id, to, position });
    }

    fn begin_fetch(&mut self, id: GroupId, fetch: SnapshotFetch) -> Result<(), Fault> {
        let (from, position) = (fetch.from, fetch.meta.position);
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        // From here on there is no state to apply to, until the snapshot is whole.
        group.raft.state_lost();
        let unfinished = self.fetching.remove(&id).map(Fetching::into_installer);
        let installer = match (std::mem::replace(&mut group.state, State::Installing(None)), unfinished) {
            (State::Ready(partition), _) => partition.into_installer()?,
            (State::Installing(Some(installer)), _) | (State::Installing(None), Some(installer)) => {
                installer.restart()?
            }
            (State::Installing(None), None) => panic!("group {id} has lost its installer"),
        };
        let mut fetching = Fetching::new(fetch, installer, self.now);
        let (to, pull) = fetching.pull(id, self.now);
        self.out.send.push((to, pull));
        self.fetching.insert(id, fetching);
        self.out.notices.push(Notice::SnapshotFetching { group: id, from, position });
        Ok(())
    }

    fn repeat_pulls(&mut self) {
        let now = self.now;
        let mut failed = Vec::new();
        for (id, fetching) in &mut self.fetching {
            match fetching.is_overdue(now) {
                Ok(false) => {}
                Ok(true) => {
                    let (to, pull) = fetching.pull(*id, now);
                    self.out.send.push((to, pull));
                }
                Err(reason) => failed.push((*id, reason)),
            }
        }
        for (id, reason) in failed {
            self.fail_fetch(id, reason);
        }
    }

    fn fail_fetch(&mut self, id: GroupId, reason: String) {
        let installer = self.fetching.remove(&id).map(Fetching::into_installer);
        if let Some(group) = self.groups.get_mut(&id) {
            if let State::Installing(kept @ None) = &mut group.state {
                *kept = installer;
            }
            group.raft.fetch_failed();
            self.dirty.insert(id);
        }
        self.out.notices.push(Notice::SnapshotFailed { group: id, reason });
    }

    fn finish_fetch(&mut self, id: GroupId) -> Result<(), Fault> {
        let Some(fetching) = self.fetching.remove(&id) else { return Ok(()) };
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let (meta, bytes) = (fetching.fetch.meta.clone(), fetching.bytes);
        match fetching.into_installer().finish(meta.position) {
            Ok(partition) => group.state = State::Ready(partition),
            Err(InstallError::Fault(fault)) => return Err(fault),
            Err(error @ InstallError::Mismatch(_)) => {
                let installer = Installer::begin(self.engine.clone(), id, self.options.partition.clone())?;
                group.reader = installer.reader();
                group.state = State::Installing(Some(installer));
                self.fail_fetch(id, error.to_string());
                return Ok(());
            }
        }
        let position = meta.position;
        group.flushed = position.index;
        group.flushing = None;
        group.raft.restored(meta);
        self.dirty.insert(id);
        let revision = group.reader.revision();
        self.out.applied.push((id, Applied { replaced: Some(revision), ..Applied::default() }));
        self.out.notices.push(Notice::SnapshotInstalled { group: id, position, bytes });
        let still_waiting = group.waits.split_off(&position.index.next());
        let done = std::mem::replace(&mut group.waits, still_waiting);
        for wait in done.into_values().flatten() {
            match wait.term {
                // Whether that entry is among what the snapshot holds cannot be told any more.
                Some(_) => self.reject(wait.then, Rejection::Unknown),
                None => self.finish(id, wait.then, wait.deadline)?,
            }
        }
        Ok(())
    }

    fn suspicious(&mut self, from: NodeId, what: String) {
        self.out.notices.push(Notice::Suspicious { from, what });
    }
}

/// Proposes what was evaluated for `index`, where it must end up: the evaluation is part of the overlay already.
fn propose(
    raft: &mut Raft,
    kind: quorate_types::EntryKind,
    data: quorate_types::Bytes,
    index: Index,
) -> Position {
    match raft.propose(kind, data) {
        Ok(position) => {
            assert!(position.index == index, "proposed for {index}, appended at {position}");
            position
        }
        Err(error) => panic!("a proposal that could be made was refused: {error:?}"),
    }
}
