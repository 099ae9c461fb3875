//! What is the newest revision that anybody has been shown, so that a read need not wait for writes that nobody knows of.
//!
//! A read is to see whatever was answered, or told to a watch on any node, before it was asked for. Of the revisions that are given out, those in flight are neither.
//! Where all leaders are on the sequencer's node, it knows which those are:
//!
//! * an answer leaves from there, when what it says is applied there; one that changes nothing names a revision then;
//! * another node shows a revision when it has applied it and all before it. It has heard from a leader that it is committed: from the one that it knows now, or
//!   from an earlier one. It shows nothing by itself unless the leader that it knows is on the sequencer's node, as far as it knows that ([`Host::sees_gathered`]); and
//!   that leader has applied what earlier ones committed before it serves.
//!
//! So while a leader here does not serve yet, or has committed what its own disk has not taken ([`Host::note_leader`]), and while a leader elsewhere is registered,
//! a read sees all that is given out, and waits for it. A new sequencer begins above everything that was ever given out, and a leader that registers counts as having
//! shown all that was.

use super::Host;
use quorate_consensus::{Consensus, Role};
use quorate_mvcc::engine::Engine;
use quorate_types::{GroupId, KeyspaceId, NodeId, PartitionId, Revision};
use std::collections::BTreeSet;

/// Groups whose leaders are not what they are to be for that.
#[derive(Debug, Default)]
pub(super) struct Offices {
    /// Led here: some of what is committed is not applied here, or may not be.
    late: BTreeSet<GroupId>,
    /// Not led on the node of the meta group's leader, as far as is known here.
    stray: BTreeSet<GroupId>,
    meta: Option<NodeId>,
}

impl Offices {
    fn has(groups: &BTreeSet<GroupId>, keyspace: KeyspaceId) -> bool {
        let of_keyspace = |partition| GroupId { keyspace, partition: PartitionId(partition) };
        groups.range(of_keyspace(0)..=of_keyspace(u32::MAX)).next().is_some()
    }
}

impl<E: Engine> Host<E> {
    /// A group has been looked after: notes how it is led. Of one that is gone nothing is noted.
    pub(super) fn note_leader(&mut self, id: GroupId) {
        if id == GroupId::META {
            let meta = self.groups.get(&id).and_then(|meta| meta.leader);
            if std::mem::replace(&mut self.offices.meta, meta) != meta {
                for id in self.groups.keys().copied().filter(|id| *id != GroupId::META).collect::<Vec<_>>() {
                    self.note_leader(id);
                }
            }
            return;
        }
        let meta = self.offices.meta;
        let (is_late, is_stray) = self.groups.get(&id).map_or((false, false), |group| {
            let is_led = matches!(group.role, Role::Leader { .. });
            let is_late = is_led && (!group.is_serving || group.raft.commit() > group.applied());
            (is_late, meta.is_none() || group.leader != meta)
        });
        let note = |groups: &mut BTreeSet<GroupId>, is_one: bool| {
            if is_one {
                groups.insert(id);
            } else {
                groups.remove(&id);
            }
        };
        note(&mut self.offices.late, is_late);
        note(&mut self.offices.stray, is_stray);
    }

    /// Whether the sequencer here knows of every revision that anybody has been shown.
    pub(super) fn knows_what_is_shown(&mut self, keyspace: KeyspaceId) -> bool {
        let partitions = self.router.partitions(keyspace);
        let is_late = Offices::has(&self.offices.late, keyspace);
        let Some(sequencer) = self.sequencer.as_mut().filter(|_| !is_late) else { return false };
        sequencer.is_gathered(keyspace, self.options.id, partitions)
    }

    /// Whether this node may show what it has applied of a keyspace without asking the sequencer's node.
    pub(super) fn sees_gathered(&self, keyspace: KeyspaceId) -> bool {
        !Offices::has(&self.offices.stray, keyspace)
    }

    /// Somebody is answered, or everything is compacted, as of this revision.
    pub(super) fn show(&mut self, keyspace: KeyspaceId, revision: Revision) {
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.show(keyspace, revision);
        }
    }
}
