//! What goes wrong: nodes crash and pause, disks are lost, connections break, messages of one group or one node get lost, leaderships move.
//! How often is drawn from the seed ([`Rates`](super::rates::Rates)).

use super::World;
use super::network::Flying;
use super::node::{Node, store};
use crate::checker::Violation;
use quorate_consensus::Role;
use quorate_node::PeerMessage;
use quorate_types::{GroupId, NodeId, reached};

/// Before the end of a lull; about an election.
const LULL_END_TICKS: u64 = 32;

impl World {
    pub(super) fn fail_something(&mut self) -> Result<(), Violation> {
        if self.random.chance(self.rates.crash) {
            let mut at = self.random.below(self.nodes.len() as u64) as usize;
            // What has left a node before its disk had it is best caught right then.
            let is_writing =
                |node: &Node| node.running.as_ref().is_some_and(|running| running.syncing.is_some());
            if self.random.chance(600) {
                at = self.nodes.iter().position(is_writing).unwrap_or(at);
            }
            self.crash(at);
            // Whoever has just counted on what is lost must not be able to tell the others.
            if self.random.chance(300) && self.nodes.len() > 1 {
                let lonely = self.leader_or_any();
                self.cut_off(self.nodes[lonely].id, true, true);
            }
            // Now and then the power fails for some or all: what only memory held is gone everywhere.
            if self.random.chance(250) {
                for at in 0..self.nodes.len() {
                    if self.random.chance(300) {
                        continue;
                    }
                    self.crash(at);
                }
            }
        }
        if self.random.chance(self.rates.pause) {
            self.pause();
        }
        if self.random.chance(self.rates.breaks) {
            self.break_connections();
        }
        if self.random.chance(self.rates.hand_over) {
            let at = self.leader_or_any();
            if let Some(running) = self.awake(at) {
                running.host.hand_over();
                self.settle(at, Ok(()))?;
            }
        }
        // While something is prepared there is more to go wrong, and while nodes differ about who leads.
        let is_delicate = !self.prepared.is_empty() || !self.muted.is_empty();
        let scatter = self.rates.scatter * if is_delicate { 3 } else { 1 };
        if self.random.chance(scatter) {
            let group = self.any_group();
            self.hand_over_group(group)?;
        }
        if self.random.chance(self.rates.mute) {
            self.mute()?;
        }
        if self.hand_over_at == self.now {
            let is_office_muted = self.muted.keys().any(|(group, _)| *group == GroupId::META);
            let group = if is_office_muted { self.any_partition() } else { GroupId::META };
            self.hand_over_group(group)?;
        }
        if self.random.chance(self.rates.disk_loss) {
            self.lose_disk();
        }
        if self.random.chance(self.rates.cut) && self.nodes.len() > 1 {
            let lonely = NodeId(1 + self.random.below(self.nodes.len() as u64));
            let (is_out, is_in) = (self.random.chance(800), self.random.chance(800));
            self.cut_off(lonely, is_out, is_in);
        }
        if self.random.chance(self.rates.lull) {
            self.lull_until = self.now + 20 + self.random.below(150);
        }
        // Just so long before the load comes back that another leads by then: who slept must not answer.
        if self.lull_until == self.now + LULL_END_TICKS && self.nodes.len() > 1 && self.random.chance(500) {
            let lonely = self.leader_or_any();
            self.cut_off(self.nodes[lonely].id, true, true);
        }
        let now = self.now;
        self.cut.retain(|_, until| *until > now);
        self.muted.retain(|_, (until, _)| *until > now);
        Ok(())
    }

    pub(super) fn is_muted(&self, flying: &Flying) -> bool {
        let PeerMessage::Group { group, .. } = &flying.message else { return false };
        self.muted.contains_key(&(*group, flying.to))
            || self.muted.get(&(*group, flying.from)).is_some_and(|(_, is_silent)| *is_silent)
    }

    fn cut_off(&mut self, lonely: NodeId, is_out: bool, is_in: bool) {
        let until = self.now + 20 + self.random.below(200);
        for other in self.nodes.iter().map(|node| node.id).filter(|id| *id != lonely) {
            if is_out {
                self.cut.insert((lonely, other), until);
            }
            if is_in {
                self.cut.insert((other, lonely), until);
            }
        }
    }

    /// Half of the time a node that leads: most of what can go wrong goes wrong with that.
    fn leader_or_any(&mut self) -> usize {
        let at = self.random.below(self.nodes.len() as u64) as usize;
        if !self.random.chance(500) {
            return at;
        }
        let group = self.any_group();
        self.leader_of(group).unwrap_or(at)
    }

    /// A group's leader does not hear the others any more, and they perhaps not it. Either they elect another in time; or it has just
    /// handed over, so that there is another at once, and does not know that for as long as a leader goes on without a quorum.
    fn mute(&mut self) -> Result<(), Violation> {
        let group = self.any_group();
        let Some(at) = self.leader_of(group) else { return Ok(()) };
        let is_silent = self.random.chance(500);
        let again_ticks = if is_silent { 30 + self.random.below(60) } else { 2 + self.random.below(12) };
        if !is_silent {
            self.hand_over_group(group)?;
        }
        let until = self.now + 20 + self.random.below(140);
        self.muted.insert((group, self.nodes[at].id), (until, is_silent));
        // Then the office goes where the partition went, or a partition after the office.
        self.hand_over_at = self.now + again_ticks;
        Ok(())
    }

    fn hand_over_group(&mut self, group: GroupId) -> Result<(), Violation> {
        if let Some(at) = self.leader_of(group)
            && let Some(running) = self.awake(at)
        {
            running.host.hand_over_group(group);
            self.settle(at, Ok(()))?;
        }
        Ok(())
    }

    fn any_partition(&mut self) -> GroupId {
        let groups = self.groups();
        groups[self.random.below(groups.len() as u64) as usize]
    }

    /// The group that something is done to: of several partitions any, and often the sequencer's.
    fn any_group(&mut self) -> GroupId {
        match self.groups().len() {
            0 | 1 => GroupId::FIRST,
            _ if self.random.chance(400) => GroupId::META,
            _ => self.any_partition(),
        }
    }

    /// Who leads a group, in its newest term.
    pub(super) fn leader_of(&self, group: GroupId) -> Option<usize> {
        let term = |node: &Node| {
            let statuses = node.running.as_ref()?.host.status();
            let found = statuses.into_iter().find(|status| status.group == group)?;
            matches!(found.consensus.role, Role::Leader { .. }).then_some(found.consensus.term)
        };
        let leaders = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((term(node)?, at)));
        leaders.max().map(|(_, at)| at)
    }

    /// The connections of a node break, though it lives: who heard of a leader by them looks for another.
    fn break_connections(&mut self) {
        let at = self.leader_or_any();
        let lost = self.nodes[at].id;
        for other in 0..self.nodes.len() {
            if other == at || self.random.chance(200) {
                continue;
            }
            let id = self.nodes[other].id;
            if let Some(running) = self.awake(other) {
                running.host.peer_lost(lost);
            }
            if let Some(running) = self.awake(at) {
                running.host.peer_lost(id);
            }
            if self.random.chance(500) {
                self.flying.retain(|flying| (flying.from, flying.to) != (lost, id));
            }
        }
    }

    /// A node stands still.
    fn pause(&mut self) {
        let at = self.leader_or_any();
        let ticks = 5 + self.random.below(self.rates.pause_ticks_max);
        let node = &mut self.nodes[at];
        if node.running.is_some() && node.paused_until.is_none() {
            node.paused_until = Some(self.now + ticks);
            self.counts.pauses += 1;
        }
    }

    /// A node crashes and comes back with an empty disk; one at a time, because what a majority forgets is lost.
    fn lose_disk(&mut self) {
        if self.is_anybody_poor() {
            return;
        }
        let at = self.random.below(self.nodes.len() as u64) as usize;
        if !self.may_forget(at) {
            return;
        }
        self.crash(at);
        self.forget(at);
        self.nodes[at].has_forgotten = false;
        self.counts.disks_lost += 1;
    }

    /// Whether a node lacks, or is about to lack, what it had; or there is only one.
    fn is_anybody_poor(&self) -> bool {
        self.nodes.iter().any(Node::is_poor) || self.nodes.len() == 1
    }

    /// Whether a node may lose what it has stored: one at a time, and where nothing is lost with it.
    pub(super) fn may_forget(&self, at: usize) -> bool {
        // It would wait for ever for one that is dead for good and counts as a member still.
        let is_waiting = self.members.lost.iter().any(|lost| !self.members.removed.contains(lost));
        let id = self.nodes[at].id;
        // Drained and lost ones may have left two where there were three.
        !self.is_anybody_poor()
            && !is_waiting
            && !self.members.lost.contains(&id)
            && !self.is_on_few(id)
            && self.can_ask(&self.nodes[at], None)
    }

    /// A process ends, and everything that it has written is there, synced or not.
    pub(super) fn kill(&mut self, at: usize) {
        self.end(at, 1000);
    }

    /// The machine of a process fails.
    pub(super) fn crash(&mut self, at: usize) {
        if self.nodes[at].running.is_some() {
            let survives = self.random.below(1001);
            self.end(at, survives);
        }
    }

    /// A process ends, and of what was not synced each sector survives so many times in a thousand.
    fn end(&mut self, at: usize, survives: u64) {
        let Some(running) = self.nodes[at].running.take() else { return };
        self.counts.crashes += 1;
        reached!("crash-while-writing", survives < 1_000 && running.syncing.is_some());
        reached!("crash-while-flushing", running.flush_due.is_some());
        reached!("crash-with-errands", !running.errands.is_empty());
        reached!("crash-while-prepared", survives < 1_000 && !self.prepared.is_empty());
        reached!("crash-of-paused", self.nodes[at].paused_until.is_some());
        self.nodes[at].paused_until = None;
        self.nodes[at].resuming = running.watchers.resume();
        drop(running);
        let random = &mut self.random;
        self.nodes[at].is_failing = false;
        match survives {
            1000 => self.nodes[at].disk.kill(),
            _ => self.nodes[at].disk.crash(|| random.chance(survives)),
        }
        // What was not spilled is gone. The last time may have been at any time, or is now.
        if random.chance(200) {
            self.nodes[at].engine.seal();
        }
        if random.chance(300)
            && let Err(fault) = self.nodes[at].engine.spill()
        {
            unreachable!("a store in memory does not fail unless it is told to: {fault}");
        }
        let node = &mut self.nodes[at];
        reached!("store-lost-unflushed", node.engine.bytes() != (0, 0));
        node.engine = store(node.id, node.engine.base().clone());
        // Some come back at once: before others have noticed.
        let down_ticks_max = if self.random.chance(300) { 10 } else { 150 };
        self.nodes[at].down_until = self.now + 1 + self.random.below(down_ticks_max);
        let lost = self.nodes[at].id;
        // Peers see the connection break, unless the network ate that too.
        for other in 0..self.nodes.len() {
            if self.random.chance(700)
                && self.nodes[other].paused_until.is_none()
                && let Some(running) = &mut self.nodes[other].running
            {
                running.host.peer_lost(lost);
            }
        }
    }
}
