//! From a request to its answer: to the leader, through evaluation or a barrier, to whoever waits.
//!
//! Everything that waits has a deadline and is answered once, at the latest by [`Host::reject_late`].

use super::Host;
use super::reading::Purpose;
use super::sequencing::Count;
use crate::effects::{Grant, IfBehind, Reach, Ticket};
use crate::group::{
    Blocked, Caller, Group, Origin, ReadWait, State, Then, Wait, Work, is_timer_call, may_change,
    rests_on_state,
};
use crate::peer::{Outcome, PeerMessage};
use crate::transaction::TxnMessage;
use quorate_consensus::{Consensus, ProposeError, Raft, ReadId, ReadOutcome, Role};
use quorate_mvcc::engine::Engine;
use quorate_partition::{Evaluated, ReadError, Touched};
use quorate_types::{
    Answer, Fault, Footprint, GroupId, Index, NodeId, Position, Rejection, Reply, Request, Revision, Term,
    Tick, reached,
};

impl<E: Engine> Host<E> {
    /// Sends a request where it can be answered.
    pub(super) fn dispatch(&mut self, id: GroupId, work: Work) -> Result<(), Fault> {
        if self.is_distant(id) {
            self.send_afar(id, work);
            return Ok(());
        }
        let Some(group) = self.groups.get_mut(&id) else {
            self.reply(work.origin, Err(Rejection::Unavailable));
            return Ok(());
        };
        if group.is_serving {
            return self.serve(id, work);
        }
        self.dirty.insert(id);
        let is_local = matches!(work.origin, Origin::Local(_));
        // As consensus knows it now, not when the group was last collected: a leader may have died since, and what was sent to it before has been
        // given up. Nor does it follow from silence at once that there is no leader.
        let leader = group.raft.leader().filter(|leader| *leader != self.options.id);
        let leader = leader.filter(|leader| self.liveness.is_reachable(*leader));
        match (group.role, leader, work.origin) {
            (Role::Follower { .. } | Role::Candidate, Some(_), Origin::Local(_))
                if group.forwarded.len() >= self.options.inflight_max =>
            {
                self.reply(work.origin, Err(Rejection::Busy));
            }
            (Role::Follower { .. } | Role::Candidate, Some(leader), Origin::Local(ticket)) => {
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
            (_, _, origin) => {
                if let Origin::Remote(node, _) = origin {
                    self.tell_leader(id, node);
                }
                self.reply(origin, Err(Rejection::LeaderChanged));
            }
        }
        Ok(())
    }

    /// Answers a request on the group's serving leader.
    pub(super) fn serve(&mut self, id: GroupId, work: Work) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if group.inflight() >= self.options.inflight_max {
            self.reply(work.origin, Err(Rejection::Busy));
            return Ok(());
        }
        let count = self.count(id);
        self.serve_by(id, work, count)
    }

    /// The same, where revisions come from there.
    pub(super) fn serve_by(&mut self, id: GroupId, work: Work, count: Count) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if count == Count::Wait || group.is_splitting {
            if group.waiting.len() < self.options.waiting_max && work.origin != Origin::Own {
                group.waiting.push_back(work);
            } else {
                self.turn_away(id, &work, Rejection::Busy);
            }
            return Ok(());
        }
        if count != Count::Own {
            if let (State::Ready(partition), Count::Sequenced(newest) | Count::Granted(newest)) =
                (&mut group.state, count)
            {
                partition.observe(newest);
            }
            if let Some(shares) = self.shares(id, &work.request) {
                if let Request::LeaseRevoke { lease } = work.request
                    && let Some(partition) = self.groups.get_mut(&id).and_then(Group::partition_mut)
                {
                    partition.ending(lease);
                }
                return self.begin_attempt(id, work, shares, false);
            }
        }
        if count == Count::Afar {
            self.want_revision(id, work);
            return Ok(());
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let waits = group.is_to_wait(&work, self.now)?;
        if group.precedence.take_freed() {
            self.rouse_blocked.insert(id);
        }
        if waits {
            // A lease that ran out may be renewed while a key of it is locked; if it is not, its end is due again.
            if work.origin == Origin::Own {
                self.lease_ends_again(id, &work.request);
            } else {
                group.blocked.push_back(Blocked::Work(work));
            }
            return Ok(());
        }
        if is_timer_call(&work.request) {
            if count != Count::Own {
                let (after, deadline) = (group.proposed, work.deadline);
                return self.begin_sequenced(id, after, Then::Lease(work.clone()), Some(work), deadline);
            }
            let (after, deadline) = (group.proposed, work.deadline);
            return self.begin_barrier(id, after, deadline, Then::Lease(work.clone()), Some(work));
        }
        match group.raft.can_propose() {
            Ok(()) => {}
            Err(ProposeError::Full) => {
                self.turn_away(id, &work, Rejection::Busy);
                return Ok(());
            }
            Err(_) => {
                // Leadership is being handed over: wait for who takes it.
                if group.waiting.len() < self.options.waiting_max && work.origin != Origin::Own {
                    group.waiting.push_back(work);
                } else {
                    self.turn_away(id, &work, Rejection::LeaderChanged);
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
            Err(ReadError::Rejection(rejection)) if rests_on_state(&rejection) => {
                let (after, deadline) = (group.proposed, work.deadline);
                let then = Then::Refuse(work.origin, rejection);
                return self.begin_confirmation(id, count, after, deadline, then, work);
            }
            Err(ReadError::Rejection(rejection)) => self.reply(work.origin, Err(rejection)),
            Err(ReadError::Fault(fault)) => return Err(fault),
            Ok(Evaluated::Unchanged { reply }) => {
                let (after, deadline) = (group.proposed, work.deadline);
                let then = Then::Reply(work.origin, reply);
                return self.begin_confirmation(id, count, after, deadline, then, work);
            }
            Ok(Evaluated::Changes { kind, data, reply }) => {
                let newest = partition.newest();
                let drawn = Some(newest)
                    .filter(|_| ![Count::Sequenced(newest), Count::Granted(newest)].contains(&count));
                let (term, confirm) = (group.term, group.registered);
                // A compaction has no revision of its own, and may be up to the newest given out.
                if matches!(work.request, Request::Compact { .. }) {
                    self.show(id.keyspace, newest);
                }
                if let (Count::Sequenced(_), Some(revision)) = (count, drawn) {
                    self.take_revision(id, &[(id.partition, term)], revision);
                }
                let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
                let position = propose(&mut group.raft, kind, data, index);
                group.proposed = position;
                self.dirty.insert(id);
                let then = Then::Reply(work.origin, reply);
                let confirm = confirm.filter(|_| count != Count::Own);
                if confirm.is_some() {
                    self.wants_office.insert(id);
                }
                let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
                let wait = Wait { term: Some(position.term), confirm, deadline: work.deadline, then };
                group.waits.entry(index).or_insert_with(|| Vec::with_capacity(1)).push(wait);
            }
        }
        Ok(())
    }

    /// Refuses a request before anything has come of it; a lease that it would have ended ends when it would have without.
    pub(super) fn turn_away(&mut self, id: GroupId, work: &Work, rejection: Rejection) {
        self.lease_ends_again(id, &work.request);
        self.reply(work.origin, Err(rejection));
    }

    /// What shows that an answer that changes nothing was true when it was given: a barrier of the group, or of the sequencer's.
    fn begin_confirmation(
        &mut self,
        id: GroupId,
        count: Count,
        after: Position,
        deadline: Tick,
        then: Then,
        work: Work,
    ) -> Result<(), Fault> {
        match count {
            Count::Own => self.begin_barrier(id, after, deadline, then, Some(work)),
            _ => self.begin_sequenced(id, after, then, Some(work), deadline),
        }
    }

    pub(super) fn begin_barrier(
        &mut self,
        id: GroupId,
        after: Position,
        deadline: Tick,
        then: Then,
        again: Option<Work>,
    ) -> Result<(), Fault> {
        self.begin_read(id, None, ReadWait { after, deadline, then, again });
        Ok(())
    }

    /// A barrier for what another node wants to know, if one does: it says that it was in that term of the group when it asked.
    pub(super) fn begin_barrier_for(
        &mut self,
        id: GroupId,
        asker: Option<(NodeId, Term)>,
        deadline: Tick,
        then: Then,
    ) -> Result<(), Fault> {
        self.begin_read(id, asker, ReadWait { after: Position::default(), deadline, then, again: None });
        Ok(())
    }

    fn begin_read(&mut self, id: GroupId, asker: Option<(NodeId, Term)>, wait: ReadWait) {
        let Some(group) = self.groups.get_mut(&id) else {
            return self.reject(wait.then, Rejection::Unavailable);
        };
        if group.reads.len() >= self.options.inflight_max {
            return self.reject(wait.then, Rejection::Busy);
        }
        self.next_read += 1;
        let read = ReadId(self.next_read);
        group.reads.insert(read, wait);
        match asker {
            Some((node, term)) => group.raft.read_for(node, term, read),
            None => group.raft.read(read),
        }
        self.dirty.insert(id);
    }

    pub(super) fn on_read(&mut self, id: GroupId, read: ReadId, outcome: ReadOutcome) -> Result<(), Fault> {
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
                if let Then::Grant(caller) = wait.then
                    && caller.if_behind == IfBehind::AskLeaders
                    && group.is_far_behind(index, self.options.read_behind_max)
                {
                    reached!("read-left-to-leader-by-who-is-behind");
                    self.out.grants.push((caller.ticket, Ok(Grant::of_leaders(id.keyspace))));
                    return Ok(());
                }
                let wait = Wait { term, confirm: None, deadline: wait.deadline, then: wait.then };
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
    pub(super) fn retry_read(&mut self, id: GroupId, read: ReadId) {
        if let Some(group) = self.groups.get_mut(&id)
            && group.leader.is_some()
        {
            group.raft.read(read);
            self.dirty.insert(id);
        }
    }

    pub(super) fn finish(&mut self, id: GroupId, then: Then, deadline: Tick) -> Result<(), Fault> {
        let is_sequenced = self.is_sequenced(id.keyspace);
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        match then {
            Then::Reply(origin, (revision, answer)) => {
                let term = group.registered.unwrap_or(group.term);
                self.show(id.keyspace, revision);
                self.reply(origin, Ok(Reply { revision, term, answer }));
            }
            Then::Refuse(origin, rejection) => self.reply(origin, Err(rejection)),
            Then::Grant(caller) if is_sequenced => {
                // The keyspace has been split since: there are more partitions to ask.
                return self.begin_reading(Purpose::Client(caller), id.keyspace, Vec::new());
            }
            Then::Grant(Caller { ticket, .. }) => {
                let (revision, term) = (group.reader.revision(), group.term);
                let grant = Grant { keyspace: id.keyspace, revision, term, reach: Reach::Here };
                self.out.grants.push((ticket, Ok(grant)));
            }
            Then::Admission(group, round) => self.caught_up(group, round),
            Then::Roster => self.roster_asked(true),
            Then::Leaving => return self.leaves(),
            Then::Register(group, epoch) => return self.register(group, epoch),
            Then::Registered(group, epoch) => self.registered(group, epoch),
            Then::Registrations(node, number, epoch) => return self.on_registrations(node, number, epoch),
            Then::Office(epoch, places) => return self.on_office(epoch, places),
            Then::Sequenced { group, after, epoch, then, again } => {
                return self.on_office_confirmed(group, (after, epoch), *then, again, deadline);
            }
            Then::Question(question) => return self.on_question(*question),
            Then::Reading(reading, partition) => return self.on_read_applied(reading, partition),
            Then::Vote(txn, epoch, state) => self.vote(id, txn, epoch, *state),
            Then::Decided(keyspace, txn) => self.on_decided(keyspace, txn, true),
            Then::Finished(txn) if group.partition().is_none_or(|here| here.is_prepared(txn)) => {}
            Then::Finished(txn) => {
                self.tell(id.keyspace, txn.home, TxnMessage::Finished { id: txn, from: id.partition });
            }
            Then::Lease(work) => return self.tell_of_lease(id, work),
        }
        Ok(())
    }

    /// Answers from the timers of the group's leader, if they are still whom to ask: the keyspace may have been split since the barrier began.
    fn tell_of_lease(&mut self, id: GroupId, work: Work) -> Result<(), Fault> {
        let now = self.now;
        let is_asked = !self.is_sequenced(id.keyspace)
            || (self.router.route(id.keyspace, &work.request) == Ok(id)
                && self.shares(id, &work.request).is_none());
        let Some(group) = self.groups.get(&id) else { return Ok(()) };
        if group.is_splitting || !is_asked {
            return self.dispatch_again(id, work);
        }
        let (State::Ready(partition), true) = (&group.state, group.is_serving) else {
            return self.dispatch(id, work);
        };
        let answer = match &work.request {
            Request::LeaseTimeToLive { lease, with_keys } => {
                Answer::LeaseTimeToLive(partition.time_to_live(*lease, now, *with_keys))
            }
            _ => Answer::Leases(partition.leases()),
        };
        let term = group.registered.unwrap_or(group.term);
        let revision = if group.registered.is_some() { partition.newest() } else { partition.revision() };
        self.show(id.keyspace, revision);
        let reply = Reply { revision, term, answer };
        self.reply(work.origin, Ok(reply));
        Ok(())
    }

    pub(super) fn reject(&mut self, then: Then, rejection: Rejection) {
        match then {
            Then::Reply(origin, _) | Then::Refuse(origin, _) => {
                self.reply(origin, Err(rejection));
            }
            Then::Lease(work) => self.reply(work.origin, Err(rejection)),
            Then::Grant(caller) => self.out.grants.push((caller.ticket, Err(rejection))),
            Then::Admission(group, round) => {
                if round == self.admission.round() {
                    self.catch_up_again.push(group);
                }
            }
            Then::Roster => self.roster_asked(false),
            Then::Leaving => self.stays_for_now(),
            Then::Office(_, places) => self.office_failed(places),
            Then::Registrations(node, number, _) => self.forget_ask(node, number),
            Then::Register(group, _) | Then::Registered(group, _) => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.registering = None;
                }
            }
            Then::Sequenced { group, then, again, .. } => match (again, self.groups.get_mut(&group)) {
                // Nothing has happened: it is tried again where the group is led now.
                (Some(work), Some(found)) if self.now < work.deadline && rejection == Rejection::NoLeader => {
                    found.waiting.push_back(*work);
                    self.dirty.insert(group);
                }
                _ => self.reject(*then, rejection),
            },
            // Whoever asked asks again.
            Then::Question(_) | Then::Vote(..) | Then::Finished(_) => {}
            Then::Reading(reading, _) => self.reading_failed(reading),
            Then::Decided(keyspace, txn) => self.on_decided(keyspace, txn, false),
        }
    }

    pub(super) fn reply(&mut self, origin: Origin, outcome: Result<Reply, Rejection>) {
        match origin {
            Origin::Local(ticket) => self.reply_here(ticket, outcome),
            Origin::Remote(node, ticket) => {
                self.in_hand.answered(node, ticket);
                let bytes_max = self.options.partition.entry_bytes_max as u64;
                let outcome = outcome.and_then(|reply| match (reply.answer.bytes() as u64, &reply.answer) {
                    (bytes, _) if bytes <= bytes_max => Ok(reply),
                    (bytes, Answer::Range(_)) => Err(Rejection::TooLarge { bytes, bytes_max }),
                    // It may have been carried out.
                    _ => Err(Rejection::Unknown),
                });
                self.out.send.push((node, PeerMessage::Reply { ticket, outcome: Outcome(outcome) }));
            }
            Origin::Own => {}
        }
    }

    pub(super) fn on_reply(&mut self, from: NodeId, ticket: Ticket, outcome: Result<Reply, Rejection>) {
        let Some((id, work)) = self.take_forwarded(from, ticket) else { return };
        match outcome {
            // It did nothing there; somebody else may lead, or soon will.
            Err(Rejection::LeaderChanged | Rejection::NoLeader) if self.now < work.deadline => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.waiting.push_back(work);
                    // A group that sleeps is not ticked unless it is known that something waits in it.
                    self.dirty.insert(id);
                } else {
                    self.wait_afar(id, from, work);
                }
            }
            outcome => self.reply(work.origin, outcome),
        }
    }

    /// A request that was sent to that node is under way no more.
    pub(super) fn take_forwarded(&mut self, from: NodeId, ticket: Ticket) -> Option<(GroupId, Work)> {
        let here = self.groups.iter_mut().find_map(|(id, group)| {
            let is_from = group.forwarded.get(&ticket).is_some_and(|(to, _)| *to == from);
            is_from.then(|| group.forwarded.remove(&ticket)).flatten().map(|(_, work)| (*id, work))
        });
        here.or_else(|| self.take_distant(from, ticket))
    }

    /// The answer to a forwarded request will not come.
    pub(super) fn forward_failed(&mut self, id: GroupId, ticket: Ticket) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some((from, work)) = group.forwarded.remove(&ticket) else { return };
        self.ask_anew(id, from, work);
    }

    /// A request that was sent to `from` may have been carried out there, or not: it is asked again if that does no harm.
    pub(super) fn ask_anew(&mut self, id: GroupId, from: NodeId, work: Work) {
        if may_change(&work.request) {
            self.reply(work.origin, Err(Rejection::Unknown));
        } else if let Some(group) = self.groups.get_mut(&id) {
            group.waiting.push_back(work);
            // A group that sleeps is not ticked unless it is known that something waits in it.
            self.dirty.insert(id);
        } else {
            self.wait_afar(id, from, work);
        }
    }

    pub(super) fn reject_late(&mut self) -> Result<(), Fault> {
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
            group.questions.retain(|_, question| question.deadline > now);
            group.part_asks.retain(|(_, deadline)| *deadline > now);
            let asked = group.drawing_asked;
            let mut at = 0;
            group.drawing.retain(|work| {
                at += 1;
                let is_late = work.deadline <= now && work.origin != Origin::Own;
                if is_late {
                    group.drawing_asked -= usize::from(at <= asked);
                    let then = Then::Reply(work.origin, (Revision(0), Answer::Compact));
                    late.push((then, Rejection::NoLeader));
                }
                !is_late
            });
            let keyspace = id.keyspace;
            group.blocked.retain(|blocked| {
                let work = match blocked {
                    Blocked::Work(work) => work,
                    Blocked::Home(txn, ..) => return self.attempts.contains_key(&(keyspace, *txn)),
                    Blocked::Prepare(asked) => return now < asked.until,
                };
                let is_late = work.deadline <= now;
                if is_late {
                    let then = Then::Reply(work.origin, (Revision(0), Answer::Compact));
                    late.push((then, Rejection::Contended));
                }
                !is_late
            });
            while let Some((_, _, wait)) = group.unconfirmed.pop_front_if(|(_, _, wait)| wait.deadline <= now)
            {
                late.push((wait.then, Rejection::Unknown));
            }
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
        }
        for (then, rejection) in late {
            self.reject(then, rejection);
        }
        for (id, read) in retry {
            self.retry_read(id, read);
        }
        for (keyspace, work) in std::mem::take(&mut self.unrouted) {
            if work.deadline <= now {
                self.reply(work.origin, Err(Rejection::NoLeader));
            } else {
                self.unrouted.push((keyspace, work));
            }
        }
        Ok(())
    }
}

/// What a request touches in the partition that it is evaluated in.
pub(super) fn footprint(request: &Request) -> Footprint {
    let touched = Touched::by(request);
    let mut footprint = touched.footprint;
    if let Request::LeaseKeepAlive { lease } = request {
        // It may be ending.
        footprint.leases_shared.push(*lease);
    }
    footprint.leases_shared.extend(touched.attached.into_iter().map(|(_, lease)| lease));
    footprint
}

/// Proposes what was evaluated for `index`, where it must end up: the evaluation is part of the overlay already.
pub(super) fn propose(
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
