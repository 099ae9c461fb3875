//! Which other nodes are heard, once for all groups.
//!
//! A group that hibernates sends nothing, so its followers cannot tell by it whether the leader lives. Instead every node tells
//! every member that it is alive ([`PeerMessage::Alive`]) as often as a leader would, and any message says so, too. A node that was not
//! heard for the shortest election timeout is *down*, for all groups at once: what it leads wakes and, after one delay for all of the same voters,
//! campaigns. The survivors go one after the other, by their ids: with hundreds of groups, delays that are drawn would let the votes of some
//! be split again and again. So failover takes as long as by the groups' own heartbeats, and the first survivor tends to lead all groups afterwards. When a
//! connection breaks, [`Host::peer_lost`] does the same at once; the node is down only when it stays silent.
//!
//! Caveats: a leader whose node lives, but whose group is wrong in some way, is noticed only by what is asked of the group. Two nodes
//! that hear a third but not each other take each other for down; what they lead goes on.

use super::Host;
use crate::effects::Notice;
use crate::group::Group;
use crate::peer::PeerMessage;
use quorate_consensus::{Consensus, HURRIED_TICKS_MAX};
use quorate_mvcc::engine::Engine;
use quorate_types::{GroupId, NodeId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the other members.
#[derive(Default)]
pub(super) struct Liveness {
    /// When each was heard last; from the beginning, if it was not.
    heard: BTreeMap<NodeId, Tick>,
    /// Since when it has not been down.
    up_since: BTreeMap<NodeId, Tick>,
    pub(super) down: BTreeSet<NodeId>,
}

impl<E: Engine> Host<E> {
    /// Whether a member has not been heard for long.
    pub(super) fn is_down(&self, member: NodeId) -> bool {
        self.liveness.down.contains(&member)
    }

    /// Members that have not been heard for long.
    pub(super) fn down(&self) -> Vec<NodeId> {
        self.liveness.down.iter().copied().collect()
    }

    /// For how many ticks a member has been silent, and for how many it has been heard without a long silence; 0 while it is down.
    pub(super) fn silence(&self, member: NodeId) -> Option<(u64, u64)> {
        let heard = *self.liveness.heard.get(&member)?;
        let since = *self.liveness.up_since.get(&member)?;
        let up = if self.is_down(member) { 0 } else { self.now.since(since) };
        Some((self.now.since(heard), up))
    }

    /// Members that have not been heard for an election timeout.
    pub fn unheard(&self) -> &BTreeSet<NodeId> {
        &self.liveness.down
    }

    /// After how many ticks a group that a lost member led campaigns here: a try's time for each surviving voter with a lower id. So it is the same
    /// in all groups of the same voters.
    pub(super) fn delay_after(&self, lost: NodeId, voters: &[NodeId]) -> u64 {
        let is_before =
            |voter: &&NodeId| **voter != lost && **voter < self.options.id && !self.is_down(**voter);
        1 + voters.iter().filter(is_before).count() as u64 * HURRIED_TICKS_MAX
    }

    /// The groups here, with these delays.
    pub(super) fn delays_after(&self, lost: NodeId) -> Vec<(GroupId, u64)> {
        let delay = |(id, group): (&GroupId, &Group<E>)| {
            (*id, self.delay_after(lost, &group.raft.configuration().voters))
        };
        self.groups.iter().map(delay).collect()
    }

    /// The members have changed: a new one has been silent since now, not since ever.
    pub(super) fn watch_over(&mut self, members: &BTreeSet<NodeId>) {
        let Liveness { heard, up_since, down } = &mut self.liveness;
        up_since.retain(|node, _| members.contains(node));
        heard.retain(|node, _| members.contains(node));
        down.retain(|node| members.contains(node));
        for node in members {
            heard.entry(*node).or_insert(self.now);
            up_since.entry(*node).or_insert(self.now);
        }
    }

    /// A member sent something.
    pub(super) fn heard(&mut self, from: NodeId) {
        if !self.members.contains(&from) {
            return;
        }
        self.liveness.heard.insert(from, self.now);
        if self.liveness.down.remove(&from) {
            self.out.notices.push(Notice::Heard { node: from });
            self.liveness.up_since.insert(from, self.now);
            for (id, group) in &mut self.groups {
                group.raft.node_up(from);
                self.dirty.insert(*id);
            }
        }
    }

    pub(super) fn tick_liveness(&mut self) {
        // While it asks for admission it says nothing else.
        if self.now.0.is_multiple_of(self.options.heartbeat_ticks) && !self.admission.is_mute() {
            self.out.send.extend(self.members.iter().map(|member| (*member, PeerMessage::Alive)));
        }
        let (now, silence_max) = (self.now, self.options.election_ticks_min);
        let heard = |member: &NodeId| self.liveness.heard.get(member).copied().unwrap_or_default();
        let is_silent = |member: &&NodeId| {
            !self.liveness.down.contains(member) && now.since(heard(member)) >= silence_max
        };
        for node in self.members.iter().filter(is_silent).copied().collect::<Vec<_>>() {
            self.liveness.down.insert(node);
            self.out.notices.push(Notice::Silent { node });
            for (id, delay) in self.delays_after(node) {
                let Some(group) = self.groups.get_mut(&id) else { continue };
                group.raft.node_down(node, delay);
                self.dirty.insert(id);
            }
        }
    }
}
