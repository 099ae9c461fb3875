//! What a replica has become at some entries, what others say that they had, and what follows.

use quorate_consensus::Configuration;
use quorate_types::{GroupId, Index, NodeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Checkpoints kept: what is applied between two messages, of all but the busiest groups.
const CHECKPOINTS_MAX: usize = 256;
/// Entries of others remembered until this replica gets there.
const AHEAD_MAX: usize = 16;
/// None of them is further ahead than this.
const AHEAD_ENTRIES_MAX: u64 = 1 << 24;

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
    /// At this entry it was said that they differ.
    doubted: Option<Index>,
}

impl Digests {
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
        let is_past = index < applied && !self.checkpoints.iter().any(|(at, _)| *at == index);
        // And what nobody can be ahead by is made up.
        if is_past || index.0 > applied.0.saturating_add(AHEAD_ENTRIES_MAX) {
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
        let said = |voter: NodeId| if voter == own_id { Some(*own) } else { heard.get(&voter).copied() };
        let agreed = |digest: u64| configuration.agreed(|voter| said(voter) == Some(digest));
        // With those who have not said anything yet.
        let may_agree =
            |digest: u64| configuration.agreed(|voter| said(voter).is_none_or(|said| said == digest));
        if agreed(*own) {
            // What differed once differs from there on, unless it was replaced.
            self.doubted = self.doubted.filter(|doubted| *doubted >= index);
            return Judgement::Nothing;
        }
        let others: BTreeSet<u64> = heard.values().copied().filter(|digest| digest != own).collect();
        if others.is_empty() || self.is_wrong {
            return Judgement::Nothing;
        }
        if others.iter().copied().any(agreed) {
            self.is_wrong = true;
            return Judgement::Wrong;
        }
        let is_open = may_agree(*own) || others.into_iter().any(may_agree);
        if is_open || self.doubted.is_some() {
            return Judgement::Nothing;
        }
        self.doubted = Some(index);
        Judgement::Doubtful
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
        // One other says nothing of who is right.
        assert_eq!(judged(1, &[(2, 9), (3, 9)]), [Nothing, Wrong]);
        assert_eq!(judged(1, &[(2, 9), (3, 1)]), [Nothing, Nothing]);
        // When all have spoken nobody will be right. It is said once.
        assert_eq!(judged(1, &[(2, 8), (3, 9), (2, 8)]), [Nothing, Doubtful, Nothing]);
        // A learner is no voice, but may be wrong itself.
        assert_eq!(judged(1, &[(4, 9), (2, 1), (3, 1)]), [Nothing, Nothing, Nothing]);
        assert_eq!(judged(1, &[(2, 9), (3, 9), (3, 9)]), [Nothing, Wrong, Nothing]);
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
