//! A file system for tests of what must survive a bad disk.
//!
//! It shows a backing directory and holds back what was not synced: the backing directory is what a power failure leaves. Calls can be made to fail, hang,
//! take long or cheat while it is in use, by rules ([`faults`]). What a sync promises is in [`volume`], what reaches the disk without one in
//! [`power`]. [`disk`] mounts it, through FUSE and without any program or library for that; [`control`] takes orders as lines of text.
//!
//! `docs/faultfs.md` says how it is used and what it does not do.

pub mod content;
pub mod control;
pub mod disk;
pub mod faults;
mod fuse;
mod names;
pub mod power;
pub mod random;
pub mod volume;
