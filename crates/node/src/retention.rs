//! When the store is flushed and a group's log is cut.
//!
//! An entry may leave the log when the store holds what it did durably. The store is flushed when some
//! group's log has grown past its target, or when the node's log asks idle groups to let go of an old
//! segment. Followers that are behind keep the leader's entries, up to a limit: catching up from the log is
//! cheaper than a snapshot.

use crate::group::Group;
use quorate_consensus::{Consensus, Role};
use quorate_mvcc::engine::Engine;
use quorate_types::Index;

/// Entries kept behind the flushed point even if nobody is known to need them: a follower may be about to
/// lead, and the others a little behind it.
const ENTRIES_KEPT: u64 = 2_000;

impl<E: Engine> Group<E> {
    /// Whether a flush would let this group's log shrink.
    pub(crate) fn wants_flush(&self, log_bytes_target: usize) -> bool {
        let status = self.raft.status();
        let is_large = status.log_bytes > log_bytes_target;
        (is_large || self.is_pinning) && status.applied > self.flushed && self.flushing.is_none()
    }

    /// The store is durable up to `flushed`: cuts the log as far as is wise.
    pub(crate) fn cut_log(&mut self, log_bytes_target: usize, log_bytes_max: usize) {
        let status = self.raft.status();
        if status.log_bytes <= log_bytes_target && !self.is_pinning {
            return;
        }
        let entries = status.last.index.0 - status.start.index.0;
        let bytes_each = (status.log_bytes as u64 / entries.max(1)).max(1);
        let kept =
            if self.is_pinning { 0 } else { ENTRIES_KEPT.min(log_bytes_target as u64 / 2 / bytes_each) };
        let mut cut = Index(self.flushed.0.saturating_sub(kept));
        if let Role::Leader { .. } = status.role
            && status.log_bytes < log_bytes_max
            && let Some(slowest) = status.matched.iter().map(|(_, matched)| *matched).min()
        {
            cut = cut.min(slowest);
        }
        self.is_pinning = false;
        self.raft.compact(cut);
    }
}
