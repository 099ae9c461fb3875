//! Damaged and hostile bytes for everything that reads bytes it did not write: from other nodes, from the disk, from clients and operators.
//!
//! * [`targets`]: what is fuzzed, as a table; each is a function of bytes that panics when something is wrong.
//! * [`grow`]: good values of any type, out of chance.
//! * [`mutate`]: what becomes of good bytes.
//! * [`memory`]: what an execution allocates.
//! * [`execute`]: one execution, and what is wrong with it.
//! * [`campaign`]: many, from a seed.
//! * [`coverage`]: which ways through the code were taken.
//! * [`corpus`]: inputs that are kept in the repository, each the story of a bug.
//!
//! What must hold of every target: nothing panics or aborts, memory taken is bounded by the input and [`memory::SPARE_BYTES`], it ends within
//! [`execute::SECONDS_MAX`], and what was read has a form that reads as the same again.
//!
//! Everything follows from a seed, so that a failure is replayed by running the same again. `docs/fuzzing.md` says how, and what was found.
//!
//! Caveat: an ordinary build, and so the gate, does not see which ways an input takes through the code. What is deep behind several conditions that one mutation
//! alone does not meet is found there by seeds that go there; `crates/fuzz/covered` builds so that it is seen.

pub mod campaign;
pub mod corpus;
pub mod coverage;
pub mod execute;
pub mod grow;
pub mod memory;
pub mod mutate;
pub mod targets;

pub use targets::Target;
