//! Who takes part in a group, and what a quorum of them is (thesis, 4).
//!
//! Voters are replaced by joint consensus (thesis, 4.3): between the old voters and the new stands a configuration of both, in which
//! whatever needs a quorum needs one of the old *and* one of the new. Learners are sent the log and count for nothing.
//!
//! Invariants, which [`Configuration::is_valid`] states: somebody votes; each list ascends; nobody is both a voter to be and a learner.
//! Who was a voter and will be a learner is in `outgoing` and in `learners`: it counts until the joint configuration is left.

use quorate_types::{Decode, Entry, EntryKind, NodeId, wire_struct};
use std::collections::BTreeSet;

/// The members of a group. A log's newest one is in effect as soon as it is appended, not when it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Those who vote; while joint, those who will.
    pub voters: Vec<NodeId>,
    /// While joint, those who voted before; otherwise empty.
    pub outgoing: Vec<NodeId>,
    /// Those who are sent the log without counting.
    pub learners: Vec<NodeId>,
}

wire_struct!(Configuration { voters, outgoing, learners });

impl Configuration {
    /// Voters, and nobody else; in any order.
    pub fn of_voters(voters: Vec<NodeId>) -> Self {
        Self::new(voters, Vec::new())
    }

    /// Voters and learners, in any order.
    pub fn new(mut voters: Vec<NodeId>, mut learners: Vec<NodeId>) -> Self {
        voters.sort_unstable();
        learners.sort_unstable();
        Self { voters, outgoing: Vec::new(), learners }
    }

    /// What an entry of kind [`EntryKind::Config`] says; `None` if that cannot be.
    pub fn from_entry(entry: &Entry) -> Option<Self> {
        assert_eq!(entry.kind, EntryKind::Config, "entry {} changes no members", entry.position());
        Self::from_bytes(entry.data.clone()).ok().filter(Self::is_valid)
    }

    /// Whether a group can consist of these.
    pub fn is_valid(&self) -> bool {
        let lists = [&self.voters, &self.outgoing, &self.learners];
        !self.voters.is_empty()
            && lists.iter().all(|list| list.is_sorted_by(|a, b| a < b))
            && !self.learners.iter().any(|learner| self.voters.contains(learner))
    }

    /// Whether it needs a quorum of two sets of voters.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether this one counts, in either set.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether this one takes part.
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Whether nobody else votes.
    pub fn is_alone(&self, id: NodeId) -> bool {
        self.voters == [id] && !self.is_joint()
    }

    /// All who take part.
    pub fn members(&self) -> BTreeSet<NodeId> {
        [&self.voters, &self.outgoing, &self.learners].into_iter().flatten().copied().collect()
    }

    /// The highest value that a quorum has reached, while joint a quorum of each set. Of truth values: whether it is true of a quorum.
    pub fn agreed<T: Ord>(&self, of: impl Fn(NodeId) -> T) -> T {
        let among = |voters: &[NodeId]| {
            // They are few, and this is asked for each entry and read: looked at again rather than gathered in a list.
            let quorum = voters.len() / 2 + 1;
            let reached_by = |value: &T| voters.iter().filter(|voter| of(**voter) >= *value).count();
            let values = voters.iter().map(|voter| of(*voter));
            values.filter(|value| reached_by(value) >= quorum).max().expect("there are voters")
        };
        let agreed = among(&self.voters);
        if self.is_joint() { agreed.min(among(&self.outgoing)) } else { agreed }
    }

    /// The step from here to the voters and learners of `target`: that itself where the voters stay; what is joint of both where they
    /// do not.
    pub fn towards(&self, target: Self) -> Self {
        assert!(!self.is_joint() && !target.is_joint(), "from {self:?} to {target:?}");
        let outgoing = if self.voters == target.voters { Vec::new() } else { self.voters.clone() };
        Self { outgoing, ..target }
    }

    /// What follows a joint configuration.
    pub fn left(&self) -> Self {
        Self { outgoing: Vec::new(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Encode;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// Quorums by their definition: more than half, of each set that is not empty.
    fn is_quorum(configuration: &Configuration, of: &[NodeId]) -> bool {
        [&configuration.voters, &configuration.outgoing].into_iter().all(|voters| {
            voters.is_empty() || voters.iter().filter(|voter| of.contains(voter)).count() * 2 > voters.len()
        })
    }

    fn subsets() -> impl Iterator<Item = Vec<NodeId>> {
        (0..1u64 << 5).map(|bits| (0..5).filter(|at| bits >> at & 1 == 1).map(NodeId).collect())
    }

    #[test]
    fn a_quorum_is_more_than_half_of_both_sets() {
        for voters in subsets().filter(|voters| !voters.is_empty()) {
            for outgoing in subsets() {
                let configuration =
                    Configuration { voters: voters.clone(), outgoing: outgoing.clone(), learners: ids(&[9]) };
                for of in subsets() {
                    let expected = is_quorum(&configuration, &of);
                    assert_eq!(configuration.agreed(|voter| of.contains(&voter)), expected);
                }
            }
        }
    }

    #[test]
    fn quorums_of_two_successive_configurations_meet() {
        for old in subsets().filter(|voters| !voters.is_empty()) {
            for new in subsets().filter(|voters| !voters.is_empty()) {
                let from = Configuration::of_voters(old.clone());
                let step = from.towards(Configuration::of_voters(new));
                for (a, b) in [(&from, &step), (&step, &step.left())] {
                    for one in subsets().filter(|of| is_quorum(a, of)) {
                        let rest: Vec<NodeId> = (0..5).map(NodeId).filter(|id| !one.contains(id)).collect();
                        assert!(!is_quorum(b, &rest), "{a:?} and {b:?}: {one:?} and {rest:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_value_agreed_is_the_lower_of_both_sets() {
        let configuration =
            Configuration { voters: ids(&[1, 2, 3]), outgoing: ids(&[3, 4, 5]), learners: ids(&[9]) };
        assert_eq!(configuration.agreed(|id| id.0), 2);
        assert_eq!(configuration.left().agreed(|id| 10 - id.0), 8);
        assert_eq!(Configuration::of_voters(ids(&[1, 2, 3, 4])).agreed(|id| id.0), 2);
    }

    #[test]
    fn what_cannot_be_is_not_valid_and_what_can_be_survives_its_form() {
        let good = Configuration { voters: ids(&[1, 2]), outgoing: ids(&[2, 3]), learners: ids(&[3]) };
        assert!(good.is_valid());
        assert_eq!(Configuration::from_bytes(good.encoded()).unwrap(), good);
        assert!(!Configuration { voters: Vec::new(), ..good.clone() }.is_valid());
        assert!(!Configuration { voters: ids(&[1, 1]), ..good.clone() }.is_valid());
        assert!(!Configuration { learners: ids(&[2]), ..good }.is_valid());
    }
}
