//! The revisioned key space: every version of every key under the moment that made it.
//!
//! A partition writes rows through [`layout`] and reads them through [`reader::KeySpace`]; this crate
//! knows how history is laid out in an ordered store, not who writes it or why. The partitions that a node has of a keyspace
//! share its rows; which of them a row belongs to is told by its slot.
//!
//! * [`engine`]: the seam to the ordered store.
//! * [`layout`]: the rows, to the byte, and the checksum every one of them carries.
//! * [`reader`]: a key, or a range of keys, as of a revision; the change feed.
//! * [`compact`]: giving back the space of history that may be forgotten, in small steps.
//! * [`hash`]: one number for the whole history, to compare replicas by.
//! * [`sizes`]: how much history is in which slots.
//!
//! Invariants:
//! * A row is written once and later only removed: what a key was at a revision never changes.
//! * Versions and change rows of one revision and partition are written in one batch, and are there whole or not.
//! * Whatever compaction removes is of no consequence to a read at the compacted revision or later.

pub mod compact;
pub mod engine;
pub mod hash;
pub mod layout;
pub mod reader;
pub mod sizes;

pub use compact::{Compactor, SWEEP_PART};
pub use reader::{KeySpace, Page, Pairs};
pub use sizes::Size;
