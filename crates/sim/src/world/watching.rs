//! Clients that watch all that a node holds of the keyspace.

use super::World;
use crate::checker::Violation;
use crate::watchers::{self, Known, Problem};
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
        self.history.publish(reader.revision(), self.step);
        let newest = self.history.newest();
        let acts = self.rates.calls > 0 && random.chance(50);
        let acted = if acts { running.watchers.act(random, watches, &reader, newest) } else { Ok(()) };
        let outcome = acted.map_err(Problem::Broken).and_then(|()| {
            let published = reader.is_available().then(|| watches.revision());
            let compacted = reader.compacted();
            let known = Known { history: &self.history, compacted, published, now: self.now };
            running.watchers.take(random, watches, &reader, &known, !self.is_faulty)
        });
        self.note_told(at, "a watcher", outcome)
    }

    /// What clients were told counts. Where the store rots their streams end with the process; elsewhere any problem is the program's.
    pub(super) fn note_told(
        &mut self,
        at: usize,
        who: &str,
        outcome: Result<u64, Problem>,
    ) -> Result<(), Violation> {
        match outcome {
            Ok(told) => self.counts.watched += told,
            Err(Problem::Store(_)) if self.sees_rot(at) => self.crash(at),
            Err(problem) => {
                return Err(self.violation(format!("{who} at {}: {problem}", self.nodes[at].id)));
            }
        }
        Ok(())
    }
}
