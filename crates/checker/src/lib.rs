//! What must hold of what clients of a key space were told, whoever they are: those of the simulation and those of real processes.
//!
//! * [`model`]: what a request comes to, evaluated without any of the program's code.
//! * [`order`]: real time.
//! * [`calls`] and [`strict`]: calls from outside, and strict serializability of what was answered.
//! * [`watches`]: ordered, unique, atomic, complete, also over many streams.
//! * [`leases`]: not before their time.
//!
//! Caveat: all of it believes in revisions. They say in which order writes took effect, so no search for an order is needed, as
//! there is in checkers of key spaces that do not say it (Wing and Gong 1993). What passes has an order that explains it; a program that
//! named wrong revisions and was right all the same would fail.

pub mod calls;
pub mod leases;
pub mod model;
pub mod order;
pub mod strict;
pub mod watches;

use quorate_types::{Event, Revision};
use std::collections::BTreeMap;
use std::fmt;

/// What each revision changed, in order of subs.
pub type History = BTreeMap<Revision, Vec<Event>>;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What.
    pub what: String,
    /// What contradicts each other, a line each.
    pub evidence: Vec<String>,
}

impl Violation {
    /// One with what shows it.
    pub fn new(what: impl Into<String>, evidence: Vec<String>) -> Self {
        Self { what: what.into(), evidence }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.evidence.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}
