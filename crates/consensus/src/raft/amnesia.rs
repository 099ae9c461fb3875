//! A replica that lost its disk comes back (compare the recovery protocol of Viewstamped Replication Revisited, 4.3).
//!
//! Raft rests on what voters remember. One that forgot could vote twice in a term, or help to elect a leader without the entries that
//! it had acknowledged. So it withholds its votes until three things are done; the first two are its owner's:
//!
//! 1. Every other voter has been told ([`Raft::on_peer_forgot`]): no vote and no acknowledgement of the former life counts from then
//!    on. Each says which term it is in.
//! 2. The replica goes to the newest of these terms and votes for nobody in it ([`Raft::abstain_in`]). A candidate that could
//!    still win with a forgotten vote is in that term or an earlier one.
//! 3. A read barrier, begun after that and answered by a leader of that term or a later one, has been applied: now it holds again
//!    whatever was committed with its help.
//!
//! Caveat: until all others have answered it stays without a vote; a second loss in that time is two losses.

use super::lineage::LINEAGES_MAX;
use super::{Follower, Raft, State, TERMS_AHEAD_MAX};
use quorate_types::{NodeId, Term, reached};

impl Raft {
    pub(super) fn abstain_in(&mut self, term: Term) {
        // What others say is bounded as their messages' terms are.
        self.end_hibernation();
        let lineage = if term.lineage() < LINEAGES_MAX { term.lineage() } else { 0 };
        let bound = Term::first_of(lineage).max(self.term).0.saturating_add(TERMS_AHEAD_MAX);
        let term = term.min(Term(bound));
        if term > self.term {
            self.become_follower(term, None);
        }
        if self.vote.is_none() {
            reached!("abstained");
            // Whom it voted for is forgotten; for nobody else, then.
            self.vote = Some(self.options.id);
            self.hard_state_changed = true;
        }
    }

    pub(super) fn on_peer_forgot(&mut self, node: NodeId) {
        self.end_hibernation();
        match &mut self.state {
            State::Candidate { votes, .. } => {
                reached!("forgotten-vote-taken-back", votes.get(&node) == Some(&true));
                votes.remove(&node);
            }
            State::Leader(leader) => {
                if let Some(follower) = leader.followers.get_mut(&node) {
                    reached!(
                        "forgotten-acknowledgement-taken-back",
                        follower.progress.matched() > quorate_types::Index::START
                    );
                    let last = self.log.last().index;
                    *follower = Follower::new(last, self.options.inflight_messages_max, self.now);
                }
                if leader.transfer.as_ref().is_some_and(|transfer| transfer.to == node) {
                    leader.transfer = None;
                }
            }
            State::Follower { .. } => {}
        }
    }
}
