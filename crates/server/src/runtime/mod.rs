//! The shell around [`quorate_node::Host`]: threads, channels, sockets, the real clock. It decides nothing.
//!
//! ```text
//! gRPC tasks ── Gateway ──▶ worker task (Host) ────▶ log thread (append, one fdatasync) ──┐
//!      ▲                      ▲  │  │  │                                                │
//!      └──── replies ─────────┘  │  │  └──▶ flush thread (ordered store)                 │
//!                                │  └─────▶ watch thread (Watches) ──▶ watch streams     │
//!  peers ◀──── transport ◀───────┘  ▲────────────────── persisted ───────────────────────┘
//! ```
//!
//! * [`worker`]: owns the host; everything it does is a reaction to an [`worker::Input`].
//! * [`inbox`]: where those wait for it.
//! * [`threads`]: how many the tasks have; with one of them nothing but the disk's work is handed from thread to thread.
//! * [`log_thread`]: group commit: whatever queued up while the disk was busy shares the next fdatasync.
//! * [`scrub`]: reads all that is stored, in search of damage.
//! * [`snapshot_threads`]: read and write the rows of snapshots.
//! * [`watch_thread`]: feeds the watch hub, so that a slow watcher's catching up never holds up the worker.
//! * [`transport`]: one connection to each peer, one from each.
//! * [`frames`]: what goes over those.
//! * [`calls`]: gRPC from node to node, over connections of its own.
//! * [`gateway`]: what gRPC services call.
//! * [`keyspaces`]: what clients are told of each keyspace.
//! * [`standing`]: how things stand on this node.
//! * [`complaint`]: lines of the log that would be too many.
//! * [`connections`]: the client port, below gRPC: accepting, HTTP/1, bounds.
//! * [`http2`]: a connection of a gRPC client, and the calls on it.

pub mod calls;
pub mod complaint;
pub mod connections;
pub(crate) mod frames;
pub mod gateway;
pub mod hello;
mod http2;
pub mod inbox;
pub mod keyspaces;
pub mod log_thread;
pub mod removal;
pub mod scrub;
pub mod snapshot_threads;
pub mod standing;
pub mod threads;
pub mod transport;
pub mod watch_thread;
pub mod worker;
