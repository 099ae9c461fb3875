//! Which other nodes are heard, once for all groups.
//!
//! A group that hibernates sends nothing, so its followers cannot tell by it whether the leader lives. Instead every node tells
//! every member that it is alive ([`PeerMessage::Alive`]) as often as a leader would, and any message says so, too. A node that was not
//! heard for the shortest election timeout, and that long is surprising of it ([`Detector`], phi of [`DOWN`]), is *down*, for all groups at once: what it
//! leads wakes and, after one delay for all of the same voters, campaigns. Behind a good line the timeout decides, because phi gets there
//! earlier; behind one that loses and delays, phi does, so that idle groups are not elected anew again and again. At the longest election timeout
//! it is down in any case: so long a dead leader's groups may wait, and no longer. The survivors go one after the other, by their ids: with hundreds of groups, delays that are drawn would let the votes of some
//! be split again and again. So failover takes as long as by the groups' own heartbeats, and the first survivor tends to lead all groups afterwards. When a
//! connection breaks, [`Host::peer_lost`] does the same at once; the node is down only when it stays silent.
//!
//! *Gone* for good is dearer to be wrong about: [`Host::is_silent_beyond`] asks that a pause of [`PAUSE_SECONDS`] on top would not explain it.
//!
//! Invariant: who is down was silent for `election_ticks_min` ticks of this process at least, whatever phi says: honouring a leader ends no earlier.
//!
//! Caveats: a leader whose node lives, but whose group is wrong in some way, is noticed only by what is asked of the group. Two nodes
//! that hear a third but not each other take each other for down; what they lead goes on.

use super::Host;
use crate::detector::{Detector, Phi};
use crate::effects::Notice;
use crate::group::Group;
use crate::peer::PeerMessage;
use quorate_consensus::{Consensus, HURRIED_TICKS_MAX};
use quorate_mvcc::engine::Engine;
use quorate_types::{GroupId, NodeId, Tick, reached};
use std::collections::{BTreeMap, BTreeSet};

/// How surprising a silence is that wakes what its node led: one live node in a hundred million.
const DOWN: Phi = Phi::whole(8);
/// A pause that says nothing of whether a node comes back.
const PAUSE_SECONDS: u64 = 3;

/// What is known of the other members.
#[derive(Default)]
pub(super) struct Liveness {
    /// One for each.
    detectors: BTreeMap<NodeId, Detector>,
    /// Since when it has not been down.
    up_since: BTreeMap<NodeId, Tick>,
    pub(super) down: BTreeSet<NodeId>,
    /// Whose connection broke, and who was not heard since.
    pub(super) lost: BTreeSet<NodeId>,
    /// Ticks were missed, which others have counted: they are to hear from here at the next.
    has_slept: bool,
}

impl Liveness {
    /// Whether there is no reason to think that a member is gone: requests are sent there.
    pub(super) fn is_reachable(&self, member: NodeId) -> bool {
        !self.down.contains(&member) && !self.lost.contains(&member)
    }
}

impl<E: Engine> Host<E> {
    /// Whether a member has not been heard for long.
    pub(super) fn is_down(&self, member: NodeId) -> bool {
        self.liveness.down.contains(&member)
    }

    /// Members that have not been heard for long.
    pub(super) fn down(&self) -> Vec<NodeId> {
        self.liveness.down.iter().copied().collect()
    }

    /// Whether a member has been silent for so many ticks, at least, and a pause of some seconds on top of what it is used to does not explain that.
    pub(super) fn is_silent_beyond(&self, member: NodeId, ticks: u64) -> bool {
        let pause_ticks = PAUSE_SECONDS * self.options.ticks_per_second;
        self.liveness.detectors.get(&member).is_some_and(|detector| {
            detector.silence(self.now) >= ticks && detector.phi_beyond(self.now, pause_ticks) >= DOWN
        })
    }

    /// Whether a member has been heard for so many ticks without being down.
    pub(super) fn is_up_since(&self, member: NodeId, ticks: u64) -> bool {
        let since = self.liveness.up_since.get(&member);
        !self.is_down(member) && since.is_some_and(|since| self.now.since(*since) >= ticks)
    }

    /// This process did not run for a time in which nobody can tell who was silent.
    pub(super) fn liveness_slept(&mut self) {
        let now = self.now;
        self.liveness.detectors.values_mut().for_each(|detector| detector.slept(now));
        self.liveness.has_slept = true;
    }

    /// Members that have not been heard for an election timeout, or longer where that is not unusual.
    pub fn unheard(&self) -> &BTreeSet<NodeId> {
        &self.liveness.down
    }

    /// After how many ticks a group that a lost member led campaigns here: a try's time for each surviving voter with a lower id. So it is the same
    /// in all groups of the same voters.
    pub(super) fn delay_after(&self, lost: NodeId, voters: &[NodeId]) -> u64 {
        let is_before =
            |voter: &&NodeId| **voter != lost && **voter < self.options.id && !self.is_down(**voter);
        1 + voters.iter().filter(is_before).count() as u64 * HURRIED_TICKS_MAX
    }

    /// The groups here, with these delays.
    pub(super) fn delays_after(&self, lost: NodeId) -> Vec<(GroupId, u64)> {
        let delay = |(id, group): (&GroupId, &Group<E>)| {
            (*id, self.delay_after(lost, &group.raft.configuration().voters))
        };
        self.groups.iter().map(delay).collect()
    }

    /// The members have changed: a new one has been silent since now, not since ever.
    pub(super) fn watch_over(&mut self, members: &BTreeSet<NodeId>) {
        let Liveness { detectors, up_since, down, lost, has_slept: _ } = &mut self.liveness;
        lost.retain(|node| members.contains(node));
        up_since.retain(|node, _| members.contains(node));
        detectors.retain(|node, _| members.contains(node));
        down.retain(|node| members.contains(node));
        for node in members {
            let new = || Detector::new(self.now, self.options.heartbeat_ticks);
            detectors.entry(*node).or_insert_with(new);
            up_since.entry(*node).or_insert(self.now);
        }
    }

    /// A member sent something.
    pub(super) fn heard(&mut self, from: NodeId) {
        let Some(detector) = self.liveness.detectors.get_mut(&from) else { return };
        detector.heard(self.now);
        self.liveness.lost.remove(&from);
        if self.liveness.down.remove(&from) {
            reached!("node-heard-again");
            self.out.notices.push(Notice::Heard { node: from });
            self.liveness.up_since.insert(from, self.now);
            for (id, group) in &mut self.groups {
                group.raft.node_up(from);
                self.dirty.insert(*id);
            }
        }
    }

    pub(super) fn tick_liveness(&mut self) {
        // While it asks for admission it says nothing else.
        let is_due = self.now.0.is_multiple_of(self.options.heartbeat_ticks);
        if (std::mem::take(&mut self.liveness.has_slept) || is_due) && !self.admission.is_mute() {
            self.out.send.extend(self.members.iter().map(|member| (*member, PeerMessage::Alive)));
        }
        let (now, shortest, longest) =
            (self.now, self.options.election_ticks_min, self.options.election_ticks_max);
        let Liveness { detectors, down, .. } = &self.liveness;
        let is_silent = |(node, detector): &(&NodeId, &Detector)| {
            let silence = detector.silence(now);
            // What is awake does not wait longer for its leader either, however bad the line is.
            let is_long = silence >= longest || (silence >= shortest && detector.is_suspect(now, DOWN));
            is_long && !down.contains(node)
        };
        let silent: Vec<NodeId> = detectors.iter().filter(is_silent).map(|(node, _)| *node).collect();
        for node in silent {
            reached!("node-silent");
            self.liveness.down.insert(node);
            self.out.notices.push(Notice::Silent { node });
            self.forwards_lost(node);
            for (id, delay) in self.delays_after(node) {
                let Some(group) = self.groups.get_mut(&id) else { continue };
                group.raft.node_down(node, delay);
                self.dirty.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::keyspaces::tests::host;
    use quorate_storage::memory::MemoryEngine;

    const OTHER: NodeId = NodeId(2);
    /// The shortest election timeout.
    const ELECTION: u64 = 25;
    /// Five minutes.
    const GRACE: u64 = 15_000;

    /// A host that heard the other member each so many ticks, for a while.
    fn used_to(ticks: u64) -> Host<MemoryEngine> {
        let mut host = host(&MemoryEngine::default());
        host.members = BTreeSet::from([OTHER]);
        host.watch_over(&BTreeSet::from([OTHER]));
        for tick in 1..=100 * ticks {
            pass(&mut host, 1);
            if tick.is_multiple_of(ticks) {
                host.heard(OTHER);
            }
        }
        host
    }

    fn pass(host: &mut Host<MemoryEngine>, ticks: u64) {
        for _ in 0..ticks {
            host.now = host.now.after(1);
            host.tick_liveness();
        }
    }

    #[test]
    fn behind_a_good_line_the_election_timeout_decides() {
        let mut host = used_to(5);
        pass(&mut host, ELECTION - 1);
        assert!(!host.is_down(OTHER));
        pass(&mut host, 1);
        assert!(host.is_down(OTHER));
        host.heard(OTHER);
        assert!(!host.is_down(OTHER) && !host.is_up_since(OTHER, 1));
        pass(&mut host, 1);
        assert!(host.is_up_since(OTHER, 1));
    }

    #[test]
    fn who_is_mostly_heard_late_is_given_longer() {
        let mut host = used_to(24);
        pass(&mut host, ELECTION + 5);
        assert!(!host.is_down(OTHER), "it is used to nearly that");
        pass(&mut host, 10);
        assert!(host.is_down(OTHER), "but nobody waits longer than the longest timeout");
    }

    #[test]
    fn a_pause_of_this_process_is_nobodys_silence() {
        let mut host = used_to(5);
        pass(&mut host, ELECTION - 1);
        host.slept();
        pass(&mut host, ELECTION - 1);
        assert!(!host.is_down(OTHER));
    }

    #[test]
    fn whoever_was_paused_says_at_its_next_tick_that_it_is_alive() {
        let mut host = used_to(5);
        for ticks in 0..10 {
            pass(&mut host, ticks);
            host.out.send.clear();
            host.slept();
            pass(&mut host, 1);
            assert!(host.out.send.contains(&(OTHER, PeerMessage::Alive)), "after {ticks} ticks");
        }
    }

    #[test]
    fn who_is_silent_for_the_grace_period_is_lost_and_no_pause_of_seconds_is_that() {
        let mut host = used_to(5);
        // However short the grace period is: a second, and the heartbeats around it.
        pass(&mut host, 60);
        assert!(host.is_down(OTHER) && !host.is_silent_beyond(OTHER, 1));
        pass(&mut host, 140);
        assert!(host.is_silent_beyond(OTHER, 1));
        pass(&mut host, GRACE - 201);
        assert!(!host.is_silent_beyond(OTHER, GRACE));
        pass(&mut host, 1);
        assert!(host.is_silent_beyond(OTHER, GRACE));
    }
}
