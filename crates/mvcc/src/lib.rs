//! The revisioned key space.

pub mod engine;
