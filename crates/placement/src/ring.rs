//! Consistent hashing with virtual nodes, weights and zones.
//!
//! Every node stands at `tokens` x weight pseudo-random places of a circle of 64-bit numbers, its virtual nodes. A key belongs
//! to the nodes that are met first, clockwise from the key's hash. What a node holds therefore depends on its neighbours only:
//! one that joins takes keys and gives none, one that leaves gives its keys to many, and no other key moves.
//!
//! Invariants:
//! * Replicas of a key are on distinct nodes, and on as many zones as there are; beyond that zones share them evenly.
//! * The answer depends on the nodes' ids, weights and zones and on the key, not on the order in which nodes are named.
//! * A node's places do not depend on other nodes.
//!
//! From: Karger et al., "Consistent Hashing and Random Trees" (1997); virtual nodes: Stoica et al., "Chord" (2001), and
//! DeCandia et al., "Dynamo" (2007).
//!
//! Caveats: balance is that of random arcs. With `t` tokens a node the shares scatter by about `1 / sqrt(t)`, and few keys scatter
//! on top; zones of unequal weight cannot follow it when every key must be in each of them. [`Loads`](crate::Loads) bounds a
//! node's load for keys that are remembered, [`plan()`](crate::plan()) evens it out for few keys with a table.

use crate::node::{check, number_zones};
use crate::{Node, NodeId, PlacementError, TOKENS_MAX};
use twox_hash::XxHash3_64;

/// A hash ring over some nodes.
///
/// ```
/// use quorate_placement::{Node, NodeId, Ring};
///
/// let nodes: Vec<Node> = (1..=6).map(|id| Node::new(NodeId(id)).in_zone(["a", "b", "c"][id as usize % 3])).collect();
/// let ring = Ring::new(&nodes, 128)?;
/// let before = ring.replicas(b"key", 3);
///
/// // Nodes that do not hold the key may leave: nothing changes for it.
/// let fewer: Vec<Node> = nodes.iter().filter(|node| before.contains(&node.id)).cloned().collect();
/// assert_eq!(Ring::new(&fewer, 128)?.replicas(b"key", 3), before);
/// # Ok::<(), quorate_placement::PlacementError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ring {
    /// By id.
    nodes: Vec<Node>,
    /// The number of each node's zone.
    zone_of: Vec<usize>,
    zones: usize,
    /// Place and node of every virtual node, by place.
    tokens: Vec<(u64, u32)>,
}

impl Ring {
    /// A ring on which each node has `tokens` virtual nodes for each unit of its weight.
    ///
    /// # Errors
    ///
    /// Refuses an empty ring, senseless nodes, and more than [`TOKENS_MAX`] virtual nodes.
    pub fn new(nodes: &[Node], tokens: u32) -> Result<Self, PlacementError> {
        check(nodes.iter())?;
        if nodes.is_empty() {
            return Err(PlacementError::NoNodes);
        }
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable_by_key(|node| node.id);
        let count = nodes.iter().map(|node| u64::from(node.weight)).sum::<u64>() * u64::from(tokens);
        if count == 0 || count > TOKENS_MAX {
            return Err(PlacementError::Tokens(count));
        }
        let (zone_of, zones) = number_zones(&nodes);
        let mut places = Vec::with_capacity(count as usize);
        for (at, node) in nodes.iter().enumerate() {
            for token in 0..u64::from(node.weight) * u64::from(tokens) {
                places.push((place(node.id, token), at as u32));
            }
        }
        // Two virtual nodes at one place are told apart by their nodes' ids, which is the order of the nodes.
        places.sort_unstable();
        Ok(Self { nodes, zone_of, zones, tokens: places })
    }

    /// The ring's nodes, by id.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How many zones there are; a node without one counts as one.
    pub fn zones(&self) -> usize {
        self.zones
    }

    /// The number of each node's zone, in the order of [`nodes`](Self::nodes).
    pub(crate) fn zone_of(&self) -> &[usize] {
        &self.zone_of
    }

    /// How many virtual nodes there are.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The node that `key` belongs to.
    pub fn node(&self, key: &[u8]) -> NodeId {
        self.nodes[self.tokens[self.first(key)].1 as usize].id
    }

    /// Where `count` replicas of `key` go, the key's own node first; all nodes if there are fewer.
    pub fn replicas(&self, key: &[u8], count: usize) -> Vec<NodeId> {
        self.choose(key, count, |_| true).into_iter().map(|at| self.nodes[at].id).collect()
    }

    /// All nodes in the order in which `key` meets them.
    pub fn order(&self, key: &[u8]) -> impl Iterator<Item = &Node> {
        self.walk(key).map(|at| &self.nodes[at])
    }

    /// Up to `count` of the nodes that `admits` lets in, by position in [`nodes`](Self::nodes), over as many zones as it can.
    pub(crate) fn choose(&self, key: &[u8], count: usize, admits: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut chosen = Vec::new();
        let mut of_zone = vec![0_usize; self.zones];
        let mut passed_over = Vec::new();
        let mut walk = self.walk(key).filter(|at| admits(*at));
        while chosen.len() < count.min(self.zones) {
            let Some(at) = walk.next() else { break };
            if of_zone[self.zone_of[at]] == 0 {
                of_zone[self.zone_of[at]] = 1;
                chosen.push(at);
            } else {
                passed_over.push(at);
            }
        }
        if chosen.len() < count {
            passed_over.extend(walk);
        }
        let mut depth = 2;
        while chosen.len() < count && !passed_over.is_empty() {
            passed_over.retain(|&at| {
                let takes = chosen.len() < count && of_zone[self.zone_of[at]] < depth;
                if takes {
                    of_zone[self.zone_of[at]] += 1;
                    chosen.push(at);
                }
                !takes
            });
            depth += 1;
        }
        chosen
    }

    /// Positions of all nodes in the order in which `key` meets them.
    pub(crate) fn walk(&self, key: &[u8]) -> impl Iterator<Item = usize> {
        let first = self.first(key);
        let mut seen = vec![false; self.nodes.len()];
        let places = self.tokens[first..].iter().chain(&self.tokens[..first]);
        places
            .map(|&(_, at)| at as usize)
            .filter(move |&at| !std::mem::replace(&mut seen[at], true))
            .take(self.nodes.len())
    }

    /// The virtual node that `key` meets first.
    fn first(&self, key: &[u8]) -> usize {
        let hash = XxHash3_64::oneshot(key);
        self.tokens.partition_point(|&(place, _)| place < hash) % self.tokens.len()
    }
}

/// Where a virtual node stands: version 1 of it, held by a golden test, for a program of another version must see the same ring.
fn place(node: NodeId, token: u64) -> u64 {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&node.0.to_be_bytes());
    name[8..].copy_from_slice(&token.to_be_bytes());
    XxHash3_64::oneshot(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn cluster(count: u64, zones: u64) -> Vec<Node> {
        (1..=count).map(|id| Node::new(NodeId(id)).in_zone(format!("z{}", id % zones))).collect()
    }

    fn keys() -> impl Iterator<Item = [u8; 4]> {
        (0..2_000_u32).map(u32::to_be_bytes)
    }

    #[test]
    fn replicas_are_on_distinct_nodes_and_zones_share_them_evenly() {
        for (nodes, zones, count) in [(9, 3, 3), (9, 3, 5), (9, 2, 3), (7, 1, 3), (4, 4, 7), (5, 3, 4)] {
            let nodes = cluster(nodes, zones);
            let ring = Ring::new(&nodes, 16).unwrap();
            for key in keys() {
                let replicas = ring.replicas(&key, count);
                assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), count.min(nodes.len()));
                assert_eq!(replicas[0], ring.node(&key));
                let mut of_zone = vec![0; zones as usize];
                replicas.iter().for_each(|id| of_zone[(id.0 % zones) as usize] += 1);
                let most = count.div_ceil(zones as usize);
                assert!(of_zone.iter().all(|&held| held <= most), "{of_zone:?} of {count} in {zones} zones");
            }
        }
    }

    #[test]
    fn a_node_that_joins_takes_keys_and_no_other_key_moves() {
        let before = Ring::new(&cluster(9, 3), 64).unwrap();
        let after = Ring::new(&cluster(10, 3), 64).unwrap();
        let mut moved = 0;
        for key in keys() {
            if before.node(&key) != after.node(&key) {
                assert_eq!(after.node(&key), NodeId(10));
                moved += 1;
            }
        }
        assert!((100..300).contains(&moved), "{moved} of 2,000 keys moved to one of ten nodes");
    }

    #[test]
    fn weights_draw_keys_in_proportion() {
        let nodes: Vec<Node> = (1..=3).map(|id| Node::new(NodeId(id)).with_weight(1 << (id - 1))).collect();
        let ring = Ring::new(&nodes, 256).unwrap();
        let heaviest = keys().filter(|key| ring.node(key) == NodeId(3)).count();
        assert!((1_000..1_280).contains(&heaviest), "{heaviest} of 2,000 keys; 4/7 are 1,143");
    }

    #[test]
    fn the_order_in_which_nodes_are_named_does_not_matter() {
        let mut nodes = cluster(9, 3);
        let ring = Ring::new(&nodes, 16).unwrap();
        nodes.reverse();
        let reversed = Ring::new(&nodes, 16).unwrap();
        assert!(keys().all(|key| ring.replicas(&key, 5) == reversed.replicas(&key, 5)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let node = |id| Node::new(NodeId(id));
        let check =
            |nodes: &[Node], tokens, expected| assert_eq!(Ring::new(nodes, tokens).err(), Some(expected));
        check(&[], 1, PlacementError::NoNodes);
        check(&[node(1)], 0, PlacementError::Tokens(0));
        check(&[node(1).with_weight(1_000_000)], 5, PlacementError::Tokens(5_000_000));
        check(&[node(1).with_weight(0)], 1, PlacementError::Weight { node: NodeId(1), weight: 0 });
        check(&[node(1), node(2), node(1)], 1, PlacementError::NodeTwice(NodeId(1)));
    }

    #[test]
    fn the_places_are_those_of_version_1() {
        let ring = Ring::new(&cluster(9, 3), 16).unwrap();
        let replicas: Vec<u64> = ring.replicas(b"/golden", 3).iter().map(|id| id.0).collect();
        assert_eq!((place(NodeId(1), 0), replicas), (3_448_420_582_392_008_907, vec![2, 9, 4]));
    }
}
