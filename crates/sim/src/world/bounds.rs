//! What waits on a node has a bound, and memory with it: looked at every few ticks, whatever else goes wrong.
//!
//! * Every queue of a host is within the bound that it states ([`quorate_node::Queue`]). In a fifth of the runs these are so small that they are met.
//! * A group's log in memory is cut. It may be larger than its bound by what cannot be cut yet: what the store has not flushed, and what no snapshot replaces before that.
//! * What is queued for a stream of watches is within its bound.
//!
//! Caveat: what the network holds for a node that is paused is the shell's to bound, and not looked at.

use super::World;
use crate::checker::Violation;
use quorate_consensus::Role;
use std::collections::BTreeMap;

/// Looked at every so many ticks.
const LOOK_TICKS: u64 = 16;
/// What a log may have beyond its bound: what a few dozen clients write while a flush takes its time, or the disk hangs.
const LOG_SLACK_BYTES: usize = 64 << 10;
/// A mark of progress in a stream's queue. Every watch may have one, and so may the stream; and so may watches that were cancelled, until that is taken.
const MARK_BYTES: usize = 96;

/// Answers that a stream keeps for its client, as `quorate_partition::watch::Limits` has it.
const ANSWERS_MAX: usize = 1_024;

/// Of each kind the most that there was in one place, and the bound.
pub(super) type Largest = BTreeMap<&'static str, (usize, usize)>;

impl World {
    /// Now and then.
    pub(super) fn check_bounds(&mut self) -> Result<(), Violation> {
        if !self.now.is_multiple_of(LOOK_TICKS) {
            return Ok(());
        }
        for at in 0..self.nodes.len() {
            let Some(running) = &self.nodes[at].running else { continue };
            let mut sizes: Vec<(&'static str, usize, usize)> =
                running.host.queues().into_iter().map(|queue| (queue.what, queue.len, queue.max)).collect();
            // Those that answer are waited for while all logs together have less than four times what one may have.
            let log_bytes_max = 4 * self.log_bytes_max() + LOG_SLACK_BYTES;
            for status in running.host.status() {
                let what = match status.consensus.role {
                    Role::Leader { .. } => "bytes of a leader's log in memory",
                    _ => "bytes of a follower's log in memory",
                };
                sizes.push((what, status.consensus.log_bytes, log_bytes_max));
            }
            let counts = running.watches.counts();
            let marks_max = counts.watches + counts.streams * (1 + ANSWERS_MAX);
            let bytes_max = counts.streams * running.stream_queue_bytes_max + marks_max * MARK_BYTES;
            sizes.push(("bytes queued for watches", counts.queue_bytes, bytes_max));
            for (what, size, max) in sizes {
                if size > max {
                    let id = self.nodes[at].id;
                    return Err(
                        self.violation(format!("{what}: {size} at node {id}, at most {max} are allowed"))
                    );
                }
                let largest = self.largest.entry(what).or_default();
                if size >= largest.0 {
                    *largest = (size, max);
                }
            }
        }
        Ok(())
    }
}
