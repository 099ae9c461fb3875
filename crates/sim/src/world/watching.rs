//! Clients that watch all that a node holds of the keyspace.

use super::World;
use crate::checker::Violation;
use crate::watchers::{self, Known};
use quorate_node::effects::Applied;
use quorate_partition::watch::Watches;
use quorate_types::KeyspaceId;

impl World {
    /// Tells clients what was applied.
    pub(super) fn tell_watchers(
        &mut self,
        at: usize,
        applied: Vec<(KeyspaceId, Applied)>,
    ) -> Result<(), Violation> {
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        for (keyspace, applied) in applied {
            if keyspace != KeyspaceId::DEFAULT {
                continue;
            }
            if let Some(part) = &mut running.part {
                part.tell(&applied);
            }
            // Who watches everything hears nothing of what is in part here.
            if applied.is_in_part {
                continue;
            }
            if let Some(revision) = applied.replaced {
                running.watches.restored(revision);
            }
            running.watches.publish(&applied.changes);
            if let Some(revision) = applied.through {
                running.watches.advance(revision);
            }
            if let Some(compacted) = applied.compacted {
                running.watches.compacted(compacted);
            }
            for changes in applied.changes {
                if let Err(what) = self.history.check(&changes) {
                    return Err(self.violation(what));
                }
            }
        }
        Ok(())
    }

    /// Lets the clients that watch at a node do something, and take what they are told.
    pub(super) fn watch(&mut self, at: usize) -> Result<(), Violation> {
        let is_holder = self.is_holder(at);
        let node = &mut self.nodes[at];
        if node.paused_until.is_some() {
            return Ok(());
        }
        let Some(running) = &mut node.running else { return Ok(()) };
        let Some(reader) = running.host.reader(KeyspaceId::DEFAULT) else { return Ok(()) };
        if !is_holder {
            // Its clients go elsewhere.
            running.watchers = watchers::Clients::default();
            running.watches = Watches::new(watchers::limits(&mut self.random), reader.revision());
            return Ok(());
        }
        let (random, watches) = (&mut self.random, &mut running.watches);
        self.history.reach(reader.revision());
        let newest = self.history.newest();
        let mut outcome = Ok(0);
        if self.rates.calls > 0 && random.chance(50) {
            outcome = running.watchers.act(random, watches, &reader, newest).map(|()| 0);
        }
        if outcome.is_ok() {
            let published = reader.is_available().then(|| watches.revision());
            let compacted = reader.compacted();
            let known = Known { history: &self.history, compacted, published, now: self.now };
            outcome = running.watchers.take(random, watches, &reader, &known, !self.is_faulty);
        }
        let id = node.id;
        match outcome {
            Ok(told) => self.counts.watched += told,
            Err(problem) if problem.contains(watchers::STORE_FAILED) && self.sees_rot(at) => {
                // Its streams have ended.
                self.crash(at);
            }
            Err(problem) => return Err(self.violation(format!("a watcher at {id}: {problem}"))),
        }
        Ok(())
    }
}
