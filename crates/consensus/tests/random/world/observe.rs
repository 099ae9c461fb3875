//! What is looked at whenever a replica has done something: the invariants, with all replicas in view.

use super::World;
use super::node::Node;
use crate::invariants::Durable;
use quorate_consensus::{Consensus, Role};
use quorate_types::Term;

impl World {
    /// Looks at a replica after it did something.
    pub(super) fn observe(&mut self, at: usize) {
        let Node { id, running: Some(running), .. } = &mut self.nodes[at] else { return };
        let (id, status) = (*id, running.raft.status());
        assert_eq!((status.last, status.start), (running.log.last(), running.log.start), "n{id}'s log");
        let configuration = running.raft.configuration();
        assert_eq!(configuration, self.invariants.configuration_of(&running.log), "n{id}'s members");
        let was_leader = matches!(running.role, Some(Role::Leader { .. }));
        let has_resigned = was_leader && !matches!(status.role, Role::Leader { .. });
        self.counts.resignations += u64::from(has_resigned && !configuration.is_voter(id));
        assert!(status.commit >= running.commit, "n{id}'s commit index fell");
        assert!(status.applied <= status.commit && status.commit <= status.last.index, "{status:?}");
        running.commit = status.commit;
        let is_new_role = running.role != Some(status.role);
        self.counts.hibernations += u64::from(status.is_hibernating && !running.was_hibernating);
        running.was_hibernating = status.is_hibernating;
        running.role = Some(status.role);
        if let Role::Leader { .. } = status.role
            && is_new_role
            && self.invariants.leads(status.term, id, &running.log)
        {
            let committed = self.invariants.configuration_at(status.commit.min(self.invariants.committed()));
            let may_lead = configuration.is_voter(id) || committed.is_voter(id);
            assert!(may_lead, "n{id} leads without a vote in {configuration:?}");
            self.counts.leaders += 1;
        }
        let before = self.invariants.committed().0;
        let is_news = self.invariants.commits(id, status.commit, &running.log);
        if is_new_role {
            self.note(|_| format!("n{id} in term {}: {:?}", status.term, status.role));
        }
        if is_news {
            self.counts.commits += status.commit.0 - before;
            self.counts.changes = self.invariants.changes();
            self.note(|_| format!("n{id} commits up to {}", status.commit));
            self.check_completeness(status.term);
            self.check_kept();
        }
    }

    /// Leader completeness, from the other side: an older term commits while a newer one has its leader.
    fn check_completeness(&self, term: Term) {
        let Some(committed) = self.invariants.committed_position() else { return };
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let status = running.raft.status();
            if matches!(status.role, Role::Leader { .. }) && status.term >= term {
                assert!(running.log.holds(committed), "n{} leads without {committed}", node.id);
            }
        }
    }

    pub(super) fn check_kept(&self) {
        let Some(committed) = self.invariants.committed_position() else { return };
        let durable: Vec<Durable> =
            self.nodes.iter().map(|node| node.durable(committed, &self.invariants)).collect();
        self.invariants.is_kept(&durable);
    }
}
