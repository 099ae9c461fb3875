//! Random numbers from a seed, so that a power failure can be repeated.

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Random(quorate_consensus::random::Random);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(quorate_consensus::random::Random::new(seed))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0.draw()
    }

    /// One of `0..bound`, which must not be empty.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing to draw from");
        self.0.between(0, bound)
    }

    /// Yes in `part` of `whole` cases.
    pub fn is_one_in(&mut self, part: u64, whole: u64) -> bool {
        self.below(whole) < part
    }
}
