//! Groups go where their rows say.
//!
//! The leader of a group compares who takes part with what the row wants, every few ticks, and does the next step: it names those to come as
//! learners; when they hold nearly everything it changes the voters, through a configuration that is joint of both (`quorate_consensus`); when
//! just those that are wanted take part, and that is applied, it puts them into the row. Nothing but the row and the group's log is state: whoever leads
//! next sees where it stands and goes on, and a row that has been changed meanwhile is simply followed.
//!
//! * **The meta group is on every member**: those that do not vote in it learn.
//! * **A leader that is not wanted** hands the group over to a voter that is, and that goes on.
//! * **A group that is being split does not move**, so that what is split off begins with voters that everybody knows; and one that is
//!   moving is not split (`splitting.rs`).
//!
//! Caveat: a step needs a quorum of those who vote now, so a group that has lost that stays where it is.

use super::Host;
use super::rows::{is_as_read, put};
use crate::effects::Notice;
use quorate_consensus::{ChangeError, Configuration, Consensus};
use quorate_mvcc::engine::Engine;
use quorate_types::{Decode, Encode, Fault, GroupId, NodeId, Place, Revision, Tick, reached};
use std::collections::BTreeMap;

/// How often a leader looks at its groups, in ticks.
const MOVE_TICKS: u64 = 5;
/// After so many ticks it is asked again for a row that has not changed.
const ROW_TICKS: u64 = 50;

/// One that was handed over in vain is tried with the next of those that stay after so many ticks. Meanwhile it goes on: whoever could not take it may be
/// waiting for this group to be able to, because it has lost its disk and has to catch up.
const HEIR_TICKS: u64 = 100;

/// When rows of moves that are done were asked for, and groups handed over.
pub(super) type Asked = BTreeMap<GroupId, Tick>;

/// What a leader does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing, or nothing yet.
    Wait,
    /// Make these the members.
    Change(Configuration),
    /// Hand over to one of these first. If none is there, change all the same: consensus leaves the group to one of those that come.
    HandOver(Vec<NodeId>, Configuration),
    /// It is done: the row is to say so.
    Done,
}

/// The step from `current` to where the row wants the group. `others` learn besides, as in the meta group everybody does. `applied` are the
/// members as of what is applied.
fn next(
    place: &Place,
    others: &[NodeId],
    own: NodeId,
    current: &Configuration,
    applied: &Configuration,
) -> Next {
    let wanted = place.target.as_ref().unwrap_or(&place.voters);
    let learners = others.iter().filter(|other| !wanted.contains(other)).copied().collect();
    let goal = Configuration::new(wanted.clone(), learners);
    if current.is_joint() {
        return Next::Wait;
    }
    if *current == goal {
        let is_done = current == applied && place.target.is_some();
        return if is_done { Next::Done } else { Next::Wait };
    }
    if current.voters == goal.voters {
        return Next::Change(goal);
    }
    let is_here = |id: &NodeId| current.voters.contains(id);
    let is_learning = |id: &NodeId| is_here(id) || current.learners.contains(id);
    if !wanted.iter().all(is_learning) {
        let coming = wanted.iter().chain(others).filter(|id| !is_here(id)).copied();
        let mut learners: Vec<NodeId> = coming.collect();
        learners.sort_unstable();
        learners.dedup();
        return Next::Change(Configuration::new(current.voters.clone(), learners));
    }
    let heirs: Vec<NodeId> = wanted.iter().copied().filter(is_here).collect();
    if wanted.contains(&own) || heirs.is_empty() { Next::Change(goal) } else { Next::HandOver(heirs, goal) }
}

impl<E: Engine> Host<E> {
    /// Every so often: the groups that are led here go on.
    pub(super) fn tick_moves(&mut self) -> Result<(), Fault> {
        if !self.now.0.is_multiple_of(MOVE_TICKS) {
            return Ok(());
        }
        let led = self.groups.iter().filter(|(_, group)| group.is_serving).map(|(id, _)| *id);
        for id in led.collect::<Vec<_>>() {
            self.move_on(id)?;
        }
        Ok(())
    }

    fn move_on(&mut self, id: GroupId) -> Result<(), Fault> {
        let (Some(place), Some(group)) = (self.roster.places.get(&id), self.groups.get(&id)) else {
            return Ok(());
        };
        let current = group.raft.configuration();
        let is_at_rest = id != GroupId::META
            && place.target.is_none()
            && current.voters == place.voters
            && current.learners.is_empty()
            && !current.is_joint();
        // Nearly always, of hundreds.
        if is_at_rest
            || self.is_meta_recovering()
            || group.raft.term().lineage() != place.lineage
            || group.is_splitting
            || group.raft.can_propose().is_err()
        {
            return Ok(());
        }
        let others: Vec<NodeId> =
            if id == GroupId::META { self.roster.members().keys().copied().collect() } else { Vec::new() };
        let applied = group.raft.configuration_at(group.applied());
        let goal = match next(place, &others, self.options.id, group.raft.configuration(), applied) {
            Next::Wait => return Ok(()),
            Next::Done => return self.move_done(id),
            Next::Change(goal) => goal,
            Next::HandOver(heirs, goal) => match self.next_heir(heirs) {
                // What is led where the meta group is, that would bring back: it goes when that has gone.
                Some(_) if id != GroupId::META && self.sequencer.is_some() && self.gathers(id) => {
                    return Ok(());
                }
                Some(heir) => {
                    let now = self.now;
                    if self.asked_rows.get(&id).is_some_and(|handed| now.since(*handed) < HEIR_TICKS) {
                        return Ok(());
                    }
                    self.asked_rows.insert(id, now);
                    reached!("moving-leader-hands-over");
                    if let Some(group) = self.groups.get_mut(&id) {
                        group.raft.transfer(Some(heir));
                        self.dirty.insert(id);
                    }
                    return Ok(());
                }
                None => goal,
            },
        };
        // A split is begun and finished where the meta group is led, which must stay among those who have the partition.
        if id == GroupId::META && self.is_any_splitting() && goal.voters != self.meta_voters() {
            return Ok(());
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        match group.raft.change(goal.voters, goal.learners) {
            Ok(position) => group.proposed = position,
            Err(ChangeError::Malformed) => {
                let what = format!("the row of group {id} names members that cannot be");
                self.suspicious(self.options.id, what);
            }
            // It is tried again.
            Err(_) => {}
        }
        self.dirty.insert(id);
        Ok(())
    }

    /// One of these that is heard; each in its turn.
    fn next_heir(&self, heirs: Vec<NodeId>) -> Option<NodeId> {
        let heard: Vec<NodeId> = heirs.into_iter().filter(|heir| self.liveness.is_reachable(*heir)).collect();
        let turn = (self.now.0 / HEIR_TICKS) as usize;
        heard.get(turn.checked_rem(heard.len())?).copied()
    }

    fn meta_voters(&self) -> Vec<NodeId> {
        let meta = self.groups.get(&GroupId::META).map(|meta| meta.raft.configuration().voters.clone());
        meta.unwrap_or_default()
    }

    /// Whether the replica here of any partition is in the middle of a split.
    pub(super) fn is_any_splitting(&self) -> bool {
        self.splits.keys().any(|parent| self.groups.get(parent).is_some_and(|group| group.is_splitting))
    }

    /// Just those that are wanted take part: the row says so from now on.
    fn move_done(&mut self, id: GroupId) -> Result<(), Fault> {
        let now = self.now;
        if self.asked_rows.get(&id).is_some_and(|asked| now.since(*asked) < ROW_TICKS) {
            return Ok(());
        }
        let key = Place::row_key(id);
        let Some((row, modified)) = self.read_row(&key)? else { return Ok(()) };
        // What is stored is what is known here: rows are taken as they are applied.
        let (Ok(stored), Some(known)) = (Place::from_bytes(row), self.roster.places.get(&id)) else {
            return Ok(());
        };
        if stored != *known {
            return Ok(());
        }
        let Place { target: Some(voters), .. } = stored.clone() else { return Ok(()) };
        self.asked_rows.insert(id, now);
        reached!("move-done");
        let done = Place { voters, target: None, ..stored };
        self.change_rows(vec![is_as_read(key.clone(), Some(modified))], vec![put(key, done.encoded())])
    }

    /// The row of a group has changed.
    pub(super) fn note_move(&mut self, id: GroupId, before: Option<&Place>, revision: Revision) {
        self.asked_rows.remove(&id);
        let (Some(before), Some(place)) = (before, self.roster.places.get(&id)) else { return };
        let (voters, from) = (place.voters.clone(), before.voters.clone());
        match &place.target {
            None if before.target.is_some() => {
                self.out.notices.push(Notice::Moved { group: id, before: from, voters, revision });
            }
            Some(target) if before.target.as_ref() != Some(target) => {
                reached!("move-redirected", before.target.is_some());
                let target = target.clone();
                self.out.notices.push(Notice::Moves { group: id, voters, target, revision });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn place(voters: &[u64], target: Option<&[u64]>) -> Place {
        Place { target: target.map(ids), ..Place::new(ids(voters)) }
    }

    fn members(voters: &[u64], learners: &[u64]) -> Configuration {
        Configuration::new(ids(voters), ids(learners))
    }

    fn step(place: &Place, own: u64, current: &Configuration) -> Next {
        next(place, &[], NodeId(own), current, current)
    }

    #[test]
    fn a_dead_voter_is_replaced_by_a_learner_that_becomes_a_voter() {
        let row = place(&[1, 2, 3], Some(&[1, 2, 4]));
        let learning = members(&[1, 2, 3], &[4]);
        assert_eq!(step(&row, 1, &members(&[1, 2, 3], &[])), Next::Change(learning.clone()));
        assert_eq!(step(&row, 1, &learning), Next::Change(members(&[1, 2, 4], &[])));
        let joint = learning.towards(members(&[1, 2, 4], &[]));
        assert_eq!(step(&row, 1, &joint), Next::Wait);
        let there = members(&[1, 2, 4], &[]);
        assert_eq!(next(&row, &[], NodeId(1), &there, &joint), Next::Wait, "not applied yet");
        assert_eq!(step(&row, 1, &there), Next::Done);
        assert_eq!(step(&place(&[1, 2, 4], None), 1, &there), Next::Wait);
    }

    #[test]
    fn a_leader_that_goes_hands_over_when_those_that_come_have_learnt() {
        let row = place(&[1, 2, 3], Some(&[2, 3, 4]));
        assert_eq!(step(&row, 1, &members(&[1, 2, 3], &[])), Next::Change(members(&[1, 2, 3], &[4])));
        assert_eq!(
            step(&row, 1, &members(&[1, 2, 3], &[4])),
            Next::HandOver(ids(&[2, 3]), members(&[2, 3, 4], &[]))
        );
        assert_eq!(step(&row, 2, &members(&[1, 2, 3], &[4])), Next::Change(members(&[2, 3, 4], &[])));
        // Nobody stays: the last leader goes when the others have taken over.
        let all = place(&[1], Some(&[2]));
        assert_eq!(step(&all, 1, &members(&[1], &[2])), Next::Change(members(&[2], &[])));
    }

    #[test]
    fn a_row_that_was_changed_meanwhile_is_followed() {
        let learning = members(&[1, 2, 3], &[4]);
        assert_eq!(step(&place(&[1, 2, 3], None), 1, &learning), Next::Change(members(&[1, 2, 3], &[])));
        let other = place(&[1, 2, 3], Some(&[1, 2, 5]));
        assert_eq!(step(&other, 1, &learning), Next::Change(members(&[1, 2, 3], &[5])));
        let back = place(&[1, 2, 3], Some(&[1, 2, 3]));
        assert_eq!(step(&back, 1, &learning), Next::Change(members(&[1, 2, 3], &[])));
        assert_eq!(step(&back, 1, &members(&[1, 2, 3], &[])), Next::Done);
    }

    #[test]
    fn in_the_meta_group_all_others_learn() {
        let all = ids(&[1, 2, 3, 4, 5]);
        let row = place(&[1, 2, 3], None);
        let meta = |row, current: &Configuration| next(row, &all, NodeId(1), current, current);
        assert_eq!(meta(&row, &members(&[1, 2, 3], &[])), Next::Change(members(&[1, 2, 3], &[4, 5])));
        assert_eq!(meta(&row, &members(&[1, 2, 3], &[4, 5])), Next::Wait);
        let row = place(&[1, 2, 3], Some(&[1, 2, 4]));
        assert_eq!(meta(&row, &members(&[1, 2, 3], &[4, 5])), Next::Change(members(&[1, 2, 4], &[3, 5])));
        // A removed member is left out.
        assert_eq!(
            meta(&place(&[1, 2, 3], None), &members(&[1, 2, 3], &[4, 5, 6])),
            Next::Change(members(&[1, 2, 3], &[4, 5]))
        );
    }
}
