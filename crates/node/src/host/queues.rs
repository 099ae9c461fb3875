//! How much waits on a node, and how much may: for tests, and for whoever looks at a node that is slow.
//!
//! Every queue of a host has a bound. Most are looked at where something is queued, and what is too much is refused as busy; the others follow from those: who
//! coordinates has no more attempts than its own bound, so no more of them wait at a participant than that for each node.
//!
//! Caveat: what follows so is bounded by the number of nodes, too; and messages in [`crate::Effects`] are the shell's to bound.

use super::Host;
use super::collecting::HELD_MAX;
use quorate_mvcc::engine::Engine;
use std::collections::BTreeMap;

/// One kind of queue, the longest of its kind on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// What is in it.
    pub what: &'static str,
    /// How many.
    pub len: usize,
    /// No more than this.
    pub max: usize,
}

impl<E: Engine> Host<E> {
    /// What waits here, of each kind the most in one place.
    pub fn queues(&self) -> Vec<Queue> {
        let (waiting, inflight) = (self.options.waiting_max, self.options.inflight_max);
        let of_all_nodes = inflight.saturating_mul(self.members.len() + 1);
        let readings = inflight.saturating_add(self.keyspaces.len());
        let mut longest: BTreeMap<&'static str, Queue> = BTreeMap::new();
        let mut note = |what, len, max| {
            let queue = longest.entry(what).or_insert(Queue { what, len, max });
            queue.len = queue.len.max(len);
        };
        for group in self.groups.values() {
            // What waited for a revision or for locks goes back there when the leader changes.
            note("requests that wait for a leader", group.waiting.len(), 2 * waiting + inflight);
            note("requests that wait for a revision", group.drawing.len(), waiting);
            note("requests forwarded to a leader", group.forwarded.len(), inflight);
            note("barriers", group.reads.len(), inflight);
            // Requests and votes of transactions have one bound, and each that has its vote may end; what is decided here and what has passed a barrier has others.
            let waits_max = of_all_nodes.saturating_mul(2) + 2 * inflight + readings;
            note("entries that somebody waits for", group.waits.len(), waits_max);
            note("what waits for locks", group.blocked.len(), of_all_nodes.saturating_mul(2));
            note(
                "writes that wait for the sequencer's office",
                group.unconfirmed.len(),
                of_all_nodes.saturating_mul(2),
            );
            note(
                "reads that wait for transactions",
                group.questions.len(),
                readings * 2 * (self.members.len() + 1),
            );
            note("the same, asked by a sequencer elsewhere", group.part_asks.len(), waiting);
            note("messages that wait for the disk", group.held.len(), HELD_MAX);
        }
        for distant in self.distant.values() {
            // Those that were refused there are forwarded again when somebody else is known.
            note("requests that wait for a distant leader", distant.waiting_len(), waiting + inflight);
            note("requests forwarded to a distant leader", distant.forwarded.len(), inflight);
        }
        note("transactions coordinated", self.attempts.len(), inflight);
        note("reads over partitions", self.readings.len(), readings);
        note("requests that wait for the first map", self.unrouted.len(), waiting);
        longest.into_values().collect()
    }
}
