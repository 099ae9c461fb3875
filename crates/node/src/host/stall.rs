//! A disk that has stopped answering, under a node that is alive.
//!
//! Such a node goes on saying that it lives, and what it leads stands still: it applies only what is durable here. The others would wait for
//! ever, as they do with a leader that is only slow. So the node says it of itself: when in any group the others have committed for an election timeout what the disk here has
//! not taken ([`Consensus::lags`]), everything led here is handed over, until the disk has taken what was waiting then. The store's disk is the log's, and so is every group's.
//!
//! Nobody has to be told: who does not answer since nothing is durable is not handed anything, and cannot be elected, because votes wait for the disk.
//!
//! Caveat: a disk under which the worker itself stands still (it writes small batches itself, and applies) is a paused node, which others replace.

use super::Host;
use crate::effects::{Notice, WriteId};
use quorate_mvcc::engine::Engine;
use quorate_types::reached;

impl<E: Engine> Host<E> {
    /// A group was found whose log lags, or none was.
    pub(super) fn tick_stall(&mut self, lags: bool) {
        if lags && self.stalled.is_none() {
            reached!("disk-stalled");
            self.stalled = Some(self.write);
            self.out.notices.push(Notice::DiskStalled);
        }
        if self.stalled.is_some() {
            self.hand_over();
        }
    }

    /// The disk has taken everything up to this write.
    pub(super) fn end_stall(&mut self, write: WriteId) {
        if self.stalled.is_some_and(|stalled| stalled <= write) {
            reached!("disk-back");
            self.stalled = None;
            self.out.notices.push(Notice::DiskBack);
        }
    }

    /// Whether this node's disk has stopped answering, and others took over for it.
    pub fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }
}
