//! How a node whose data directory is new comes to take part.
//!
//! A new directory may be that of a new cluster, or the second one of a node that has lost its first, with all that it had
//! promised: votes, acknowledgements. Nobody but the others can tell which. So a node with a new directory says nothing in any group
//! and asks every other member, again and again, until each has answered:
//!
//! * All say that they know of no promise of this node's (they are new themselves, or they remember this very directory from
//!   the cluster's beginning): the cluster begins, and nothing can have been forgotten.
//! * Somebody knows better: from its question on, no vote and no acknowledgement of the node's former life counts with who was
//!   asked. The node goes to the newest term it was told of, follows, and votes again when it has caught up with a read barrier
//!   begun after all that (`raft/amnesia.rs` in `quorate-consensus` says why this suffices).
//!
//! Who the other members are, the node is told in its settings as of the cluster's beginning, and since then some may have joined and some
//! may have been removed. So those that take part answer with the members' rows as they have them, and the newest rows say who is to be
//! asked. They may be old, too: when the node has caught up with the meta group it has the rows itself, and if they name
//! somebody who was not asked, that one is asked and then everything is caught up with once more. It need not ask who was removed:
//! such a one has left every group by a change that was committed, and whoever is asked knows it, or knows somebody who does.
//!
//! Every directory draws an [`Incarnation`] when it is made, and every message is received with its sender's. One of a former
//! life that was still on its way is thus told apart and dropped.
//!
//! A node that has given up its log because it was damaged (`Options::has_forgotten`) is one of the second kind whatever it is told, and says so to others: where all have, nobody begins.
//!
//! Invariants:
//! * A node that is not admitted votes for nobody.
//! * It is admitted only when [`Standing::Admitted`] is durable: with it, the lives of those that it met.
//! * A new life is durable with who was asked before that answers. So a former directory that is started again, by mistake, is not
//!   heard any more, also after the others have restarted.
//!
//! Caveats: a cluster begins when all its members have been up at once, and a node that lost its disk comes back when all others can
//! be reached. The founder of a cluster of one knows nobody to ask: with an empty directory it would
//! begin another cluster, unless those that know it dial it just then, for which the shell waits a moment. Nor does one whose fellow founders are all gone. What a lost majority had acknowledged is lost. A second process under a node's name with an empty directory takes
//! its place.

use quorate_types::{GroupId, Incarnation, Member, NodeId, Revision, Term, wire_struct};
use std::collections::{BTreeMap, BTreeSet};

/// Former lives remembered of one node; of one that loses its disk more often, the oldest are forgotten.
const FORMER_MAX: usize = 64;

/// What a data directory says of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is new, or its node is not done with asking.
    New,
    /// Its node takes part, with the others in these lives.
    Admitted(Lives),
}

/// The data directory of each member, as a node that takes part knows them.
pub type Lives = BTreeMap<NodeId, Life>;

/// One life of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its data directory.
    pub incarnation: Incarnation,
    /// It is the one that the cluster began with: its node cannot have forgotten anything.
    pub is_original: bool,
}

/// What a member answers to a node with a new directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionAnswer {
    /// The directory that was asked about.
    pub incarnation: Incarnation,
    /// The member knows of no promise that this directory's node could have forgotten.
    pub is_original: bool,
    /// The member's term in each of its groups.
    pub terms: Vec<(GroupId, Term)>,
    /// All members, by the rows that the member has; none if it does not take part itself, or has none yet.
    pub members: Vec<Member>,
    /// How new the rows are.
    pub as_of: RowsAsOf,
}

/// How new a node's rows of the meta group are: its lineage, then the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowsAsOf {
    /// Counts how often the meta group has lost its quorum and was told to go on.
    pub lineage: u64,
    /// Of the system keyspace.
    pub revision: Revision,
}

wire_struct!(AdmissionAnswer { incarnation, is_original, terms, members, as_of });
wire_struct!(RowsAsOf { lineage, revision });

/// Who answered, in which of its lives, and what.
type Answers = BTreeMap<NodeId, (Incarnation, AdmissionAnswer)>;

/// How far a node has come.
#[derive(Debug)]
enum Phase {
    /// Has asked, and says nothing else.
    Asking(Answers),
    CatchingUp {
        /// Follows, and waits for a barrier in each of these.
        groups: BTreeSet<GroupId>,
        answers: Answers,
        /// Somebody has answered since the barriers began.
        has_more: bool,
    },
    /// The shell is making this durable.
    Recording {
        lives: Lives,
        is_beginning: bool,
    },
    Admitted(Lives),
}

/// What is to be done when every member has answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Some have not answered yet.
    Wait,
    /// A new cluster: record it.
    Begin,
    /// Abstain in these terms and catch up.
    CatchUp(BTreeMap<GroupId, Term>),
}

/// What a message's incarnation says of its sender.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Nothing speaks against it.
    Known,
    /// It asks with another directory than before: its former life's promises are void.
    Reborn,
    /// Of a former life, or of one that never asked.
    Void,
}

/// A node's own admission, and what it knows of the others'.
pub(crate) struct Admission {
    own: Incarnation,
    /// There was a life before this one, and it has given up what it held: whatever others remember, this is no beginning.
    has_forgotten: bool,
    phase: Phase,
    /// Of nodes that asked while this one was not admitted itself: their newest life. Later, lives are recorded.
    asked: BTreeMap<NodeId, Incarnation>,
    /// Lives of each node that are over, oldest first; a question of theirs that is late must not bring them back. Only in memory:
    /// a connection ends with either of its processes.
    former: BTreeMap<NodeId, Vec<Incarnation>>,
    /// Counts how often it began to catch up: a barrier counts that began after that.
    round: u64,
}

impl Admission {
    pub(crate) fn new(own: Incarnation, standing: Standing, has_forgotten: bool) -> Self {
        let phase = match standing {
            Standing::New => Phase::Asking(BTreeMap::new()),
            Standing::Admitted(lives) => Phase::Admitted(lives),
        };
        Self { own, has_forgotten, phase, asked: BTreeMap::new(), former: BTreeMap::new(), round: 0 }
    }

    pub(crate) fn own(&self) -> Incarnation {
        self.own
    }

    pub(crate) fn is_admitted(&self) -> bool {
        matches!(self.phase, Phase::Admitted(_))
    }

    /// Whether group messages are neither sent nor taken.
    pub(crate) fn is_mute(&self) -> bool {
        match &self.phase {
            Phase::Asking(_) => true,
            // Who has caught up goes on following.
            Phase::Recording { is_beginning, .. } => *is_beginning,
            Phase::CatchingUp { .. } | Phase::Admitted(_) => false,
        }
    }

    /// Who of these has not answered yet.
    pub(crate) fn unanswered(&self, others: &BTreeSet<NodeId>) -> Vec<NodeId> {
        match &self.phase {
            Phase::Asking(answers) | Phase::CatchingUp { answers, .. } => {
                others.iter().copied().filter(|node| !answers.contains_key(node)).collect()
            }
            Phase::Recording { .. } | Phase::Admitted(_) => Vec::new(),
        }
    }

    /// Looks at who sends; `asks` when the message is a node's question for admission. After [`Sender::Reborn`] what
    /// [`Admission::standing`] says has to be recorded before anything is answered.
    pub(crate) fn sender(&mut self, from: NodeId, incarnation: Incarnation, asks: bool) -> Sender {
        let known = match &self.phase {
            Phase::Recording { lives, .. } | Phase::Admitted(lives) => {
                lives.get(&from).map(|life| life.incarnation)
            }
            Phase::Asking(_) | Phase::CatchingUp { .. } => self.asked.get(&from).copied(),
        };
        match known {
            Some(known) if known == incarnation => return Sender::Known,
            None if !asks => return Sender::Known,
            Some(_) if !asks => return Sender::Void,
            _ => {}
        }
        let former = self.former.entry(from).or_default();
        if former.contains(&incarnation) {
            return Sender::Void;
        }
        if former.len() == FORMER_MAX {
            former.remove(0);
        }
        former.extend(known);
        match &mut self.phase {
            Phase::Recording { lives, .. } | Phase::Admitted(lives) => {
                lives.insert(from, Life { incarnation, is_original: false });
            }
            Phase::Asking(_) | Phase::CatchingUp { .. } => {
                self.asked.insert(from, incarnation);
            }
        }
        Sender::Reborn
    }

    /// What is to be on disk by now.
    pub(crate) fn standing(&self) -> Standing {
        match &self.phase {
            Phase::Asking(_) | Phase::CatchingUp { .. } => Standing::New,
            Phase::Recording { lives, .. } | Phase::Admitted(lives) => Standing::Admitted(lives.clone()),
        }
    }

    /// What we know of a node that asks. One that is not admitted itself knows nothing against anybody: whoever promised something to
    /// others is remembered by those.
    pub(crate) fn is_original(&self, from: NodeId, incarnation: Incarnation) -> bool {
        match &self.phase {
            Phase::Recording { lives, .. } | Phase::Admitted(lives) => {
                lives.get(&from) == Some(&Life { incarnation, is_original: true })
            }
            // Were all to have forgotten, they must not take each other for new.
            Phase::Asking(_) | Phase::CatchingUp { .. } => !self.has_forgotten,
        }
    }

    /// Takes an answer, and says what follows.
    pub(crate) fn answered(
        &mut self,
        from: (NodeId, Incarnation),
        answer: AdmissionAnswer,
        others: &BTreeSet<NodeId>,
    ) -> Verdict {
        let (from, incarnation) = from;
        if answer.incarnation == self.own && others.contains(&from) {
            match &mut self.phase {
                Phase::Asking(answers) => {
                    // It is asked again for newer rows. What it knew it may have forgotten.
                    let is_original =
                        answer.is_original && answers.get(&from).is_none_or(|(_, it)| it.is_original);
                    answers.insert(from, (incarnation, AdmissionAnswer { is_original, ..answer }));
                }
                Phase::CatchingUp { answers, has_more, .. } if !answers.contains_key(&from) => {
                    answers.insert(from, (incarnation, answer));
                    *has_more = true;
                }
                _ => {}
            }
        }
        self.verdict(others)
    }

    /// What follows from the answers so far.
    pub(crate) fn verdict(&mut self, others: &BTreeSet<NodeId>) -> Verdict {
        let answers = match &self.phase {
            Phase::Asking(answers) => answers,
            Phase::CatchingUp { answers, has_more: true, .. } => answers,
            _ => return Verdict::Wait,
        };
        if others.iter().any(|node| !answers.contains_key(node)) {
            return Verdict::Wait;
        }
        let is_begun = matches!(self.phase, Phase::CatchingUp { .. });
        if !is_begun && !self.has_forgotten && answers.values().all(|(_, answer)| answer.is_original) {
            return Verdict::Begin;
        }
        let mut terms = BTreeMap::new();
        for (group, term) in answers.values().flat_map(|(_, answer)| &answer.terms) {
            let newest = terms.entry(*group).or_insert(*term);
            *newest = (*term).max(*newest);
        }
        Verdict::CatchUp(terms)
    }

    /// The cluster begins with whoever answered: [`Admission::standing`] is to be recorded.
    pub(crate) fn begin(&mut self) {
        self.phase = Phase::Recording { lives: self.answered_lives(true), is_beginning: true };
    }

    /// The groups abstain; each has to pass a barrier of the round that begins.
    pub(crate) fn catch_up(&mut self, groups: BTreeSet<GroupId>) {
        self.round += 1;
        if let Phase::Asking(answers) | Phase::CatchingUp { answers, .. } = &mut self.phase {
            let answers = std::mem::take(answers);
            self.phase = Phase::CatchingUp { groups, answers, has_more: false };
        }
    }

    /// Which barriers count.
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// One more group to pass a barrier in; only while catching up. The meta group's barrier is passed after the maps it holds
    /// are known, so none is missed.
    pub(crate) fn catch_up_also(&mut self, group: GroupId) -> bool {
        match &mut self.phase {
            Phase::CatchingUp { groups, .. } => groups.insert(group),
            _ => false,
        }
    }

    /// The lives in which the others have answered, or have asked since.
    fn answered_lives(&self, is_beginning: bool) -> Lives {
        let (Phase::Asking(answers) | Phase::CatchingUp { answers, .. }) = &self.phase else {
            return Lives::new();
        };
        let life = |(node, (answered, _)): (&NodeId, &(Incarnation, AdmissionAnswer))| {
            let incarnation = self.asked.get(node).copied().unwrap_or(*answered);
            (*node, Life { incarnation, is_original: is_beginning && incarnation == *answered })
        };
        answers.iter().map(life).collect()
    }

    /// A group has passed its barrier. Returns whether all have: then [`Admission::standing`] is to be recorded.
    pub(crate) fn caught_up(&mut self, group: GroupId) -> bool {
        let Phase::CatchingUp { groups, .. } = &mut self.phase else { return false };
        groups.remove(&group);
        if !groups.is_empty() {
            return false;
        }
        let mut lives = self.answered_lives(false);
        for (node, incarnation) in &self.asked {
            lives.insert(*node, Life { incarnation: *incarnation, is_original: false });
        }
        self.phase = Phase::Recording { lives, is_beginning: false };
        true
    }

    /// What was to be recorded is durable. Returns whether this node takes part from now on.
    pub(crate) fn recorded(&mut self) -> bool {
        let Phase::Recording { lives, .. } = &mut self.phase else { return false };
        self.phase = Phase::Admitted(std::mem::take(lives));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others() -> BTreeSet<NodeId> {
        BTreeSet::from([NodeId(2), NodeId(3)])
    }

    fn answer(is_original: bool, term: u64) -> AdmissionAnswer {
        AdmissionAnswer {
            incarnation: Incarnation(10),
            is_original,
            terms: vec![(GroupId::FIRST, Term(term))],
            members: Vec::new(),
            as_of: RowsAsOf::default(),
        }
    }

    fn asking() -> Admission {
        Admission::new(Incarnation(10), Standing::New, false)
    }

    fn life(incarnation: u64, is_original: bool) -> Life {
        Life { incarnation: Incarnation(incarnation), is_original }
    }

    #[test]
    fn a_cluster_begins_when_all_members_are_new() {
        let mut admission = asking();
        assert_eq!(admission.unanswered(&others()), [NodeId(2), NodeId(3)]);
        assert_eq!(
            admission.answered((NodeId(2), Incarnation(20)), answer(true, 0), &others()),
            Verdict::Wait
        );
        assert_eq!(
            admission.answered((NodeId(9), Incarnation(90)), answer(true, 0), &others()),
            Verdict::Wait
        );
        assert_eq!(
            admission.answered((NodeId(3), Incarnation(30)), answer(true, 0), &others()),
            Verdict::Begin
        );
        assert_eq!(admission.standing(), Standing::New);
        admission.begin();
        let lives = Lives::from([(NodeId(2), life(20, true)), (NodeId(3), life(30, true))]);
        assert_eq!(admission.standing(), Standing::Admitted(lives));
        assert!(admission.is_mute() && !admission.is_admitted());
        assert!(admission.recorded() && admission.is_admitted() && !admission.is_mute());
        assert!(!admission.recorded());
        // A member that is still asking, and one that lost that directory.
        assert!(admission.is_original(NodeId(2), Incarnation(20)));
        assert!(!admission.is_original(NodeId(2), Incarnation(21)));
    }

    #[test]
    fn one_that_knows_better_makes_us_catch_up_at_the_newest_term() {
        let mut admission = asking();
        assert_eq!(
            admission.answered((NodeId(2), Incarnation(20)), answer(true, 7), &others()),
            Verdict::Wait
        );
        let terms = BTreeMap::from([(GroupId::FIRST, Term(7))]);
        let verdict = admission.answered((NodeId(3), Incarnation(30)), answer(false, 5), &others());
        assert_eq!(verdict, Verdict::CatchUp(terms));
        admission.catch_up(BTreeSet::from([GroupId::META, GroupId::FIRST]));
        assert!(!admission.is_mute());
        assert!(!admission.caught_up(GroupId::FIRST));
        assert!(!admission.caught_up(GroupId::FIRST));
        assert!(admission.caught_up(GroupId::META));
        let lives = Lives::from([(NodeId(2), life(20, false)), (NodeId(3), life(30, false))]);
        assert_eq!(admission.standing(), Standing::Admitted(lives));
        assert!(!admission.is_mute() && admission.recorded());
    }

    #[test]
    fn one_that_rows_name_later_is_asked_too_and_everything_is_caught_up_with_again() {
        let mut admission = asking();
        admission.answered((NodeId(2), Incarnation(20)), answer(false, 7), &others());
        admission.answered((NodeId(3), Incarnation(30)), answer(false, 5), &others());
        let groups = BTreeSet::from([GroupId::META]);
        admission.catch_up(groups.clone());
        let before = admission.round();
        let more = BTreeSet::from([NodeId(2), NodeId(4)]);
        assert_eq!(admission.unanswered(&more), [NodeId(4)]);
        assert_eq!(admission.answered((NodeId(2), Incarnation(20)), answer(false, 9), &more), Verdict::Wait);
        let verdict = admission.answered((NodeId(4), Incarnation(40)), answer(false, 8), &more);
        assert_eq!(verdict, Verdict::CatchUp(BTreeMap::from([(GroupId::FIRST, Term(8))])));
        admission.catch_up(groups);
        assert_ne!(admission.round(), before);
        assert_eq!(admission.verdict(&more), Verdict::Wait, "once");
        assert!(admission.caught_up(GroupId::META));
    }

    #[test]
    fn what_one_knew_counts_though_it_has_forgotten_it() {
        let mut admission = asking();
        admission.answered((NodeId(2), Incarnation(20)), answer(false, 7), &others());
        admission.answered((NodeId(2), Incarnation(21)), answer(true, 7), &others());
        let verdict = admission.answered((NodeId(3), Incarnation(30)), answer(true, 0), &others());
        assert!(matches!(verdict, Verdict::CatchUp(_)));
    }

    #[test]
    fn one_that_is_not_admitted_objects_to_nobody() {
        let mut admission = asking();
        assert!(admission.is_original(NodeId(2), Incarnation(20)));
        admission.answered((NodeId(2), Incarnation(20)), answer(false, 1), &others());
        admission.answered((NodeId(3), Incarnation(30)), answer(true, 1), &others());
        admission.catch_up(BTreeSet::from([GroupId::FIRST]));
        assert!(admission.is_original(NodeId(3), Incarnation(30)), "also when it has something itself");
    }

    #[test]
    fn an_answer_to_a_former_life_does_not_count() {
        let mut admission = asking();
        let late = AdmissionAnswer { incarnation: Incarnation(11), ..answer(true, 0) };
        admission.answered((NodeId(2), Incarnation(20)), late, &others());
        assert_eq!(admission.unanswered(&others()), [NodeId(2), NodeId(3)]);
    }

    #[test]
    fn messages_of_former_lives_are_void() {
        let lives = Lives::from([(NodeId(2), life(20, true))]);
        for (standing, is_admitted) in [(Standing::New, false), (Standing::Admitted(lives), true)] {
            let mut admission = Admission::new(Incarnation(10), standing, false);
            let first = admission.sender(NodeId(2), Incarnation(20), true);
            assert_eq!(first, if is_admitted { Sender::Known } else { Sender::Reborn });
            assert_eq!(admission.sender(NodeId(2), Incarnation(20), false), Sender::Known);
            assert_eq!(admission.sender(NodeId(2), Incarnation(21), false), Sender::Void, "it has not asked");
            assert_eq!(admission.sender(NodeId(2), Incarnation(21), true), Sender::Reborn);
            assert_eq!(admission.sender(NodeId(2), Incarnation(21), true), Sender::Known);
            assert_eq!(admission.sender(NodeId(2), Incarnation(20), true), Sender::Void, "late from before");
            assert_eq!(admission.sender(NodeId(2), Incarnation(20), false), Sender::Void);
            // Also after a restart.
            let mut admission = Admission::new(Incarnation(10), admission.standing(), false);
            let old = admission.sender(NodeId(2), Incarnation(20), false);
            assert_eq!(old, if is_admitted { Sender::Void } else { Sender::Known });
            assert!(!is_admitted || !admission.is_original(NodeId(2), Incarnation(21)));
        }
    }

    #[test]
    fn who_has_forgotten_begins_nothing_and_takes_nobody_for_new() {
        let forgotten = || Admission::new(Incarnation(10), Standing::New, true);
        assert!(!forgotten().is_original(NodeId(2), Incarnation(20)));
        // Also where the others have lost all that they knew.
        let mut admission = forgotten();
        admission.answered((NodeId(2), Incarnation(20)), answer(true, 0), &others());
        let verdict = admission.answered((NodeId(3), Incarnation(30)), answer(true, 0), &others());
        assert!(matches!(verdict, Verdict::CatchUp(_)));
    }

    #[test]
    fn a_node_alone_begins_at_once() {
        let mut admission = Admission::new(Incarnation(10), Standing::New, false);
        assert_eq!(admission.verdict(&BTreeSet::new()), Verdict::Begin);
    }
}
