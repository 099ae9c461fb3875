//! Reads over the partitions of a keyspace, at one revision.
//!
//! A node that wants to read asks the sequencer's: the newest revision R, confirmed to have been newest by a read barrier of the meta
//! group begun after the question came; and for each partition concerned the index up to which this node must have applied
//! its log to see, of the keys asked about, everything up to R. Then it reads its own copy as of R.
//!
//! A partition's leader gives the index when
//! * it is registered with the sequencer that named R: so no other leader of the partition was given a revision;
//! * no prepared transaction that may commit at R or before holds one of the keys (it waits);
//! * and it names an index past every entry of its log that changes one of the keys at R or before, committed or not.
//!
//! The same question without the confirmation and about all keys tells a follower how far all of a keyspace is applied: what merged
//! watches are released by. It costs no barrier, because a revision that is too old does no harm there.

use super::Host;
use crate::effects::{Grant, Ticket};
use crate::group::{Question, Then, Wait};
use crate::peer::{PeerMessage, ReadAnswer};
use crate::router::Target;
use quorate_mvcc::engine::Engine;
use quorate_types::{
    Fault, GroupId, Index, KeyRange, KeyspaceId, NodeId, PartitionId, Rejection, Revision, Term, Tick,
};
use std::collections::BTreeSet;

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
        // What is settled needs no waiting: all of it is applied here.
        if let Some(revision) = self.published_revision(keyspace) {
            let applied = |partition: &PartitionId| {
                let group = self.groups.get(&GroupId { keyspace, partition: *partition })?;
                Some((*partition, group.applied()))
            };
            let indexes = self.router.partitions(keyspace).iter().filter_map(applied).collect();
            self.answer_reading(from, reading, ReadAnswer { revision, epoch, indexes })?;
        }
        Ok(())
    }

    /// The sequencer was in office when it named the revision; now each partition concerned has its say.
    pub(super) fn on_question(&mut self, question: Question) -> Result<(), Fault> {
        let Question { from, reading, keyspace, ref ranges, revision, epoch, deadline } = question;
        let mut indexes = Vec::new();
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
            indexes.push((partition, pending.unwrap_or(Index::START).max(state.applied().index)));
        }
        self.answer_reading(from, reading, ReadAnswer { revision, epoch, indexes })
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
        let ReadAnswer { revision, epoch, indexes } = answer;
        let Some(reading) = self.readings.get_mut(&id) else { return Ok(()) };
        if reading.answered.is_some() {
            return Ok(());
        }
        let (keyspace, deadline) = (reading.keyspace, reading.deadline);
        let mut left = BTreeSet::new();
        for (partition, index) in indexes {
            let group_id = GroupId { keyspace, partition };
            let Some(group) = self.groups.get_mut(&group_id) else { return Ok(()) };
            if group.partition().is_none() || group.applied() < index {
                left.insert(partition);
                // Another leader's entry may come to stand there. Then that leader has registered after the question was
                // answered, and what the answer counted on can only have stayed or vanished.
                let then = Then::Reading(id, partition);
                group.waits.entry(index).or_default().push(Wait {
                    term: None,
                    confirm: None,
                    deadline,
                    then,
                });
            }
        }
        if let Some(reading) = self.readings.get_mut(&id) {
            reading.answered = Some((revision, epoch, left));
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

    /// Finds out how far a keyspace is applied here, unless that is being found out.
    pub(super) fn begin_settling(&mut self, keyspace: KeyspaceId) -> Result<(), Fault> {
        if self.sequencer.is_none() && self.settling.insert(keyspace) {
            self.begin_reading(Purpose::Settle, keyspace, Vec::new())?;
        }
        Ok(())
    }
}
