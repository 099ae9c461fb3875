//! Replicas tell each other what they have become, and one that has become something else than most gives its state up.
//!
//! Each partition keeps a digest of all that it has applied, entries and the rows that came of them ([`quorate_partition::Partition::digest`]). At equal entries it is equal on all
//! replicas, or one of them has applied something else: memory that flips bits, a bug, a store that lost what it had taken. Checksums do not see that, because what is
//! wrong was wrong before it got one.
//!
//! ```text
//! every digest_ticks: to each other member of each group: (group, entry, digest) of the last checkpoint and of the last entry applied
//!      ──▶ whoever has been at that entry compares; a checkpoint is kept each CHECKPOINT_ENTRIES, so busy replicas meet there, and idle ones at the last entry
//! a quorum of the voters has one digest, and this replica another: it is wrong
//!      ──▶ it gives up its state (and before that its office), and is given theirs, as after a snapshot that was cut short; with it goes what the log holds of that
//! digests differ and no quorum agrees: nobody can tell who is right; operators are told
//! ```
//!
//! Caveats: what is wrong is found after it was there for up to `digest_ticks`, so it may have been read from the replica that was wrong. A row that a store loses later is not in it
//! (the scrub and the seals look for damage, not for absence).

use super::Host;
use crate::digests::{Digests, Judgement, Told};
use crate::effects::Notice;
use crate::group::{Group, State};
use crate::peer::PeerMessage;
use quorate_consensus::{Consensus, Role};
use quorate_mvcc::engine::Engine;
use quorate_types::{Fault, GroupId, Index, NodeId};
use std::collections::BTreeMap;

/// What was told already is told again each so many times: it may have been lost.
const REPEAT_ROUNDS: u64 = 12;
/// Groups told in one message.
const GROUPS_MAX: usize = 512;

impl<E: Engine> Host<E> {
    /// Tells others, now and then.
    pub(super) fn tick_digests(&mut self) -> Result<(), Fault> {
        for id in std::mem::take(&mut self.diverged) {
            self.give_up_wrong_state(id)?;
        }
        if !self.now.0.is_multiple_of(self.options.digest_ticks) || self.admission.is_mute() {
            return Ok(());
        }
        let round = self.now.0 / self.options.digest_ticks;
        let is_repeated = round.is_multiple_of(REPEAT_ROUNDS);
        let mut messages: BTreeMap<NodeId, Vec<Told>> = BTreeMap::new();
        for (id, group) in &mut self.groups {
            let Some(partition) = group.partition() else { continue };
            let now = (partition.applied().index, partition.digest());
            let told = group.digests.tell(now, is_repeated);
            if told.is_empty() {
                continue;
            }
            let (own, members) = (self.options.id, group.raft.configuration());
            for member in members.voters.iter().chain(&members.learners).filter(|member| **member != own) {
                let said = told.iter().map(|(index, digest)| (*id, (*index, *digest)));
                messages.entry(*member).or_default().extend(said);
            }
        }
        for (to, digests) in messages {
            let parts = digests.chunks(GROUPS_MAX);
            self.out.send.extend(parts.map(|part| (to, PeerMessage::Digests { digests: part.to_vec() })));
        }
        Ok(())
    }

    /// A checkpoint, if the last entry applied is one. Those of others are compared with it.
    pub(super) fn note_digest(&mut self, id: GroupId) {
        let every = self.options.checkpoint_entries;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(partition) = group.partition() else { return };
        let (index, digest) = (partition.applied().index, partition.digest());
        if index.0.is_multiple_of(every) {
            group.digests.keep(index, digest);
        }
        if group.digests.is_awaited(index) {
            self.compare(id, index);
        }
    }

    /// Another replica was there and had that.
    pub(super) fn on_digests(&mut self, from: NodeId, digests: Vec<Told>) {
        for (id, (index, digest)) in digests {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if !group.raft.configuration().contains(from) {
                continue;
            }
            let applied = group.applied();
            group.digests.hear(from, (index, digest), applied);
            self.compare(id, index);
        }
    }

    fn compare(&mut self, id: GroupId, index: Index) {
        let own = self.options.id;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(partition) = group.partition() else { return };
        let now = (partition.applied().index, partition.digest());
        match group.digests.judge(own, index, now, group.raft.configuration()) {
            Judgement::Nothing => {}
            Judgement::Wrong => {
                self.out.notices.push(Notice::Diverged { group: id, index });
                group.raft.step_down();
                self.diverged.insert(id);
                self.dirty.insert(id);
            }
            Judgement::Doubtful => self.out.notices.push(Notice::DigestsDiffer { group: id, index }),
        }
    }

    /// After this replica has left its office, if it had it.
    fn give_up_wrong_state(&mut self, id: GroupId) -> Result<(), Fault> {
        let is_leader = |group: &Group<E>| matches!(group.role, Role::Leader { .. });
        // One that is being replaced anyway is as good as given up.
        let Some(group) = self.groups.get(&id).filter(|group| group.partition().is_some()) else {
            return Ok(());
        };
        if is_leader(group) {
            self.diverged.insert(id);
            if let Some(group) = self.groups.get_mut(&id) {
                group.raft.step_down();
                self.dirty.insert(id);
            }
            return Ok(());
        }
        // Who is being given it gets another, from somebody else.
        self.sources.forget(id);
        let clear = self.slots_to_clear(id, true);
        self.forget_told(id)?;
        self.stop_compaction(id.keyspace);
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.digests = Digests::default();
        if let State::Ready(partition) = std::mem::replace(&mut group.state, State::Installing(None)) {
            group.raft.state_lost();
            group.state = State::Installing(Some(partition.into_installer(&clear)?));
        }
        self.dirty.insert(id);
        self.compact_anew(id.keyspace)
    }
}
