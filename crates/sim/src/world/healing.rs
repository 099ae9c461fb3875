//! The end of the faults: nothing fails any more, and everything must finish.

use super::{World, members};
use crate::checker::Violation;
use crate::clients::{Call, Outcome};
use crate::watchers::Known;
use quorate_types::Rejection;

/// After healing calls go on until so long before the end; then nothing is asked, and every lease runs out.
const QUIET_TICKS: u64 = 700;
/// Quiet time in which everything must finish: some elections, and the timeout of every call.
const HEALED_TICKS: u64 = 1_500;
/// Calls where partitions are dealt and nothing fails any more, in thousandths of a tick.
const DEALT_CALLS_MAX: u64 = 200;

/// Of leaderships, after everything is where it is to be.
const HAND_OVERS_MAX: usize = 20;

impl World {
    /// Nothing fails any more, and everything must finish.
    pub fn heal_and_finish(&mut self) -> Result<(), Violation> {
        self.heal();
        // Whoever was lost last may have to be found lost yet, and replaced.
        let until = self.now + HEALED_TICKS * if self.members.move_groups() { 2 } else { 1 };
        while self.now < until {
            if self.now + QUIET_TICKS > until {
                self.rates.calls = 0;
            }
            self.order_members()?;
            self.live_a_tick()?;
        }
        self.check_splits()?;
        self.check_members()?;
        self.tell_the_rest()?;
        self.check_calls()?;
        self.check_nodes()?;
        for at in 0..self.nodes.len() {
            self.check_part(at)?;
        }
        self.check_replicas()
    }

    fn heal(&mut self) {
        self.is_faulty = false;
        self.cut.clear();
        self.muted.clear();
        self.rates = self.rates.healthy();
        self.heal_network();
        self.healed_tick = self.now;
        let lost = &self.members.lost;
        for node in self.nodes.iter_mut().filter(|node| !lost.contains(&node.id)) {
            node.down_until = 0;
            node.hung_until = 0;
            if node.is_failing {
                node.is_failing = false;
                node.disk.mend();
            }
            node.paused_until = node.paused_until.map(|_| self.now);
        }
        for at in 0..self.nodes.len() {
            self.give_space(at);
        }
        self.members.moved_tick = self.now;
        self.members.handed_over.clear();
        if self.members.are_dealt() {
            // Every transaction takes its locks on several nodes one after the other: with more calls than that on so few keys some get none in their time.
            self.rates.calls = self.rates.calls.min(DEALT_CALLS_MAX);
        }
    }

    /// Nothing changes any more: clients that watch ask how far they are, and take all that there is.
    fn tell_the_rest(&mut self) -> Result<(), Violation> {
        for node in &mut self.nodes {
            if let Some(running) = &mut node.running {
                running.watchers.ask_progress(&mut running.watches);
                if let Some(part) = &mut running.part {
                    part.ask_progress();
                }
            }
        }
        for at in 0..self.nodes.len() {
            // One poll may end with history that had nothing for a stream.
            for _ in 0..3 {
                self.watch(at)?;
                self.watch_part(at)?;
            }
        }
        Ok(())
    }

    /// Every call was answered, and served where nothing was on the way any more.
    fn check_calls(&self) -> Result<(), Violation> {
        let open =
            self.nodes.iter().filter_map(|node| node.running.as_ref()).map(|running| running.open.len());
        if open.sum::<usize>() > 0 {
            return Err(self.violation("calls were never answered though nothing failed any more"));
        }
        let settled_tick = self.healed_tick.max(self.members.moved_tick) + members::SETTLED_TICKS;
        let healed = |call: &&Call| call.asked_tick > settled_tick;
        // Leaders go where the rows want them, one after the other; that does not go on for ever. What was asked of the former one may end without its knowing how.
        let late = self.members.handed_over.iter().filter(|tick| **tick > settled_tick);
        if late.clone().count() > HAND_OVERS_MAX {
            return Err(self.violation("leaderships are handed to and fro in a healed cluster"));
        }
        let is_handed_over = |call: &&Call| {
            let during =
                |tick: &u64| call.asked_tick <= *tick && call.answered_tick.is_none_or(|end| *tick <= end);
            matches!(call.outcome, Some(Outcome::Rejected(Rejection::Unknown))) && late.clone().any(during)
        };
        let refused = self.calls.iter().filter(healed).filter(|call| !is_handed_over(call)).find(|call| {
            matches!(
                call.outcome,
                Some(Outcome::Rejected(
                    Rejection::NoLeader
                        | Rejection::Timeout
                        | Rejection::Unknown
                        | Rejection::Unavailable
                        | Rejection::NoSpace
                ))
            )
        });
        if let Some(call) = refused {
            return Err(self.violation(format!("a healed cluster did not serve {call:?}")));
        }
        Ok(())
    }

    /// All nodes are back that are not lost for good, and those who watch at them have been told everything.
    fn check_nodes(&self) -> Result<(), Violation> {
        for node in &self.nodes {
            if self.members.lost.contains(&node.id) {
                continue;
            }
            let Some(running) = &node.running else {
                return Err(self.violation(format!("node {} did not come back", node.id)));
            };
            if !running.host.is_admitted() {
                return Err(self.violation(format!("node {} was never admitted", node.id)));
            }
            let known = Known { history: &self.history, compacted: None, published: None, now: self.now };
            if let Err(problem) = running.watchers.finish(&known) {
                return Err(self.violation(format!("at {}: {problem}", node.id)));
            }
        }
        Ok(())
    }

    /// Replicas of a group have applied the same, and are the same.
    fn check_replicas(&self) -> Result<(), Violation> {
        let mut states = Vec::new();
        for node in self.nodes.iter().filter(|node| !self.members.lost.contains(&node.id)) {
            let Some(running) = &node.running else { continue };
            for status in running.host.status() {
                states.push((
                    status.group,
                    status.consensus.applied,
                    status.digest,
                    status.revision,
                    node.id,
                ));
            }
        }
        for group in self.all_groups() {
            let mut of_group = states.iter().filter(|state| state.0 == group);
            let Some(first) = of_group.next() else { continue };
            if let Some(other) =
                of_group.find(|other| (other.1, other.2, other.3) != (first.1, first.2, first.3))
            {
                return Err(self.violation(format!("replicas differ after healing: {first:?} and {other:?}")));
            }
        }
        Ok(())
    }
}
