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
//! Every directory draws an [`Incarnation`] when it is made, and every message is received with its sender's. One of a former
//! life that was still on its way is thus told apart and dropped.
//!
//! Invariants:
//! * A node that is not admitted votes for nobody.
//! * It is admitted only when [`Standing::Admitted`] is durable: with it, whom it met at the beginning.
//!
//! Caveats: a cluster begins when all its members have been up at once, and a node that lost its disk comes back when all others can
//! be reached. What a lost majority had acknowledged is lost.

use quorate_types::{GroupId, Incarnation, NodeId, Term, wire_struct};
use std::collections::{BTreeMap, BTreeSet};

/// Former lives remembered of one node; of one that loses its disk more often, the oldest are forgotten.
const FORMER_MAX: usize = 64;

/// What a data directory says of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is new, or its node is not done with asking.
    New,
    /// Its node takes part.
    Admitted {
        /// The directories of all members when the cluster began; empty for a node that came back later.
        originals: BTreeMap<NodeId, Incarnation>,
    },
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
}

wire_struct!(AdmissionAnswer { incarnation, is_original, terms });

/// How far a node has come.
#[derive(Debug)]
enum Phase {
    /// Has asked, and says nothing else. Who answered, in which of its lives, and what.
    Asking(BTreeMap<NodeId, (Incarnation, AdmissionAnswer)>),
    /// Follows, and waits for a barrier in each of these groups.
    CatchingUp(BTreeSet<GroupId>),
    /// The shell is making this durable.
    Recording(BTreeMap<NodeId, Incarnation>),
    Admitted(BTreeMap<NodeId, Incarnation>),
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
    phase: Phase,
    /// The lives of every node that asked us: the current one, and former ones, oldest first. Only in memory: what this process
    /// counts, votes and acknowledgements, it has counted since it began, and none of a term that a former life knew.
    asked: BTreeMap<NodeId, (Incarnation, Vec<Incarnation>)>,
}

impl Admission {
    pub(crate) fn new(own: Incarnation, standing: Standing) -> Self {
        let phase = match standing {
            Standing::New => Phase::Asking(BTreeMap::new()),
            Standing::Admitted { originals } => Phase::Admitted(originals),
        };
        Self { own, phase, asked: BTreeMap::new() }
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
            // Recording a beginning; who has caught up goes on following.
            Phase::Recording(originals) => !originals.is_empty(),
            Phase::CatchingUp(_) | Phase::Admitted(_) => false,
        }
    }

    /// Who of these has not answered yet.
    pub(crate) fn unanswered(&self, others: &BTreeSet<NodeId>) -> Vec<NodeId> {
        match &self.phase {
            Phase::Asking(answers) => {
                others.iter().copied().filter(|node| !answers.contains_key(node)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Looks at who sends; `asks` when the message is a node's question for admission.
    pub(crate) fn sender(&mut self, from: NodeId, incarnation: Incarnation, asks: bool) -> Sender {
        let Some((current, former)) = self.asked.get_mut(&from) else {
            if asks {
                self.asked.insert(from, (incarnation, Vec::new()));
            }
            return if asks { Sender::Reborn } else { Sender::Known };
        };
        if *current == incarnation {
            return Sender::Known;
        }
        if !asks || former.contains(&incarnation) {
            return Sender::Void;
        }
        if former.len() == FORMER_MAX {
            former.remove(0);
        }
        former.push(std::mem::replace(current, incarnation));
        Sender::Reborn
    }

    /// What we know of a node that asks; `is_empty` when none of our groups has ever held anything.
    pub(crate) fn is_original(&self, from: NodeId, incarnation: Incarnation, is_empty: bool) -> bool {
        match &self.phase {
            Phase::Recording(originals) | Phase::Admitted(originals) => {
                originals.get(&from) == Some(&incarnation)
            }
            Phase::Asking(_) | Phase::CatchingUp(_) => is_empty,
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
        if let Phase::Asking(answers) = &mut self.phase
            && answer.incarnation == self.own
            && others.contains(&from)
        {
            answers.insert(from, (incarnation, answer));
        }
        self.verdict(others)
    }

    /// What follows from the answers so far.
    pub(crate) fn verdict(&mut self, others: &BTreeSet<NodeId>) -> Verdict {
        let Phase::Asking(answers) = &self.phase else { return Verdict::Wait };
        if others.iter().any(|node| !answers.contains_key(node)) {
            return Verdict::Wait;
        }
        if answers.values().all(|(_, answer)| answer.is_original) {
            return Verdict::Begin;
        }
        let mut terms = BTreeMap::new();
        for (group, term) in answers.values().flat_map(|(_, answer)| &answer.terms) {
            let newest = terms.entry(*group).or_insert(*term);
            *newest = (*term).max(*newest);
        }
        Verdict::CatchUp(terms)
    }

    /// The cluster begins with `me` and whoever answered: to be recorded.
    pub(crate) fn begin(&mut self, me: NodeId) -> Standing {
        let mut originals: BTreeMap<NodeId, Incarnation> = match &self.phase {
            Phase::Asking(answers) => answers.iter().map(|(node, (life, _))| (*node, *life)).collect(),
            _ => BTreeMap::new(),
        };
        originals.insert(me, self.own);
        self.phase = Phase::Recording(originals.clone());
        Standing::Admitted { originals }
    }

    /// The groups abstain; each has to pass a barrier.
    pub(crate) fn catch_up(&mut self, groups: BTreeSet<GroupId>) {
        self.phase = Phase::CatchingUp(groups);
    }

    /// A group has passed its barrier. Once all have: what is to be recorded.
    pub(crate) fn caught_up(&mut self, group: GroupId) -> Option<Standing> {
        let Phase::CatchingUp(groups) = &mut self.phase else { return None };
        groups.remove(&group);
        if !groups.is_empty() {
            return None;
        }
        self.phase = Phase::Recording(BTreeMap::new());
        Some(Standing::Admitted { originals: BTreeMap::new() })
    }

    /// What was to be recorded is durable. Returns whether that is news.
    pub(crate) fn recorded(&mut self) -> bool {
        let Phase::Recording(originals) = &mut self.phase else { return false };
        self.phase = Phase::Admitted(std::mem::take(originals));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    fn others() -> BTreeSet<NodeId> {
        BTreeSet::from([NodeId(2), NodeId(3)])
    }

    fn answer(is_original: bool, term: u64) -> AdmissionAnswer {
        AdmissionAnswer {
            incarnation: Incarnation(10),
            is_original,
            terms: vec![(GroupId::FIRST, Term(term))],
        }
    }

    fn asking() -> Admission {
        Admission::new(Incarnation(10), Standing::New)
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
        let Standing::Admitted { originals } = admission.begin(ME) else { panic!("not admitted") };
        let expected = [(1, 10), (2, 20), (3, 30)].map(|(node, life)| (NodeId(node), Incarnation(life)));
        assert_eq!(originals, BTreeMap::from(expected));
        assert!(admission.is_mute() && !admission.is_admitted());
        assert!(admission.recorded() && admission.is_admitted() && !admission.is_mute());
        assert!(!admission.recorded());
        // A member that is still asking, and one that lost that directory.
        assert!(admission.is_original(NodeId(2), Incarnation(20), false));
        assert!(!admission.is_original(NodeId(2), Incarnation(21), true));
    }

    #[test]
    fn one_that_knows_better_makes_us_catch_up_at_the_newest_term() {
        let mut admission = asking();
        assert_eq!(
            admission.answered((NodeId(2), Incarnation(20)), answer(true, 7), &others()),
            Verdict::Wait
        );
        let terms = BTreeMap::from([(GroupId::FIRST, Term(7))]);
        assert_eq!(
            admission.answered((NodeId(3), Incarnation(30)), answer(false, 5), &others()),
            Verdict::CatchUp(terms)
        );
        admission.catch_up(BTreeSet::from([GroupId::META, GroupId::FIRST]));
        assert!(!admission.is_mute());
        assert_eq!(admission.caught_up(GroupId::FIRST), None);
        assert_eq!(admission.caught_up(GroupId::FIRST), None);
        let standing = admission.caught_up(GroupId::META);
        assert_eq!(standing, Some(Standing::Admitted { originals: BTreeMap::new() }));
        assert!(admission.recorded());
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
        let mut admission = asking();
        assert_eq!(admission.sender(NodeId(2), Incarnation(20), false), Sender::Known);
        assert_eq!(admission.sender(NodeId(2), Incarnation(20), true), Sender::Reborn, "it may have been");
        assert_eq!(admission.sender(NodeId(2), Incarnation(20), false), Sender::Known);
        assert_eq!(admission.sender(NodeId(2), Incarnation(21), false), Sender::Void, "it has not asked");
        assert_eq!(admission.sender(NodeId(2), Incarnation(21), true), Sender::Reborn);
        assert_eq!(admission.sender(NodeId(2), Incarnation(21), true), Sender::Known);
        assert_eq!(admission.sender(NodeId(2), Incarnation(20), true), Sender::Void, "late from before");
        assert_eq!(admission.sender(NodeId(2), Incarnation(20), false), Sender::Void);
    }

    #[test]
    fn a_node_alone_begins_at_once() {
        let mut admission = Admission::new(Incarnation(10), Standing::New);
        assert_eq!(admission.verdict(&BTreeSet::new()), Verdict::Begin);
    }
}
