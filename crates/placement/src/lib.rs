//! Where things go in a cluster whose nodes have weights and zones. Pure functions: no clock, socket or random number; the
//! same input gives the same answer on every machine, in whatever order the nodes are named.
//!
//! * [`Ring`]: *where is this key?*, of any number of keys, without a table: consistent hashing with virtual nodes, several
//!   replicas on distinct nodes and zones, and, with [`Loads`], a bound on what a node gets.
//!
//! ```
//! use quorate_placement::{Node, NodeId, Ring};
//!
//! let nodes = [
//!     Node::new(NodeId(1)).in_zone("a"),
//!     Node::new(NodeId(2)).in_zone("a"),
//!     Node::new(NodeId(3)).in_zone("b").with_weight(2),
//! ];
//! let ring = Ring::new(&nodes, 64)?;
//! let replicas = ring.replicas(b"/users/ada", 2);
//! assert_eq!(replicas.len(), 2);
//! assert!(replicas.contains(&NodeId(3)), "one of the two is in zone b");
//! # Ok::<(), quorate_placement::PlacementError>(())
//! ```
//!
//! Weights are whole numbers, so that no answer hangs on how a machine rounds.

pub mod error;
pub mod loads;
pub mod node;
pub mod ring;

pub use error::PlacementError;
pub use loads::Loads;
pub use node::Node;
pub use quorate_types::NodeId;
pub use ring::Ring;

/// Most nodes of a ring.
pub const NODES_MAX: usize = 1_024;
/// Greatest weight of a node. With it all sums and products stay far below 64 bits.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Most virtual nodes of a ring in all, 16 bytes each.
pub const TOKENS_MAX: u64 = 1 << 22;
