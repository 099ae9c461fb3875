//! Whose disks run full, and when writes are refused for it.
//!
//! A node that is short of space says so to all members each second. A leader refuses what needs space while it is short itself, or
//! while so many others are that a quorum could not take it: a follower goes on writing what it is sent, and stops when nothing is
//! left, which the rest survives as long as it is a majority.

use super::Host;
use crate::peer::PeerMessage;
use quorate_mvcc::engine::Engine;
use quorate_types::{NodeId, Tick};
use std::collections::BTreeMap;

/// A member that has not said for so many seconds that it is short has space again, or is gone.
const SECONDS_TOLD: u64 = 3;

/// What is known of space.
#[derive(Default)]
pub(super) struct Space {
    is_short: bool,
    /// Who said that it is short, and when last.
    peers: BTreeMap<NodeId, Tick>,
    /// Whether this node refuses writes as a leader.
    pub(super) is_refusing: bool,
}

impl<E: Engine> Host<E> {
    /// The shell has seen this node's disk, or its quota, run full, or space come back.
    pub fn set_no_space(&mut self, is_short: bool) {
        self.space.is_short = is_short;
        self.judge_space();
    }

    pub(super) fn on_space_short(&mut self, from: NodeId) {
        self.space.peers.insert(from, self.now);
        self.judge_space();
    }

    pub(super) fn tick_space(&mut self) {
        let second = self.options.ticks_per_second.max(1);
        if !self.now.0.is_multiple_of(second) {
            return;
        }
        if self.space.is_short {
            let told = self.members.iter().map(|member| (*member, PeerMessage::SpaceShort));
            self.out.send.extend(told);
        }
        let now = self.now;
        self.space.peers.retain(|_, told| now.since(*told) <= SECONDS_TOLD * second);
        self.judge_space();
    }

    fn judge_space(&mut self) {
        let short = self.space.peers.keys().filter(|peer| self.members.contains(peer)).count();
        let size = self.members.len() + 1;
        let has_quorum = size - short > size / 2;
        let is_refusing = self.space.is_short || !has_quorum;
        if is_refusing != self.space.is_refusing {
            self.space.is_refusing = is_refusing;
            for keyspace in self.router.keyspaces() {
                self.refuse_or_not(keyspace);
            }
        }
    }
}
