//! The groups of one node and the gateway in front of them.
//!
//! * [`agenda`]: which groups a tick concerns.
//! * [`awaiting`]: what was sent to other nodes' leaders.
//! * [`comparing`]: whether replicas have become the same.
//! * [`collecting`]: what the shell is to do, and what it reports done.
//! * [`distant`]: groups that have no replica here.
//! * [`drawing`]: revisions from a sequencer on another node.
//! * [`forgetting`]: forgotten history is removed.
//! * [`joining`]: this node's admission, and that of others.
//! * [`keyspaces`]: what the partitions of one keyspace share.
//! * [`lineages`]: groups whose quorum was lost for good.
//! * [`maps`]: which keyspaces and partitions there are.
//! * [`liveness`]: which other nodes are heard.
//! * [`messages`]: what comes from other nodes.
//! * [`moves`]: groups go where their rows say.
//! * [`physical`]: callers who wait until history is removed.
//! * [`planning`]: what the meta group's leader decides about members and places.
//! * [`opening`]: from what is stored to a group at work.
//! * [`roster`]: which members there are, and where the groups are.
//! * [`rows`]: changing what the system keyspace says.
//! * [`roles`]: leaders come and go, and what is committed is applied.
//! * [`requests`]: from a request to its answer.
//! * [`sequencing`]: where revisions come from.
//! * [`transacting`]: transactions over partitions.
//! * [`reading`]: reads over partitions.
//! * [`removal`]: keyspaces that are deleted.
//! * [`showing`]: what reads have to see.
//! * [`space`]: whose disks run full.
//! * [`splitting`]: one partition becomes two.
//! * [`stall`]: a disk that has stopped answering.
//! * [`transfers`]: snapshots as the groups see them.
//! * [`usage`]: how much of a keyspace's quota is used.

mod agenda;
mod awaiting;
mod collecting;
mod comparing;
mod deciding;
mod discarding;
mod distant;
mod drawing;
mod forgetting;
mod holding;
mod joining;
mod keyspaces;
mod leaving;
mod lineages;
mod liveness;
mod maps;
mod messages;
mod moves;
mod opening;
mod participating;
mod physical;
mod planning;
pub(crate) mod precedence;
mod queues;
mod reading;
mod removal;
mod requests;
mod roles;
mod roster;
mod rows;
mod sequencing;
mod showing;
mod space;
mod splitting;
mod stall;
mod transacting;
mod transfers;
mod usage;

use crate::admission::{Admission, Standing};
use crate::effects::{Effects, IfBehind, Notice, Ticket, WriteId};
use crate::errands::Errand;
use crate::group::{Caller, Group, GroupStatus, Origin, State, Then, Work, revocation};
use crate::sequencer::Sequencer;
use crate::snapshots::Fetching;
use crate::sources::Sources;
use crate::transaction::{Attempt, TxnMessage};
use crate::{Cluster, Options, Router};
use agenda::Agenda;
use awaiting::InHand;
use discarding::Discards;
use distant::Distant;
use drawing::Drawing;
pub use holding::Holding;
use keyspaces::Keyspace;
use leaving::Leaving;
use liveness::Liveness;
use physical::PhysicalCalls;
pub use queues::Queue;
use quorate_consensus::{Configuration, Consensus, Recovered, Role};
use quorate_mvcc::engine::Engine;
use quorate_partition::{Evaluated, ReadError, Reader};
use quorate_types::{
    Fault, GroupId, KeyRange, KeyspaceId, KeyspaceMap, LogWrite, NodeId, PartitionId, Position, Rejection,
    Request, Revision, Term, Tick, TxnId,
};
use reading::{Purpose, Reading};
use removal::Removals;
use requests::propose;
use roster::Roster;
pub use sequencing::HeldBack;
use showing::Offices;
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
    roster: Roster,
    /// The other members of the cluster.
    members: BTreeSet<NodeId>,
    /// Moves that are done here, and when their rows were asked for.
    asked_rows: moves::Asked,
    planning_since: planning::Since,
    /// This node was one, and is no more.
    is_removed: bool,
    /// Groups that were thrown away just now: what was to be written of them is not.
    discarded: Vec<GroupId>,
    /// Logs of groups that the maps this node has do not name yet.
    unopened: BTreeMap<GroupId, Recovered>,
    maps: BTreeMap<KeyspaceId, KeyspaceMap>,
    /// Partitions that the maps say are being split, and their children.
    splits: BTreeMap<GroupId, PartitionId>,
    /// The id of the next keyspace, as far as is known here.
    next_keyspace: KeyspaceId,
    removals: Removals,
    discards: Discards<E>,
    /// Of the keyspaces that have a quota.
    usages: BTreeMap<KeyspaceId, Usage>,
    /// Requests that wait for the first map.
    unrouted: Vec<(KeyspaceId, Work)>,
    /// The role, while this node leads the meta group.
    sequencer: Option<Sequencer>,
    raise_marks_next: bool,
    /// Keyspaces of which more may be applied everywhere than was known.
    wants_settled: BTreeSet<KeyspaceId>,
    /// Counts the changes of what is held of keyspaces.
    held_version: u64,
    /// Partitions led here that had prepared transactions when their leaders began, which may not have ended.
    inheriting: BTreeSet<GroupId>,
    /// Keyspaces for which that is being asked.
    settling: BTreeSet<KeyspaceId>,
    /// What is asked of a sequencer on another node.
    drawing: Drawing,
    /// Groups with entries that a quorum of their own voters cannot confirm.
    wants_office: BTreeSet<GroupId>,
    /// A barrier of the meta group for such entries is under way.
    is_office_asked: bool,
    /// Requests of other nodes that are not answered yet.
    in_hand: InHand,
    /// Requests for groups that have no replica here.
    distant: BTreeMap<GroupId, Distant>,
    physical: PhysicalCalls,
    /// Who is said to lead such groups.
    leaders: BTreeMap<GroupId, NodeId>,
    offices: Offices,
    /// Leaders that registered here and that nobody was told of yet.
    leaders_news: BTreeMap<GroupId, NodeId>,
    /// Nodes that want to hear when more than so much is settled.
    parked: BTreeMap<KeyspaceId, BTreeMap<NodeId, (u64, Revision)>>,
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
    leaving: Leaving,
    /// Groups whose state here is wrong, and to be given up.
    diverged: BTreeSet<GroupId>,
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
    /// The disk has stopped; it will have answered when this write is durable.
    stalled: Option<WriteId>,
    space: Space,
    sources: Sources<E>,
    fetching: BTreeMap<GroupId, Fetching<E>>,
    /// Reads and writes of snapshots that the shell has not been told of yet.
    errands: Vec<Errand<E>>,
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
    /// `cluster` is what it is told of its cluster, `logs` what the log held of each group.
    pub fn new(
        options: Options,
        standing: Standing,
        engine: E,
        cluster: Cluster,
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
            roster: Roster::new(cluster),
            members: BTreeSet::new(),
            asked_rows: moves::Asked::new(),
            planning_since: None,
            is_removed: false,
            discarded: Vec::new(),
            unopened: logs,
            maps: BTreeMap::new(),
            splits: BTreeMap::new(),
            next_keyspace: KeyspaceId::FIRST_CREATED,
            removals: Removals::default(),
            discards: Discards::default(),
            usages: BTreeMap::new(),
            unrouted: Vec::new(),
            sequencer: None,
            raise_marks_next: false,
            wants_settled: BTreeSet::new(),
            held_version: 0,
            inheriting: BTreeSet::new(),
            settling: BTreeSet::new(),
            drawing: Drawing::default(),
            wants_office: BTreeSet::new(),
            is_office_asked: false,
            in_hand: InHand::default(),
            distant: BTreeMap::new(),
            physical: PhysicalCalls::default(),
            leaders: BTreeMap::new(),
            offices: Offices::default(),
            leaders_news: BTreeMap::new(),
            parked: BTreeMap::new(),
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
            leaving: Leaving::default(),
            diverged: BTreeSet::new(),
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
            stalled: None,
            space: Space::default(),
            sources: Sources::new(options.snapshot_chunk_bytes),
            fetching: BTreeMap::new(),
            errands: Vec::new(),
            admission: Admission::new(options.incarnation, standing, options.has_forgotten),
            catch_up_again: Vec::new(),
            caught_up: BTreeMap::new(),
            out: Effects::default(),
            options,
            engine,
        };
        host.note_members();
        host.keyspace(KeyspaceId::DEFAULT)?;
        host.open_group(GroupId::META)?;
        host.load_maps()?;
        host.begin_admission()?;
        Ok(host)
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

    /// Who votes in a group, as the newest entry of this replica's log about it says.
    pub fn configuration(&self, id: GroupId) -> Option<&Configuration> {
        self.groups.get(&id).map(|group| group.raft.configuration())
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
        self.serve_snapshots();
        self.tick_compaction();
        self.tick_removals()?;
        self.tick_usage()?;
        let mut lags = false;
        for id in self.agenda.at(self.now) {
            self.tick_group(id)?;
            lags |= self.groups.get(&id).is_some_and(|group| group.raft.lags());
        }
        self.tick_stall(lags);
        self.tick_sequencing()?;
        self.tick_drawing();
        self.tick_distant()?;
        self.tick_awaiting();
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
        self.tick_digests()?;
        self.tick_space();
        self.tick_liveness();
        self.tick_roster()?;
        self.tick_leaving()?;
        self.tick_planning()?;
        self.tick_moves()?;
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
            let end = self.groups.get(&id).and_then(Group::partition).and_then(|own| own.lease_end(lease));
            let received = end.unwrap_or(now);
            let work = Work { origin: Origin::Own, request: revocation(lease), received, deadline: now };
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
        if self.is_removed {
            self.reply(Origin::Local(ticket), Err(Rejection::Unavailable));
            return Ok(());
        }
        if !self.note_physical(ticket, keyspace, &request) {
            self.reply(Origin::Local(ticket), Err(Rejection::Busy));
            return Ok(());
        }
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
    /// node's copy of them contains every write acknowledged before this call. With [`IfBehind::AskLeaders`] the grant may say instead that
    /// leaders are to be asked.
    pub fn barrier(
        &mut self,
        ticket: Ticket,
        keyspace: KeyspaceId,
        ranges: Vec<KeyRange>,
        if_behind: IfBehind,
    ) -> Result<(), Fault> {
        let caller = Caller { ticket, if_behind };
        if self.is_removed {
            self.out.grants.push((ticket, Err(Rejection::Unavailable)));
            return Ok(());
        }
        if let Some(leader_reads) = self.only_distant(keyspace, &ranges) {
            self.out.grants.push((ticket, Ok(leader_reads)));
            return Ok(());
        }
        if self.is_sequenced(keyspace) || self.is_unmapped(keyspace) {
            return self.begin_reading(Purpose::Client(caller), keyspace, ranges);
        }
        match self.router.groups(keyspace) {
            Ok(group) => {
                let deadline = self.now.after(self.options.request_ticks_max);
                return self.begin_barrier(group, Position::default(), deadline, Then::Grant(caller), None);
            }
            Err(rejection) => self.out.grants.push((ticket, Err(rejection))),
        }
        Ok(())
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
    /// Nobody is taken for silent because of it.
    pub fn slept(&mut self) {
        self.liveness_slept();
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
        let is_done = !matches!(group.role, Role::Leader { .. })
            || group.raft.configuration().is_alone(self.options.id);
        if !is_done {
            if group.raft.can_propose().is_ok() {
                group.raft.transfer(None);
            }
            self.dirty.insert(id);
        }
        is_done
    }

    /// What is stored here is damaged. Called again and again, this hands over whatever is led here, and returns whether the store can be given up: who leads a
    /// group has the whole of its state, so nothing but redundancy goes with the store while others, who are heard, lead all that is in it. A group that
    /// has no other voter never lets go, nor does one that nobody else can lead.
    pub fn leave_store(&mut self) -> bool {
        let is_led = |leader: Option<NodeId>| {
            leader.is_some_and(|leader| leader != self.options.id && !self.is_down(leader))
        };
        let are_led = self.groups.values().all(|group| is_led(group.leader));
        self.hand_over() && are_led
    }

    fn suspicious(&mut self, from: NodeId, what: String) {
        self.out.notices.push(Notice::Suspicious { from, what });
    }
}
