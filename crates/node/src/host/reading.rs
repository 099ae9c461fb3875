//! Reads over the partitions of a keyspace, at one revision.
//!
//! A node that wants to read asks the sequencer's: the newest revision R, confirmed to have been newest by a read barrier of the meta
//! group begun after the question came; and for each partition concerned the index up to which this node must have applied
//! its log to see, of the keys asked about, everything up to R. Then it reads its own copy as of R.
//!
//! A partition's leader gives the index when
//! * it is registered with the sequencer that named R: so no other leader of the partition was given a revision;
//! * no prepared transaction that may commit at R or before holds one of the keys (it waits);
//! * and it names an index past every entry of its log that changes one of the keys at R or before, committed or not, with the term that
//!   the entry there must have. With another term there, the question is asked again: the end of a decided transaction may come later.
//!
//! The same question without the confirmation and about all keys tells a follower how far all of a keyspace is applied: what merged
//! watches are released by. It costs no barrier, because a revision that is too old does no harm there.

use super::Host;
use crate::effects::{Grant, Ticket};
use crate::group::{Question, Then, Wait};
use crate::peer::{PeerMessage, ReadAnswer};
use crate::router::Target;
use quorate_mvcc::engine::Engine;
use quorate_partition::Partition;
use quorate_types::{
    Fault, GroupId, Index, KeyRange, KeyspaceId, NodeId, PartitionId, Position, Rejection, Revision, Term,
    Tick,
};
use std::collections::{BTreeMap, BTreeSet};

/// A read that was not answered is asked again after so many ticks.
const ASK_AGAIN_TICKS: u64 = 10;

/// What a reading is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A client's read barrier.
    Client(Ticket),
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
    /// Once answered: the revision, the epoch, and the partitions that have not applied enough.
    answered: Option<(Revision, Term, BTreeSet<PartitionId>)>,
}

impl<E: Engine> Host<E> {
    pub(super) fn begin_reading(
        &mut self,
        purpose: Purpose,
        keyspace: KeyspaceId,
        ranges: Vec<KeyRange>,
    ) -> Result<(), Fault> {
        self.next_reading = self.next_reading.wrapping_add(1);
        let id = self.next_reading;
        let deadline = self.now.after(self.options.request_ticks_max);
        let reading = Reading { purpose, keyspace, ranges, deadline, asked: self.now, answered: None };
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
            let Some(Reading { purpose: Purpose::Client(ticket), deadline, .. }) = self.readings.remove(&id)
            else {
                return Ok(());
            };
            let group = match self.router.groups(keyspace) {
                Ok(group) => group,
                Err(rejection) => {
                    self.out.grants.push((ticket, Err(rejection)));
                    return Ok(());
                }
            };
            return self.begin_barrier(group, Default::default(), deadline, Then::Grant(ticket), None);
        }
        if self.sequencer.is_some() {
            return self.on_read_ask(None, id, keyspace, ranges, confirmed);
        }
        let leader = self.groups.get(&GroupId::META).and_then(|meta| meta.leader);
        if let Some(leader) = leader.filter(|leader| *leader != self.options.id) {
            let ask = PeerMessage::ReadAsk { reading: id, keyspace, ranges, confirmed };
            self.out.send.push((leader, ask));
        }
        Ok(())
    }

    /// A node wants to read; here is the sequencer, or was.
    pub(super) fn on_read_ask(
        &mut self,
        from: Option<NodeId>,
        reading: u64,
        keyspace: KeyspaceId,
        ranges: Vec<KeyRange>,
        confirmed: bool,
    ) -> Result<(), Fault> {
        let Some(sequencer) = &self.sequencer else { return Ok(()) };
        let (Some(revision), epoch) = (sequencer.current(keyspace), sequencer.epoch()) else { return Ok(()) };
        let deadline = self.now.after(self.options.request_ticks_max);
        if confirmed {
            let question = Question { from, reading, keyspace, ranges, revision, epoch, deadline };
            return self.begin_barrier(
                GroupId::META,
                Default::default(),
                deadline,
                Then::Question(Box::new(question)),
                None,
            );
        }
        // What is settled needs no waiting: all of it is applied here. Where the state of one partition is being replaced, nobody can say
        // how far that is; the reader asks again.
        let applied = |partition: &PartitionId| {
            let group = self.groups.get(&GroupId { keyspace, partition: *partition })?;
            Some((*partition, group.partition()?.applied()))
        };
        let positions: Option<Vec<_>> = self.router.partitions(keyspace).iter().map(applied).collect();
        if let (Some(revision), Some(positions)) = (self.published_revision(keyspace), positions) {
            self.answer_reading(from, reading, ReadAnswer { revision, epoch, positions })?;
        }
        Ok(())
    }

    /// The sequencer was in office when it named the revision; now each partition concerned has its say.
    pub(super) fn on_question(&mut self, question: Question) -> Result<(), Fault> {
        let Question { from, reading, keyspace, ref ranges, revision, epoch, deadline } = question;
        let mut positions = Vec::new();
        for partition in self.partitions_of(keyspace, ranges) {
            let id = GroupId { keyspace, partition };
            // A leader elsewhere is on its way here; the reader asks again.
            let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
            if !group.is_serving || group.registered != Some(epoch) {
                return Ok(());
            }
            let Some(state) = group.partition() else { return Ok(()) };
            let everything = [KeyRange::all()];
            let ranges = if ranges.is_empty() { &everything[..] } else { &ranges[..] };
            if state.hides(ranges, revision) {
                if self.now < deadline {
                    group.questions.push(question);
                }
                return Ok(());
            }
            let pending = state.pending_until(ranges, revision);
            let index = pending.unwrap_or(Index::START).max(state.applied().index);
            // All from its fence on is of its own term, and the fence is applied.
            positions.push((partition, Position { term: group.term, index }));
        }
        self.answer_reading(from, reading, ReadAnswer { revision, epoch, positions })
    }

    /// The partitions that these ranges may have keys in; none are all.
    fn partitions_of(&self, keyspace: KeyspaceId, ranges: &[KeyRange]) -> Vec<PartitionId> {
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
        let ReadAnswer { revision, epoch, positions } = answer;
        let Some(reading) = self.readings.get_mut(&id) else { return Ok(()) };
        if reading.answered.is_some() {
            return Ok(());
        }
        let (keyspace, deadline) = (reading.keyspace, reading.deadline);
        // What a sequencer's node has applied is there for good; what a leader has in its log may still give way to another leader's
        // entries. Then a transaction that is decided ends in a later one of these.
        let is_certain = reading.purpose == Purpose::Settle;
        let mut left = BTreeMap::new();
        for (partition, position) in positions {
            let Some(group) = self.groups.get(&GroupId { keyspace, partition }) else { return Ok(()) };
            match group.partition().map(Partition::applied) {
                Some(applied) if applied.index < position.index => _ = left.insert(partition, position),
                None => _ = left.insert(partition, position),
                // It is asked again, when the new leader has registered.
                Some(applied) if !is_certain && applied.term != position.term => return Ok(()),
                Some(_) => {}
            }
        }
        for (partition, Position { term, index }) in &left {
            if let Some(group) = self.groups.get_mut(&GroupId { keyspace, partition: *partition }) {
                let term = Some(*term).filter(|_| !is_certain);
                let then = Then::Reading(id, *partition);
                let wait = Wait { term, confirm: None, deadline, then };
                group.waits.entry(*index).or_default().push(wait);
            }
        }
        if let Some(reading) = self.readings.get_mut(&id) {
            reading.answered = Some((revision, epoch, left.into_keys().collect()));
        }
        self.finish_reading(id)
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
            self.readings.insert(self.next_reading, Reading { answered: None, ..reading });
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
            Purpose::Client(ticket) => {
                let grant = Grant { keyspace: reading.keyspace, revision, term };
                self.out.grants.push((ticket, Ok(grant)));
            }
            Purpose::Settle => {
                self.settling.remove(&reading.keyspace);
                self.settled_at(reading.keyspace, revision)?;
            }
        }
        Ok(())
    }

    /// The keyspace is deleted.
    pub(super) fn end_readings(&mut self, keyspace: KeyspaceId) {
        for (_, reading) in self.readings.extract_if(.., |_, reading| reading.keyspace == keyspace) {
            if let Purpose::Client(ticket) = reading.purpose {
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
                Purpose::Client(ticket) => self.out.grants.push((ticket, Err(Rejection::Timeout))),
                Purpose::Settle => {
                    self.settling.remove(&reading.keyspace);
                }
            }
        }
        let again = self
            .readings
            .iter()
            .filter(|(_, reading)| reading.answered.is_none() && now.since(reading.asked) >= ASK_AGAIN_TICKS);
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
        if self.sequencer.is_none() && self.settling.insert(keyspace) {
            self.begin_reading(Purpose::Settle, keyspace, Vec::new())?;
        }
        Ok(())
    }
}
