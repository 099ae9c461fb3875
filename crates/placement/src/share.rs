//! Fair shares by filling with water: everybody gets the same for each unit of weight, except who cannot hold so much.
//!
//! Shares follow one *level*, replicas for each unit of weight. A node whose cap lies below the level has its cap; a zone that
//! would have less or more than it must or may has that instead, and its nodes a level of their own. What is left is the
//! most even division there is: nobody can have less for its weight without somebody else, who has as much, having more.
//!
//! Levels are fractions and compared as such; the sums stay below 2^64 times a weight, so 128 bits hold every product.

use std::cmp::Ordering;

/// A number of replicas, or of replicas for a unit of weight, as a fraction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) over: u128,
    pub(crate) under: u128,
}

impl Share {
    const ZERO: Self = Self { over: 0, under: 1 };

    /// The whole part.
    pub(crate) fn floor(self) -> u64 {
        (self.over / self.under) as u64
    }

    /// Whether there is more than the whole part.
    pub(crate) fn has_rest(self) -> bool {
        !self.over.is_multiple_of(self.under)
    }

    fn compare(self, other: Self) -> Ordering {
        (self.over * other.under).cmp(&(other.over * self.under))
    }
}

/// What takes part in a division: a weight, and the most it can have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taker {
    pub(crate) weight: u64,
    pub(crate) cap: u64,
}

impl Taker {
    /// The level at which it is full.
    fn full_at(self) -> Share {
        Share { over: self.cap.into(), under: self.weight.into() }
    }

    /// What it has at `level`, times the fraction's lower part.
    fn at(self, level: Share) -> u128 {
        (u128::from(self.weight) * level.over).min(u128::from(self.cap) * level.under)
    }
}

/// Takers that together have at least `low` and at most `high`.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    pub(crate) takers: Vec<Taker>,
    pub(crate) low: u64,
    pub(crate) high: u64,
}

impl Zone {
    /// The level at which the takers have `target` together, which is no more than their caps.
    fn level_of(&self, target: u64) -> Share {
        let mut by_fullness = self.takers.clone();
        by_fullness.sort_by(|a, b| a.full_at().compare(b.full_at()));
        let mut weight: u64 = by_fullness.iter().map(|taker| taker.weight).sum();
        let mut rest = target;
        let mut level = Share::ZERO;
        for taker in by_fullness {
            level = Share { over: rest.into(), under: weight.into() };
            if taker.full_at().compare(level) == Ordering::Greater {
                return level;
            }
            level = taker.full_at();
            rest -= taker.cap;
            weight -= taker.weight;
        }
        assert_eq!(rest, 0, "zone is to hold more than its nodes can");
        level
    }

    /// What the takers have at `level`, within the zone's bounds and times the fraction's lower part.
    fn at(&self, level: Share) -> u128 {
        let sum: u128 = self.takers.iter().map(|taker| taker.at(level)).sum();
        sum.clamp(u128::from(self.low) * level.under, u128::from(self.high) * level.under)
    }
}

/// The shares of each zone's takers in `total`, which is between the sums of the zones' bounds.
pub(crate) fn divide(zones: &[Zone], total: u64) -> Vec<Vec<Share>> {
    let bounds: Vec<(Share, Share)> =
        zones.iter().map(|zone| (zone.level_of(zone.low), zone.level_of(zone.high))).collect();
    // Between two of these levels, the whole grows in proportion to the level.
    let mut levels = vec![Share::ZERO];
    levels.extend(bounds.iter().flat_map(|&(low, high)| [low, high]));
    levels.extend(zones.iter().flat_map(|zone| &zone.takers).map(|taker| taker.full_at()));
    levels.sort_by(|a, b| a.compare(*b));
    let reached = levels.partition_point(|&level| {
        zones.iter().map(|zone| zone.at(level)).sum::<u128>() <= u128::from(total) * level.under
    });
    let below = levels[reached.checked_sub(1).expect("total is no less than the zones' lower bounds")];

    // Just above `below`: who has a fixed number, and the weight of those that follow the level.
    let mut fixed = 0;
    let mut weight = 0;
    for (zone, &(low, high)) in zones.iter().zip(&bounds) {
        if below.compare(low) == Ordering::Less {
            fixed += zone.low;
        } else if below.compare(high) != Ordering::Less {
            fixed += zone.high;
        } else {
            for taker in &zone.takers {
                match taker.full_at().compare(below) {
                    Ordering::Greater => weight += taker.weight,
                    _ => fixed += taker.cap,
                }
            }
        }
    }
    let level = match weight {
        0 => below,
        _ => Share { over: u128::from(total - fixed), under: weight.into() },
    };
    let shares = zones.iter().zip(bounds).map(|(zone, (low, high))| {
        let level = [(low, Ordering::Less), (high, Ordering::Greater)]
            .into_iter()
            .find(|(bound, side)| level.compare(*bound) == *side)
            .map_or(level, |(bound, _)| bound);
        zone.takers.iter().map(|taker| Share { over: taker.at(level), under: level.under }).collect()
    });
    shares.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(weights: &[u64], cap: u64, low: u64, high: u64) -> Zone {
        Zone { takers: weights.iter().map(|&weight| Taker { weight, cap }).collect(), low, high }
    }

    fn check(zones: &[Zone], total: u64, expected: &[(u128, u128)]) {
        let shares: Vec<Share> = divide(zones, total).concat();
        assert_eq!(shares.len(), expected.len());
        for (share, &(over, under)) in shares.iter().zip(expected) {
            assert_eq!(share.compare(Share { over, under }), Ordering::Equal, "{shares:?} for {expected:?}");
        }
    }

    #[test]
    fn shares_follow_weights_up_to_the_caps() {
        check(&[zone(&[1, 1, 1], 100, 0, 300)], 256, &[(256, 3); 3]);
        check(&[zone(&[1, 2, 4], 100, 0, 300)], 70, &[(10, 1), (20, 1), (40, 1)]);
        check(&[zone(&[1, 2, 4], 100, 0, 300)], 240, &[(140, 3), (280, 3), (100, 1)]);
        check(&[zone(&[1, 1], 10, 0, 20)], 20, &[(10, 1); 2]);
        check(&[zone(&[7, 1], 10, 0, 20)], 0, &[(0, 1); 2]);
    }

    #[test]
    fn zones_keep_to_their_bounds() {
        // The heavy zone may have only 100, so the two others have more for their weight.
        let zones = [zone(&[5, 5], 100, 0, 100), zone(&[1], 100, 0, 100), zone(&[2, 1], 100, 0, 100)];
        check(&zones, 200, &[(50, 1), (50, 1), (25, 1), (50, 1), (25, 1)]);
        check(&zones, 300, &[(50, 1), (50, 1), (100, 1), (200, 3), (100, 3)]);
        // The light zone must have 100 of 400.
        let zones = [zone(&[1], 100, 100, 100), zone(&[10, 10], 200, 100, 400)];
        check(&zones, 400, &[(100, 1), (150, 1), (150, 1)]);
    }
}
