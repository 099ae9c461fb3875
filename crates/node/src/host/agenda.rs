//! Which groups a tick concerns: a node has hundreds, and in most of them nothing happens.
//!
//! A group is looked at after everything that happened to it ([`Agenda::note`]), and from that it is known whether it needs every
//! tick, from when on its leases need one, and what a flush would do for its log. Invariant: what is noted is what the group said when it was last collected; so
//! whoever changes a group marks it dirty. A renewed lease may be due later than noted, which costs one tick too many.

use crate::group::Group;
use quorate_mvcc::engine::Engine;
use quorate_types::{GroupId, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of all groups.
#[derive(Default)]
pub(super) struct Agenda {
    awake: BTreeSet<GroupId>,
    /// When the others' leases are due next, both ways.
    due: BTreeSet<(Tick, GroupId)>,
    due_of: BTreeMap<GroupId, Tick>,
    /// Groups that would let go of an old segment of the log after a flush.
    pinning: BTreeSet<GroupId>,
    /// Bytes in logs that a flush would make needless, and their sum.
    unflushed: BTreeMap<GroupId, u64>,
    unflushed_sum: u64,
}

impl Agenda {
    /// Looks at a group.
    pub(super) fn note<E: Engine>(&mut self, group: &Group<E>, log_bytes_max: usize) {
        let id = group.id;
        set(&mut self.awake, id, group.is_awake());
        set(&mut self.pinning, id, group.wants_flush(log_bytes_max));
        let unflushed = group.unflushed_bytes();
        let before = self.unflushed.insert(id, unflushed).unwrap_or_default();
        self.unflushed_sum = self.unflushed_sum - before + unflushed;
        let due = group.next_due();
        if self.due_of.get(&id).copied() != due {
            if let Some(before) = self.due_of.remove(&id) {
                self.due.remove(&(before, id));
            }
            if let Some(due) = due {
                self.due_of.insert(id, due);
                self.due.insert((due, id));
            }
        }
    }

    /// The group is not here any more.
    pub(super) fn forget(&mut self, id: GroupId) {
        self.awake.remove(&id);
        self.pinning.remove(&id);
        self.unflushed_sum -= self.unflushed.remove(&id).unwrap_or_default();
        if let Some(due) = self.due_of.remove(&id) {
            self.due.remove(&(due, id));
        }
    }

    /// The groups that need this tick.
    pub(super) fn at(&self, now: Tick) -> BTreeSet<GroupId> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id);
        self.awake.iter().copied().chain(due).collect()
    }

    /// Whether a flush would let logs shrink by more than this together, or lets go of an old segment.
    pub(super) fn is_flush_wanted(&self, log_bytes_target: usize) -> bool {
        !self.pinning.is_empty() || self.unflushed_sum > log_bytes_target as u64
    }

    /// What all logs hold is being flushed: each is looked at again when that is done.
    pub(super) fn flush_begins(&mut self) {
        self.pinning.clear();
        self.unflushed.clear();
        self.unflushed_sum = 0;
    }
}

fn set(groups: &mut BTreeSet<GroupId>, id: GroupId, is_in: bool) {
    if is_in {
        groups.insert(id);
    } else {
        groups.remove(&id);
    }
}
