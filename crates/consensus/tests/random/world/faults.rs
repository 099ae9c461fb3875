//! What goes wrong, and what is asked meanwhile, by chance: nodes crash, links are cut, leaderships move, members change.

use super::node::Node;
use super::{Event, TICK, World};
use quorate_consensus::{Configuration, Consensus, HURRIED_TICKS_MAX, Role};
use quorate_types::NodeId;

impl World {
    pub(super) fn take_chances(&mut self) {
        let weather = self.weather.clone();
        let size = self.nodes.len() as u64;
        for at in 0..self.nodes.len() {
            if self.chance(weather.propose) {
                self.propose(at);
            }
        }
        let at = self.pick();
        let other = NodeId(1 + self.random.between(0, size));
        if self.chance(weather.read) {
            self.read(at);
        }
        if self.chance(weather.flush) {
            self.flush(at);
        }
        if self.chance(weather.crash) {
            self.crash(at);
        }
        if self.chance(weather.crash / 4) {
            self.note(|_| "the power fails".to_owned());
            for each in 0..self.nodes.len() {
                self.crash(each);
            }
        }
        if self.chance(weather.mend) {
            self.cut.clear();
        }
        if self.chance(weather.cut) {
            self.cut_links();
        }
        if self.chance(weather.alarm) {
            self.alarm(at, other);
        }
        if self.chance(weather.transfer) {
            self.transfer(at, other);
        }
        if weather.change > 0 && self.chance(weather.change) {
            self.change(at, other);
        }
        if self.chance(weather.snapshot_failure)
            && let Some(running) = &mut self.nodes[at].running
        {
            running.raft.snapshot_failed(other);
            self.drain(at);
        }
    }

    /// Any number of the writes that were not reported may have reached the disk, in their order.
    pub(super) fn crash(&mut self, at: usize) {
        let Some(running) = self.nodes[at].running.take() else { return };
        let kept = self.random.between(0, running.writing.len() as u64 + 1);
        for (_, write) in running.writing.iter().take(kept as usize) {
            self.nodes[at].disk.write(write);
        }
        let disk = &self.nodes[at].disk;
        if self.invariants.configuration_of(disk).members().iter().eq([&self.nodes[at].id]) {
            // Alone, it leads before its term is durable, for nobody sees that: what is lost with the term was never there.
            let lost = running.writing.iter().skip(kept as usize).flat_map(|(_, write)| &write.entries);
            lost.filter(|entry| entry.term > disk.hard_state.term)
                .for_each(|entry| self.invariants.forgets(entry.position()));
        }
        self.counts.crashes += 1;
        self.note(|world| format!("n{} crashes, {kept} unreported writes survive", world.nodes[at].id));
        let id = self.nodes[at].id;
        for other in 0..self.nodes.len() {
            if self.chance(500) {
                self.lose_peer(other, id);
            }
        }
        let down_max = if self.chance(500) { 2 } else { 40 };
        let down = self.random.between(1, down_max * TICK);
        self.schedule(down, Event::Restart(at));
        self.check_kept();
    }

    fn lose_peer(&mut self, at: usize, peer: NodeId) {
        let delay = self.random.between(1, 1 + HURRIED_TICKS_MAX);
        if let Some(running) = &mut self.nodes[at].running {
            running.raft.peer_lost(peer, delay);
            self.note(|world| format!("n{} loses its connection to n{peer}", world.nodes[at].id));
            self.drain(at);
        }
    }

    /// Connections break though nobody died: one, or all to one node.
    fn alarm(&mut self, at: usize, other: NodeId) {
        if self.chance(500) {
            return self.lose_peer(at, other);
        }
        let id = self.nodes[at].id;
        for each in 0..self.nodes.len() {
            self.lose_peer(each, id);
        }
    }

    /// A node, half of the time one that leads or thinks so: there most can go wrong.
    fn pick(&mut self) -> usize {
        let leads = |node: &Node| {
            let role = node.running.as_ref().and_then(|running| running.role);
            matches!(role, Some(Role::Leader { .. }))
        };
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(|at| leads(&self.nodes[*at])).collect();
        if leaders.is_empty() || self.chance(500) {
            self.random.between(0, self.nodes.len() as u64) as usize
        } else {
            leaders[self.random.between(0, leaders.len() as u64) as usize]
        }
    }

    fn transfer(&mut self, at: usize, other: NodeId) {
        let to = self.chance(700).then_some(other);
        if let Some(running) = &mut self.nodes[at].running {
            let is_leader = matches!(running.raft.status().role, Role::Leader { .. });
            self.counts.transfers += u64::from(is_leader);
            running.raft.transfer(to);
            self.note(|world| format!("n{} is asked to hand over to {to:?}", world.nodes[at].id));
            self.drain(at);
        }
    }

    /// A node learns or learns no more, or any of those who vote and learn will vote.
    fn change(&mut self, at: usize, other: NodeId) {
        let Some(running) = &self.nodes[at].running else { return };
        let Configuration { mut voters, mut learners, .. } = running.raft.configuration().clone();
        if self.chance(400) {
            if learners.contains(&other) {
                learners.retain(|learner| *learner != other);
            } else if !voters.contains(&other) {
                learners.push(other);
            }
        } else {
            let members: Vec<NodeId> = voters.drain(..).chain(learners.drain(..)).collect();
            for id in members {
                match self.random.between(0, 6) {
                    0 => {}
                    1 => learners.push(id),
                    _ => voters.push(id),
                }
            }
        }
        let Some(running) = &mut self.nodes[at].running else { return };
        let outcome = running.raft.change(voters.clone(), learners.clone());
        self.note(|world| {
            format!("n{} makes {voters:?} vote, {learners:?} learn: {outcome:?}", world.nodes[at].id)
        });
        if self.chance(700) {
            self.drain(at);
        }
    }

    /// One node alone, two halves, or one link, so that some hear each other only through a third; both ways
    /// or one.
    fn cut_links(&mut self) {
        self.cut.clear();
        let sides: Vec<bool> = self.nodes.iter().map(|_| self.random.between(0, 2) == 0).collect();
        let is_one_way = self.chance(200);
        let alone = self.chance(400).then(|| self.pick());
        let link =
            self.chance(400).then(|| (self.pick(), self.random.between(0, sides.len() as u64) as usize));
        for a in 0..sides.len() {
            for b in 0..sides.len() {
                let is_apart = match (alone, link) {
                    (Some(alone), _) => (a == alone) != (b == alone) && (a == alone || !is_one_way),
                    (None, Some(link)) => a != b && ((a, b) == link || (b, a) == link && !is_one_way),
                    (None, None) => sides[a] != sides[b] && (sides[a] || !is_one_way),
                };
                if is_apart {
                    self.cut.insert((self.nodes[a].id, self.nodes[b].id));
                }
            }
        }
        self.note(|world| format!("cut: {:?}", world.cut));
    }
}
