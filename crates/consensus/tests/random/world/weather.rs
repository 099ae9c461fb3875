//! How much goes wrong in a world, and how much is asked.

use quorate_consensus::random::Random;

/// How bad this seed's world is; rates are in thousandths.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub(super) loss: u64,
    pub(super) repeat: u64,
    /// Messages that are late by many ticks.
    pub(super) late: u64,
    pub(super) write_time_max: u64,
    /// Each tick takes as long as it likes; never with lease reads, which trust clocks.
    pub(super) has_odd_clocks: bool,
    pub(super) propose: u64,
    pub(super) read: u64,
    pub(super) crash: u64,
    pub(super) cut: u64,
    pub(super) mend: u64,
    pub(super) flush: u64,
    pub(super) alarm: u64,
    pub(super) transfer: u64,
    pub(super) snapshot_failure: u64,
    pub(super) change: u64,
}

impl Weather {
    pub(super) fn draw(random: &mut Random, is_leased: bool, is_changing: bool) -> Self {
        let mut pick = |choices: &[u64]| choices[random.between(0, choices.len() as u64) as usize];
        Self {
            loss: pick(&[0, 0, 20, 150]),
            repeat: pick(&[0, 50, 200]),
            late: pick(&[0, 20, 60, 200]),
            write_time_max: pick(&[2, 8, 40, 160]),
            has_odd_clocks: pick(&[0, 1]) == 1 && !is_leased,
            propose: pick(&[3, 50, 200, 500]),
            read: pick(&[3, 50, 200, 500]),
            crash: pick(&[0, 5, 10, 25]),
            cut: pick(&[0, 10, 30, 60]),
            mend: pick(&[5, 20, 60]),
            flush: pick(&[0, 20, 100]),
            alarm: pick(&[0, 5, 30]),
            transfer: pick(&[0, 3, 15]),
            snapshot_failure: pick(&[0, 5]),
            change: if is_changing { pick(&[5, 20, 60]) } else { 0 },
        }
    }
}
