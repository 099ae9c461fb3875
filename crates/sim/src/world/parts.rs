//! Clients that watch some of the slots that a node holds, as nodes do that put watches together from several.

use super::World;
use super::node::Store;
use crate::checker::Violation;
use crate::watchers::{self, Known, Problem};
use quorate_node::effects::Applied;
use quorate_partition::PartReader;
use quorate_partition::watch::{Part, Watches};
use quorate_types::{KeyspaceId, SlotSet};
use std::sync::Arc;

/// The watches of one choice of slots, for as long as these are held.
pub(super) struct PartWatch {
    watches: Watches,
    clients: watchers::Clients,
    reader: PartReader<Store>,
    slots: Arc<SlotSet>,
    /// They were not held for a moment: the watches are over, also if they are held again.
    is_lost: bool,
}

impl PartWatch {
    /// What was applied, as the server's hub takes it.
    pub(super) fn tell(&mut self, applied: &Applied) {
        if let Some(held) = &applied.held {
            self.watches.hold(held);
            self.is_lost |= !self.slots.subtract(held).is_empty();
        }
        let known = self.watches.revision();
        if let Some(revision) = applied.replaced.filter(|revision| *revision >= known) {
            self.watches.restored(revision);
        }
        let known = self.watches.revision();
        let first = applied.changes.partition_point(|changes| changes.revision <= known);
        self.watches.publish(&applied.changes[first..]);
        if let Some(through) = applied.through {
            self.watches.advance(through);
        }
        if let Some(compacted) = applied.compacted {
            self.watches.compacted(compacted);
        }
    }

    fn is_held(&self) -> bool {
        self.reader.is_held() && !self.is_lost
    }

    pub(super) fn tick(&mut self) {
        self.watches.tick();
    }

    pub(super) fn ask_progress(&mut self) {
        self.clients.ask_progress(&mut self.watches);
    }
}

impl World {
    /// Lets those clients of a node do something, and take what they are told.
    pub(super) fn watch_part(&mut self, at: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[at];
        if node.paused_until.is_some() {
            return Ok(());
        }
        let Some(running) = &mut node.running else { return Ok(()) };
        let Some(reader) = running.host.reader(KeyspaceId::DEFAULT) else { return Ok(()) };
        running.part = running.part.take().filter(PartWatch::is_held);
        let random = &mut self.random;
        if running.part.is_none() {
            let holding = running.host.holding(KeyspaceId::DEFAULT, false);
            let map = running.host.maps().find(|map| map.id == KeyspaceId::DEFAULT);
            let (Some(holding), Some(map)) = (holding, map) else { return Ok(()) };
            if !random.chance(100) {
                return Ok(());
            }
            // All that is held, or what one partition has of it.
            let held = holding.held;
            let of_one = &map.partitions[random.below(map.partitions.len() as u64) as usize].slots;
            let is_one = random.chance(500) && of_one.subtract(&held).is_empty();
            let slots: Arc<SlotSet> = if is_one { Arc::new(of_one.clone()) } else { held };
            let Some(part_reader) = reader.part(slots.clone()).filter(|_| !slots.is_empty()) else {
                return Ok(());
            };
            let part = Part { rules: Arc::new(map.rules.clone()), slots: slots.clone() };
            running.part = Some(PartWatch {
                watches: Watches::new(watchers::limits(random), reader.revision()),
                clients: watchers::Clients::of(part),
                reader: part_reader,
                slots,
                is_lost: false,
            });
        }
        let Some(PartWatch { watches, clients, reader: history, .. }) = &mut running.part else {
            return Ok(());
        };
        self.history.publish(reader.revision(), self.step);
        let newest = self.history.newest();
        let acts = self.rates.calls > 0 && random.chance(50);
        let acted = if acts { clients.act(random, watches, history, newest) } else { Ok(()) };
        let outcome = acted.map_err(Problem::Broken).and_then(|()| {
            let (published, compacted) = (Some(watches.revision()), reader.compacted());
            let known = Known { history: &self.history, compacted, published, now: self.now };
            clients.take(random, watches, history, &known, !self.is_faulty)
        });
        self.note_told(at, "a watcher of a part", outcome)
    }

    /// In the end they have been told everything, too.
    pub(super) fn check_part(&self, at: usize) -> Result<(), Violation> {
        let node = &self.nodes[at];
        let Some(running) = &node.running else { return Ok(()) };
        let Some(reader) = running.host.reader(KeyspaceId::DEFAULT) else { return Ok(()) };
        let Some(part) = running.part.as_ref().filter(|part| part.is_held()) else { return Ok(()) };
        let (published, compacted) = (Some(part.watches.revision()), reader.compacted());
        let known = Known { history: &self.history, compacted, published, now: self.now };
        let finished = part.clients.finish(&known);
        finished.map_err(|problem| self.violation(format!("a watcher of a part at {}: {problem}", node.id)))
    }
}
