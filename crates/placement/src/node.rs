//! Nodes as placement sees them: a name, a weight, a zone, and whether replicas may be there.

use crate::{NODES_MAX, NodeId, PlacementError, WEIGHT_MAX};
use std::collections::BTreeMap;

/// Something that can hold replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name; no two nodes have the same.
    pub id: NodeId,
    /// How much it should hold in proportion to others: 1 to [`WEIGHT_MAX`], in any unit that all share (cores, gigabytes).
    pub weight: u32,
    /// What fails together with it: a rack, a room, a site. A node without one is a zone of its own.
    pub zone: Option<String>,
}

impl Node {
    /// A node of weight 1 in a zone of its own.
    pub fn new(id: NodeId) -> Self {
        Self { id, weight: 1, zone: None }
    }

    /// The same node with this weight.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The same node in this zone.
    #[must_use]
    pub fn in_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }
}

/// Whether a node may hold replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It keeps what it has and gets its share.
    Active,
    /// It gives away what it has, and keeps a replica only while there is nobody else to hold it.
    Draining,
    /// It is lost with what it had. Leaving it out of the members says the same.
    Gone,
}

/// A node of a cluster that is planned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: Node,
    /// What may be placed there.
    pub standing: Standing,
}

impl From<Node> for Member {
    /// An active member.
    fn from(node: Node) -> Self {
        Self { node, standing: Standing::Active }
    }
}

/// Refuses nodes that make no sense together.
pub(crate) fn check<'a>(nodes: impl Iterator<Item = &'a Node>) -> Result<(), PlacementError> {
    let mut ids: Vec<NodeId> = Vec::new();
    for node in nodes {
        if node.weight == 0 || node.weight > WEIGHT_MAX {
            return Err(PlacementError::Weight { node: node.id, weight: node.weight });
        }
        ids.push(node.id);
    }
    if ids.len() > NODES_MAX {
        return Err(PlacementError::TooManyNodes(ids.len()));
    }
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(PlacementError::NodeTwice(pair[0])),
        None => Ok(()),
    }
}

/// Numbers the zones of `nodes` from 0, in an order that only the nodes' own ids and zones decide, and says each node's.
pub(crate) fn number_zones(nodes: &[Node]) -> (Vec<usize>, usize) {
    let mut numbers: BTreeMap<(Option<&str>, Option<NodeId>), usize> = BTreeMap::new();
    let key = |node: &Node| (node.zone.is_none()).then_some(node.id);
    for node in nodes {
        numbers.insert((node.zone.as_deref(), key(node)), 0);
    }
    for (number, slot) in numbers.values_mut().enumerate() {
        *slot = number;
    }
    let of = nodes.iter().map(|node| numbers[&(node.zone.as_deref(), key(node))]).collect();
    (of, numbers.len())
}
