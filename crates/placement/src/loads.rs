//! Consistent hashing with bounded loads: no node gets more than a given part above its share.
//!
//! A key goes to the first nodes on the ring that are not full. A node is full at
//! `ceil((1 + slack) x everything placed x its part of the weight)`, so the bound grows with what is placed, and
//! there is always room: all bounds together are at least what is placed.
//!
//! Invariant: a node is above its bound only because replicas of a key must be on distinct nodes and too few others had room,
//! or because what was placed has since been released.
//!
//! From: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018).
//!
//! Caveats: where a key is now depends on what was placed before, so the owner remembers it; a zone is passed over when all its
//! nodes are full.

use crate::{NodeId, Ring};

/// What was placed on a ring's nodes so far, and how much more than its share a node may get.
///
/// ```
/// use quorate_placement::{Loads, Node, NodeId, Ring};
///
/// let nodes: Vec<Node> = (1..=4).map(|id| Node::new(NodeId(id))).collect();
/// let ring = Ring::new(&nodes, 16)?;
/// let mut loads = Loads::new(&ring, 100); // at most 10 % above its share
/// for key in 0..400_u32 {
///     let at = loads.place(&key.to_be_bytes(), 1);
///     assert_eq!(at.len(), 1);
/// }
/// assert!((1..=4).all(|id| loads.of(NodeId(id)) <= 110));
/// # Ok::<(), quorate_placement::PlacementError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loads<'a> {
    ring: &'a Ring,
    slack_per_mille: u32,
    /// Replicas on each node, in the order of the ring's nodes.
    held: Vec<u64>,
    total: u64,
    weight: u64,
}

impl<'a> Loads<'a> {
    /// Nothing placed yet on `ring`; a node may hold `slack_per_mille` thousandths more than its share.
    pub fn new(ring: &'a Ring, slack_per_mille: u32) -> Self {
        let weight = ring.nodes().iter().map(|node| u64::from(node.weight)).sum();
        Self { ring, slack_per_mille, held: vec![0; ring.nodes().len()], total: 0, weight }
    }

    /// Places `count` replicas of `key` on distinct nodes, and zones as far as they have room; all nodes if there are fewer.
    pub fn place(&mut self, key: &[u8], count: usize) -> Vec<NodeId> {
        let count = count.min(self.held.len());
        let total = self.total + count as u64;
        let mut chosen = self.ring.choose(key, count, |at| self.held[at] < self.bound(at, total));
        if chosen.len() < count {
            // Distinct nodes before the bound: two replicas on one node are one.
            let rest = self.ring.choose(key, count - chosen.len(), |at| !chosen.contains(&at));
            chosen.extend(rest);
        }
        self.total = total;
        chosen.iter().for_each(|&at| self.held[at] += 1);
        chosen.into_iter().map(|at| self.ring.nodes()[at].id).collect()
    }

    /// Takes a replica off `node`; says whether it had one.
    pub fn release(&mut self, node: NodeId) -> bool {
        let Some(at) = self.position(node).filter(|&at| self.held[at] > 0) else { return false };
        self.held[at] -= 1;
        self.total -= 1;
        true
    }

    /// How many replicas `node` has.
    pub fn of(&self, node: NodeId) -> u64 {
        self.position(node).map_or(0, |at| self.held[at])
    }

    fn position(&self, node: NodeId) -> Option<usize> {
        self.ring.nodes().binary_search_by_key(&node, |node| node.id).ok()
    }

    /// What a node may hold of `total` replicas.
    fn bound(&self, at: usize, total: u64) -> u64 {
        let share = u128::from(total) * u128::from(self.ring.nodes()[at].weight);
        let bound = share * (1_000 + u128::from(self.slack_per_mille));
        bound.div_ceil(1_000 * u128::from(self.weight)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Node;

    #[test]
    fn no_node_is_above_its_bound_after_any_key() {
        let nodes: Vec<Node> =
            (1..=9).map(|id| Node::new(NodeId(id)).with_weight(1 + id as u32 % 3)).collect();
        let ring = Ring::new(&nodes, 4).unwrap();
        for slack in [10, 50, 250] {
            let mut loads = Loads::new(&ring, slack);
            for key in 0..3_000_u32 {
                loads.place(&key.to_be_bytes(), 1);
                for (at, node) in nodes.iter().enumerate() {
                    assert!(loads.of(node.id) <= loads.bound(at, loads.total), "{:?} after {key}", node.id);
                }
            }
            assert_eq!(nodes.iter().map(|node| loads.of(node.id)).sum::<u64>(), 3_000);
        }
    }

    #[test]
    fn replicas_stay_distinct_where_the_bound_leaves_no_room() {
        let nodes = [Node::new(NodeId(1)).with_weight(100), Node::new(NodeId(2)), Node::new(NodeId(3))];
        let ring = Ring::new(&nodes, 4).unwrap();
        let mut loads = Loads::new(&ring, 0);
        for key in 0..100_u32 {
            let mut placed = loads.place(&key.to_be_bytes(), 3);
            placed.sort_unstable();
            assert_eq!(placed, [NodeId(1), NodeId(2), NodeId(3)]);
        }
    }

    #[test]
    fn what_is_released_makes_room() {
        let nodes = [Node::new(NodeId(1)), Node::new(NodeId(2))];
        let ring = Ring::new(&nodes, 8).unwrap();
        let mut loads = Loads::new(&ring, 0);
        let first = loads.place(b"a", 1)[0];
        assert!(loads.release(first));
        assert!(!loads.release(first));
        assert!(!loads.release(NodeId(9)));
        assert_eq!(loads.place(b"a", 1), [first]);
    }
}
