//! A partition's part in transactions that have their home elsewhere (`transacting.rs`): it locks and votes, and does what was decided.

use super::Host;
use super::precedence::Waiter;
use super::requests::propose;
use super::sequencing::Count;
use super::transacting::ATTEMPT_TICKS;
use crate::group::{Blocked, Prepare, State, Then, Wait};
use crate::transaction::TxnMessage;
use quorate_consensus::Consensus;
use quorate_mvcc::engine::Engine;
use quorate_types::{Effect, Fault, GroupId, Position, PreState, Term, Tick, TxnId, reached};

impl<E: Engine> Host<E> {
    /// Locks a share of an attempt elsewhere, at once or, while something is in the way, some time before `until`.
    pub(super) fn on_prepare(&mut self, id: GroupId, asked: Prepare) -> Result<(), Fault> {
        let (txn, at) = (asked.txn, asked.at);
        let newest = match self.count(id) {
            Count::Sequenced(newest) => newest,
            Count::Afar | Count::Granted(_) => at,
            // Not registered: its locks would be worth nothing. The coordinator tries again.
            Count::Own | Count::Wait => return Ok(()),
        };
        let (now, is_closed) = (self.now, self.is_closed_to_transactions(id));
        // As many as all coordinators may have under way. What they have given up counts until nobody waits for it any more: while nothing is committed
        // here and a vote is missing elsewhere, too, they may begin another in every tick.
        let attempts_max = self.options.inflight_max.saturating_mul(self.members.len() + 1);
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let epoch = group.registered.unwrap_or_default();
        let State::Ready(partition) = &mut group.state else { return Ok(()) };
        // One that comes late must not begin again what is over.
        if partition.holds(txn) || partition.is_prepared(txn) || group.ended.contains_key(&txn) {
            reached!("prepare-after-end", group.ended.contains_key(&txn));
            return Ok(());
        }
        let no = |host: &mut Self| {
            let vote = TxnMessage::Vote { id: txn, from: id.partition, outcome: None, epoch };
            host.tell(id.keyspace, txn.home, vote);
        };
        if group.blocked.len() >= attempts_max || group.waits.len() >= attempts_max {
            no(self);
            return Ok(());
        }
        // A revision may be on its way for a request on these keys, and it must not be used after a later one of this transaction.
        reached!("prepare-behind-draw", group.drawing_asked > 0);
        if group.drawing_asked > 0 {
            group.blocked.push_back(Blocked::Prepare(asked));
            return Ok(());
        }
        let footprint = partition.with_keys_of_leases(asked.footprint.clone())?;
        if is_closed {
            reached!("prepare-while-splitting");
            no(self);
            return Ok(());
        }
        if group.is_share_to_wait(txn, asked.since, &footprint) {
            reached!("attempt-met-locks", !asked.waits);
            if asked.waits {
                reached!("attempt-waits-for-locks");
                group.precedence.wait(Waiter::Attempt(txn), asked.since, &footprint, now);
                group.blocked.push_back(Blocked::Prepare(asked));
            } else {
                no(self);
            }
            return Ok(());
        }
        group.precedence.withdraw(Waiter::Attempt(txn));
        let State::Ready(partition) = &mut group.state else { return Ok(()) };
        partition.observe(newest);
        let state = partition.pre_state(&footprint, now)?;
        let then = Then::Vote(txn, epoch, Box::new(state));
        let deadline = now.after(ATTEMPT_TICKS);
        let position = if footprint.may_change() {
            if group.raft.can_propose().is_err() {
                no(self);
                return Ok(());
            }
            let index = group.raft.last().index.next();
            let (kind, data) = match partition.prepare(txn, footprint, index) {
                Ok(entry) => entry,
                Err(_) => {
                    no(self);
                    return Ok(());
                }
            };
            let position = propose(&mut group.raft, kind, data, index);
            group.proposed = position;
            self.dirty.insert(id);
            position
        } else {
            // Only read: the lock may end with this leader, because the revision is drawn only if it is still registered then. But what
            // was read must be there to stay.
            partition.lock(txn, footprint);
            group.proposed
        };
        group.held_since.insert(txn, now);
        if partition.applied().index >= position.index {
            return self.finish(id, then, deadline);
        }
        let wait = Wait { term: Some(position.term), confirm: None, deadline, then };
        group.waits.entry(position.index).or_default().push(wait);
        Ok(())
    }

    /// What was read or prepared is there to stay.
    pub(super) fn vote(&mut self, id: GroupId, txn: TxnId, epoch: Term, state: PreState) {
        let Some(group) = self.groups.get(&id) else { return };
        let outcome = Some((group.term, state));
        self.tell(id.keyspace, txn.home, TxnMessage::Vote { id: txn, from: id.partition, outcome, epoch });
    }

    pub(super) fn on_finish(
        &mut self,
        id: GroupId,
        txn: TxnId,
        effects: Option<Vec<Effect>>,
    ) -> Result<(), Fault> {
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.blocked.retain(|blocked| !matches!(blocked, Blocked::Prepare(asked) if asked.txn == txn));
        if group.precedence.withdraw(Waiter::Attempt(txn)) {
            self.rouse_blocked.insert(id);
        }
        let State::Ready(partition) = &mut group.state else { return Ok(()) };
        let commits = effects.is_some();
        group.ended.insert(txn, self.now);
        if partition.unlock(txn) {
            group.held_since.remove(&txn);
            self.rouse_blocked.insert(id);
            return Ok(());
        }
        if !partition.holds(txn) {
            // Its end is in the log; whether it is applied decides whether it is owed any more. Or a later leader prepared it, and this one
            // does not know yet that it is deposed: what is not prepared behind a barrier is ended.
            if commits && !partition.is_prepared(txn) {
                reached!("decision-told-again");
                let deadline = self.now.after(self.options.election_ticks_max);
                return self.begin_barrier(id, Position::default(), deadline, Then::Finished(txn), None);
            }
            return Ok(());
        }
        if group.raft.can_propose().is_err() {
            return Ok(());
        }
        let index = group.raft.last().index.next();
        let entry = match effects {
            Some(effects) => partition.commit(txn, effects, index),
            None => partition.abort(txn, index),
        };
        let Some((kind, data)) = entry else { return Ok(()) };
        let position = propose(&mut group.raft, kind, data, index);
        group.proposed = position;
        group.held_since.remove(&txn);
        self.dirty.insert(id);
        self.rouse_blocked.insert(id);
        if commits {
            let then = Then::Finished(txn);
            let deadline = Tick(u64::MAX);
            group.waits.entry(index).or_default().push(Wait {
                term: Some(position.term),
                confirm: None,
                deadline,
                then,
            });
        }
        Ok(())
    }
}
