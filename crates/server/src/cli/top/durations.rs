//! How long requests took: the counts of a histogram, and what they say.

use serde::Serialize;

/// How many took at most so many seconds, for rising bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Durations(Vec<(f64, u64)>);

/// Requests of a time, in short.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Pace {
    pub(super) per_second: f64,
    /// Half of them took at most so many milliseconds,
    pub(super) p50_millis: f64,
    /// and 99 of 100. Both are estimates between the histogram's bounds.
    pub(super) p99_millis: f64,
}

impl Durations {
    /// The next bound and its count.
    pub(super) fn push(&mut self, bound: f64, count: u64) {
        self.0.push((bound, count));
    }

    /// Those that were counted since `before`; all of them if the process was started anew.
    pub(super) fn since(&self, before: &Self) -> Self {
        let is_later = self.0.len() == before.0.len()
            && self.0.iter().zip(&before.0).all(|((_, now), (_, was))| now >= was);
        if !is_later {
            return self.clone();
        }
        Self(self.0.iter().zip(&before.0).map(|((bound, now), (_, was))| (*bound, now - was)).collect())
    }

    /// With others of the same bounds.
    pub(super) fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        self.0.iter_mut().zip(&other.0).for_each(|((_, count), (_, more))| *count += more);
    }

    /// What they come to in so many seconds; `None` where there are none.
    pub(super) fn pace(&self, seconds: f64) -> Option<Pace> {
        let count = self.0.last().map_or(0, |(_, count)| *count);
        (count > 0).then(|| Pace {
            per_second: count as f64 / seconds,
            p50_millis: self.within(0.5) * 1_000.0,
            p99_millis: self.within(0.99) * 1_000.0,
        })
    }

    /// So many seconds did this share of them take at most.
    fn within(&self, share: f64) -> f64 {
        let wanted = self.0.last().map_or(0, |(_, count)| *count) as f64 * share;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            let count = *count as f64;
            if count >= wanted && count > below {
                // The last bound is infinite: what is known is that they took longer than the one before.
                let width = if bound.is_finite() { bound - lower } else { 0.0 };
                return lower + width * (wanted - below) / (count - below);
            }
            (lower, below) = (*bound, count);
        }
        lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: [u64; 3]) -> Durations {
        Durations([0.001, 0.002, f64::INFINITY].into_iter().zip(counts).collect())
    }

    #[test]
    fn a_share_is_found_between_two_bounds() {
        let pace = |durations: Durations| {
            durations.pace(2.0).map(|pace| (pace.per_second, pace.p50_millis, pace.p99_millis))
        };
        assert_eq!(pace(counts([100, 100, 100])), Some((50.0, 0.5, 0.99)));
        assert_eq!(pace(counts([0, 100, 100])), Some((50.0, 1.5, 1.99)));
        // Longer than the last bound is all that is known.
        assert_eq!(pace(counts([50, 50, 100])), Some((50.0, 1.0, 2.0)));
        assert_eq!(pace(counts([0, 0, 0])), None);
        assert_eq!(pace(Durations::default()), None);
    }

    #[test]
    fn only_those_since_the_look_before_count() {
        assert_eq!(counts([5, 7, 9]).since(&counts([5, 6, 6])), counts([0, 1, 3]));
        // Started anew.
        assert_eq!(counts([1, 2, 3]).since(&counts([5, 6, 6])), counts([1, 2, 3]));
        assert_eq!(counts([1, 2, 3]).since(&Durations::default()), counts([1, 2, 3]));
        let mut sum = Durations::default();
        sum.add(&counts([1, 2, 3]));
        sum.add(&counts([1, 1, 1]));
        assert_eq!(sum, counts([2, 3, 4]));
    }
}
