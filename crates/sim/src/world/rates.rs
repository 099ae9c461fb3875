//! How often things go wrong in a run, and how much is asked.

use super::splits::Splits;
use crate::random::Random;

/// Five minutes.
pub(super) const PAUSE_TICKS_LONGEST: u64 = 15_000;

/// How bad this run's world is; drawn from the seed, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) loss: u64,
    pub(super) repeat: u64,
    pub(super) delay_ticks_max: u64,
    pub(super) cut: u64,
    pub(super) crash: u64,
    pub(super) disk_loss: u64,
    pub(super) sync_ticks_max: u64,
    pub(super) pause: u64,
    pub(super) pause_ticks_max: u64,
    pub(super) breaks: u64,
    pub(super) hand_over: u64,
    /// One group is handed over, in a keyspace of several partitions: leaderships scatter, the sequencer's goes from under a transaction.
    pub(super) scatter: u64,
    /// One group's messages to and from a node are lost for a while, and the others' are not: nodes differ about who is the
    /// sequencer while partitions go on, and votes are waited for while other participants get new leaders.
    pub(super) mute: u64,
    pub(super) calls: u64,
    /// The load stops for a while, so that groups fall asleep among the faults.
    pub(super) lull: u64,
}

impl Rates {
    /// Of a run over so many partitions.
    pub(super) fn draw(random: &mut Random, splits: &mut Splits, partitions: u32) -> Self {
        let mut rate = |max: u64| if random.chance(600) { random.below(max) } else { 0 };
        let rates = Self {
            loss: rate(300),
            repeat: rate(500),
            delay_ticks_max: 1 + rate(6),
            cut: rate(8),
            crash: rate(12),
            disk_loss: rate(6),
            sync_ticks_max: rate(30),
            pause: rate(6),
            pause_ticks_max: 0,
            breaks: rate(30),
            hand_over: rate(6),
            calls: 200 + rate(800),
            lull: rate(8),
            scatter: if partitions > 1 { rate(40) } else { splits.rate(40) },
            mute: if partitions > 1 { rate(20) } else { splits.rate(20) },
        };
        // Long pauses are rare, and such runs are longer; of five minutes there are few.
        let pause_ticks_max = match random.below(64) {
            0 => PAUSE_TICKS_LONGEST,
            drawn => [60, 250, 250, 3_000][drawn as usize % 4],
        };
        Self { pause_ticks_max, ..rates }
    }

    /// Nothing fails.
    pub(super) fn healthy(self) -> Self {
        Self {
            loss: 0,
            repeat: 0,
            delay_ticks_max: 1,
            cut: 0,
            crash: 0,
            disk_loss: 0,
            sync_ticks_max: 1,
            pause: 0,
            breaks: 0,
            hand_over: 0,
            scatter: 0,
            mute: 0,
            lull: 0,
            ..self
        }
    }
}
