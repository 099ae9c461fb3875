//! Whose disks run full, and when writes are refused for it.
//!
//! A node that is short of space says so to all members each second. A leader refuses what needs space while it is short itself, or
//! while so many others are that a quorum could not take it: a follower goes on writing what it is sent, and stops when nothing is
//! left, which the rest survives as long as it is a majority. So a leader that is short while a majority has space hands over what it leads to one of those, and writes go on.

use super::Host;
use crate::peer::PeerMessage;
use quorate_consensus::{Consensus, Role};
use quorate_mvcc::engine::Engine;
use quorate_types::{GroupId, NodeId, Tick, reached};
use std::collections::BTreeMap;

/// A member that has not said for so many seconds that it is short has space again, or is gone.
const SECONDS_TOLD: u64 = 3;

/// What is known of space.
#[derive(Default)]
pub(super) struct Space {
    is_short: bool,
    /// Since when.
    short_since: Tick,
    /// Who said that it is short, and when last.
    peers: BTreeMap<NodeId, Tick>,
    /// Whether this node refuses writes as a leader.
    pub(super) is_refusing: bool,
}

impl<E: Engine> Host<E> {
    /// The shell has seen this node's disk, or its quota, run full, or space come back.
    pub fn set_no_space(&mut self, is_short: bool) {
        if is_short && !self.space.is_short {
            self.space.short_since = self.now;
            self.tell_short();
        }
        self.space.is_short = is_short;
        self.judge_space();
    }

    pub(super) fn on_space_short(&mut self, from: NodeId) {
        self.space.peers.insert(from, self.now);
        self.judge_space();
    }

    pub(super) fn tick_space(&mut self) {
        let second = self.options.ticks_per_second.max(1);
        // Where all run full at once the others have said so by then.
        if self.space.is_short && self.now.since(self.space.short_since) >= second {
            self.leave_to_those_with_space();
        }
        if !self.now.0.is_multiple_of(second) {
            return;
        }
        if self.space.is_short {
            self.tell_short();
        }
        let now = self.now;
        self.space.peers.retain(|_, told| now.since(*told) <= SECONDS_TOLD * second);
        self.judge_space();
    }

    fn tell_short(&mut self) {
        let told = self.members.iter().map(|member| (*member, PeerMessage::SpaceShort));
        self.out.send.extend(told);
    }

    /// Whether a member said lately that it is short.
    pub(super) fn is_peer_short(&self, node: NodeId) -> bool {
        self.space.peers.contains_key(&node)
    }

    /// What is led here is handed over to whoever is not short and has most of it, unless too many of a group are: it would only go round, and write its members full.
    fn leave_to_those_with_space(&mut self) {
        let mut heirs: Vec<(GroupId, NodeId)> = Vec::new();
        for (id, group) in self.groups.iter().filter(|(_, it)| matches!(it.role, Role::Leader { .. })) {
            let can_take = |node: NodeId| {
                node != self.options.id
                    && group.raft.configuration().is_voter(node)
                    && self.liveness.is_reachable(node)
                    && !self.is_peer_short(node)
            };
            let has_space = |node: NodeId| node != self.options.id && !self.is_peer_short(node);
            if !group.raft.configuration().agreed(has_space) {
                continue;
            }
            let others = group.raft.matched().into_iter().filter(|(node, _)| can_take(*node));
            if let Some((heir, _)) = others.max_by_key(|(node, matched)| (*matched, std::cmp::Reverse(*node)))
                && group.raft.can_propose().is_ok()
            {
                heirs.push((*id, heir));
            }
        }
        for (id, heir) in heirs {
            if let Some(group) = self.groups.get_mut(&id) {
                group.raft.transfer(Some(heir));
                self.dirty.insert(id);
            }
        }
    }

    fn judge_space(&mut self) {
        let short = self.space.peers.keys().filter(|peer| self.members.contains(peer)).count();
        let size = self.members.len() + 1;
        let has_quorum = size - short > size / 2;
        let is_refusing = self.space.is_short || !has_quorum;
        if is_refusing != self.space.is_refusing {
            reached!("writes-refused-for-own-space", self.space.is_short && is_refusing);
            reached!("writes-refused-for-others-space", !self.space.is_short && is_refusing);
            reached!("writes-taken-again", !is_refusing);
            self.space.is_refusing = is_refusing;
            for keyspace in self.router.keyspaces() {
                self.refuse_or_not(keyspace);
            }
        }
    }
}
