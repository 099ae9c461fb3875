//! Transactions over partitions are decided at their home (`transacting.rs`): evaluated over what all partitions voted, drawn, written into the log, told to
//! those that are owed the decision.

use super::Host;
use super::requests::propose;
use super::sequencing::Count;
use crate::draws::Decision;
use crate::group::{Origin, State, Then, Wait};
use crate::transaction::{Attempt, Phase, TxnMessage};
use quorate_consensus::Consensus;
use quorate_mvcc::engine::Engine;
use quorate_partition::{Partition, ReadError, transactions};
use quorate_types::{
    Fault, Footprint, GroupId, KeyspaceId, PartitionId, PreState, Revision, Term, Tick, TxnId, reached,
};
use std::collections::{BTreeMap, BTreeSet};

impl<E: Engine> Host<E> {
    /// All have voted yes: the request is evaluated, and if it changes something, decided.
    pub(super) fn decide(&mut self, keyspace: KeyspaceId, id: TxnId) -> Result<(), Fault> {
        let home = GroupId { keyspace, partition: id.home };
        let count = self.count(home);
        let Some(attempt) = self.attempts.get_mut(&(keyspace, id)) else { return Ok(()) };
        match count {
            Count::Sequenced(_) => {
                let terms = attempt.terms();
                let are_current =
                    self.sequencer.as_ref().is_some_and(|sequencer| sequencer.are_current(keyspace, &terms));
                if are_current {
                    self.decide_at(keyspace, id, count, None)
                } else {
                    reached!("vote-of-deposed-participant");
                    self.give_up(keyspace, id, true)
                }
            }
            Count::Afar => {
                attempt.phase = Phase::Drawing;
                self.want_decision(keyspace, id);
                Ok(())
            }
            // Until there is a sequencer to draw from; the attempt ends when its time is over.
            _ => {
                reached!("decision-waits-for-sequencer");
                self.undecided.insert((keyspace, id));
                Ok(())
            }
        }
    }

    /// What a sequencer elsewhere has to be asked to decide an attempt.
    pub(super) fn decision_of(&self, keyspace: KeyspaceId, id: TxnId) -> Result<Option<Decision>, Fault> {
        let home = GroupId { keyspace, partition: id.home };
        let attempt = self.attempts.get(&(keyspace, id));
        let Some(attempt) = attempt.filter(|attempt| attempt.phase == Phase::Drawing) else {
            return Ok(None);
        };
        let Some(partition) = self.groups.get(&home).and_then(|group| group.partition()) else {
            return Ok(None);
        };
        let states = Self::states_of(attempt, partition, id, self.now)?;
        let (terms, partitions) = (attempt.terms(), attempt.partitions as u64);
        if Self::answer_of_leases(&attempt.work.request, &states).is_some() {
            return Ok(Some(Decision { home, id, terms, changed: Vec::new(), partitions }));
        }
        let Some(places) = self.router.places(keyspace) else { return Ok(None) };
        let outcome = transactions::evaluate_over(
            &attempt.work.request,
            &states,
            &places,
            partition.newest(),
            &self.options.partition,
            self.is_refusing(keyspace),
        );
        let changed = match outcome {
            Ok(outcome) if outcome.drawn.is_some() => outcome.changed(),
            Ok(_) | Err(ReadError::Rejection(_)) => Vec::new(),
            Err(ReadError::Fault(fault)) => return Err(fault),
        };
        Ok(Some(Decision { home, id, terms, changed, partitions }))
    }

    /// What all who take part hold.
    fn states_of(
        attempt: &Attempt,
        partition: &Partition<E>,
        id: TxnId,
        now: Tick,
    ) -> Result<BTreeMap<PartitionId, (Footprint, PreState)>, Fault> {
        let mut states = BTreeMap::new();
        for (partition_id, share) in &attempt.shares {
            let state = match &share.vote {
                Some(_) if *partition_id == id.home => partition.pre_state(&share.footprint, now)?,
                Some((_, state)) => state.clone(),
                None => panic!("attempt {id} is decided without the vote of {partition_id}"),
            };
            states.insert(*partition_id, (share.footprint.clone(), state));
        }
        Ok(states)
    }

    /// The request is evaluated at this count; if it draws, then what was `given` for it, or else from the sequencer here.
    pub(super) fn decide_at(
        &mut self,
        keyspace: KeyspaceId,
        id: TxnId,
        count: Count,
        given: Option<Revision>,
    ) -> Result<(), Fault> {
        let home = GroupId { keyspace, partition: id.home };
        let (Count::Sequenced(at) | Count::Granted(at)) = count else { return Ok(()) };
        let no_space = self.is_refusing(keyspace);
        let Some(attempt) = self.attempts.get_mut(&(keyspace, id)) else { return Ok(()) };
        let terms = attempt.terms();
        if attempt.partitions != self.router.partitions(keyspace).len() {
            reached!("split-under-attempt");
            return self.give_up(keyspace, id, true);
        }
        let Some(group) = self.groups.get_mut(&home) else { return Ok(()) };
        if group.raft.can_propose().is_err() {
            return self.give_up(keyspace, id, true);
        }
        let index = group.raft.last().index.next();
        let (now, after) = (self.now, group.proposed);
        let State::Ready(partition) = &mut group.state else { return Ok(()) };
        partition.observe(at);
        let states = Self::states_of(attempt, partition, id, now)?;
        let is_unknown = |(footprint, state): &(Footprint, PreState)| {
            footprint.past.iter().any(|past| state.at < past.revision && past.revision <= at)
        };
        if states.values().any(is_unknown) {
            reached!("past-read-too-early");
            // When that one looked, neither it nor this one knew that the revision had been given out. Now this one does.
            return self.give_up(keyspace, id, true);
        }
        if let Some(answer) = Self::answer_of_leases(&attempt.work.request, &states) {
            let then = Then::Reply(attempt.work.origin, (at, answer));
            let (work, deadline) = (attempt.work.clone(), attempt.work.deadline);
            self.end_attempt(keyspace, id);
            return self.begin_sequenced(home, after, then, Some(work), deadline);
        }
        let Some(places) = self.router.places(keyspace) else { return Ok(()) };
        let limits = &self.options.partition;
        let deadline = attempt.work.deadline;
        let outcome = match transactions::evaluate_over(
            &attempt.work.request,
            &states,
            &places,
            at,
            limits,
            no_space,
        ) {
            // What a sequencer elsewhere was not asked for must not be taken; it is asked anew.
            Ok(outcome)
                if count == Count::Granted(at) && outcome.drawn.is_some() && outcome.drawn != given =>
            {
                return self.give_up(keyspace, id, true);
            }
            Ok(outcome) if !outcome.parts.is_empty() => outcome,
            Ok(outcome) => {
                let then = Then::Reply(attempt.work.origin, outcome.reply);
                let work = attempt.work.clone();
                self.end_attempt(keyspace, id);
                return self.begin_sequenced(home, after, then, Some(work), deadline);
            }
            Err(ReadError::Rejection(rejection)) => {
                let then = Then::Refuse(attempt.work.origin, rejection);
                let work = attempt.work.clone();
                self.end_attempt(keyspace, id);
                return self.begin_sequenced(home, after, then, Some(work), deadline);
            }
            Err(ReadError::Fault(fault)) => return Err(fault),
        };
        let (kind, data) = match partition.decide(id, &outcome, index) {
            Ok(entry) => entry,
            Err(rejection) => {
                let work = attempt.work.clone();
                self.end_attempt(keyspace, id);
                // One of this node's own would be tried, and be too large, in every tick.
                if work.origin != Origin::Own {
                    self.turn_away(home, &work, rejection);
                }
                return Ok(());
            }
        };
        attempt.phase = Phase::Deciding(outcome.drawn);
        let origin = attempt.work.origin;
        let position = propose(&mut group.raft, kind, data, index);
        group.proposed = position;
        let epoch = group.registered;
        self.dirty.insert(home);
        self.rouse_blocked.insert(home);
        // A compaction has no revision of its own, and may be up to the newest given out.
        if outcome.drawn.is_none() {
            self.show(keyspace, at);
        }
        if let Some(revision) = outcome.drawn.filter(|_| given.is_none()) {
            let changed = outcome.changed();
            let changed: Vec<(PartitionId, Term)> =
                terms.into_iter().filter(|(partition, _)| changed.contains(partition)).collect();
            self.take_revision(home, &changed, revision);
        }
        let Some(group) = self.groups.get_mut(&home) else { return Ok(()) };
        let reply = Then::Reply(origin, outcome.reply);
        let waits = group.waits.entry(index).or_default();
        let term = Some(position.term);
        // Others are told when it is decided; the client when the sequencer's office is confirmed, too.
        let then = Then::Decided(keyspace, id);
        waits.push(Wait { term, confirm: None, deadline: Tick(u64::MAX), then });
        waits.push(Wait { term, confirm: epoch, deadline, then: reply });
        self.wants_office.insert(home);
        Ok(())
    }

    /// The decision is applied, or another leader's entry took its place.
    pub(super) fn on_decided(&mut self, keyspace: KeyspaceId, id: TxnId, is_decided: bool) {
        reached!("decision-overwritten", !is_decided);
        let Some(attempt) = self.attempts.remove(&(keyspace, id)) else { return };
        if is_decided {
            // Those that have nothing to change hold locks all the same.
            let home = GroupId { keyspace, partition: id.home };
            let owed: BTreeSet<PartitionId> = self.owe(home, id);
            for partition in attempt.shares.keys().filter(|partition| **partition != id.home) {
                if !owed.contains(partition) {
                    self.tell(keyspace, *partition, TxnMessage::Finish { id, effects: None });
                }
            }
            self.tell_decision(home, id);
        }
    }

    /// Whom a decision of this partition is owed to; noted, to be told until they have it.
    fn owe(&mut self, home: GroupId, id: TxnId) -> BTreeSet<PartitionId> {
        let parts = self.groups.get(&home).and_then(|group| group.partition()?.decision(id));
        let owed: BTreeSet<PartitionId> =
            parts.unwrap_or_default().iter().map(|part| part.partition).collect();
        if !owed.is_empty() {
            self.owed.insert((home.keyspace, id), owed.clone());
        }
        owed
    }

    /// A new leader of a home partition owes what earlier ones decided.
    pub(super) fn owe_all(&mut self, home: GroupId) {
        let ids: Vec<TxnId> = match self.groups.get(&home).and_then(|group| group.partition()) {
            Some(partition) => partition.decided().map(|(id, _)| id).collect(),
            None => Vec::new(),
        };
        for id in ids {
            reached!("decision-owed-after-change");
            self.owe(home, id);
            self.tell_decision(home, id);
        }
    }

    pub(super) fn tell_decision(&mut self, home: GroupId, id: TxnId) {
        let Some(owed) = self.owed.get(&(home.keyspace, id)).cloned() else { return };
        for partition in owed {
            let parts =
                self.groups.get(&home).and_then(|group| group.partition()?.decision(id)).unwrap_or_default();
            let part = parts.iter().find(|part| part.partition == partition);
            let effects = part.map(|part| part.effects.clone());
            self.tell(home.keyspace, partition, TxnMessage::Finish { id, effects });
        }
    }
}
