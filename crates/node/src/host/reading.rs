//! Reads over the partitions of a keyspace, at one revision.
//!
//! A node that wants to read asks the sequencer's: a revision R that nobody has been shown a newer one than (`showing.rs`), confirmed by a read barrier of the meta
//! group begun after the question came (which the question itself may pass: it names the reader's term); and for each partition concerned the index up to which this node must have applied
//! its log to see, of the keys asked about, everything up to R. Then it reads its own copy as of R.
//!
//! A partition's leader gives the index when
//! * it is registered with the sequencer that named R: so no other leader of the partition was given a revision;
//! * no prepared transaction that may commit at R or before holds one of the keys (it waits);
//! * and it names an index past every entry of its log that changes one of the keys at R or before, committed or not, with the term that
//!   the entry there must have. With another term there, the question is asked again: the end of a decided transaction may come later.
//!
//! A leader on another node than the sequencer's is asked by that, and tells the reader itself; it waits until it has all the revisions that the
//! sequencer has given it, for they may be R or below.
//!
//! The same question without the confirmation and about all keys tells a follower how far all of a keyspace is applied: what merged
//! watches are released by. It costs no barrier, because a revision that is too old does no harm there.

use super::Host;
use super::keyspaces::Keyspace;
use crate::effects::{Grant, IfBehind, Reach};
use crate::group::{Caller, Group, Question, Then, Wait};
use crate::peer::{PartAsk, PeerMessage, ReadAnswer};
use crate::router::Target;
use quorate_mvcc::engine::Engine;
use quorate_partition::Partition;
use quorate_types::{
    Fault, GroupId, Index, KeyRange, KeyspaceId, NodeId, PartitionId, Position, Rejection, Revision, Term,
    Tick, reached,
};
use std::collections::{BTreeMap, BTreeSet};

/// A read that was not answered is asked again after so many ticks.
const ASK_AGAIN_TICKS: u64 = 10;

/// The same for one that the sequencer answers only when there is more to tell.
const SETTLE_AGAIN_TICKS: u64 = 50;

/// What a partition's leader says to a read.
enum Part {
    /// Apply so much.
    At(Position),
    /// A prepared transaction may be in the way.
    Hidden,
    /// It cannot say: it does not lead, or is not registered.
    Unknown,
}

/// What a reading is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A client's read barrier.
    Client(Caller),
    /// To know how far the keyspace is applied here.
    Settle,
}

/// A read on its way, on the node that wants to read.
#[derive(Debug)]
pub(super) struct Reading {
    purpose: Purpose,
    keyspace: KeyspaceId,
    /// Empty: everything.
    ranges: Vec<KeyRange>,
    deadline: Tick,
    asked: Tick,
    /// Once answered: the revision, the epoch, and the partitions that have not applied enough, or whose leaders have not told yet how much that is.
    answered: Option<(Revision, Term, BTreeSet<PartitionId>)>,
    /// Of those, the ones whose leaders have not told.
    awaited: BTreeSet<PartitionId>,
    /// Some of these partitions have no replica here, or one that is far behind.
    is_elsewhere: bool,
    /// How far the partitions had to be applied, if it is to settle.
    positions: Vec<(PartitionId, Position)>,
    /// What leaders told before the sequencer's answer came.
    early: BTreeMap<PartitionId, ((Revision, Term), Position)>,
}

impl Reading {
    /// Whether leaders may read where the copy here is behind.
    fn asks_leaders(&self) -> bool {
        matches!(self.purpose, Purpose::Client(caller) if caller.if_behind == IfBehind::AskLeaders)
    }
}

impl<E: Engine> Host<E> {
    pub(super) fn begin_reading(
        &mut self,
        purpose: Purpose,
        keyspace: KeyspaceId,
        ranges: Vec<KeyRange>,
    ) -> Result<(), Fault> {
        if let Purpose::Client(caller) = purpose
            && self.readings.len() >= self.options.inflight_max
        {
            self.out.grants.push((caller.ticket, Err(Rejection::Busy)));
            return Ok(());
        }
        self.next_reading = self.next_reading.wrapping_add(1);
        let id = self.next_reading;
        let deadline = self.now.after(self.options.request_ticks_max);
        let reading = Reading {
            purpose,
            keyspace,
            ranges,
            deadline,
            asked: self.now,
            answered: None,
            awaited: BTreeSet::new(),
            is_elsewhere: false,
            positions: Vec::new(),
            early: BTreeMap::new(),
        };
        self.readings.insert(id, reading);
        self.ask(id)
    }

    /// Asks the sequencer's node, wherever it is.
    fn ask(&mut self, id: u64) -> Result<(), Fault> {
        let now = self.now;
        let Some(reading) = self.readings.get_mut(&id) else { return Ok(()) };
        reading.asked = now;
        let (keyspace, ranges) = (reading.keyspace, reading.ranges.clone());
        let confirmed = reading.purpose != Purpose::Settle;
        if !self.is_sequenced(keyspace) && self.maps.contains_key(&keyspace) {
            // Its map was not known when it was asked for.
            let Some(Reading { purpose: Purpose::Client(caller), deadline, .. }) = self.readings.remove(&id)
            else {
                return Ok(());
            };
            let group = match self.router.groups(keyspace) {
                Ok(group) => group,
                Err(rejection) => {
                    self.out.grants.push((caller.ticket, Err(rejection)));
                    return Ok(());
                }
            };
            return self.begin_barrier(group, Default::default(), deadline, Then::Grant(caller), None);
        }
        let known = self.settled_known(keyspace);
        if self.sequencer.is_some() {
            return if confirmed {
                self.on_read_ask(None, id, keyspace, ranges)
            } else {
                self.on_settle_ask(None, id, keyspace, known)
            };
        }
        let leader = self.groups.get(&GroupId::META).and_then(|meta| meta.leader);
        if let Some(leader) = leader.filter(|leader| *leader != self.options.id) {
            let term = self.meta_term();
            let ask = PeerMessage::ReadAsk { reading: id, keyspace, ranges, term, confirmed, known };
            self.out.send.push((leader, ask));
        }
        Ok(())
    }

    /// For ranges that are all in one partition, which has no replica here; or which has, and others of the keyspace have not, so that nobody reads
    /// it here.
    pub(super) fn only_distant(&self, keyspace: KeyspaceId, ranges: &[KeyRange]) -> Option<Grant> {
        let partition = self.only_partition_of(keyspace, ranges)?;
        let is_distant = self.is_distant(GroupId { keyspace, partition }) || self.is_in_part(keyspace);
        is_distant.then(|| Grant::of_leaders(keyspace))
    }

    /// Whether a keyspace has partitions that have no replica here, and are not to get one.
    fn is_in_part(&self, keyspace: KeyspaceId) -> bool {
        self.keyspaces.get(&keyspace).is_some_and(Keyspace::is_in_part)
    }

    /// A node wants to read, and says in which term of the meta group it is; here is the sequencer, or was.
    pub(super) fn on_read_ask(
        &mut self,
        asker: Option<(NodeId, Term)>,
        reading: u64,
        keyspace: KeyspaceId,
        ranges: Vec<KeyRange>,
    ) -> Result<(), Fault> {
        let is_known = self.knows_what_is_shown(keyspace);
        let Some(sequencer) = &mut self.sequencer else { return Ok(()) };
        let (Some(revision), epoch) = (sequencer.name(keyspace, is_known), sequencer.epoch()) else {
            return Ok(());
        };
        let deadline = self.now.after(self.options.request_ticks_max);
        let from = asker.map(|(node, _)| node);
        let question = Question { from, reading, keyspace, ranges, revision, epoch, deadline };
        let then = Then::Question(Box::new(question));
        self.begin_barrier_for(GroupId::META, asker, deadline, then)
    }

    /// A node wants to know how far all partitions are applied, when that is further than it knows.
    pub(super) fn on_settle_ask(
        &mut self,
        from: Option<NodeId>,
        reading: u64,
        keyspace: KeyspaceId,
        known: Revision,
    ) -> Result<(), Fault> {
        match self.settled_everywhere(keyspace) {
            Some(settled) if settled > known => self.tell_settled(from, reading, keyspace, settled),
            _ => {
                if let (Some(node), true) = (from, self.sequencer.is_some()) {
                    self.parked.entry(keyspace).or_default().insert(node, (reading, known));
                }
                Ok(())
            }
        }
    }

    /// Those that waited for more to be settled.
    pub(super) fn answer_parked(&mut self, keyspace: KeyspaceId, settled: Revision) -> Result<(), Fault> {
        let Some(parked) = self.parked.get_mut(&keyspace) else { return Ok(()) };
        let ready: Vec<_> = parked.extract_if(.., |_, (_, known)| *known < settled).collect();
        for (node, (reading, _)) in ready {
            self.tell_settled(Some(node), reading, keyspace, settled)?;
        }
        Ok(())
    }

    fn tell_settled(
        &mut self,
        from: Option<NodeId>,
        reading: u64,
        keyspace: KeyspaceId,
        revision: Revision,
    ) -> Result<(), Fault> {
        let Some(sequencer) = &self.sequencer else { return Ok(()) };
        let (epoch, positions) = (sequencer.epoch(), sequencer.positions(keyspace));
        self.answer_reading(from, reading, ReadAnswer { revision, epoch, positions, elsewhere: Vec::new() })
    }

    /// The sequencer was in office when it named the revision; now each partition concerned has its say.
    pub(super) fn on_question(&mut self, question: Question) -> Result<(), Fault> {
        let Question { from, reading, keyspace, ref ranges, revision, epoch, deadline } = question;
        let Some(sequencer) = self.sequencer.as_ref().filter(|sequencer| sequencer.epoch() == epoch) else {
            return Ok(());
        };
        let (mut positions, mut asks) = (Vec::new(), Vec::new());
        for partition in self.partitions_of(keyspace, ranges) {
            let id = GroupId { keyspace, partition };
            // One that is not registered yet: the reader asks again.
            let Some((leader, granted)) = sequencer.leader(id) else { return Ok(()) };
            if leader != self.options.id {
                let reader = from.unwrap_or(self.options.id);
                let ranges = ranges.clone();
                asks.push((leader, PartAsk { reader, reading, group: id, ranges, revision, epoch, granted }));
                continue;
            }
            match self.part_position(id, ranges, revision, epoch) {
                Part::At(position) => positions.push((partition, position)),
                Part::Hidden => {
                    if self.now < deadline
                        && let Some(group) = self.groups.get_mut(&id)
                    {
                        // One that waits already was named after the reader asked, too, and waits for less.
                        let waiting = group.questions.entry((from, reading)).or_insert(question.clone());
                        if waiting.epoch != question.epoch {
                            *waiting = question;
                        }
                    }
                    return Ok(());
                }
                Part::Unknown => return Ok(()),
            }
        }
        let elsewhere = asks.iter().map(|(_, ask)| ask.group.partition).collect();
        for (leader, part) in asks {
            self.out.send.push((leader, PeerMessage::PartAsk { part }));
        }
        self.answer_reading(from, reading, ReadAnswer { revision, epoch, positions, elsewhere })
    }

    /// Up to where a partition led here must be applied to be read as of a revision.
    fn part_position(&self, id: GroupId, ranges: &[KeyRange], revision: Revision, epoch: Term) -> Part {
        let Some(group) = self.groups.get(&id) else { return Part::Unknown };
        let Some(state) = group.partition() else { return Part::Unknown };
        if !group.is_serving || group.registered != Some(epoch) {
            return Part::Unknown;
        }
        let everything = [KeyRange::all()];
        let ranges = if ranges.is_empty() { &everything[..] } else { ranges };
        if state.hides(ranges, revision) {
            return Part::Hidden;
        }
        let pending = state.pending_until(ranges, revision);
        let index = pending.unwrap_or(Index::START).max(state.applied().index);
        // All from its fence on is of its own term, and the fence is applied.
        Part::At(Position { term: group.term, index })
    }

    /// A sequencer elsewhere asks for a reader.
    pub(super) fn on_part_ask(&mut self, part: PartAsk) -> Result<(), Fault> {
        self.tell_part(part, self.now.after(self.options.request_ticks_max))
    }

    /// Tells the reader, or leaves it until that can be told.
    pub(super) fn tell_part(&mut self, part: PartAsk, deadline: Tick) -> Result<(), Fault> {
        let id = part.group;
        let found = self.part_position(id, &part.ranges, part.revision, part.epoch);
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        // Among the revisions on their way here there may be some at the one that is read, or below.
        let has_all = group.received >= part.granted;
        match found {
            Part::At(position) if has_all => {
                let PartAsk { reader, reading, revision, epoch, .. } = part;
                let at = (revision, epoch);
                if reader == self.options.id {
                    return self.on_part_answer(reading, at, id.partition, position);
                }
                let partition = id.partition;
                let answer = PeerMessage::PartAnswer { reading, at, partition, position };
                self.out.send.push((reader, answer));
            }
            Part::At(_) | Part::Hidden if group.part_asks.len() < self.options.waiting_max => {
                group.part_asks.push((part, deadline));
            }
            _ => {}
        }
        Ok(())
    }

    /// A partition's leader tells up to where this node must apply.
    pub(super) fn on_part_answer(
        &mut self,
        id: u64,
        at: (Revision, Term),
        partition: PartitionId,
        position: Position,
    ) -> Result<(), Fault> {
        let Some(reading) = self.readings.get_mut(&id) else { return Ok(()) };
        match &reading.answered {
            None => {
                reading.early.insert(partition, (at, position));
                Ok(())
            }
            Some((revision, epoch, _)) if (*revision, *epoch) == at && reading.awaited.remove(&partition) => {
                self.await_applied(id, vec![(partition, position)])
            }
            Some(_) => Ok(()),
        }
    }

    /// The partition that all of these ranges are in, if they are in one.
    fn only_partition_of(&self, keyspace: KeyspaceId, ranges: &[KeyRange]) -> Option<PartitionId> {
        if let [only] = self.router.partitions(keyspace) {
            return Some(*only);
        }
        let mut found = ranges.iter().map(|range| match self.router.for_range(keyspace, range) {
            Ok(Target::One(group)) => Some(group.partition),
            _ => None,
        });
        let first = found.next()??;
        found.all(|partition| partition == Some(first)).then_some(first)
    }

    /// The partitions that these ranges may have keys in; none are all.
    fn partitions_of(&self, keyspace: KeyspaceId, ranges: &[KeyRange]) -> Vec<PartitionId> {
        if let Some(only) = self.only_partition_of(keyspace, ranges) {
            return vec![only];
        }
        let mut found = BTreeSet::new();
        for range in ranges {
            match self.router.for_range(keyspace, range) {
                Ok(Target::One(group)) => found.insert(group.partition),
                _ => return self.router.partitions(keyspace).to_vec(),
            };
        }
        if ranges.is_empty() {
            self.router.partitions(keyspace).to_vec()
        } else {
            found.into_iter().collect()
        }
    }

    fn answer_reading(
        &mut self,
        from: Option<NodeId>,
        reading: u64,
        answer: ReadAnswer,
    ) -> Result<(), Fault> {
        match from {
            Some(node) => {
                self.out.send.push((node, PeerMessage::ReadAnswer { reading, answer }));
                Ok(())
            }
            None => self.on_read_answer(reading, answer),
        }
    }

    /// The sequencer's node has answered: this node waits until it has applied so much.
    pub(super) fn on_read_answer(&mut self, id: u64, answer: ReadAnswer) -> Result<(), Fault> {
        let ReadAnswer { revision, epoch, mut positions, elsewhere } = answer;
        let Some(reading) = self.readings.get_mut(&id) else { return Ok(()) };
        if reading.answered.is_some() {
            return Ok(());
        }
        let early = std::mem::take(&mut reading.early);
        reading.awaited = elsewhere.into_iter().collect();
        for (partition, (at, position)) in early {
            if at == (revision, epoch) && reading.awaited.remove(&partition) {
                positions.push((partition, position));
            }
        }
        reading.answered = Some((revision, epoch, reading.awaited.clone()));
        if reading.purpose == Purpose::Settle {
            reading.positions.clone_from(&positions);
        }
        self.await_applied(id, positions)
    }

    /// Waits until these are applied.
    fn await_applied(&mut self, id: u64, positions: Vec<(PartitionId, Position)>) -> Result<(), Fault> {
        let Some(reading) = self.readings.get(&id) else { return Ok(()) };
        let (keyspace, deadline) = (reading.keyspace, reading.deadline);
        // What a sequencer's node has applied is there for good; what a leader has in its log may still give way to another leader's
        // entries. Then a transaction that is decided ends in a later one of these.
        let is_certain = reading.purpose == Purpose::Settle;
        let asks_leaders = reading.asks_leaders();
        let behind_max = self.options.read_behind_max;
        let (mut behind, mut is_elsewhere) = (Vec::new(), false);
        for &(partition, position) in &positions {
            if self.is_distant(GroupId { keyspace, partition }) {
                is_elsewhere = true;
                continue;
            }
            // A partition that this node does not know yet, or another leader's entry there: it is asked again.
            let Some(group) = self.groups.get_mut(&GroupId { keyspace, partition }) else {
                self.reading_failed(id);
                return Ok(());
            };
            match group.partition().map(Partition::applied) {
                Some(applied) if applied.index >= position.index => {
                    if !is_certain && applied.term != position.term {
                        self.reading_failed(id);
                        return Ok(());
                    }
                }
                // Its state is on its way: what is known of the others does not wait for that.
                None if is_certain => {}
                _ if asks_leaders && group.is_far_behind(position.index, behind_max) => {
                    reached!("part-left-to-leader-by-who-is-behind");
                    is_elsewhere = true;
                }
                _ => {
                    let term = Some(position.term).filter(|_| !is_certain);
                    let wait = Wait { term, confirm: None, deadline, then: Then::Reading(id, partition) };
                    group.waits.entry(position.index).or_default().push(wait);
                    behind.push(partition);
                }
            }
        }
        if let Some(reading) = self.readings.get_mut(&id) {
            reading.is_elsewhere |= is_elsewhere;
            if let Some((_, _, left)) = &mut reading.answered {
                left.retain(|partition| positions.iter().all(|(told, _)| told != partition));
                left.extend(behind);
            }
        }
        self.finish_reading(id)
    }

    /// A group has no state any more: reads that wait until it has applied enough, and need not be done here, are left to leaders.
    pub(super) fn leave_to_leaders(&mut self, id: GroupId) -> Result<(), Fault> {
        let Self { groups, readings, .. } = self;
        let Some(group) = groups.get_mut(&id) else { return Ok(()) };
        let asks_leaders = |wait: &mut Wait| match &wait.then {
            Then::Grant(caller) => caller.if_behind == IfBehind::AskLeaders,
            Then::Reading(reading, _) => readings.get(reading).is_some_and(Reading::asks_leaders),
            _ => false,
        };
        let mut left = Vec::new();
        group.waits.retain(|_, waits| {
            left.extend(waits.extract_if(.., asks_leaders));
            !waits.is_empty()
        });
        for wait in left {
            reached!("read-left-to-leader-by-who-lost-its-state");
            match wait.then {
                Then::Grant(caller) => {
                    self.out.grants.push((caller.ticket, Ok(Grant::of_leaders(id.keyspace))));
                }
                Then::Reading(reading, partition) => {
                    if let Some(reading) = self.readings.get_mut(&reading) {
                        reading.is_elsewhere = true;
                    }
                    self.on_read_applied(reading, partition)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// One partition has applied enough.
    pub(super) fn on_read_applied(&mut self, id: u64, partition: PartitionId) -> Result<(), Fault> {
        if let Some(reading) = self.readings.get_mut(&id)
            && let Some((_, _, left)) = &mut reading.answered
        {
            left.remove(&partition);
        }
        self.finish_reading(id)
    }

    /// A partition's log came to hold something else than the answer said: the question is asked again, under another name, because what
    /// waits for the other partitions waits for too little now.
    pub(super) fn reading_failed(&mut self, id: u64) {
        if let Some(reading) = self.readings.remove(&id) {
            self.next_reading = self.next_reading.wrapping_add(1);
            let anew = Reading {
                answered: None,
                awaited: BTreeSet::new(),
                is_elsewhere: false,
                positions: Vec::new(),
                early: BTreeMap::new(),
                ..reading
            };
            self.readings.insert(self.next_reading, anew);
        }
    }

    fn finish_reading(&mut self, id: u64) -> Result<(), Fault> {
        let is_done =
            |reading: &Reading| reading.answered.as_ref().is_some_and(|(_, _, left)| left.is_empty());
        if !self.readings.get(&id).is_some_and(is_done) {
            return Ok(());
        }
        let Some(reading) = self.readings.remove(&id) else { return Ok(()) };
        let Some((revision, term, _)) = reading.answered else { return Ok(()) };
        match reading.purpose {
            Purpose::Client(Caller { ticket, .. }) => {
                // It may have got or lost a partition meanwhile.
                let is_elsewhere = reading.is_elsewhere || self.is_in_part(reading.keyspace);
                let reach = if is_elsewhere { Reach::Leader } else { Reach::Here };
                let grant = Grant { keyspace: reading.keyspace, revision, term, reach };
                self.out.grants.push((ticket, Ok(grant)));
            }
            Purpose::Settle => {
                let keyspace = reading.keyspace;
                self.settling.remove(&keyspace);
                let known = self.published_revision(keyspace);
                // One that has been opened meanwhile, or given another state, may lack something.
                let has_applied = |(partition, position): &&(PartitionId, Position)| {
                    let group = self.groups.get(&GroupId { keyspace, partition: *partition });
                    let applied = group.and_then(Group::partition).map(Partition::applied);
                    applied.is_some_and(|applied| applied.index >= position.index)
                };
                let told = reading.positions.iter().filter(has_applied);
                let told: Vec<PartitionId> = told.map(|(partition, _)| *partition).collect();
                self.settled_at(keyspace, revision, &told)?;
                // There may be more meanwhile; whoever did not come forward waits for a tick.
                if self.published_revision(keyspace) != known {
                    self.wants_settled.insert(keyspace);
                }
            }
        }
        Ok(())
    }

    /// The keyspace is deleted.
    pub(super) fn end_readings(&mut self, keyspace: KeyspaceId) {
        for (_, reading) in self.readings.extract_if(.., |_, reading| reading.keyspace == keyspace) {
            if let Purpose::Client(Caller { ticket, .. }) = reading.purpose {
                self.out.grants.push((ticket, Err(Rejection::KeyspaceNotFound)));
            }
        }
    }

    /// Questions that were not answered are asked again, until their time is over.
    pub(super) fn tick_readings(&mut self) -> Result<(), Fault> {
        let now = self.now;
        let late: Vec<u64> =
            self.readings.iter().filter(|(_, reading)| reading.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            let Some(reading) = self.readings.remove(&id) else { continue };
            match reading.purpose {
                Purpose::Client(caller) => self.out.grants.push((caller.ticket, Err(Rejection::Timeout))),
                Purpose::Settle => {
                    self.settling.remove(&reading.keyspace);
                }
            }
        }
        let unheard = self.readings.iter().filter(|(_, reading)| {
            !reading.awaited.is_empty() && now.since(reading.asked) >= ASK_AGAIN_TICKS
        });
        for id in unheard.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.reading_failed(id);
        }
        let again = self.readings.iter().filter(|(_, reading)| {
            // Who waits to hear of more does not ask for it all the time.
            let is_parked = reading.purpose == Purpose::Settle
                && self.settled_known(reading.keyspace) > Revision::default();
            let patience = if is_parked { SETTLE_AGAIN_TICKS } else { ASK_AGAIN_TICKS };
            reading.answered.is_none() && now.since(reading.asked) >= patience
        });
        for id in again.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.ask(id)?;
        }
        Ok(())
    }

    /// Asks again what was asked of a node that does not lead any more.
    pub(super) fn repeat_readings(&mut self) -> Result<(), Fault> {
        let unanswered = self.readings.iter().filter(|(_, reading)| reading.answered.is_none());
        for id in unanswered.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.ask(id)?;
        }
        Ok(())
    }

    /// What this node is finding out about how far a keyspace is applied here: the revision that the sequencer's node has settled, and the first
    /// partition that has not applied so much.
    pub(super) fn lagging(&self, keyspace: KeyspaceId) -> Option<(Revision, PartitionId)> {
        let is_of = |reading: &&Reading| reading.purpose == Purpose::Settle && reading.keyspace == keyspace;
        let (revision, _, left) = self.readings.values().find(is_of)?.answered.as_ref()?;
        Some((*revision, *left.first()?))
    }

    /// Finds out how far a keyspace is applied here, unless that is being found out.
    pub(super) fn begin_settling(&mut self, keyspace: KeyspaceId) -> Result<(), Fault> {
        if self.settling.insert(keyspace) {
            self.begin_reading(Purpose::Settle, keyspace, Vec::new())?;
        }
        Ok(())
    }
}
