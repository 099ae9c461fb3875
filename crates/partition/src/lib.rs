//! partition

pub mod watch;
