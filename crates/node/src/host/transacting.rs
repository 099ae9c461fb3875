//! Transactions over partitions, carried out: two-phase commit between the leaders of partitions.
//!
//! ```text
//! coordinator (home)                          participant
//! locks its own part, in memory
//!          ── Prepare ─────────────────────▶  locks; log: prepared (if it may change)
//!          ◀────────────────────── Vote ────  when that is applied
//! evaluates over all; draws c
//! log: decide(c, effects)     ← commit point
//! reply, when that is applied and the sequencer's office confirmed
//!          ── Finish(effects) ─────────────▶  log: commit(effects); locks go
//!          ◀────────────────── Finished ────  when that is applied
//! log: forget, some time later
//! ```
//!
//! What a crash leaves behind resolves itself: a participant that holds locks for long asks the home partition's leader
//! ([`TxnMessage::Status`]). That leader knows of every decision of its partition, because it has applied what earlier leaders
//! left; an attempt of its own or an earlier term that is neither decided nor being decided never will be, so it is
//! aborted without being written down. A leader of an older term than the attempt's keeps silent. A decision is repeated to
//! those it is owed to until they have it.
//!
//! What a coordinator has given up must not go on where the word of that is lost: a prepare waits for its locks no longer than the coordinator
//! waits for the vote, and a vote for what is over is answered with how it ended. Else such attempts would come to hold the locks one after the
//! other, each until its holder asks.
//!
//! A coordinator that loses its office has either put the decision into its log, which then decides; or not, and nothing has happened.

use super::Host;
use super::precedence::{Precedence, Waiter};
use super::requests::propose;
use crate::group::{Blocked, Origin, Prepare, State, Work};
use crate::peer::PeerMessage;
use crate::transaction::{Attempt, Phase, Share, TxnMessage};
use quorate_consensus::Consensus;
use quorate_mvcc::engine::Engine;
use quorate_partition::{Partition, Places, Touched};
use quorate_types::{
    Answer, Fault, Footprint, GroupId, KeyspaceId, LeaseId, PartitionId, PreState, Rejection, Request,
    Revision, Term, TxnId, reached,
};
use std::collections::BTreeMap;

/// An attempt that has got no vote for so long, and still needs some, is given up, and another begun; in ticks.
pub(super) const ATTEMPT_TICKS: u64 = 25;
/// So long locks are held before their holder asks how it ended, and between two such questions.
const STATUS_TICKS: u64 = 25;
/// So long a transaction that has ended is remembered, lest a late message begin it again.
const ENDED_TICKS: u64 = 250;
/// Between two repetitions of a decision.
const TELL_TICKS: u64 = 10;
/// How often all partitions are looked through for locks that are held for long.
pub(super) const LOOK_TICKS: u64 = 5;

impl<E: Engine> Host<E> {
    /// The partitions, and what each has to do with the request; `None` if the one that leads here does it alone.
    pub(super) fn shares(&self, id: GroupId, request: &Request) -> Option<BTreeMap<PartitionId, Footprint>> {
        if !self.is_sequenced(id.keyspace) {
            return None;
        }
        let places = self.router.places(id.keyspace)?;
        let partition = self.groups.get(&id)?.partition()?;
        let shares = match request {
            Request::LeaseRevoke { lease } => {
                let of_lease = || Footprint { leases_exclusive: vec![*lease], ..Footprint::default() };
                let mut shares = BTreeMap::from([(id.partition, of_lease())]);
                shares.extend(self.holders(id, *lease).into_iter().map(|holder| (holder, of_lease())));
                shares
            }
            Request::LeaseTimeToLive { lease, with_keys: true } => {
                // Nobody attaches or detaches a key between the looks at two partitions.
                let of_lease =
                    || Footprint { leases_exclusive: vec![*lease], reads_only: true, ..Footprint::default() };
                let mut shares = BTreeMap::from([(id.partition, of_lease())]);
                shares.extend(self.holders(id, *lease).into_iter().map(|holder| (holder, of_lease())));
                shares
            }
            Request::Leases => {
                let all = places.all().into_iter();
                all.map(|partition| (partition, Footprint { all_leases: true, ..Footprint::default() }))
                    .collect()
            }
            Request::LeaseGrant { .. } | Request::LeaseKeepAlive { .. } | Request::LeaseTimeToLive { .. } => {
                return None;
            }
            Request::Put(put) if !matches!(put.lease, quorate_types::request::PutLease::Attach(_)) => {
                return None;
            }
            request => {
                let touched = Touched::by(request);
                let is_alone = touched.partition(&places).is_none_or(|only| only == id.partition)
                    && touched.partition(&places).is_some();
                let are_leases_known = touched.attached.iter().all(|(_, lease)| {
                    partition.knows_lease(*lease) || places.of_lease(*lease) == id.partition
                });
                if is_alone && are_leases_known {
                    return None;
                }
                touched.split(&places, |holder, lease| holder == id.partition && partition.knows_lease(lease))
            }
        };
        // The keys of a lease go with a lock on it, also while only its home has any.
        let is_alone = shares.len() == 1 && !matches!(request, Request::LeaseTimeToLive { .. });
        (!is_alone).then_some(shares)
    }

    /// Begins an attempt at a request over several partitions; this node leads its home.
    pub(super) fn begin_attempt(
        &mut self,
        home: GroupId,
        work: Work,
        shares: BTreeMap<PartitionId, Footprint>,
        in_order: bool,
    ) -> Result<(), Fault> {
        let Some(group) = self.groups.get(&home) else { return Ok(()) };
        if self.attempts.len() >= self.options.inflight_max {
            self.turn_away(home, &work, Rejection::Busy);
            return Ok(());
        }
        self.next_attempt += 1;
        let id = TxnId { home: home.partition, term: group.term, number: self.next_attempt };
        let shares = shares
            .into_iter()
            .map(|(partition, footprint)| (partition, Share { footprint, is_asked: false, vote: None }))
            .collect();
        let until = self.now.after(ATTEMPT_TICKS);
        let partitions = self.router.partitions(home.keyspace).len();
        let attempt = Attempt { home, work, shares, phase: Phase::Collecting, in_order, partitions, until };
        self.attempts.insert((home.keyspace, id), attempt);
        self.advance_attempt(home.keyspace, id)
    }

    /// Asks for the votes that can be asked for; with all of them, decides.
    fn advance_attempt(&mut self, keyspace: KeyspaceId, id: TxnId) -> Result<(), Fault> {
        let Some(attempt) = self.attempts.get_mut(&(keyspace, id)) else { return Ok(()) };
        if attempt.phase != Phase::Collecting {
            return Ok(());
        }
        if attempt.is_complete() {
            return self.decide(keyspace, id);
        }
        let mut to_ask = attempt.to_ask();
        // Whoever does not go in order may wait for its own locks only while it holds no others.
        if !attempt.in_order && to_ask.contains(&id.home) {
            to_ask = vec![id.home];
        }
        let (in_order, waited) = (attempt.in_order, self.now.since(attempt.work.received));
        for partition in to_ask {
            let Some(attempt) = self.attempts.get_mut(&(keyspace, id)) else { return Ok(()) };
            let Some(share) = attempt.shares.get_mut(&partition) else { continue };
            share.is_asked = true;
            let footprint = share.footprint.clone();
            if partition == id.home {
                return self.lock_home(keyspace, id, footprint);
            }
            let at = self.newest_at(keyspace, id.home);
            let message = TxnMessage::Prepare { id, footprint, wait: in_order, waited, at };
            self.tell(keyspace, partition, message);
        }
        Ok(())
    }

    /// The coordinator's own locks need no entry: they end with its office, and so does the attempt.
    pub(super) fn lock_home(
        &mut self,
        keyspace: KeyspaceId,
        id: TxnId,
        footprint: Footprint,
    ) -> Result<(), Fault> {
        let home = GroupId { keyspace, partition: id.home };
        if self.is_closed_to_transactions(home) {
            return self.give_up(keyspace, id, false);
        }
        let places = self.router.places(keyspace);
        let Some(group) = self.groups.get_mut(&home) else { return Ok(()) };
        let (State::Ready(partition), true) = (&mut group.state, group.is_serving) else {
            return self.give_up(keyspace, id, false);
        };
        // What waits is what was asked for: the lease may have other keys by then.
        let asked = footprint;
        let footprint = partition.with_keys_of_leases(asked.clone())?;
        let attempt = self.attempts.get(&(keyspace, id));
        let since = attempt.map_or(self.now, |attempt| attempt.work.received);
        if group.drawing_asked > 0 || group.is_share_to_wait(id, since, &footprint) {
            reached!("home-waits-for-locks");
            group.precedence.wait(Waiter::Attempt(id), since, &footprint, self.now);
            group.blocked.push_back(Blocked::Home(id, asked, since));
            return Ok(());
        }
        group.precedence.withdraw(Waiter::Attempt(id));
        let State::Ready(partition) = &mut group.state else { return Ok(()) };
        partition.lock(id, footprint.clone());
        // A partition may have come to hold keys of the lease while this waited for its lock.
        let is_outdated = match attempt.map(|attempt| (&attempt.work.request, &attempt.shares)) {
            Some((Request::LeaseRevoke { lease } | Request::LeaseTimeToLive { lease, .. }, shares)) => {
                let mut holders = partition.lease_holders(*lease).into_iter();
                let is_elsewhere =
                    holders.any(|holder| holder != home.partition && !shares.contains_key(&holder));
                reached!("lease-came-to-be-held-elsewhere", is_elsewhere);
                is_elsewhere
            }
            // A copy that was counted on may have gone with its lease, which may have been granted anew.
            Some((_, shares)) => {
                let mut leases = asked.leases_exclusive.iter();
                let is_gone = |lease: &LeaseId| {
                    let home = places.as_ref().and_then(|places| shares.get(&places.of_lease(*lease)));
                    let is_asked = home.is_some_and(|share| share.footprint.leases_exclusive.contains(lease));
                    !is_asked && !partition.knows_lease(*lease)
                };
                let is_any_gone = leases.any(is_gone);
                reached!("copy-of-lease-gone", is_any_gone);
                is_any_gone
            }
            None => false,
        };
        if is_outdated {
            return self.give_up(keyspace, id, true);
        }
        // A lease that ran out may have been renewed before its lock was to be had.
        let is_renewed = attempt.is_some_and(|attempt| match attempt.work.request {
            Request::LeaseRevoke { lease } => {
                attempt.work.origin == Origin::Own && !partition.is_ending(lease)
            }
            _ => false,
        });
        if is_renewed {
            reached!("lease-renewed-while-its-end-locks");
            self.end_attempt(keyspace, id);
            return Ok(());
        }
        let term = group.term;
        if let Some(attempt) = self.attempts.get_mut(&(keyspace, id))
            && let Some(share) = attempt.shares.get_mut(&id.home)
        {
            share.footprint = footprint;
            // What it holds is read when all is known; it is locked from now on.
            share.vote = Some((term, PreState::default()));
        }
        self.advance_attempt(keyspace, id)
    }

    /// The attempt comes to nothing: its locks go everywhere. Whoever asked is answered by the caller.
    pub(super) fn end_attempt(&mut self, keyspace: KeyspaceId, id: TxnId) -> Option<Attempt> {
        let attempt = self.attempts.remove(&(keyspace, id))?;
        self.undecided.remove(&(keyspace, id));
        for (partition, share) in &attempt.shares {
            if *partition != id.home && share.is_asked {
                self.tell(keyspace, *partition, TxnMessage::Finish { id, effects: None });
            }
        }
        if let Some(group) = self.groups.get_mut(&attempt.home) {
            group.precedence.withdraw(Waiter::Attempt(id));
            if let Some(partition) = group.partition_mut() {
                partition.unlock(id);
            }
        }
        self.rouse_blocked.insert(attempt.home);
        Some(attempt)
    }

    /// The attempt comes to nothing, and another is begun if there is time and this node still leads.
    pub(super) fn give_up(&mut self, keyspace: KeyspaceId, id: TxnId, in_order: bool) -> Result<(), Fault> {
        let Some(attempt) = self.end_attempt(keyspace, id) else { return Ok(()) };
        let work = attempt.work;
        // Also when it waited for locks in vain: nobody waits for it, and its place among those that wait comes from when the lease was over.
        if work.origin == Origin::Own && (attempt.in_order || !in_order) {
            self.lease_ends_again(attempt.home, &work.request);
            return Ok(());
        }
        if work.origin != Origin::Own && self.now >= work.deadline {
            reached!("transaction-contended");
            self.turn_away(attempt.home, &work, Rejection::Contended);
            return Ok(());
        }
        // The first attempt that met locks is followed at once by one that waits for them. After that there is something else in the
        // way, which takes its time.
        if attempt.in_order || !in_order {
            self.again.push((attempt.home, work, in_order));
            return Ok(());
        }
        self.try_again(attempt.home, work, in_order)
    }

    fn try_again(&mut self, home: GroupId, work: Work, in_order: bool) -> Result<(), Fault> {
        let is_serving = self.groups.get(&home).is_some_and(|group| group.is_serving && !group.is_splitting);
        if let (Origin::Own, Request::LeaseRevoke { lease }) = (work.origin, &work.request) {
            let partition = self.groups.get(&home).and_then(|group| group.partition());
            if partition.is_none_or(|partition| !partition.is_ending(*lease)) {
                // It was renewed, or has ended.
                return Ok(());
            }
        }
        let is_home = self.router.route(home.keyspace, &work.request) == Ok(home);
        match self.shares(home, &work.request) {
            Some(shares) if is_serving && is_home => self.begin_attempt(home, work, shares, in_order),
            _ => {
                self.lease_ends_again(home, &work.request);
                if work.origin == Origin::Own { Ok(()) } else { self.dispatch_again(home, work) }
            }
        }
    }

    /// The revocation of a lease did not come about.
    pub(super) fn lease_ends_again(&mut self, id: GroupId, request: &Request) {
        let now = self.now;
        if let Request::LeaseRevoke { lease } = request
            && let Some(partition) = self.groups.get_mut(&id).and_then(|group| group.partition_mut())
        {
            partition.end_again(*lease, now);
            // A group that sleeps is ticked only for what it is known to have due.
            self.dirty.insert(id);
        }
    }

    /// The newest revision that the leader of a partition here knows of.
    pub(super) fn newest_at(&self, keyspace: KeyspaceId, partition: PartitionId) -> Revision {
        let group = self.groups.get(&GroupId { keyspace, partition });
        group.and_then(|group| group.partition()).map(Partition::newest).unwrap_or_default()
    }

    /// Tells the leader of a partition something, if one is known.
    pub(super) fn tell(&mut self, keyspace: KeyspaceId, to: PartitionId, message: TxnMessage) {
        let id = GroupId { keyspace, partition: to };
        // Whoever is asked wrongly tells who leads.
        let leader =
            self.leader_of(id).or_else(|| if self.is_distant(id) { self.next_holder(id) } else { None });
        match leader {
            Some(leader) if leader == self.options.id => self.told.push_back((id, message)),
            Some(leader) => self.out.send.push((leader, PeerMessage::Txn { to: id, message })),
            None => {}
        }
    }

    /// What leaders on this node told each other.
    pub(super) fn carry_told(&mut self) -> Result<(), Fault> {
        while let Some((id, message)) = self.told.pop_front() {
            self.on_txn(id, message)?;
        }
        Ok(())
    }

    /// A word about a transaction, for the leader of `id`.
    pub(super) fn on_txn(&mut self, id: GroupId, message: TxnMessage) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if !group.is_serving || !matches!(group.state, State::Ready(_)) {
            return Ok(());
        }
        match message {
            TxnMessage::Prepare { id: txn, footprint, wait: waits, waited, at } => {
                let (since, until) = (self.now.before(waited), self.now.after(ATTEMPT_TICKS));
                self.on_prepare(id, Prepare { txn, footprint, since, until, waits, at })
            }
            TxnMessage::Vote { id: txn, from, outcome, epoch } => self.on_vote(id, txn, from, outcome, epoch),
            TxnMessage::Finish { id: txn, effects } => self.on_finish(id, txn, effects),
            TxnMessage::Finished { id: txn, from } => {
                if let Some(owed) = self.owed.get_mut(&(id.keyspace, txn)) {
                    owed.remove(&from);
                    if owed.is_empty() {
                        self.owed.remove(&(id.keyspace, txn));
                        self.forgettable.entry(id).or_default().push(txn);
                    }
                }
                Ok(())
            }
            TxnMessage::Status { id: txn, from } => {
                self.on_status(id, txn, from);
                Ok(())
            }
            TxnMessage::Yield { id: txn, waited } => self.on_yield(id, txn, waited),
        }
    }

    fn on_vote(
        &mut self,
        home: GroupId,
        id: TxnId,
        from: PartitionId,
        outcome: Option<(Term, PreState)>,
        epoch: Term,
    ) -> Result<(), Fault> {
        let now = self.now;
        // One of another sequencer's time: it has seen what that gave out, or may not be who leads any more.
        let is_of_now = self.groups.get(&home).is_some_and(|group| group.registered == Some(epoch));
        let holds_locks = outcome.is_some();
        reached!("vote-of-other-epoch", holds_locks && !is_of_now);
        let outcome = outcome.filter(|_| is_of_now);
        let Some(attempt) = self.attempts.get_mut(&(home.keyspace, id)) else {
            reached!("vote-after-attempt", holds_locks);
            // The attempt was given up before its locks were to be had there, and the word of that was lost: nobody needs them.
            if holds_locks {
                self.on_status(home, id, from);
            }
            return Ok(());
        };
        if attempt.phase != Phase::Collecting {
            return Ok(());
        }
        match (outcome, attempt.shares.get_mut(&from)) {
            (Some(vote), Some(share)) => {
                // The locks of leases' keys are the participant's business; what it sent is what counts.
                share.vote = Some(vote);
                // In order they come one by one, which takes as long as there are partitions.
                attempt.until = now.after(ATTEMPT_TICKS);
                self.advance_attempt(home.keyspace, id)
            }
            (None, Some(_)) => self.give_up(home.keyspace, id, true),
            (_, None) => Ok(()),
        }
    }

    /// A participant asks how an attempt ended.
    fn on_status(&mut self, home: GroupId, id: TxnId, from: PartitionId) {
        let Some(group) = self.groups.get(&home) else { return };
        reached!("asked-how-it-ended");
        // A newer leader's attempt: it knows.
        if id.term > group.term || self.attempts.contains_key(&(home.keyspace, id)) {
            return;
        }
        let Some(partition) = group.partition() else { return };
        let part = partition.decision(id).and_then(|parts| parts.iter().find(|part| part.partition == from));
        reached!("ended-as-decided", part.is_some());
        let effects = part.map(|part| part.effects.clone());
        self.tell(home.keyspace, from, TxnMessage::Finish { id, effects });
    }

    /// Locks that were given back: who waited for them tries again, in the order they came.
    pub(super) fn rouse(&mut self) -> Result<(), Fault> {
        while let Some(id) = self.rouse_blocked.pop_first() {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let blocked = std::mem::take(&mut group.blocked);
            let questions = std::mem::take(&mut group.questions);
            let part_asks = std::mem::take(&mut group.part_asks);
            for blocked in blocked {
                match blocked {
                    Blocked::Work(work) => self.dispatch_again(id, work)?,
                    Blocked::Home(txn, footprint, _) => {
                        if self.attempts.contains_key(&(id.keyspace, txn)) {
                            self.lock_home(id.keyspace, txn, footprint)?;
                        }
                    }
                    Blocked::Prepare(asked) => {
                        // It waits no longer for having been looked at: its coordinator does not wait longer either.
                        if self.now < asked.until {
                            self.on_prepare(id, asked)?;
                        }
                    }
                }
            }
            for question in questions.into_values() {
                self.on_question(question)?;
            }
            for (part, deadline) in part_asks {
                self.tell_part(part, deadline)?;
            }
        }
        while let Some(id) = self.rouse_waiting.pop_first() {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            for work in std::mem::take(&mut group.waiting) {
                self.dispatch_again(id, work)?;
            }
            for (keyspace, txn) in std::mem::take(&mut self.undecided) {
                self.advance_attempt(keyspace, txn)?;
            }
        }
        Ok(())
    }

    /// The group is not led here any more: attempts that were not decided come to nothing.
    pub(super) fn end_coordination(&mut self, home: GroupId) -> Result<(), Fault> {
        let of_home =
            |(keyspace, id): &&(KeyspaceId, TxnId)| *keyspace == home.keyspace && id.home == home.partition;
        let ids: Vec<(KeyspaceId, TxnId)> = self.attempts.keys().filter(of_home).copied().collect();
        for (keyspace, id) in ids {
            let Some(attempt) = self.attempts.get(&(keyspace, id)) else { continue };
            match attempt.phase {
                Phase::Collecting | Phase::Drawing => {
                    reached!("coordinator-lost-while-collecting");
                    self.give_up(keyspace, id, false)?
                }
                // The log decides; whoever waits for the entry is told.
                Phase::Deciding(_) => {
                    reached!("coordinator-lost-while-deciding");
                    self.attempts.remove(&(keyspace, id));
                }
            }
        }
        self.owed.retain(|(keyspace, id), _| *keyspace != home.keyspace || id.home != home.partition);
        self.forgettable.remove(&home);
        if let Some(group) = self.groups.get_mut(&home) {
            group.held_since.clear();
            group.ended.clear();
            group.precedence = Precedence::default();
            let blocked = std::mem::take(&mut group.blocked);
            group.questions.clear();
            group.part_asks.clear();
            for blocked in blocked {
                if let Blocked::Work(work) = blocked {
                    group.waiting.push_back(work);
                }
            }
        }
        Ok(())
    }

    /// Attempts whose time is over, locks that are held for long, decisions that are owed, those that can be forgotten.
    pub(super) fn tick_transactions(&mut self) -> Result<(), Fault> {
        let now = self.now;
        for (home, work, in_order) in std::mem::take(&mut self.again) {
            self.try_again(home, work, in_order)?;
        }
        let is_late = |attempt: &Attempt| {
            // Nobody waits for what this node began by itself.
            let is_over = attempt.work.origin != Origin::Own && attempt.work.deadline <= now;
            let is_open = matches!(attempt.phase, Phase::Collecting | Phase::Drawing);
            is_open && (attempt.until <= now || is_over)
        };
        let late = self.attempts.iter().filter(|(_, attempt)| is_late(attempt));
        for (keyspace, id) in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            reached!("attempt-out-of-time");
            self.doubt_leaders(keyspace, id);
            self.give_up(keyspace, id, true)?;
        }
        if now.0.is_multiple_of(TELL_TICKS) {
            for (keyspace, id) in self.owed.keys().copied().collect::<Vec<_>>() {
                self.tell_decision(GroupId { keyspace, partition: id.home }, id);
            }
            for (home, ids) in std::mem::take(&mut self.forgettable) {
                self.forget(home, ids);
            }
        }
        if !now.0.is_multiple_of(LOOK_TICKS) {
            return Ok(());
        }
        self.tick_precedence()?;
        let mut asked = Vec::new();
        for (id, group) in &mut self.groups {
            group.ended.retain(|_, at| now.since(*at) < ENDED_TICKS);
            for (txn, since) in &mut group.held_since {
                if now.since(*since) >= STATUS_TICKS {
                    *since = now;
                    asked.push((*id, *txn));
                }
            }
        }
        for (id, txn) in asked {
            self.tell(id.keyspace, txn.home, TxnMessage::Status { id: txn, from: id.partition });
        }
        Ok(())
    }

    fn forget(&mut self, home: GroupId, ids: Vec<TxnId>) {
        let Some(group) = self.groups.get_mut(&home) else { return };
        if !group.is_serving {
            return;
        }
        if group.raft.can_propose().is_err() {
            self.forgettable.entry(home).or_default().extend(ids);
            return;
        }
        let index = group.raft.last().index.next();
        let State::Ready(partition) = &mut group.state else { return };
        let (kind, data) = partition.forget(ids, index);
        group.proposed = propose(&mut group.raft, kind, data, index);
        self.dirty.insert(home);
    }

    /// A new leader holds the locks of what is prepared, and asks how it ended.
    pub(super) fn inherit(&mut self, id: GroupId) {
        let now = self.now;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let State::Ready(partition) = &group.state else { return };
        let prepared: Vec<TxnId> = partition.prepared().collect();
        for txn in &prepared {
            reached!("participant-inherited-prepared");
            group.held_since.insert(*txn, now);
        }
        for txn in prepared {
            self.tell(id.keyspace, txn.home, TxnMessage::Status { id: txn, from: id.partition });
        }
    }

    /// What a request over several partitions about leases' times comes to; nothing of it is written down.
    pub(super) fn answer_of_leases(
        request: &Request,
        states: &BTreeMap<PartitionId, (Footprint, PreState)>,
    ) -> Option<Answer> {
        let known = || states.values().flat_map(|(_, state)| &state.leases);
        match request {
            Request::LeaseTimeToLive { .. } => {
                let mut time = known().find_map(|known| known.time.clone());
                if let Some(time) = &mut time {
                    time.keys = known().flat_map(|known| known.keys.iter().cloned()).collect();
                    time.keys.sort_unstable();
                }
                Some(Answer::LeaseTimeToLive(time))
            }
            Request::Leases => {
                let mut leases: Vec<_> = known()
                    .map(|known| (known.time.as_ref().map_or(0, |time| time.remaining_ticks), known.lease))
                    .collect();
                leases.sort_unstable();
                Some(Answer::Leases(leases.into_iter().map(|(_, lease)| lease).collect()))
            }
            _ => None,
        }
    }
}
