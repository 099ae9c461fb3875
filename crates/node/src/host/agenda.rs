//! Which groups a tick concerns: a node has hundreds, and in most of them nothing happens.
//!
//! A group is looked at after everything that happened to it ([`Agenda::note`]), and from that it is known whether it needs every
//! tick, from when on its leases need one, and whether its log wants a flush. Invariant: what is noted is what the group said when it was last collected; so
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
    /// Groups whose logs would shrink by a flush.
    large: BTreeSet<GroupId>,
}

impl Agenda {
    /// Looks at a group.
    pub(super) fn note<E: Engine>(&mut self, group: &Group<E>, log_bytes_target: usize) {
        let id = group.id;
        set(&mut self.awake, id, group.is_awake());
        set(&mut self.large, id, group.wants_flush(log_bytes_target));
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
        self.large.remove(&id);
        if let Some(due) = self.due_of.remove(&id) {
            self.due.remove(&(due, id));
        }
    }

    /// The groups that need this tick.
    pub(super) fn at(&self, now: Tick) -> BTreeSet<GroupId> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, id)| *id);
        self.awake.iter().copied().chain(due).collect()
    }

    /// Whether a flush would let any log shrink.
    pub(super) fn is_flush_wanted(&self) -> bool {
        !self.large.is_empty()
    }

    /// What all logs hold is being flushed: each is looked at again when that is done.
    pub(super) fn flush_begins(&mut self) {
        self.large.clear();
    }
}

fn set(groups: &mut BTreeSet<GroupId>, id: GroupId, is_in: bool) {
    if is_in {
        groups.insert(id);
    } else {
        groups.remove(&id);
    }
}
