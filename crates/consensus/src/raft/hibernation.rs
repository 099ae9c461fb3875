//! A group in which nothing happens costs nothing: its leader stops its heartbeats, its followers their election timers.
//!
//! How it works: a leader that was asked for nothing for [`crate::Options::hibernate_after_ticks`], and all of whose followers
//! hold and have committed its whole log and have answered its newest round, sends [`Message::Hibernate`] in place of the next heartbeats and
//! sleeps. A follower whose log ends there, committed, sleeps too: time does not pass for it. Whether the leader's *node*
//! lives is watched once for all groups, by the owner, who says so with [`crate::Consensus::node_down`] and
//! [`crate::Consensus::node_up`] (TiKV calls this hibernating regions, CockroachDB quiescent ranges with node liveness).
//!
//! Whatever happens ends it: a proposal, a read, a transfer, any message but another [`Message::Hibernate`], a broken connection, a
//! pause, a lost disk. A leader that wakes heartbeats at once; a follower that wakes begins a fresh election timeout and tells the leader
//! ([`Raft::call_leader`]), so that the two are never awake and asleep for long.
//!
//! Invariants:
//! * Only leaders and followers of a known leader sleep; both have committed everything in their logs, and owe nobody an answer.
//! * Safety does not rest on it. A sleeping follower goes on refusing votes, which is always allowed; a leader that goes to sleep gives up
//!   its lease; and [`crate::Consensus::node_down`] ends the honouring of a leader no sooner than its silence in the group would have.
//!
//! Caveats: a group in which somebody lags behind stays awake, unless that node is down: then the others sleep without it. A leader whose
//! followers answer later than the next heartbeat never sleeps. While a majority of a group's nodes are down it cannot sleep, because
//! nobody leads it.

use super::{Raft, State};
use crate::progress::Mode;
use crate::{Consensus, Message};
use quorate_types::{NodeId, Position, reached};

impl Raft {
    /// Whether this leader has nothing to do, and nothing to tell anybody who is there.
    pub(super) fn may_hibernate(&self) -> bool {
        let (Some(ticks), State::Leader(leader)) = (self.options.hibernate_after_ticks, &self.state) else {
            return false;
        };
        let last = self.log.last().index;
        let is_done = self.idle >= ticks
            && self.commit == last
            && self.persisted == last
            && leader.transfer.is_none()
            && leader.rounds.is_empty();
        let mut present = leader.followers.iter().filter(|(id, _)| !self.down.contains(id));
        let is_complete = present.all(|(_, follower)| {
            follower.progress.mode() == Mode::Replicate
                && follower.progress.matched() == last
                && follower.commit_sent == last
                && follower.round == leader.rounds.newest()
        });
        is_done && is_complete && self.has_quorum_up()
    }

    fn has_quorum_up(&self) -> bool {
        let (id, (_, configuration)) = (self.options.id, self.log.configuration());
        configuration.agreed(|voter| voter == id || !self.down.contains(&voter))
    }

    /// Tells the followers and sleeps.
    pub(super) fn hibernate(&mut self) {
        let last = self.log.last();
        let State::Leader(leader) = &mut self.state else { return };
        reached!("group-asleep");
        // While time does not pass here, ticks do not say how long ago a round began.
        leader.rounds.forget_begun();
        self.is_hibernating = true;
        for other in self.others() {
            self.send_now.push((other, Message::Hibernate { term: self.term, last }));
        }
    }

    pub(super) fn on_hibernate(&mut self, last: Position) {
        let is_complete = self.log.last() == last
            && self.persisted == last.index
            && self.options.hibernate_after_ticks.is_some()
            && self.forwarded.is_empty()
            && self.fetch.is_none()
            && !self.is_stateless
            && !self.is_withholding;
        if is_complete {
            // The leader sleeps only when all of its log is committed, and this is all of it.
            self.commit = last.index;
            self.is_hibernating = true;
        } else {
            reached!("sleep-refused");
            self.call_leader();
        }
    }

    /// Ends hibernation, and puts off the next.
    pub(super) fn end_hibernation(&mut self) {
        self.idle = 0;
        if !std::mem::take(&mut self.is_hibernating) {
            return;
        }
        reached!("woken");
        match &mut self.state {
            State::Leader(leader) => {
                leader.since_heartbeat = 0;
                // Nobody could be heard while time stood still.
                for follower in leader.followers.values_mut() {
                    follower.heard = self.now;
                }
                self.send_heartbeats();
            }
            State::Follower { .. } | State::Candidate { .. } => {
                self.draw_timeout();
                self.call_leader();
            }
        }
    }

    /// A message that is not [`Message::Hibernate`] came in.
    pub(super) fn woken_by(&mut self, from: NodeId) {
        if self.is_hibernating && self.leader() == Some(from) {
            // It is awake itself.
            self.is_hibernating = false;
            self.draw_timeout();
        } else if self.is_hibernating {
            self.end_hibernation();
        }
    }

    /// An answer that nobody asked for wakes a leader that sleeps, and tells one that does not nothing new.
    pub(super) fn call_leader(&mut self) {
        if let State::Follower { leader: Some(leader) } = self.state {
            self.call(leader);
        }
    }

    pub(super) fn call(&mut self, node: NodeId) {
        let last = self.log.last().index;
        let withholds = self.is_withholding;
        let call = Message::HeartbeatResponse { term: self.term, round: 0, last, withholds };
        self.send_after.push((node, call));
    }

    pub(super) fn on_node_down(&mut self, node: NodeId, delay: u64) {
        self.down.insert(node);
        match &self.state {
            State::Follower { leader: Some(leader) } if *leader == node => {
                reached!("leader-died-in-sleep", self.is_hibernating);
                self.is_hibernating = false;
                // So long was nothing heard of it, here as in all groups.
                self.since_leader = self.since_leader.max(self.options.election_ticks_min);
                if self.timeout.saturating_sub(self.elapsed) > delay {
                    self.elapsed = 0;
                    self.timeout = delay;
                }
            }
            // One that could not commit anything must notice, and step down.
            State::Leader(_) if !self.has_quorum_up() => self.end_hibernation(),
            _ => {}
        }
    }

    pub(super) fn on_node_up(&mut self, node: NodeId) {
        self.down.remove(&node);
        match &self.state {
            State::Leader(_) => self.end_hibernation(),
            State::Follower { leader: Some(leader) } if *leader == node => {
                self.is_hibernating = false;
                self.draw_timeout();
                self.call_leader();
            }
            _ => {}
        }
    }
}
