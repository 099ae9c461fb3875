//! Carries out what a node wants done, and looks at what it says.

use super::World;
use crate::checker::Violation;
use quorate_consensus::Role;
use quorate_node::{Effects, Notice};
use quorate_types::Fault;

impl World {
    /// Takes what a node wants done after it was given something, with this outcome, and does it.
    pub(super) fn settle(&mut self, at: usize, outcome: Result<(), Fault>) -> Result<(), Violation> {
        let Some(running) = &mut self.nodes[at].running else { return Ok(()) };
        let effects = match outcome.and_then(|()| running.host.take()) {
            Ok(effects) => effects,
            Err(fault) => return self.stops_for(at, &fault),
        };
        let Effects {
            send,
            persist,
            replies,
            grants,
            applied,
            flush,
            standing,
            members: _,
            notices,
            suspect,
        } = effects;
        if let Some(fault) = suspect
            && !self.sees_rot(at)
        {
            return Err(self.violation(format!("a healthy store is suspected: {fault}")));
        }
        self.send(at, send);
        let (written, is_taken) = self.write(at, persist, flush)?;
        if !is_taken {
            // What it has applied may be in its store when it starts again.
            self.note_applied(at, &written)?;
            self.end_for_disk(at);
            return Ok(());
        }
        if let Some(standing) = standing
            && let Some(running) = &mut self.nodes[at].running
        {
            running.host.standing_recorded();
            self.nodes[at].standing = standing;
            self.nodes[at].is_forgetful = false;
        }
        self.note_notices(at, &notices)?;
        self.note_applied(at, &written)?;
        self.tell_watchers(at, applied)?;
        self.check_leaders(at, &notices)?;
        for (ticket, outcome) in replies {
            self.replied(at, ticket, outcome)?;
        }
        for (ticket, grant) in grants {
            self.granted(at, ticket, grant)?;
        }
        Ok(())
    }

    fn note_notices(&mut self, at: usize, notices: &[Notice]) -> Result<(), Violation> {
        for notice in notices {
            if let Notice::Diverged { .. } | Notice::DigestsDiffer { .. } = notice {
                return Err(self.violation(format!("node {} says {notice:?}", self.nodes[at].id)));
            }
            // It may have lost its registration again by now, and have answered meanwhile.
            if let Notice::Registered { group, term, .. } = notice {
                self.nodes[at].shadows.entry(*group).or_default().register(*term);
            }
            if matches!(notice, Notice::HandedOver { .. }) {
                self.members.handed_over.push(self.now);
            }
            self.counts.moves += u64::from(matches!(notice, Notice::Discarded { .. }));
            self.counts.snapshots += u64::from(matches!(notice, Notice::SnapshotInstalled { .. }));
        }
        Ok(())
    }

    /// Whoever leads, served or not: at most one in a term (Election Safety; Raft paper, figure 3).
    fn check_leaders(&mut self, at: usize, notices: &[Notice]) -> Result<(), Violation> {
        let id = self.nodes[at].id;
        for notice in notices {
            if let Notice::Role { group, term, role: Role::Leader { .. } } = notice
                && *self.leaders.entry((*group, *term)).or_insert(id) != id
            {
                return Err(self.violation(format!("two leaders of term {term} of group {group}")));
            }
        }
        Ok(())
    }
}
