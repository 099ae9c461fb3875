//! Raft (Ongaro and Ousterhout 2014; Ongaro's thesis), one replica of one group.
//!
//! How it works: a leader appends entries and sends them on at once; an entry commits when a quorum
//! holds it durably and it is of the leader's own term (paper, 5.4.2). [`Consensus::take`] collects what
//! was decided since the last call: one write, one append per follower, whatever committed.
//!
//! * [`election`]: votes, pre-votes (thesis 9.6), the quorum check, hand-over (thesis 3.10).
//! * [`replication`]: appends, acknowledgements, commit, offers of snapshots.
//! * [`membership`]: changes of members.
//! * [`reads`]: read barriers (thesis 6.4).
//! * [`amnesia`]: a replica that lost its disk comes back.
//! * [`hibernation`]: an idle group sleeps.
//! * [`lineage`]: a group that has lost its quorum for good goes on with one survivor.
//!
//! Invariants:
//! * A vote, a request for votes and an acknowledgement leave only after the write that makes them true.
//! * The leader counts itself only up to what it has made durable, also when it is alone.
//! * Only entries that are committed and durable here are applied.
//! * Nothing a peer sends panics: what cannot be is ignored. What only our own code can break is asserted.
//!
//! Caveats: the log since the last compaction is in memory;
//! its owner bounds it by compacting.

mod amnesia;
mod election;
mod hibernation;
mod lineage;
mod membership;
mod reads;
mod replication;

use crate::log::Log;
use crate::progress::{Mode, Progress};
use crate::random::Random;
use crate::{
    ChangeError, Configuration, Consensus, Effects, Message, Options, ProposeError, ReadId, ReadOutcome,
    Recovered, Role, SnapshotFetch, SnapshotMeta, Status, WriteId,
};
use quorate_types::{Bytes, Entry, EntryKind, HardState, Index, LogWrite, NodeId, Position, Term, reached};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes of entries given out for applying in one take; the rest comes in the next.
const APPLY_BYTES_MAX: usize = 4 << 20;

/// No group elects so often that a replica misses this many terms; a message that says so is made up.
const TERMS_AHEAD_MAX: u64 = 1 << 32;

/// One replica.
pub struct Raft {
    options: Options,
    random: Random,
    term: Term,
    vote: Option<NodeId>,
    commit: Index,
    applied: Index,
    log: Log,
    state: State,
    /// Ticks since this replica started.
    now: u64,
    /// Ticks since a leader was heard or an election began.
    elapsed: u64,
    /// When `elapsed` gets there, an election begins.
    timeout: u64,
    /// Ticks since a leader of the newest term was heard; votes are refused while it is fresh.
    since_leader: u64,
    /// Quick elections left to try after the leader's connection broke.
    hurried: u8,
    /// Time does not pass: a leader sends no heartbeats, a follower's election timer stands still.
    is_hibernating: bool,
    /// Ticks of a leader since it was last asked for anything.
    idle: u64,
    /// Nodes that are down, as the owner says.
    down: BTreeSet<NodeId>,
    /// The log is durable up to here.
    persisted: Index,
    /// The log was handed to the shell up to here.
    written: Index,
    /// The newest write handed out.
    write: WriteId,
    /// Writes not yet durable, and where the log ended in each; a later conflict lowers those ends, so
    /// that an old report never vouches for entries that have been replaced since.
    writing: VecDeque<(WriteId, Index)>,
    hard_state_changed: bool,
    /// The last write in which the term or the vote was another one than before.
    hard_state_write: WriteId,
    restart: Option<Position>,
    compact: Option<Position>,
    send_now: Vec<(NodeId, Message)>,
    send_after: Vec<(NodeId, Message)>,
    /// What promises nothing but the term and the vote leaves when these are durable, whatever entries are being written.
    send_after_term: Vec<(NodeId, Message)>,
    /// Given out for applying up to here.
    handed: Index,
    read_outcomes: Vec<(ReadId, ReadOutcome)>,
    /// Reads forwarded to the leader by the name given to them on the way, and when each fails.
    forwarded: BTreeMap<ReadId, (ReadId, u64)>,
    /// The newest such name. It begins at random, so that a late answer to an earlier life of this replica
    /// is not taken for one to a read of this life.
    forwarded_name: ReadId,
    snapshots_wanted: Vec<NodeId>,
    fetch: Option<SnapshotFetch>,
    fetch_is_new: bool,
    /// The state machine waits for a snapshot.
    is_stateless: bool,
    /// May have promised what it does not remember.
    is_withholding: bool,
    /// The group goes on in this lineage, without what this replica holds.
    superseded: Option<u64>,
    reported: Option<(Term, Role)>,
}

/// What a replica is, with what only that role knows.
enum State {
    Leader(Leader),
    Follower { leader: Option<NodeId> },
    Candidate { is_pre: bool, votes: BTreeMap<NodeId, bool> },
}

/// What only a leader knows.
struct Leader {
    fence: Position,
    followers: BTreeMap<NodeId, Follower>,
    uncommitted_bytes: usize,
    since_heartbeat: u64,
    /// Time went by that was not counted: others expect a heartbeat.
    is_late: bool,
    rounds: reads::Rounds,
    transfer: Option<Transfer>,
    /// Something that the others have committed and this disk has not taken, and since when.
    behind: Option<(Index, u64)>,
    /// Somebody was told to campaign in spite of our lease. The word may come late, so there is no lease any
    /// more for the rest of the term, also when the hand-over was given up.
    has_let_campaign: bool,
}

/// A follower, as its leader sees it.
struct Follower {
    progress: Progress,
    /// When it was heard last; at first, when leadership began.
    heard: u64,
    /// What it had acknowledged at the last heartbeat; no progress since then with appends under way
    /// means that they were lost.
    matched_before: Index,
    /// The newest commit index it was sent.
    commit_sent: Index,
    /// The newest heartbeat round it answered.
    round: u64,
    /// The snapshot it is offered.
    offer: Option<SnapshotMeta>,
    /// Whether it votes for nobody yet, as it said last.
    withholds: Option<bool>,
}

impl Follower {
    /// Nothing is known of it.
    fn new(last: Index, inflight_max: usize, now: u64) -> Self {
        Self {
            progress: Progress::new(last, inflight_max),
            heard: now,
            matched_before: Index::START,
            commit_sent: Index::START,
            round: 0,
            offer: None,
            withholds: None,
        }
    }
}

struct Transfer {
    to: NodeId,
    deadline: u64,
    is_told: bool,
}

impl Raft {
    /// A replica as it was recovered; `applied` is what the state machine contains. Panics on options that
    /// [`Options::validate`] refuses, on a log that is not [`Recovered::is_legible`] and on a state machine beyond it: the caller has checked all.
    pub fn new(options: Options, recovered: Recovered, applied: Index) -> Self {
        if let Err(wrong) = options.validate() {
            panic!("consensus options: {wrong}: {options:?}");
        }
        let log = Log::new(recovered.start, options.configuration.clone(), recovered.entries);
        let last = log.last().index;
        assert!(
            recovered.start.index <= applied && applied <= last,
            "state machine at {applied}, log from {} to {last}",
            recovered.start
        );
        let HardState { term, vote, commit } = recovered.hard_state;
        let mut random = Random::new(options.seed);
        let mut raft = Self {
            forwarded_name: ReadId(random.draw()),
            random,
            term: term.max(log.last().term),
            vote: if term >= log.last().term { vote } else { None },
            commit: commit.clamp(applied, last),
            applied,
            log,
            state: State::Follower { leader: None },
            now: 0,
            elapsed: 0,
            timeout: 0,
            // As if a leader had just been heard: a vote given before the crash is remembered, but a lease
            // honoured before it is not, so it is honoured anew for its whole length.
            since_leader: 0,
            hurried: 0,
            is_hibernating: false,
            idle: 0,
            down: BTreeSet::new(),
            persisted: last,
            written: last,
            write: WriteId(0),
            writing: VecDeque::new(),
            hard_state_changed: false,
            hard_state_write: WriteId(0),
            restart: None,
            compact: None,
            send_now: Vec::new(),
            send_after: Vec::new(),
            send_after_term: Vec::new(),
            handed: applied,
            read_outcomes: Vec::new(),
            forwarded: BTreeMap::new(),
            snapshots_wanted: Vec::new(),
            fetch: None,
            fetch_is_new: false,
            is_stateless: false,
            is_withholding: false,
            superseded: None,
            reported: None,
            options,
        };
        raft.draw_timeout();
        raft
    }

    /// The other members.
    fn others(&self) -> BTreeSet<NodeId> {
        let mut members = self.log.configuration().1.members();
        members.remove(&self.options.id);
        members
    }

    fn is_alone(&self) -> bool {
        self.log.configuration().1.is_alone(self.options.id)
    }

    fn draw_timeout(&mut self) {
        self.elapsed = 0;
        self.timeout = if self.is_alone() {
            1
        } else {
            self.random.between(self.options.election_ticks_min, self.options.election_ticks_max)
        };
    }

    fn role(&self) -> Role {
        match &self.state {
            State::Leader(leader) => Role::Leader { fence: leader.fence },
            State::Follower { leader } => Role::Follower { leader: *leader },
            State::Candidate { .. } => Role::Candidate,
        }
    }

    fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term >= self.term, "term {term} after {}", self.term);
        reached!(
            "leader-deposed-while-handing-over",
            matches!(&self.state, State::Leader(leader) if leader.transfer.is_some())
        );
        reached!(
            "leader-deposed-while-joint",
            matches!(self.state, State::Leader(_)) && self.log.configuration().1.is_joint()
        );
        reached!(
            "leader-deposed-with-tail",
            matches!(self.state, State::Leader(_)) && self.log.last().index > self.commit
        );
        if term > self.term {
            self.term = term;
            self.vote = None;
            self.hard_state_changed = true;
        }
        self.fail_reads();
        if matches!(self.state, State::Leader(_)) {
            self.snapshots_wanted.clear();
        }
        self.state = State::Follower { leader };
        self.is_hibernating = false;
        self.idle = 0;
        self.draw_timeout();
    }

    fn push(&mut self, kind: EntryKind, data: Bytes) -> Position {
        let entry = Entry { term: self.term, index: self.log.last().index.next(), kind, data };
        let position = entry.position();
        if let State::Leader(leader) = &mut self.state {
            leader.uncommitted_bytes += entry.size();
        }
        self.log.push(entry);
        position
    }

    /// The log was cut before `first`: nothing from there on is written or durable any more.
    fn replaced_from(&mut self, first: Index) {
        let end = first.previous();
        self.written = self.written.min(end);
        self.persisted = self.persisted.min(end);
        for (_, ends_at) in &mut self.writing {
            *ends_at = (*ends_at).min(end);
        }
    }

    fn take_write(&mut self) -> Option<(WriteId, LogWrite)> {
        let last = self.log.last().index;
        if self.written >= last
            && !self.hard_state_changed
            && self.restart.is_none()
            && self.compact.is_none()
        {
            return None;
        }
        let entries = if self.written < last {
            self.log.slice(self.written.next(), last, usize::MAX)
        } else {
            Vec::new()
        };
        let write = LogWrite {
            restart: self.restart.take(),
            // The commit index rides along; it never causes a write of its own.
            hard_state: Some(HardState { term: self.term, vote: self.vote, commit: self.commit }),
            entries,
            compact: self.compact.take(),
        };
        self.written = last;
        self.write = WriteId(self.write.0 + 1);
        if std::mem::take(&mut self.hard_state_changed) {
            self.hard_state_write = self.write;
        }
        self.writing.push_back((self.write, last));
        Some((self.write, write))
    }
}

impl Consensus for Raft {
    fn tick(&mut self) {
        if self.is_hibernating {
            return;
        }
        self.now += 1;
        self.tick_reads();
        if matches!(self.state, State::Leader(_)) {
            self.tick_leader();
        } else {
            self.since_leader = self.since_leader.saturating_add(1);
            self.elapsed += 1;
            if self.elapsed >= self.timeout {
                self.begin_election();
            }
        }
    }

    fn slept(&mut self) {
        if let State::Leader(leader) = &mut self.state {
            leader.rounds.forget_begun();
            // It may have been busy only. Others count on, and their patience is a few heartbeats.
            leader.is_late = true;
        }
        // Somebody may have taken over meanwhile.
        self.end_hibernation();
    }

    fn step(&mut self, from: NodeId, message: Message) {
        let configuration = self.log.configuration().1;
        if from == self.options.id || !(configuration.contains(from) || message.is_of_candidate_or_leader()) {
            return;
        }
        if self.superseded.is_some() || !self.is_of_our_lineage(&message) {
            return;
        }
        let configuration = self.log.configuration().1;
        // One that was removed and does not know it asks in vain, again and again.
        let is_idle_question =
            matches!(message, Message::VoteRequest { pre: true, .. }) && !configuration.is_voter(from);
        if !matches!(message, Message::Hibernate { .. }) && !is_idle_question {
            self.woken_by(from);
        }
        if !self.admit_term(from, &message) {
            return;
        }
        match message {
            Message::VoteRequest { term, last, pre, transfer } => {
                self.on_vote_request(from, term, last, pre, transfer)
            }
            Message::VoteResponse { term, granted, pre } => self.on_vote_response(from, term, granted, pre),
            Message::Append { term, previous, entries, commit } => {
                self.on_append(from, term, previous, entries, commit)
            }
            Message::Appended { matched, .. } => self.on_appended(from, matched),
            Message::AppendRejected { refused, hint, .. } => self.on_append_rejected(from, refused, hint),
            Message::Heartbeat { commit, round, .. } => self.on_heartbeat(from, commit, round),
            Message::HeartbeatResponse { round, last, withholds, .. } => {
                self.on_heartbeat_response(from, round, last, withholds);
            }
            Message::TimeoutNow { .. } => self.on_timeout_now(),
            Message::ReadRequest { read, .. } => self.on_read_request(from, read),
            Message::ReadResponse { read, index, .. } => self.on_read_response(read, index),
            Message::SnapshotOffer { meta, .. } => self.on_snapshot_offer(from, meta),
            Message::Hibernate { last, .. } => self.on_hibernate(last),
            Message::Resigned { .. } => self.on_resigned(from),
        }
    }

    fn can_propose(&self) -> Result<(), ProposeError> {
        let State::Leader(leader) = &self.state else {
            return Err(ProposeError::NotLeader(self.leader()));
        };
        if leader.transfer.is_some() {
            Err(ProposeError::Transferring)
        } else if leader.uncommitted_bytes >= self.options.uncommitted_bytes_max {
            Err(ProposeError::Full)
        } else {
            Ok(())
        }
    }

    fn propose(&mut self, kind: EntryKind, data: Bytes) -> Result<Position, ProposeError> {
        assert_ne!(kind, EntryKind::Config, "members are changed by `change`");
        self.can_propose()?;
        self.end_hibernation();
        Ok(self.push(kind, data))
    }

    fn change(&mut self, voters: Vec<NodeId>, learners: Vec<NodeId>) -> Result<Position, ChangeError> {
        self.begin_change(Configuration::new(voters, learners))
    }

    fn configuration(&self) -> &Configuration {
        self.log.configuration().1
    }

    fn configuration_at(&self, index: Index) -> &Configuration {
        self.log.configuration_at(index)
    }

    fn may_offer(&self, to: NodeId, position: Position) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let Some(follower) = leader.followers.get(&to) else { return false };
        let (changed, _) = self.log.configuration();
        position.term == self.term
            && self.log.term_at(position.index) == Some(position.term)
            && position.index >= changed
            && position.index >= follower.progress.matched()
    }

    fn read(&mut self, id: ReadId) {
        self.begin_read(id);
    }

    fn read_for(&mut self, asker: NodeId, term: Term, id: ReadId) {
        self.begin_read_for(asker, term, id);
    }

    fn persisted(&mut self, write: WriteId) {
        assert!(write <= self.write, "write {write:?} was never handed out, the newest is {:?}", self.write);
        while let Some((id, end)) = self.writing.front().copied()
            && id <= write
        {
            self.writing.pop_front();
            self.persisted = self.persisted.max(end);
        }
        if self.writing.is_empty() && !self.hard_state_changed {
            // So the vote for oneself is durable, and may be all that was needed.
            self.count_votes();
        }
        self.advance_commit();
    }

    fn applied(&mut self, index: Index) {
        assert!(index <= self.handed, "applied {index}, handed out up to {}", self.handed);
        self.applied = self.applied.max(index);
    }

    fn compact(&mut self, index: Index) {
        if let Some(start) = self.log.compact(index.min(self.applied)) {
            self.compact = Some(start);
        }
    }

    fn peer_lost(&mut self, node: NodeId, delay: u64) {
        self.on_peer_lost(node, delay);
    }

    fn node_down(&mut self, node: NodeId, delay: u64) {
        self.on_node_down(node, delay);
    }

    fn node_up(&mut self, node: NodeId) {
        self.on_node_up(node);
    }

    fn is_hibernating(&self) -> bool {
        self.is_hibernating
    }

    fn wake(&mut self) {
        self.end_hibernation();
    }

    fn stand(&mut self) {
        self.on_timeout_now();
    }

    fn transfer(&mut self, to: Option<NodeId>) {
        self.begin_transfer(to);
    }

    fn offer_snapshot(&mut self, to: NodeId, meta: SnapshotMeta) {
        self.send_offer(to, meta);
    }

    fn snapshot_failed(&mut self, to: NodeId) {
        if let State::Leader(leader) = &mut self.state
            && let Some(follower) = leader.followers.get_mut(&to)
        {
            follower.offer = None;
            follower.progress.probe();
        }
    }

    fn state_lost(&mut self) {
        self.end_hibernation();
        self.is_stateless = true;
    }

    fn withhold_votes(&mut self) {
        self.is_withholding = true;
    }

    fn give_votes(&mut self) {
        self.is_withholding = self.superseded.is_some();
    }

    fn step_down(&mut self) {
        if !matches!(self.state, State::Follower { .. }) {
            self.become_follower(self.term, None);
        }
    }

    fn lags(&self) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        leader.behind.is_some_and(|(_, since)| self.now - since >= self.options.election_ticks_min)
    }

    fn begin_lineage(&mut self, lineage: u64) {
        self.start_lineage(lineage);
    }

    fn superseded(&self) -> Option<u64> {
        self.superseded
    }

    fn abstain(&mut self, term: Term) {
        self.abstain_in(term);
    }

    fn peer_forgot(&mut self, node: NodeId) {
        self.on_peer_forgot(node);
    }

    fn last(&self) -> Position {
        self.log.last()
    }

    fn restored(&mut self, meta: SnapshotMeta) {
        self.on_restored(meta);
    }

    fn fetch_failed(&mut self) {
        self.fetch = None;
        self.fetch_is_new = false;
    }

    fn take(&mut self) -> Effects {
        self.start_read_round();
        self.send_appends();
        let persist = self.take_write();
        let end = self.commit.min(self.persisted);
        let apply = if self.handed < end && self.fetch.is_none() && !self.is_stateless {
            self.log.slice(self.handed.next(), end, APPLY_BYTES_MAX)
        } else {
            Vec::new()
        };
        if let Some(entry) = apply.last() {
            self.handed = entry.index;
        }
        let role = (self.term, self.role());
        let role_changed = (self.reported != Some(role)).then(|| {
            self.reported = Some(role);
            role.1
        });
        let after = |write: WriteId| move |(to, message)| (write, to, message);
        let of_term = self.send_after_term.drain(..).map(after(self.hard_state_write));
        Effects {
            send_now: std::mem::take(&mut self.send_now),
            persist,
            send_after: of_term.chain(self.send_after.drain(..).map(after(self.write))).collect(),
            apply,
            reads: std::mem::take(&mut self.read_outcomes),
            snapshots_wanted: std::mem::take(&mut self.snapshots_wanted),
            fetch: if std::mem::take(&mut self.fetch_is_new) { self.fetch.clone() } else { None },
            role_changed,
        }
    }

    fn term(&self) -> Term {
        self.term
    }

    fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Leader(_) => Some(self.options.id),
            State::Follower { leader } => *leader,
            State::Candidate { .. } => None,
        }
    }

    fn commit(&self) -> Index {
        self.commit
    }

    fn matched(&self) -> Vec<(NodeId, Index)> {
        let State::Leader(leader) = &self.state else { return Vec::new() };
        let own = (self.options.id, self.persisted);
        let rest = leader.followers.iter().map(|(id, follower)| (*id, follower.progress.matched()));
        std::iter::once(own).chain(rest).collect()
    }

    fn held_by_answering(&self, counts_offered: bool) -> Option<Index> {
        let State::Leader(leader) = &self.state else { return None };
        let is_there = |follower: &&Follower| self.now < follower.heard + self.options.election_ticks_min;
        let held = |follower: &Follower| match (follower.progress.mode(), &follower.offer) {
            (Mode::Snapshot, Some(offer)) if counts_offered => Some(offer.position.index),
            (Mode::Snapshot, _) => None,
            _ => Some(follower.progress.matched()),
        };
        leader.followers.values().filter(is_there).filter_map(held).min()
    }

    fn status(&self) -> Status {
        Status {
            term: self.term,
            role: self.role(),
            leader: self.leader(),
            last: self.log.last(),
            start: self.log.start(),
            commit: self.commit,
            applied: self.applied,
            log_bytes: self.log.bytes(),
            is_hibernating: self.is_hibernating,
        }
    }
}
