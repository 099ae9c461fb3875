//! A group that has lost its quorum for good goes on with one survivor, and every other replica of it begins anew.
//!
//! Consensus keeps the two apart ([`Consensus::begin_lineage`]); here is who does what when.
//!
//! * **A partition** is gone on with by its row: an operator has the survivor put it, with the next lineage and itself as the only voter. That node,
//!   when it applies the row, begins the lineage. All others who have an older one throw theirs away, like one that has moved; the
//!   planner gives the group its replicas again. So it is decided once, by the meta group, and a crash in between leaves it to be done.
//! * **The meta group** has nobody to decide it: the survivor is told, and begins the lineage at once. Its first act is to put the row, and to raise
//!   the marks of all sequences far beyond what a lost part of its log may have allowed. Until that is applied nothing is planned, moved or counted.
//!   The other members hear of it by its messages: they all learn the meta group.
//! * **Superseded** is a replica that hears of a newer lineage. The meta group's is filled anew at once, and no group here has a say until its
//!   rows are known to be current: what they say may be of the newer lineage, too. A partition's waits for its row.
//! * **Apart** is a group with other voters than the meta group's. A quorum of it may come back from the dead after the cluster has gone on
//!   without it, so a node that starts has no vote in it until it knows the rows to be current. Where the voters are the same, a lost quorum is
//!   one of the meta group, too, and whoever of the new lineage is heard says so.
//!
//! Caveats: those that come back and hear nobody of the new lineage go on in the old one, in the meta group and what is together with it. A keyspace's
//! only partition counts its revisions itself: those that were lost are given out again, for other changes.

use super::Host;
use super::rows::{is_as_read, put};
use crate::effects::Notice;
use crate::recovery::{RecoverRefused, Survivor, judge};
use quorate_consensus::{Consensus, Recovered, Role};
use quorate_mvcc::engine::Engine;
use quorate_types::member::MEMBERS_MAX;
use quorate_types::{
    Encode, Fault, GroupId, HardState, Index, KeyspaceId, LogWrite, NodeId, Place, Position, Revision, Term,
};

/// How far the marks of sequences are raised when the meta group goes on without part of its log: more than a survivor can have missed.
const REVISIONS_SKIPPED: u64 = 1_000_000_000;

impl<E: Engine> Host<E> {
    /// How a group stands here, for whoever has to choose what it goes on with.
    pub fn survivor(&self, id: GroupId) -> Option<Survivor> {
        let group = self.groups.get(&id)?;
        let own = self.options.id;
        let configuration = group.raft.configuration();
        let is_heard = |node: NodeId| node == own || !self.is_down(node);
        let mut voters = [configuration.voters.clone(), configuration.outgoing.clone()].concat();
        voters.sort_unstable();
        voters.dedup();
        let is_led = |id: GroupId| self.groups.get(&id)?.leader.filter(|leader| is_heard(*leader));
        Some(Survivor {
            last: group.raft.last(),
            commit: group.raft.status().commit,
            lineage: group.raft.term().lineage(),
            is_whole: group.partition().is_some(),
            is_admitted: self.admission.is_admitted() && !group.is_returning,
            leader: is_led(id),
            heard: voters.iter().copied().filter(|voter| is_heard(*voter)).collect(),
            has_quorum: configuration.agreed(is_heard),
            voters,
            listened_ticks: self.now.0,
            is_meta_led: is_led(GroupId::META).is_some(),
        })
    }

    /// All groups that are here, as [`Host::survivor`] tells of them.
    pub fn survivors(&self) -> Vec<(GroupId, Survivor)> {
        self.groups.keys().filter_map(|id| Some((*id, self.survivor(*id)?))).collect()
    }

    /// An operator orders that a group goes on with what this node has of it. For a partition it is done when its row is applied.
    pub fn recover(
        &mut self,
        id: GroupId,
        shown: Option<Position>,
    ) -> Result<Result<(), RecoverRefused>, Fault> {
        let Some(survivor) = self.survivor(id) else { return Ok(Err(RecoverRefused::NotHere)) };
        let listen_ticks = 2 * self.options.election_ticks_max;
        if let Err(refused) = judge(id, &survivor, shown, listen_ticks) {
            return Ok(Err(refused));
        }
        let Some(group) = self.groups.get(&id) else { return Ok(Err(RecoverRefused::NotHere)) };
        if id == GroupId::META {
            let lineage = self.next_meta_lineage(group.raft.term().lineage());
            self.begin_lineage(id, lineage);
            return Ok(Ok(()));
        }
        let key = Place::row_key(id);
        let (Some((_, modified)), Some(place)) = (self.read_row(&key)?, self.roster.places.get(&id)) else {
            return Ok(Err(RecoverRefused::NotHere));
        };
        let row = place.recovered(self.options.id);
        self.change_rows(vec![is_as_read(key.clone(), Some(modified))], vec![put(key, row.encoded())])?;
        Ok(Ok(()))
    }

    /// Another one for each member. Two that do not hear each other may both be told to go on: then the two are of different lineages, and
    /// one gives way as soon as they meet.
    fn next_meta_lineage(&self, current: u64) -> u64 {
        let members = MEMBERS_MAX as u64;
        let rank = self.members.iter().filter(|member| **member < self.options.id).count() as u64;
        (current / members + 1) * members + rank
    }

    fn begin_lineage(&mut self, id: GroupId, lineage: u64) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (last, commit) = (group.raft.last(), group.raft.status().commit);
        group.raft.begin_lineage(lineage);
        self.dirty.insert(id);
        self.out.notices.push(Notice::Recovered { group: id, lineage, last, commit });
    }

    /// Rows may say that a group was gone on with: whoever has an older lineage of it does what the row says.
    pub(super) fn follow_lineage(&mut self, id: GroupId) -> Result<(), Fault> {
        let Some((lineage, is_chosen)) = self.superseding(id) else { return Ok(()) };
        let is_whole = self.groups.get(&id).is_some_and(|group| group.partition().is_some());
        if is_chosen && is_whole {
            self.begin_lineage(id, lineage);
            return Ok(());
        }
        self.out.notices.push(Notice::Superseded { group: id, lineage });
        self.rebuild(id, lineage)
    }

    /// The newer lineage that a group's row names, and whether this node is to begin it.
    fn superseding(&self, id: GroupId) -> Option<(u64, bool)> {
        let (place, group) = (self.roster.places.get(&id)?, self.groups.get(&id)?);
        let is_older = id != GroupId::META && group.raft.term().lineage() < place.lineage;
        is_older.then(|| (place.lineage, place.voters == [self.options.id]))
    }

    /// A message has shown that a group's replica here is of a lineage that is over.
    pub(super) fn on_superseded(&mut self, id: GroupId) -> Result<(), Fault> {
        let superseded = self.groups.get(&id).and_then(|group| group.raft.superseded());
        let Some(lineage) = superseded.filter(|_| id == GroupId::META) else { return Ok(()) };
        self.out.notices.push(Notice::Superseded { group: id, lineage });
        self.roster.doubt();
        let apart: Vec<GroupId> = self.groups.keys().copied().filter(|id| *id != GroupId::META).collect();
        for id in apart {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            group.raft.step_down();
            group.raft.withhold_votes();
            group.awaits_rows = true;
            self.dirty.insert(id);
        }
        self.rebuild(id, lineage)
    }

    /// The replica here is worth nothing: it begins again without anything, and is given a state by whoever leads the group.
    fn rebuild(&mut self, id: GroupId, lineage: u64) -> Result<(), Fault> {
        let clear = self.unclaimed(id, self.claimed_slots(id));
        if self.groups.get(&id).is_some_and(|group| group.is_serving) {
            self.resign(id)?;
        }
        let is_between_takes = self.discarded.is_empty();
        let given_up = self.give_up_state(id, &clear)?;
        if is_between_takes {
            // Nothing of it was taken that must not be written: what follows is.
            self.discarded.clear();
        }
        let hard_state = HardState { term: Term::first_of(lineage), vote: None, commit: Index::START };
        let start = Position::default();
        self.unopened.insert(id, Recovered { hard_state, start, entries: Vec::new() });
        let write = LogWrite { restart: Some(start), hard_state: Some(hard_state), ..LogWrite::default() };
        self.extra_writes.push((id, write));
        self.open_group_from(id, given_up)?;
        if let Some(group) = self.groups.get_mut(&id) {
            group.is_returning = true;
            group.raft.withhold_votes();
        }
        Ok(())
    }

    /// Whether a group that is opened now has no say here until the rows are known to be current.
    pub(super) fn is_apart(&self, id: GroupId) -> bool {
        let meta = self.roster.places.get(&GroupId::META).map(|meta| &meta.voters);
        let is_apart = self.place_of(id).is_some_and(|place| Some(&place.voters) != meta);
        id != GroupId::META && !self.roster.is_current() && is_apart
    }

    /// The rows are current: who waited for that has a say.
    pub(super) fn heed_rows(&mut self) {
        let is_admitted = self.admission.is_admitted();
        for (id, group) in self.groups.iter_mut().filter(|(_, group)| group.awaits_rows) {
            group.awaits_rows = false;
            if is_admitted && !group.is_returning {
                group.raft.give_votes();
            }
            self.dirty.insert(*id);
        }
    }

    /// Whether the meta group is of a newer lineage than its row says: nothing that its rows say is acted on until that is put right.
    pub(super) fn is_meta_recovering(&self) -> bool {
        let row = self.roster.places.get(&GroupId::META);
        let meta = self.groups.get(&GroupId::META);
        row.zip(meta).is_some_and(|(row, meta)| row.lineage < meta.raft.term().lineage())
    }

    /// The meta group's first leader in a lineage: the row says so from now on, and what was counted is counted on far beyond what can be lost.
    pub(super) fn put_meta_right(&mut self) -> Result<(), Fault> {
        let Some(meta) = self.groups.get(&GroupId::META) else { return Ok(()) };
        if !self.is_meta_recovering() || !matches!(meta.role, Role::Leader { .. }) || !meta.is_serving {
            return Ok(());
        }
        let lineage = meta.raft.term().lineage();
        let key = Place::row_key(GroupId::META);
        let Some((_, modified)) = self.read_row(&key)? else { return Ok(()) };
        let place = Place { lineage, ..Place::new(vec![self.options.id]) };
        let mut rows = vec![put(key.clone(), place.encoded())];
        let sequenced: Vec<KeyspaceId> =
            self.router.keyspaces().into_iter().filter(|id| self.is_sequenced(*id)).collect();
        for keyspace in sequenced {
            let mark = self.mark_of(keyspace)?.unwrap_or(Revision::FIRST);
            let raised = Revision(mark.0.saturating_add(REVISIONS_SKIPPED));
            rows.push(put(super::sequencing::mark_key(keyspace), raised.encoded()));
        }
        self.change_rows(vec![is_as_read(key, Some(modified))], rows)
    }
}
