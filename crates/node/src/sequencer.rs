//! The sequencer: one order of revisions for all partitions of a keyspace.
//!
//! A role of the meta group's leader; its *epoch* is that leader's term. It counts, and it knows for each partition the newest term
//! whose leader may be given revisions. It has no durable state of its own but one number for each keyspace, the
//! *high-water mark*: a key of the system keyspace, raised in steps, and no revision above the mark that is committed is
//! ever given out. A new sequencer begins above it, so no revision is given out twice.
//!
//! Rules, each with a planted bug that the simulation finds without it (`docs/partitions.md` argues them):
//!
//! * **Registered first.** A partition's leader is given nothing before it has registered its term for this epoch, after showing by a
//!   barrier begun in this epoch that it leads. So whatever another leader of the partition was given
//!   before is in the log of the one that registers, or will never be.
//! * **Newest term only.** Once a term is registered, older ones are refused.
//! * **Same term at the end.** A transaction's revision is drawn only if every participant is still in the term it voted in.
//! * **The mark first.** Nothing above the committed mark.
//!
//! A sequencer that was deposed and does not know it does no harm: what rests on it is answered only when a quorum has shown that it was
//! in office when it gave its word (`host/sequencing.rs`).

use crate::draws::{DrawAnswer, DrawAsk};
use quorate_types::{GroupId, KeyspaceId, NodeId, PartitionId, Position, Revision, Term};
use std::collections::{BTreeMap, BTreeSet};

/// How far the mark is raised at least. What is left of it when a sequencer dies is a hole in the revisions.
const STEP_MIN: u64 = 1_000;
/// And at most.
const STEP_MAX: u64 = 1 << 20;

/// The role, for as long as the meta group's leader is in office.
#[derive(Debug)]
pub struct Sequencer {
    epoch: Term,
    counters: BTreeMap<KeyspaceId, Counter>,
    /// What leaders on other nodes asked last, by node.
    pub(crate) sessions: BTreeMap<NodeId, Session>,
}

/// What another node asked last. It asks anew only when it has the answer, so one is enough: asked again it gets the same.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) ask: DrawAsk,
    /// Of each registration in it, whether it counts; `None` while that is not known.
    pub(crate) registered: Option<Vec<bool>>,
    /// `None` while it waits for a mark.
    pub(crate) answer: Option<DrawAnswer>,
}

/// A leader of a partition that may draw revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registered {
    node: NodeId,
    term: Term,
    /// The newest revision that it was given.
    granted: Revision,
    /// Whatever it was given and has ended is in its log up to here, and committed.
    position: Position,
}

#[derive(Debug)]
struct Counter {
    next: Revision,
    /// While all leaders are here: nobody was answered, or told by a watch, of a newer one.
    shown: Revision,
    /// Committed: nothing above it is given out.
    mark: Revision,
    /// The mark that is being committed.
    asked: Option<Revision>,
    step: u64,
    partitions: BTreeMap<PartitionId, Registered>,
    /// The floors of what leaders elsewhere found prepared when they registered, and whose end has not come.
    inherited: BTreeMap<PartitionId, Revision>,
    /// All of so many partitions' leaders were found registered, and if they were on one node, on which; until one registers.
    complete: Option<(usize, Option<NodeId>)>,
    /// Given out, and not applied everywhere yet.
    outstanding: BTreeMap<Revision, Outstanding>,
}

/// A revision that is given out.
#[derive(Debug)]
struct Outstanding {
    /// Whose leader drew it: without its entry there is nothing of it anywhere.
    home: PartitionId,
    /// That entry is applied.
    is_decided: bool,
    /// The partitions that have not applied their part.
    partitions: BTreeSet<PartitionId>,
}

impl Counter {
    fn wants_mark(&self) -> bool {
        self.asked.is_none() && self.mark.0.saturating_sub(self.next.0) < self.step / 2
    }
}

/// Why no revision was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// That term is not the one registered.
    Stale,
    /// The mark is reached; more when it is raised.
    Wait,
}

impl Sequencer {
    /// A new one, with the marks that were committed when its term began.
    pub fn new(epoch: Term) -> Self {
        Self { epoch, counters: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    /// The meta group's term.
    pub fn epoch(&self) -> Term {
        self.epoch
    }

    /// Begins to count for a keyspace whose committed mark is `mark`.
    pub fn open(&mut self, keyspace: KeyspaceId, mark: Option<Revision>) {
        let mark = mark.unwrap_or(Revision::FIRST).max(Revision::FIRST);
        self.counters.entry(keyspace).or_insert_with(|| Counter {
            next: mark.next(),
            shown: mark,
            mark,
            asked: None,
            step: STEP_MIN,
            partitions: BTreeMap::new(),
            inherited: BTreeMap::new(),
            complete: None,
            outstanding: BTreeMap::new(),
        });
    }

    /// The keyspace is gone.
    pub fn close(&mut self, keyspace: KeyspaceId) {
        self.counters.remove(&keyspace);
    }

    /// A leader that has shown that it leads in this epoch; `newest` is the newest revision in its log, and all of that is applied at `position`.
    pub fn register(
        &mut self,
        group: GroupId,
        leader: (NodeId, Term),
        newest: Revision,
        position: Position,
    ) -> Result<(), Refused> {
        let (node, term) = leader;
        let counter = self.counters.get_mut(&group.keyspace).ok_or(Refused::Wait)?;
        match counter.partitions.get(&group.partition) {
            Some(known) if known.term > term => return Err(Refused::Stale),
            Some(known) if known.term == term && known.node == node => return Ok(()),
            _ => {}
        }
        counter
            .partitions
            .insert(group.partition, Registered { node, term, granted: Revision::default(), position });
        counter.inherited.remove(&group.partition);
        counter.complete = None;
        counter.next = counter.next.max(newest.next());
        // Who led before may have shown whatever it was given.
        counter.shown = counter.next.previous();
        // What an earlier leader drew is applied by now, or never will be, here or in other partitions. An end that others have decided
        // comes later; what is prepared here says so by its floor.
        counter.outstanding.retain(|_, outstanding| {
            outstanding.partitions.remove(&group.partition);
            let is_lost = outstanding.home == group.partition && !outstanding.is_decided;
            !is_lost && !outstanding.partitions.is_empty()
        });
        Ok(())
    }

    /// Whether this is the leader that revisions are given to.
    pub fn is_registered(&self, group: GroupId, node: NodeId, term: Term) -> bool {
        self.registered(group).is_some_and(|known| known.node == node && known.term == term)
    }

    /// Where the leader is that revisions are given to, and the newest that it was given.
    pub fn leader(&self, group: GroupId) -> Option<(NodeId, Revision)> {
        self.registered(group).map(|known| (known.node, known.granted))
    }

    fn registered(&self, group: GroupId) -> Option<&Registered> {
        self.counters.get(&group.keyspace)?.partitions.get(&group.partition)
    }

    /// The partition has applied its log up to here, on this node or at its registered leader.
    pub fn reached(&mut self, group: GroupId, position: Position) {
        let counter = self.counters.get_mut(&group.keyspace);
        if let Some(known) = counter.and_then(|counter| counter.partitions.get_mut(&group.partition))
            && known.position.index < position.index
        {
            known.position = position;
        }
    }

    /// What the registered leader, elsewhere, found prepared when it registered and has not seen the end of.
    pub fn inherits(&mut self, group: GroupId, floor: Option<Revision>) {
        let Some(counter) = self.counters.get_mut(&group.keyspace) else { return };
        match floor {
            Some(floor) => _ = counter.inherited.insert(group.partition, floor),
            None => _ = counter.inherited.remove(&group.partition),
        }
    }

    /// The lowest floor of what leaders elsewhere found prepared and have not seen the end of, and whose it is.
    pub fn inherited_floor(&self, keyspace: KeyspaceId) -> Option<(Revision, PartitionId)> {
        let floors = self.counters.get(&keyspace)?.inherited.iter();
        floors.map(|(partition, floor)| (*floor, *partition)).min()
    }

    /// The newest revision given out; `None` for a keyspace that is not counted.
    pub fn current(&self, keyspace: KeyspaceId) -> Option<Revision> {
        self.counters.get(&keyspace).map(|counter| counter.next.previous())
    }

    /// What a read is to see that begins now: the newest revision that anybody may have been shown, if all leaders are here and so `is_known` here, or
    /// else the newest given out. Whoever reads shows it.
    pub fn name(&mut self, keyspace: KeyspaceId, is_known: bool) -> Option<Revision> {
        let counter = self.counters.get_mut(&keyspace)?;
        if !is_known {
            counter.shown = counter.next.previous();
        }
        Some(counter.shown)
    }

    /// Somebody is answered as of this revision.
    pub fn show(&mut self, keyspace: KeyspaceId, revision: Revision) {
        if let Some(counter) = self.counters.get_mut(&keyspace) {
            counter.shown = counter.shown.max(revision);
        }
    }

    /// Whether there is a revision to draw below the mark.
    pub fn can_draw(&self, keyspace: KeyspaceId) -> bool {
        self.counters.get(&keyspace).is_some_and(|counter| counter.next <= counter.mark)
    }

    /// Draws the next revision for a change that the leader of `home` proposes, in these partitions, by leaders in these terms.
    pub fn draw(&mut self, home: GroupId, parts: &[(PartitionId, Term)]) -> Result<Revision, Refused> {
        let counter = self.counters.get_mut(&home.keyspace).ok_or(Refused::Stale)?;
        for (partition, term) in parts {
            if counter.partitions.get(partition).is_none_or(|known| known.term != *term) {
                return Err(Refused::Stale);
            }
        }
        if counter.next > counter.mark {
            return Err(Refused::Wait);
        }
        let drawn = counter.next;
        counter.next = drawn.next();
        if let Some(known) = counter.partitions.get_mut(&home.partition) {
            known.granted = drawn;
        }
        let partitions = parts.iter().map(|(partition, _)| *partition).collect();
        let outstanding = Outstanding { home: home.partition, is_decided: false, partitions };
        counter.outstanding.insert(drawn, outstanding);
        Ok(drawn)
    }

    /// Whether a revision may have been given out by this sequencer or an earlier one.
    pub fn is_given(&self, keyspace: KeyspaceId, revision: Revision) -> bool {
        self.counters.get(&keyspace).is_some_and(|counter| revision <= counter.mark)
    }

    /// Whether so many revisions can be drawn below the mark.
    pub fn has_room(&self, keyspace: KeyspaceId, count: u64) -> bool {
        let counter = self.counters.get(&keyspace);
        counter.is_some_and(|counter| counter.next.0 + count <= counter.mark.0 + 1)
    }

    /// Whether all of these are still in these terms.
    pub fn are_current(&self, keyspace: KeyspaceId, parts: &[(PartitionId, Term)]) -> bool {
        let Some(counter) = self.counters.get(&keyspace) else { return false };
        parts.iter().all(|(partition, term)| {
            counter.partitions.get(partition).is_some_and(|known| known.term == *term)
        })
    }

    /// The partition has applied its part of a revision on this node.
    pub fn applied(&mut self, group: GroupId, revision: Revision) {
        let Some(counter) = self.counters.get_mut(&group.keyspace) else { return };
        counter.shown = counter.shown.max(revision);
        if let Some(outstanding) = counter.outstanding.get_mut(&revision) {
            outstanding.partitions.remove(&group.partition);
            if outstanding.partitions.is_empty() {
                counter.outstanding.remove(&revision);
            }
        }
    }

    /// The leader that drew this revision has not used it, and will not.
    pub fn unused(&mut self, home: GroupId, revision: Revision) {
        let Some(counter) = self.counters.get_mut(&home.keyspace) else { return };
        if counter.outstanding.get(&revision).is_some_and(|outstanding| outstanding.home == home.partition) {
            counter.outstanding.remove(&revision);
        }
    }

    /// The transaction with this revision is decided: its parts will be applied, whoever leads.
    pub fn decided(&mut self, home: GroupId, revision: Revision) {
        let counter = self.counters.get_mut(&home.keyspace);
        if let Some(outstanding) = counter.and_then(|counter| counter.outstanding.get_mut(&revision)) {
            outstanding.is_decided = true;
        }
    }

    /// Everything up to here is applied in all partitions, as far as their positions say; if all leaders are registered.
    pub fn settled(&mut self, keyspace: KeyspaceId, partitions: &[PartitionId]) -> Option<Revision> {
        self.find_complete(keyspace, partitions)?;
        let floor = self.inherited_floor(keyspace);
        let counter = self.counters.get_mut(&keyspace)?;
        let first = counter.outstanding.keys().next();
        let settled = first.map_or(counter.next, |first| *first).previous();
        let settled = floor.map_or(settled, |(floor, _)| settled.min(floor));
        // Revisions that nothing came of are settled, too.
        counter.shown = counter.shown.max(settled);
        Some(settled)
    }

    /// Whether all of the partitions' leaders are registered, on this node.
    pub fn is_gathered(&mut self, keyspace: KeyspaceId, node: NodeId, partitions: &[PartitionId]) -> bool {
        self.find_complete(keyspace, partitions) == Some(Some(node))
    }

    /// If all leaders are registered: the node that they are on, if it is one. A keyspace's partitions become more, never others.
    fn find_complete(&mut self, keyspace: KeyspaceId, partitions: &[PartitionId]) -> Option<Option<NodeId>> {
        let counter = self.counters.get_mut(&keyspace)?;
        if let Some((count, on)) = counter.complete
            && count == partitions.len()
        {
            return Some(on);
        }
        let nodes = partitions.iter().map(|partition| Some(counter.partitions.get(partition)?.node));
        let nodes: BTreeSet<NodeId> = nodes.collect::<Option<_>>()?;
        let on = nodes.first().copied().filter(|_| nodes.len() == 1);
        counter.complete = Some((partitions.len(), on));
        Some(on)
    }

    /// How far the partitions' logs must be applied to hold all that is settled.
    pub fn positions(&self, keyspace: KeyspaceId) -> Vec<(PartitionId, Position)> {
        let counter = self.counters.get(&keyspace);
        let partitions = counter.into_iter().flat_map(|counter| &counter.partitions);
        partitions.map(|(partition, known)| (*partition, known.position)).collect()
    }

    /// The first of these partitions whose leader is not registered: until it is, nothing is settled.
    pub fn missing(&self, keyspace: KeyspaceId, partitions: &[PartitionId]) -> Option<PartitionId> {
        let counter = self.counters.get(&keyspace)?;
        partitions.iter().copied().find(|partition| !counter.partitions.contains_key(partition))
    }

    /// The first revision that is given out and not applied everywhere, and whom that waits for: the partition whose leader drew it, as the
    /// others can do nothing before it has decided, or the first that has not applied its part.
    pub fn first_outstanding(&self, keyspace: KeyspaceId) -> Option<(Revision, PartitionId)> {
        let (revision, outstanding) = self.counters.get(&keyspace)?.outstanding.first_key_value()?;
        let first = outstanding.partitions.first().copied();
        let waits_for =
            if outstanding.is_decided { first.unwrap_or(outstanding.home) } else { outstanding.home };
        Some((*revision, waits_for))
    }

    /// Whether the mark should be raised.
    pub fn wants_mark(&self, keyspace: KeyspaceId) -> bool {
        self.counters.get(&keyspace).is_some_and(Counter::wants_mark)
    }

    /// The marks that should be committed now; each is named once.
    pub fn marks_wanted(&mut self) -> Vec<(KeyspaceId, Revision)> {
        let mut wanted = Vec::new();
        for (keyspace, counter) in &mut self.counters {
            if counter.wants_mark() {
                // The faster they go, the further it is raised; what is raised too far is at worst a hole.
                if counter.next > counter.mark && counter.mark > Revision::FIRST {
                    counter.step = (counter.step * 2).min(STEP_MAX);
                }
                let mark = Revision(counter.next.0.max(counter.mark.0) + counter.step);
                counter.asked = Some(mark);
                wanted.push((*keyspace, mark));
            }
        }
        wanted
    }

    /// The mark could not be proposed; it will be asked for again.
    pub fn mark_failed(&mut self, keyspace: KeyspaceId) {
        if let Some(counter) = self.counters.get_mut(&keyspace) {
            counter.asked = None;
        }
    }

    /// This mark is committed.
    pub fn marked(&mut self, keyspace: KeyspaceId, mark: Revision) {
        if let Some(counter) = self.counters.get_mut(&keyspace) {
            counter.mark = counter.mark.max(mark);
            counter.asked = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

    fn group(partition: u32) -> GroupId {
        GroupId { keyspace: KEYSPACE, partition: PartitionId(partition) }
    }

    fn register(
        sequencer: &mut Sequencer,
        partition: u32,
        node: u64,
        term: u64,
        newest: u64,
    ) -> Result<(), Refused> {
        let leader = (NodeId(node), Term(term));
        sequencer.register(group(partition), leader, Revision(newest), Position::default())
    }

    fn sequencer() -> Sequencer {
        let mut sequencer = Sequencer::new(Term(3));
        sequencer.open(KEYSPACE, None);
        for partition in 0..2 {
            register(&mut sequencer, partition, 1, 1, 1).unwrap();
        }
        let marks = sequencer.marks_wanted();
        assert_eq!(sequencer.draw(group(0), &[(PartitionId(0), Term(1))]), Err(Refused::Wait));
        for (keyspace, mark) in marks {
            sequencer.marked(keyspace, mark);
        }
        sequencer
    }

    #[test]
    fn revisions_are_contiguous_over_all_partitions_and_settle_in_order() {
        let mut sequencer = sequencer();
        let all = [PartitionId(0), PartitionId(1)];
        let mut draw =
            |partition| sequencer.draw(group(partition), &[(PartitionId(partition), Term(1))]).unwrap();
        assert_eq!((draw(0), draw(1), draw(0)), (Revision(2), Revision(3), Revision(4)));
        let both = [(PartitionId(0), Term(1)), (PartitionId(1), Term(1))];
        assert_eq!(sequencer.draw(group(0), &both), Ok(Revision(5)));
        let settled = |sequencer: &mut Sequencer| sequencer.settled(KEYSPACE, &all).unwrap().0;
        assert_eq!(settled(&mut sequencer), 1);
        sequencer.applied(group(1), Revision(3));
        assert_eq!(settled(&mut sequencer), 1);
        sequencer.applied(group(0), Revision(2));
        assert_eq!(settled(&mut sequencer), 3);
        sequencer.applied(group(0), Revision(4));
        sequencer.applied(group(0), Revision(5));
        assert_eq!(settled(&mut sequencer), 4, "the other part of 5 is missing");
        assert_eq!(sequencer.first_outstanding(KEYSPACE), Some((Revision(5), PartitionId(0))), "its home");
        sequencer.decided(group(0), Revision(5));
        assert_eq!(sequencer.first_outstanding(KEYSPACE), Some((Revision(5), PartitionId(1))));
        sequencer.applied(group(1), Revision(5));
        assert_eq!(settled(&mut sequencer), 5);
        assert_eq!(sequencer.first_outstanding(KEYSPACE), None);
        assert!(sequencer.is_gathered(KEYSPACE, NodeId(1), &all));
        assert_eq!(sequencer.missing(KEYSPACE, &all), None);
        let more = [PartitionId(0), PartitionId(1), PartitionId(2)];
        assert_eq!(sequencer.settled(KEYSPACE, &more), None);
        assert_eq!(sequencer.missing(KEYSPACE, &more), Some(PartitionId(2)));
        sequencer.register(group(2), (NodeId(2), Term(1)), Revision(3), Position::default()).unwrap();
        assert_eq!(sequencer.settled(KEYSPACE, &more), Some(Revision(5)));
        assert!(!sequencer.is_gathered(KEYSPACE, NodeId(1), &more));
    }

    /// Else nothing after it would ever be settled, and watches stand still: nobody applies what was never decided.
    #[test]
    fn a_transaction_that_its_homes_next_leader_does_not_have_is_not_waited_for_in_other_partitions() {
        let all = [PartitionId(0), PartitionId(1)];
        let both = all.map(|partition| (partition, Term(1)));
        let mut sequencer = sequencer();
        assert_eq!(sequencer.draw(group(0), &both), Ok(Revision(2)));
        assert_eq!(sequencer.draw(group(0), &both), Ok(Revision(3)));
        sequencer.decided(group(0), Revision(2));
        sequencer.applied(group(0), Revision(2));
        register(&mut sequencer, 0, 1, 2, 2).unwrap();
        let settled = |sequencer: &mut Sequencer| sequencer.settled(KEYSPACE, &all).unwrap().0;
        assert_eq!(settled(&mut sequencer), 1, "the other part of 2 will come");
        sequencer.applied(group(1), Revision(2));
        assert_eq!(settled(&mut sequencer), 3);
    }

    #[test]
    fn an_older_term_is_given_nothing_once_a_newer_one_is_registered() {
        let mut sequencer = sequencer();
        register(&mut sequencer, 0, 2, 2, 9).unwrap();
        assert_eq!(sequencer.draw(group(0), &[(PartitionId(0), Term(1))]), Err(Refused::Stale));
        assert_eq!(register(&mut sequencer, 0, 1, 1, 9), Err(Refused::Stale));
        assert_eq!(sequencer.draw(group(0), &[(PartitionId(0), Term(2))]), Ok(Revision(10)));
    }

    #[test]
    fn a_new_sequencer_begins_above_the_mark_that_was_committed() {
        let mut sequencer = Sequencer::new(Term(4));
        sequencer.open(KEYSPACE, Some(Revision(1_002)));
        register(&mut sequencer, 0, 1, 1, 17).unwrap();
        assert!(!sequencer.can_draw(KEYSPACE));
        let [(keyspace, mark)] = sequencer.marks_wanted()[..] else { panic!() };
        assert!(sequencer.marks_wanted().is_empty(), "each is asked for once");
        sequencer.marked(keyspace, mark);
        assert_eq!(sequencer.draw(group(0), &[(PartitionId(0), Term(1))]), Ok(Revision(1_003)));
    }

    #[test]
    fn a_read_names_what_may_have_been_shown_and_not_what_is_in_flight() {
        let mut sequencer = sequencer();
        let all = [PartitionId(0), PartitionId(1)];
        let mut draw =
            |partition| sequencer.draw(group(partition), &[(PartitionId(partition), Term(1))]).unwrap();
        assert_eq!([draw(0), draw(1), draw(0), draw(1)], [2, 3, 4, 5].map(Revision));
        let named = |sequencer: &mut Sequencer, is_known| sequencer.name(KEYSPACE, is_known).unwrap().0;
        assert_eq!(named(&mut sequencer, true), 1);
        // Others show 3 when 2 is applied there, whatever holds back what is settled here.
        sequencer.inherits(group(1), Some(Revision(1)));
        sequencer.applied(group(1), Revision(3));
        assert_eq!(named(&mut sequencer, true), 3);
        assert_eq!(sequencer.settled(KEYSPACE, &all), Some(Revision(1)));
        assert_eq!(sequencer.inherited_floor(KEYSPACE), Some((Revision(1), PartitionId(1))));
        sequencer.show(KEYSPACE, Revision(4));
        assert_eq!(named(&mut sequencer, true), 4, "answered");
        assert_eq!(named(&mut sequencer, false), 5, "given out");
        assert_eq!(named(&mut sequencer, true), 5, "a reader has seen that");
        let drawn = sequencer.draw(group(0), &[(PartitionId(0), Term(1))]).unwrap();
        register(&mut sequencer, 0, 2, 2, 1).unwrap();
        assert_eq!(named(&mut sequencer, true), drawn.0, "whoever led may have shown it");
    }

    #[test]
    fn what_nothing_came_of_is_shown_when_it_is_settled() {
        let mut sequencer = sequencer();
        let drawn = sequencer.draw(group(0), &[(PartitionId(0), Term(1))]).unwrap();
        assert_eq!(sequencer.name(KEYSPACE, true), Some(drawn.previous()));
        sequencer.unused(group(0), drawn);
        assert_eq!(sequencer.settled(KEYSPACE, &[PartitionId(0), PartitionId(1)]), Some(drawn));
        assert_eq!(sequencer.name(KEYSPACE, true), Some(drawn));
    }
}
