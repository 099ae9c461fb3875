//! Disks that run full, and space that comes back. First a node says that it has little left, as the server does (`server/src/space.rs`): writes are refused, here or everywhere. In a third
//! of the cases its log's disk is full soon after all the same: then the log cannot go on when its segment is, the process ends, and ends again until there is space.
//!
//! Full is one at a time; short may be several.
//!
//! Caveat: the store's own files are never refused.

use super::World;
use crate::random::Random;
use quorate_types::reached;

/// Before it is full a disk is short for so long at the most.
const SHORT_TICKS_MAX: u64 = 200;
/// And then full for so long.
const FULL_TICKS_MAX: u64 = 400;

/// When disks run full.
#[derive(Debug)]
pub(super) struct Space {
    /// Of its own: other runs are what they are without it.
    random: Random,
    /// How often, in thousandths of a tick.
    rate: u64,
}

/// A disk that has little space left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    /// From then on it has none, if ever.
    full_tick: Option<u64>,
    until: u64,
}

impl Space {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7370_6163);
        let rate = if random.chance(300) { 1 + random.below(5) } else { 0 };
        Self { random, rate }
    }

    pub(super) fn none() -> Self {
        Self { random: Random::new(0), rate: 0 }
    }
}

impl World {
    /// Now and then; and space comes back.
    pub(super) fn run_out_of_space(&mut self) {
        let now = self.now;
        if self.space.random.chance(self.space.rate) {
            let is_any_full =
                self.nodes.iter().any(|node| node.short.is_some_and(|it| it.full_tick.is_some()));
            let random = &mut self.space.random;
            let at = random.below(self.nodes.len() as u64) as usize;
            let short = now + 5 + random.below(SHORT_TICKS_MAX);
            let full = short + 20 + random.below(FULL_TICKS_MAX);
            let is_filled = random.chance(333) && !is_any_full;
            let (full_tick, until) = if is_filled { (Some(short), full) } else { (None, short) };
            if self.nodes[at].short.is_none() {
                self.nodes[at].short = Some(Short { full_tick, until });
                self.counts.disks_short += 1;
            }
        }
        for at in 0..self.nodes.len() {
            let Some(short) = self.nodes[at].short else { continue };
            if short.full_tick == Some(now) {
                self.nodes[at].disk.fill(true);
                self.counts.disks_full += 1;
            }
            if short.until <= now {
                self.give_space(at);
            }
            let is_short = self.nodes[at].short.is_some();
            // As the server, which looks every so often, and does not know it at once after a start.
            if let Some(running) = self.awake(at) {
                running.host.set_no_space(is_short);
            }
        }
    }

    /// There is space again.
    pub(super) fn give_space(&mut self, at: usize) {
        reached!("space-came-back", self.nodes[at].is_full());
        self.nodes[at].short = None;
        self.nodes[at].disk.fill(false);
        if let Some(running) = &mut self.nodes[at].running {
            running.host.set_no_space(false);
        }
    }
}

impl super::node::Node {
    /// Its disk may be refusing files.
    pub(super) fn is_full(&self) -> bool {
        self.short.is_some_and(|short| short.full_tick.is_some())
    }
}
