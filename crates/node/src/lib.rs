//! One node: many consensus groups and the gateway in front of them, as one synchronous state machine.
//!
//! [`Host`] is told what happens (a tick, messages of peers, requests of clients, writes that became
//! durable) and asked with [`Host::take`] what to do. The server and the simulator are two shells around
//! it. It has no socket, clock, task or thread; its disk is the ordered store behind the
//! [`quorate_mvcc::engine::Engine`] seam, and the log is written by whoever carries out its effects.
//!
//! * [`host`]: the groups, and the loop that turns their effects into the node's.
//! * [`group`]: one replica: consensus, its partition, and what waits for either.
//! * [`router`]: key → slot → partition, by the maps of the keyspaces.
//! * [`sequencer`]: one order of revisions over the partitions of a keyspace.
//! * [`draws`]: drawing revisions from a sequencer on another node.
//! * [`transaction`]: transactions over partitions.
//! * [`peer`]: what nodes say to each other.
//! * [`errands`]: what of that is done beside the host.
//! * [`snapshots`]: serving snapshots to followers that fell behind, and fetching them.
//! * [`cluster`]: what a node is told of its cluster to begin with.
//! * [`administration`]: creating, listing and deleting keyspaces.
//! * [`cluster_orders`]: nodes that join and leave.
//! * [`admission`]: how a node with a new data directory comes to take part.
//! * [`placing`]: who shall hold which group.
//! * [`recovery`]: whether a group may go on with what is left of it.
//! * [`detector`]: how likely it is that a silent node is gone.
//! * `digests`: whether a replica has become what others have.
//! * [`spreading`]: who holds and leads what where there are more members than replicas.
//! * [`retention`]: when the store is flushed and the log cut.

pub mod administration;
pub mod admission;
pub mod cluster;
pub mod cluster_orders;
pub mod detector;
mod digests;
pub mod draws;
pub mod effects;
pub mod errands;
pub mod group;
pub mod host;
pub mod options;
mod pass;
pub mod peer;
pub mod placing;
pub mod recovery;
pub mod retention;
pub mod router;
pub mod sequencer;
pub mod snapshots;
mod sources;
pub mod spreading;
pub mod transaction;

pub use administration::{Administration, NewKeyspace, Order, Refused};
pub use admission::{Life, Lives, Standing};
pub use cluster::Cluster;
pub use cluster_orders::{ClusterOrder, ClusterOrders, Nodes, OrderRefused, OrderStep, Which};
pub use effects::{Effects, Grant, IfBehind, Notice, Reach, Ticket, WriteId};
pub use errands::{Done, Errand};
pub use group::GroupStatus;
pub use host::{HeldBack, Holding, Host, Queue};
pub use options::Options;
pub use peer::PeerMessage;
pub use router::{Router, Target};
