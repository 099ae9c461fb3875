//! Values that no store can make smaller: what takes room in one takes room in the other.

use crate::random::Random;
use bytes::Bytes;
use std::sync::OnceLock;

/// Values are cut out of so much that looks random. Two of them seldom overlap.
const POOL_BYTES: usize = 8 << 20;

static POOL: OnceLock<Bytes> = OnceLock::new();

/// A value; nothing is copied. Longer ones than the pool are as long as that.
pub(crate) fn value(random: &mut Random, bytes: usize) -> Bytes {
    let pool = POOL.get_or_init(|| {
        let mut random = Random::new(0);
        (0..POOL_BYTES / 8).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect()
    });
    let bytes = bytes.min(pool.len());
    let from = random.below((pool.len() - bytes + 1) as u64) as usize;
    pool.slice(from..from + bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_long_as_asked_for_and_differ() {
        let mut random = Random::new(7);
        let (one, other) = (value(&mut random, 256), value(&mut random, 256));
        assert_eq!((one.len(), other.len()), (256, 256));
        assert_ne!(one, other);
        assert_eq!(value(&mut random, POOL_BYTES).len(), POOL_BYTES);
        assert!(value(&mut random, 0).is_empty());
    }
}
