//! How likely it is that a node that is silent is gone: the phi accrual failure detector.
//!
//! One for each other node. It remembers how long that node was silent in between before, and takes such silences for normally distributed.
//! *Phi* says how surprising the present silence is: at 1, one in ten live nodes would be silent so long; at 2, one in a hundred; at 8, one in
//! a hundred million. What is done at which phi is for who asks: what is cheap to take back is done early, what is dear is done late.
//! A limit in ticks would be too short for a node behind a bad line and too long for one next door.
//!
//! ```
//! use quorate_node::detector::{Detector, Phi};
//! use quorate_types::Tick;
//!
//! let mut detector = Detector::new(Tick(0), 5);
//! (1..=100).for_each(|beat| detector.heard(Tick(beat * 5)));
//! assert!(!detector.is_suspect(Tick(510), Phi::whole(8)), "one heartbeat is missing");
//! assert!(detector.is_suspect(Tick(525), Phi::whole(8)), "five are");
//! ```
//!
//! **Samples.** Anything that is heard shows that the node lives. A sample is the longest silence in a period of at least one heartbeat's time,
//! and never shorter than that: a node that has much to say for a while does not promise to go on so. The last [`WINDOW`] samples count. A
//! silence that was longer than [`AWAY`] heartbeats is none: the node was away, and is as fast as before.
//!
//! **Phi** is `-log10(1 - F(silence))`, with the logistic approximation of the normal distribution that Akka uses: for
//! `y = (silence - mean) / deviation` and `x = y (1.5976 + 0.070566 y^2)` it is `log10(1 + e^x)`, which is `0.434294 x + log10(1 + e^-x)`. The last term
//! is looked up between whole halves of `x` (off by less than 0.004). All is counted in thousandths, with whole numbers: the
//! same on every machine.
//!
//! Phi after so many ticks of silence, heartbeats every 5 ticks (100 ms), deviation at least [`DEVIATION_TICKS_MIN`]:
//!
//! | heartbeats | 5 | 10 | 15 | 20 | 25 | 30 | 50 | 100 |
//! |---|---|---|---|---|---|---|---|---|
//! | regular | 0.3 | 1.3 | 3.4 | 7.3 | 13.7 | 23.5 | 113.8 | 995.1 |
//! | up to 5 ticks late | 0.2 | 0.9 | 2.7 | 5.9 | 11.5 | 20.2 | 103.6 | 949.8 |
//! | a tenth is lost | 0.3 | 1.2 | 3.2 | 6.8 | 13.0 | 22.4 | 110.5 | 980.5 |
//! | a third is lost | 0.1 | 0.5 | 1.3 | 2.4 | 4.2 | 6.8 | 29.8 | 256.4 |
//! | none heard yet | 0.1 | 0.3 | 0.8 | 1.6 | 2.9 | 4.7 | 21.2 | 191.2 |
//!
//! Invariants:
//! * Phi does not fall while nothing is heard.
//! * It is near 0 when something is heard, whatever was before.
//! * Time in which this process itself did not run is no silence ([`Detector::slept`]).
//! * A detector takes less than a kilobyte.
//!
//! From: Hayashibara, Défago, Yared, Katayama, "The phi accrual failure detector" (2004); Akka's `PhiAccrualFailureDetector` (approximation, least
//! deviation, acceptable pause, first estimate); Cassandra's `FailureDetector` (long intervals are left out; threshold 8).
//!
//! Caveats: it tells nothing of a node that is heard and works wrongly, nor of the way back. Silences come in ticks, so a tick must be a good deal
//! shorter than a heartbeat. A normal distribution has thin tails: where pauses come rarely and are long, as when a host swaps, phi is
//! higher than it should be, and who must not be wrong says what pause is nothing unusual ([`Detector::phi_beyond`]).

use quorate_types::Tick;
use std::collections::VecDeque;
use std::fmt;

/// Samples that count. Two hundred heartbeats are 20 seconds.
pub const WINDOW: usize = 200;
/// Silences of more heartbeats than this are no samples.
pub const AWAY: u64 = 16;
/// Silences scatter at least so much, however regular they were: a pause of a few ticks can always be.
pub const DEVIATION_TICKS_MIN: u64 = 3;
/// Beyond so many deviations phi grows no more; it is above 10,000,000 there.
const DEVIATIONS_MAX: i128 = 1_000;

/// How surprising a silence is: the logarithm of how rare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Phi {
    milli: u64,
}

impl Phi {
    /// A whole number: one in ten to the power of it.
    pub const fn whole(phi: u64) -> Self {
        Self { milli: phi * 1_000 }
    }

    /// Thousandths of it.
    pub const fn milli(self) -> u64 {
        self.milli
    }
}

impl fmt::Display for Phi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.milli + 50) / 100;
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

/// What is known of one other node.
#[derive(Clone, Debug)]
pub struct Detector {
    heartbeat_ticks: u64,
    /// When it was heard last, or when silence began to count.
    heard: Tick,
    /// When the period began that the next sample is of, and its longest silence so far.
    period: Tick,
    longest: u64,
    /// Oldest first, at most [`WINDOW`].
    samples: VecDeque<u16>,
    sum: u64,
    /// Of the samples' squares.
    squares: u64,
}

impl Detector {
    /// Of a node that is to be heard every so many ticks from now on. Nothing else is known of it, so one or two heartbeats that are
    /// missing at first say little.
    pub fn new(now: Tick, heartbeat_ticks: u64) -> Self {
        assert!((1..=1_000).contains(&heartbeat_ticks), "a heartbeat each {heartbeat_ticks} ticks");
        let samples = VecDeque::with_capacity(WINDOW);
        let mut detector =
            Self { heartbeat_ticks, heard: now, period: now, longest: 0, samples, sum: 0, squares: 0 };
        detector.sample(heartbeat_ticks);
        detector.sample(3 * heartbeat_ticks);
        detector
    }

    /// Something of it arrived. Of several in one tick the first counts.
    pub fn heard(&mut self, now: Tick) {
        self.longest = self.longest.max(self.silence(now));
        self.heard = self.heard.max(now);
        if now.since(self.period) < self.heartbeat_ticks {
            return;
        }
        if self.longest <= AWAY * self.heartbeat_ticks {
            self.sample(self.longest.max(self.heartbeat_ticks));
        }
        self.period = now;
        self.longest = 0;
    }

    /// This process did not run for some time. Nobody can tell who was silent meanwhile, so silence begins anew.
    pub fn slept(&mut self, now: Tick) {
        self.heard = self.heard.max(now);
        self.period = self.heard;
        self.longest = 0;
    }

    /// How many ticks nothing has been heard.
    pub fn silence(&self, now: Tick) -> u64 {
        now.since(self.heard)
    }

    /// How surprising that is.
    pub fn phi(&self, now: Tick) -> Phi {
        self.phi_beyond(now, 0)
    }

    /// How surprising it is where a pause of so many ticks on top is nothing unusual.
    pub fn phi_beyond(&self, now: Tick, pause_ticks: u64) -> Phi {
        let count = self.samples.len() as u64;
        let mean_milli = self.sum * 1_000 / count;
        // n x (sum of squares) - (sum)^2, over n^2, is the variance; the first is never less than the second.
        let spread = (count * self.squares - self.sum * self.sum) * 1_000_000;
        let deviation_milli = (spread.isqrt() / count).max(DEVIATION_TICKS_MIN * 1_000);
        let over_milli =
            i128::from(self.silence(now)) * 1_000 - i128::from(mean_milli) - i128::from(pause_ticks) * 1_000;
        let deviations_milli = over_milli * 1_000 / i128::from(deviation_milli);
        phi(deviations_milli.clamp(-DEVIATIONS_MAX * 1_000, DEVIATIONS_MAX * 1_000))
    }

    /// Whether that is as surprising as the threshold.
    pub fn is_suspect(&self, now: Tick, threshold: Phi) -> bool {
        self.phi(now) >= threshold
    }

    fn sample(&mut self, silence: u64) {
        // At most AWAY x 1,000, or three of the first.
        let sample = u16::try_from(silence).unwrap_or(u16::MAX);
        if self.samples.len() == WINDOW
            && let Some(oldest) = self.samples.pop_front().map(u64::from)
        {
            self.sum -= oldest;
            self.squares -= oldest * oldest;
        }
        self.samples.push_back(sample);
        let sample = u64::from(sample);
        self.sum += sample;
        self.squares += sample * sample;
    }
}

/// `1,000 log10(1 + e^-x)` for `x` = 0, 1/2, 1 and so on; then it is 0.
const TAIL: [u64; 17] = [301, 206, 136, 87, 55, 34, 21, 13, 8, 5, 3, 2, 1, 1, 0, 0, 0];

/// Phi at so many thousandths of a deviation above the mean.
fn phi(deviations_milli: i128) -> Phi {
    let y = deviations_milli;
    let x = (1_597_600 * y + 70_566 * (y * y * y) / 1_000_000) / 1_000_000;
    let (half, between) = (x.unsigned_abs() / 500, (x.unsigned_abs() % 500) as u64);
    let tail = match usize::try_from(half).ok().and_then(|half| TAIL.get(half..half + 2)) {
        Some(around) => (around[0] * (500 - between) + around[1] * between) / 500,
        None => 0,
    };
    let line = if x > 0 { x.unsigned_abs() * 434_294 / 1_000_000 } else { 0 };
    Phi { milli: u64::try_from(line).unwrap_or(u64::MAX).saturating_add(tail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: u64 = 5;
    /// The shortest election timeout.
    const ELECTION: u64 = 25;
    const THRESHOLD: Phi = Phi::whole(8);
    /// What Akka takes for nothing unusual, 3 s.
    const PAUSE: u64 = 150;

    /// A generator of numbers that are random enough to lose messages by.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    /// A node that was heard for a while by heartbeats of which some come late and some never, and when the last one came.
    fn heard(beats: u64, late_ticks_max: u64, lost_per_mille: u64, seed: u64) -> (Detector, Tick) {
        let mut random = Random(seed);
        let mut detector = Detector::new(Tick(0), HEARTBEAT);
        let mut last = Tick(0);
        for beat in 1..=beats {
            let arrives = Tick(beat * HEARTBEAT + random.below(late_ticks_max + 1));
            if random.below(1_000) >= lost_per_mille {
                detector.heard(arrives);
                last = last.max(arrives);
            }
        }
        (detector, last)
    }

    /// How long it has to be silent to be suspected.
    fn suspected_after(detector: &Detector, last: Tick, pause: u64) -> u64 {
        (0..100_000).find(|silence| detector.phi_beyond(last.after(*silence), pause) >= THRESHOLD).unwrap()
    }

    #[test]
    fn phi_is_the_logarithm_of_the_approximated_tail() {
        for milli in -8_000..8_000 {
            let y = f64::from(milli) / 1_000.0;
            let x = y * (1.5976 + 0.070566 * y * y);
            let exact = (1.0 + x.exp()).log10();
            let found = phi(i128::from(milli)).milli() as f64 / 1_000.0;
            assert!((found - exact).abs() < 0.006, "{y} deviations: {found}, {exact}");
        }
        // The normal distribution's own tails; further out the approximation is some parts in a hundred above them.
        for (deviations, exact) in [(0, 0.301), (1, 0.800), (2, 1.643), (3, 2.870)] {
            let found = phi(deviations * 1_000).milli() as f64 / 1_000.0;
            assert!((found - exact).abs() < 0.1, "{deviations} deviations: {found}, {exact}");
        }
        assert!(phi(DEVIATIONS_MAX * 1_000) > Phi::whole(10_000_000));
    }

    #[test]
    fn the_table_of_the_page_is_what_is_computed() {
        let row = |name: &str, (detector, last): (Detector, Tick)| {
            let silences =
                [5, 10, 15, 20, 25, 30, 50, 100].map(|silence| detector.phi(last.after(silence)).to_string());
            format!("//! | {name} | {} |\n", silences.join(" | "))
        };
        let rows = [
            row("regular", heard(1_000, 0, 0, 1)),
            row("up to 5 ticks late", heard(1_000, 5, 0, 1)),
            row("a tenth is lost", heard(1_000, 0, 100, 1)),
            row("a third is lost", heard(1_000, 0, 333, 1)),
            row("none heard yet", (Detector::new(Tick(0), HEARTBEAT), Tick(0))),
        ]
        .concat();
        assert!(include_str!("detector.rs").contains(&rows), "the page has to say\n{rows}");
    }

    #[test]
    fn a_dead_node_is_suspected_within_an_election_timeout_where_lines_are_good() {
        for seed in 0..100 {
            for (late, lost) in [(0, 0), (1, 0), (2, 0), (0, 20), (0, 100)] {
                let (detector, last) = heard(1_000, late, lost, seed);
                let after = suspected_after(&detector, last, 0);
                assert!(after <= ELECTION, "{late} late, {lost} lost: after {after} ticks");
                assert!(after > 3 * HEARTBEAT, "two heartbeats that are missing are not enough");
            }
        }
    }

    #[test]
    fn who_must_not_be_wrong_is_not_by_a_pause_of_a_second() {
        let second = 50;
        for seed in 0..100 {
            let (detector, last) = heard(1_000, 0, 100, seed);
            // With heartbeats lost before and after it.
            let silence = last.after(second + 3 * HEARTBEAT);
            assert!(
                detector.phi_beyond(silence, PAUSE) < Phi::whole(1),
                "{}",
                detector.phi_beyond(silence, PAUSE)
            );
            assert!(suspected_after(&detector, last, PAUSE) < PAUSE + 2 * ELECTION);
        }
    }

    #[test]
    fn a_bad_line_is_given_more_time() {
        let good = heard(1_000, 1, 0, 3);
        let bad = heard(1_000, 40, 300, 3);
        let (good, bad) = (suspected_after(&good.0, good.1, 0), suspected_after(&bad.0, bad.1, 0));
        assert!(bad > 2 * good, "good after {good}, bad after {bad}");
    }

    #[test]
    fn much_to_say_for_a_while_promises_nothing() {
        let (mut detector, last) = heard(1_000, 0, 0, 1);
        let expected = suspected_after(&detector, last, 0);
        (1..2_000).for_each(|tick| (0..3).for_each(|_| detector.heard(last.after(tick))));
        assert_eq!(suspected_after(&detector, last.after(1_999), 0), expected);
    }

    #[test]
    fn who_was_away_is_as_fast_as_before_when_it_is_back() {
        let (mut detector, last) = heard(1_000, 0, 0, 1);
        let expected = suspected_after(&detector, last, 0);
        let back = last.after(1_000_000);
        assert!(detector.is_suspect(back, Phi::whole(10_000_000)));
        detector.heard(back);
        assert!(!detector.is_suspect(back.after(HEARTBEAT), Phi::whole(1)));
        assert_eq!(suspected_after(&detector, back, 0), expected);
    }

    #[test]
    fn own_pauses_are_nobodys_silence() {
        let (mut detector, last) = heard(1_000, 0, 0, 1);
        let expected = suspected_after(&detector, last, 0);
        let woken = last.after(70);
        assert!(detector.is_suspect(woken, THRESHOLD));
        detector.slept(woken);
        assert_eq!((detector.silence(woken), suspected_after(&detector, woken, 0)), (0, expected));
        // Nor are they samples.
        detector.heard(woken.after(HEARTBEAT));
        assert_eq!(suspected_after(&detector, woken.after(HEARTBEAT), 0), expected);
    }

    #[test]
    fn phi_only_grows_in_silence_and_little_is_remembered() {
        for (late, lost) in [(0, 0), (9, 0), (30, 500)] {
            let (detector, last) = heard(5_000, late, lost, 7);
            let phis: Vec<Phi> = (0..10_000).map(|silence| detector.phi(last.after(silence))).collect();
            assert!(phis.is_sorted());
            assert!(phis[0] < Phi::whole(1), "{}", phis[0]);
            assert_eq!(detector.samples.len(), WINDOW);
            assert!(detector.samples.capacity() * 2 + size_of::<Detector>() < 1_024);
        }
    }

    #[test]
    fn time_that_runs_back_is_not_silence() {
        let mut detector = Detector::new(Tick(100), HEARTBEAT);
        detector.heard(Tick(50));
        detector.heard(Tick(105));
        assert_eq!((detector.silence(Tick(90)), detector.silence(Tick(110))), (0, 5));
    }
}
