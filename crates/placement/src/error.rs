//! Why an input makes no sense.

use crate::{NODES_MAX, NodeId, PARTITIONS_MAX, REPLICAS_MAX, TOKENS_MAX, WEIGHT_MAX};
use std::fmt;

/// What was asked cannot be answered, whatever the cluster is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// There is no node that may hold anything.
    NoNodes,
    /// More than [`NODES_MAX`] nodes.
    TooManyNodes(usize),
    /// Two nodes have one id.
    NodeTwice(NodeId),
    /// A weight of 0, or above [`WEIGHT_MAX`]. A node that shall hold nothing is drained instead.
    Weight {
        /// Whose.
        node: NodeId,
        /// The weight.
        weight: u32,
    },
    /// A ring of no virtual nodes, or of more than [`TOKENS_MAX`].
    Tokens(u64),
    /// No partitions, or more than [`PARTITIONS_MAX`].
    Partitions(usize),
    /// No replicas, or more than [`REPLICAS_MAX`].
    Replicas(usize),
    /// The old table has more rows than there are partitions.
    OldTable {
        /// Rows of the old table.
        rows: usize,
        /// Partitions that were asked for.
        partitions: usize,
    },
    /// The old table names a node twice in one row.
    ReplicaTwice {
        /// The row.
        partition: usize,
        /// The node.
        node: NodeId,
    },
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNodes => write!(f, "there is no node that may hold replicas"),
            Self::TooManyNodes(count) => write!(f, "{count} nodes; at most {NODES_MAX} can be placed on"),
            Self::NodeTwice(node) => write!(f, "two nodes have the id {node}"),
            Self::Weight { node, weight } => {
                write!(f, "node {node} has weight {weight}; a weight is 1 to {WEIGHT_MAX}")
            }
            Self::Tokens(count) => {
                write!(
                    f,
                    "{count} virtual nodes in all; a ring has 1 to {TOKENS_MAX} (tokens x sum of weights)"
                )
            }
            Self::Partitions(count) => write!(f, "{count} partitions; there can be 1 to {PARTITIONS_MAX}"),
            Self::Replicas(count) => {
                write!(f, "{count} replicas of each partition; there can be 1 to {REPLICAS_MAX}")
            }
            Self::OldTable { rows, partitions } => {
                write!(f, "the old table has {rows} partitions, the new one only {partitions}")
            }
            Self::ReplicaTwice { partition, node } => {
                write!(f, "the old table has node {node} twice in partition {partition}")
            }
        }
    }
}

impl std::error::Error for PlacementError {}
