//! What is kept on disk: one write-ahead log for all groups of a node, over a disk seam; and an ordered
//! store in memory with the crash semantics of a real one, for simulation and tests.
//!
//! * [`disk`]: the seam to files, and a disk in memory that loses and tears what was not synced.
//! * [`wal`]: the log.
//! * [`memory`]: the ordered store in memory.
//! * [`front`]: what was written lately, in memory in front of an ordered store.
//!
//! Nothing here knows what it stores.

pub mod disk;
pub mod front;
pub mod memory;
pub mod wal;
