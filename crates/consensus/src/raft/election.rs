//! Who leads: votes, pre-votes, the quorum check, hand-over.
//!
//! * A pre-vote asks whether a campaign would be won, so that a replica that was cut off does not come
//!   back with a higher term and depose a leader that everybody else hears (thesis, 9.6).
//! * A voter that hears its leader refuses votes and pre-votes, unless the leader itself asked for the
//!   election (thesis, 4.2.3).
//! * A leader that has not heard a quorum within an election timeout steps down (thesis, 6.2), so that its
//!   clients look elsewhere.
//! * A leader whose disk has stopped, while those of a quorum have not, says so ([`Consensus::lags`]) for its owner to hand over.
//! * Voting for oneself is a vote: requests leave after it is durable. A candidate that crashed and
//!   forgot its own vote could help to elect a second leader of the same term.

use super::{Follower, Leader, Raft, State, Transfer};
use crate::progress::Mode;
use crate::raft::reads::Rounds;
use crate::{Consensus, HURRIED_TICKS_MAX, Message, ReadId};
use quorate_types::{Bytes, EntryKind, Index, NodeId, Position, Term, reached};
use std::collections::BTreeMap;

/// After the leader's connection broke, elections begin within [`HURRIED_TICKS_MAX`] so many times in a row, before the ordinary
/// timeout counts again. Asking whether the others would vote, and asking for their votes, are two.
const HURRIED_TRIES: u8 = 8;

impl Raft {
    /// Brings our term and the message's together; false when the message is to be ignored.
    pub(super) fn admit_term(&mut self, from: NodeId, message: &Message) -> bool {
        let term = message.term();
        if term > self.term {
            match message {
                // A pre-vote binds nobody; one that was granted names the term that would follow.
                Message::VoteRequest { pre: true, .. } => {}
                Message::VoteResponse { pre: true, granted: true, .. } => {}
                Message::VoteRequest { transfer, .. } => {
                    if !transfer && self.honours_a_leader() {
                        reached!("candidate-of-newer-term-not-heard");
                        return false;
                    }
                    self.become_follower(term, None);
                }
                Message::Append { .. }
                | Message::Heartbeat { .. }
                | Message::SnapshotOffer { .. }
                | Message::Hibernate { .. } => {
                    self.become_follower(term, Some(from));
                }
                _ => self.become_follower(term, None),
            }
        } else if term < self.term {
            match message {
                // Tells a leader or candidate of the past which term it is; without an answer a replica that
                // has a higher term could never be brought back (its own pre-votes are refused).
                Message::Append { .. }
                | Message::Heartbeat { .. }
                | Message::SnapshotOffer { .. }
                | Message::Hibernate { .. } => {
                    self.call(from);
                }
                Message::VoteRequest { pre, .. } => {
                    let refusal = Message::VoteResponse { term: self.term, granted: false, pre: *pre };
                    self.send_after.push((from, refusal));
                }
                _ => {}
            }
            return false;
        }
        if let Message::Append { .. }
        | Message::Heartbeat { .. }
        | Message::SnapshotOffer { .. }
        | Message::Hibernate { .. } = message
        {
            return self.heard_leader(from);
        }
        true
    }

    /// A leader of our term spoke.
    fn heard_leader(&mut self, from: NodeId) -> bool {
        match &self.state {
            // Two leaders of one term cannot be; whoever says so is not believed.
            State::Leader(_) => return false,
            State::Follower { leader: Some(leader) } if *leader == from => {}
            State::Follower { leader: Some(_) } => return false,
            State::Follower { leader: None } | State::Candidate { .. } => {
                self.become_follower(self.term, Some(from));
            }
        }
        self.elapsed = 0;
        self.since_leader = 0;
        if self.hurried > 0 {
            self.hurried = 0;
            self.draw_timeout();
        }
        true
    }

    fn honours_a_leader(&self) -> bool {
        match &self.state {
            State::Leader(_) => true,
            _ => self.since_leader < self.options.election_ticks_min,
        }
    }

    /// A leader that sleeps would not learn that this replica needs it.
    fn call_others(&mut self) {
        if self.options.hibernate_after_ticks.is_some() {
            self.others().into_iter().for_each(|other| self.call(other));
        }
    }

    pub(super) fn begin_election(&mut self) {
        reached!("election-while-joint", self.log.configuration().1.is_joint());
        reached!("election-without-winner", matches!(self.state, State::Candidate { is_pre: false, .. }));
        // A leader that cannot serve would only be in the way of one that can.
        if self.is_stateless || self.is_withholding {
            reached!("stateless-does-not-stand");
            if !self.is_withholding {
                self.call_others();
            }
            return self.draw_timeout();
        }
        if !self.may_stand() {
            // Nobody leads that it hears; somebody else will, or does in his sleep.
            self.call_others();
            return self.become_follower(self.term, None);
        }
        if self.is_alone() {
            return self.campaign(false);
        }
        self.fail_reads();
        self.state = State::Candidate { is_pre: true, votes: BTreeMap::from([(self.options.id, true)]) };
        self.draw_election_timeout();
        let request = Message::VoteRequest {
            term: self.term.next(),
            last: self.log.last(),
            pre: true,
            transfer: false,
        };
        for voter in self.other_voters() {
            self.send_now.push((voter, request.clone()));
        }
    }

    /// How long a candidate waits for votes: short while a dead leader's voters are noticing its death
    /// one after the other.
    fn draw_election_timeout(&mut self) {
        self.draw_timeout();
        if self.hurried > 0 {
            self.hurried -= 1;
            self.timeout = self.random.between(2, 2 + 2 * HURRIED_TICKS_MAX);
        }
    }

    fn campaign(&mut self, is_transfer: bool) {
        self.become_follower(self.term.next(), None);
        self.vote = Some(self.options.id);
        self.state = State::Candidate { is_pre: false, votes: BTreeMap::from([(self.options.id, true)]) };
        self.draw_election_timeout();
        // With nobody to tell, the vote may become durable with the term's first entry.
        if self.others().is_empty() {
            return self.become_leader();
        }
        let request = Message::VoteRequest {
            term: self.term,
            last: self.log.last(),
            pre: false,
            transfer: is_transfer,
        };
        for voter in self.other_voters() {
            self.send_after.push((voter, request.clone()));
        }
    }

    fn other_voters(&self) -> Vec<NodeId> {
        let (_, configuration) = self.log.configuration();
        self.others().into_iter().filter(|other| configuration.is_voter(*other)).collect()
    }

    pub(super) fn on_vote_request(
        &mut self,
        from: NodeId,
        term: Term,
        last: Position,
        pre: bool,
        transfer: bool,
    ) {
        // Not even a refusal, which would be an answer of a voter.
        if self.is_withholding {
            reached!("vote-withheld");
            return;
        }
        let is_up_to_date = last >= self.log.last();
        reached!("vote-asked-again", !pre && self.vote == Some(from) && self.leader().is_none());
        reached!("vote-refused-given-to-other", !pre && self.vote.is_some_and(|vote| vote != from));
        reached!(
            "pre-vote-blocked-by-leader",
            pre && is_up_to_date && term > self.term && self.honours_a_leader()
        );
        reached!("pre-vote-refused-shorter-log", pre && !is_up_to_date);
        reached!("vote-refused-shorter-log", !pre && !is_up_to_date);
        let granted = if pre {
            term > self.term && is_up_to_date && !self.honours_a_leader()
        } else {
            // The same candidate may ask again when our answer was lost.
            let is_free = self.vote.is_none_or(|vote| vote == from);
            let is_undecided = self.leader().is_none();
            is_free && is_undecided && is_up_to_date && (transfer || !self.honours_a_leader())
        };
        if granted && !pre {
            if self.vote != Some(from) {
                self.vote = Some(from);
                self.hard_state_changed = true;
            }
            self.state = State::Follower { leader: None };
            self.draw_timeout();
        }
        let answer = Message::VoteResponse { term: if granted { term } else { self.term }, granted, pre };
        self.send_after.push((from, answer));
    }

    pub(super) fn on_vote_response(&mut self, from: NodeId, term: Term, granted: bool, pre: bool) {
        let expected = if pre && granted { self.term.next() } else { self.term };
        let State::Candidate { is_pre, votes, .. } = &mut self.state else { return };
        if *is_pre != pre || term != expected {
            return;
        }
        votes.insert(from, granted);
        self.count_votes();
    }

    pub(super) fn count_votes(&mut self) {
        let State::Candidate { is_pre, votes } = &self.state else { return };
        let (_, configuration) = self.log.configuration();
        if configuration.agreed(|voter| votes.get(&voter) == Some(&true)) {
            if *is_pre {
                self.campaign(false);
            } else {
                self.become_leader();
            }
        }
    }

    fn become_leader(&mut self) {
        reached!("leader-found-joint", self.log.configuration().1.is_joint());
        reached!("leader-with-inherited-tail", self.log.last().index > self.commit);
        let last = self.log.last().index;
        let inflight_max = self.options.inflight_messages_max;
        let followers = self
            .others()
            .into_iter()
            .map(|other| (other, Follower::new(last, inflight_max, self.now)))
            .collect();
        let uncommitted_bytes = (self.commit.0 + 1..=last.0)
            .filter_map(|index| self.log.get(Index(index)))
            .map(quorate_types::Entry::size)
            .sum();
        self.hurried = 0;
        self.fetch = None;
        self.fetch_is_new = false;
        self.state = State::Leader(Leader {
            fence: Position::default(),
            followers,
            uncommitted_bytes,
            since_heartbeat: 0,
            is_late: false,
            rounds: Rounds::default(),
            transfer: None,
            behind: None,
            has_let_campaign: false,
        });
        let position = self.push(EntryKind::Fence, Bytes::new());
        if let State::Leader(leader) = &mut self.state {
            leader.fence = position;
        }
        // At once, so that other candidates and followers know.
        self.send_heartbeats();
    }

    pub(super) fn tick_leader(&mut self) {
        // Looked at in every tick. Once in a timeout would take up to two, and those who hear it help nobody else into office meanwhile.
        let (heard, now) = (self.agreed(self.now, |follower| follower.heard), self.now);
        if now - heard >= self.options.election_ticks_min {
            reached!("leader-without-quorum-resigned");
            let resigned = Message::Resigned { term: self.term };
            self.send_now.extend(self.others().into_iter().map(|other| (other, resigned.clone())));
            self.since_leader = self.options.election_ticks_min;
            return self.become_follower(self.term, None);
        }
        let State::Leader(leader) = &mut self.state else { return };
        if leader.transfer.as_ref().is_some_and(|transfer| transfer.deadline <= now) {
            reached!("hand-over-given-up");
            leader.transfer = None;
        }
        reached!("committed-beyond-own-disk", self.commit > self.persisted);
        // Not the age of a write: where all disks are slow nobody would do better.
        if leader.behind.is_none_or(|(index, _)| index <= self.persisted) {
            leader.behind = (self.commit > self.persisted).then_some((self.commit, now));
        }
        self.idle += 1;
        leader.since_heartbeat += 1;
        let is_late = std::mem::take(&mut leader.is_late);
        if leader.since_heartbeat >= self.options.heartbeat_ticks {
            leader.since_heartbeat = 0;
            if self.may_hibernate() {
                return self.hibernate();
            }
            let State::Leader(leader) = &mut self.state else { return };
            for follower in leader.followers.values_mut() {
                let matched = follower.progress.matched();
                let is_outstanding = follower.progress.next() > matched.next();
                match follower.progress.mode() {
                    Mode::Probe { .. } => follower.progress.resume(),
                    Mode::Replicate if is_outstanding && matched == follower.matched_before => {
                        reached!("appends-lost-probed");
                        follower.progress.probe();
                    }
                    Mode::Replicate | Mode::Snapshot => {}
                }
                follower.matched_before = matched;
            }
            self.send_heartbeats();
            self.repeat_offers();
        } else if is_late {
            // What is under way to followers has had no more time than before.
            self.send_heartbeats();
        }
    }

    pub(super) fn on_peer_lost(&mut self, node: NodeId, delay: u64) {
        // What was under way to it or from it is lost, also what would have ended hibernation.
        if self.leader() == Some(node) || matches!(self.state, State::Leader(_)) {
            self.end_hibernation();
        }
        // It will hardly take over; what waits for it goes on. If it does all the same, it is a leader like another.
        if let State::Leader(leader) = &mut self.state
            && leader.transfer.as_ref().is_some_and(|transfer| transfer.to == node)
        {
            reached!("hand-over-to-lost-connection");
            leader.transfer = None;
        }
        // A leader that reads by lease counts on every voter honouring it for the whole time.
        if self.options.lease_read.is_some() {
            return;
        }
        match &mut self.state {
            State::Follower { leader } if *leader == Some(node) => self.lose_leader(delay),
            State::Leader(leader) => {
                if let Some(follower) = leader.followers.get_mut(&node)
                    && follower.progress.mode() == Mode::Replicate
                {
                    follower.progress.probe();
                }
            }
            _ => {}
        }
    }

    pub(super) fn begin_transfer(&mut self, to: Option<NodeId>) {
        let deadline = self.now + self.options.election_ticks_min;
        self.end_hibernation();
        let (_, configuration) = self.log.configuration();
        let State::Leader(leader) = &mut self.state else { return };
        // Those who are on their way out would not lead for long; who waits for a state cannot, whatever it has of the log.
        let is_voter = |id: &NodeId| configuration.voters.contains(id);
        let is_heard = |id: &NodeId, follower: &Follower| {
            !self.down.contains(id) && self.now - follower.heard < self.options.election_ticks_min
        };
        let is_able = |id: &NodeId, follower: &Follower| {
            is_heard(id, follower)
                && follower.progress.mode() != Mode::Snapshot
                && follower.withholds != Some(true)
        };
        let best = || {
            let able = leader.followers.iter().filter(|(id, follower)| is_able(id, follower) && is_voter(id));
            able.max_by_key(|(_, follower)| follower.progress.matched()).map(|(id, _)| *id)
        };
        let Some(to) = to.or_else(best) else { return };
        if leader.followers.get(&to).is_some_and(|follower| is_able(&to, follower)) && is_voter(&to) {
            leader.transfer = Some(Transfer { to, deadline, is_told: false });
            self.maybe_hand_over();
        }
    }

    /// Tells the follower that takes over, once it holds everything.
    pub(super) fn maybe_hand_over(&mut self) {
        let (term, last) = (self.term, self.log.last().index);
        let State::Leader(leader) = &mut self.state else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let Some(follower) = leader.followers.get(&transfer.to) else { return };
        reached!("hand-over-waits-for-log", follower.progress.matched() < last);
        if !transfer.is_told && follower.progress.matched() == last {
            transfer.is_told = true;
            leader.has_let_campaign = true;
            self.send_now.push((transfer.to, Message::TimeoutNow { term }));
        }
    }

    /// The leader of this term says that it is none any more: others may hear it though it does not hear them, and would honour it for another timeout. It
    /// has waited for one itself, so its lease is over.
    pub(super) fn on_resigned(&mut self, from: NodeId) {
        if !matches!(self.state, State::Follower { leader: Some(leader) } if leader == from) {
            return;
        }
        reached!("resignation-believed");
        let delay = self.random.between(1, 1 + HURRIED_TICKS_MAX);
        self.lose_leader(delay);
    }

    fn lose_leader(&mut self, delay: u64) {
        self.state = State::Follower { leader: None };
        self.fail_reads();
        self.since_leader = self.options.election_ticks_min;
        self.hurried = HURRIED_TRIES;
        self.elapsed = 0;
        self.timeout = delay;
    }

    pub(super) fn on_timeout_now(&mut self) {
        let is_able = self.may_stand() && !self.is_stateless && !self.is_withholding;
        if !matches!(self.state, State::Leader(_)) && is_able {
            self.campaign(true);
        }
    }

    /// Every read that waits for a leadership that is over fails.
    pub(super) fn fail_reads(&mut self) {
        reached!("reads-failed-with-leader", !self.forwarded.is_empty());
        let forwarded = std::mem::take(&mut self.forwarded);
        for (read, _) in forwarded.into_values() {
            self.fail_read(None, read);
        }
        if let State::Leader(leader) = &mut self.state {
            for (from, read) in leader.rounds.take_all() {
                self.fail_read(from, read);
            }
        }
    }

    pub(super) fn fail_read(&mut self, from: Option<NodeId>, read: ReadId) {
        match from {
            None => self.read_outcomes.push((read, crate::ReadOutcome::Failed)),
            Some(node) => {
                self.send_now.push((node, Message::ReadResponse { term: self.term, read, index: None }));
            }
        }
    }
}
