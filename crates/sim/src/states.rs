//! States that must have been reached: what a run of many seeds was in, and what it never was in.
//!
//! Where the program names a state ([`quorate_types::probe`]) this thread counts it. After each seed [`States::add`] takes what was counted; the table
//! ([`table`]) says what each name means and how often it is to be expected.

pub mod table;

use quorate_types::probe;
use std::collections::BTreeMap;
use std::fmt;
use table::{Often, TABLE};

/// Which states a run of many seeds has to have reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Those that are found within the gate's seeds.
    Common,
    /// All that have a name.
    All,
}

/// What was reached in many seeds.
#[derive(Clone, Debug, Default)]
pub struct States {
    /// How often, and in how many seeds.
    reached: BTreeMap<&'static str, (u64, u64)>,
    seeds: u64,
}

impl States {
    /// Another seed has been run, in this thread.
    pub fn add(&mut self) {
        self.seeds += 1;
        for (name, times) in probe::take() {
            let reached = self.reached.entry(name).or_default();
            *reached = (reached.0 + times, reached.1 + 1);
        }
    }

    /// Those that were to be reached and never were.
    pub fn missing(&self, asked: Asked) -> Vec<&'static str> {
        let is_asked = |often: Often| asked == Asked::All || often == Often::Common;
        let rows = TABLE.iter().flat_map(|(_, rows)| rows.iter());
        let missing = rows.filter(|(name, often, _)| is_asked(*often) && !self.reached.contains_key(name));
        missing.map(|(name, ..)| *name).collect()
    }
}

impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} {:>7}  of {} seeds", "times", "seeds", self.seeds)?;
        for (section, rows) in TABLE {
            writeln!(f, "\n{section}")?;
            for (name, often, what) in *rows {
                let (times, seeds) = self.reached.get(name).copied().unwrap_or_default();
                let mark = if *often == Often::Common { ' ' } else { '*' };
                writeln!(f, "{times:>10} {seeds:>7} {mark}{name:<38} {what}")?;
            }
        }
        writeln!(f, "\n* is not to be expected within the gate's seeds.")
    }
}
