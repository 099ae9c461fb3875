//! When the store is flushed and a group's log is cut.
//!
//! An entry may leave the log when the store holds what it did durably. A flush writes all that the store has in memory to files, which are merged later; so it is to be rare and to have
//! much to write. The store is flushed when the logs of all groups together have so many bytes that it does not hold durably yet, or when the node's log asks idle groups to let go of an old
//! segment. Followers that are behind keep the leader's entries, up to a limit: catching up from the log is
//! cheaper than a snapshot.

use crate::group::Group;
use quorate_consensus::{Consensus, Role};
use quorate_mvcc::engine::Engine;
use quorate_types::Index;

/// Entries kept behind the flushed point even if nobody is known to need them: a follower may be about to
/// lead, and the others a little behind it.
const ENTRIES_KEPT: u64 = 2_000;

/// While all logs of a node together have fewer times the bytes that one may have, followers that answer are waited for in each.
pub(crate) const ROOM_PART: usize = 4;

/// A log is worth cutting when it has this part of the bytes after which the store is flushed.
const CUT_PART: usize = 8;

impl<E: Engine> Group<E> {
    /// Whether a flush would let go of an old segment. Not where a follower needs what stands there.
    pub(crate) fn wants_flush(&self, log_bytes_max: usize) -> bool {
        let is_useful = || {
            let needed = self.needed_by_followers(log_bytes_max, true).unwrap_or(Index(u64::MAX));
            self.raft.status().applied.min(needed) > self.flushed
        };
        self.is_pinning && self.flushing.is_none() && is_useful()
    }

    /// Up to where all followers have the log, if that is to be kept for them. In a large log they are not waited for, but those that answer where there is
    /// `room`: as much as `log_bytes_max` can be on its way to them.
    fn needed_by_followers(&self, log_bytes_max: usize, room: bool) -> Option<Index> {
        let status = self.raft.status();
        match status.role {
            Role::Leader { .. } if status.log_bytes < log_bytes_max => {
                self.raft.matched().into_iter().map(|(_, matched)| matched).min()
            }
            // A snapshot may take long, and what other groups write in the meantime would all stay behind this log's old segment.
            Role::Leader { .. } if room => self.raft.held_by_answering(!self.is_pinning),
            _ => None,
        }
    }

    /// About how many bytes of the log are applied, and nothing is being done to have the store hold them durably.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        let status = self.raft.status();
        let flushed = self.flushing.unwrap_or(self.flushed).max(status.start.index);
        let entries = status.applied.0.saturating_sub(flushed.0);
        let in_log = (status.last.index.0 - status.start.index.0).max(1);
        // Neither comes near the bound: the one is a log that is in memory, the other how many entries it has.
        (status.log_bytes as u64).saturating_mul(entries.min(in_log)) / in_log
    }

    /// The store is durable up to `flushed`: cuts the log as far as is wise.
    pub(crate) fn cut_log(&mut self, log_bytes_target: usize, log_bytes_max: usize, room: bool) {
        let status = self.raft.status();
        let log_bytes_target = log_bytes_target / CUT_PART;
        if status.log_bytes <= log_bytes_target && !self.is_pinning {
            return;
        }
        let entries = status.last.index.0 - status.start.index.0;
        let bytes_each = (status.log_bytes as u64 / entries.max(1)).max(1);
        let kept =
            if self.is_pinning { 0 } else { ENTRIES_KEPT.min(log_bytes_target as u64 / 2 / bytes_each) };
        let mut cut = Index(self.flushed.0.saturating_sub(kept));
        if let Some(needed) = self.needed_by_followers(log_bytes_max, room) {
            cut = cut.min(needed);
        }
        self.is_pinning = false;
        self.raft.compact(cut);
    }
}
