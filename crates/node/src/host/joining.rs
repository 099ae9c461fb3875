//! This node's admission, and that of others, as the groups feel them.

use super::Host;
use crate::admission::{AdmissionAnswer, RowsAsOf, Sender, Standing, Verdict};
use crate::effects::Notice;
use crate::group::{Group, Then};
use crate::peer::PeerMessage;
use quorate_consensus::{Consensus, WriteId};
use quorate_mvcc::engine::Engine;
use quorate_types::{Fault, GroupId, Incarnation, KeyspaceId, NodeId, Position, Revision, reached};
use std::collections::BTreeSet;

/// How often members that have not answered are asked again, in ticks.
const ASK_TICKS: u64 = 5;
/// How often an operator is told that we still wait, in ticks.
const TELL_TICKS: u64 = 500;

impl<E: Engine> Host<E> {
    /// Whether this node takes part: votes, and may lead.
    pub fn is_admitted(&self) -> bool {
        self.admission.is_admitted()
    }

    /// What [`crate::Effects::standing`] asked for is durable.
    pub fn standing_recorded(&mut self) {
        if !self.admission.recorded() {
            return;
        }
        for (id, group) in self.groups.iter_mut().filter(|(_, it)| !it.is_returning && !it.awaits_rows) {
            group.raft.give_votes();
            self.dirty.insert(*id);
        }
        self.out.notices.push(Notice::Admitted);
    }

    pub(super) fn begin_admission(&mut self) -> Result<(), Fault> {
        if self.admission.is_admitted() {
            return Ok(());
        }
        let verdict = self.admission.verdict(&self.members);
        self.carry_out(verdict)
    }

    pub(super) fn tick_admission(&mut self) -> Result<(), Fault> {
        if self.admission.is_admitted() {
            return Ok(());
        }
        if self.now.0 % ASK_TICKS == 1 {
            let unanswered = self.admission.unanswered(&self.members);
            if unanswered.is_empty() {
                // The last of them may have been removed.
                let verdict = self.admission.verdict(&self.members);
                self.carry_out(verdict)?;
                self.count_caught_up();
            } else {
                // Those that have answered may have newer rows by now.
                let ask = PeerMessage::AdmissionAsk { incarnation: self.admission.own() };
                self.out.send.extend(self.members.iter().map(|node| (*node, ask.clone())));
                if self.now.0 % TELL_TICKS == 1 {
                    self.out.notices.push(Notice::Asking { unanswered });
                }
            }
        }
        for group in std::mem::take(&mut self.catch_up_again) {
            self.catch_up(group)?;
        }
        Ok(())
    }

    /// Whether a message of this life of its sender is to be taken.
    pub(super) fn admit_sender(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        message: &PeerMessage,
    ) -> bool {
        let asks = matches!(message, PeerMessage::AdmissionAsk { .. });
        match self.admission.sender(from, incarnation, asks) {
            Sender::Known => true,
            Sender::Void => {
                reached!("former-life-not-heard");
                self.suspicious(
                    from,
                    format!("a message from the data directory {incarnation}, which is not its own any more"),
                );
                false
            }
            Sender::Reborn => {
                reached!("peer-reborn", self.admission.is_admitted());
                for (id, group) in &mut self.groups {
                    group.raft.peer_forgot(from);
                    self.dirty.insert(*id);
                }
                // The shell records it before it sends anything.
                self.out.standing =
                    Some(self.admission.standing()).filter(|standing| *standing != Standing::New);
                // At a cluster's beginning everybody's directory is new, which is no news.
                if self.admission.is_admitted() {
                    self.out.notices.push(Notice::Reborn { node: from });
                }
                true
            }
        }
    }

    pub(super) fn on_admission_ask(&mut self, from: NodeId, incarnation: Incarnation) {
        // Who asks may hold all of a group that sleeps, and wait for its leader to be heard.
        for (id, group) in &mut self.groups {
            group.raft.wake();
            self.dirty.insert(*id);
        }
        let term = |(id, group): (&GroupId, &Group<E>)| (*id, group.raft.status().term);
        // Groups that the maps here do not name yet count, too.
        let unopened = self.unopened.iter().map(|(id, log)| (*id, log.hard_state.term));
        let takes_part = self.admission.is_admitted();
        let rows = self.roster.members().values().filter(|_| takes_part);
        let answer = AdmissionAnswer {
            incarnation,
            is_original: self.admission.is_original(from, incarnation),
            terms: self.groups.iter().map(term).chain(unopened).collect(),
            members: rows.cloned().collect(),
            as_of: self.rows_as_of(),
        };
        self.out.send.push((from, PeerMessage::AdmissionAnswer(answer)));
    }

    pub(super) fn on_admission_answer(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        answer: AdmissionAnswer,
    ) -> Result<(), Fault> {
        let own = self.rows_as_of();
        if answer.incarnation == self.admission.own() && self.roster.tell(&answer.members, answer.as_of, own)
        {
            self.note_members();
        }
        let verdict = self.admission.answered((from, incarnation), answer, &self.members);
        self.carry_out(verdict)
    }

    /// How new the rows are that this node has.
    fn rows_as_of(&self) -> RowsAsOf {
        let lineage = self.groups.get(&GroupId::META).map_or(0, |group| group.term.lineage());
        let revision = self.reader(KeyspaceId::SYSTEM).map_or(Revision::default(), |it| it.revision());
        RowsAsOf { lineage, revision }
    }

    fn carry_out(&mut self, verdict: Verdict) -> Result<(), Fault> {
        match verdict {
            Verdict::Wait => {}
            Verdict::Begin => {
                reached!("cluster-began");
                self.admission.begin();
                self.out.standing = Some(self.admission.standing());
            }
            Verdict::CatchUp(terms) => {
                reached!("admission-catches-up-again", self.admission.round() > 0);
                reached!("admission-catches-up");
                self.out.notices.push(Notice::CatchingUp);
                let groups: BTreeSet<GroupId> = self.groups.keys().copied().collect();
                self.admission.catch_up(groups.clone());
                self.caught_up.clear();
                self.catch_up_again.clear();
                self.abstaining.clone_from(&terms);
                for id in groups {
                    if let (Some(group), Some(term)) = (self.groups.get_mut(&id), terms.get(&id)) {
                        group.raft.abstain(*term);
                    }
                    self.catch_up(id)?;
                }
            }
        }
        Ok(())
    }

    /// A group that this node learns of while it catches up: it may have been in it in its former life.
    pub(super) fn catch_up_also(&mut self, id: GroupId) -> Result<(), Fault> {
        if !self.admission.catch_up_also(id) {
            return Ok(());
        }
        if let (Some(group), Some(term)) = (self.groups.get_mut(&id), self.abstaining.get(&id)) {
            group.raft.abstain(*term);
        }
        self.catch_up(id)
    }

    /// Begins the barrier that shows that this node holds what was committed in the group.
    fn catch_up(&mut self, id: GroupId) -> Result<(), Fault> {
        let deadline = self.now.after(self.options.request_ticks_max);
        let then = Then::Admission(id, self.admission.round());
        self.begin_barrier(id, Position::default(), deadline, then, None)
    }

    /// A group has passed its barrier. It counts only once what was written down until now is durable, the abstention with it.
    pub(super) fn caught_up(&mut self, id: GroupId, round: u64) {
        if round != self.admission.round() {
            reached!("admission-barrier-of-before");
            return;
        }
        let parts = self.writing.iter().rev().flat_map(|(_, parts)| parts.iter().rev());
        let newest = parts.filter(|(group, _)| *group == id).map(|(_, part)| *part).next();
        self.caught_up.insert(id, newest.unwrap_or_default());
        self.count_caught_up();
    }

    pub(super) fn count_caught_up(&mut self) {
        if self.caught_up.is_empty() {
            return;
        }
        let groups = &self.groups;
        // The newest rows say who else is to be asked.
        let are_all_asked = self.roster.is_current() && self.admission.unanswered(&self.members).is_empty();
        let is_durable = |id: &GroupId, part: &mut WriteId| {
            groups.get(id).is_some_and(|group| group.persisted >= *part)
                && (*id != GroupId::META || are_all_asked)
        };
        for (id, _) in self.caught_up.extract_if(.., is_durable) {
            if self.admission.caught_up(id) {
                self.out.standing = Some(self.admission.standing());
            }
        }
    }
}
