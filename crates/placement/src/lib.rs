//! Where things go in a cluster whose nodes have weights and zones. Pure functions: no clock, socket or random number; the
//! same input gives the same answer on every machine, in whatever order the nodes are named.
//!
//! There are two answers, for two questions:
//!
//! * [`Ring`]: *where is this key?*, of any number of keys, without a table: consistent hashing with virtual nodes, several
//!   replicas on distinct nodes and zones, and, with [`Loads`], a bound on what a node gets.
//! * [`plan()`]: *which nodes hold these partitions?*, of up to [`PARTITIONS_MAX`] of them, with a table: balanced as well as
//!   whole replicas can be, and moving as few replicas as that allows. The ring only says who is asked first.
//!
//! A ring of 256 virtual nodes leaves the fullest of nine nodes 10 to 20 % above its share and the table less than 1 %, so what has a
//! table anyway should use the plan; `docs/placement.md` has the figures and the algorithm.
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
mod flow;
mod leaders;
pub mod loads;
pub mod node;
pub mod plan;
mod replicas;
pub mod ring;
mod share;
mod zones;

pub use error::PlacementError;
pub use loads::Loads;
pub use node::{Member, Node, Standing};
pub use plan::{Assignment, Balance, Load, Move, Plan, plan};
pub use quorate_types::NodeId;
pub use ring::Ring;

/// Most nodes of a ring or a plan. A plan's time grows with partitions x nodes.
pub const NODES_MAX: usize = 1_024;
/// Most partitions of a plan.
pub const PARTITIONS_MAX: usize = 1_024;
/// Most replicas of a partition; more voters than this only slow a quorum down.
pub const REPLICAS_MAX: usize = 15;
/// Greatest weight of a node. With it all sums and products of a plan stay far below 64 bits.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Most virtual nodes of a ring in all, 16 bytes each.
pub const TOKENS_MAX: u64 = 1 << 22;

/// Holds the examples of the README to what they say.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
