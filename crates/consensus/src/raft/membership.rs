//! Changing who takes part: joint consensus and learners (thesis, 4.3 and 4.2.1).
//!
//! How it works: a change is an entry, and the newest such entry *in the log* says who counts ([`crate::log::Log::configuration`]). Voters are
//! replaced in two entries. The first is joint: from when it is appended, elections and commits need a quorum of the old voters and one of the
//! new. When it is committed, nobody can win any more with the old voters alone; so the leader appends the second, the new voters alone. A
//! leader that is not among these leads until it is committed, without counting itself, and then steps down.
//!
//! Invariants:
//! * One change at a time: the configuration before a new one is committed. So two successive ones in a log differ by one step, whose
//!   quorums meet.
//! * None before an entry of the leader's own term is committed: before that, what an earlier leader changed may be committed or may not (the
//!   thesis's correction of 2015, for changes of one voter; changes through joint configurations would do without).
//! * Whoever leads leaves a joint configuration that it finds committed, so none stays for ever.
//! * Of the voters to come a quorum holds nearly everything, the new ones all: those that stay may have lost their disks, and a group shrunk
//!   to two, one of which is being filled, would commit nothing and, should the filling want a vote, never would.
//! * A voter asked for its vote does not ask who the candidate is (thesis, 4.2.2): it may not hold the entry that says so yet.
//!
//! Caveats: a replica that is removed is sent nothing any more, so it may never hear of that. It goes on asking for pre-votes, which nobody
//! grants who hears a leader, or holds the entry that removed it; they do not wake a group that sleeps. Its owner puts it away.

use super::{Follower, Raft, State};
use crate::progress::Mode;
use crate::{ChangeError, Configuration, Message};
use quorate_types::{Encode, EntryKind, NodeId, Position, reached};

impl Raft {
    pub(super) fn begin_change(&mut self, target: Configuration) -> Result<Position, ChangeError> {
        self.can_change(&target)?;
        self.end_hibernation();
        let step = self.log.configuration().1.towards(target);
        Ok(self.append_configuration(&step))
    }

    fn can_change(&self, target: &Configuration) -> Result<(), ChangeError> {
        crate::Consensus::can_propose(self).map_err(ChangeError::Refused)?;
        let (index, current) = self.log.configuration();
        if !target.is_valid() {
            Err(ChangeError::Malformed)
        } else if self.log.term_at(self.commit) != Some(self.term) {
            Err(ChangeError::Unfenced)
        } else if index > self.commit || current.is_joint() {
            reached!("change-while-changing");
            Err(ChangeError::InFlight)
        } else {
            let changed = target.voters != current.voters;
            let mut behind = target.voters.iter().filter(|voter| !self.is_caught_up(**voter));
            let new = behind.clone().find(|voter| !current.is_voter(**voter));
            let is_able = !changed || target.agreed(|voter| self.is_caught_up(voter));
            let blocking = new.or_else(|| if is_able { None } else { behind.next() });
            reached!("change-waits-for-newcomer", blocking.is_some());
            blocking.map_or(Ok(()), |voter| Err(ChangeError::Behind(*voter)))
        }
    }

    /// Whether all that this one lacks can be on its way at once: a quorum that waited for more would commit nothing meanwhile. And whether it votes: one that has
    /// forgotten what it promised does again when it has caught up in every group, so a group that could not be led without it would wait for itself.
    fn is_caught_up(&self, id: NodeId) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        id == self.options.id
            || leader.followers.get(&id).is_some_and(|follower| {
                let lacking = self.commit.0.saturating_sub(follower.progress.matched().0);
                follower.progress.mode() == Mode::Replicate
                    && follower.withholds == Some(false)
                    && lacking <= self.options.inflight_messages_max as u64
            })
    }

    /// In effect from here on.
    fn append_configuration(&mut self, configuration: &Configuration) -> Position {
        let last = self.log.last().index;
        reached!("joint-begun", configuration.is_joint());
        let position = self.push(EntryKind::Config, configuration.encoded());
        if let State::Leader(leader) = &mut self.state {
            let mut members = configuration.members();
            members.remove(&self.options.id);
            leader.followers.retain(|id, _| members.contains(id));
            for id in members {
                let follower = || Follower::new(last, self.options.inflight_messages_max, self.now);
                leader.followers.entry(id).or_insert_with(follower);
            }
        }
        // Those who have answered may be a quorum now, and nobody else may be there to answer.
        self.confirm_reads();
        position
    }

    /// An entry of our own term was committed, and so was all before it: the configuration in effect may be.
    pub(super) fn go_on_changing(&mut self) {
        let (index, configuration) = self.log.configuration();
        if index > self.commit {
            return;
        }
        if configuration.is_joint() {
            let next = configuration.left();
            reached!("joint-left-by-other-leader", self.log.term_at(index) != Some(self.term));
            self.append_configuration(&next);
        } else if !self.is_voter() {
            self.resign();
        }
    }

    /// A leader that votes no more leaves the group to the voter that is furthest.
    fn resign(&mut self) {
        reached!("leader-voted-out");
        let (_, configuration) = self.log.configuration();
        let State::Leader(leader) = &self.state else { return };
        let voters = leader.followers.iter().filter(|(id, _)| configuration.is_voter(**id));
        if let Some((heir, _)) = voters.max_by_key(|(_, follower)| follower.progress.matched()) {
            self.send_now.push((*heir, Message::TimeoutNow { term: self.term }));
        }
        self.since_leader = self.options.election_ticks_min;
        self.become_follower(self.term, None);
    }

    pub(super) fn is_voter(&self) -> bool {
        self.log.configuration().1.is_voter(self.options.id)
    }

    /// Whether it may campaign. A configuration without it may be cut off as long as it is not known to be committed; and whoever holds it may
    /// be the only one that can be elected, to commit it (thesis, 4.2.2).
    pub(super) fn may_stand(&self) -> bool {
        self.is_voter() || self.log.configuration_at(self.commit).is_voter(self.options.id)
    }

    /// The highest value that a quorum has reached, as far as this leader knows.
    pub(super) fn agreed<T: Copy + Ord + Default>(&self, own: T, of: impl Fn(&Follower) -> T) -> T {
        let State::Leader(leader) = &self.state else { return T::default() };
        self.log.configuration().1.agreed(|voter| {
            if voter == self.options.id {
                own
            } else {
                leader.followers.get(&voter).map_or(T::default(), &of)
            }
        })
    }
}
