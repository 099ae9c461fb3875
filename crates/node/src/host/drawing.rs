//! Drawing revisions from a sequencer on another node (`draws.rs` has what is said).
//!
//! A request comes to a partition's leader and waits in [`Group::drawing`]. The node asks for as many revisions as its leaders' waiting requests seem to
//! need; when they come, each is evaluated, in the order in which it came, with the next revision if it changes something. So nothing is
//! ever evaluated on top of a change whose revision is not known, and what turns out to change nothing gives its revision back: then there is a hole.
//! What needs no revision waits all the same: its answer names the newest, and that is the sequencer's to say.
//!
//! **What is locked is not asked for, and while revisions for a partition's requests are on their way nothing is locked in it.** Else a transaction
//! could lock, read, and end, all before a revision comes that was given out before its own.
//!
//! Transactions over partitions ask when they have all votes: that all who take part are still registered in the terms they voted in is the sequencer's to say.
//!
//! What ended is told with the next ask, or with one of its own. The sequencer knows by it up to where all is settled, and where in the logs that is.

use super::Host;
use super::sequencing::Count;
use crate::draws::{Decision, Draw, DrawAnswer, DrawAsk, Ended, Registration, Verdict};
use crate::effects::Notice;
use crate::group::{Blocked, Group, Origin, Then, Work};
use crate::peer::PeerMessage;
use crate::sequencer::Session;
use crate::transaction::Phase;
use quorate_consensus::Consensus;
use quorate_mvcc::engine::Engine;
use quorate_types::{
    Fault, GroupId, Index, KeyspaceId, NodeId, Position, Rejection, Request, Revision, Term, Tick, TxnId,
    reached,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Revisions asked for at once; well below what a mark is raised by.
const DRAWS_MAX: u64 = 400;
/// An ask that is not answered is repeated after so many ticks.
const ASK_AGAIN_TICKS: u64 = 5;

/// What this node has to ask and tell.
#[derive(Default)]
pub(super) struct Drawing {
    number: u64,
    asked: Option<Asked>,
    /// Leaders that have shown that they lead, in this epoch.
    registering: BTreeMap<GroupId, Term>,
    /// Groups with requests that wait for the sequencer's word.
    wanting: BTreeSet<GroupId>,
    /// Attempts that wait for the sequencer's word.
    deciding: BTreeSet<(KeyspaceId, TxnId)>,
    /// What has ended since it was last told, by group.
    ended: BTreeMap<GroupId, Told>,
    /// What other nodes asked here before the sequencer had begun.
    early: BTreeMap<NodeId, DrawAsk>,
    /// When the sequencer was last known to answer, or to be here.
    in_touch: Tick,
}

/// An ask under way.
struct Asked {
    to: NodeId,
    at: Tick,
    /// For the first time.
    since: Tick,
    ask: DrawAsk,
}

/// What ended in a group.
#[derive(Default)]
struct Told {
    applied: Vec<Revision>,
    decided: Vec<Revision>,
    unused: Vec<Revision>,
}

impl<E: Engine> Host<E> {
    /// A request waits for the sequencer's word.
    pub(super) fn want_revision(&mut self, id: GroupId, work: Work) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.drawing.len() >= self.options.waiting_max {
            self.turn_away(id, &work, Rejection::Busy);
            return;
        }
        if let (Origin::Own, Request::LeaseRevoke { lease }) = (work.origin, &work.request)
            && let Some(partition) = group.partition_mut()
        {
            // It is not due again meanwhile, unless it is renewed.
            partition.ending(*lease);
        }
        group.drawing.push_back(work);
        self.drawing.wanting.insert(id);
    }

    /// An attempt waits for the sequencer's word.
    pub(super) fn want_decision(&mut self, keyspace: KeyspaceId, id: TxnId) {
        self.drawing.deciding.insert((keyspace, id));
    }

    /// The group's leadership was shown by a barrier begun in this epoch.
    pub(super) fn want_registration(&mut self, id: GroupId, epoch: Term) {
        self.drawing.registering.insert(id, epoch);
    }

    /// A leader here, which draws from afar, has applied its part of these, and decided those.
    pub(super) fn tell_applied(
        &mut self,
        id: GroupId,
        applied: impl Iterator<Item = Revision>,
        decided: impl Iterator<Item = Revision>,
    ) {
        let is_afar = self.sequencer.is_none()
            && self.groups.get(&id).is_some_and(|group| group.is_serving && group.registered.is_some());
        if is_afar {
            let told = self.drawing.ended.entry(id).or_default();
            told.applied.extend(applied);
            told.decided.extend(decided);
        }
    }

    /// The same of revisions that it was given and does not use; of none: that its floor has changed.
    pub(super) fn tell_unused(&mut self, id: GroupId, unused: impl Iterator<Item = Revision>) {
        if self.sequencer.is_none() {
            self.drawing.ended.entry(id).or_default().unused.extend(unused);
        }
    }

    /// The sequencer elsewhere that this node's leaders draw from, and its epoch.
    fn distant_sequencer(&self) -> Option<(NodeId, Term)> {
        let meta = self.groups.get(&GroupId::META)?;
        let leader = meta.leader.filter(|leader| *leader != self.options.id)?;
        (self.sequencer.is_none() && meta.term == meta.raft.term()).then_some((leader, meta.term))
    }

    /// Asks for what is wanted, if no ask is under way.
    pub(super) fn ask_sequencer(&mut self) -> Result<(), Fault> {
        let Some((to, epoch)) = self.distant_sequencer() else { return Ok(()) };
        if self.drawing.asked.is_some() {
            return Ok(());
        }
        let now = self.now;
        let mut ask = DrawAsk { life: self.options.seed, epoch, ..DrawAsk::default() };
        ask.ended = self.ended_in(epoch);
        for (id, of) in std::mem::take(&mut self.drawing.registering) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if of != epoch || group.registering != Some(epoch) || !group.is_serving {
                continue;
            }
            let term = group.term;
            let Some(partition) = group.partition_mut() else { continue };
            partition.inherit();
            let (newest, position, inherited) =
                (partition.newest(), partition.applied(), partition.inherited_floor());
            let decided = partition.revisions_decided();
            ask.registrations.push(Registration { group: id, term, newest, position, inherited, decided });
        }
        let mut room = DRAWS_MAX;
        for (keyspace, id) in std::mem::take(&mut self.drawing.deciding) {
            if room == 0 {
                self.drawing.deciding.insert((keyspace, id));
            } else if let Some(decision) = self.decision_of(keyspace, id)? {
                room -= u64::from(!decision.changed.is_empty());
                ask.decisions.push(decision);
            }
        }
        for id in std::mem::take(&mut self.drawing.wanting) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.registered != Some(epoch) || !group.is_serving {
                group.wait_again(now);
                self.rouse_waiting.insert(id);
                continue;
            }
            let (mut count, mut asked) = (0, VecDeque::new());
            while room > 0
                && let Some(work) = group.drawing.pop_front()
            {
                let waits = group.is_to_wait(&work, now)?;
                if group.precedence.take_freed() {
                    self.rouse_blocked.insert(id);
                }
                if waits {
                    reached!("draw-waits-for-locks");
                    if work.origin != Origin::Own {
                        group.blocked.push_back(Blocked::Work(work));
                    } else if let (Request::LeaseRevoke { lease }, Some(partition)) =
                        (&work.request, group.partition_mut())
                    {
                        partition.end_again(*lease, self.now);
                    }
                    continue;
                }
                let Some(partition) = group.partition() else { break };
                let draws = partition.would_draw(&work.request)?;
                (count, room) = (count + u32::from(draws), room - u64::from(draws));
                asked.push_back(work);
            }
            if !group.drawing.is_empty() {
                self.drawing.wanting.insert(id);
            }
            group.drawing_asked = asked.len();
            asked.append(&mut group.drawing);
            group.drawing = asked;
            if group.drawing_asked > 0 {
                ask.draws.push(Draw { group: id, term: group.term, count });
            }
        }
        if ask.is_empty() {
            return Ok(());
        }
        self.drawing.number += 1;
        ask.number = self.drawing.number;
        self.out.send.push((to, PeerMessage::Draw { ask: ask.clone() }));
        self.drawing.asked = Some(Asked { to, at: now, since: now, ask });
        Ok(())
    }

    fn ended_in(&mut self, epoch: Term) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (id, told) in std::mem::take(&mut self.drawing.ended) {
            let Some(group) = self.groups.get(&id) else { continue };
            let Some(partition) = group.partition() else { continue };
            // Who registers anew has ended everything before.
            if group.is_serving && group.registered == Some(epoch) {
                let Told { applied, decided, unused } = told;
                let (position, inherited) = (partition.applied(), partition.inherited_floor());
                let term = group.term;
                ended.push(Ended { group: id, term, applied, decided, unused, position, inherited });
            }
        }
        ended
    }

    /// Repeats an ask that was not answered.
    pub(super) fn tick_drawing(&mut self) {
        let now = self.now;
        let sequencer = self.distant_sequencer();
        if let Some(asked) = &mut self.drawing.asked
            && now.since(asked.at) >= ASK_AGAIN_TICKS
            && sequencer == Some((asked.to, asked.ask.epoch))
        {
            reached!("draw-repeated");
            asked.at = now;
            self.out.send.push((asked.to, PeerMessage::Draw { ask: asked.ask.clone() }));
        }
        self.leave_office_unheard(sequencer.is_some());
    }

    /// Whoever cannot hear the sequencer cannot write, though it leads and others hear both: it hands over what it leads, when that has lasted longer than it takes to elect another
    /// sequencer; and again, if it is given something again.
    fn leave_office_unheard(&mut self, is_known: bool) {
        let now = self.now;
        let patience = 2 * self.options.election_ticks_min;
        let unanswered = self.drawing.asked.as_ref().map(|asked| asked.since);
        if self.sequencer.is_some() || (is_known && unanswered.is_none()) {
            self.drawing.in_touch = now;
        }
        let since = unanswered.filter(|_| is_known).unwrap_or(self.drawing.in_touch);
        // Where no quorum of those who elect it is heard there is none, and nobody else would hear it.
        if now.since(since.max(self.drawing.in_touch)) < patience
            || !(is_known || self.is_meta_quorum_heard())
        {
            return;
        }
        self.drawing.in_touch = now;
        let led = self.groups.iter().filter(|(id, group)| group.is_serving && **id != GroupId::META);
        for id in led.map(|(id, _)| *id).collect::<Vec<_>>() {
            if self.is_sequenced(id.keyspace) {
                reached!("deaf-leader-left");
                self.hand_over_group(id);
            }
        }
    }

    fn is_meta_quorum_heard(&self) -> bool {
        let Some(meta) = self.groups.get(&GroupId::META) else { return false };
        meta.raft.configuration().agreed(|voter| voter == self.options.id || !self.is_down(voter))
    }

    /// The meta group's leader or term is another one: whoever drew from the former sequencer has to register anew.
    pub(super) fn leave_sequencer(&mut self) {
        self.give_up_unconfirmed();
        let now = self.now;
        let epoch = self.meta_term();
        let is_here = self.sequencer.is_some();
        if self.drawing.asked.as_ref().is_some_and(|asked| is_here || asked.ask.epoch != epoch) {
            reached!("sequencer-came-here-while-asked", is_here);
            reached!("draws-in-flight-lost");
            self.drawing.asked = None;
            for attempt in self.attempts.values_mut().filter(|attempt| attempt.phase == Phase::Drawing) {
                reached!("attempt-draws-again");
                attempt.phase = Phase::Collecting;
            }
            let collecting = self.attempts.iter().filter(|(_, attempt)| attempt.is_complete());
            self.undecided.extend(collecting.map(|(id, _)| *id));
        }
        self.drawing.early.retain(|_, ask| ask.epoch >= epoch);
        if is_here {
            self.drawing = Drawing { number: self.drawing.number, in_touch: now, ..Drawing::default() };
        }
        for (id, group) in &mut self.groups {
            let is_over = group.registered.is_some_and(|registered| registered != epoch);
            if is_over {
                (group.registered, group.registering) = (None, None);
            }
            if (is_over || is_here) && !group.drawing.is_empty() {
                group.wait_again(now);
                self.rouse_waiting.insert(*id);
            }
        }
    }

    /// The sequencer's answer.
    pub(super) fn on_drawn(&mut self, from: NodeId, answer: DrawAnswer) -> Result<(), Fault> {
        let is_ours = |asked: &mut Asked| {
            let ask = &asked.ask;
            asked.to == from
                && (ask.life, ask.number, ask.epoch) == (answer.life, answer.number, answer.epoch)
                && ask.registrations.len() == answer.registered.len()
                && ask.draws.len() == answer.drawn.len()
                && ask.decisions.len() == answer.decided.len()
        };
        let Some(asked) = self.drawing.asked.take_if(is_ours) else { return Ok(()) };
        let epoch = answer.epoch;
        for (registration, counts) in asked.ask.registrations.iter().zip(answer.registered) {
            self.on_registration(registration, epoch, counts);
        }
        for (draw, first) in asked.ask.draws.iter().zip(answer.drawn) {
            self.use_revisions(draw, epoch, first)?;
        }
        for (decision, verdict) in asked.ask.decisions.into_iter().zip(answer.decided) {
            self.on_verdict(decision, epoch, verdict)?;
        }
        Ok(())
    }

    fn on_registration(&mut self, registration: &Registration, epoch: Term, counts: bool) {
        let (id, now) = (registration.group, self.now);
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.is_serving || group.term != registration.term || group.registering != Some(epoch) {
            return;
        }
        group.registering = None;
        if counts {
            let term = group.term;
            (group.registered, group.office) = (Some(epoch), Index::START);
            (group.received, group.drawing_asked) = (Revision::default(), 0);
            group.acks.clear();
            // Whom the sequencer took for the leader until now has answered renewals by its word.
            if let Some(partition) = group.partition_mut() {
                partition.restart_leases(now);
            }
            // What it named may have ended before the answer came, when the sequencer would not have believed it.
            if registration.inherited.is_some() {
                self.inheriting.insert(id);
            }
            self.note_inherited(id);
            self.rouse_waiting.insert(id);
            self.out.notices.push(Notice::Registered { group: id, term, epoch });
        }
    }

    /// The requests that waited are evaluated, each with the next revision if it needs one.
    fn use_revisions(&mut self, draw: &Draw, epoch: Term, first: Option<Revision>) -> Result<(), Fault> {
        let (id, now) = (draw.group, self.now);
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        // Who leads in another term registers anew, and what was given to the former one ends by that.
        if !group.is_serving || group.term != draw.term || group.registered != Some(epoch) {
            return Ok(());
        }
        let Some(first) = first else {
            reached!("draw-refused");
            group.registered = None;
            group.wait_again(now);
            self.rouse_waiting.insert(id);
            return Ok(());
        };
        let (mut next, end) = (first, Revision(first.0 + u64::from(draw.count)));
        if next < end {
            group.received = group.received.max(end.previous());
        }
        let mut rest: VecDeque<Work> = std::mem::take(&mut group.drawing);
        group.drawing = rest.split_off(std::mem::take(&mut group.drawing_asked));
        let mut again = Vec::new();
        // The end of a transaction came first, with a later revision: in the log they must ascend.
        if next < end && group.partition().is_none_or(|partition| partition.newest() >= first) {
            reached!("draw-overtaken");
            again.extend(rest.drain(..));
        }
        for work in rest {
            let Some(partition) = self.groups.get_mut(&id).and_then(Group::partition_mut) else { break };
            partition.observe(next.previous());
            if let (Origin::Own, Request::LeaseRevoke { lease }) = (work.origin, &work.request)
                && !partition.is_ending(*lease)
            {
                continue;
            }
            // The partition has been split since it was asked for: the keys, or the lease, are another's.
            if self.router.route(id.keyspace, &work.request) != Ok(id) {
                reached!("split-while-drawing");
                self.dispatch_again(id, work)?;
                continue;
            }
            let Some(partition) = self.groups.get_mut(&id).and_then(Group::partition_mut) else { break };
            if next == end && partition.would_draw(&work.request)? {
                again.push(work);
                continue;
            }
            self.serve_by(id, work, Count::Granted(next.previous()))?;
            let newest = self.groups.get(&id).and_then(Group::partition).map(|partition| partition.newest());
            if newest == Some(next) {
                next = next.next();
            }
        }
        if next < end {
            reached!("revisions-given-back");
            self.tell_unused(id, (next.0..end.0).map(Revision));
        }
        if let Some(group) = self.groups.get_mut(&id) {
            for work in again.into_iter().rev() {
                group.drawing.push_front(work);
            }
            if !group.drawing.is_empty() {
                self.drawing.wanting.insert(id);
            }
            if !group.part_asks.is_empty() || !group.blocked.is_empty() {
                self.rouse_blocked.insert(id);
            }
        }
        Ok(())
    }

    fn on_verdict(&mut self, decision: Decision, epoch: Term, verdict: Verdict) -> Result<(), Fault> {
        let (home, id) = (decision.home, decision.id);
        let is_led = |group: &&mut Group<E>| {
            group.is_serving && group.term == id.term && group.registered == Some(epoch)
        };
        let Some(group) = self.groups.get_mut(&home).filter(is_led) else { return Ok(()) };
        if let Verdict::Draws(revision) = verdict {
            group.received = group.received.max(revision);
            let is_late = group.partition().is_none_or(|partition| partition.newest() >= revision);
            reached!("decision-overtaken", is_late);
            // As for others; its locks are held, so the sequencer is asked again for the same.
            if let Some(attempt) = self.attempts.get_mut(&(home.keyspace, id)).filter(|_| is_late)
                && attempt.phase == Phase::Drawing
            {
                attempt.phase = Phase::Collecting;
                self.undecided.insert((home.keyspace, id));
                self.rouse_waiting.insert(home);
            }
            if !group.part_asks.is_empty() {
                self.rouse_blocked.insert(home);
            }
        }
        let is_waiting =
            self.attempts.get(&(home.keyspace, id)).is_some_and(|attempt| attempt.phase == Phase::Drawing);
        match verdict {
            Verdict::Stale if is_waiting => {
                reached!("decision-refused-by-sequencer");
                self.give_up(home.keyspace, id, true)
            }
            Verdict::Reads(newest) if is_waiting => {
                self.decide_at(home.keyspace, id, Count::Granted(newest), None)
            }
            Verdict::Draws(revision) => {
                if is_waiting {
                    let at = Count::Granted(revision.previous());
                    self.decide_at(home.keyspace, id, at, Some(revision))?;
                }
                let is_used = self.attempts.get(&(home.keyspace, id)).is_some_and(
                    |attempt| matches!(attempt.phase, Phase::Deciding(Some(drawn)) if drawn == revision),
                );
                if !is_used {
                    self.tell_unused(home, std::iter::once(revision));
                }
                Ok(())
            }
            Verdict::Stale | Verdict::Reads(_) => Ok(()),
        }
    }

    /// Another node asks; here is the sequencer, or was.
    pub(super) fn on_draw(&mut self, from: NodeId, ask: DrawAsk) -> Result<(), Fault> {
        let Some(sequencer) = self.sequencer.as_mut().filter(|sequencer| sequencer.epoch() == ask.epoch)
        else {
            // It leads the meta group already, but does not know all of it yet.
            if self.sequencer.is_none() && self.meta_term() == ask.epoch {
                reached!("draw-came-early");
                self.drawing.early.insert(from, ask);
            }
            return Ok(());
        };
        if let Some(session) = sequencer.sessions.get(&from)
            && session.ask.life == ask.life
            && session.ask.number >= ask.number
        {
            if session.ask.number == ask.number
                && let Some(answer) = session.answer.clone()
            {
                reached!("draw-answered-again");
                self.out.send.push((from, PeerMessage::Drawn { answer }));
            }
            return Ok(());
        }
        let wanted: u64 = ask.draws.iter().map(|draw| u64::from(draw.count)).sum();
        if wanted + ask.decisions.len() as u64 > 2 * DRAWS_MAX {
            self.suspicious(from, format!("it asks for {wanted} revisions at once"));
            return Ok(());
        }
        for ended in &ask.ended {
            let id = ended.group;
            if !sequencer.is_registered(id, from, ended.term) {
                continue;
            }
            for revision in &ended.decided {
                sequencer.decided(id, *revision);
            }
            for revision in &ended.unused {
                sequencer.unused(id, *revision);
            }
            for revision in &ended.applied {
                sequencer.applied(id, *revision);
            }
            sequencer.reached(id, ended.position);
            sequencer.inherits(id, ended.inherited);
            self.wants_settled.insert(id.keyspace);
        }
        let (number, registers) = (ask.number, !ask.registrations.is_empty());
        let registered = (!registers).then(Vec::new);
        sequencer.sessions.insert(from, Session { ask, registered, answer: None });
        if !registers {
            return self.answer_draw(from);
        }
        let epoch = sequencer.epoch();
        let deadline = self.now.after(self.options.election_ticks_max);
        let then = Then::Registrations(from, number, epoch);
        self.begin_barrier(GroupId::META, Position::default(), deadline, then, None)
    }

    /// The sequencer has begun: what was asked before. Of another epoch it is ignored.
    pub(super) fn answer_early(&mut self) -> Result<(), Fault> {
        for (from, ask) in std::mem::take(&mut self.drawing.early) {
            self.on_draw(from, ask)?;
        }
        Ok(())
    }

    /// The sequencer was in office after these leaders had shown that they lead ([`Host::registered`]).
    pub(super) fn on_registrations(&mut self, from: NodeId, number: u64, epoch: Term) -> Result<(), Fault> {
        let is_same = self.meta_term() == epoch;
        let Some(sequencer) =
            self.sequencer.as_mut().filter(|sequencer| is_same && sequencer.epoch() == epoch)
        else {
            return Ok(());
        };
        let session = sequencer.sessions.get(&from);
        let Some(session) = session.filter(|session| session.ask.number == number) else { return Ok(()) };
        let mut registered = Vec::with_capacity(session.ask.registrations.len());
        for registration in session.ask.registrations.clone() {
            let Registration { group, term, newest, position, inherited, decided } = registration;
            for revision in decided {
                sequencer.decided(group, revision);
            }
            // No log holds anything newer than what was committed to be given out.
            let counts = sequencer.is_given(group.keyspace, newest)
                && sequencer.register(group, (from, term), newest, position).is_ok();
            if counts {
                self.leaders_news.insert(group, from);
                sequencer.inherits(group, inherited);
                self.wants_settled.insert(group.keyspace);
            }
            registered.push(counts);
        }
        if let Some(session) = sequencer.sessions.get_mut(&from) {
            session.registered = Some(registered);
        }
        self.answer_draw(from)
    }

    /// The barrier was not passed: the node asks again.
    pub(super) fn forget_ask(&mut self, from: NodeId, number: u64) {
        if let Some(sequencer) = &mut self.sequencer
            && sequencer.sessions.get(&from).is_some_and(|session| session.ask.number == number)
        {
            sequencer.sessions.remove(&from);
        }
    }

    /// Gives the revisions that were asked for, or leaves it until a mark is raised.
    fn answer_draw(&mut self, to: NodeId) -> Result<(), Fault> {
        let Some(sequencer) = &mut self.sequencer else { return Ok(()) };
        let Some(session) = sequencer.sessions.get(&to).filter(|session| session.answer.is_none()) else {
            return Ok(());
        };
        let Some(registered) = session.registered.clone() else { return Ok(()) };
        let ask = session.ask.clone();
        let mut wanted: BTreeMap<KeyspaceId, u64> = BTreeMap::new();
        for draw in &ask.draws {
            *wanted.entry(draw.group.keyspace).or_default() += u64::from(draw.count);
        }
        for decision in &ask.decisions {
            *wanted.entry(decision.home.keyspace).or_default() += u64::from(!decision.changed.is_empty());
        }
        // What is known of no keyspace is refused below.
        let lacks_room = |(keyspace, count): (&KeyspaceId, &u64)| {
            sequencer.current(*keyspace).is_some() && *count > 0 && !sequencer.has_room(*keyspace, *count)
        };
        if wanted.iter().any(lacks_room) {
            reached!("draw-waits-for-mark");
            return self.raise_marks();
        }
        let mut answer = DrawAnswer {
            life: ask.life,
            number: ask.number,
            epoch: ask.epoch,
            registered,
            ..DrawAnswer::default()
        };
        for Draw { group, term, count } in &ask.draws {
            let first = sequencer.is_registered(*group, to, *term).then(|| {
                let next = sequencer.current(group.keyspace).map(Revision::next);
                let parts = [(group.partition, *term)];
                let all = (0..*count).try_for_each(|_| sequencer.draw(*group, &parts).map(|_| ()));
                next.filter(|_| all.is_ok())
            });
            answer.drawn.push(first.flatten());
        }
        for Decision { home, id, terms, changed, partitions } in &ask.decisions {
            let is_all = self.router.partitions(home.keyspace).len() as u64 == *partitions;
            let is_led = is_all && sequencer.is_registered(*home, to, id.term);
            let verdict = if !is_led || !sequencer.are_current(home.keyspace, terms) {
                Verdict::Stale
            } else if changed.is_empty() {
                sequencer.current(home.keyspace).map_or(Verdict::Stale, Verdict::Reads)
            } else {
                let parts: Vec<_> =
                    terms.iter().filter(|(partition, _)| changed.contains(partition)).copied().collect();
                sequencer.draw(*home, &parts).map_or(Verdict::Stale, Verdict::Draws)
            };
            answer.decided.push(verdict);
        }
        if let Some(session) = sequencer.sessions.get_mut(&to) {
            session.answer = Some(answer.clone());
        }
        self.raise_marks_next |= wanted.keys().any(|keyspace| sequencer.wants_mark(*keyspace));
        self.out.send.push((to, PeerMessage::Drawn { answer }));
        Ok(())
    }

    /// A mark was raised.
    pub(super) fn answer_draws(&mut self) -> Result<(), Fault> {
        let Some(sequencer) = &self.sequencer else { return Ok(()) };
        let waiting = sequencer.sessions.iter().filter(|(_, session)| session.answer.is_none());
        for node in waiting.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.answer_draw(node)?;
        }
        Ok(())
    }
}
