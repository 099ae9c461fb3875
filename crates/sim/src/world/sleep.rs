//! What a healed and idle cluster does: its groups fall asleep, and wake when they must.
//!
//! Liveness only: that nothing is wrong while groups sleep and wake is for the faulty part of a run, in which they do so between two calls, and in
//! lulls of the load. Source: `docs/consensus.md`, section Hibernation.

use super::World;
use crate::checker::Violation;
use crate::clients::{self, Ask, Outcome};
use quorate_types::request::{PutLease, PutRequest, RangeRequest};
use quorate_types::{Bytes, GroupId, KeyRange, Request, Term};
use std::collections::BTreeSet;

/// Groups fall asleep within this, whatever happened before: their idle time, several heartbeats, and leases that are still to end.
const ASLEEP_TICKS: u64 = 400;
/// They sleep for so long, and nobody campaigns.
const SLEEP_TICKS: u64 = 200;
/// A dead leader's groups are led again within this: its silence, the common delay, and further tries when votes were split, with
/// clocks a tenth apart. Two survivors split them often: of some ten thousand groups one was seen to do so four times in a row.
const FAILOVER_TICKS: u64 = 300;
/// A call to a sleeping group is answered within this.
const CALL_TICKS: u64 = 20;

impl World {
    /// Sleep, calls, the death of a leader and its return. Nothing of that where groups never sleep.
    pub fn sleep_and_wake(&mut self) -> Result<(), Violation> {
        if self.hibernate_after_ticks.is_none() {
            return Ok(());
        }
        self.fall_asleep("after healing")?;
        let terms = self.leaders.len();
        self.live(SLEEP_TICKS)?;
        if self.leaders.len() != terms {
            return Err(self.violation("somebody campaigned in a healthy cluster that slept"));
        }
        self.call_sleepers()?;
        // One that is away for so long would be replaced.
        if self.nodes.len() > 2 && !self.members.happen() {
            self.lose_a_leader()?;
        }
        Ok(())
    }

    fn live(&mut self, ticks: u64) -> Result<(), Violation> {
        (0..ticks).try_for_each(|_| self.live_a_tick())
    }

    fn is_asleep(&self) -> bool {
        let mut running = self
            .nodes
            .iter()
            .filter(|node| node.paused_until.is_none())
            .filter_map(|node| node.running.as_ref());
        running.all(|running| running.host.status().iter().all(|status| status.consensus.is_hibernating))
    }

    fn fall_asleep(&mut self, when: &str) -> Result<(), Violation> {
        for _ in 0..ASLEEP_TICKS {
            if self.is_asleep() {
                return Ok(());
            }
            self.live_a_tick()?;
        }
        Err(self.violation(format!("groups did not fall asleep {when}")))
    }

    /// A read and a write at some node.
    fn call_sleepers(&mut self) -> Result<(), Violation> {
        let key = clients::key(0);
        let put = PutRequest {
            key: key.clone(),
            value: Some(Bytes::from_static(b"awake")),
            lease: PutLease::Detach,
            previous: false,
        };
        for ask in [Ask::Read(RangeRequest::new(KeyRange::Single(key))), Ask::Request(Request::Put(put))] {
            self.fall_asleep("before a call")?;
            let number = self.calls.len();
            let mut at = self.random.below(self.nodes.len() as u64) as usize;
            while self.nodes[at].running.is_none() || !self.is_called(at) {
                at = (at + 1) % self.nodes.len();
            }
            self.call(at, ask)?;
            self.live(CALL_TICKS)?;
            if !matches!(self.calls[number].outcome, Some(Outcome::Read(..) | Outcome::Reply(_))) {
                return Err(
                    self.violation(format!("a group that slept did not serve {:?}", self.calls[number]))
                );
            }
        }
        Ok(())
    }

    /// A node that leads dies or stands still, and its groups are led by others, who sleep again without it; then it comes back.
    fn lose_a_leader(&mut self) -> Result<(), Violation> {
        self.fall_asleep("before a leader dies")?;
        let leader = |world: &Self, group: GroupId| {
            let led = world.leaders.iter().filter(|((led, _), _)| *led == group);
            led.max_by_key(|((_, term), _)| *term).map(|((_, term), leader)| (*leader, *term))
        };
        let groups = self.all_groups();
        let group = groups[self.random.below(groups.len() as u64) as usize];
        let Some((lost, _)) = leader(self, group) else { return Ok(()) };
        let at = lost.0 as usize - 1;
        let orphans: Vec<(GroupId, Term)> = groups
            .iter()
            .copied()
            .filter_map(|group| {
                leader(self, group).filter(|(node, _)| *node == lost).map(|(_, term)| (group, term))
            })
            .collect();
        if self.random.chance(500) {
            self.crash(at);
            self.nodes[at].down_until = u64::MAX;
        } else {
            self.nodes[at].paused_until = Some(u64::MAX);
        }
        self.live(FAILOVER_TICKS)?;
        for (group, before) in orphans {
            if leader(self, group).is_none_or(|(node, term)| node == lost || term <= before) {
                return Err(
                    self.violation(format!("group {group} slept through the death of its leader {lost}"))
                );
            }
        }
        self.fall_asleep("without a node that is down")?;
        self.call_others(at)?;
        self.nodes[at].down_until = 0;
        self.nodes[at].paused_until = self.nodes[at].paused_until.map(|_| self.now);
        self.live(FAILOVER_TICKS)?;
        self.fall_asleep("with a node that came back")?;
        let mut applied = BTreeSet::new();
        for running in self.nodes.iter().filter_map(|node| node.running.as_ref()) {
            let statuses = running.host.status().into_iter();
            applied.extend(statuses.map(|status| (status.group, status.consensus.applied, status.digest)));
        }
        if applied.len() != groups.len() {
            return Err(
                self.violation(format!("a node came back and was not brought up to date: {applied:?}"))
            );
        }
        Ok(())
    }

    /// Something for the node that is away to miss.
    fn call_others(&mut self, away: usize) -> Result<(), Violation> {
        let at = (away + 1) % self.nodes.len();
        let put = PutRequest {
            key: clients::key(1),
            value: Some(Bytes::from_static(b"missed")),
            lease: PutLease::Detach,
            previous: false,
        };
        let number = self.calls.len();
        self.call(at, Ask::Request(Request::Put(put)))?;
        self.live(CALL_TICKS)?;
        if !matches!(self.calls[number].outcome, Some(Outcome::Reply(_))) {
            return Err(self.violation(format!("a group that slept did not serve {:?}", self.calls[number])));
        }
        self.fall_asleep("after a call without one node")
    }
}
