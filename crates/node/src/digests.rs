//! What a replica has become at some entries, what others say that they had, and what follows.

use quorate_consensus::Configuration;
use quorate_types::{GroupId, Index, NodeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Checkpoints kept: what is applied between two messages, of all but the busiest groups.
const CHECKPOINTS_MAX: usize = 256;
/// Entries of others remembered until this replica gets there.
const AHEAD_MAX: usize = 16;

/// What a replica of a group was after an entry.
pub(crate) type Told = (GroupId, (Index, u64));

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// All that is known is the same, or it was said before that it is not.
    Nothing,
    /// A quorum has become something else than this replica.
    Wrong,
    /// They differ, and no quorum agrees on either.
    Doubtful,
}

/// What is known of one group's digests.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    /// Own ones, oldest first.
    checkpoints: VecDeque<(Index, u64)>,
    /// The last that was told, so that nothing is said twice of a group in which nothing happens.
    told: Option<(Index, u64)>,
    /// What others said, by entry.
    heard: BTreeMap<Index, BTreeMap<NodeId, u64>>,
    is_wrong: bool,
    is_log_wrong: bool,
    /// It was said that they differ.
    is_doubted: bool,
}

impl Digests {
    /// Of a replica that gives its state up because it was wrong.
    pub(crate) fn of_wrong_log() -> Self {
        Self { is_log_wrong: true, ..Self::default() }
    }

    /// The log was of a state that was given up, and goes with it.
    pub(crate) fn is_log_wrong(&self) -> bool {
        self.is_log_wrong
    }

    /// What others are to be told, given what this replica is now; nothing if they were, unless it is to be repeated.
    pub(crate) fn tell(&mut self, now: (Index, u64), is_repeated: bool) -> BTreeSet<(Index, u64)> {
        if self.told.replace(now) == Some(now) && !is_repeated {
            return BTreeSet::new();
        }
        self.checkpoints.back().copied().into_iter().chain([now]).collect()
    }

    /// This replica will be asked what it was at this entry.
    pub(crate) fn keep(&mut self, index: Index, digest: u64) {
        if self.checkpoints.len() == CHECKPOINTS_MAX {
            self.checkpoints.pop_front();
        }
        self.checkpoints.push_back((index, digest));
    }

    /// Whether others have said what they were there.
    pub(crate) fn is_awaited(&self, index: Index) -> bool {
        self.heard.contains_key(&index)
    }

    /// Another replica was that.
    pub(crate) fn hear(&mut self, from: NodeId, (index, digest): (Index, u64), applied: Index) {
        // What lies behind and was no checkpoint is not remembered.
        if index < applied && !self.checkpoints.iter().any(|(at, _)| *at == index) {
            return;
        }
        self.heard.entry(index).or_default().insert(from, digest);
        while self.heard.len() > AHEAD_MAX {
            self.heard.pop_first();
        }
    }

    /// Compares what is known of an entry.
    pub(crate) fn judge(
        &mut self,
        own_id: NodeId,
        index: Index,
        now: (Index, u64),
        configuration: &Configuration,
    ) -> Judgement {
        let known = std::iter::once(&now).chain(&self.checkpoints).find(|(at, _)| *at == index);
        let (Some((_, own)), Some(heard)) = (known, self.heard.get(&index)) else {
            return Judgement::Nothing;
        };
        let agreed = |digest: u64| {
            configuration.agreed(|voter| {
                if voter == own_id { *own == digest } else { heard.get(&voter) == Some(&digest) }
            })
        };
        let mut others = heard.values().copied().filter(|digest| digest != own).peekable();
        if others.peek().is_none() || self.is_wrong || agreed(*own) {
            return Judgement::Nothing;
        }
        if others.any(agreed) {
            self.is_wrong = true;
            return Judgement::Wrong;
        }
        if std::mem::replace(&mut self.is_doubted, true) { Judgement::Nothing } else { Judgement::Doubtful }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Index = Index(7);

    /// What the first of three replicas makes of what the others say.
    fn judged(own: u64, others: &[(u64, u64)]) -> Vec<Judgement> {
        let configuration = Configuration::new(vec![NodeId(1), NodeId(2), NodeId(3)], vec![NodeId(4)]);
        let mut digests = Digests::default();
        let judge = |(from, digest): &(u64, u64)| {
            digests.hear(NodeId(*from), (AT, *digest), AT);
            digests.judge(NodeId(1), AT, (AT, own), &configuration)
        };
        others.iter().map(judge).collect()
    }

    #[test]
    fn who_differs_from_a_quorum_is_wrong() {
        use Judgement::{Doubtful, Nothing, Wrong};
        assert_eq!(judged(1, &[(2, 1), (3, 1)]), [Nothing, Nothing]);
        // One other says nothing of who is right. It is said once.
        assert_eq!(judged(1, &[(2, 9), (3, 9)]), [Doubtful, Wrong]);
        assert_eq!(judged(1, &[(2, 9), (3, 1)]), [Doubtful, Nothing]);
        assert_eq!(judged(1, &[(2, 8), (3, 9), (2, 8)]), [Doubtful, Nothing, Nothing]);
        // A learner is no voice, but may be wrong itself.
        assert_eq!(judged(1, &[(4, 9), (2, 1), (3, 1)]), [Doubtful, Nothing, Nothing]);
        assert_eq!(judged(1, &[(2, 9), (3, 9), (3, 9)]), [Doubtful, Wrong, Nothing]);
    }

    #[test]
    fn what_was_passed_is_compared_at_checkpoints_and_what_is_ahead_later() {
        let configuration = Configuration::new(vec![NodeId(1), NodeId(2), NodeId(3)], Vec::new());
        let mut digests = Digests::default();
        digests.keep(Index(4), 1);
        for (index, digest) in [(Index(4), 2), (Index(5), 2), (Index(9), 2)] {
            digests.hear(NodeId(2), (index, digest), Index(6));
            digests.hear(NodeId(3), (index, digest), Index(6));
        }
        assert!(!digests.is_awaited(Index(5)) && digests.is_awaited(Index(9)));
        assert_eq!(digests.judge(NodeId(1), Index(4), (Index(6), 3), &configuration), Judgement::Wrong);
        assert_eq!(digests.judge(NodeId(1), Index(9), (Index(9), 2), &configuration), Judgement::Nothing);
    }

    #[test]
    fn nothing_is_told_twice() {
        let mut digests = Digests::default();
        digests.keep(Index(4), 1);
        assert_eq!(digests.tell((Index(5), 2), false), BTreeSet::from([(Index(4), 1), (Index(5), 2)]));
        assert!(digests.tell((Index(5), 2), false).is_empty());
        assert_eq!(digests.tell((Index(5), 2), true).len(), 2, "it may have been lost");
        assert_eq!(digests.tell((Index(6), 3), false).len(), 2);
    }
}
