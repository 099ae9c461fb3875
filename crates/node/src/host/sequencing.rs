//! Where a group's revisions come from, and what an answer needs before it may leave.
//!
//! The only partition of a keyspace counts by itself. In a keyspace of several the sequencer counts; it is on the node that leads the
//! meta group, and a partition's leader on the same node draws from it by a function call. A leader elsewhere hands its partition
//! over to that node, if leaders are to gather and that node has a replica; otherwise it draws from afar (`drawing.rs`).
//!
//! **Nothing here looks at a clock.** That the sequencer was in office when it gave its word is shown by a quorum of the meta group's
//! voters that, later, were in no newer term:
//!
//! * A write's reply leaves when a quorum has acknowledged its entry in messages that carry a term of the meta group no newer than the
//!   sequencer's epoch. The acknowledgements are sent anyway, so this costs no message. Any newer sequencer was elected by a quorum that
//!   shares a node with this one, and that node was in the old term after it had the entry: so the newer one began after the revision was drawn.
//! * An answer that changes nothing, and every read, waits for a read barrier of the meta group begun after its revision was named.
//!
//! A write that no such quorum acknowledges (the meta group's leader changed in between) may be there or not, and the client is
//! told so. Its revision is below whatever the next sequencer gives out, so the order stands.

use super::Host;
use crate::effects::Notice;
use crate::group::{Group, Origin, Then, Wait, Work};
use crate::sequencer::Sequencer;
use quorate_consensus::Consensus;
use quorate_mvcc::engine::Engine;
use quorate_types::request::{PutLease, PutRequest};
use quorate_types::{
    Bytes, Decode, Encode, Event, Fault, GroupId, Index, KeyRange, KeyspaceId, NodeId, PartitionId, Position,
    Rejection, Request, Revision, Term, Tick, reached,
};

/// How often a leader that cannot draw tries to change that, in ticks.
const ARRANGE_TICKS: u64 = 5;
/// How often a leader looks whether another node shall lead instead, in ticks.
const PREFER_TICKS: u64 = 100;
/// A node that has handed a group over does not get it back for so many ticks: longer than what a node that is stopped takes to be gone.
const STOPPING_TICKS: u64 = 500;
/// A node that lacks more of the log than so many entries is not made leader: nothing can be proposed until it has them.
const PREFER_ENTRIES_MAX: u64 = 100;
/// How often a sequencer looks whether it is on the wrong node, in ticks: well over what an attempt to hand over may last, so that the meta group
/// goes on meanwhile.
const HAND_OVER_TICKS: u64 = 100;
/// Where the high-water marks are kept in the system keyspace, each under its keyspace's number.
pub(super) const MARKS: &[u8] = b"sequence/";

/// Where a serving leader's next revision comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// It counts by itself.
    Own,
    /// From the sequencer on this node; this is the newest it gave out.
    Sequenced(Revision),
    /// From one on another node, which has to be asked.
    Afar,
    /// That one was asked: this is the newest, and if the next is drawn, it was given for this.
    Granted(Revision),
    /// Nowhere yet.
    Wait,
}

/// A partition that the next revision of its keyspace waits for on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// Which.
    pub partition: PartitionId,
    /// Readers and watches see everything up to here.
    pub settled: Revision,
    /// At the sequencer's node: the newest that is given out; elsewhere: what that node had settled when it was last asked.
    pub newest: Revision,
}

pub(super) fn mark_key(keyspace: KeyspaceId) -> Bytes {
    [MARKS, format!("{:08x}", keyspace.0).as_bytes()].concat().into()
}

fn keyspace_of_mark(key: &[u8]) -> Option<KeyspaceId> {
    let number = std::str::from_utf8(key.strip_prefix(MARKS)?).ok()?;
    u32::from_str_radix(number, 16).ok().map(KeyspaceId)
}

impl<E: Engine> Host<E> {
    /// Whether the keyspace's revisions come from the sequencer.
    pub(super) fn is_sequenced(&self, keyspace: KeyspaceId) -> bool {
        self.router.partitions(keyspace).len() > 1
            || self.keyspaces.get(&keyspace).is_some_and(|keyspace| keyspace.is_split)
    }

    /// Where a request on this group gets its revision.
    pub(super) fn count(&self, id: GroupId) -> Count {
        if !self.is_sequenced(id.keyspace) {
            return Count::Own;
        }
        let Some(group) = self.groups.get(&id) else { return Count::Wait };
        let Some(sequencer) = &self.sequencer else {
            let is_registered = group.registered.is_some_and(|epoch| epoch == self.meta_term());
            return if is_registered { Count::Afar } else { Count::Wait };
        };
        if group.registered != Some(sequencer.epoch())
            || !sequencer.is_registered(id, self.options.id, group.term)
            || !sequencer.can_draw(id.keyspace)
        {
            return Count::Wait;
        }
        sequencer.current(id.keyspace).map_or(Count::Wait, Count::Sequenced)
    }

    /// The partition's leader has evaluated a change with this revision, the one after the newest: it is taken.
    pub(super) fn take_revision(&mut self, id: GroupId, parts: &[(PartitionId, Term)], revision: Revision) {
        let Some(sequencer) = &mut self.sequencer else { panic!("group {id} drew from no sequencer") };
        let drawn = sequencer.draw(id, parts);
        assert!(drawn == Ok(revision), "group {id} evaluated for {revision}, and {drawn:?} was drawn");
        self.raise_marks_next |= sequencer.wants_mark(id.keyspace);
    }

    /// The meta group is led here and everything before is applied: the sequencer begins.
    pub(super) fn begin_sequencer(&mut self) -> Result<(), Fault> {
        let Some(meta) = self.groups.get(&GroupId::META) else { return Ok(()) };
        self.sequencer = Some(Sequencer::new(meta.term));
        self.open_counters()?;
        self.bootstrap()?;
        self.put_meta_right()?;
        self.remove_marks()?;
        self.arrange_sequencing()?;
        self.answer_early()
    }

    /// A counter for each keyspace of several partitions.
    pub(super) fn open_counters(&mut self) -> Result<(), Fault> {
        // The marks of a former lineage may be below what was given out.
        if self.is_meta_recovering() {
            return Ok(());
        }
        for keyspace in self.router.keyspaces() {
            // While the first split is under way, the mark to begin above is not known.
            if self.router.partitions(keyspace).len() > 1 && self.sequencer.is_some() {
                let mark = self.mark_of(keyspace)?;
                if let Some(sequencer) = &mut self.sequencer {
                    sequencer.open(keyspace, mark);
                }
            }
        }
        self.raise_marks()
    }

    /// The committed mark of a keyspace, as it is applied here.
    pub(super) fn mark_of(&self, keyspace: KeyspaceId) -> Result<Option<Revision>, Fault> {
        let mark = self.read_meta(&mark_key(keyspace))?;
        Ok(mark.and_then(|value| Revision::from_bytes(value).ok()))
    }

    /// The keyspaces that have a mark.
    pub(super) fn marked_keyspaces(&self) -> Result<Vec<KeyspaceId>, Fault> {
        let marks = self.scan_meta(KeyRange::prefix(Bytes::from_static(MARKS)))?;
        Ok(marks.iter().filter_map(|pair| keyspace_of_mark(&pair.key)).collect())
    }

    /// Proposes the high-water marks that are wanted.
    pub(super) fn raise_marks(&mut self) -> Result<(), Fault> {
        self.raise_marks_next = false;
        let Some(sequencer) = &mut self.sequencer else { return Ok(()) };
        for (keyspace, mark) in sequencer.marks_wanted() {
            let put = PutRequest {
                key: mark_key(keyspace),
                value: Some(mark.encoded()),
                lease: PutLease::Detach,
                previous: false,
            };
            let can_propose = self
                .groups
                .get(&GroupId::META)
                .is_some_and(|meta| meta.is_serving && meta.raft.can_propose().is_ok());
            let mut is_asked = false;
            if can_propose {
                let (received, deadline) = (self.now, self.now.after(self.options.request_ticks_max));
                let work = Work { origin: Origin::Own, request: Request::Put(put), received, deadline };
                let last = |host: &Self| host.groups.get(&GroupId::META).map(|meta| meta.raft.last());
                let before = last(self);
                self.serve(GroupId::META, work)?;
                // It may have been refused, with so much else in flight.
                is_asked = last(self) != before;
            }
            if let Some(sequencer) = self.sequencer.as_mut().filter(|_| !is_asked) {
                sequencer.mark_failed(keyspace);
            }
        }
        Ok(())
    }

    /// A key of the system keyspace was put: a mark, or the map of a keyspace.
    pub(super) fn on_meta_event(&mut self, event: &Event) -> Result<(), Fault> {
        if let (Event::Put(pair), Some(sequencer)) = (event, &mut self.sequencer)
            && let Some(keyspace) = keyspace_of_mark(&pair.key)
            && let Ok(mark) = Revision::from_bytes(pair.value.clone())
        {
            sequencer.marked(keyspace, mark);
            for partition in self.router.partitions(keyspace).to_vec() {
                self.wake_waiting(GroupId { keyspace, partition });
            }
            self.answer_draws()?;
        }
        self.on_map_event(event)
    }

    /// What waits in a group is looked at again.
    pub(super) fn wake_waiting(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get(&id)
            && !group.waiting.is_empty()
        {
            self.rouse_waiting.insert(id);
        }
    }

    /// The meta group is not led here any more.
    pub(super) fn end_sequencer(&mut self) {
        self.sequencer = None;
        self.parked.clear();
        for group in self.groups.values_mut() {
            group.registered = None;
        }
    }

    /// Every so often: leaders that are not registered register; those on another node than the sequencer go there.
    pub(super) fn tick_sequencing(&mut self) -> Result<(), Fault> {
        if self.now.0.is_multiple_of(ARRANGE_TICKS) {
            self.arrange_sequencing()?;
            for id in self.inheriting.clone() {
                self.note_inherited(id);
            }
        }
        if self.sequencer.is_some() && self.now.0.is_multiple_of(HAND_OVER_TICKS) {
            self.hand_over_sequencer();
        }
        Ok(())
    }

    pub(super) fn arrange_sequencing(&mut self) -> Result<(), Fault> {
        if self.raise_marks_next || self.sequencer.is_some() {
            self.raise_marks()?;
        }
        let serving = self.groups.iter().filter(|(_, group)| group.is_serving);
        for id in serving.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.arrange(id)?;
        }
        Ok(())
    }

    /// Another sequencer may be in office: nobody can write until leaders have registered with it. Those that gather look at the next tick for that, because where it
    /// is may not be for long.
    pub(super) fn register_anew(&mut self) -> Result<(), Fault> {
        let serving = self.groups.iter().filter(|(_, group)| group.is_serving).map(|(id, _)| *id);
        for id in serving.filter(|id| !self.gathers(*id)).collect::<Vec<_>>() {
            self.arrange(id)?;
        }
        Ok(())
    }

    /// Brings a partition's leader and the sequencer together.
    pub(super) fn arrange(&mut self, id: GroupId) -> Result<(), Fault> {
        let is_sequenced = self.is_sequenced(id.keyspace);
        let preferred = self.preferred_leader(id);
        if preferred.is_some_and(|preferred| preferred != self.options.id) {
            self.hand_to_preferred(id);
        }
        // Where leaders gather, a partition is split where the sequencer is.
        if !is_sequenced && self.wanted_split(id).is_none() {
            return Ok(());
        }
        let Some(meta) = self.groups.get(&GroupId::META) else { return Ok(()) };
        let (epoch, leader) = (meta.term, meta.leader);
        let gathers = self.gathers(id);
        let is_leader_short = leader.is_some_and(|leader| self.is_peer_short(leader));
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.is_serving) else { return Ok(()) };
        let is_distant = leader.is_some_and(|leader| leader != self.options.id)
            && !(gathers && leader.is_some_and(|leader| group.raft.configuration().is_voter(leader)));
        if self.sequencer.is_some() || is_distant {
            if is_sequenced && group.registered != Some(epoch) && group.registering != Some(epoch) {
                group.registering = Some(epoch);
                // What this leader has in its log has revisions of an earlier sequencer, of which this one does not know that they
                // are given out: it is applied first, or what is settled would leave it behind.
                let after = group.proposed;
                let deadline = self.now.after(self.options.election_ticks_max);
                self.begin_barrier(id, after, deadline, Then::Register(id, epoch), None)?;
            }
        } else if let Some(leader) = leader
            && leader != self.options.id
            && !is_leader_short
            && group.raft.configuration().is_voter(leader)
            && group.raft.can_propose().is_ok()
        {
            group.raft.transfer(Some(leader));
            self.dirty.insert(id);
        }
        Ok(())
    }

    /// Whether a group is to be led where revisions come from. Not where its row names a leader, also while that one cannot lead: whoever does then would
    /// hand it to and fro.
    pub(super) fn gathers(&self, id: GroupId) -> bool {
        let is_unnamed = self.roster.places.get(&id).is_none_or(|place| place.leader.is_none());
        !self.options.spread_leaders && is_unnamed
    }

    /// Who shall lead a group, if its row says so and that node votes in it and is not known to be gone.
    fn preferred_leader(&self, id: GroupId) -> Option<NodeId> {
        let preferred = self.roster.places.get(&id)?.leader?;
        let is_voter = self.groups.get(&id)?.raft.configuration().voters.contains(&preferred);
        let can_lead = is_voter && self.liveness.is_reachable(preferred) && !self.is_peer_short(preferred);
        can_lead.then_some(preferred)
    }

    /// Hands a group to who shall lead it, now and then, when that has nearly all of its log.
    fn hand_to_preferred(&mut self, id: GroupId) {
        let Some(preferred) = self.preferred_leader(id) else { return };
        // Not all groups at once.
        if !(self.now.0 + u64::from(id.partition.0) * ARRANGE_TICKS).is_multiple_of(PREFER_TICKS) {
            return;
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        // Whoever has just handed it over would not have, if it was to stay: it is being stopped.
        if group.handed_by.is_some_and(|(by, at)| by == preferred && self.now.since(at) < STOPPING_TICKS) {
            return;
        }
        let last = group.raft.last().index.0;
        let matched = group.raft.matched().into_iter().find(|(node, _)| *node == preferred);
        let is_near = matched.is_some_and(|(_, matched)| matched.0 + PREFER_ENTRIES_MAX >= last);
        if is_near && !group.is_splitting && group.raft.can_propose().is_ok() {
            group.raft.transfer(Some(preferred));
            self.dirty.insert(id);
        }
    }

    /// A partition whose state is being replaced here cannot be led here, and so would answer nothing for as long as the meta group is: the
    /// meta group goes to the partition's leader.
    fn hand_over_sequencer(&mut self) {
        let missing = self.groups.iter().filter(|(id, group)| {
            id.keyspace != KeyspaceId::SYSTEM
                && group.partition().is_none()
                && self.is_sequenced(id.keyspace)
                && !self.is_scattered(id.keyspace)
        });
        let leaders = missing.filter_map(|(_, group)| group.leader);
        let is_heard = |leader: &NodeId| *leader != self.options.id && !self.is_down(*leader);
        let Some(leader) = leaders.filter(is_heard).min() else { return };
        let Some(meta) = self.groups.get_mut(&GroupId::META) else { return };
        if meta.is_serving && meta.raft.can_propose().is_ok() {
            meta.raft.transfer(Some(leader));
            self.dirty.insert(GroupId::META);
        }
    }

    /// The group's leadership was shown by a barrier begun in this epoch.
    pub(super) fn register(&mut self, id: GroupId, epoch: Term) -> Result<(), Fault> {
        let own_meta = self.meta_term();
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        group.registering = None;
        // More than one barrier may be under way: of a term that is over, and of this one.
        if !group.is_serving || own_meta != epoch || group.registered == Some(epoch) {
            return Ok(());
        }
        group.registering = Some(epoch);
        if self.sequencer.is_none() {
            self.want_registration(id, epoch);
            return Ok(());
        }
        let deadline = self.now.after(self.options.election_ticks_max);
        self.begin_barrier(GroupId::META, Position::default(), deadline, Then::Registered(id, epoch), None)
    }

    /// The sequencer here was in office after the leader had shown that it leads. A deposed one that does not know it registers nobody: a later
    /// leader of a partition could else be given revisions by it that are below what others have read by the word of the one that came after it.
    pub(super) fn registered(&mut self, id: GroupId, epoch: Term) {
        let (own, own_meta) = (self.options.id, self.meta_term());
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.registering = None;
        let (Some(sequencer), true) = (&mut self.sequencer, group.is_serving && own_meta == epoch) else {
            return;
        };
        let Some(partition) = group.partition() else { return };
        if group.registered == Some(epoch) {
            return;
        }
        let term = group.term;
        if sequencer.epoch() == epoch
            && sequencer.register(id, (own, term), partition.newest(), partition.applied()).is_ok()
        {
            (group.registered, group.office) = (Some(epoch), Index::START);
            self.leaders_news.insert(id, own);
            group.acks.clear();
            reached!("registered-here");
            if let Some(partition) = group.partition_mut() {
                partition.inherit();
            }
            self.note_inherited(id);
            self.rouse_waiting.insert(id);
            self.wants_settled.insert(id.keyspace);
            self.out.notices.push(Notice::Registered { group: id, term, epoch });
        }
    }

    /// A follower of a group says what it holds, and which term of the meta group it is in.
    pub(super) fn on_acknowledged(&mut self, id: GroupId, from: NodeId, held: (Index, Term), meta: Term) {
        let (matched, term) = held;
        // One of an earlier term may speak of entries that others have taken the place of since.
        if let Some(group) = self.groups.get_mut(&id)
            && term == group.term
            && group.registered.is_some_and(|epoch| meta <= epoch)
        {
            let held = group.acks.entry(from).or_insert(matched);
            *held = (*held).max(matched);
        }
    }

    /// Whether the sequencer was in office after the entry at `index` had got its revision: a barrier of the meta group has shown it; or a quorum held
    /// the entry while in no newer term of the meta group than the one this leader is registered in, one of the meta group, of which any later
    /// sequencer had to be elected by one.
    pub(super) fn is_confirmed(&self, id: GroupId, index: Index, epoch: Term) -> bool {
        let (Some(group), Some(meta)) = (self.groups.get(&id), self.groups.get(&GroupId::META)) else {
            return false;
        };
        let holds = |voter: NodeId| {
            voter == self.options.id || group.acks.get(&voter).is_some_and(|matched| *matched >= index)
        };
        group.registered == Some(epoch)
            && meta.raft.term() <= epoch
            && (index <= group.office
                || (group.raft.configuration().agreed(holds) && meta.raft.configuration().agreed(holds)))
    }

    /// Begins a barrier of the meta group for what a partition's own voters cannot confirm, because they are not the meta group's. One at a time; what
    /// comes meanwhile goes with the next.
    pub(super) fn ask_office(&mut self) -> Result<(), Fault> {
        if self.is_office_asked || self.wants_office.is_empty() {
            return Ok(());
        }
        let Some(meta) = self.groups.get(&GroupId::META) else { return Ok(()) };
        let (term, meta) = (meta.raft.term(), meta.raft.configuration());
        let mut places = Vec::new();
        for id in &self.wants_office {
            let Some(group) = self.groups.get(id).filter(|group| group.registered == Some(term)) else {
                continue;
            };
            let own = group.raft.configuration();
            if own.voters != meta.voters || own.is_joint() || meta.is_joint() {
                places.push((*id, group.proposed.index));
            }
        }
        self.wants_office.clear();
        if places.is_empty() {
            return Ok(());
        }
        self.is_office_asked = true;
        let deadline = self.now.after(self.options.election_ticks_max);
        self.begin_barrier(GroupId::META, Position::default(), deadline, Then::Office(term, places), None)
    }

    /// The barrier was passed. It must have been by the same sequencer: a barrier passes on a node that follows a newer one, too.
    pub(super) fn on_office(&mut self, epoch: Term, places: Vec<(GroupId, Index)>) -> Result<(), Fault> {
        self.is_office_asked = false;
        if self.meta_term() != epoch {
            return Ok(());
        }
        for (id, index) in places {
            if let Some(group) = self.groups.get_mut(&id).filter(|group| group.registered == Some(epoch)) {
                group.office = group.office.max(index);
                self.finish_confirmed(id)?;
            }
        }
        Ok(())
    }

    /// The barrier was not passed: another one is begun.
    pub(super) fn office_failed(&mut self, places: Vec<(GroupId, Index)>) {
        self.is_office_asked = false;
        self.wants_office.extend(places.into_iter().map(|(id, _)| id));
    }

    /// An entry is applied, and its quorum is not known to be in time; with a newer sequencer it never will be.
    pub(super) fn wait_for_confirmation(&mut self, id: GroupId, index: Index, epoch: Term, wait: Wait) {
        if self.meta_term() > epoch {
            reached!("write-of-former-epoch");
            return self.reject(wait.then, Rejection::Unknown);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.unconfirmed.push_back((index, epoch, wait));
        }
    }

    /// What waited for a quorum in time for a sequencer that is deposed now.
    pub(super) fn give_up_unconfirmed(&mut self) {
        let newest = self.meta_term();
        let mut late = Vec::new();
        for group in self.groups.values_mut() {
            let is_late = |(_, epoch, _): &mut (Index, Term, Wait)| *epoch < newest;
            while let Some((_, _, wait)) = group.unconfirmed.pop_front_if(is_late) {
                late.push(wait.then);
            }
        }
        for then in late {
            reached!("write-unconfirmed-for-good");
            self.reject(then, Rejection::Unknown);
        }
    }

    /// What waited for its quorum, and has it now.
    pub(super) fn finish_confirmed(&mut self, id: GroupId) -> Result<(), Fault> {
        while let Some((index, epoch, _)) = self.groups.get(&id).and_then(|group| group.unconfirmed.front())
            && self.is_confirmed(id, *index, *epoch)
            && let Some((_, _, wait)) =
                self.groups.get_mut(&id).and_then(|group| group.unconfirmed.pop_front())
        {
            self.finish(id, wait.then, wait.deadline)?;
        }
        Ok(())
    }

    /// The meta group's term, as far as this node knows.
    pub(super) fn meta_term(&self) -> Term {
        self.groups.get(&GroupId::META).map_or(Term(0), |meta| meta.raft.term())
    }

    /// A barrier for an answer of a sequenced group that changes nothing: the sequencer's office is confirmed, then what it rests on applied.
    pub(super) fn begin_sequenced(
        &mut self,
        id: GroupId,
        after: Position,
        then: Then,
        again: Option<Work>,
        deadline: Tick,
    ) -> Result<(), Fault> {
        let Some(epoch) = self.groups.get(&id).and_then(|group| group.registered) else {
            let then = Then::Sequenced {
                group: id,
                after,
                epoch: Term(0),
                then: Box::new(then),
                again: again.map(Box::new),
            };
            self.reject(then, Rejection::NoLeader);
            return Ok(());
        };
        let then =
            Then::Sequenced { group: id, after, epoch, then: Box::new(then), again: again.map(Box::new) };
        self.begin_barrier(GroupId::META, Position::default(), deadline, then, None)
    }

    /// The sequencer was in office: the answer leaves when what it rests on is applied. It must be the same sequencer (a barrier passes on a
    /// node that has lost the office, too), and whoever gave the answer must lead still: then the entries up to `after` are its own.
    pub(super) fn on_office_confirmed(
        &mut self,
        id: GroupId,
        place: (Position, Term),
        then: Then,
        again: Option<Box<Work>>,
        deadline: Tick,
    ) -> Result<(), Fault> {
        let (after, epoch) = place;
        let is_same = self.meta_term() == epoch;
        let is_still = |group: &&mut Group<E>| {
            is_same && group.is_serving && group.term == after.term && group.registered == Some(epoch)
        };
        let Some(group) = self.groups.get_mut(&id).filter(is_still) else {
            reached!("answer-of-deposed-sequencer");
            let then = Then::Sequenced { group: id, after, epoch, then: Box::new(then), again };
            self.reject(then, Rejection::NoLeader);
            return Ok(());
        };
        if group.applied() >= after.index {
            return self.finish(id, then, deadline);
        }
        let wait = Wait { term: Some(after.term), confirm: None, deadline, then };
        group.waits.entry(after.index).or_default().push(wait);
        Ok(())
    }

    /// Moves on what is known to be applied of all partitions.
    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        while let Some(keyspace) = self.wants_settled.pop_first() {
            if self.sequencer.is_none() {
                let is_gathered = self.sees_gathered(keyspace);
                if is_gathered {
                    self.settle_contiguous(keyspace)?;
                }
                // Where leaders are scattered there are gaps all the time.
                let has_gaps = !is_gathered || self.is_scattered(keyspace) || self.is_awaited(keyspace);
                if has_gaps && self.is_unsettled(keyspace) {
                    self.begin_settling(keyspace)?;
                }
                continue;
            }
            let Some(settled) = self.settled_everywhere(keyspace) else { continue };
            self.answer_parked(keyspace, settled)?;
            let partitions = self.router.partitions(keyspace);
            let sequencer = self.sequencer.as_mut();
            if sequencer.is_some_and(|sequencer| sequencer.is_gathered(keyspace, self.options.id, partitions))
            {
                let all: Vec<PartitionId> = self.groups_of(keyspace).map(|group| group.partition).collect();
                self.settled_at(keyspace, settled, &all)?;
            } else if self.settled_known(keyspace) < settled {
                self.begin_settling(keyspace)?;
            }
        }
        Ok(())
    }

    /// At the sequencer: up to where all partitions are applied, as far as its positions say.
    pub(super) fn settled_everywhere(&mut self, keyspace: KeyspaceId) -> Option<Revision> {
        let partitions = self.router.partitions(keyspace);
        let settled = self.sequencer.as_mut()?.settled(keyspace, partitions)?;
        let floor = self.inherited_floor(keyspace).map(|(floor, _)| floor);
        Some(floor.map_or(settled, |floor| settled.min(floor)))
    }

    /// The lowest floor of the transactions that a partition's leader here found prepared when it registered, and whose end has not come;
    /// and that partition.
    fn inherited_floor(&self, keyspace: KeyspaceId) -> Option<(Revision, PartitionId)> {
        let of_keyspace = self.inheriting.iter().filter(|id| id.keyspace == keyspace);
        let floors = of_keyspace.filter_map(|id| Some((self.floor_inherited_by(*id)?, id.partition)));
        floors.min()
    }

    fn floor_inherited_by(&self, id: GroupId) -> Option<Revision> {
        self.groups.get(&id)?.partition()?.inherited_floor()
    }

    /// Notes whether what is settled waits for what this partition's leader inherited.
    pub(super) fn note_inherited(&mut self, id: GroupId) {
        if self.floor_inherited_by(id).is_some() {
            self.inheriting.insert(id);
        } else if self.inheriting.remove(&id) {
            reached!("inherited-transactions-ended");
            self.tell_unused(id, std::iter::empty());
        }
    }

    /// Why readers that ask no leader and watches of a keyspace of several partitions see less on this node than is known to be given out: the one
    /// partition that the next revision waits for. `None` when they see everything, and where a node that does not number revisions has heard
    /// nothing of more. Under load there is nearly always one, another each time; one that stays is slow.
    pub fn held_back(&self, keyspace: KeyspaceId) -> Option<HeldBack> {
        if !self.is_sequenced(keyspace) {
            return None;
        }
        let settled = self.published_revision(keyspace)?;
        let Some(sequencer) = &self.sequencer else {
            let (newest, partition) = self.lagging(keyspace)?;
            return (settled < newest).then_some(HeldBack { partition, settled, newest });
        };
        let newest = sequencer.current(keyspace).filter(|newest| settled < *newest)?;
        let partitions = self.router.partitions(keyspace);
        if let Some(partition) = sequencer.missing(keyspace, partitions) {
            return Some(HeldBack { partition, settled, newest });
        }
        let inherited = self.inherited_floor(keyspace).into_iter().chain(sequencer.inherited_floor(keyspace));
        let inherited = inherited.map(|(floor, partition)| (floor.next(), partition));
        let (_, partition) = inherited.chain(sequencer.first_outstanding(keyspace)).min()?;
        Some(HeldBack { partition, settled, newest })
    }
}
