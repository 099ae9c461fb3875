//! What the tests of watches that change their hubs compare with.

/// Numbers that look random, the same for the same seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    pub(super) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// What happened, by revision from 1 on: keys.
pub(super) type History = Vec<Vec<u8>>;

/// Of a key, 0 for all of them, what a watch from a revision is to be told up to another.
pub(super) fn wanted(history: &History, key: u8, from: i64, through: i64) -> Vec<(i64, u8)> {
    let of = |at: i64| history.get(at as usize - 1).into_iter().flatten().map(move |key| (at, *key));
    (from.max(1)..=through).flat_map(of).filter(|(_, of)| key == 0 || *of == key).collect()
}
