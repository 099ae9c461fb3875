//! The one source of chance of a run.

/// Seeded random numbers.
#[derive(Clone, Debug)]
pub struct Random(quorate_consensus::random::Random);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(quorate_consensus::random::Random::new(seed))
    }

    /// Below `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.between(0, end)
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }
}
