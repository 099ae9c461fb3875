//! Stores that rot: on its way to the disk or there a bit of some row flips, or it is zeroed, or torn, or what was written for another row stands in its place, and stays so. Nobody may be told what it makes of the row, and the node gives its store up
//! when others lead what is in it, as the server does (`server/src/repair.rs`).
//!
//! One node at a time: what rots everywhere is lost.
//!
//! Caveat: no row disappears. Seals tell what is wrong with a row, not that one is missing; for that the program relies on its store's engine, whose blocks are named by others.

use super::World;
use super::node::{Node, Store, store};
use crate::checker::Violation;
use crate::random::Random;
use quorate_mvcc::engine::{Engine, Read, Table};
use quorate_mvcc::layout;
use quorate_node::Host;
use quorate_partition::Partition;
use quorate_storage::memory::{Damage, MemoryEngine};
use quorate_types::{Fault, reached};
use std::ops::Bound;

/// Looks of the scrub, in thousandths of a tick.
const SCRUB: u64 = 20;

/// When it happens.
#[derive(Debug)]
pub(super) struct Rotting {
    /// Of its own: other runs are what they are without it.
    random: Random,
    /// How often, in thousandths of a tick.
    rate: u64,
}

impl Rotting {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0072_6f74);
        let rate = if random.chance(300) { 1 + random.below(8) } else { 0 };
        Self { random, rate }
    }

    pub(super) fn none() -> Self {
        Self { random: Random::new(0), rate: 0 }
    }
}

/// How far it is with a node's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rot {
    /// Nobody knows yet.
    Unseen,
    /// It was met: the store is to be given up.
    Seen,
    /// The process has stopped for it, and was started again: the next time the store goes at once.
    Stopped,
    /// It was given up, and is filled.
    Filling,
}

/// Whether anything that is stored makes no sense.
fn is_rotten(engine: &Store) -> bool {
    Table::ALL.into_iter().any(|table| {
        let mut rows = engine.scan(table, (Bound::Unbounded, Bound::Unbounded)).flatten();
        rows.any(|(row, value)| layout::open(table, &row, value).is_err())
    })
}

impl World {
    /// A bit flips.
    pub(super) fn rot(&mut self) {
        if !self.rotting.random.chance(self.rotting.rate) {
            return;
        }
        let at = self.rotting.random.below(self.nodes.len() as u64) as usize;
        let (table, row, damage) = {
            let random = &mut self.rotting.random;
            let (table, row) = (Table::ALL[random.below(3) as usize], random.below(1 << 20));
            let place = random.below(1 << 20) as usize;
            let damages = [Damage::Bit(place), Damage::Zeroed, Damage::Torn(place), Damage::Misdirected];
            (table, row, damages[random.below(4) as usize])
        };
        let id = self.nodes[at].id;
        let is_waiting = self.members.lost.iter().any(|lost| !self.members.removed.contains(lost));
        if self.nodes.len() < 3
            || self.nodes.iter().any(Node::is_poor)
            || is_waiting
            || self.members.lost.contains(&id)
            || self.is_on_few(id)
            || !self.nodes[at].engine.base().rot(table, row as usize, damage)
        {
            return;
        }
        reached!("row-misdirected", damage == Damage::Misdirected);
        reached!("row-zeroed-or-torn", matches!(damage, Damage::Zeroed | Damage::Torn(_)));
        self.nodes[at].rot = Some(Rot::Unseen);
        self.nodes[at].has_rotted = true;
        self.counts.rotten += 1;
    }

    /// Something was read that makes no sense. Returns whether that is what happens here.
    pub(super) fn sees_rot(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        // It had been removed when it was looked for, and a crash has brought it back.
        let is_back = node.rot.is_none() && node.has_rotted;
        reached!("damage-met-in-use", node.rot == Some(Rot::Unseen));
        reached!("damage-came-back", is_back);
        if is_back || node.rot == Some(Rot::Unseen) {
            node.rot = Some(Rot::Seen);
        }
        matches!(node.rot, Some(Rot::Seen | Rot::Stopped))
    }

    /// The same where the process cannot go on after it: it begins anew, with the store that it has, unless it has done so before.
    pub(super) fn stops_for(&mut self, at: usize, fault: &Fault) -> Result<(), Violation> {
        if !fault.is_damage() || !self.sees_rot(at) {
            return Err(self.violation(format!("a node with a healthy disk stopped: {fault}")));
        }
        self.crash(at);
        if self.nodes[at].rot == Some(Rot::Stopped) {
            reached!("store-stopped-again");
            return self.give_up_store(at);
        }
        self.nodes[at].rot = Some(Rot::Stopped);
        Ok(())
    }

    /// The scrub, and what the node does about what was found.
    pub(super) fn tend_stores(&mut self) -> Result<(), Violation> {
        for at in 0..self.nodes.len() {
            match self.nodes[at].rot {
                None => {
                    // What a crash could bring back has been written over, too.
                    let node = &mut self.nodes[at];
                    if node.has_rotted && node.engine.bytes() == (0, 0) && !is_rotten(&node.engine) {
                        node.has_rotted = false;
                    }
                }
                Some(Rot::Unseen) => {
                    if !self.rotting.random.chance(SCRUB) && self.is_faulty {
                        continue;
                    }
                    // What rotted may have been removed since.
                    self.nodes[at].rot = is_rotten(&self.nodes[at].engine).then_some(Rot::Seen);
                }
                Some(Rot::Seen | Rot::Stopped) => {
                    let may_go = self.awake(at).is_some_and(|running| running.host.leave_store());
                    self.settle(at, Ok(()))?;
                    if may_go && self.nodes[at].running.is_some() {
                        self.crash(at);
                        self.nodes[at].down_until = self.now + 1;
                        self.give_up_store(at)?;
                    }
                }
                Some(Rot::Filling) => {
                    let is_whole = |host: &Host<Store>| {
                        host.is_admitted() && host.status().iter().all(|status| status.digest.is_some())
                    };
                    if self.awake(at).is_some_and(|running| is_whole(&running.host)) {
                        self.nodes[at].rot = None;
                    }
                }
            }
            if self.nodes[at].rot.is_some() {
                // Until then the others are as few as while one moves.
                self.members.moved_tick = self.now;
            }
        }
        Ok(())
    }

    /// An empty one takes its place, in which every group of the log waits for its state.
    pub(super) fn give_up_store(&mut self, at: usize) -> Result<(), Violation> {
        let (_, groups) = self.open_log(at)?;
        reached!("store-given-up");
        let node = &mut self.nodes[at];
        node.engine = store(node.id, MemoryEngine::default());
        node.has_rotted = false;
        for group in groups.keys() {
            let marked = Partition::mark_incomplete(&node.engine, *group);
            assert!(marked.is_ok(), "an empty store takes a row: {marked:?}");
        }
        let flushed = node.engine.flush();
        assert!(flushed.is_ok(), "{flushed:?}");
        node.rot = Some(Rot::Filling);
        self.counts.stores_mended += 1;
        Ok(())
    }
}
