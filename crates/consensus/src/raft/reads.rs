//! Read barriers without a log entry (ReadIndex; thesis, 6.4).
//!
//! A read is confirmed by a round of heartbeats that began after it arrived; reads that arrive while a
//! round is under way wait for the next. Rounds are numbered, and an answer to a later round proves an
//! earlier one too, so regular heartbeats repair lost ones. An old answer never confirms a new read.
//!
//! **A question is an answer.** A follower that asks says in which term it is, after the read came to it, as it would in answer to a heartbeat. Where it and
//! the leader are a quorum, as in a group of three, no round is needed: a later leader had been elected by one of the two, and neither had left this term.
//!
//! A read forwarded to the leader travels under a name of ours, not its asker's: those are unique within
//! a process only, and an answer can outlive the process that asked.

use super::{Raft, State};
use crate::{Message, ReadId, ReadOutcome};
use quorate_types::{Index, NodeId, Term, reached};
use std::collections::VecDeque;

/// Reads waiting on one replica; more fail at once.
const READS_MAX: usize = 65_536;
/// Rounds whose beginning is remembered, for lease reads.
const ROUNDS_MAX: usize = 64;

/// Who asked (`None`: this replica's own client), and the name given to it there.
type Asker = (Option<NodeId>, ReadId);

/// A leader's heartbeat rounds and the reads that wait for them.
#[derive(Default)]
pub(super) struct Rounds {
    newest: u64,
    /// Number and tick of the beginning, ascending.
    begun: VecDeque<(u64, u64)>,
    /// Reads that no round covers yet.
    waiting: Vec<Asker>,
    /// The round under way for reads: its number, the commit index when it began, the reads.
    current: Option<(u64, Index, Vec<Asker>)>,
}

impl Rounds {
    /// Begins a round.
    pub(super) fn next(&mut self, now: u64) -> u64 {
        self.newest += 1;
        self.begun.push_back((self.newest, now));
        if self.begun.len() > ROUNDS_MAX {
            self.begun.pop_front();
        }
        self.newest
    }

    /// The ticks in which rounds began say nothing of how long ago that was.
    pub(super) fn forget_begun(&mut self) {
        self.begun.clear();
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn take_all(&mut self) -> Vec<Asker> {
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(self.current.take().into_iter().flat_map(|(_, _, reads)| reads));
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.waiting.len() + self.current.as_ref().map_or(0, |(_, _, reads)| reads.len())
    }
}

impl Raft {
    pub(super) fn begin_read(&mut self, read: ReadId) {
        self.end_hibernation();
        match &mut self.state {
            State::Leader(_) => self.queue_read(None, read),
            State::Follower { leader: Some(leader) } if self.forwarded.len() < READS_MAX => {
                let name = ReadId(self.forwarded_name.0.wrapping_add(1));
                self.forwarded_name = name;
                self.send_now.push((*leader, Message::ReadRequest { term: self.term, read: name }));
                self.forwarded.insert(name, (read, self.now + self.options.election_ticks_min));
            }
            _ => self.fail_read(None, read),
        }
    }

    /// A read of another node, which said that it was in `term` after the read came there; the answer is wanted here.
    pub(super) fn begin_read_for(&mut self, asker: NodeId, term: Term, read: ReadId) {
        self.end_hibernation();
        if term == self.term && self.is_confirmed_by(asker) {
            self.idle = 0;
            self.answer_reads(self.commit, vec![(None, read)]);
        } else {
            self.begin_read(read);
        }
    }

    /// Whether a quorum is known to have been in this term after what `asker` says now. While a round is under way reads wait for the next all the same: many
    /// answers leave together then.
    fn is_confirmed_by(&self, asker: NodeId) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let id = self.options.id;
        let is_confirmed = leader.rounds.is_empty()
            && self.log.term_at(self.commit) == Some(self.term)
            && self.log.configuration().1.agreed(|voter| voter == id || voter == asker);
        reached!("read-confirmed-by-who-asks", is_confirmed);
        is_confirmed
    }

    fn queue_read(&mut self, from: Option<NodeId>, read: ReadId) {
        let State::Leader(leader) = &mut self.state else { return };
        if leader.rounds.len() < READS_MAX {
            leader.rounds.waiting.push((from, read));
            self.idle = 0;
        } else {
            self.fail_read(from, read);
        }
    }

    pub(super) fn on_read_request(&mut self, from: NodeId, read: ReadId) {
        // It is of this term, or it would not have been admitted.
        if self.is_confirmed_by(from) {
            self.idle = 0;
            self.answer_reads(self.commit, vec![(Some(from), read)]);
        } else if matches!(self.state, State::Leader(_)) {
            self.queue_read(Some(from), read);
        } else {
            self.fail_read(Some(from), read);
        }
    }

    pub(super) fn on_read_response(&mut self, name: ReadId, index: Option<Index>) {
        if let Some((read, _)) = self.forwarded.remove(&name) {
            let outcome = index.map_or(ReadOutcome::Failed, ReadOutcome::Ready);
            self.read_outcomes.push((read, outcome));
        }
    }

    pub(super) fn tick_reads(&mut self) {
        if self.forwarded.is_empty() {
            return;
        }
        let now = self.now;
        let late = self.forwarded.iter().filter(|(_, (_, deadline))| *deadline <= now);
        for name in late.map(|(name, _)| *name).collect::<Vec<_>>() {
            if let Some((read, _)) = self.forwarded.remove(&name) {
                reached!("forwarded-read-late");
                self.fail_read(None, read);
            }
        }
    }

    /// Begins a round for the reads that wait, if none is under way. Until an entry of our own term is
    /// committed we may not know what earlier leaders committed, so the reads wait for that.
    pub(super) fn start_read_round(&mut self) {
        let is_alone = self.is_alone();
        let is_leased = self.holds_lease();
        let State::Leader(leader) = &mut self.state else { return };
        reached!(
            "read-waits-for-own-term",
            !leader.rounds.waiting.is_empty() && self.log.term_at(self.commit) != Some(self.term)
        );
        if leader.rounds.waiting.is_empty()
            || leader.rounds.current.is_some()
            || self.log.term_at(self.commit) != Some(self.term)
        {
            return;
        }
        let reads = std::mem::take(&mut leader.rounds.waiting);
        reached!("read-by-lease", is_leased && !is_alone);
        if is_alone || is_leased {
            return self.answer_reads(self.commit, reads);
        }
        leader.rounds.current = Some((leader.rounds.newest + 1, self.commit, reads));
        self.send_heartbeats();
    }

    /// The newest round that a quorum has answered, ourselves included.
    fn quorum_round(&self) -> u64 {
        let State::Leader(leader) = &self.state else { return 0 };
        self.agreed(leader.rounds.newest, |follower| follower.round)
    }

    fn holds_lease(&self) -> bool {
        let (Some(ticks), State::Leader(leader)) = (self.options.lease_read, &self.state) else {
            return false;
        };
        let round = self.quorum_round();
        let begun = leader.rounds.begun.iter().find(|(number, _)| *number == round);
        reached!("lease-given-up-for-hand-over", leader.has_let_campaign);
        // It counts from when the round began: from then on a quorum refuses votes to others.
        !leader.has_let_campaign && begun.is_some_and(|(_, tick)| self.now < tick + ticks)
    }

    pub(super) fn confirm_reads(&mut self) {
        let round = self.quorum_round();
        let State::Leader(leader) = &mut self.state else { return };
        if leader.rounds.current.as_ref().is_some_and(|(number, _, _)| *number <= round)
            && let Some((_, index, reads)) = leader.rounds.current.take()
        {
            self.answer_reads(index, reads);
        }
    }

    fn answer_reads(&mut self, index: Index, reads: Vec<Asker>) {
        for (from, read) in reads {
            match from {
                None => self.read_outcomes.push((read, ReadOutcome::Ready(index))),
                Some(node) => {
                    let answer = Message::ReadResponse { term: self.term, read, index: Some(index) };
                    self.send_now.push((node, answer));
                }
            }
        }
    }
}
